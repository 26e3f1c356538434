"""Which examples can be learned from: their masks, contradictions, duplicates and odd sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from sam2_fewshot.errors import listed
from sam2_fewshot.geometry.outlines import crop_to_object, polygon_to_mask, valid_polygon
from sam2_fewshot.geometry.overlap import intersect, mask_iou, shared_area, touching
from sam2_fewshot.records import whole_box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sam2_fewshot.records import Exemplar, Frame, InstanceMask


_COVERS_FRAME = 0.5
"""An example that fills more of its frame than this is more likely a mistake than an object."""
_SAME_OBJECT = 0.5
"""Two masks with a higher IoU are of the same object."""
_WITHIN = 0.9
"""A mask with more of its area on another one lies within it."""
_ODD_SIZE = 8.0
"""A factor in area. Objects of one kind seldom differ from their median by more than four, and what is proposed is at
most 2.5 times smaller or larger than the examples."""
_FEWEST = 3
"""Sizes are compared among so many examples: of two, either may be the odd one."""
_NAMED = 3


def prompt_of(exemplar: Exemplar, frame: Frame) -> tuple[float, float] | None:
    """Return the point ``(x, y)`` to prompt, None for an example that is none or lies outside its frame."""
    if exemplar.point is None or len(ways_of(exemplar)) > 1:
        return None
    x, y = exemplar.point
    return (x, y) if 0 <= x < frame.shape[1] and 0 <= y < frame.shape[0] else None


def box_prompt_of(exemplar: Exemplar, frame: Frame) -> tuple[float, float, float, float] | None:
    """Return the box ``(x0, y0, x1, y1)`` to prompt, inside the frame; None for an example without one there."""
    if exemplar.box is None or len(ways_of(exemplar)) > 1:
        return None
    return intersect(exemplar.box, whole_box(frame.shape))


def ways_of(exemplar: Exemplar) -> list[object]:
    """Return what an example is marked by; it should be one thing."""
    given = (exemplar.mask, exemplar.polygon, exemplar.box, exemplar.point)
    return [way for way in given if way is not None]


def exemplar_mask(
    exemplar: Exemplar,
    frame: Frame,
    name: str,
    made: InstanceMask | None,
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
    made
        The object at its point or in its box, where it is marked by one and there is an object.
    warn
        Takes a sentence for the user.
    """
    height, width = frame.shape
    size = f"{width} × {height} px"
    ways = ways_of(exemplar)
    mask = None
    if len(ways) != 1:
        reason = f"give it either a mask, a polygon, a box or a point, not {len(ways)} of them"
    elif exemplar.mask is not None:
        given = exemplar.mask
        if given.shape != frame.shape:
            reason = f"its mask has the shape {given.shape}, but its image is {size}"
        elif given.dtype != bool and (count := len(np.unique(given[given != 0]))) > 1:
            reason = (
                f"its mask has {count} different numbers besides 0; give one object, for instance labels == 3 of a "
                "label image, or probabilities > 0.5"
            )
        else:
            mask, reason = crop_to_object(given.astype(bool)), "its mask is empty"
    elif exemplar.polygon is not None:
        outline, reason = valid_polygon(exemplar.polygon), "its outline has no area"
        if outline is not None:
            count = shapely.get_num_geometries(exemplar.polygon)
            flaw = "" if count == 1 else f"of {count} parts"
            if not exemplar.polygon.is_valid:
                flaw = "that crosses itself"
            if flaw:
                warn(f"{name} has an outline {flaw}; its largest part is used.")
            mask = polygon_to_mask(outline, frame.shape)
            reason = f"its outline holds no pixel of its image ({size})"
    elif exemplar.box is not None:
        corners = "({:g}, {:g}, {:g}, {:g})".format(*exemplar.box)
        if exemplar.box[0] == exemplar.box[2] or exemplar.box[1] == exemplar.box[3]:
            reason = f"its box {corners} has no area"
        elif box_prompt_of(exemplar, frame) is None:
            reason = f"no part of its box {corners} lies on its image ({size})"
        else:
            mask, reason = made, f"SAM 2 sees no object that fits its box {corners}; outline it instead"
    elif exemplar.point is not None:
        point = "({:g}, {:g})".format(*exemplar.point)
        if prompt_of(exemplar, frame) is None:
            reason = f"its point {point} lies outside its image ({size})"
        else:
            mask, reason = made, f"SAM 2 sees no object at its point {point}; outline it instead"
    if mask is not None and mask.area and _is_even(frame, mask):
        mask, reason = None, "where it lies its image displays one even colour; check the contrast and the channels"
    if mask is None or not mask.area:
        warn(f"{name} is left out: {reason}.")
        return None
    if mask.area > _COVERS_FRAME * width * height:
        invert = "If it is the ground around the objects, the mask is the wrong way round: invert it."
        warn(
            f"{name} covers {100 * mask.area / (width * height):.0f} % of its image; is it meant to?"
            + (f" {invert}" if exemplar.mask is not None else "")
        )
    return mask


