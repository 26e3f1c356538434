"""From the marked examples to the training set: frames with masks that do not contradict each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.examples.checks import CheckedExample, box_prompt_of, check, exemplar_mask, prompt_of
from sam2_fewshot.examples.points import (
    APPEARANCE,
    Alternatives,
    agreeing,
    appearance,
    masks_at_points,
    masks_in_boxes,
    spread_of,
)
from sam2_fewshot.examples.windows import chosen_of, frames_of, parts_of
from sam2_fewshot.methods.base import TrainingFrame
from sam2_fewshot.object_model import KnownObject
from sam2_fewshot.rendering.contrast import exposures_of
from sam2_fewshot.storage.digests import frame_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.examples.points import PointMask
    from sam2_fewshot.examples.windows import ExamplePart
    from sam2_fewshot.protocols import Backbone, Progress
    from sam2_fewshot.records import Exemplar, InstanceMask
    from sam2_fewshot.rendering.contrast import Exposures
    from sam2_fewshot.settings import Settings

_HELD_BY_BACKGROUND = 2
"""A mask that holds more other marks than this is of the background, unless the backbone proposes nothing else."""


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What there is to learn from.

    Parameters
    ----------
    frames
        Frames, or parts of large ones, with the masks to learn from, in the order of their pixels and places: the same
        whatever the order is in which the examples are given.
    known
        Where all examples lie, whether they are learned from or not.
    exposures
        Of the frames whose readers know intensities.
    """

    frames: Sequence[TrainingFrame]
    known: Sequence[KnownObject]
    exposures: Sequence[Exposures] = ()

    @property
    def areas(self) -> NDArray[np.int64]:
        """Areas of the wanted examples in pixels, int64 (N,)."""
        return np.array([mask.area for frame in self.frames for mask in frame.positives], np.int64)


@dataclass(eq=False)
class _Page:
    """A part of a frame with its examples, while their masks are found."""

    digest: str
    shape: tuple[int, int]
    part: ExamplePart
    masks: dict[int, InstanceMask] = field(default_factory=dict)
    appearances: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    prompted: dict[int, tuple[Sequence[InstanceMask], Alternatives]] = field(default_factory=dict)


def training_set(
    exemplars: Sequence[Exemplar], backbone: Backbone, settings: Settings, most_pixels: int, progress: Progress
) -> TrainingSet:
    """Find the examples' masks, and leave out what cannot be learned from.

    Parameters
    ----------
    exemplars
        What the user marked.
    backbone
        Makes masks of points and boxes.
    settings
        Say how arrays are rendered, and how many examples are learned from.
    most_pixels
        A frame with more is learned from in parts.
    progress
        Warns of each example that is left out, contradicts another or is odd.

    Raises
    ------
    InputError
        If no wanted example can be learned from.
    """
    names = [_name(exemplar, number) for number, exemplar in enumerate(exemplars, 1)]
    pages = []
    # Outlines on all frames tell which of a point's masks is meant.
    are_prompted = any(exemplar.point is not None or exemplar.box is not None for exemplar in exemplars)
    read = frames_of(exemplars, settings, most_pixels)
    for seen in read:
        for part in parts_of(seen, exemplars, names, progress):
            page = _Page(seen.digest, seen.frame.shape, part)
            _outlines(page, names, backbone, progress, are_prompted=are_prompted)
            pages.append(page)
    # What is learned depends on the order, so it is one that neither the user's list nor names decide.
    pages.sort(key=lambda page: (frame_digest(page.part.frame), page.part.window, page.digest))
    _choose_masks(pages, exemplars, names, progress)
    for page in pages:
        page.masks = dict(sorted(page.masks.items(), key=lambda item: _place(item[1])))

    order = [(page, i) for page in pages for i in page.masks]
    # Outlines are surer than boxes, and these are surer than points.
    order.sort(key=lambda item: (exemplars[item[1]].point is not None, exemplars[item[1]].box is not None, item[1]))
    marks = [
        CheckedExample(
            _in_a_sentence(exemplars[i], names[i], i + 1), page.digest, _whole(page, i), exemplars[i].negative
        )
        for page, i in order
    ]
    contradicting, repeated, sentences = check(marks)
    for sentence in sentences:
        progress.warn(sentence)
    again = {order[place][1] for place in repeated}
    dropped = again | {order[place][1] for place in contradicting}
    usable = sorted(i for page in pages for i in page.masks if i not in dropped)
    chosen = chosen_of(exemplars, usable, settings.max_examples, progress)
    frames = []
    frame_numbers = {digest: number for number, digest in enumerate(dict.fromkeys(page.digest for page in pages))}
    for page in pages:
        wanted, unwanted = (
            [mask for i, mask in page.masks.items() if i in chosen and exemplars[i].negative == sign]
            for sign in (False, True)
        )
        if wanted or unwanted:
            frame, corner = page.part.frame, page.part.window[:2]
            frames.append(
                TrainingFrame(
                    frame.pixels,
                    wanted,
                    unwanted,
                    number=frame_numbers[page.digest],
                    name=frame.name,
                    corner=corner,
                    others=_others(page, pages, chosen, again),
                )
            )
    known = [
        KnownObject(page.digest, _whole(page, i), wanted=not exemplars[i].negative and i not in dropped)
        for page in pages
        for i in page.masks
    ]
    exposures = {found for seen in read if (found := exposures_of(seen.frame))}
    training = TrainingSet(frames, known, sorted(exposures, key=repr))
    if not len(training.areas):
        raise InputError(_nothing(len(exemplars), bool(contradicting)))
    return training


