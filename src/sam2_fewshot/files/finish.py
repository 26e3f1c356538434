"""What is done with a frame's result where it was searched: what the user marked joins it, and pictures are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely import Polygon

from sam2_fewshot.files.corrections import SAME_OBJECT
from sam2_fewshot.geometry.outlines import largest_part, polygons_to_masks, without_pinholes
from sam2_fewshot.geometry.overlap import boxes_of, overlaps
from sam2_fewshot.methods.selection import AS_SET
from sam2_fewshot.output.pictures import FLAT, pictures_of
from sam2_fewshot.records import Kind
from sam2_fewshot.runner.tasks import TaskResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.annotations.record import ExampleMark
    from sam2_fewshot.records import Detection, FrameReader, FrameResult, InstanceMask

CHOSEN = ": the threshold is "
"""In a warning: the frame's threshold was chosen, which is no longer so once another is applied."""


@dataclass(frozen=True, eq=False)
class FrameFinish:
    """Draws a frame's pictures where it was searched; a :class:`~sam2_fewshot.runner.tasks.Finish`.

    Parameters
    ----------
    name
        What to call the frame.
    marks
        The examples on it.
    confirmed
        Objects on it that the user marked as right in earlier results: part of the results, and learned from, so that
        the search leaves them out.
    record
        Name of the frame's record, which stands for all that the overlay depends on but the threshold.
    with_examples
        Whether the examples are part of the results; they are not where they were learned from before.
    """

    name: str
    marks: Sequence[ExampleMark]
    confirmed: Sequence[Detection]
    record: str
    with_examples: bool = True

    def __call__(self, frame: FrameReader, found: FrameResult) -> TaskResult:
        """Return the result with what the user marked, the pictures, and sentences on the frame for the user."""
        examples = self._examples(found.examples) if self.with_examples else []
        found = replace(found, detections=[*self.confirmed, *found.detections, *examples])
        of = drawing_of(self.record, found.threshold)
        drawn = pictures_of(frame, found.detections, self.marks, found.threshold, of)
        warnings, notes = [], []
        if found.reason not in ("", AS_SET):
            warnings.append(f"{self.name}{CHOSEN}{found.threshold:.3f}: {found.reason}.")
        if drawn.flat:
            warnings.append(f"{self.name} {FLAT}")
        elif found.blank:
            notes.append(
                f"{self.name}: {found.blank} of {found.blocks} blocks show nothing but even background and were passed "
                "over."
            )
        return TaskResult(found, extra=drawn, warnings=warnings, notes=notes)

    def _examples(self, examples: Sequence[Detection]) -> list[Detection]:
        """Return the examples that are not confirmed; those of a copy of this image that nobody marked here are found.

        Those that are marked here come last, so that what is found has the same id with them and without.
        """
        # What is confirmed was learned from, too, so it is among the examples.
        confirmed = _same([item.instance for item in examples], [item.instance for item in self.confirmed])
        left = [item for number, item in enumerate(examples) if number not in confirmed]
        here = _marked(left, [mark for mark in self.marks if not mark.negative])
        others = [replace(item, kind=Kind.FOUND) for number, item in enumerate(left) if number not in here]
        return [*others, *(item for number, item in enumerate(left) if number in here)]


def drawing_of(record: str, threshold: float) -> str:
    """Return what an overlay says that it is of: a record by its name, at a threshold."""
    return f"{record} {threshold!r}"


def _same(masks: Sequence[InstanceMask], others: Sequence[InstanceMask]) -> set[int]:
    """Return the numbers of the masks that are of the same object as one of the others."""
    return {i for (i, _), iou in overlaps(masks, others).items() if iou >= SAME_OBJECT}


def _marked(items: Sequence[Detection], marks: Sequence[ExampleMark]) -> set[int]:
    """Return the numbers of the objects that are marked.

    An outline is that of the same object; a box and a point are of the object that they fit best, since the mask that
    was made of them may be of any shape.
    """
    if not items or not marks:
        return set()
    outlines = [mark.outline for mark in marks if mark.is_object]
    rings = [Polygon(outline.exterior) for outline in outlines if isinstance(outline, Polygon)]
    drawn = polygons_to_masks(rings, [items[0].instance.frame_shape] * len(rings))
    drawn = [largest_part(mask) for mask in drawn if mask.area]  # as results are
    # An outline may lack the holes of the mask that it was taken from.
    here = _same([without_pinholes(item.instance, most=item.instance.data.size) for item in items], drawn)
    extents = boxes_of(item.instance for item in items)
    tree = shapely.STRtree([item.polygon for item in items])
    for mark in marks:
        if mark.is_box:
            here.add(int(np.abs(extents - mark.outline.bounds).max(axis=1).argmin()))
        elif not mark.is_object:
            here.update(tree.query_nearest(mark.outline).tolist())
    return here
