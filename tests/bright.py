"""The one stand-in of these tests: a segmenter that finds bright things, with all else as it is in the program."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy import ndimage

from sam2_fewshot import FewShotSegmenter
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.methods.base import Scored, ScoredMask, is_known
from sam2_fewshot.storage.arrays import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import Place, Stopwatch, TrainingFrame
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import FrameReader, FrameResult, InstanceMask
    from sam2_fewshot.settings import Settings
    from sam2_fewshot.tiling.blocks import BlockResult, SearchPlan


@dataclass
class BrightMethod:
    """A Method that finds connected bright pixels, the same in any part of a frame; its tiles repeat at each pixel.

    Parameters
    ----------
    level
        Pixels of the first channel above this are bright.
    score, similarity, predicted_iou
        Of everything found; a score of None is the brightness of its brightest pixel, as a share of white.
    finds_examples
        Whether examples are found like everything else.
    pause
        Seconds that a search takes besides.
    on_learn, on_find
        Called before frames are learned from, and with the number of the search, from 1, before a frame or a block is
        searched; what they raise is raised.
    """

    level: int = 127
    score: float | None = 0.9
    similarity: float = 0.9
    predicted_iou: float = 0.8
    finds_examples: bool = True
    pause: float = 0.0
    on_learn: Callable[[], None] = lambda: None
    on_find: Callable[[int], None] = lambda number: None
    learned: int = 0
    searched: int = 0
    shapes: list[tuple[int, int]] = field(default_factory=list)
    layouts: ClassVar[Mapping[str, Layout]] = {"seen": Layout("i8", ("frames", 2), least=1)}

    def learn(self, frames: Sequence[TrainingFrame]) -> Mapping[str, NDArray[np.generic]]:
        self.learned += 1
        self.on_learn()
        return {"seen": np.array([frame.pixels.shape[:2] for frame in frames])}

    def detect(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        watch: Stopwatch,
        place: Place,
    ) -> Scored:
        self.searched += 1
        self.shapes.append((pixels.shape[0], pixels.shape[1]))
        time.sleep(self.pause)
        self.on_find(self.searched)
        with watch.stage("propose"):
            labels, count = ndimage.label(pixels[..., 0] > self.level)
        masks = []
        for number, place in enumerate(ndimage.find_objects(labels), 1):
            here = labels[place] == number
            mask = crop_to_object(here, labels.shape, place[1].start, place[0].start)
            if self.finds_examples or not is_known(mask, known):
                score = float(pixels[..., 0][place][here].max()) / 255 if self.score is None else self.score
                masks.append(ScoredMask(mask, score, self.similarity, self.predicted_iou))
        return Scored(masks, count + 1, [item.mask for item in masks])

    def summary(self, learned: Mapping[str, NDArray[np.generic]]) -> str:
        return "The examples are bright."

    def step(self, learned: Mapping[str, NDArray[np.generic]]) -> int:
        return 1


class BrightSegmenter(FewShotSegmenter):
    """A FewShotSegmenter with the backbone ``filters`` and a :class:`BrightMethod`.

    Parameters
    ----------
    settings, progress
        As for every segmenter.
    bright
        The method.
    on_plan, on_join
        Called before it is decided how to search a frame, and before what was found in its blocks is joined; what they
        raise is raised.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        progress: Progress | None = None,
        bright: BrightMethod | None = None,
        on_plan: Callable[[FrameReader], None] = lambda frame: None,
        on_join: Callable[[FrameReader], None] = lambda frame: None,
    ) -> None:
        self.bright = bright or BrightMethod()
        self.on_plan, self.on_join = on_plan, on_join
        self.calls: list[str] = []
        super().__init__("filters", settings=settings, progress=progress, method=self.bright)

    @property
    def fitted(self) -> int:
        """Number of examples that were learned from, now or before; 0 where nothing was learned."""
        return len(self._objects.known) if self._objects else 0

    def plan(self, frame: FrameReader, shift: tuple[int, int] = (0, 0)) -> SearchPlan:
        """Note the frame's name, and decide how to search it."""
        self.calls.append(frame.name)
        self.on_plan(frame)
        return super().plan(frame, shift)

    def join(self, frame: FrameReader, plan: SearchPlan, results: Sequence[BlockResult]) -> FrameResult:
        """Join what was found."""
        self.on_join(frame)
        return super().join(frame, plan, results)


def make_bright(model: str, device: str, settings: Settings, progress: Progress) -> BrightSegmenter:
    """Make a segmenter in the place of :class:`~sam2_fewshot.FewShotSegmenter`; it can be pickled."""
    return BrightSegmenter(settings, progress)


_MAKERS: dict[int, BrightMaker] = {}
_NUMBERS = count()


def _maker(number: int) -> BrightMaker:
    return _MAKERS[number]


class BrightMaker:
    """Makes segmenters as :func:`make_bright`, and remembers them.

    Within this process a pickled copy is the maker itself, so that a test sees what Dask's workers in threads make.

    Parameters
    ----------
    bright
        Options of the methods.
    options
        Of the segmenters.
    """

    def __init__(self, bright: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.bright, self.options = dict(bright or {}), options
        self.made: list[BrightSegmenter] = []
        self._number = next(_NUMBERS)
        _MAKERS[self._number] = self

    def __call__(self, model: str, device: str, settings: Settings, progress: Progress) -> BrightSegmenter:
        self.made.append(BrightSegmenter(settings, progress, BrightMethod(**self.bright), **self.options))
        return self.made[-1]

    def __reduce__(self) -> tuple[Any, ...]:
        return _maker, (self._number,)

    @property
    def calls(self) -> list[str]:
        """Names of the frames that the last segmenter was to search."""
        return self.made[-1].calls
