"""How much two masks share, computed on their crops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sam2_fewshot.records import Box, InstanceMask


def intersect(a: Box, b: Box) -> Box | None:
    """Return the box common to two boxes, None when they share no pixel."""
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def shared_area(a: InstanceMask, b: InstanceMask) -> int:
    """Return the number of pixels on both masks."""
    common = intersect(a.box, b.box)
    if common is None:
        return 0
    x0, y0, x1, y1 = common
    window_a = a.data[y0 - a.y0 : y1 - a.y0, x0 - a.x0 : x1 - a.x0]
    window_b = b.data[y0 - b.y0 : y1 - b.y0, x0 - b.x0 : x1 - b.x0]
    return int(np.count_nonzero(window_a & window_b))


def mask_iou(a: InstanceMask, b: InstanceMask) -> float:
    """Return intersection over union of two masks, 0 when both are empty."""
    common = shared_area(a, b)
    union = a.area + b.area - common
    return common / union if union else 0.0
