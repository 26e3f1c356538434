"""Candidates without a prompt: connected components of maps cut at many levels.

An object that stands out from its surroundings, in brightness or in a learned map, is a component of the map at some
level between the two. Cutting at many levels and keeping every component of a plausible size proposes nearly all of
them; which ones are objects is decided later. Components in which objects touch are also split by a watershed on the
distance to their border (Beucher & Lantuéjoul 1979).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LEVELS = 14
_SPLIT_EVERY = 3
"""Splitting costs more than labelling, and neighbouring levels split alike."""
_SAME_AREA = 0.04
"""Components with the same bounding box whose areas differ by less than this share are taken as one."""


def cut_levels(inside: NDArray[np.float32], around: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the levels at which to cut a map.

    Parameters
    ----------
    inside, around
        The map's values on the examples, and in a ring around them.

    Returns
    -------
    numpy.ndarray
        Ascending, from above the 10th percentile around to the 90th inside; none when the examples do not stand out.
    """
    low, high = np.percentile(around, 10), np.percentile(inside, 90)
    levels: NDArray[np.float64] = np.linspace(float(low), float(high), _LEVELS + 1)[1:]
    return levels if high > low else levels[:0]


def component_candidates(
    maps: Sequence[tuple[NDArray[np.float32], NDArray[np.float64]]],
    diameter: float,
    areas: tuple[float, float],
) -> list[InstanceMask]:
    """Return the components of maps at their levels, holes filled, each once.

    Parameters
    ----------
    maps
        Pairs of a map (H, W), high on objects, and its levels.
    diameter
        Typical diameter of an object in pixels; it sets how finely components are split.
    areas
        Smallest and largest area of a candidate in pixels.
    """
    seen: set[tuple[int, ...]] = set()
    found: list[InstanceMask] = []
    for plane, levels in maps:
        for number, level in enumerate(levels):
            above = plane > level
            if not above.any():
                continue
            _collect(ndimage.label(above)[0], areas, seen, found)
            if number % _SPLIT_EVERY == 0:
                _collect(_split(above, diameter), areas, seen, found)
    return found


def _split(above: NDArray[np.bool_], diameter: float) -> NDArray[Any]:
    """Label a mask (H, W), touching objects apart."""
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(above), max(1.0, diameter / 12))
    peaks = peak_local_max(  # type: ignore[no-untyped-call]
        depth, min_distance=max(1, int(diameter / 2.5)), labels=above.astype(np.int32), exclude_border=False
    )
    seeds = np.zeros(above.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: NDArray[Any] = watershed(-depth, seeds, mask=above)  # type: ignore[no-untyped-call]
    return labels


def _collect(
    labels: NDArray[Any], areas: tuple[float, float], seen: set[tuple[int, ...]], found: list[InstanceMask]
) -> None:
    sizes = np.bincount(labels.ravel())
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        # find_objects has None for a number that no pixel carries; labels have no gaps, but watersheds may.
        if not place or not areas[0] <= sizes[number] <= areas[1]:
            continue
        data = ndimage.binary_fill_holes(labels[place] == number)
        area = int(np.count_nonzero(data))
        rows, columns = place
        key = (rows.start, rows.stop, columns.start, columns.stop, int(np.log(area) / _SAME_AREA))
        if area <= areas[1] and key not in seen:
            seen.add(key)
            found.append(InstanceMask(data, columns.start, rows.start, (labels.shape[0], labels.shape[1])))
