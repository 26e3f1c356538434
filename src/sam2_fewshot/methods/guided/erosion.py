"""Erosion: learning from the cores of objects that touch, and growing what is detected back to whole objects.

Where objects lie side by side and were drawn up to each other, as bacteria in a colony or cells that share a wall, an
outline tells nothing of what parts them: the seam belongs to the marks as much as their middles do, and what was
learned from them takes rows of objects for one. Their cores do not touch. So marks are eroded before they are learned
from, and detections are grown back by as much, until they meet. Instances are often parted like this when networks are
trained (Ronneberger et al. 2015 draw them a little apart; Bai & Urtasun 2017 erode them step by step).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sam2_fewshot.geometry.overlap import boxes_of, cells, grown, intersect, mask_iou, union_of
from sam2_fewshot.methods.guided.box_refinement import OVERLAP
from sam2_fewshot.records import InstanceMask, common_part, whole_box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_SHARE = 0.5
"""A mask is eroded by so large a part of its own depth at most, the distance of its innermost pixel from the outside,
so that something is left of small and thin ones."""
LEAST_AREA = 0.1
"""How large a part of its area is left of nearly any mask: a quarter of a large disc, .11 of 3 × 3 pixels."""
_KEPT = 0.9
"""IoU of an example with what is eroded and grown back of it, below which erosion takes too much of its shape."""
_PIECE = 1024
"""Pixels each way in which detections are grown back at a time; distances take 16 bytes a pixel."""


def depth_of(masks: Sequence[InstanceMask]) -> float:
    """Return by how many pixels marks may be eroded: half the median depth, 0 where that takes too much of them."""
    depth = _SHARE * float(np.median([_depths(mask).max() for mask in masks])) if masks else 0.0
    if not 1 <= depth < math.inf:  # what is less deep has no pixel that is nearer to the outside than its core
        return 0.0
    kept = np.median([mask_iou(mask, restored([eroded(mask, depth)], depth)[0]) for mask in masks])
    return depth if kept >= _KEPT else 0.0


def eroded(mask: InstanceMask, depth: float) -> InstanceMask:
    """Return the core of a mask: its pixels that lie further than `depth` from the outside.

    Parameters
    ----------
    mask
        Not empty. What lies beyond the border of its frame is not outside.
    depth
        In pixels; of a mask that is not twice as deep, half of its depth is taken.
    """
    depths = _depths(mask)
    taken = min(depth, _SHARE * float(depths.max()))
    core = InstanceMask(depths > taken, mask.x0, mask.y0, mask.frame_shape)
    return core.within(whole_box(mask.frame_shape)) or mask


def restored(
    cores: Sequence[InstanceMask],
    depth: float | Sequence[float],
    beside: Sequence[InstanceMask] = (),
    piece: int = _PIECE,
) -> list[InstanceMask]:
    """Return what cores were before they were eroded, as far as they do not meet.

    How much was taken of a mask that was less than twice as deep as `depth` shows in what is left, but for a pixel: it
    may be returned a pixel wider on each side.

    Parameters
    ----------
    cores
        Of one frame, the best first: where two share pixels, these are the first one's.
    depth
        By how many pixels they were eroded, all alike or each; where all is 0 they are returned as they are.
    beside
        Whole masks of other objects, which are not grown over. Between them and the cores, the seam is where it would
        be if they were cores as well.
    piece
        Pixels each way that are grown in at a time.
    """
    depths = np.broadcast_to(np.asarray(depth, float), len(cores))
    deepest = float(depths.max(initial=0.0))
    if deepest <= 0:
        return list(cores)
    shape = cores[0].frame_shape
    boxes = boxes_of(cores)
    around = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    window = grown(around, math.ceil(deepest), shape)
    near = [mask for mask in beside if intersect(mask.box, window)]
    masks = [*cores, *(eroded(mask, deepest) for mask in near)]
    x, y = window[:2]
    labels = np.zeros((window[3] - y, window[2] - x), np.int32)
    own = np.array([0.0, *depths, *(deepest for _ in near)])
    reach = np.zeros_like(own)
    for number in range(len(masks), 0, -1):
        mask = masks[number - 1]
        into, of = common_part(window, mask.box)
        labels[into][mask.data[of]] = number
        # The depth of what was left of a mask tells how much was taken where that was half.
        reach[number] = min(own[number], float(_depths(mask).max()) * _SHARE / (1 - _SHARE))
    owner = _nearest(labels, reach, own, piece)
    for mask in near:
        into, of = common_part(window, mask.box)
        owner[into][mask.data[of]] = 0
    places = ndimage.find_objects(owner, len(cores))
    return [
        core if place is None else _with_core(owner[place] == number, x + place[1].start, y + place[0].start, core)
        for number, (core, place) in enumerate(zip(cores, places, strict=True), 1)
    ]


def restored_in_turn(
    cores: Mapping[int, InstanceMask],
    odds: NDArray[np.float64],
    depths: NDArray[np.float64],
    known: Sequence[InstanceMask],
) -> dict[int, InstanceMask]:
    """Return the whole objects of the cores above the threshold, then of those below it that do not lie under these.

    Parameters
    ----------
    cores
        By their numbers, the best first.
    odds, depths
        Of all numbers: log-odds above the threshold, and by how many pixels of the frame each was eroded.
    known
        Masks of the examples on the frame.
    """
    surer, below = [i for i in cores if odds[i] >= 0], [i for i in cores if odds[i] < 0]
    whole = dict(zip(surer, restored([cores[i] for i in surer], depths[surer].tolist(), known), strict=True))
    taken = union_of(whole.values(), next(iter(cores.values())).frame_shape if cores else (0, 0))
    below = [i for i in below if (cores[i].under(taken) & cores[i].data).sum() <= OVERLAP * cores[i].area]
    back = restored([cores[i] for i in below], depths[below].tolist(), [*known, *whole.values()])
    return whole | dict(zip(below, back, strict=True))


def _with_core(data: NDArray[np.bool_], x: int, y: int, core: InstanceMask) -> InstanceMask:
    """Return the parts of a mask, at a column and row of the frame, that hold something of its core.

    What is grown around a thin neighbour to its far side does not.
    """
    parts, count = ndimage.label(data, np.ones((3, 3)))
    if count > 1:
        held = np.unique(parts[core.window((x, y, x + data.shape[1], y + data.shape[0]))])
        data = np.isin(parts, held[held > 0])
    return InstanceMask(data, x, y, core.frame_shape).within(whole_box(core.frame_shape)) or core


def _depths(mask: InstanceMask) -> NDArray[np.float64]:
    """Return the distance of each of a mask's pixels (h, w) from the nearest one outside; inf where there is none."""
    height, width = mask.frame_shape
    x0, y0, x1, y1 = mask.box
    before, after = (int(y0 > 0), int(x0 > 0)), (int(y1 < height), int(x1 < width))
    padded = np.pad(mask.data, tuple(zip(before, after, strict=True)))
    if padded.all():
        return np.full(mask.data.shape, np.inf)
    distances: NDArray[np.float64] = ndimage.distance_transform_edt(padded)
    return distances[before[0] : before[0] + y1 - y0, before[1] : before[1] + x1 - x0]


