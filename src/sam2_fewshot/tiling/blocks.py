"""Frames of any size in blocks: where these lie, what each answers for, and which show nothing.

A small frame is a frame with one block. A block's core is what it answers for; what is read reaches beyond it by a
halo, so that objects on the border are whole. Cores begin at multiples of a step after which the method's own tiles
repeat: two blocks then see the same features where they overlap, and the result hardly depends on where the grid lies.
All numbers are pixels of the whole frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sam2_fewshot.records import FrameResult
from sam2_fewshot.rendering import overview
from sam2_fewshot.tiling.tiles import in_window, is_clipped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Progress, Staged
    from sam2_fewshot.records import Box, FrameReader, InstanceMask

_REACH = 2.0
"""The halo is this many times the longest side of an example: objects up to so long are whole in the block that owns
them."""
_OVERVIEW = 2048
"""Pixels; the contrast of a frame is measured on a picture of about this side."""
_ENDS = 0.5
"""Percent of the pixels at either end that do not count for the contrast of a frame."""
_EVEN = 0.05
"""A block whose contrast is at most this share of the frame's shows nothing but background."""
_NEVER = -1.0
"""A contrast below which no block is: that of a frame with one block is not measured."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a frame that is searched at a time.

    Parameters
    ----------
    core
        Box ``(x0, y0, x1, y1)`` of what it answers for; the cores of a frame touch and cover it.
    read
        The core and its halo, inside the frame.
    """

    core: Box
    read: Box


@dataclass(frozen=True, eq=False, slots=True)
class BlockResult:
    """What was found in a block.

    Parameters
    ----------
    block
        The block.
    found
        Its detections are the whole objects, of any score, whose middle lies in the core or in the halo not far from
        it; its floor is the score down to which they are complete.
    clipped
        Masks that reach from the core to where the block's pixels end, so that they are not whole; none below the
        threshold.
    """

    block: Block
    found: FrameResult = field(default_factory=FrameResult)
    clipped: Sequence[InstanceMask] = ()


@dataclass(frozen=True, eq=False, slots=True)
class SearchPlan:
    """How a frame is searched.

    Parameters
    ----------
    blocks
        In which blocks; one for a small frame.
    halo
        How far these overlap at least, in pixels.
    most_pixels
        The most that are read at a time.
    diameter
        Typical diameter of an object in pixels.
    contrast
        Contrast, in grey levels, up to which a block is blank.
    known
        The examples on the frame.
    """

    blocks: Sequence[Block]
    halo: int
    most_pixels: int
    diameter: float
    contrast: float
    known: Sequence[InstanceMask]

    def is_blank(self, pixels: NDArray[np.uint8]) -> bool:
        """Tell whether a block (h, w, 3) has so little contrast, for its frame, that no object can be in it."""
        return contrast_of(pixels, max(1, round(self.diameter / 3))) <= self.contrast


class BlockStore(Protocol):
    """Keeps what was found in a frame's blocks, so that a search that was stopped can go on."""

    def load(self, blocks: Sequence[Block]) -> Mapping[Block, BlockResult]:
        """Return the results of those of the blocks that were searched before."""
        ...

    def save(self, result: BlockResult) -> None:
        """Store the result of a block."""
        ...


