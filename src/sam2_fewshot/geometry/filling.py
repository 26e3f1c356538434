"""The pixels inside of rings, by the even-odd rule; of many rings in one go, since a file may have very many."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

AT_ONCE = 1 << 22
"""Crossings of rings with rows of pixels, and pixels that are filled at a time; their arrays take some hundred
megabytes."""

_EXACT = 1e-9
"""A centre so near to the ring, in pixels, lies on it."""


def fill_rings(
    rings: Sequence[NDArray[np.float64]], shapes: Sequence[tuple[int, int]], at_once: int = AT_ONCE
) -> list[NDArray[np.bool_]]:
    """Return the pixels whose centres lie in each ring or on it, by the even-odd rule.

    Parameters
    ----------
    rings
        Corners in pixels, float (n, 2), ``(x, y)``, closed or open; the centre of array element ``[r, c]`` is at
        ``(c, r)``.
    shapes
        ``(height, width)`` of the result of each. A ring may reach beyond it.
    at_once
        About so many crossings of the rings with rows of pixels are held at a time.

    Returns
    -------
    list of NDArray
        Boolean (height, width).
    """
    if not rings:
        return []
    lengths = np.array([len(ring) for ring in rings])
    heights, widths = np.array(shapes, np.int64).T
    # All results lie one after the other in one row, each of their rows with one more place for what is right of it. A
    # closed ring crosses a row an even number of times, so that each row begins outside.
    sizes = heights * (widths + 1)
    bases = np.cumsum(sizes) - sizes
    corners = np.concatenate(rings)
    owner = np.repeat(np.arange(len(rings)), lengths)
    ends = np.cumsum(lengths)
    following = np.arange(1, len(corners) + 1)
    following[ends - 1] = ends - lengths
    edges = np.concatenate([corners, corners[following]], axis=1)
    flips = np.zeros(int(sizes.sum()), np.uint8)
    on_ring = np.zeros(len(flips), bool)
    height, width, base = heights[owner], widths[owner], bases[owner]
    x, y, x1, y1 = edges.T
    first = np.clip(np.ceil(np.minimum(y, y1)), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(np.maximum(y, y1)), 0, height).astype(np.int64)
    counts = stop - first
    for begin, end in _runs(np.cumsum(counts) // at_once):
        edge, within = _spread(counts[begin:end])
        edge += begin
        row = first[edge] + within
        across = x[edge] + (row - y[edge]) * ((x1[edge] - x[edge]) / (y1[edge] - y[edge]))
        nearest = np.round(across)
        exact = np.abs(across - nearest) < _EXACT
        column = np.clip(np.where(exact, nearest, np.ceil(across)), -1, width[edge]).astype(np.int64)
        line = base[edge] + row * (width[edge] + 1)
        np.add.at(flips, line + np.maximum(column, 0), 1)
        exact &= (column >= 0) & (column < width[edge])
        on_ring[(line + column)[exact]] = True
    _add_level_edges(on_ring, edges, height, width, base)
    np.bitwise_xor.accumulate(flips & 1, out=flips)
    inside = flips.astype(bool) | on_ring
    return [
        inside[base : base + size].reshape(height, width + 1)[:, :width]
        for base, size, height, width in zip(
            bases.tolist(), sizes.tolist(), heights.tolist(), widths.tolist(), strict=True
        )
    ]


def _spread(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each index as often as its count says, and the number of each within its own."""
    index = np.repeat(np.arange(counts.size), counts)
    return index, np.arange(index.size) - np.repeat(np.cumsum(counts) - counts, counts)


def _runs(blocks: NDArray[np.int64]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(blocks)) + 1
    bounds = [0, *edges.tolist(), len(blocks)]
    return list(pairwise(bounds))


def _add_level_edges(
    on_ring: NDArray[np.bool_],
    edges: NDArray[np.float64],
    height: NDArray[np.int64],
    width: NDArray[np.int64],
    base: NDArray[np.int64],
) -> None:
    """Mark the pixels on corners and on edges along a row, which no row of pixels crosses."""
    level = np.flatnonzero((edges[:, 1] == np.floor(edges[:, 1])) & (edges[:, 1] >= 0) & (edges[:, 1] < height))
    x, y, x1, y1 = edges[level].T
    x1 = np.where(y1 == y, x1, x)
    start = np.clip(np.ceil(np.minimum(x, x1)), 0, width[level]).astype(np.int64)
    stop = np.clip(np.floor(np.maximum(x, x1)) + 1, 0, width[level]).astype(np.int64)
    edge, within = _spread(np.maximum(stop - start, 0))
    on_ring[(base[level] + y.astype(np.int64) * (width[level] + 1) + start)[edge] + within] = True
