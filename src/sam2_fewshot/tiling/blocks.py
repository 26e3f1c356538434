"""Frames of any size in blocks: where these lie, what each answers for, and which show nothing.

A small frame is a frame with one block. A block's core is what it answers for; what is read reaches beyond it by a
halo, so that objects on the border are whole. Cores begin at multiples of a step after which the method's own tiles
repeat: two blocks then see the same features where they overlap, and the result hardly depends on where the grid lies.
All numbers are pixels of the whole frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.overlap import grown, intersect
from sam2_fewshot.records import FrameResult, whole_box
from sam2_fewshot.rendering.channels import read_rgb
from sam2_fewshot.tiling.overview import contrast_of, overview

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, Detection, FrameReader, InstanceMask

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
"""A contrast below which no block is: that of the only block of a frame is not measured."""


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
class View:
    """A window of a frame, to be searched.

    Parameters
    ----------
    frame
        The frame.
    window
        Box ``(x0, y0, x1, y1)`` of the frame.
    pixels
        Its uint8 RGB (h, w, 3).
    known, unwanted
        Those masks of the plan that lie in it, in its own coordinates.
    """

    frame: FrameReader
    window: Box
    pixels: NDArray[np.uint8]
    known: Sequence[InstanceMask]
    unwanted: Sequence[InstanceMask] = ()

    def placed(self, mask: InstanceMask) -> InstanceMask:
        """Return a mask of the window as one of the frame."""
        return mask.placed(self.window, self.frame.shape)


Detect = Callable[[View], FrameResult]
"""Searches a window: gives what is there, of any score down to a floor, as detections of the frame."""


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
        The most that may be read at a time; the blocks may be smaller.
    diameter
        Typical diameter of an object in pixels.
    contrast
        Contrast, in grey levels, up to which a block is blank.
    threshold
        The score that an object has at least, as far as it is known before the search.
    known
        Masks of the frame that are marked, and not detected again.
    unwanted
        Masks that are marked as something else; what is found there is no result.
    marked
        The marked masks that are results themselves.
    """

    blocks: Sequence[Block]
    halo: int
    most_pixels: int
    diameter: float
    contrast: float
    threshold: float
    known: Sequence[InstanceMask] = ()
    unwanted: Sequence[InstanceMask] = ()
    marked: Sequence[InstanceMask] = ()

    @property
    def region(self) -> Box:
        """What the blocks cover."""
        first, last = self.blocks[0].core, self.blocks[-1].core
        return first[0], first[1], last[2], last[3]


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
    longest: float,
    diameter: float,
    most_pixels: int,
    step: int,
    threshold: float,
    shift: tuple[int, int] = (0, 0),
    region: Box | None = None,
    at_most: int | None = None,
) -> SearchPlan:
    """Decide how to search a frame. One with several blocks is read once, in strips, for its contrast.

    Parameters
    ----------
    frame
        The frame.
    longest
        Longest side of an example in pixels; it sets the halo.
    diameter
        Diameter of the median example in pixels.
    most_pixels
        So many of the frame's pixels may be searched at a time; the smallest block is searched even if it has more.
    step
        After so many pixels the method's own tiles repeat.
    threshold
        The score that an object should have.
    shift
        As in :func:`cores_of`.
    region
        Box ``(x0, y0, x1, y1)`` that alone is searched, as far as it lies in the frame; None for all of it. Its blocks
        see what they would see of the whole frame, and the contrast is the region's.
    at_most
        Make the blocks no larger than so many pixels where that is possible, so that there are results soon. What does
        not fit into one is searched once more in a window that may be as large as the memory allows.

    Raises
    ------
    InputError
        If the frame cannot be read, or the region holds no pixel of it.
    """
    halo, least = _halo(longest, step), least_pixels(longest, step)
    contrast = _NEVER
    left, top, right, bottom = whole_box(frame.shape) if region is None else _on_grid(region, step, frame)
    at_a_time = most_pixels if at_most is None else min(most_pixels, max(at_most, least))
    cores = [(left, top, right, bottom)]
    if (bottom - top) * (right - left) > at_a_time:
        most_pixels, at_a_time = max(most_pixels, least), max(at_a_time, least)
        of_region = cores_of((bottom - top, right - left), at_a_time, step, halo, shift)
        cores = [(x0 + left, y0 + top, x1 + left, y1 + top) for x0, y0, x1, y1 in of_region]
        reduced = overview(frame, max(1, max(bottom - top, right - left) // _OVERVIEW), (left, top, right, bottom))
        contrast = _EVEN * contrast_of(reduced, share=_ENDS)
    blocks = [Block(core, grown(core, halo, frame.shape)) for core in cores]
    return SearchPlan(blocks, halo, most_pixels, diameter, contrast, threshold)


def least_pixels(longest: float, step: int) -> int:
    """Return how many pixels a block has at least, its halo included.

    Parameters
    ----------
    longest
        Longest side of an example in pixels; it sets the halo.
    step
        After so many pixels the method's own tiles repeat.
    """
    halo = _halo(longest, step)
    return (max(step, halo) + 2 * halo) ** 2


def _halo(longest: float, step: int) -> int:
    """Return how far what is read reaches beyond a core: as far as blocks have to overlap, in whole steps."""
    return -(-math.ceil(_REACH * longest) // step) * step


def _on_grid(region: Box, step: int, frame: FrameReader) -> Box:
    """Return the smallest box around a region, inside the frame, that begins and ends where the method's tiles do."""
    height, width = frame.shape
    inside = intersect(region, whole_box(frame.shape))
    if inside is None:
        raise InputError(
            f"The region ({', '.join(map(str, region))}) holds no pixel of {frame.name}, which is {width} × {height} "
            "px. Give (x0, y0, x1, y1) in its pixels, with x0 < x1 and y0 < y1."
        )
    left, top = (int(side // step) * step for side in inside[:2])
    right, bottom = (-int(-side // step) * step for side in inside[2:])
    return left, top, min(right, width), min(bottom, height)


def cores_of(shape: tuple[int, int], most_pixels: int, step: int, halo: int, shift: tuple[int, int]) -> list[Box]:
    """Cover a frame or region with the cores of blocks.

    Parameters
    ----------
    shape
        Its ``(height, width)``.
    most_pixels
        A block should not have more, halo included; but its core is at least as wide as the halo.
    step
        Cores begin at multiples of this.
    halo
        How far what is read reaches beyond a core.
    shift
        ``(x, y)`` by which the grid is moved, in steps; for trying how much the result depends on it.

    Returns
    -------
    list of Box
        Row by row, of about the same size.
    """
    side = max(step, halo, int((most_pixels**0.5 - 2 * halo) // step) * step)

    def spans(length: int, moved: int) -> list[tuple[int, int]]:
        count = -(-length // side)
        even = -(-length // (count * step)) * step
        begins = range((moved * step) % even - even if moved * step % even else 0, length, even)
        return [(max(begin, 0), min(begin + even, length)) for begin in begins]

    height, width = shape
    return [(x0, y0, x1, y1) for y0, y1 in spans(height, shift[1]) for x0, x1 in spans(width, shift[0])]


def search_block(frame: FrameReader, plan: SearchPlan, block: Block, detect: Detect) -> BlockResult:
    """Return what a block answers for, of all that is found in its pixels.

    Clipped objects that reach the threshold are searched once more later, in a window around them. For the others that
    would take long and be of little use, so the block only reports that of such scores something is missing.

    Raises
    ------
    InputError
        If the block cannot be read.
    """
    view = view_of(frame, plan, block.read)
    if plan.contrast >= 0 and contrast_of(view.pixels, max(1, round(plan.diameter / 3))) <= plan.contrast:
        return BlockResult(block, FrameResult(blank=1))
    found = detect(view)
    owned: list[Detection] = []
    clipped: list[InstanceMask] = []
    floor = found.floor
    for item in found.detections:
        is_own = is_owned(item.instance, block.core, plan.halo // 4)
        if not item.instance.is_clipped(block.read):
            owned += [item] if is_own else []
        elif item.instance.within(block.core) is not None:
            if item.score >= plan.threshold:
                clipped.append(item.instance)
            else:
                floor = max(floor, math.nextafter(item.score, math.inf))
    return BlockResult(block, replace(found, detections=owned, floor=floor), clipped)


def view_of(frame: FrameReader, plan: SearchPlan, window: Box) -> View:
    """Read a window of a frame.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    known, unwanted = (
        [part for mask in masks if (part := mask.within(window))] for masks in (plan.known, plan.unwanted)
    )
    return View(frame, window, read_rgb(frame, window), known, unwanted)


def is_owned(mask: InstanceMask, core: Box, slack: int = 0) -> bool:
    """Tell whether the middle of a mask's bounding box lies in the core of a block, or within `slack` pixels of it."""
    x0, y0, x1, y1 = core
    left, top, right, bottom = mask.box
    x, y = (left + right) / 2, (top + bottom) / 2
    return x0 - slack <= x < x1 + slack and y0 - slack <= y < y1 + slack
