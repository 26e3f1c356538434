"""Pictures of discs, and a segmenter that finds bright things with the real blocks around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sam2_fewshot import FewShotSegmenter, Frame, Settings
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.methods.base import Found, RunStats, is_known
from sam2_fewshot.resources import BYTES_PER_PIXEL, RESERVE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.methods.base import Shown
    from sam2_fewshot.records import Box, Detection, InstanceMask


def memory_for(pixels: int) -> float:
    """Max Memory in GB with which blocks of so many pixels are searched."""
    return (RESERVE + (pixels + 0.5) * BYTES_PER_PIXEL) / 1e9


def scene(side: int = 400, count: int = 60, radius: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    """Bright discs on black, apart from one another, some of them cut by the frame."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    grey = np.zeros((side, side), np.uint8)
    placed: list[NDArray[np.int64]] = []
    while len(placed) < count:
        centre = rng.integers(0, side, 2)
        if all(np.hypot(*(centre - other)) > 2 * radius + 4 for other in placed):
            placed.append(centre)
            grey[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2] = 150 + len(placed) % 100
    return np.repeat(grey[..., None], 3, axis=2)


class Bright:
    """A Method that finds connected bright pixels; the score is the brightness."""

    def learn(self, shown: Sequence[Shown]) -> Mapping[str, NDArray[np.generic]]:
        return {"seen": np.array([frame.pixels.shape[:2] for frame in shown])}

    def find(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        stats: RunStats,
    ) -> list[Found]:
        labels, count = ndimage.label(pixels[..., 0] > 100)
        stats.candidates = count
        found = []
        for number in range(1, count + 1):
            mask = crop_to_object(labels == number)
            if not is_known(mask, known):
                found.append(Found(mask, float(pixels[..., 0][labels == number].max()) / 255, 0.9))
        return found


class BrightSegmenter(FewShotSegmenter):
    """A FewShotSegmenter whose method is :class:`Bright`; its tiles repeat after one pixel."""

    def __init__(self, model: Sam2Model, pixels: int, progress: object = None) -> None:
        super().__init__(
            model,
            settings=Settings(method="grid", max_memory=memory_for(pixels)),
            progress=progress,  # type: ignore[arg-type]
        )
        self._method = Bright()


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
