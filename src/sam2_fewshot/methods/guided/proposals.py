"""Proposals of the guided method: components of maps at many thresholds, and peaks of maps as point prompts.

An object that stands out from its surroundings, in brightness or in a learned map, is a component of the map at some
level between the two. Thresholding at many levels and keeping every component of a plausible size proposes nearly all
of them; which ones are objects is decided later. Components in which objects touch are also split by a watershed on the
distance to their border (Beucher & Lantuéjoul 1979). Where objects touch without a gap, no threshold of a map
separates them, but a peak often lies in each.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from sam2_fewshot.geometry.sheets import sheets, squared_distances, stacked
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.resources import mapped
from sam2_fewshot.tiling.tiles import tile_at, whole_masks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone, Embedding
    from sam2_fewshot.tiling.tiles import TileGrid

    _Labels: TypeAlias = tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]

_LEVELS = 14
_SPLIT_EVERY = 3
"""Splitting takes longer than labelling, and neighbouring levels split alike."""
_SHEET = 1 << 20
"""Pixels that are split at a time."""
_SAME_AREA = 0.04
"""Components with the same bounding box whose areas differ by less than this share are taken as one."""


def threshold_levels(inside: NDArray[np.float32], around: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the levels at which to threshold a map.

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
) -> tuple[list[InstanceMask], NDArray[np.int64]]:
    """Return the components of maps at their levels, holes filled, each once, and at how many levels each came out.

    Parameters
    ----------
    maps
        Pairs of a map (H, W), high on objects, and its levels.
    diameter
        Typical diameter of an object in pixels; it sets how finely components are split.
    areas
        Smallest and largest area of a candidate in pixels.

    Returns
    -------
    masks
        The candidates.
    times
        int64 (N,). As only at each third level components are split, what comes of that counts three times.
    """
    if not maps:
        return [], np.zeros(0, np.int64)
    height, width = maps[0][0].shape
    whole = np.arange(height), np.zeros(height, np.int64)

    def thresholded(piece: tuple[NDArray[np.float32], float, bool]) -> list[tuple[InstanceMask, int]]:
        # Only the parts are returned: the labels of several levels at a time would take as much memory as the maps.
        plane, level, split = piece
        labels = ndimage.label(plane > level)[0]
        components = _parts(labels, *whole, areas, (height, width))
        parts = [(part, 1) for part in components.values()]
        for sheet, unsplit in _split(labels, areas, diameter) if split else ():
            parts += [(part, _SPLIT_EVERY) for part in _parts(*sheet, areas, (height, width)).values()]
            parts += [(components[number], _SPLIT_EVERY) for number in unsplit if number in components]
        return parts

    pieces = [
        (plane, float(level), number % _SPLIT_EVERY == 0)
        for plane, levels in maps
        for number, level in enumerate(levels)
    ]
    masks: list[InstanceMask] = []
    times: list[int] = []
    seen: dict[tuple[int, ...], int] = {}
    for part, count in chain.from_iterable(mapped(thresholded, pieces)):
        key = (*part.box, int(np.log(part.area) / _SAME_AREA))
        if key not in seen:
            seen[key] = len(masks)
            masks.append(part)
            times.append(0)
        times[seen[key]] += count
    return masks, np.array(times, np.int64)


def _split(
    labels: NDArray[Any], areas: tuple[float, float], diameter: float
) -> Iterator[tuple[_Labels, NDArray[np.int64]]]:
    """Label touching objects within components separately.

    Each component is split by itself, so that the result does not depend on what lies around it, and empty ground
    costs nothing. Yields sheets of labels, with the plane's row and first column of each of their rows, and the numbers
    of the components that have a single seed, and are not on the sheet.
    """
    sigma, distance = max(1.0, diameter / 12), max(1, int(diameter / 2.5))
    margin = max(int(4 * sigma), distance // 2) + 1
    sizes = np.bincount(labels.ravel())
    places = enumerate(ndimage.find_objects(labels), 1)
    # What is smaller has no room for two.
    chosen = [(number, place) for number, place in places if place and sizes[number] >= 2 * areas[0]]
    numbers = np.array([number for number, _ in chosen], np.int64)
    shapes = np.array([[axis.stop - axis.start for axis in place] for _, place in chosen], int).reshape(-1, 2)
    for here in sheets(shapes + 2 * margin, _SHEET):
        above, starts, owner = stacked([labels[chosen[i][1]] == chosen[i][0] for i in here], margin)
        # Nothing lies deeper in a component than half its width.
        squares = squared_distances(above, int(shapes[here].min(axis=1).max()) // 2 + 1)
        depth = ndimage.gaussian_filter(np.sqrt(squares, dtype=np.float64), sigma)
        peaks = peak_local_max(  # type: ignore[no-untyped-call]
            depth, min_distance=distance, labels=above.astype(np.int32), exclude_border=False
        )
        seeds = np.zeros(above.shape, np.int32)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        corners = np.array([[axis.start for axis in chosen[i][1]] for i in here]) - margin
        rows = np.arange(len(owner)) - starts[owner] + corners[owner, 0]
        count = np.bincount(owner[peaks[:, 0]], minlength=len(here))
        on_sheet = (count > 1)[owner]
        split = watershed(-depth[on_sheet], seeds[on_sheet], mask=above[on_sheet])  # type: ignore[no-untyped-call]
        yield (split, rows[on_sheet], corners[owner[on_sheet], 1]), numbers[here[count == 1]]


def _has_gaps(data: NDArray[np.bool_]) -> bool:
    """Tell whether some row of a mask, none of whose rows is empty, is in several pieces; if not, it has no holes."""
    pieces = np.count_nonzero(data[:, 0]) + np.count_nonzero(data[:, 1:] > data[:, :-1])
    return bool(pieces > len(data))


def _parts(
    labels: NDArray[Any],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    areas: tuple[float, float],
    frame_shape: tuple[int, int],
) -> dict[int, InstanceMask]:
    """Return the components of a plane or a sheet that are of a plausible size, holes filled, by their numbers.

    `rows` and `columns` are as :func:`_split` gives them.
    """
    parts: dict[int, InstanceMask] = {}
    sizes = np.bincount(labels.ravel(), minlength=1)
    sizes[0] = 0  # what is no component
    plausible = np.flatnonzero((max(areas[0], 1) <= sizes) & (sizes <= areas[1])).tolist()
    places = ndimage.find_objects(labels) if plausible else []
    for number in plausible:
        place = places[number - 1]
        data = labels[place] == number
        if _has_gaps(data) and _has_gaps(data.T):
            data = ndimage.binary_fill_holes(data)
        y, x = int(rows[place[0].start]), int(columns[place[0].start]) + place[1].start
        part = InstanceMask(data, x, y, frame_shape)
        if part.area <= areas[1]:
            parts[number] = part
    return parts


def peaks(
    maps: Sequence[tuple[NDArray[np.float32], NDArray[np.float64]]], diameter: float, most: int
) -> NDArray[np.float64]:
    """Return the peaks (N, 2) of maps, ``(x, y)`` in image pixels.

    Parameters
    ----------
    maps
        Pairs of a map (H, W), high on objects, and its levels; what lies below the lowest level has no peaks.
    diameter
        Typical diameter of an object in pixels; it sets how far peaks lie from each other.
    most
        How many are returned at most of each map, the highest.
    """
    found = np.empty((0, 2))
    for plane, levels in maps:
        if not len(levels):
            continue
        smooth = ndimage.gaussian_filter(plane, diameter / 6)
        here = (
            peak_local_max(  # type: ignore[no-untyped-call]
                smooth,
                min_distance=max(1, int(diameter / 3)),
                threshold_abs=float(levels[0]),
                num_peaks=most,
                exclude_border=False,
            )[:, ::-1]
            + 0.5
        )
        if len(found):
            is_new = np.linalg.norm(here[:, None] - found[None], axis=-1).min(axis=1) > diameter / 4
            here = here[is_new]
        found = np.concatenate([found, here])
    return found


def point_candidates(
    backbone: Backbone,
    embeddings: Mapping[int, Embedding],
    grid: TileGrid,
    points: NDArray[np.float64],
    areas: tuple[float, float],
) -> list[InstanceMask]:
    """Return the masks that point prompts give, of a plausible size; none in tiles that are not encoded.

    Parameters
    ----------
    backbone
        Decodes the prompts.
    embeddings
        Of the grid's tiles that are encoded, by their numbers.
    grid
        Of the frame.
    points
        (N, 2), ``(x, y)`` in image pixels.
    areas
        Smallest and largest area of a mask in pixels.
    """
    windows, zoom = grid.windows(), backbone.input_size / grid.side
    reach = math.sqrt(areas[1]) / 2 * zoom
    tiles = np.array([tile_at(grid, x, y) for x, y in points], int)
    found: list[InstanceMask] = []
    for tile in np.unique(tiles).tolist():
        if tile not in embeddings:
            continue
        # In prompts a pixel's centre is a whole number.
        prompts = (points[tiles == tile] - windows[tile][:2]) * zoom - 0.5
        answers = backbone.prompt(embeddings[tile], prompts.astype(np.float32), reach=reach)
        masks = whole_masks(answers, windows[tile], grid.frame_shape)
        found += [mask for _, mask in masks if areas[0] <= mask.area <= areas[1]]
    return found
