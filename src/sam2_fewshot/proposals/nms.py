"""Non-maximum suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def box_nms(boxes: NDArray[np.float64], scores: NDArray[np.float64], iou_threshold: float) -> NDArray[np.int64]:
    """Keep the best of the boxes that overlap, greedily.

    The same rule as ``torchvision.ops.nms``, tie breaking included, without bringing torch into this room.

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
        Indices of the boxes kept, highest score first.
    """
    left, top, right, bottom = boxes.T
    areas = (right - left) * (bottom - top)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        shared = width.clip(0) * height.clip(0)
        # Multiplied out, so that two boxes without area do not divide zero by zero.
        order = rest[shared <= iou_threshold * (areas[best] + areas[rest] - shared)]
    return np.array(kept, np.int64)
