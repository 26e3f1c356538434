"""Pictures of discs, and a segmenter that finds bright things with the real blocks around it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bright import BrightMethod, BrightSegmenter
from sam2_fewshot import Frame, Settings
from sam2_fewshot.resources import BYTES_PER_PIXEL, reserve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Box, Detection


def memory_for(pixels: int) -> float:
    """Max Memory in GB with which blocks of so many pixels are searched."""
    return (reserve() + (pixels + 0.5) * BYTES_PER_PIXEL) / 1e9


def scene(side: int = 400, count: int = 60, radius: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    """Bright discs on black, apart from one another, some of them cut by the frame."""
    rng = np.random.default_rng(seed)
    grey = np.zeros((side, side), np.uint8)
    placed: list[NDArray[np.int64]] = []
    while len(placed) < count:
        centre = rng.integers(0, side, 2)
        if not placed or np.hypot(*(centre - placed).T).min() > 2 * radius + 4:
            placed.append(centre)
            top, left = np.maximum(centre - radius, 0)
            around = grey[top : centre[0] + radius + 1, left : centre[1] + radius + 1]
            rows, columns = np.ogrid[top : top + around.shape[0], left : left + around.shape[1]]
            here = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
            around[here] = 150 + len(placed) % 100
    return np.repeat(grey[..., None], 3, axis=2)


BRIGHT = {"level": 100, "score": None, "finds_examples": False}
"""Options of the method that finds the discs of a :func:`scene`; the score is the brightness."""


def bright_segmenter(pixels: int, progress: Progress | None = None, **changes: Any) -> BrightSegmenter:
    """A segmenter that searches blocks of so many pixels; `changes` are of its settings."""
    settings = Settings(method="grid", max_memory=memory_for(pixels), **changes)
    return BrightSegmenter(settings, progress, BrightMethod(**BRIGHT))


def with_stand_in() -> dict[str, str]:
    """Environment of a program that finds the stand-in beside these tests."""
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}


class Watched:
    """A FrameReader that notes which regions are read."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._frame = Frame(pixels)
        self.name, self.location, self.shape = "slide.tif", self._frame.location, self._frame.shape
        self.regions: list[Box] = []

    def read(self, region: Box | None = None) -> NDArray[np.uint8]:
        self.regions.append(region or (0, 0, self.shape[1], self.shape[0]))
        return self._frame.read(region)


class Heard:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.stages: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.stages.append(stage)

    def advance(self, steps: int = 1) -> None: ...

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def as_set(found: Sequence[Detection]) -> set[tuple[object, ...]]:
    """What was found, in a form in which two results can be compared to the last pixel and vertex."""
    return {(item.bbox, item.instance.data.tobytes(), item.polygon.wkb, item.score) for item in found}