def plan_search(
    frame: FrameReader,
    *,
    sides: tuple[float, float],
    known: Sequence[InstanceMask],
    most_pixels: int,
    step: int,
    progress: Progress,
    shift: tuple[int, int] = (0, 0),
) -> SearchPlan:
    """Decide how to search a frame. One with several blocks is read once, in strips, for its contrast.

    Parameters
    ----------
    frame
        The frame.
    sides
        Typical diameter, and longest side, of the examples in pixels; the latter sets the halo.
    known
        The examples on the frame.
    most_pixels
        As many may be searched at a time.
    step
        After so many pixels the method's own tiles repeat.
    progress
        Is warned when not even the smallest block fits.
    shift
        As in :func:`block_plan`.

    Raises
    ------
    InputError
        If the frame cannot be read.
    """
    diameter, longest = sides
    reach = int(np.ceil(_REACH * longest))
    halo = -(-reach // step) * step
    height, width = frame.shape
    if height * width <= most_pixels:
        everything = (0, 0, width, height)
        return SearchPlan([Block(everything, everything)], halo, most_pixels, diameter, _NEVER, known)
    least = (max(step, halo) + 2 * halo) ** 2
    if least > most_pixels:
        progress.warn(
            f"Objects of this size need {least / 1e6:.1f} megapixels at a time, which may take more than Max Memory "
            "allows; raise it if the memory does not suffice."
        )
    most = max(most_pixels, least)
    contrast = contrast_of(overview(frame, max(1, max(frame.shape) // _OVERVIEW)), share=_ENDS)
    return SearchPlan(block_plan(frame.shape, most, step, reach, shift), halo, most, diameter, _EVEN * contrast, known)


def block_plan(
    frame_shape: tuple[int, int], most_pixels: int, step: int, reach: int, shift: tuple[int, int] = (0, 0)
) -> list[Block]:
    """Cover a frame with blocks.

    Parameters
    ----------
    frame_shape
        ``(height, width)`` of the frame.
    most_pixels
        A block should not have more, halo included; but its core is at least as wide as the halo.
    step
        Blocks begin at multiples of this.
    reach
        The halo is at least this wide: the longest side of an object.
    shift
        ``(x, y)`` by which the grid is moved, in steps; for trying how much the result depends on it.

    Returns
    -------
    list of Block
        Row by row, of about the same size.
    """
    halo = -(-reach // step) * step
    side = max(step, halo, int((most_pixels**0.5 - 2 * halo) // step) * step)

    def spans(length: int, moved: int) -> list[tuple[int, int]]:
        count = -(-length // side)
        even = -(-length // (count * step)) * step
        begins = range((moved * step) % even - even if moved * step % even else 0, length, even)
        return [(max(begin, 0), min(begin + even, length)) for begin in begins]

    height, width = frame_shape
    return [
        Block(
            (x0, y0, x1, y1),
            (max(x0 - halo, 0), max(y0 - halo, 0), min(x1 + halo, width), min(y1 + halo, height)),
        )
        for y0, y1 in spans(height, shift[1])
        for x0, x1 in spans(width, shift[0])
    ]


def search_blocks(
    plan: SearchPlan, search: Callable[[Block], BlockResult], progress: Staged, store: BlockStore | None
) -> list[BlockResult]:
    """Search a frame's blocks one after the other, but for those that are stored.

    Parameters
    ----------
    plan
        Says which blocks.
    search
        Searches one.
    progress
        Learns which block it is, where there are several.
    store
        Has the results of an earlier run, and takes those of this one; None for a frame that is not worth it.
    """
    if len(plan.blocks) == 1:
        return [search(plan.blocks[0])]
    stored = store.load(plan.blocks) if store else {}
    results = []
    for number, block in enumerate(plan.blocks, 1):
        progress.part = f"block {number} of {len(plan.blocks)}: "
        result = stored.get(block)
        if result is None:
            result = search(block)
            if store:
                store.save(result)
        results.append(result)
    progress.part = ""
    return results


def owned_by(block: Block, found: FrameResult, halo: int, threshold: float) -> BlockResult:
    """Return what a block answers for, of all that was found in its pixels.

    Clipped objects that reach the threshold are searched once more later, in a window around them. For the others that
    would take long and be of little use, so the block only reports that of such scores something is missing.

    Parameters
    ----------
    block
        The block.
    found
        Its detections are all that was found, in frame pixels.
    halo
        Of the plan, in pixels.
    threshold
        The score that an object should have.
    """
    whole = [item for item in found.detections if not is_clipped(item.instance, block.read)]
    clipped = [
        item
        for item in found.detections
        if is_clipped(item.instance, block.read) and in_window(item.instance, block.core) is not None
    ]
    missing = (math.nextafter(item.score, math.inf) for item in clipped if item.score < threshold)
    owned = [item for item in whole if is_owned(item.instance, block, halo // 4)]
    return BlockResult(
        block,
        replace(found, detections=owned, floor=max([found.floor, *missing])),
        [item.instance for item in clipped if item.score >= threshold],
    )


def is_owned(mask: InstanceMask, block: Block, slack: int = 0) -> bool:
    """Tell whether the middle of a mask's bounding box lies in a block's core, or within `slack` pixels of it."""
    x0, y0, x1, y1 = block.core
    left, top, right, bottom = mask.box
    x, y = (left + right) / 2, (top + bottom) / 2
    return x0 - slack <= x < x1 + slack and y0 - slack <= y < y1 + slack


def contrast_of(pixels: NDArray[np.uint8], step: int = 1, share: float = 0.0) -> float:
    """Return the widest span of values in a picture (H, W, 3), in any of its colours.

    Parameters
    ----------
    pixels
        uint8 RGB.
    step
        Means over squares of this side are looked at, so that noise counts for little.
    share
        So many percent at either end are left out.
    """
    height, width = (max(1, side // step) for side in pixels.shape[:2])
    if step > 1 and min(pixels.shape[:2]) >= step:
        squares = pixels[: height * step, : width * step].reshape(height, step, width, step, 3)
        # One axis after the other: a mean over both at once is ten times as slow.
        means = squares.mean(axis=3, dtype=np.float32).mean(axis=1)
    else:
        means = pixels.astype(np.float32)
    low, high = np.percentile(means.reshape(-1, 3), [share, 100 - share], axis=0)
    return float((high - low).max())