def _others(page: _Page, pages: Sequence[_Page], chosen: set[int], again: set[int]) -> list[InstanceMask]:
    """Return what is marked on a part but not learned from there: on another part it is, or not at all.

    What was marked again is not among it: the first mark of that object stands for it.
    """
    marked = (
        _whole(other, i).within(page.part.window)
        for other in pages
        if other.digest == page.digest
        for i in other.masks
        if i not in again and (other is not page or i not in chosen)
    )
    return [mask for mask in marked if mask is not None]


def _outlines(page: _Page, names: Sequence[str], backbone: Backbone, progress: Progress, *, are_prompted: bool) -> None:
    """Find the masks of a part's outlined examples, and what the backbone proposes for its points and boxes.

    With `are_prompted` there are points or boxes, on this frame or another, that are compared with the outlines.
    """
    frame = page.part.frame
    marked = page.part.exemplars
    prompts = {i: prompt for i, exemplar in marked.items() if (prompt := prompt_of(exemplar, frame)) is not None}
    boxes = {i: box for i, exemplar in marked.items() if (box := box_prompt_of(exemplar, frame)) is not None}
    # Those that are near one another are prompted in one window, and which ones depends on the order.
    prompts = dict(sorted(prompts.items(), key=itemgetter(1)))
    boxes = dict(sorted(boxes.items(), key=itemgetter(1)))
    for i, exemplar in marked.items():
        if i in prompts or i in boxes:
            continue
        mask = exemplar_mask(exemplar, frame, names[i], None, progress.warn)
        if mask is not None:
            page.masks[i] = mask
    if not are_prompted:
        return
    spread = spread_of(frame.pixels)
    page.appearances.update((i, appearance(mask, frame.pixels, spread)) for i, mask in page.masks.items())
    places = {i: _inner_point(mask) for i, mask in page.masks.items()} | {
        i: (int(x), int(y)) for i, (x, y) in prompts.items()
    }
    places |= {i: (int((x0 + x1) / 2), int((y0 + y1) / 2)) for i, (x0, y0, x1, y1) in boxes.items()}
    proposals: dict[int, list[PointMask]] = {}
    if prompts:
        at_points = masks_at_points(backbone, frame.pixels, list(prompts.values()))
        proposals |= zip(prompts, at_points, strict=True)
    if boxes:
        in_boxes = masks_in_boxes(backbone, frame.pixels, list(boxes.values()))
        proposals |= zip(boxes, in_boxes, strict=True)
    for i, proposed in proposals.items():
        others = [place for number, place in places.items() if number != i]
        held = [_count(item.mask, others) for item in proposed]
        most = max(_HELD_BY_BACKGROUND, min(held, default=0))
        possible = [(item, count) for item, count in zip(proposed, held, strict=True) if count <= most]
        if possible:
            alternatives = Alternatives(
                np.stack([appearance(item.mask, frame.pixels, spread) for item, _ in possible]),
                np.array([item.predicted_iou for item, _ in possible]),
                np.array([count > 0 for _, count in possible]),
            )
            page.prompted[i] = ([item.mask for item, _ in possible], alternatives)


