"""The cache in the user's cache folder: object models learned from examples."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from zipfile import ZipFile, ZipInfo

from sam2_fewshot.errors import InputError
from sam2_fewshot.storage.arrays import DAMAGES
from sam2_fewshot.storage.files import telling, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_WARNINGS = "warnings.json"


class ModelCache(Protocol):
    """Object models, by keys that depend on all that they were learned from.

    No method raises: what cannot be read or stored is missing, and the work goes on without.
    """

    def get(self, key: str) -> tuple[bytes, Sequence[str]] | None:
        """Return an object model's archive and what the user was warned of when it was learned; None for nothing."""
        ...

    def put(self, key: str, content: bytes, warnings: Sequence[str]) -> None:
        """Store an object model's archive and the warnings, in place of what the key has."""
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
    except DAMAGES:
        return None


class FolderCache:
    """A :class:`ModelCache` in a folder of this machine.

    Entries appear whole under their keys, so that any number of programs may share the folder.

    Parameters
    ----------
    root
        Where the entries lie.
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
            _drop(entry)
            return None
        with suppress(OSError):
            entry.touch()  # only the order of these times counts
        return content, warnings

    def put(self, key: str, content: bytes, warnings: Sequence[str]) -> None:
        """Store an entry, and delete the least recently used ones until all fit into the room."""
        with suppress(InputError):
            write_whole(self._entry(key), with_warnings(content, warnings))
            _shrink(self._root, self._room)

    def _entry(self, key: str) -> Path:
        return self._root / f"{key}.npz"


@dataclass(frozen=True, slots=True)
class Cached:
    """What a cache holds.

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
    """Return where it lies on this system."""
    from platformdirs import user_cache_path

    return user_cache_path("sam2-fewshot", appauthor=False) / "objects"


def cached(root: Path) -> Cached:
    """Return what is cached in a folder."""
    files = _entries(root)
    return Cached(root, len(files), sum(size for _, size, _ in files))


def clear(root: Path) -> Cached:
    """Delete what is cached in a folder, and return what that was.

    Raises
    ------
    InputError
        If something there cannot be deleted.
    """
    held = cached(root)
    for path in [*root.glob("*.npz"), *root.glob(".*.part")]:
        with telling(path), suppress(FileNotFoundError):  # another program was faster
            path.unlink()
    return held


def _drop(entry: Path) -> None:
    with suppress(OSError):
        entry.unlink()


def _shrink(root: Path, room: int) -> None:
    """Delete the least recently used entries until the rest fits into `room` bytes."""
    entries = _entries(root)
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total <= room:
            return
        _drop(path)
        total -= size


def _entries(folder: Path) -> list[tuple[int, int, Path]]:
    """Return the time of the last use, the size, and the path of each entry, the least recently used first."""
    found = []
    with suppress(OSError):
        for path in folder.glob("*.npz"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
    return sorted(found)
