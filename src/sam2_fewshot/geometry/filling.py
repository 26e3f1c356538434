"""Which pixel centres lie in a ring: row by row, so the time goes with its length, not its number of corners."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 1 << 22
"""About so many crossings of a ring with rows of pixels are held at a time."""

_EXACT = 1e-9
"""A centre so near to the ring, in pixels, lies on it."""


def fill(x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels whose centres lie in a ring or on it, by the even-odd rule.

    Parameters
    ----------
    x, y
        Corners in pixels, float (n,), closed or open; the centre of array element ``[r, c]`` is at ``(c, r)``.
    shape
        ``(height, width)`` of the result. The ring may reach beyond it.

    Returns
    -------
    NDArray
        Boolean (height, width).
    """
    height, width = shape
    flips = np.zeros((height, width + 1), bool)
    on_ring = np.zeros(shape, bool)
    x1, y1 = np.roll(x, -1), np.roll(y, -1)
    first = np.clip(np.ceil(np.minimum(y, y1)), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(np.maximum(y, y1)), 0, height).astype(np.int64)
    counts = stop - first
    blocks = np.cumsum(counts) // _AT_ONCE
    for begin, end in _runs(blocks):
        part = slice(begin, end)
        edge = np.repeat(np.arange(begin, end), counts[part])
        within = np.arange(edge.size) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        row = first[edge] + within
        across = x[edge] + (row - y[edge]) * ((x1[edge] - x[edge]) / (y1[edge] - y[edge]))
        nearest = np.round(across)
        exact = np.abs(across - nearest) < _EXACT
        column = np.clip(np.where(exact, nearest, np.ceil(across)), -1, width).astype(np.int64)
        np.logical_xor.at(flips, (row, np.maximum(column, 0)), True)
        exact &= (column >= 0) & (column < width)
        on_ring[row[exact], column[exact]] = True
    inside = np.logical_xor.accumulate(flips[:, :width], axis=1) if width else on_ring
    _add_level_edges(on_ring, x, y, x1, y1)
    return np.asarray(inside | on_ring)


def _runs(blocks: NDArray[np.int64]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(blocks)) + 1
    bounds = [0, *edges.tolist(), len(blocks)]
    return list(pairwise(bounds))


def _add_level_edges(
    on_ring: NDArray[np.bool_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    x1: NDArray[np.float64],
    y1: NDArray[np.float64],
) -> None:
    """Mark the pixels on corners and on edges along a row, which no row of pixels crosses."""
    height = on_ring.shape[0]
    for edge in np.flatnonzero((y == np.floor(y)) & (y >= 0) & (y < height)):
        row = int(y[edge])
        low, high = (min(x[edge], x1[edge]), max(x[edge], x1[edge])) if y1[edge] == y[edge] else (x[edge], x[edge])
        on_ring[row, max(int(np.ceil(low)), 0) : max(int(np.floor(high)) + 1, 0)] = True