def _choose_masks(
    pages: Sequence[_Page], exemplars: Sequence[Exemplar], names: Sequence[str], progress: Progress
) -> None:
    """Choose a mask for each box and point, the wanted and the negative ones each among their kind on all frames."""
    for negative in (False, True):
        outlined = [seen for page in pages for i, seen in page.appearances.items() if exemplars[i].negative == negative]
        for is_box in (True, False):  # what is in a box is about as sure as an outline, so points follow it
            of_kind = [
                (page, i)
                for page in pages
                for i in page.prompted
                if exemplars[i].negative == negative and (exemplars[i].box is not None) is is_box
            ]
            known = np.array(outlined).reshape(-1, APPEARANCE)
            choice = agreeing([page.prompted[i][1] for page, i in of_kind], known)
            for (page, i), place in zip(of_kind, choice, strict=True):
                masks, alternatives = page.prompted[i]
                page.masks[i] = masks[place]
                if is_box:
                    outlined.append(alternatives.appearance[place])
    for page in pages:
        for i, exemplar in page.part.exemplars.items():
            # Outlines were checked before; the mask of a point or a box needs the same checks.
            frame = page.part.frame
            if prompt_of(exemplar, frame) is not None or box_prompt_of(exemplar, frame) is not None:
                exemplar_mask(exemplar, frame, names[i], page.masks.get(i), progress.warn)
        page.masks = {i: page.masks[i] for i in page.part.exemplars if i in page.masks}
        page.prompted.clear()


def _inner_point(mask: InstanceMask) -> tuple[int, int]:
    """Return the column and row of the pixel of a mask that is nearest to its middle."""
    rows, columns = np.nonzero(mask.data)
    nearest = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    return mask.x0 + int(columns[nearest]), mask.y0 + int(rows[nearest])


def _count(mask: InstanceMask, places: Sequence[tuple[int, int]]) -> int:
    """Return how many of some pixels, given by column and row, lie on a mask."""
    if not places:
        return 0
    column, row = (np.array(places) - (mask.x0, mask.y0)).T
    height, width = mask.data.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return int(np.count_nonzero(mask.data[row[inside], column[inside]]))


def _place(mask: InstanceMask) -> tuple[int, int, int, int, int, bytes]:
    """Return what masks of a frame are ordered by, from the top down: equal only for equal ones."""
    x0, y0, x1, y1 = mask.box
    return y0, x0, y1, x1, mask.area, np.packbits(mask.data).tobytes()


def _whole(page: _Page, number: int) -> InstanceMask:
    """Return an example's mask as one of the whole frame."""
    return page.masks[number].placed(page.part.window, page.shape)


def _name(exemplar: Exemplar, number: int) -> str:
    return exemplar.label or f"Example {number}"


def _in_a_sentence(exemplar: Exemplar, name: str, number: int) -> str:
    """Return a name that shows whether the example is negative."""
    if not exemplar.negative:
        return name
    return f"{name} (negative)" if exemplar.label else f"the negative example {number}"


def _nothing(count: int, contradicting: bool) -> str:
    if not count:
        return "There are no examples to learn from; mark 5 to 20 objects."
    if count == 1:
        return "The example cannot be learned from; mark 5 to 20 objects of the wanted kind."
    if contradicting:
        return (
            f"None of the {count} examples can be learned from: what is wanted is marked as not wanted, too. Delete "
            "the wrong ones, or mark other objects."
        )
    return f"None of the {count} examples can be learned from; mark 5 to 20 objects of the wanted kind."
