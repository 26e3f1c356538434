"""The caches in the user's cache folder: object models learned from examples, and how all kinds share the room."""

from __future__ import annotations

import io
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from zipfile import BadZipFile, ZipFile, ZipInfo

from sam2_fewshot.errors import InputError
from sam2_fewshot.storage.files import sweep, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_WARNINGS = "warnings.json"
OBJECTS, TILES = "objects", "tiles"
"""The kinds, which are the names of their folders: what was learned from examples, and embeddings of tiles."""


class ModelCache(Protocol):
    """Object models, by keys that depend on all that they were learned from.

    No method raises: what cannot be read or stored is missing, and the work goes on without.
    """

    def get(self, key: str) -> tuple[bytes, Sequence[str]] | None:
        """Return an object model's archive and what the user was warned of when it was learned; None for nothing."""
        ...

    def put(self, key: str, content: bytes, warnings: Sequence[str]) -> None:
        """Store an object model's archive and the warnings."""
        ...

    def drop(self, key: str) -> None:
        """Delete an entry that turned out to be damaged."""
        ...


def with_warnings(content: bytes, warnings: Sequence[str]) -> bytes:
    """Return an object model's archive with one more member: what the user was warned of when it was learned.

    The same give the same bytes: no time of day is in them.
    """
    archive = io.BytesIO(content)
    with ZipFile(archive, "a") as file:
        file.writestr(ZipInfo(_WARNINGS), json.dumps(list(warnings)))
    return archive.getvalue()


def warnings_in(content: bytes) -> list[str] | None:
    """Return the warnings in an archive of :func:`with_warnings`; None where it is damaged."""
    try:
        with ZipFile(io.BytesIO(content)) as file:
            return [str(sentence) for sentence in json.loads(file.read(_WARNINGS))]
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, BadZipFile):
        return None


class FolderCache:
    """A :class:`ModelCache` in a folder of this machine.

    Entries appear whole under their keys, so that any number of programs may share the folder.

    Parameters
    ----------
    root
        Where the caches of all kinds lie.
    room
        Bytes that they may take together.
    """

    def __init__(self, root: Path, room: int) -> None:
        self._root, self._room = root, room

    def get(self, key: str) -> tuple[bytes, Sequence[str]] | None:
        """Return an entry; a damaged one is deleted."""
        entry = self._entry(key)
        try:
            content = entry.read_bytes()
        except OSError:
            return None
        warnings = warnings_in(content)
        if warnings is None:
            drop(entry)
            return None
        used(entry)
        return content, warnings

    def put(self, key: str, content: bytes, warnings: Sequence[str]) -> None:
        """Store an entry, and delete the least recently used ones until all fit into the room."""
        with suppress(InputError):
            write_whole(self._entry(key), with_warnings(content, warnings))
            shrink(self._root, self._room)

    def drop(self, key: str) -> None:
        """Delete an entry."""
        drop(self._entry(key))

    def _entry(self, key: str) -> Path:
        return self._root / OBJECTS / f"{key}.npz"


@dataclass(frozen=True, slots=True)
class Cached:
    """What a cache holds of one kind.

    Parameters
    ----------
    folder
        Where it lies.
    entries, size
        How many there are, and bytes in all.
    """

    folder: Path
    entries: int
    size: int


def cache_folder() -> Path:
    """Return where the folders of all kinds lie on this system."""
    from platformdirs import user_cache_path

    return user_cache_path("sam2-fewshot", appauthor=False)


def cached(root: Path, kind: str) -> Cached:
    """Return what is cached of a kind."""
    files = _entries(root / kind)
    return Cached(root / kind, len(files), sum(size for _, size, _ in files))


def clear(root: Path, kind: str) -> Cached:
    """Delete what is cached of a kind, and return what that was."""
    held = cached(root, kind)
    for _, _, path in _entries(root / kind):
        drop(path)
    for path in (root / kind).glob(".*.part"):
        with suppress(OSError):
            path.unlink()
    return held


def drop(entry: Path) -> None:
    """Delete an entry."""
    with suppress(OSError):
        entry.unlink()


def used(entry: Path) -> None:
    """Mark an entry as used last; only the order of these times counts."""
    with suppress(OSError):
        entry.touch()


def tidy(root: Path) -> None:
    """Remove what killed programs left half written."""
    for kind in (OBJECTS, TILES):
        sweep(root / kind)


def shrink(root: Path, room: int) -> None:
    """Delete the least recently used entries until the rest fits into `room` bytes.

    Tiles go before objects: a set of examples takes half a megabyte and a minute to learn, a tile up to 90 MB and
    seconds to encode.
    """
    entries = [*_entries(root / TILES), *_entries(root / OBJECTS)]
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total <= room:
            return
        drop(path)
        total -= size


def room_for_tile(root: Path, size: int, room: int, since: int) -> bool:
    """Make room for a tile by deleting tiles that were last used before this run; return whether there is room.

    A run goes through its tiles in a circle, and one round may be more than there is room for. If the newest took the
    place of the oldest, each would be gone when its next turn comes; so what a run has used stays to its end.

    Parameters
    ----------
    root
        Where the folders lie.
    size
        Bytes of the tile.
    room
        Bytes that all kinds may take together.
    since
        When this run began, in nanoseconds since 1970. Times in the future, as a clock that was set back leaves them,
        do not count as of this run.
    """
    tiles = _entries(root / TILES)
    left = room - size - sum(size for _, size, _ in [*tiles, *_entries(root / OBJECTS)])
    now = time.time_ns() + 10**9  # a file system's clock may be a little off
    for used_at, freed, path in tiles:
        if left >= 0:
            break
        if not since <= used_at <= now:
            drop(path)
            left += freed
    return left >= 0


def _entries(folder: Path) -> list[tuple[int, int, Path]]:
    """Return the time of the last use, the size, and the path of each entry, the least recently used first."""
    found = []
    with suppress(OSError):
        for path in folder.glob("*.npz"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
    return sorted(found)
