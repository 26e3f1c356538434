"""What is done with a frame's result where it was searched: what the user marked joins it, and pictures are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sam2_fewshot.files.corrections import SAME_OBJECT
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.methods.selection import AS_SET
from sam2_fewshot.output.pictures import pictures_of
from sam2_fewshot.records import Kind
from sam2_fewshot.runner.tasks import TaskResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.annotations.record import ExampleMark
    from sam2_fewshot.records import Detection, FrameReader, FrameResult

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
    threshold
        The score that an object should have.
    of
        What the overlay says that it is of.
    with_examples
        Whether the examples are part of the results; they are not where they were learned from before.
    """

    name: str
    marks: Sequence[ExampleMark]
    confirmed: Sequence[Detection]
    threshold: float
    of: str = ""
    with_examples: bool = True

    def __call__(self, frame: FrameReader, found: FrameResult) -> TaskResult:
        """Return the result with what the user marked, the pictures, and sentences on the frame for the user."""
        # What is confirmed was learned from, too, so it is among the examples.
        examples = [item for item in found.examples if self.with_examples and not self._is_confirmed(item)]
        if not self.marks:  # a copy of their image: there, nobody marked them
            examples = [replace(item, kind=Kind.FOUND) for item in examples]
        # The examples come last, so that what is found has the same id with them and without.
        found = replace(found, detections=[*self.confirmed, *found.detections, *examples])
        drawn = pictures_of(frame, found.detections, self.marks, self.threshold, self.of)
        warnings, notes = [], []
        if found.reason not in ("", AS_SET):
            warnings.append(f"{self.name}{CHOSEN}{found.threshold:.3f}: {found.reason}.")
        if drawn.flat:
            warnings.append(f"{self.name} is the same everywhere, so nothing can be found in it.")
        elif found.blank:
            notes.append(
                f"{self.name}: {found.blank} of {found.blocks} blocks show nothing but even background and were passed "
                "over."
            )
        return TaskResult(found, extra=drawn, warnings=warnings, notes=notes)

    def _is_confirmed(self, item: Detection) -> bool:
        return any(mask_iou(item.instance, other.instance) >= SAME_OBJECT for other in self.confirmed)
