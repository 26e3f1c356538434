"""From masks in a file to exemplars: as outlines where these say all, which is small, else as masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam2_fewshot.geometry.outlines import mask_to_polygon, polygon_to_mask
from sam2_fewshot.records import Exemplar

if TYPE_CHECKING:
    from sam2_fewshot.readers.images import FrameFile
    from sam2_fewshot.readers.placing import Remarks
    from sam2_fewshot.records import InstanceMask

MAX_MASK_BYTES = 500_000_000
"""Full-frame masks of one plane may take this much together; further objects with holes or several parts become the
outline of their largest part."""


@dataclass(eq=False, slots=True)
class Regions:
    """Makes exemplars of the masks of one plane or file.

    Parameters
    ----------
    remarks
        Takes what is to be said about an object.
    """

    remarks: Remarks
    _bytes: int = 0

    def exemplar(self, number: object, frame: FrameFile, instance: InstanceMask) -> Exemplar:
        """Return an exemplar for a mask that is not empty.

        Parameters
        ----------
        number
            What the file calls the object.
        frame
            Where it lies.
        instance
            Its mask, cropped to the object.
        """
        label = f"{self.remarks.file}, object {number}"
        polygon = mask_to_polygon(instance)
        if _same(polygon_to_mask(polygon, frame.shape), instance):
            return Exemplar(image=frame, polygon=polygon, label=label)
        height, width = frame.shape
        if self._bytes + height * width > MAX_MASK_BYTES:
            self.remarks.note(number, "cut to the largest part", "there are too many large masks to keep")
            return Exemplar(image=frame, polygon=polygon, label=label)
        self._bytes += height * width
        return Exemplar(image=frame, mask=instance.full(), label=label)


def _same(a: InstanceMask, b: InstanceMask) -> bool:
    return a.box == b.box and bool((a.data == b.data).all())
