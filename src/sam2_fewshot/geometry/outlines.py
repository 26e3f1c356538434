"""Masks to polygons and back; a pixel's centre lies half a pixel from its corner."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import shapely
from scipy import ndimage
from shapely import LineString, Polygon
from skimage.measure import find_contours

from sam2_fewshot.records import InstanceMask, extent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry


AT_ONCE = 1 << 22
"""Crossings of rings with rows of pixels, and pixels that are filled at a time; their arrays take some hundred
megabytes."""

_EXACT = 1e-9
"""A centre so near to the ring, in pixels, lies on it."""


def mask_to_polygon(instance: InstanceMask, smoothing: float = 0.0) -> Polygon:
    """Return the outer ring of a mask's largest part.

    Parameters
    ----------
    instance
        The mask; it must not be empty.
    smoothing
        Tolerance of the Douglas-Peucker simplification in pixels; 0 keeps every vertex.

    Returns
    -------
    Polygon
        Valid, without holes, in image pixels ``(x, y)``. It runs through the middle between pixels on and off
        the object, so a single pixel is a diamond of half a pixel's area.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    outline = max(map(Polygon, _rings(instance)), key=lambda ring: ring.area)
    if smoothing <= 0:
        return outline
    corners = shapely.points(shapely.get_coordinates(outline))
    # GEOS measures the ring's first vertex, when it drops it, otherwise than the rest, and may drop one farther away.
    for tolerance in (smoothing, smoothing / 2, smoothing / 4):
        simpler = outline.simplify(tolerance, preserve_topology=True)
        if isinstance(simpler, Polygon) and simpler.is_valid and simpler.area > 0:
            farthest = float(shapely.distance(corners, simpler.exterior).max())
            if farthest <= smoothing:
                return simpler
    return outline


def polygon_to_mask(polygon: Polygon, frame_shape: tuple[int, int]) -> InstanceMask:
    """Return the pixels whose centres lie in a polygon.

    Parameters
    ----------
    polygon
        In image pixels ``(x, y)``; holes are left out. It is clipped at the frame.
    frame_shape
        ``(height, width)`` of the frame in pixels.

    Returns
    -------
    InstanceMask
        Cropped to the object. It is empty, with a crop of no pixels, when no pixel centre of the frame is inside.
    """
    return polygons_to_masks([polygon], [frame_shape])[0]


def polygons_to_masks(
    polygons: Sequence[Polygon], frame_shapes: Sequence[tuple[int, int]], at_once: int = AT_ONCE
) -> list[InstanceMask]:
    """Return the masks of many polygons, as :func:`polygon_to_mask` does of one, in a fraction of the time.

    Parameters
    ----------
    polygons
        In image pixels ``(x, y)``.
    frame_shapes
        ``(height, width)`` of the frame of each, in pixels.
    at_once
        About so many pixels of crops are drawn at a time.
    """
    low = np.floor(shapely.bounds(polygons).reshape(-1, 4)[:, :2])
    high = np.ceil(shapely.bounds(polygons).reshape(-1, 4)[:, 2:])
    sizes = np.array(frame_shapes, np.float64).reshape(-1, 2)[:, ::-1]
    # An empty polygon has no bounds.
    starts = np.nan_to_num(np.clip(low, 0, sizes)).astype(np.int64).tolist()
    stops = np.nan_to_num(np.clip(high, 0, sizes)).astype(np.int64).tolist()
    drawn: list[NDArray[np.bool_]] = []
    rings: list[tuple[int, bool, NDArray[np.float64]]] = []
    pixels = 0

    def draw() -> None:
        filled = fill_rings([ring for *_, ring in rings], [drawn[i].shape for i, *_ in rings])
        for (i, inside, _), within in zip(rings, filled, strict=True):
            drawn[i][within] = inside

    for i, (polygon, (x0, y0), (x1, y1)) in enumerate(zip(polygons, starts, stops, strict=True)):
        shape = (max(y1 - y0, 0), max(x1 - x0, 0))
        drawn.append(np.zeros(shape, bool))
        if not all(shape):
            continue
        for number, ring in enumerate((polygon.exterior, *polygon.interiors)):
            rings.append((i, number == 0, shapely.get_coordinates(ring) - 0.5 - (x0, y0)))
            pixels += shape[0] * shape[1]
            if pixels >= at_once:
                draw()
                rings, pixels = [], 0
    draw()
    return [
        crop_to_object(data, shape, x0, y0) for data, shape, (x0, y0) in zip(drawn, frame_shapes, starts, strict=True)
    ]


