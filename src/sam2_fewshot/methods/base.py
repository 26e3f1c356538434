"""What all methods share: what they learn from, what they return, and how long it takes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sam2_fewshot.geometry.overlap import shared_area

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, InstanceMask

_SAME_OBJECT = 0.5
"""A mask that shares more than this of the smaller of the two with a wanted example is no other object."""


@dataclass(frozen=True, eq=False)
class TrainingFrame:
    """A frame, or a part of a large one, with the examples on it.

    Parameters
    ----------
    pixels
        uint8 RGB (H, W, 3).
    positives, negatives
        Masks of the wanted examples and of the negative examples on it.
    number
        Which frame it is; parts of the same one have the same number.
    name
        What to call the frame in messages.
    corner
        Column and row of ``pixels[0, 0]`` in the frame.
    adopted
        So many of the positives, the last ones, were not marked by the user.
    others
        Masks of what else the user marked on it. They are learned from on another part of the same frame, or not at
        all, and are neither objects nor ground here.
    """

    pixels: NDArray[np.uint8]
    positives: Sequence[InstanceMask]
    negatives: Sequence[InstanceMask] = ()
    number: int = 0
    name: str = "image"
    corner: tuple[int, int] = (0, 0)
    adopted: int = 0
    others: Sequence[InstanceMask] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def marked(self) -> Sequence[InstanceMask]:
        """The wanted examples that the user marked."""
        return self.positives[: len(self.positives) - self.adopted]


@dataclass(frozen=True, eq=False)
class ScoredMask:
    """A mask that may be an object like the examples.

    Parameters
    ----------
    mask
        Of any number of parts.
    score
        In [0, 1].
    similarity
        Raw cosine similarity to the examples, in [-1, 1].
    predicted_iou
        The backbone's own estimate of the mask's quality; NaN for a mask that was not prompted.
    """

    mask: InstanceMask
    score: float
    similarity: float
    predicted_iou: float = float("nan")


class Scored(NamedTuple):
    """What a method makes of a frame.

    Parameters
    ----------
    masks
        With scores, those below the threshold included.
    candidates
        Number of masks that were compared with the examples.
    proposed
        All masks that were proposed, scored or not; where marks were eroded, cores.
    least_area
        The smallest area in pixels that was looked for; 0 for any.
    """

    masks: list[ScoredMask]
    candidates: int
    proposed: list[InstanceMask]
    least_area: int = 0


class Stopwatch:
    """Adds up the wall-clock seconds of stages; ``seconds`` has them by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the ``with`` block takes to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class Place(NamedTuple):
    """Where pixels lie that are searched.

    Parameters
    ----------
    window
        Box ``(x0, y0, x1, y1)`` of the frame.
    frame_shape
        ``(height, width)`` of the frame.
    """

    window: Box
    frame_shape: tuple[int, int]


class Method(Protocol):
    """A way to find objects.

    One that is not of this program has ``layouts`` besides, the
    :class:`~sam2_fewshot.storage.arrays.Layout` of each array that :meth:`learn` returns, by name. One that holds
    embeddings of many tiles when it learns has ``held_tiles``, how many at most.
    """

    def learn(self, frames: Sequence[TrainingFrame]) -> Mapping[str, NDArray[np.generic]]:
        """Return all that is needed to find objects like the wanted examples, as arrays by name."""
        ...

    def detect(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        watch: Stopwatch,
        place: Place,
    ) -> Scored:
        """Return what may be such objects on a frame.

        Parameters
        ----------
        learned
            What :meth:`learn` returned.
        pixels
            uint8 RGB (H, W, 3).
        known
            Masks of the wanted examples on this frame, which are not detected again. What lies in a negative example
            is left out afterwards.
        watch
            Takes the time of each stage.
        place
            Where the pixels lie in their frame, which may be larger.
        """
        ...

    def summary(self, learned: Mapping[str, NDArray[np.generic]]) -> str:
        """Return in words how well the examples are found again, and what is to be expected; empty if not known."""
        ...

    def step(self, learned: Mapping[str, NDArray[np.generic]]) -> int:
        """Return after how many pixels the method's own tiles repeat; 1 where it has none."""
        ...


def is_known(mask: InstanceMask, known: Sequence[InstanceMask]) -> bool:
    """Tell whether a mask is one of the wanted examples, a part of one, or holds one."""
    return any(shared_area(mask, other) > _SAME_OBJECT * min(mask.area, other.area) for other in known)


def lies_in(mask: InstanceMask, unwanted: Sequence[InstanceMask]) -> bool:
    """Tell whether most of a mask lies in one that is not wanted, so that it is that or a part of it.

    What merely holds it, as a cell holds a nucleus, may be wanted.
    """
    return any(shared_area(mask, other) > _SAME_OBJECT * mask.area for other in unwanted)
