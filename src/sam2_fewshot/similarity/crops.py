"""Context crops: the square window on which SAM 2 sees an object."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2_fewshot.records import Box, InstanceMask


def context_window(mask: InstanceMask, occupancy: float, smallest_side: float) -> Box:
    """Return the square window, centred on an object, in which it fills a share of the area.

    Parameters
    ----------
    mask
        The object; it must not be empty.
    occupancy
        Share of the window's area that the object fills: ``side = sqrt(area / occupancy)``, the seed document's rule.
    smallest_side
        The window is never smaller than this, in pixels, which bounds the magnification of tiny objects.

    Returns
    -------
    Box
        ``(x0, y0, x1, y1)`` in frame pixels, half open. It always holds the whole bounding box, so that long
        objects keep their ends, and may reach beyond the frame.
    """
    left, top, right, bottom = mask.box
    side = max(math.ceil(math.sqrt(mask.area / occupancy)), math.ceil(smallest_side), right - left, bottom - top)
    # The box's centre is (left + right) / 2; flooring keeps left and right within the window, whatever the parity.
    x0 = (left + right - side) // 2
    y0 = (top + bottom - side) // 2
    return x0, y0, x0 + side, y0 + side
