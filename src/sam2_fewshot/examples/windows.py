"""Frames with examples as they are learned from: whole, or of large ones the parts around the examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from shapely import affinity

from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import intersect, pixels_in
from sam2_fewshot.records import Frame, FrameReader, whole_box
from sam2_fewshot.rendering.channels import as_reader, read_rgb
from sam2_fewshot.storage.digests import frame_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Box, Exemplar
    from sam2_fewshot.settings import Settings

_WHOLE = 1 << 21
"""A frame with more pixels is learned from in parts, so that what is learned depends neither on the memory nor, from
here on, on the size of the frame."""
_AROUND = 6
"""A part has so many times the longest example around its examples, to learn what is background."""
_FROM_POINT = 64
"""Pixels around a point of a large frame, of an object whose size is not known."""
_SHARE = 4
"""Of a large frame a part has at most this share of the pixels that may be learned from at a time, since there may be
several."""


@dataclass(frozen=True, eq=False, slots=True)
class ExamplePart:
    """A frame, or a part of a large one, with its examples.

    Parameters
    ----------
    frame
        The part.
    window
        Where it lies in its frame.
    exemplars
        Those that lie on it, in its own coordinates, by their numbers among all.
    """

    frame: Frame
    window: Box
    exemplars: Mapping[int, Exemplar]


@dataclass(frozen=True, eq=False, slots=True)
class ExampleFrame:
    """A frame that examples lie on.

    Parameters
    ----------
    frame
        The frame.
    held
        The same in memory, if it is learned from as a whole.
    part_size
        About how many pixels the parts have in which it is learned from; see :func:`part_size`.
    digest
        Identifies it.
    numbers
        Which examples lie on it.
    """

    frame: FrameReader
    held: Frame | None
    part_size: int
    digest: str
    numbers: list[int]


def part_size(frame_shape: tuple[int, int], most_pixels: int, whole: int = _WHOLE) -> int:
    """Return about how many pixels the parts have in which a frame is learned from; 0 for one learned from as a whole.

    Parameters
    ----------
    frame_shape
        ``(height, width)`` of the frame.
    most_pixels, whole
        A frame with more pixels than either is learned from in parts.
    """
    is_small = frame_shape[0] * frame_shape[1] <= min(whole, most_pixels)
    return 0 if is_small else max(1, min(whole, most_pixels // _SHARE))


def frames_of(
    exemplars: Sequence[Exemplar], settings: Settings, most_pixels: int, whole: int = _WHOLE
) -> list[ExampleFrame]:
    """Group examples by the frame they lie on. Copies of an image, such as one read anew for each example, are one.

    Parameters
    ----------
    exemplars
        What the user marked.
    settings
        Of the display of an array.
    most_pixels, whole
        A frame with more pixels than either is learned from in parts.

    Raises
    ------
    InputError
        If a frame cannot be read.
    """
    groups: dict[int, list[int]] = {}
    for number, exemplar in enumerate(exemplars):
        groups.setdefault(id(exemplar.image), []).append(number)
    frames: dict[str, ExampleFrame] = {}
    for numbers in groups.values():
        frame = as_reader(exemplars[numbers[0]].image, settings)
        size = part_size(frame.shape, most_pixels, whole)
        held = None if size else Frame(read_rgb(frame), frame.name, frame.location)
        digest = frame_digest(held if held and getattr(frame, "digest", None) is None else frame)
        frames.setdefault(digest, ExampleFrame(frame, held, size, digest, [])).numbers.extend(numbers)
    return list(frames.values())


def parts_of(
    seen: ExampleFrame, exemplars: Sequence[Exemplar], names: Sequence[str], progress: Progress
) -> list[ExamplePart]:
    """Return a frame as it is learned from: as a whole, or the parts of it with its examples.

    Parameters
    ----------
    seen
        The frame.
    exemplars, names
        All that there are, and what to call them in warnings.
    progress
        Is warned of examples of which nothing lies on a frame that is seen in parts; they are in none.

    Raises
    ------
    InputError
        If the frame cannot be read.
    """
    frame = seen.frame
    if seen.held:
        return [ExamplePart(seen.held, whole_box(frame.shape), {i: exemplars[i] for i in seen.numbers})]
    boxes: dict[int, Box] = {}
    for i in seen.numbers:
        mask, box = exemplars[i].mask, _box_of(exemplars[i], frame.shape)
        if box is not None:
            boxes[i] = box
            continue
        reason = f"no pixel of it lies on its image, {frame.name}"
        if mask is not None and mask.shape == frame.shape:
            reason = "its mask is empty"
        elif mask is not None:
            reason = (
                f"its mask has the shape {mask.shape}, but its image, {frame.name}, is "
                f"{frame.shape[1]} × {frame.shape[0]} px"
            )
        progress.warn(f"{names[i]} is left out: {reason}.")
    if not boxes:
        return []
    parts, usable = [], list(boxes)
    for window, places in example_windows(list(boxes.values()), frame.shape, seen.part_size):
        part = Frame(read_rgb(frame, window), frame.name, frame.location)
        chosen = [usable[place] for place in places]
        parts.append(ExamplePart(part, window, {i: _moved(exemplars[i], part, window) for i in chosen}))
    return parts


def example_windows(
    boxes: Sequence[Box], frame_shape: tuple[int, int], most_pixels: int
) -> list[tuple[Box, list[int]]]:
    """Return which parts of a large frame hold its examples, each with the numbers of those in it.

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
    side = max(int(most_pixels**0.5), 3 * longest)  # an example without its surroundings teaches nothing
    margin = min(_AROUND * longest, side // 4)

    def around(numbers: Sequence[int]) -> Box:
        chosen = np.array([boxes[i] for i in numbers])
        (x0, y0), (x1, y1) = chosen[:, :2].min(0) - margin, chosen[:, 2:].max(0) + margin
        return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)

    everything = around(range(len(boxes)))
    if pixels_in(everything) <= most_pixels:
        return [(everything, list(range(len(boxes))))]
    fields: dict[tuple[int, int], list[int]] = {}
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        fields.setdefault(((y0 + y1) // side, (x0 + x1) // side), []).append(number)
    return [(around(numbers), numbers) for _, numbers in sorted(fields.items())]


def chosen_of(exemplars: Sequence[Exemplar], usable: Sequence[int], most: int, progress: Progress) -> set[int]:
    """Return the indices of the examples to learn from: of those that can be, at most so many of either sign.

    They are spread evenly.
    """
    chosen: set[int] = set()
    for negative in (False, True):
        of_sign = [i for i in usable if exemplars[i].negative == negative]
        if len(of_sign) > most:
            progress.warn(
                f"Of {len(of_sign)} {'negative ' * negative}examples {most}, spread evenly, are learned from "
                "(Max Examples); none of them is reported as a detection."
            )
            of_sign = [of_sign[i] for i in np.linspace(0, len(of_sign) - 1, most).round().astype(int)]
        chosen.update(of_sign)
    return chosen


def _box_of(exemplar: Exemplar, shape: tuple[int, int]) -> Box | None:
    """Return an example's bounding box inside its frame, None when there is none."""
    bounds = None
    if exemplar.polygon is not None:
        bounds = exemplar.polygon.bounds
    elif exemplar.box is not None:
        bounds = exemplar.box
    elif exemplar.point is not None:
        x, y = exemplar.point
        if 0 <= x < shape[1] and 0 <= y < shape[0]:
            bounds = (x - _FROM_POINT, y - _FROM_POINT, x + 1 + _FROM_POINT, y + 1 + _FROM_POINT)
    elif exemplar.mask is not None and exemplar.mask.shape == shape and exemplar.mask.any():
        bounds = crop_to_object(exemplar.mask).box
    if bounds is None or not np.isfinite(bounds).all():
        return None
    left, top, right, bottom = (int(np.clip(value, -1, 2**40)) for value in bounds)
    return intersect((left, top, right + 1, bottom + 1), whole_box(shape))


def _moved(exemplar: Exemplar, part: Frame, window: Box) -> Exemplar:
    """Return an example of a frame as one of a part of it."""
    x0, y0, x1, y1 = window
    mask, polygon, box, point = exemplar.mask, exemplar.polygon, exemplar.box, exemplar.point
    return replace(
        exemplar,
        image=part,
        mask=None if mask is None else mask[y0:y1, x0:x1],
        polygon=None if polygon is None else affinity.translate(polygon, -x0, -y0),
        box=None if box is None else (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0),
        point=None if point is None else (point[0] - x0, point[1] - y0),
    )
