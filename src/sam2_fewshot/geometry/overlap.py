"""Boxes: their arithmetic, how much they and the masks in them share, and non-maximum suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, InstanceMask


_Side = TypeVar("_Side", int, float)
_Sides = tuple[_Side, _Side, _Side, _Side]


def intersect(a: _Sides[_Side], b: _Sides[_Side]) -> _Sides[_Side] | None:
    """Return the box common to two boxes, None when they share no area or a side is no number."""
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def pixels_in(box: Box) -> int:
    """Return how many pixels a box holds."""
    return (box[2] - box[0]) * (box[3] - box[1])


def grown(box: Box, margin: int, shape: tuple[int, int]) -> Box:
    """Return a box with a margin around it, inside a frame ``(height, width)``."""
    x0, y0, x1, y1 = box
    return max(0, x0 - margin), max(0, y0 - margin), min(shape[1], x1 + margin), min(shape[0], y1 + margin)


def bands(box: Box, rows: int) -> Iterator[Box]:
    """Yield a box in bands of so many rows, from top to bottom, the last one cut off."""
    x0, y0, x1, y1 = box
    for top in range(y0, y1, rows):
        yield x0, top, x1, min(top + rows, y1)


def cells(box: Box, side: int) -> Iterator[Box]:
    """Yield a box in square cells, row by row, cut off at its right and lower border."""
    for x0, y0, x1, y1 in bands(box, side):
        for left in range(x0, x1, side):
            yield left, y0, min(left + side, x1), y1


def boxes_of(masks: Iterable[InstanceMask]) -> NDArray[np.int64]:
    """Return the boxes ``(x0, y0, x1, y1)`` of masks, int64 (N, 4)."""
    return np.array([mask.box for mask in masks], np.int64).reshape(-1, 4)


def sharing(boxes: NDArray[np.integer[Any]], box: Box) -> NDArray[np.bool_]:
    """Return which boxes (N, 4) share a pixel with another one, boolean (N,)."""
    left, top, right, bottom = boxes.T
    shares: NDArray[np.bool_] = (left < box[2]) & (box[0] < right) & (top < box[3]) & (box[1] < bottom)
    return shares


def shared_area(a: InstanceMask, b: InstanceMask) -> int:
    """Return the number of pixels on both masks."""
    common = intersect(a.box, b.box)
    if common is None:
        return 0
    x0, y0, x1, y1 = common
    window_a = a.data[y0 - a.y0 : y1 - a.y0, x0 - a.x0 : x1 - a.x0]
    window_b = b.data[y0 - b.y0 : y1 - b.y0, x0 - b.x0 : x1 - b.x0]
    return int(np.count_nonzero(window_a & window_b))


def union_of(masks: Iterable[InstanceMask], frame_shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where any of some masks lies in their frame ``(height, width)``, boolean (H, W)."""
    union = np.zeros(frame_shape, bool)
    for mask in masks:
        mask.under(union)[...] |= mask.data
    return union


def touching(first: Sequence[InstanceMask], second: Sequence[InstanceMask]) -> Iterator[tuple[int, int]]:
    """Yield the indices of pairs whose boxes share a pixel, in order; only those can overlap."""
    if not first or not second:
        return
    a, b = boxes_of(first), boxes_of(second)
    i, k = shapely.STRtree(shapely.box(*b.T)).query(shapely.box(*a.T))
    # The tree takes boxes that have an edge in common, which is no pixel.
    share = (a[i, 0] < b[k, 2]) & (a[i, 2] > b[k, 0]) & (a[i, 1] < b[k, 3]) & (a[i, 3] > b[k, 1])
    i, k = i[share], k[share]
    order = np.lexsort((k, i))
    yield from zip(i[order].tolist(), k[order].tolist(), strict=True)


def most_shared(masks: Sequence[InstanceMask], others: Sequence[InstanceMask]) -> NDArray[np.int64]:
    """Return of each mask which other it shares most pixels with, int64 (N,): of equal ones the first, -1 for none."""
    best, most = np.full(len(masks), -1), np.zeros(len(masks), np.int64)
    for k, i in touching(others, masks):
        shared = shared_area(masks[i], others[k])
        if shared > most[i]:
            best[i], most[i] = k, shared
    return best


def mask_iou(a: InstanceMask, b: InstanceMask) -> float:
    """Return intersection over union of two masks, 0 when both are empty."""
    common = shared_area(a, b)
    return common / (a.area + b.area - common) if common else 0.0


def overlaps(first: Sequence[InstanceMask], second: Sequence[InstanceMask]) -> dict[tuple[int, int], float]:
    """Return the intersection over union of all pairs that share a pixel, by their indices, in order."""
    ious = {(i, k): mask_iou(first[i], second[k]) for i, k in touching(first, second)}
    return {pair: iou for pair, iou in ious.items() if iou}


def box_nms(boxes: NDArray[np.float64], scores: NDArray[np.float64], iou_threshold: float) -> NDArray[np.int64]:
    """Apply non-maximum suppression to boxes: greedily keep the best of those that overlap.

    The same rule as ``torchvision.ops.nms``, tie breaking included, without importing torch.

    Parameters
    ----------
    boxes
        (N, 4), ``(x0, y0, x1, y1)``; a box's area is ``(x1 - x0) · (y1 - y0)``.
    scores
        (N,); of two overlapping boxes the one with the lower score goes, of equal scores the later one.
    iou_threshold
        Boxes overlap when their intersection over union is above this.

    Returns
    -------
    numpy.ndarray
        Indices of the boxes that stay, highest score first.
    """
    left, top, right, bottom = boxes.T
    areas = (right - left) * (bottom - top)
    order = np.argsort(-scores, kind="stable")
    selected = []
    while order.size:
        best, rest = order[0], order[1:]
        selected.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        shared = width.clip(0) * height.clip(0)
        # Multiplied out, so that two boxes without area do not divide zero by zero.
        order = rest[shared <= iou_threshold * (areas[best] + areas[rest] - shared)]
    return np.array(selected, np.int64)
