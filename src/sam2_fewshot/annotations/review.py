"""The marked and the detected objects of an image while a user looks through them: what is displayed, and what is next.

A *place* is where a plane lies among the others of an image: an index for each axis but its rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sam2_fewshot.annotations.mark_next import next_of
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.geometry.overlap import boxes_of, sharing, touching
from sam2_fewshot.methods.base import is_known, lies_in
from sam2_fewshot.records import Detection, Kind
from sam2_fewshot.tiling.blocks import is_owned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shapely import Polygon

    from sam2_fewshot.annotations.arrays import PlaneIndex
    from sam2_fewshot.records import Box, InstanceMask

EXAMPLE, CONFIRMED, FOUND = (kind.value for kind in (Kind.EXAMPLE, Kind.CONFIRMED, Kind.FOUND))
UNWANTED = "not this"
"""Kinds of objects: marked, found and marked as right, found, and marked as not wanted or wrong."""


@dataclass(frozen=True, eq=False, slots=True)
class Mark:
    """An object that the user has marked.

    Parameters
    ----------
    place
        Where its plane lies.
    outline
        In pixels of the plane ``(x, y)``.
    kind
        :data:`EXAMPLE`, :data:`CONFIRMED` or :data:`UNWANTED`.
    mask
        The pixels of the plane in the outline, where they are known already.
    """

    place: PlaneIndex
    outline: Polygon
    kind: str = EXAMPLE
    mask: InstanceMask | None = None


class Part(NamedTuple):
    """What was found in a box of a plane, of any score down to a floor."""

    place: PlaneIndex
    box: Box
    found: Sequence[Detection]
    floor: float


class Results:
    """What was found and marked on an image, and what of it is displayed.

    The label of an object is its place in the lists, such as ``places``, ``masks`` and their ``boxes``, counted from 1:
    first what was marked, then what was found. ``shown`` (N,) tells which of them are displayed.

    Parameters
    ----------
    shape
        Of the image, all axes.
    axes
        Its two axes that are rows and columns of the planes.
    by_score
        Whether the highest score is the last of what was found, so that it is on top; else all are in the order in
        which they were added.
    """

    def __init__(self, shape: tuple[int, ...], axes: tuple[int, int], by_score: bool = True) -> None:
        self.shape, self.axes, self._by_score = shape, axes, by_score
        self.floor = 0.0
        self._found: dict[PlaneIndex, list[Detection]] = {}
        self._marks: list[tuple[Mark, InstanceMask]] = []
        self._list()

    @property
    def plane_shape(self) -> tuple[int, int]:
        """``(height, width)`` of a plane."""
        return self.shape[self.axes[0]], self.shape[self.axes[1]]

    def add(self, *parts: Part) -> None:
        """Take what was found in parts in place of what was found there before.

        All objects are listed anew, so that many parts at once take little more time than one.
        """
        for part in parts:
            kept = [item for item in self._found.get(part.place, ()) if not is_owned(item.instance, part.box)]
            masks, others = [item.instance for item in part.found], [item.instance for item in kept]
            known = {i for i, k in touching(masks, others) if is_known(masks[i], [others[k]])}
            self._found[part.place] = [*kept, *(item for i, item in enumerate(part.found) if i not in known)]
            self.floor = max(self.floor, part.floor)
        self._list()

    def mark(self, marks: Sequence[Mark]) -> None:
        """Take the marks in place of those before; what was found on one of them is not displayed.

        What merely holds a mark of what is not wanted, as a cell holds a nucleus, is.
        """
        masks = [mark.mask or polygon_to_mask(mark.outline, self.plane_shape) for mark in marks]
        self._marks = [(mark, mask) for mark, mask in zip(marks, masks, strict=True) if mask.area]
        self._list()

    def _list(self) -> None:
        found = [(place, item) for place, items in self._found.items() for item in items]
        if self._by_score:
            found.sort(key=lambda pair: pair[1].score)
        wanted = [(mark, mask) for mark, mask in self._marks if mark.kind != UNWANTED]
        nothing, count = [float("nan")] * len(wanted), len(wanted)
        self.items: list[Mark | Detection] = [*(mark for mark, _ in wanted), *(item for _, item in found)]
        self.places = [*(mark.place for mark, _ in wanted), *(place for place, _ in found)]
        self.masks = [*(mask for _, mask in wanted), *(item.instance for _, item in found)]
        self.kinds = np.array([*(mark.kind for mark, _ in wanted), *[FOUND] * len(found)], object)
        self.scores = np.array([*[1.0] * count, *(item.score for _, item in found)])
        self.similarities = np.array([*nothing, *(item.similarity for _, item in found)])
        self.predicted_ious = np.array([*nothing, *(item.predicted_iou for _, item in found)])
        self.areas = np.array([mask.area for mask in self.masks], np.int64)
        self.boxes = boxes_of(self.masks)
        self.covered = np.arange(len(self.items)) < count
        for mark, mask in self._marks:
            # As in a search: what merely holds an unwanted one, as a cell holds a nucleus, may be wanted.
            is_covered = lies_in if mark.kind == UNWANTED else is_known
            for i in np.flatnonzero(sharing(self.boxes, mask.box)):
                if i >= count and self.places[i] == mark.place:
                    self.covered[i] |= is_covered(self.masks[i], [mask])
        self.shown = np.ones(len(self.items), bool)

    def label(self, item: Mark | Detection | None) -> int:
        """Return the label of an object, 0 where it is not there."""
        return next((number for number, each in enumerate(self.items, 1) if each is item), 0)

    def show(self, threshold: float, smallest: float = 0, largest: float = np.inf) -> int:
        """Choose what is displayed: marks, and what was found with such scores and areas in pixels; return how many."""
        fits = (self.scores >= threshold) & (self.areas >= smallest) & (self.areas <= largest)
        self.shown = np.where(self.kinds == FOUND, fits & ~self.covered, True)
        return int(np.count_nonzero(self.shown))

    def table(self) -> dict[str, Any]:
        """Return the figures of what is displayed, a column each; ``index`` is the label."""
        (chosen,) = np.nonzero(self.shown)
        middle = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        other = [axis for axis in range(len(self.shape)) if axis not in self.axes]
        places = np.array([self.places[i] for i in chosen], np.int64).reshape(len(chosen), len(other))
        return {
            "index": chosen + 1,
            "kind": self.kinds[chosen].astype(str),
            "score": self.scores[chosen],
            "similarity": self.similarities[chosen],
            "predicted_iou": self.predicted_ious[chosen],
            "area": self.areas[chosen],
            "x": middle[chosen, 0],
            "y": middle[chosen, 1],
            **{f"axis_{axis}": places[:, column] for column, axis in enumerate(other)},
        }

    def to_mark_next(self, threshold: float, asked: Sequence[Mark | Detection]) -> Detection | None:
        """Return what was found, displayed or not, whose answer would teach most and was not asked for yet.

        Parameters
        ----------
        threshold
            The score that an object needs.
        asked
            What was asked about, in that order. What the user has marked meanwhile teaches nothing any more.
        """
        was_asked = {id(item) for item in asked}
        places = {place: number for number, place in enumerate(dict.fromkeys(self.places))}
        found = [
            (item, places[place])
            for item, place, is_covered in zip(self.items, self.places, self.covered, strict=True)
            if isinstance(item, Detection) and (id(item) in was_asked or not is_covered)
        ]
        items = [item for item, _ in found]
        numbers = {id(item): number for number, item in enumerate(items)}
        listed = [numbers[id(item)] for item in asked if id(item) in numbers]
        best = next_of(items, [frame for _, frame in found], threshold, listed)
        return None if best is None else items[best]
