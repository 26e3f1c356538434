"""Backbones around another: one that encodes a window of an image once, and one whose work can be stopped."""

from __future__ import annotations

from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.storage.digests import pixels_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone, Tile
    from sam2_fewshot.records import Box

    Key = tuple[bytes, tuple[int, ...], Box]


class _Around:
    """Gives what the backbone within has, for all that it has not itself."""

    _backbone: Backbone

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of a copy that is being made, which has no backbone yet
            raise AttributeError(name)
        return getattr(self._backbone, name)


class Remembering(_Around):
    """A :class:`~sam2_fewshot.protocols.Backbone` that keeps the tiles it has encoded.

    What was learned from is searched, and learned from again.

    What is found is the same to the last bit: a tile is kept as it was encoded, and is given again for the same window
    of an image with the same pixels only.

    Parameters
    ----------
    backbone
        Encodes the tiles, and does all else. It takes one at a time; of several the kept ones may hold the memory of
        the others.
    room
        Bytes of the kept tiles.
    keeps
        Whether all that is encoded is kept. Where there is no room, tiles chosen at random give way: if those that were
        used last were kept, an image of a few more tiles than there is room for would find none of them again. If not,
        only the first tiles that are encoded within :meth:`keeping` are.
    """

    def __init__(self, backbone: Backbone, room: int, *, keeps: bool = True) -> None:
        self._backbone, self._room, self._keeps, self._is_learning = backbone, room, keeps, False
        self._kept: dict[Key, Tile] = {}
        self._bytes = 0
        self._rng = np.random.default_rng(0)
        self._lock = RLock()  # several threads may search

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tiles out of copies."""
        state = {**vars(self), "_kept": {}, "_bytes": 0}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Give a copy a lock of its own."""
        vars(self).update(state)
        self._lock = RLock()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep what is encoded meanwhile, as far as there is room, and nothing from before."""
        self.limit(0)
        self._is_learning = True
        try:
            yield
        finally:
            self._is_learning = False

    def limit(self, room: int) -> None:
        """Let tiles go, chosen at random, until the kept ones take so many bytes at most."""
        with self._lock:
            while self._kept and self._bytes > room:
                leaving = list(self._kept)[self._rng.integers(len(self._kept))]
                self._bytes -= self._size(self._kept.pop(leaving))

    @property
    def extra_bytes(self) -> int:
        """What the backbone takes, and the room of the tiles if all that are encoded are kept."""
        return self._backbone.extra_bytes + (self._room if self._keeps else 0)

    def tiles(
        self,
        image: NDArray[np.uint8],
        windows: Sequence[Box],
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> Iterator[Tile]:
        """Encode windows of an image, those that are not kept; see :class:`~sam2_fewshot.protocols.Backbone`."""
        if not self._kept and not (self._room and (self._keeps or self._is_learning)):
            yield from self._backbone.tiles(image, windows, on_batch)
            return
        digest = pixels_digest(image)
        keys = [(digest, image.shape, window) for window in windows]
        kept = {key: tile for key in keys if (tile := self._kept.get(key)) is not None}
        encoded = self._backbone.tiles(image, [key[-1] for key in keys if key not in kept], on_batch)
        for key in keys:
            if key in kept:
                on_batch(1)
                yield kept[key]
            else:
                tile = next(encoded)
                self._keep(key, tile)
                yield tile
        next(encoded, None)  # so that it tells of its last batch

    def _keep(self, key: Key, tile: Tile) -> None:
        size = self._size(tile)
        with self._lock:
            if key in self._kept or size > self._room:
                return
            if self._keeps:
                self.limit(self._room - size)
            elif not self._is_learning or self._bytes + size > self._room:
                return
            self._kept[key] = tile
            self._bytes += size

    def _size(self, tile: Tile) -> int:
        return tile.level_bytes + self._backbone.embedding_bytes


_CALLS = frozenset({"embed", "pool", "pool_frame", "prompt", "prompt_boxes", "tiles"})


class Interruptible(_Around):
    """A :class:`~sam2_fewshot.protocols.Backbone` that first asks whether to go on.

    So its work can be stopped from another thread: learning reports its progress seldom, and calls the backbone often.

    Parameters
    ----------
    backbone
        Does the work.
    check
        Called before each encoding and each prompt; an exception that it raises stops the work.
    """

    def __init__(self, backbone: Backbone, check: Callable[[], None]) -> None:
        self._backbone, self._check = backbone, check

    def __getattr__(self, name: str) -> Any:
        if name in _CALLS:
            self._check()
        return super().__getattr__(name)
