"""How much of a frame is learned from or searched at a time, so that it fits into the memory beside all else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam2_fewshot.examples.windows import part_size
from sam2_fewshot.records import held_bytes
from sam2_fewshot.resources import (
    FEWEST_EMBEDDINGS,
    block_pixels,
    budget,
    bytes_of_embeddings,
    memory_of,
    rounded_up,
)
from sam2_fewshot.tiling.blocks import least_pixels

if TYPE_CHECKING:
    from sam2_fewshot.methods.base import Method
    from sam2_fewshot.protocols import Backbone, Progress
    from sam2_fewshot.records import FrameReader

_LEAST_PART = 1 << 18
"""Pixels (512 × 512) of the part of a frame that is learned from at least."""


class Memory:
    """What Max Memory lets a method hold of a frame beside a backbone.

    Parameters
    ----------
    backbone, method
        What takes memory.
    max_memory
        In GB; see :func:`~sam2_fewshot.resources.budget`.
    progress
        Is warned.
    """

    def __init__(self, backbone: Backbone, method: Method, max_memory: float, progress: Progress) -> None:
        self._backbone = backbone
        self._method = method
        self._max_memory = max_memory
        self._progress = progress

    @property
    def learning_tiles(self) -> int:
        """Of how many tiles the embeddings are held while learning; 0 where the method holds none.

        What is learned depends on it.
        """
        return int(getattr(self._method, "held_tiles", 0))

    @property
    def learning_pixels(self) -> int:
        """How many pixels of a frame may be learned from at a time.

        However little memory there is, they are enough for some background around the examples: without it, nearly
        everything looks like an object.
        """
        allowed = block_pixels(self._max_memory, learning=True, beside=self._beside_learning(self.learning_tiles))
        return max(_LEAST_PART, allowed)

    def part_size(self, frame: FrameReader) -> int:
        """Return about how many pixels the parts have in which a frame is learned from; 0 for the whole of it.

        What is learned depends on it.
        """
        return part_size(frame.shape, self.learning_pixels)

    def least_for_learning(self) -> float:
        """Return about how much memory is taken at least, in GB, by learning from a small part of a frame."""
        fewest = min(self.learning_tiles, FEWEST_EMBEDDINGS)
        return memory_of(_LEAST_PART, learning=True, beside=self._beside_learning(fewest))

    def check_learning(self) -> None:
        """Warn where the memory is short for learning."""
        self._warn("Learning", self.least_for_learning())

    def search_pixels(self, frame: FrameReader, step: int) -> int:
        """Return how many pixels of a frame may be searched at a time.

        Parameters
        ----------
        frame
            To be searched.
        step
            After how many pixels the method's own tiles repeat.
        """
        return block_pixels(self._max_memory, step, tile_bytes=self._bytes_of_a_tile, beside=self._beside(frame))

    def least_for_search(self, frame: FrameReader, step: int, longest: float) -> float:
        """Return about how much memory is taken at least, in GB, by the search of a frame in the smallest blocks.

        Parameters
        ----------
        frame, step
            As for :meth:`search_pixels`.
        longest
            Longest side of an example, in pixels.
        """
        pixels = min(frame.shape[0] * frame.shape[1], least_pixels(longest, step))
        return self._of_search(frame, step, pixels)

    def check_search(self, frame: FrameReader, step: int, longest: float) -> None:
        """Warn where the memory is short for the search of a frame in the smallest blocks."""
        self._warn("Searching objects of this size", self.least_for_search(frame, step, longest))

    def left_by_search(self, frame: FrameReader, step: int, pixels: int) -> int:
        """Return how many bytes the search of so many pixels of a frame at a time leaves; negative if it lacks some."""
        return budget(self._max_memory) - int(self._of_search(frame, step, pixels) * 1e9)

    def _of_search(self, frame: FrameReader, step: int, pixels: int) -> float:
        return memory_of(pixels, step, tile_bytes=self._bytes_of_a_tile, beside=self._beside(frame))

    def _warn(self, what: str, least: float) -> None:
        allowed = budget(self._max_memory) / 1e9
        if least > allowed:
            self._progress.warn(
                f"{what} takes about {rounded_up(least):g} GB of memory at least, which may take more than Max Memory "
                f"allows: {allowed:.2g} GB, set or reckoned from what the machine or container has. If the memory does "
                "not suffice, raise Max Memory, give the program more memory, or choose a smaller model."
            )

    def _beside(self, frame: FrameReader) -> int:
        """Return how many bytes a search takes besides: the backbone's, and those of a frame that is held whole."""
        return self._backbone.extra_bytes + held_bytes(frame)

    def _beside_learning(self, tiles: int) -> int:
        """Return what learning takes besides a frame: the backbone, and the embeddings of so many tiles."""
        backbone = self._backbone
        held = bytes_of_embeddings(tiles, backbone.embedding_bytes) if backbone.on_cpu else 0
        return backbone.extra_bytes + held

    @property
    def _bytes_of_a_tile(self) -> int:
        """What is held of a tile: its embedding, and a quarter of that of one twice as wide around it."""
        return self._backbone.embedding_bytes * 5 // 4
