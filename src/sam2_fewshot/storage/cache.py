"""What was learned from examples, cached on the disk so that the same examples need not be learned again."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam2_fewshot.storage.files import sweep

if TYPE_CHECKING:
    from pathlib import Path

OBJECTS, TILES = "objects", "tiles"
"""The kinds, which are the names of their folders: what was learned from examples, and embeddings of tiles."""


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
    """Look at what is kept of a kind."""
    files = _entries(root / kind)
    return Cached(root / kind, len(files), sum(size for _, size, _ in files))


def clear(root: Path, kind: str) -> Cached:
    """Delete what is kept of a kind, and return what that was."""
    held = cached(root, kind)
    for _, _, path in _entries(root / kind):
        drop(path)
    for path in (root / kind).glob(".*.part"):
        with suppress(OSError):
            path.unlink()
    return held


def drop(entry: Path) -> None:
    """Delete an entry, with what is said beside it."""
    for path in (entry, entry.with_suffix(".json")):
        with suppress(OSError):
            path.unlink()


def used(entry: Path) -> None:
    """Mark an entry as used last; only the order of these times counts."""
    with suppress(OSError):
        entry.touch()


def tidy(root: Path) -> None:
    """Remove what killed programs left half written."""
    for kind in (OBJECTS, TILES):
        sweep(root / kind)


def shrink(root: Path, room: int) -> None:
    """Delete what was not used for longest until the rest fits into `room` bytes.

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
    """Make room for a tile at the cost of tiles that were last used before this run; tell whether there is any.

    A run goes through its tiles in a circle, and one round may be more than there is room for. If the newest took the
    place of the oldest, each would be gone when its turn comes again; so what a run has used stays to its end.

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
    """Return the time of the last use, the size, and the path of each entry, the longest unused first."""
    found = []
    with suppress(OSError):
        for path in folder.glob("*.npz"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
    return sorted(found)