def _is_even(frame: Frame, mask: InstanceMask) -> bool:
    """Tell whether nothing is to be seen in and about an object: it would teach what any such place looks like."""
    x0, y0, x1, y1 = mask.box
    reach = max(mask.data.shape)
    about = frame.pixels[max(0, y0 - reach) : y1 + reach, max(0, x0 - reach) : x1 + reach]
    return bool((about == about[0, 0]).all())


@dataclass(frozen=True, eq=False, slots=True)
class CheckedExample:
    """An example with its mask.

    Parameters
    ----------
    name
        What to call it in messages.
    frame
        Digest of its frame.
    mask
        On that frame.
    negative
        Whether it is of the kind that is not wanted.
    """

    name: str
    frame: str
    mask: InstanceMask
    negative: bool


class Problems(NamedTuple):
    """What is wrong with some of the examples.

    Parameters
    ----------
    contradicting, repeated
        Places of those that are not learned from: of pairs that mark the same object as wanted and as not, and of
        objects that an example before them marks.
    sentences
        For the user.
    """

    contradicting: set[int]
    repeated: set[int]
    sentences: list[str]


def check(marks: Sequence[CheckedExample]) -> Problems:
    """Find examples that contradict or repeat each other, or are of another size than the rest.

    Both of a wanted and a negative example on the same object are left out, since nobody but the user can say which is
    right. Where one lies within the other and is much smaller, both may be right, such as a cell and its nucleus: they
    stay. Of examples of one sign on the same object the first stays.

    Parameters
    ----------
    marks
        In the order in which they count.
    """
    same: list[tuple[int, int]] = []
    contrary: list[tuple[int, int]] = []
    within: list[tuple[int, int]] = []
    for i, j in _touching(marks):
        a, b = marks[i], marks[j]
        if mask_iou(a.mask, b.mask) > _SAME_OBJECT:
            (same if a.negative == b.negative else contrary).append((i, j))
        elif a.negative != b.negative:
            inner, outer = sorted((i, j), key=lambda number: marks[number].mask.area)
            if shared_area(a.mask, b.mask) > _WITHIN * marks[inner].mask.area:
                within.append((inner, outer))
    contradicting = {number for pair in contrary for number in pair}
    repeated: set[int] = set()
    repeating = []
    for i, j in same:
        if not {i, j} & (contradicting | repeated):
            repeated.add(j)
            repeating.append((i, j))
    sentences = []
    if contrary:
        sentences.append(
            f"{_pairs(marks, contrary)} mark the same object, one as wanted and the other as not, so neither is "
            "learned from. Delete the wrong one."
        )
    if repeating:
        sentences.append(f"{_pairs(marks, repeating)} mark the same object, which is counted once.")
    within = [pair for pair in within if not set(pair) & (contradicting | repeated)]
    if within:
        names = [f"{marks[inner].name} within {marks[outer].name}" for inner, outer in within]
        sentences.append(
            f"One marks what is wanted and the other what is not: {_listed(names)}. Both are learned "
            "from, since their sizes differ; delete the one that is a slip."
        )
    sentences.extend(_odd_sizes(marks, contradicting | repeated))
    # Names of files keep their first letter as it is.
    return Problems(contradicting, repeated, [re.sub("^the ", "The ", sentence) for sentence in sentences])


def _touching(marks: Sequence[CheckedExample]) -> list[tuple[int, int]]:
    """Return the pairs on one frame whose boxes touch, in order."""
    of_frame: dict[str, list[int]] = {}
    for number, mark in enumerate(marks):
        of_frame.setdefault(mark.frame, []).append(number)
    pairs: list[tuple[int, int]] = []
    for numbers in of_frame.values():
        masks = [marks[number].mask for number in numbers]
        pairs += [(numbers[i], numbers[j]) for i, j in touching(masks, masks) if i < j]
    return sorted(pairs)


def _odd_sizes(marks: Sequence[CheckedExample], left_out: set[int]) -> Iterator[str]:
    wanted = [mark for number, mark in enumerate(marks) if not mark.negative and number not in left_out]
    if len(wanted) < _FEWEST:
        return
    areas = np.array([mark.mask.area for mark in wanted], np.float64)
    middle = float(np.median(areas))
    odd = [i for i, area in enumerate(areas) if not 1 / _ODD_SIZE <= area / middle <= _ODD_SIZE]
    if odd:
        names = [f"{wanted[i].name} ({areas[i]:,.0f} px)" for i in odd]
        one = len(odd) == 1
        yield (
            f"{_listed(names)} {'has' if one else 'have'} an area more than {_ODD_SIZE:g} times that of the median "
            f"example, {middle:,.0f} px, or less than 1/{_ODD_SIZE:g} of it. {'It is' if one else 'They are'} learned "
            "from; is that meant?"
        )


def _pairs(marks: Sequence[CheckedExample], pairs: Sequence[tuple[int, int]]) -> str:
    return _listed([f"{marks[i].name} and {marks[j].name}" for i, j in pairs])


def _listed(names: Sequence[str]) -> str:
    return listed(names, _NAMED, "; ", with_rest=True)
