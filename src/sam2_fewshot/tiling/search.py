"""Frames too large to be held, and how they are searched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import intersect, shared_area
from sam2_fewshot.methods.base import RunStats
from sam2_fewshot.object_model import reader_digest
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.rendering import overview
from sam2_fewshot.tiling.blocks import (
    Block,
    BlockFinds,
    block_plan,
    contrast_of,
    is_cut,
    is_owned,
    least_pixels,
    window_around,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sam2_fewshot.object_model import ObjectModel
    from sam2_fewshot.protocols import FrameReader, Progress
    from sam2_fewshot.records import Box, Detection

_REACH = 2.0
"""The halo is this many times the longest side of an example: objects up to so long are whole in the block that owns
them."""
_OVERVIEW = 2048
"""Pixels; the contrast of a frame is measured on a picture of about this side."""
_ENDS = 0.5
"""Percent of the pixels at either end that do not count for the contrast of a frame."""


@dataclass(frozen=True, eq=False, slots=True)
class SearchPlan:
    """How a large frame is searched.

    Parameters
    ----------
    blocks
        In which blocks.
    halo
        How far these overlap at least, in pixels.
    most_pixels
        The most that are read at a time.
    diameter
        Typical diameter of an object in pixels.
    contrast
        Of the frame, see :func:`~sam2_fewshot.tiling.blocks.contrast_of`.
    known
        The examples on the frame.
    """

    blocks: Sequence[Block]
    halo: int
    most_pixels: int
    diameter: float
    contrast: float
    known: Sequence[InstanceMask]


def plan_search(
    frame: FrameReader,
    objects: ObjectModel,
    most_pixels: int,
    step: int,
    progress: Progress,
    shift: tuple[int, int] = (0, 0),
) -> SearchPlan:
    """Decide how to search a large frame; it is read once, in strips, for its contrast.

    Parameters
    ----------
    frame
        The frame.
    objects
        What was learned; the size of the examples sets the halo.
    most_pixels
        As many may be searched at a time.
    step
        After so many pixels the method's own tiles repeat.
    progress
        Is warned when not even the smallest block fits.
    shift
        As in :func:`~sam2_fewshot.tiling.blocks.block_plan`.

    Raises
    ------
    InputError
        If the frame cannot be read.
    """
    diameter = float(np.sqrt(np.median(objects.areas)))
    longest = max((max(item.mask.data.shape) for item in objects.known), default=0)
    reach = int(np.ceil(_REACH * max(longest, np.sqrt(objects.areas.max()))))
    least = least_pixels(step, reach)
    if least > most_pixels:
        progress.warn(
            f"Objects of this size need {least / 1e6:.1f} megapixels at a time, which may take more than Max Memory "
            "allows; raise it if the memory does not suffice."
        )
    blocks = block_plan(frame.shape, max(most_pixels, least), step, reach, shift)
    known: list[InstanceMask] = []
    if any(item.mask.frame_shape == frame.shape for item in objects.known):
        known = objects.known_on(reader_digest(frame))
    reduced = overview(frame, max(1, max(frame.shape) // _OVERVIEW))
    return SearchPlan(
        blocks, -(-reach // step) * step, max(most_pixels, least), diameter, contrast_of(reduced, share=_ENDS), known
    )


class KeptBlocks(Protocol):
    """Someone who keeps what was found in a frame's blocks, so that a search that was stopped can go on."""

    def known(self, blocks: Sequence[Block]) -> Mapping[Block, BlockFinds]:
        """Return what was found in those of the blocks that were searched before."""
        ...

    def keep(self, finds: BlockFinds) -> None:
        """Keep what was found in a block."""
        ...


def search_all(
    plan: SearchPlan, search: Callable[[Block], BlockFinds], progress: Staged, kept: KeptBlocks | None
) -> list[BlockFinds]:
    """Search a frame's blocks one after the other, but for those that are known.

    Parameters
    ----------
    plan
        Tells the blocks.
    search
        Searches one.
    progress
        Learns which block it is.
    kept
        Knows what was found before, and is told what is found.
    """
    known = kept.known(plan.blocks) if kept else {}
    finds = []
    for number, block in enumerate(plan.blocks, 1):
        progress.part = f"block {number} of {len(plan.blocks)}: "
        found = known.get(block)
        if found is None:
            found = search(block)
            if kept:
                kept.keep(found)
        finds.append(found)
    progress.part = ""
    return finds


