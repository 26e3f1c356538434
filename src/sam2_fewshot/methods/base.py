"""What all methods share."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sam2_fewshot.geometry.outlines import largest_part, mask_to_polygon
from sam2_fewshot.geometry.overlap import shared_area
from sam2_fewshot.records import Detection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.records import InstanceMask, Location

_SAME_OBJECT = 0.5
"""A mask that shares more than this of the smaller of the two with an example is that example, or a part of it."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame with its examples.

    Parameters
    ----------
    pixels
        uint8 RGB (H, W, 3).
    wanted, unwanted
        Masks of the examples and of the negative examples on it.
    """

    pixels: NDArray[np.uint8]
    wanted: Sequence[InstanceMask]
    unwanted: Sequence[InstanceMask] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """A mask that looks like the examples.

    Parameters
    ----------
    mask
        Of any number of parts.
    score
        In [0, 1].
    similarity
        Raw cosine similarity to the examples, in [-1, 1].
    predicted_iou
        SAM 2's own guess of the mask's quality; NaN for a mask that was not prompted.
    """

    mask: InstanceMask
    score: float
    similarity: float
    predicted_iou: float = float("nan")


@dataclass
class RunStats:
    """What the last search did.

    Parameters
    ----------
    candidates
        How many masks were compared with the examples.
    seconds
        Wall-clock seconds of each stage.
    blocks, blank
        In how many blocks the frame was searched, and how many of them were passed over because they show nothing.
    below
        What was found with a score below the threshold, best first.
    floor
        The score down to which `below` is complete.
    threshold, reason
        The score that had to be reached, and how it came about, in words.
    proposed
        When it is a list, all masks that were proposed are added to it, those that were not judged, too. They may be
        thousands, so by default it is None.
    """

    candidates: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    blocks: int = 1
    blank: int = 0
    below: list[Detection] = field(default_factory=list)
    floor: float = 0.0
    threshold: float = 0.0
    reason: str = ""
    proposed: list[InstanceMask] | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def outlined(found: Iterable[Found], location: Location, floor: float, smoothing: float) -> list[Detection]:
    """Return what has a score of at least `floor`, each the largest of its parts, with its outline.

    Parameters
    ----------
    found
        With masks of the whole frame.
    location
        Of the frame.
    floor
        In [0, 1].
    smoothing
        As in :func:`~sam2_fewshot.geometry.outlines.mask_to_polygon`, pixels.
    """
    return [
        Detection(
            instance=(part := largest_part(item.mask)),
            polygon=mask_to_polygon(part, smoothing),
            score=item.score,
            similarity=item.similarity,
            predicted_iou=item.predicted_iou,
            location=location,
        )
        for item in found
        if item.score >= floor
    ]


class Method(Protocol):
    """A way to find objects."""

    def learn(self, shown: Sequence[Shown]) -> Mapping[str, NDArray[np.generic]]:
        """Return all that is needed to find objects like the wanted examples, as arrays by name."""
        ...

    def find(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        stats: RunStats,
    ) -> list[Found]:
        """Return what may be such objects on a frame, those below the threshold included.

        Parameters
        ----------
        learned
            What :meth:`learn` returned.
        pixels
            uint8 RGB (H, W, 3).
        known
            Masks of the examples on this frame, which are not found again.
        stats
            Is told the number of candidates and the time of each stage.
        """
        ...


def is_known(mask: InstanceMask, known: Sequence[InstanceMask]) -> bool:
    """Tell whether a mask is one of the examples, or a part of one."""
    return any(shared_area(mask, other) > _SAME_OBJECT * min(mask.area, other.area) for other in known)
