"""The second look: SAM 2 is asked about the best candidates, and what it says is judged along with them.

Components of maps come in nests, an object's parts within it and its unions with neighbours around it, and their looks
alone often do not tell which one is the object. SAM 2's masks of their boxes do (:mod:`sam2_fewshot.proposals.boxes`).
How far it is to be trusted is learned on the examples, because checkpoints differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.overlap import mask_iou, shared_area
from sam2_fewshot.methods.common import is_known
from sam2_fewshot.similarity.descriptors import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.proposals.boxes import Opinion
    from sam2_fewshot.records import InstanceMask
    from sam2_fewshot.similarity.descriptors import FrameMaps
    from sam2_fewshot.similarity.support import Proposed

OPINIONS = 4
"""Numbers that an opinion adds to a candidate's descriptors."""

_SAME = 0.8
"""Of candidates with a larger IoU only the best is asked about."""
_PER_TILE, _LEAST, _PER_LIKELY = 16, 192, 4
"""So many candidates are asked about a tile, a frame, and a likely object, whichever are most. Encoding a tile costs as
much as about 20 prompts; a grid of 64 points a side would be 4,096 prompts."""
_EXPLAINS = 1.5
"""Log-odds at the first look, a chance of .82, from which on a peak within a candidate is not prompted. With 0 the mean
F1 of fifteen tasks is .01 lower, most of it on grey tissue; without it nothing is found better."""
_OVERLAP = 0.2
"""A candidate that shares more than this of its area with better ones is dropped."""
_PER_EXAMPLE, _AWAY = 12, 100
"""On the examples' frames: candidates asked about that overlap an example, and of the others."""
_ALIKE_AWAY = 0.6


@dataclass(frozen=True, eq=False)
class SecondPool:
    """Candidates and SAM 2's masks of them, to be judged together.

    Parameters
    ----------
    masks
        Both.
    features
        float64 (N, 19 + 4): descriptors; predicted IoU, stability and agreement of the opinion, NaN where there is
        none; and 1 for SAM 2's mask, 0 for the candidate.
    """

    masks: list[InstanceMask]
    features: NDArray[np.float64]


def second_pool(
    candidates: Sequence[InstanceMask],
    descriptors: NDArray[np.float64],
    opinions: Sequence[Opinion | None],
    maps: FrameMaps,
    diameter: float,
    areas: tuple[float, float],
    among: Proposed,
) -> SecondPool:
    """Put candidates and SAM 2's masks of them into one pool.

    Parameters
    ----------
    candidates, descriptors, opinions
        One each.
    maps, diameter, among
        As in :func:`~sam2_fewshot.similarity.descriptors.describe`.
    areas
        Smallest and largest area of a mask in pixels; SAM 2's masks beyond are left out.
    """
    nothing = (np.nan,) * 3
    said = [(o.predicted_iou, o.stability, o.agreement) if o else nothing for o in opinions]
    taken = [i for i, o in enumerate(opinions) if o and areas[0] <= o.mask.area <= areas[1]]
    masks = [o.mask for i in taken if (o := opinions[i])]
    values = np.array(said, np.float64).reshape(-1, OPINIONS - 1)
    first = np.column_stack([descriptors, values, np.zeros(len(values))])
    second = np.column_stack([describe(masks, maps, diameter, among), values[taken], np.ones(len(taken))])
    return SecondPool([*candidates, *masks], np.concatenate([first, second]))


def explained(
    candidates: Sequence[InstanceMask], odds: NDArray[np.float64], frame_shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return where (H, W) a candidate lies that is most likely an object, so that SAM 2 need not look for one."""
    where = np.zeros(frame_shape, bool)
    for mask, value in zip(candidates, odds, strict=True):
        if value > _EXPLAINS:
            _under(where, mask)[...] |= mask.data
    return where


def to_ask(candidates: Sequence[InstanceMask], odds: NDArray[np.float64], tiles: int) -> list[int]:
    """Return the indices of the candidates to ask about on a frame of some tiles, the best first."""
    likely = sum(odds[i] > 0 for i in apart(candidates, odds))
    most = max(_LEAST, _PER_TILE * tiles, _PER_LIKELY * likely)
    return _unlike(candidates, np.argsort(-odds, kind="stable"), _SAME, most)


def to_ask_of_shown(
    candidates: Sequence[InstanceMask], odds: NDArray[np.float64], marked: Sequence[InstanceMask]
) -> list[int]:
    """Return the indices of the candidates to ask about on an examples' frame.

    Parameters
    ----------
    candidates, odds
        Theirs at the first look.
    marked
        The examples, wanted or not.
    """
    about: list[list[int]] = [[] for _ in marked]
    away = []
    for i in np.argsort(-odds, kind="stable"):
        shares = [shared_area(candidates[i], other) for other in marked]
        if any(shares):
            about[int(np.argmax(shares))].append(int(i))
        else:
            away.append(int(i))
    asked = [i for group in about for i in _unlike(candidates, group, _SAME, _PER_EXAMPLE)]
    return asked + _unlike(candidates, away, _ALIKE_AWAY, _AWAY)


def _unlike(
    candidates: Sequence[InstanceMask], order: Sequence[int] | NDArray[np.intp], same: float, most: int
) -> list[int]:
    """Go through candidates in an order and leave out those that are like an earlier one."""
    chosen: list[int] = []
    boxes = np.empty((most, 4), np.int64)
    for i in order:
        if len(chosen) == most:
            break
        box = candidates[i].box
        others = boxes[: len(chosen)]
        near = (others[:, 0] < box[2]) & (box[0] < others[:, 2]) & (others[:, 1] < box[3]) & (box[1] < others[:, 3])
        if any(mask_iou(candidates[i], candidates[chosen[n]]) > same for n in np.flatnonzero(near)):
            continue
        boxes[len(chosen)] = box
        chosen.append(int(i))
    return chosen


def apart(
    candidates: Sequence[InstanceMask], odds: NDArray[np.float64], known: Sequence[InstanceMask] = ()
) -> list[int]:
    """Return the indices of candidates that hardly overlap one another or the known objects, the best first."""
    if not candidates:
        return []
    taken = np.zeros(candidates[0].frame_shape, bool)
    for mask in known:
        _under(taken, mask)[...] |= mask.data
    chosen = []
    for i in np.argsort(-odds, kind="stable"):
        mask = candidates[i]
        here = _under(taken, mask)
        if np.count_nonzero(here & mask.data) > _OVERLAP * mask.area or is_known(mask, known):
            continue
        here |= mask.data
        chosen.append(int(i))
    return chosen


def _under(plane: NDArray[np.bool_], mask: InstanceMask) -> NDArray[np.bool_]:
    """Return the part of a plane under a mask's crop, as a view."""
    x0, y0, x1, y1 = mask.box
    return plane[y0:y1, x0:x1]
