"""Frames that are searched block by block: where the blocks lie, what each owns, and how they become one result.

A block's core is what it answers for; what is read reaches beyond it by a halo, so that objects on the border are
whole. Cores begin at multiples of a step after which the method's own tiles repeat: two blocks then see the same
features where they overlap, and the result hardly depends on where the grid lies. All numbers are pixels of the whole
frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import shapely

from sam2_fewshot.geometry.overlap import shared_area

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, Detection, InstanceMask

_SAME = 0.5
"""Two finds of different blocks that share more than this of the smaller one are one object, or one is a part of it."""
_OVERLAP = 0.2
"""A find that its own block did not answer for is taken only when it shares less than this with all others."""
_EVEN = 0.05
"""A block whose contrast is below this share of the frame's shows nothing but background."""

_AROUND = 6
"""So many times the longest example are shown around the examples, to learn what is background."""


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
class BlockFinds:
    """What was found in a block.

    Parameters
    ----------
    block
        The block.
    detections
        Whole objects whose middle lies in the core, or in the halo not far from it; also with scores below the
        threshold.
    cut
        Masks that reach from the core to where the block's pixels end, so that they are not whole; none below the
        threshold.
    candidates
        How many masks were judged.
    seconds
        Time that each stage took.
    blank
        Whether it was passed over because it shows nothing.
    floor
        The score down to which `detections` is complete.
    """

    block: Block
    detections: Sequence[Detection] = ()
    cut: Sequence[InstanceMask] = ()
    candidates: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    blank: bool = False
    floor: float = 0.0


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


def least_pixels(step: int, reach: int) -> int:
    """Return how many pixels the smallest block has, halo included."""
    halo = -(-reach // step) * step
    return (max(step, halo) + 2 * halo) ** 2


def is_cut(mask: InstanceMask, read: Box) -> bool:
    """Tell whether a mask touches the end of the pixels that were read, where the frame goes on."""
    height, width = mask.frame_shape
    box = mask.box
    inside = [read[0] > 0, read[1] > 0, read[2] < width, read[3] < height]
    touching = [box[0] <= read[0], box[1] <= read[1], box[2] >= read[2], box[3] >= read[3]]
    return any(touches and goes_on for touches, goes_on in zip(touching, inside, strict=True))


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


def is_even(pixels: NDArray[np.uint8], frame_contrast: float, diameter: float) -> bool:
    """Tell whether a block has so little contrast, measured by that of its frame, that no object can be in it.

    Parameters
    ----------
    pixels
        uint8 RGB (h, w, 3) of the block.
    frame_contrast
        :func:`contrast_of` an overview of the frame.
    diameter
        Typical diameter of an object.
    """
    return contrast_of(pixels, max(1, round(diameter / 3))) <= _EVEN * frame_contrast


def join(finds: Sequence[BlockFinds], threshold: float = 0.0) -> tuple[list[Detection], list[InstanceMask]]:
    """Make one result of what the blocks found.

    Each object is taken from the block that answers for it. One that a neighbour found as well, with a middle a little
    to this side or that of the border, is taken once. What lies below the threshold gives way to what does not, and
    has no part in what becomes of that.

    Parameters
    ----------
    finds
        Of all blocks of one frame, in any order.
    threshold
        The score that an object should have.

    Returns
    -------
    detections
        Best first.
    cut
        What is in no block whole and was taken by none, largest first, each once.
    """
    entries = sorted(
        (
            (
                item.score < threshold,
                not is_owned(item.instance, each.block),
                -item.score,
                item.instance.y0,
                item.instance.x0,
                number,
                place,
            )
            for number, each in enumerate(finds)
            for place, item in enumerate(each.detections)
        ),
    )
    items = [finds[number].detections[place] for *_, number, place in entries]
    homes = [number for *_, number, _ in entries]
    tree = shapely.STRtree([shapely.box(*item.bbox) for item in items])
    kept = np.zeros(len(items), bool)
    for at, (item, home, entry) in enumerate(zip(items, homes, entries, strict=True)):
        near = [int(i) for i in tree.query(shapely.box(*item.bbox)) if kept[i] and homes[i] != home]
        most = _OVERLAP if entry[1] else _SAME
        kept[at] = not any(_share(item.instance, items[i].instance) > most for i in near)
    left: list[InstanceMask] = []
    for mask in sorted((mask for each in finds for mask in each.cut), key=lambda mask: -mask.area):
        near = [int(i) for i in tree.query(shapely.box(*mask.box)) if kept[i]]
        beside = [items[i].instance for i in near if items[i].score >= threshold]
        # A piece belongs to what covers it; what lies within a long object does not explain the object.
        if not any(shared_area(mask, other) > _SAME * mask.area for other in beside):
            left.append(mask)
    taken = [item for item, is_kept in zip(items, kept, strict=True) if is_kept]
    return sorted(taken, key=lambda item: item.score, reverse=True), _largest_of_each(left)


def _largest_of_each(pieces: Sequence[InstanceMask]) -> list[InstanceMask]:
    """Return the first of each group of pieces that overlap, directly or by way of others: they are of one object."""
    tree = shapely.STRtree([shapely.box(*piece.box) for piece in pieces])
    seen: set[int] = set()
    first = []
    for number, piece in enumerate(pieces):
        if number in seen:
            continue
        first.append(piece)
        reached = [number]
        while reached:
            at = reached.pop()
            seen.add(at)
            near = {int(i) for i in tree.query(shapely.box(*pieces[at].box))} - seen
            reached += [i for i in near if shared_area(pieces[at], pieces[i])]
    return first


def window_around(mask: InstanceMask, margin: int) -> Box:
    """Return the box of a mask, grown by its own longest side and a margin each way, inside the frame."""
    x0, y0, x1, y1 = mask.box
    grown = max(x1 - x0, y1 - y0) + margin
    height, width = mask.frame_shape
    return max(x0 - grown, 0), max(y0 - grown, 0), min(x1 + grown, width), min(y1 + grown, height)


def example_windows(
    boxes: Sequence[Box], frame_shape: tuple[int, int], most_pixels: int
) -> list[tuple[Box, list[int]]]:
    """Return which parts of a large frame show its examples, each with the numbers of those in it.

    Parameters
    ----------
    boxes
        Of the examples, none empty.
    frame_shape
        ``(height, width)`` of the frame.
    most_pixels
        A part should not have more.

    Returns
    -------
    list of (Box, list of int)
        One part for all where they lie near enough to one another, else one for each field of a grid that has some.
    """
    height, width = frame_shape
    longest = max(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes)
    side = int(most_pixels**0.5)
    margin = min(_AROUND * longest, side // 4)

    def around(numbers: Sequence[int]) -> Box:
        chosen = np.array([boxes[i] for i in numbers])
        (x0, y0), (x1, y1) = chosen[:, :2].min(0) - margin, chosen[:, 2:].max(0) + margin
        return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)

    everything = around(range(len(boxes)))
    if (everything[2] - everything[0]) * (everything[3] - everything[1]) <= most_pixels:
        return [(everything, list(range(len(boxes))))]
    fields: dict[tuple[int, int], list[int]] = {}
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        fields.setdefault(((y0 + y1) // side, (x0 + x1) // side), []).append(number)
    return [(around(numbers), numbers) for _, numbers in sorted(fields.items())]


def _share(a: InstanceMask, b: InstanceMask) -> float:
    return shared_area(a, b) / max(1, min(a.area, b.area))