def _nearest(
    labels: NDArray[np.int32], reach: NDArray[np.float64], depths: NDArray[np.float64], piece: int
) -> NDArray[np.int32]:
    """Return the nearest label of each pixel (H, W) that lies within that label's reach in pixels, else 0.

    What is out of the nearest one's reach goes to the nearest of those of which as much was taken as of any: small ones
    do not cut notches into large ones.

    Parameters
    ----------
    labels
        int32 (H, W).
    reach, depths
        How far each label is grown, and how much would have been taken of a deep mask; 0 for no label.
    piece
        Pixels each way of what is looked at at a time.
    """
    owner = np.zeros_like(labels)
    margin = math.ceil(depths.max())
    for x0, y0, x1, y1 in cells((0, 0, labels.shape[1], labels.shape[0]), piece):
        left, top, right, bottom = grown((x0, y0, x1, y1), margin, labels.shape)
        here = labels[top:bottom, left:right]
        if not here.any():
            continue
        taken = _within_reach(here, reach)
        for depth in np.unique(depths[depths > 0]):
            deep = np.where(((depths == depth) & (reach >= depth))[here], here, 0)
            if deep.any():
                taken = np.where(taken == 0, _within_reach(deep, reach), taken)
        owner[y0:y1, x0:x1] = taken[y0 - top : y1 - top, x0 - left : x1 - left]
    return owner


def _within_reach(labels: NDArray[np.int32], reach: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the nearest label of each pixel within its reach, else 0."""
    distances, (rows, columns) = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    nearest: NDArray[np.int32] = labels[rows, columns]
    nearest[distances > reach[nearest]] = 0
    return nearest
