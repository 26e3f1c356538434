"""Measuring many masks at once: their crops on one sheet, and exact distances within a short reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


_NEAR = 48
"""px; up to here the two passes take less time than the general distance transform. Their sums fit into 16 bits."""


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


def stacked(
    crops: Sequence[NDArray[np.bool_]], margin: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.intp]]:
    """Lay masks out one below the other, so that all are measured by the same few calls.

    Parameters
    ----------
    crops
        Boolean (h, w) each; at least one.
    margin
        Pixels around each. Nothing within the margin of a mask is as near to another one.

    Returns
    -------
    sheet
        Boolean (H, W), the masks.
    starts
        int64 (N,), the row of the sheet at which the margin of each begins.
    owner
        int (H,), the index of the mask to which each row belongs.
    """
    shapes = np.array([crop.shape for crop in crops]) + 2 * margin
    heights = shapes[:, 0]
    starts = np.cumsum(heights) - heights
    sheet = np.zeros((int(heights.sum()), int(shapes[:, 1].max())), bool)
    for crop, start in zip(crops, starts, strict=True):
        rows, columns = crop.shape
        sheet[start + margin : start + margin + rows, margin : margin + columns] = crop
    return sheet, starts, np.repeat(np.arange(len(crops)), heights)


def squared_distances(inside: NDArray[np.bool_], reach: int) -> NDArray[np.unsignedinteger]:
    """Return how far each true pixel of a plane lies from the nearest false one, as squares in pixels².

    Parameters
    ----------
    inside
        Boolean (H, W). What lies beyond the plane counts as true.
    reach
        The farthest distance of interest in pixels.

    Returns
    -------
    numpy.ndarray
        uint16 or uint32 (H, W): 0 where the plane is false; elsewhere the exact squared distance between the pixels'
        middles if it is at most ``reach²``, and something larger if not.

    Notes
    -----
    The two passes are those of Saito & Toriwaki 1994: the distance within the column, then the smallest sum of squares
    along the row. As neither goes farther than `reach`, each step is one operation on the whole plane. With a reach of
    10 they take a sixth of the time of ``scipy.ndimage.distance_transform_edt``.
    """
    if reach > _NEAR:
        if inside.all():
            return np.full(inside.shape, np.iinfo(np.uint32).max, np.uint32)
        distances: NDArray[np.float64] = ndimage.distance_transform_edt(inside)
        return np.rint(distances**2).astype(np.uint32)
    left = inside.view(np.uint8).copy()
    columns = left.copy()
    for _ in range(reach):
        # A pixel stays while both neighbours in its column were left; how many rounds it stays is its distance.
        before = left.copy()
        left[1:] &= before[:-1]
        left[:-1] &= before[1:]
        columns += left
    squares = columns.astype(np.uint16) ** 2
    nearest = squares.copy()
    for step in range(1, min(reach, inside.shape[1] - 1) + 1):
        farther = squares + np.uint16(step * step)
        np.minimum(nearest[:, step:], farther[:, :-step], out=nearest[:, step:])
        np.minimum(nearest[:, :-step], farther[:, step:], out=nearest[:, :-step])
    return nearest
