"""Masks to polygons and back; a pixel's centre lies half a pixel from its corner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from scipy import ndimage
from shapely import LineString, Polygon
from skimage.measure import find_contours

from sam2_fewshot.geometry.filling import AT_ONCE, fill_rings
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry


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
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return InstanceMask(np.zeros((0, 0), bool), 0, 0, shape)
    data = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return InstanceMask(np.array(data, bool), x0 + int(columns[0]), y0 + int(rows[0]), shape)


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
