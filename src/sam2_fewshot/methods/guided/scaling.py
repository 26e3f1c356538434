"""Pictures at twice their size, and masks at twice and at half theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sam2_fewshot.records import InstanceMask, whole_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMES = 2
"""A picture is enlarged or reduced so many times each way."""
_CUBIC = np.array([-0.0234375, 0.2265625, 0.8671875, -0.0703125])
"""Weights of the pixels whose middles lie 1.75 and .75 before a place and .25 and 1.25 behind it."""


def enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) at twice its size, by cubic convolution (Keys 1981, with a = -1/2)."""
    large = pixels.astype(np.float32)
    for axis in (0, 1):
        # A pixel becomes two, a quarter of its width before and behind its middle.
        before = ndimage.correlate1d(large, _CUBIC, axis, mode="nearest")
        behind = ndimage.correlate1d(large, _CUBIC[::-1], axis, mode="nearest", origin=-1)
        shape = [TIMES * length if i == axis else length for i, length in enumerate(large.shape)]
        large = np.stack([before, behind], axis=axis + 1).reshape(shape)
    rounded: NDArray[np.uint8] = np.rint(large.clip(0, 255)).astype(np.uint8)
    return rounded


def enlarged_mask(mask: InstanceMask, frame_shape: tuple[int, int]) -> InstanceMask:
    """Return a mask of a reduced picture at twice its size, as one of the picture ``(height, width)`` itself."""
    height, width = frame_shape
    x0, y0 = mask.x0 * TIMES, mask.y0 * TIMES
    data = mask.data.repeat(TIMES, axis=0).repeat(TIMES, axis=1)
    return InstanceMask(data[: height - y0, : width - x0], x0, y0, frame_shape)


def reduced_mask(mask: InstanceMask) -> InstanceMask | None:
    """Return a mask at half its size: pixels that are covered by half or more; None when there are none."""
    (x0, y0, x1, y1), (height, width) = mask.box, mask.frame_shape
    left, top = x0 // TIMES, y0 // TIMES
    right, bottom = -(-x1 // TIMES), -(-y1 // TIMES)
    data = mask.window((left * TIMES, top * TIMES, right * TIMES, bottom * TIMES))
    counts = data.reshape(bottom - top, TIMES, right - left, TIMES).sum(axis=(1, 3))
    half = InstanceMask(2 * counts >= TIMES**2, left, top, (height // TIMES, width // TIMES))
    return half.within(whole_box(half.frame_shape))
