"""Masks as polygons with their holes, where :func:`~sam2_fewshot.geometry.outlines.mask_to_polygon` fills these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely import LineString, Polygon
from skimage.measure import find_contours

if TYPE_CHECKING:
    from sam2_fewshot.records import InstanceMask


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
    if not instance.data.any():
        raise ValueError("an empty mask has no outline")
    padded = np.pad(instance.data, 1).astype(np.uint8)
    shift = np.array([instance.x0 - 0.5, instance.y0 - 0.5])
    rings = [LineString(ring[:, ::-1] + shift) for ring in find_contours(padded, 0.5)]  # type: ignore[no-untyped-call]
    area = shapely.build_area(shapely.GeometryCollection(rings))
    parts = [part for part in shapely.get_parts(area) if isinstance(part, Polygon)]
    return max(parts, key=lambda part: part.area)
