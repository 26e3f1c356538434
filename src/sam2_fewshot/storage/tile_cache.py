"""Embeddings of tiles, cached on the disk where they take longer to compute than to read."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.storage.cache import TILES, drop, room_for_tile, tidy, used

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.settings import Settings

_CHECKSUM = "checksum"
_OVERHEAD = 4096
"""Bytes that an archive takes besides its arrays, at most."""
_TICK = 20_000_000
"""Nanoseconds by which the time of a file may lie behind the clock: Linux stamps files with that of the last tick."""


class TileCache:
    """A :class:`~sam2_fewshot.protocols.TileStore` on the disk.

    Entries appear whole, are checked when they are read, and are deleted when they are damaged. What cannot be written
    is not cached and not reported, since the work goes on without.

    Parameters
    ----------
    root
        Where the caches of all kinds lie.
    room
        Bytes that they may take together.
    clock
        Gives the time in nanoseconds since 1970.
    """

    def __init__(self, root: Path, room: int, clock: Callable[[], int] = time.time_ns) -> None:
        self._root, self._room = root, room
        self._since = clock() - _TICK
        tidy(root)

    def get(self, key: str) -> Mapping[str, NDArray[Any]] | None:
        """Return what was put under a key, None when it is not there or damaged."""
        path = self._path(key)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            if arrays.pop(_CHECKSUM).tobytes() != _checksum(key, arrays):
                raise ValueError("the content is not what was written")
        except FileNotFoundError:
            return None
        except Exception:  # a damaged archive fails in a dozen ways, and the answer to all is the same
            drop(path)
            return None
        used(path)
        return arrays

    def put(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store arrays under a key, if there is room beside what this run has used already."""
        path = self._path(key)
        size = sum(array.nbytes for array in arrays.values()) + _OVERHEAD
        if not room_for_tile(self._root, size, self._room, self._since):
            return
        beside = path.with_name(f".{os.getpid()}-{threading.get_ident()}-{key[:16]}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content: dict[str, Any] = {**arrays, _CHECKSUM: np.frombuffer(_checksum(key, arrays), np.uint8)}
            # Not forced to the disk, which would take longer than all the rest; after a power failure the checksum
            # shows what is damaged.
            with beside.open("wb") as file:
                np.savez(file, **content)
            beside.replace(path)
        except OSError:
            with suppress(OSError):
                beside.unlink()

    def _path(self, key: str) -> Path:
        return self._root / TILES / f"{key}.npz"


def tile_cache(backbone: Backbone, settings: Settings, root: Path) -> TileCache | None:
    """Return a cache for a backbone's tiles, None where none is wanted or worth it.

    Parameters
    ----------
    backbone
        By ``auto``, the tiles of one that is slow to encode are cached.
    settings
        ``cache_embeddings`` and ``cache_size`` are used.
    root
        Where the caches lie.
    """
    auto = settings.cache_embeddings == "auto"
    wanted = settings.cache_embeddings == "on" or (auto and backbone.slow_to_encode)
    return TileCache(root, settings.cache_size * 1_000_000) if wanted and settings.cache_size else None


def _checksum(key: str, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    digest = hashlib.blake2b(key.encode(), digest_size=32)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.digest()
