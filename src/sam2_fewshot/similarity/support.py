"""How often about the same thing was proposed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import InstanceMask

_ALIKE = 0.5
"""IoU of the bounding boxes, and ratio of the areas, from which on a candidate is like another. The IoU of the masks
themselves takes a hundred times as long, and no more is found with it."""


@dataclass(frozen=True, eq=False)
class Proposed:
    """A frame's candidates.

    Parameters
    ----------
    masks
        None of them empty.
    times
        int64 (N,), how often each was proposed.
    """

    masks: Sequence[InstanceMask]
    times: NDArray[np.int64]

    def and_once(self, more: Sequence[InstanceMask]) -> Proposed:
        """Return these, and others that were proposed once."""
        return Proposed([*self.masks, *more], np.concatenate([self.times, np.ones(len(more), np.int64)]))


def support(masks: Sequence[InstanceMask], among: Proposed) -> NDArray[np.float64]:
    """Return how often candidates like each of several masks were proposed, float64 (N,), as log(1 + number).

    An object comes out of cuts of a map at many levels, and of several maps, nearly alike; a part of it, or a union
    with a neighbour, comes out of few. Maximally stable extremal regions are chosen by the same sign (Matas et al.
    2002).

    Parameters
    ----------
    masks
        None of them empty.
    among
        The candidates of the same frame. A mask that is one of them is like itself.
    """
    if not masks or not among.masks:
        return np.zeros(len(masks))
    boxes, others = (np.array([mask.box for mask in group], np.float64) for group in (masks, among.masks))
    areas, other_areas = (np.array([mask.area for mask in group], np.float64) for group in (masks, among.masks))
    i, j = shapely.STRtree(shapely.box(*others.T)).query(shapely.box(*boxes.T))
    shared = np.minimum(boxes[i, 2:], others[j, 2:]) - np.maximum(boxes[i, :2], others[j, :2])
    overlap = shared.prod(axis=1)
    union = (boxes[i, 2:] - boxes[i, :2]).prod(axis=1) + (others[j, 2:] - others[j, :2]).prod(axis=1) - overlap
    ratio = np.minimum(areas[i], other_areas[j]) / np.maximum(areas[i], other_areas[j])
    alike = (overlap >= _ALIKE * union) & (ratio >= _ALIKE)
    counted: NDArray[np.float64] = np.log1p(np.bincount(i[alike], among.times[j[alike]], len(masks)))
    return counted
