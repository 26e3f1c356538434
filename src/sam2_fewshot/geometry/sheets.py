"""Many crops on one sheet, so that one call measures all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def sheets(shapes: NDArray[np.int64], most_pixels: int) -> Iterator[NDArray[np.intp]]:
    """Deal crops out to sheets.

    Parameters
    ----------
    shapes
        int64 (N, 2), ``(height, width)`` of each crop, its margin included.
    most_pixels
        A sheet of several crops has no more.

    Yields
    ------
    numpy.ndarray
        Indices of the crops of a sheet. They are of like width, since a sheet is as wide as its widest.
    """
    order = np.argsort(shapes[:, 1], kind="stable")
    while len(order):
        pixels = np.cumsum(shapes[order, 0]) * shapes[order, 1]
        count = max(1, int(np.searchsorted(pixels, most_pixels, side="right")))
        yield order[:count]
        order = order[count:]


def starts_of(heights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of the sheet at which each crop begins."""
    starts: NDArray[np.int64] = np.cumsum(heights) - heights
    return starts