def sorted_out(
    block: Block, found: Sequence[Detection], halo: int, stats: RunStats, threshold: float = 0.0
) -> BlockFinds:
    """Return what a block answers for, of all that was found in its pixels.

    Pieces of objects that reach the threshold are looked at again later. For the others that would take long and be of
    little use, so the block only tells that of such scores something is missing.
    """
    cut = [is_cut(item.instance, block.read) for item in found]
    pieces = [
        item
        for item, not_whole in zip(found, cut, strict=True)
        if not_whole and in_window(item.instance, block.core) is not None
    ]
    missing = (math.nextafter(item.score, math.inf) for item in pieces if item.score < threshold)
    return BlockFinds(
        block,
        [
            item
            for item, not_whole in zip(found, cut, strict=True)
            if not not_whole and is_owned(item.instance, block, halo // 4)
        ],
        [item.instance for item in pieces if item.score >= threshold],
        stats.candidates,
        dict(stats.seconds),
        floor=max([stats.floor, *missing]),
    )


def summed(finds: Sequence[BlockFinds]) -> RunStats:
    """Return how the search of a frame went, from how it went in its blocks."""
    stats = RunStats(blocks=len(finds), floor=max((each.floor for each in finds), default=0.0))
    for each in finds:
        stats.candidates += each.candidates
        stats.blank += each.blank
        for stage, seconds in each.seconds.items():
            stats.seconds[stage] = stats.seconds.get(stage, 0.0) + seconds
    return stats


def look_again(
    detections: Sequence[Detection],
    cut: Sequence[InstanceMask],
    plan: SearchPlan,
    search: Callable[[Box], Sequence[Detection]],
) -> tuple[list[Detection], int]:
    """Search once more for what was seen in no block whole, each in a window around what was seen of it.

    Parameters
    ----------
    detections
        What was found.
    cut
        The pieces.
    plan
        How the frame is searched.
    search
        Searches a window, for what reaches the threshold.

    Returns
    -------
    detections
        With those that are whole now, in no order.
    lost
        How many do not fit into a window that may be searched at a time.
    """
    kept, lost = list(detections), 0
    for piece in cut:
        whole, is_told = _whole_of(piece, plan, search)
        lost += is_told
        if whole is not None:
            # What it covers was taken for an object of its own where only a part could be seen.
            kept = [other for other in kept if 2 * shared_area(whole.instance, other.instance) <= other.area]
            kept.append(whole)
    return kept, lost


def _whole_of(
    piece: InstanceMask, plan: SearchPlan, search: Callable[[Box], Sequence[Detection]]
) -> tuple[Detection | None, bool]:
    """Return the object of a piece, and whether it is too large for a window; neither, where there is no object."""
    while True:
        window = window_around(piece, plan.halo)
        if (window[2] - window[0]) * (window[3] - window[1]) > plan.most_pixels:
            return None, True
        found = [item for item in search(window) if 2 * shared_area(item.instance, piece) > piece.area]
        for item in found:
            if not is_cut(item.instance, window):
                return item, False
        # A window shows more of it, and not yet all: look around what is seen now.
        longer = max((item.instance for item in found), key=lambda mask: mask.area, default=piece)
        if longer.area <= piece.area:
            return None, False
        piece = longer


def on_frame(mask: InstanceMask, window: Box, frame_shape: tuple[int, int]) -> InstanceMask:
    """Return a mask of a part of a frame as one of the frame."""
    return InstanceMask(mask.data, mask.x0 + window[0], mask.y0 + window[1], frame_shape)


def in_window(mask: InstanceMask, window: Box) -> InstanceMask | None:
    """Return the part of a frame's mask that lies in a window, as a mask of the window; None when there is none."""
    common = intersect(mask.box, window)
    if common is None:
        return None
    shape = (window[3] - window[1], window[2] - window[0])
    part = crop_to_object(mask.window(common), shape, common[0] - window[0], common[1] - window[1])
    return part if part.area else None


class Staged:
    """A :class:`~sam2_fewshot.protocols.Progress` that says in which part of the work a stage is.

    Parameters
    ----------
    progress
        Who is told.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.part = ""

    def start(self, stage: str, total: int | None = None) -> None:
        """Pass on, with the part before the stage."""
        self._progress.start(f"{self.part}{stage}", total)

    def advance(self, steps: int = 1) -> None:
        """Pass on."""
        self._progress.advance(steps)

    def warn(self, sentence: str) -> None:
        """Pass on."""
        self._progress.warn(sentence)
