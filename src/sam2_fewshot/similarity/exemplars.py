"""From what the user marked to masks that can be learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.outlines import crop_to_object, polygon_to_mask, valid_polygon

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam2_fewshot.records import Exemplar, Frame, InstanceMask

# An example that fills more of its frame than this is more likely a slip than an object.
_COVERS_FRAME = 0.9


def prompt_of(exemplar: Exemplar, frame: Frame) -> tuple[float, float] | None:
    """Return the point ``(x, y)`` to ask SAM 2 about, None for an example that is none or lies outside its frame."""
    if exemplar.point is None or exemplar.mask is not None or exemplar.polygon is not None:
        return None
    x, y = float(exemplar.point[0]), float(exemplar.point[1])
    return (x, y) if 0 <= x < frame.shape[1] and 0 <= y < frame.shape[0] else None


def exemplar_mask(
    exemplar: Exemplar,
    frame: Frame,
    name: str,
    at_point: InstanceMask | None,
    warn: Callable[[str], None],
) -> InstanceMask | None:
    """Return an example's mask, or None, with a warning that says why, when it cannot be used.

    Parameters
    ----------
    exemplar
        What the user marked.
    frame
        The frame it lies on.
    name
        What to call the example in warnings.
    at_point
        The object at its point, where it is a point and there is one.
    warn
        Is given a sentence for the user.
    """
    height, width = frame.shape
    size = f"{width} × {height} px"
    ways = [way for way in (exemplar.mask, exemplar.polygon, exemplar.point) if way is not None]
    if len(ways) != 1:
        warn(f"{name} is left out: give it either a mask, a polygon or a point, not {len(ways)} of them.")
        return None
    if exemplar.mask is not None:
        given = np.asarray(exemplar.mask)
        if given.shape != frame.shape:
            warn(f"{name} is left out: its mask has the shape {given.shape}, but its image is {size}.")
            return None
        mask = crop_to_object(given.astype(bool))
        reason = "its mask is empty"
    elif exemplar.polygon is not None:
        outline = valid_polygon(exemplar.polygon)
        if outline is None or not np.isfinite(outline.bounds).all():
            warn(f"{name} is left out: its outline has no area.")
            return None
        if not exemplar.polygon.is_valid:
            warn(f"{name} has an outline that crosses itself; its largest part is used.")
        mask = polygon_to_mask(outline, frame.shape)
        reason = f"its outline holds no pixel of its image ({size})"
    else:
        x, y = exemplar.point or (np.nan, np.nan)
        if prompt_of(exemplar, frame) is None:
            warn(f"{name} is left out: its point ({x:g}, {y:g}) lies outside its image ({size}).")
            return None
        if at_point is None:
            warn(f"{name} is left out: SAM 2 sees no object at its point ({x:g}, {y:g}); outline it instead.")
            return None
        mask, reason = at_point, "SAM 2 sees no object at its point"
    if not mask.area:
        warn(f"{name} is left out: {reason}.")
        return None
    if mask.area > _COVERS_FRAME * width * height:
        warn(f"{name} covers {100 * mask.area / (width * height):.0f} % of its image; is it meant to?")
    return mask
