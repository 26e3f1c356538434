"""Outlines in few bytes.

An outline is a row of whole numbers: how many vertices it has, then x and y of the first one and, for each further one,
the steps from the one before. The unit is a quarter of a pixel of the picture that is shown, so contours at half pixels
stay exact in pictures that are not shrunk. Steps are written as in Protocol Buffers: zigzag (0, −1, 1, −2 … as 0, 1, 2,
3 …), then seven bits a byte with the eighth set while more follow
(https://protobuf.dev/programming-guides/encoding/). Most take one byte, and in base 64 one and a third.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely import Point, Polygon

UNITS = 4
"""Units a pixel of the picture."""

_TOLERANCE = 0.2
"""px of the picture; vertices nearer to the outline than this are not seen, and are left out."""


def encode_outlines(shapes: Sequence[Polygon | Point], scale: float) -> bytes:
    """Return outer rings, or points, as bytes.

    Parameters
    ----------
    shapes
        In image pixels ``(x, y)``. The vertex that closes a ring is not written.
    scale
        Pixels of the picture for each pixel of the image.
    """
    if not shapes:
        return b""
    rings = np.array([shape.exterior if hasattr(shape, "exterior") else shape for shape in shapes], object)
    simple = shapely.simplify(rings, _TOLERANCE / scale, preserve_topology=True)
    points, owner = shapely.get_coordinates(simple, return_index=True)
    ends = np.append(owner[1:] != owner[:-1], True)
    starts = np.append(True, ends[:-1])
    kept = ~ends | starts  # a point is start and end at once
    points, starts = points[kept], starts[kept]
    counts = np.bincount(owner[kept], minlength=len(shapes))
    whole = np.round(points * (scale * UNITS)).astype(np.int64)
    steps = np.diff(whole, axis=0, prepend=np.zeros((1, 2), np.int64))
    steps[starts] = whole[starts]
    zigzag = (steps << 1) ^ (steps >> 63)
    return _varints(np.insert(zigzag.ravel(), 2 * np.flatnonzero(starts), counts))


def _varints(values: NDArray[np.int64]) -> bytes:
    """Return numbers of at least 0, seven bits a byte, the lowest first."""
    lengths = 1 + np.sum([values >> bits > 0 for bits in range(7, 63, 7)], axis=0)
    starts = np.cumsum(lengths) - lengths
    out = np.zeros(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max())):
        more = lengths > place
        out[starts[more] + place] = (values[more] >> 7 * place & 127) | np.where(lengths[more] > place + 1, 128, 0)
    return out.tobytes()
