"""From what was found in the blocks of a frame to one result, each object once."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from sam2_fewshot.geometry.overlap import grown, intersect, mask_iou, pixels_in, shared_area, touching
from sam2_fewshot.records import FrameResult
from sam2_fewshot.tiling.blocks import is_owned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sam2_fewshot.records import Box, Detection, InstanceMask
    from sam2_fewshot.tiling.blocks import BlockResult, SearchPlan

_SAME = 0.5
"""Detections of two blocks that share more than this of the smaller one are one object, or one is a part of it. Pieces
of one object have an IoU above this where both blocks see it."""
_OVERLAP = 0.2
"""A detection that its own block does not answer for is taken only when it shares less than this with all others."""


def merge(
    results: Sequence[BlockResult], plan: SearchPlan, search: Callable[[Box], FrameResult]
) -> tuple[FrameResult, int]:
    """Make one result of what the blocks found.

    Objects longer than the blocks overlap are searched once more, each in a window around what was seen of it.

    Parameters
    ----------
    results
        Of all blocks of one frame, in any order.
    plan
        How the frame is searched.
    search
        Searches a window of the frame.

    Returns
    -------
    found
        Its detections are those of any score, in no order.
    lost
        How many objects do not fit into a window that may be searched at a time, and are left out.
    """
    detections, clipped = without_duplicates(results, plan.threshold)
    detections, lost = _with_whole(detections, clipped, plan, search)
    seconds: dict[str, float] = {}
    for each in results:
        for stage, taken in each.found.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + taken
    proposed = [mask for each in results for mask in each.found.proposed or ()]
    found = FrameResult(
        detections,
        floor=max((each.found.floor for each in results), default=0.0),
        candidates=sum(each.found.candidates for each in results),
        seconds=seconds,
        blocks=len(results),
        blank=sum(each.found.blank for each in results),
        proposed=proposed if any(each.found.proposed is not None for each in results) else None,
    )
    return found, lost


def without_duplicates(
    results: Sequence[BlockResult], threshold: float = 0.0
) -> tuple[list[Detection], list[InstanceMask]]:
    """Take each object from the block that answers for it.

    One that a neighbour found as well, with a middle a little to this side or that of the border, is taken once. What
    lies below the threshold gives way to what does not, and has no part in what becomes of that.

    Parameters
    ----------
    results
        Of all blocks of one frame, in any order.
    threshold
        The score that an object should have.

    Returns
    -------
    detections
        The highest score first; of equal scores in the order of the blocks.
    clipped
        What is in no block whole and was taken by none, largest first, each once.
    """
    entries = sorted(
        (
            item.score < threshold,
            not is_owned(item.instance, each.block.core),
            -item.score,
            item.instance.y0,
            item.instance.x0,
            number,
            place,
        )
        for number, each in enumerate(results)
        for place, item in enumerate(each.found.detections)
    )
    items = [results[number].found.detections[place] for *_, number, place in entries]
    homes = [number for *_, number, _ in entries]
    tree = shapely.STRtree([shapely.box(*item.bbox) for item in items])
    taken = np.zeros(len(items), bool)
    for at, (item, home, entry) in enumerate(zip(items, homes, entries, strict=True)):
        near = [int(i) for i in tree.query(shapely.box(*item.bbox)) if taken[i] and homes[i] != home]
        most = _OVERLAP if entry[1] else _SAME
        taken[at] = not any(_share(item.instance, items[i].instance) > most for i in near)
    left: list[_Piece] = []
    pieces = (_Piece(mask, each.block.read) for each in results for mask in each.clipped)
    for piece in sorted(pieces, key=lambda piece: -piece.mask.area):
        mask = piece.mask
        near = [int(i) for i in tree.query(shapely.box(*mask.box)) if taken[i]]
        beside = [items[i].instance for i in near if items[i].score >= threshold]
        # A piece belongs to what covers it; what lies within a long object does not explain the object.
        if not any(shared_area(mask, other) > _SAME * mask.area for other in beside):
            left.append(piece)
    order = sorted(np.flatnonzero(taken), key=lambda at: (-items[at].score, *entries[at][-2:]))
    return [items[at] for at in order], _largest_of_each(left)


class _Piece(NamedTuple):
    """A mask that is not whole, and the box of the frame in which it was seen."""

    mask: InstanceMask
    seen: Box


def _largest_of_each(pieces: Sequence[_Piece]) -> list[InstanceMask]:
    """Return the first of each group of pieces that are of one object, directly or by way of others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pieces:
        return []
    masks = [piece.mask for piece in pieces]
    same = [(i, k) for i, k in touching(masks, masks) if i < k and _are_of_one(pieces[i], pieces[k])]
    pairs = np.array(same, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(len(pieces), len(pieces)))
    first = np.unique(connected_components(graph, directed=False)[1], return_index=True)[1]
    return [masks[i] for i in sorted(first)]


def _are_of_one(a: _Piece, b: _Piece) -> bool:
    """Tell whether two pieces agree where both were seen; long objects that touch or cross share a few pixels."""
    common = intersect(a.seen, b.seen)
    one, other = (piece.mask.within(common) if common else None for piece in (a, b))
    return one is not None and other is not None and mask_iou(one, other) > _SAME


def _with_whole(
    detections: Sequence[Detection],
    clipped: Sequence[InstanceMask],
    plan: SearchPlan,
    search: Callable[[Box], FrameResult],
) -> tuple[list[Detection], int]:
    """Add the objects that are in no block whole, each searched once more in a window around what was seen of it."""
    tree = shapely.STRtree([shapely.box(*item.bbox) for item in detections])
    stays = np.ones(len(detections), bool)
    wholes: list[Detection] = []
    lost = 0
    for piece in clipped:
        if any(2 * shared_area(whole.instance, piece) > piece.area for whole in wholes):
            continue  # of what was found by another piece of it
        whole, is_lost = _whole_of(piece, plan, search)
        lost += is_lost
        if whole is not None:
            # What it covers was taken for an object of its own where only a part could be seen.
            for i in tree.query(shapely.box(*whole.bbox)).tolist():
                stays[i] &= not _is_covered(detections[i], whole)
            wholes = [*(item for item in wholes if not _is_covered(item, whole)), whole]
    return [*compress(detections, stays), *wholes], lost


def _is_covered(item: Detection, whole: Detection) -> bool:
    """Tell whether more than half of a detection lies in another."""
    return 2 * shared_area(whole.instance, item.instance) > item.area


def _whole_of(
    piece: InstanceMask, plan: SearchPlan, search: Callable[[Box], FrameResult]
) -> tuple[Detection | None, bool]:
    """Return the object of a piece, and whether it is too large for a window; neither, where there is no object."""
    while True:
        window = _window_around(piece, plan.halo)
        if pixels_in(window) > plan.most_pixels:
            return None, True
        found = [
            item
            for item in search(window).detections
            if item.score >= plan.threshold and 2 * shared_area(item.instance, piece) > piece.area
        ]
        for item in found:
            if not item.instance.is_clipped(window):
                return item, False
        # A window shows more of it, and not yet all: look around what is seen now.
        longer = max((item.instance for item in found), key=lambda mask: mask.area, default=piece)
        if longer.area <= piece.area:
            return None, False
        piece = longer


def _window_around(mask: InstanceMask, margin: int) -> Box:
    """Return the box of a mask, grown by its own longest side and a margin each way, inside the frame."""
    return grown(mask.box, max(mask.data.shape) + margin, mask.frame_shape)


def _share(a: InstanceMask, b: InstanceMask) -> float:
    return shared_area(a, b) / max(1, min(a.area, b.area))
