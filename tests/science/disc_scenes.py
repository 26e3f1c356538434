"""Made-up scenes of discs, and how many of these were found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Detection

Disc = tuple[int, int, int]
Scene = tuple["NDArray[np.uint8]", list[InstanceMask]]


def discs(placed: Sequence[Disc], shape: tuple[int, int] = (221, 301)) -> Scene:
    """Bright discs ``(x, y, radius)`` on noise, and their masks."""
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    grey = np.full(shape, 50.0)
    masks = []
    for x, y, radius in placed:
        inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
        grey[inside] = 160
        x0, y0 = x - radius, y - radius
        masks.append(InstanceMask(inside[y0 : y + radius + 1, x0 : x + radius + 1], x0, y0, shape))
    grey += rng.normal(0, 8, shape)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), masks


def found_of(found: Sequence[Detection], masks: Sequence[InstanceMask]) -> int:
    return sum(any(mask_iou(item.instance, mask) > 0.6 for item in found) for mask in masks)