def fill_rings(
    rings: Sequence[NDArray[np.float64]], shapes: Sequence[tuple[int, int]], at_once: int = AT_ONCE
) -> list[NDArray[np.bool_]]:
    """Return the pixels whose centres lie in each ring or on it, by the even-odd rule, of very many rings in one go.

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


def crop_to_object(
    mask: np.ndarray, frame_shape: tuple[int, int] | None = None, x0: int = 0, y0: int = 0
) -> InstanceMask:
    """Crop a boolean array to the object in it.

    Parameters
    ----------
    mask
        Boolean array (h, w).
    frame_shape
        ``(height, width)`` of the frame; the array's own shape when left out.
    x0, y0
        Column and row of ``mask[0, 0]`` in the frame.

    Returns
    -------
    InstanceMask
        With a crop of no pixels when the mask is empty.
    """
    shape = frame_shape or (mask.shape[0], mask.shape[1])
    box = extent(mask)
    if box is None:
        return InstanceMask(np.zeros((0, 0), bool), 0, 0, shape)
    data = mask[box[1] : box[3], box[0] : box[2]]
    return InstanceMask(np.array(data, bool), x0 + box[0], y0 + box[1], shape)


def largest_part(instance: InstanceMask) -> InstanceMask:
    """Return a mask's largest connected part, its holes left as they are.

    Pixels are connected over their edges, not their corners, as in :func:`mask_to_polygon`.

    Parameters
    ----------
    instance
        The mask; it must not be empty.
    """
    parts, count = ndimage.label(instance.data)
    if count == 1:
        return instance
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    return crop_to_object(parts == largest, instance.frame_shape, instance.x0, instance.y0)


PINHOLE = 5
"""px; a hole of at most so many is one of the mask, and not of the object."""


def without_pinholes(instance: InstanceMask, most: int = PINHOLE) -> InstanceMask:
    """Return a mask with its small holes filled.

    Parameters
    ----------
    instance
        The mask.
    most
        Holes of at most so many pixels are filled. Pixels of a hole are connected over edges and corners.
    """
    holes, count = ndimage.label(~np.pad(instance.data, 1), np.ones((3, 3)))
    if count < 2:
        return instance
    sizes = np.bincount(holes.ravel())
    small = sizes <= most
    small[[0, holes[0, 0]]] = False  # the mask, and what lies around it
    if not small.any():
        return instance
    filled = instance.data | small[holes][1:-1, 1:-1]
    return InstanceMask(filled, instance.x0, instance.y0, instance.frame_shape)


def valid_polygon(geometry: BaseGeometry) -> Polygon | None:
    """Return the largest valid polygon in a geometry, None when there is no area in it or a corner is no number.

    A self-crossing outline is split where it crosses itself (:func:`shapely.make_valid`).
    """
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        return None
    mended = geometry if geometry.is_valid else shapely.make_valid(geometry)
    parts = shapely.get_parts(shapely.get_parts(mended))  # make_valid may nest polygons in a collection
    parts = [part for part in parts if isinstance(part, Polygon) and part.area > 0]
    return max(parts, key=lambda part: part.area, default=None)


def mask_to_area(instance: InstanceMask) -> Polygon:
    """Return the outline of a mask's largest part with the holes in it.

    Parameters
    ----------
    instance
        The mask; it must not be empty.

    Returns
    -------
    Polygon
        Valid, in image pixels ``(x, y)``; it runs through the middle between pixels on and off the object.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    area = shapely.build_area(shapely.GeometryCollection([LineString(ring) for ring in _rings(instance)]))
    return max(shapely.get_parts(area), key=lambda part: part.area)


def _rings(instance: InstanceMask) -> list[NDArray[np.float64]]:
    """Return the outlines of a mask's parts and holes, closed (n, 2), ``(x, y)`` in image pixels."""
    if not instance.data.any():
        raise ValueError("an empty mask has no outline")
    # The frame of zeros closes contours at the crop's border; without it they would be open and lose a corner.
    padded = np.pad(instance.data, 1).astype(np.uint8)
    corner = np.array([instance.x0 - 0.5, instance.y0 - 0.5])
    return [ring[:, ::-1] + corner for ring in find_contours(padded, 0.5)]  # type: ignore[no-untyped-call]
