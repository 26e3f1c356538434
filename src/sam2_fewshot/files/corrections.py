"""Corrections: objects of earlier results that the user marked as right or wrong.

The report's *Export* writes them as a NimbusImage export whose annotations carry the tag ``right`` or ``wrong``, so
that they can also serve as examples (``--training-tag right --negative-tag wrong``). Two additions, which other readers
pass over: each annotation names its ``image``, and ``sam2-fewshot`` at the top holds what the report knew of the run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.nimbus import annotations_of, read_annotations
from sam2_fewshot.annotations.placing import PlacedExemplar, Placer, Remarks
from sam2_fewshot.annotations.values import load_json
from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.geometry.overlap import mask_iou

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sam2_fewshot.images.image_set import ImageSet
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import InstanceMask

RIGHT, WRONG = "right", "wrong"
KEY = "sam2-fewshot"
"""Where the file holds what the report knew of the run."""

_SAME_OBJECT = 0.5
"""Outlines with at least this IoU mean the same object."""


@dataclass(frozen=True, eq=False, slots=True)
class Correction:
    """An object that the user has judged.

    Parameters
    ----------
    placed
        The object on its frame, with its outline; negative when it is wrong.
    mask
        Its mask.
    """

    placed: PlacedExemplar
    mask: InstanceMask

    @property
    def is_right(self) -> bool:
        """Whether the object is of the wanted kind."""
        return not self.placed.exemplar.negative


def read_corrections(paths: Iterable[Path], images: ImageSet, progress: Progress) -> list[Correction]:
    """Read what the user marked, and put each object on its frame.

    Of two verdicts on the same object the later counts.

    Parameters
    ----------
    paths
        Files that the report exported, the oldest first.
    images
        The images that were given, in the order of the run that the corrections are for.
    progress
        Takes warnings: about objects that are left out or mended.

    Raises
    ------
    InputError
        If a file cannot be read, is not such a file, or has no object that can be used.
    """
    kept: list[Correction] = []
    for path in paths:
        annotations = _judged(load_json(path))
        if annotations is None:
            raise InputError(
                f"{path.name} holds no corrections. Mark objects as right or wrong in report.html and press Export "
                "there; examples of another kind belong to --examples of sam2-fewshot segment."
            )
        remarks = Remarks(path.name, progress)
        here = _of_these_images(annotations, images, remarks)
        fresh = [_correction(placed) for placed in read_annotations(here, Placer(images, remarks))]
        if not fresh:
            raise InputError(f"No correction in {path.name} can be used: {remarks.left_out() or 'it has none'}.")
        remarks.tell()
        for correction in fresh:
            kept = [other for other in kept if not _same(other, correction)]
            kept.append(correction)
    return kept


def results_folder(path: Path) -> str | None:
    """Return the folder with the results that a file of corrections is for, None when it does not say.

    Raises
    ------
    InputError
        If the file cannot be read as JSON.
    """
    content = load_json(path)
    about = content.get(KEY) if isinstance(content, dict) else None
    folder = about.get("results") if isinstance(about, dict) else None
    return folder if isinstance(folder, str) and folder else None


def corrections_json(corrections: Sequence[Correction]) -> str:
    """Return corrections as the text of a file that :func:`read_corrections` takes."""
    annotations = [
        {
            "shape": "polygon",
            "coordinates": [{"x": x, "y": y} for x, y in _points(correction)],
            "tags": [RIGHT if correction.is_right else WRONG],
            "channel": 0,
            "location": {
                "XY": correction.placed.location.xy,
                "Z": correction.placed.location.z,
                "Time": correction.placed.location.time,
            },
            "image": correction.placed.frame.name,
        }
        for correction in corrections
    ]
    return json.dumps({"annotations": annotations, KEY: {"kind": "corrections", "version": 1}}, indent=1) + "\n"


def _judged(content: Any) -> list[dict[str, Any]] | None:
    """Return the outlines that carry exactly one of the two tags, None when there are none."""
    annotations = annotations_of(content) or []
    judged = [
        annotation
        for annotation in annotations
        if isinstance(annotation, dict)
        and annotation.get("shape") == "polygon"
        and isinstance(annotation.get("tags"), list)
        and (RIGHT in annotation["tags"]) != (WRONG in annotation["tags"])
    ]
    return judged or None


def _of_these_images(annotations: Sequence[dict[str, Any]], images: ImageSet, remarks: Remarks) -> list[dict[str, Any]]:
    """Leave out what lies on an image that is not at its place any more."""
    here: list[dict[str, Any]] = []
    for number, annotation in enumerate(annotations, 1):
        location = annotation.get("location")
        xy = location.get("XY", 0) if isinstance(location, dict) else 0
        name = annotation.get("image")
        known = isinstance(xy, int) and not isinstance(xy, bool) and 0 <= xy < len(images)
        if isinstance(name, str) and known and images[xy].name != name:
            remarks.leave_out(number, f"marked on {name}, but the image at XY {xy + 1} is {images[xy].name}")
        else:
            here.append(annotation)
    return here


def _correction(placed: PlacedExemplar) -> Correction:
    exemplar = replace(placed.exemplar, negative=WRONG in placed.tags)
    assert exemplar.polygon is not None  # nothing else passes _judged
    return Correction(PlacedExemplar(exemplar, placed.tags), polygon_to_mask(exemplar.polygon, placed.frame.shape))


def _same(first: Correction, second: Correction) -> bool:
    return first.placed.location == second.placed.location and mask_iou(first.mask, second.mask) >= _SAME_OBJECT


def _points(correction: Correction) -> list[tuple[float, float]]:
    polygon = correction.placed.exemplar.polygon
    assert polygon is not None
    return [(x, y) for x, y in np.asarray(polygon.exterior.coords)[:-1, :2].tolist()]
