"""What is learned and searched, as records; nothing here knows napari or Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam2_fewshot.annotations.review import UNWANTED, Part
from sam2_fewshot.records import Exemplar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sam2_fewshot.annotations.arrays import Place
    from sam2_fewshot.annotations.review import Mark
    from sam2_fewshot.records import Box, FrameReader
    from sam2_fewshot.segmenter import FewShotSegmenter

_BLOCK = 1 << 20  # pixels that are searched, and displayed, at a time


def exemplars(marks: Sequence[Mark], plane: Callable[[Place], FrameReader]) -> list[Exemplar]:
    """Return marks as exemplars; those of one plane have one image, which is given by its place."""
    planes = {place: plane(place) for place in {mark.place for mark in marks}}
    return [
        Exemplar(planes[mark.place], polygon=mark.outline, negative=mark.kind == UNWANTED, label=f"Mark {number}")
        for number, mark in enumerate(marks, 1)
    ]


def search(
    segmenter: FewShotSegmenter,
    planes: Sequence[tuple[Place, FrameReader]],
    region: Box | None,
    begins: Callable[[int, int], None],
) -> Iterator[Part]:
    """Search planes, or a region of each, and yield what is found as soon as a block is finished.

    `begins` is told how many blocks are finished, and of how many; it is taken that all planes have as many.
    """
    for number, (place, frame) in enumerate(planes):

        def told(done: int, total: int, number: int = number) -> None:
            begins(number * total + done, len(planes) * total)

        for box, result in segmenter.stream(frame, region, _BLOCK, told):
            yield Part(place, box, [*result.detections, *result.below], result.floor)
