"""What a frame of any size looks like reduced, and how far its values differ; it is never whole in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.overlap import bands
from sam2_fewshot.records import whole_box
from sam2_fewshot.rendering.channels import read_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, FrameReader

_STRIP = 1 << 24
"""Pixels of a strip in which a frame is read."""
_SUMMED = 1 << 20
"""Pixels that are averaged at a time."""


def contrast_of(pixels: NDArray[np.uint8], step: int = 1, share: float = 0.0) -> float:
    """Return the widest span of values in a picture (H, W, 3), in any of its colours.

    Parameters
    ----------
    pixels
        uint8 RGB.
    step
        Means over squares of this side are looked at, so that noise counts for little.
    share
        So many percent at either end are left out.
    """
    height, width = (max(1, side // step) for side in pixels.shape[:2])
    if step > 1 and min(pixels.shape[:2]) >= step:
        squares = pixels[: height * step, : width * step].reshape(height, step, width, step, 3)
        # One axis after the other: a mean over both at once is ten times as slow.
        means = squares.mean(axis=3, dtype=np.float32).mean(axis=1)
    else:
        means = pixels.astype(np.float32)
    low, high = np.percentile(means.reshape(-1, 3), [share, 100 - share], axis=0)
    return float((high - low).max())


def is_flat(pixels: NDArray[np.uint8]) -> bool:
    """Tell whether a picture (H, W, 3) is of one colour: whatever differs from place to place is made by the tiles."""
    return bool(np.ptp(pixels, axis=(0, 1)).max() == 0)


def overview(frame: FrameReader, step: int, box: Box | None = None) -> NDArray[np.uint8]:
    """Return a frame reduced by a whole number, uint8 (h, w, 3), without having it whole in memory.

    Parameters
    ----------
    frame
        Read in strips of rows.
    step
        Each pixel is the mean over so many pixels each way; at the right and lower border over what there is.
    box
        Box ``(x0, y0, x1, y1)`` of the frame that alone is looked at; None for all of it.

    Raises
    ------
    InputError
        If the frame cannot be read.
    """
    box = box or whole_box(frame.shape)
    rows = max(1, _STRIP // (step * max(1, box[2] - box[0]))) * step
    return np.concatenate([reduced(read_rgb(frame, strip), step) for strip in bands(box, rows)])


def reduced(pixels: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) reduced by a whole number, its size rounded up; see :func:`overview`."""
    if step == 1:
        return pixels
    # Of some rows at a time: the sums take twice the memory of the pixels.
    rows = max(1, _SUMMED // (step * max(1, pixels.shape[1]))) * step
    parts = [_averaged(pixels[top : top + rows], step) for top in range(0, pixels.shape[0], rows)]
    return np.concatenate(parts)


def _averaged(pixels: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    row, column = np.arange(0, height, step), np.arange(0, width, step)
    # Rows are added up first, as they lie in memory; adding up columns takes far longer, and few are left by then.
    of_rows = np.zeros((len(row), width * 3), np.uint32)
    flat = pixels.reshape(height, -1)
    for first in range(step):
        part = flat[first::step]
        of_rows[: len(part)] += part
    sums = np.add.reduceat(of_rows.reshape(len(row), width, 3), column, axis=1)
    counts = np.outer(np.diff([*row, height]), np.diff([*column, width]))
    mean: NDArray[np.uint8] = ((sums + counts[..., None] // 2) // counts[..., None]).astype(np.uint8)
    return mean
