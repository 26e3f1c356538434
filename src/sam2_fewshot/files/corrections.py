"""Corrections: objects of earlier results that the user marked as right or wrong.

The report's *Export* writes them as a NimbusImage export whose annotations carry the tag ``right`` or ``wrong``, so
that they can also serve as examples (``--training-tag right --negative-tag wrong``). Two additions, which other readers
ignore: each annotation names its ``image``, and ``sam2-fewshot`` at the top holds what the report knew of the run.

The page has outlines only as far as they can be seen, without holes. So an annotation with a ``number`` stands for the
object of the results that it is the outline of, whose exact mask is taken from there. What is written into the next
output folder has exact outlines, with ``holes``.

Each run writes such a file itself, with the places whose answer would teach most: their tag is ``unanswered`` until the
user, or another program, puts ``right`` or ``wrong`` in its place.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import shapely
from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError, WrapValidator, field_validator

from sam2_fewshot.annotations.mark_next import asked_about
from sam2_fewshot.annotations.nimbus import (
    annotations_of,
    location_of,
    outline_document,
    points_of,
    polygon_document,
    read_annotations,
    tags_of,
)
from sam2_fewshot.annotations.placing import PlacedExemplar, Placer, Remarks
from sam2_fewshot.annotations.record import figure, printable
from sam2_fewshot.annotations.values import index, load_json
from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.outlines import mask_to_area, polygon_to_mask
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.output.pictures import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pydantic import ValidatorFunctionWrapHandler

    from sam2_fewshot.annotations.mark_next import Place
    from sam2_fewshot.images.image_set import ImageSet
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Detection, InstanceMask, Location

RIGHT, WRONG, UNANSWERED = "right", "wrong", "unanswered"
KEY = "sam2-fewshot"
"""Where the file holds what the report knew of the run."""

SAME_OBJECT = 0.5
"""Outlines with at least this IoU mean the same object."""

CORRECTIONS = "corrections.json"
"""Name of the file in an output folder with all corrections that its objects were learned from."""
MARK_NEXT = "mark_next.json"
"""Name of the file in an output folder with the places to mark next."""


def _none_when_wrong(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:
        return None


_Lenient = WrapValidator(_none_when_wrong)
"""Takes what is not of the field's type for None, because what is meant is reported where the object is placed."""


class _Place(BaseModel):
    """Where an annotation lies: the position, counted from 0, None when it is no whole number."""

    xy: Annotated[StrictInt | None, _Lenient] = Field(0, alias="XY")


class _Verdict(BaseModel):
    """An outline that the user has marked as either right or wrong."""

    shape: Literal["polygon"]
    tags: list[Any]
    image: Annotated[StrictStr | None, _Lenient] = None
    location: Annotated[_Place | None, _Lenient] = None

    @field_validator("tags")
    @classmethod
    def _is_clear(cls, tags: list[Any]) -> list[Any]:
        if (RIGHT in tags) == (WRONG in tags):
            raise ValueError(f"one of {RIGHT!r} and {WRONG!r} is needed")
        return tags

    @property
    def xy(self) -> int | None:
        """The position that it lies on, None when it is no whole number; the first where there is none."""
        return self.location.xy if self.location else 0


class _About(BaseModel):
    """What the report knew of the run."""

    results: Annotated[StrictStr | None, _Lenient] = None


class _Export(BaseModel):
    """A file of corrections, but for its annotations."""

    about: Annotated[_About | None, _Lenient] = Field(None, alias=KEY)


@dataclass(frozen=True, eq=False, slots=True)
class Correction:
    """An object that the user has marked as right or wrong.

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


def read_corrections(
    paths: Iterable[Path], images: ImageSet, progress: Progress, earlier: Path | None = None
) -> list[Correction]:
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
    earlier
        The output folder that the corrections are for, which has the exact masks of its objects.

    Raises
    ------
    InputError
        If a file cannot be read, is not such a file, or has no object that can be used.
    """
    corrections: list[Correction] = []
    for path in paths:
        content = load_json(path)
        marked = _marked(content)
        if not marked and (asked := _unanswered(content)):
            raise InputError(
                f"None of the {asked} places in {path.name} is answered. Put {RIGHT!r} or {WRONG!r} in place of "
                f"{UNANSWERED!r} in the tags of some, or mark them in report.html and press Export there."
            )
        if not marked:
            raise InputError(
                f"{path.name} holds no corrections. Mark objects as right or wrong in report.html and press Export "
                "there; examples of another kind belong to --examples of sam2-fewshot segment."
            )
        remarks = Remarks(path.name, progress)
        here = _with_exact_outlines(_of_these_images(marked, images, remarks), earlier, remarks)
        new = [_correction(placed) for placed in read_annotations(here, Placer(images, remarks))]
        if not new:
            raise InputError(f"No correction in {path.name} can be used: {remarks.left_out() or 'it has none'}.")
        remarks.report()
        for correction in new:
            corrections = [other for other in corrections if not _same(other, correction)]
            corrections.append(correction)
    return corrections


def results_folder(path: Path) -> str | None:
    """Return the folder with the results that a file of corrections is for, None when it does not name one.

    Raises
    ------
    InputError
        If the file cannot be read as JSON.
    """
    try:
        about = _Export.model_validate(load_json(path)).about
    except ValidationError:
        return None
    return (about and about.results) or None


def corrections_json(corrections: Sequence[Correction]) -> str:
    """Return corrections as the text of a file that :func:`read_corrections` takes."""
    annotations = []
    for each in corrections:
        polygon, location = each.placed.exemplar.polygon, each.placed.location
        assert polygon is not None
        document = polygon_document(polygon, location, [RIGHT if each.is_right else WRONG], channel=0)
        annotations.append({**document, **outline_document(polygon), "image": printable(each.placed.frame.name)})
    return json.dumps({"annotations": annotations, KEY: {"kind": "corrections", "version": 1}}, indent=1) + "\n"


def mark_next_json(asked: Sequence[tuple[Place, Detection]]) -> str:
    """Return places to mark as the text of a file that :func:`read_corrections` takes once some are answered.

    Parameters
    ----------
    asked
        Each place with its object.
    """
    annotations = [
        {
            **polygon_document(item.polygon, place.location, [UNANSWERED], channel=0),
            "image": place.title,
            "number": place.number,
            "score": figure(place.score),
        }
        for place, item in asked
    ]
    return json.dumps({"annotations": annotations, KEY: {"kind": "corrections", "version": 1}}, indent=1) + "\n"


def _unanswered(content: Any) -> int:
    """Return how many annotations have the tag of an answer that is not given."""
    return sum(isinstance(each, dict) and UNANSWERED in tags_of(each) for each in annotations_of(content) or [])


def _marked(content: Any) -> list[tuple[dict[str, Any], _Verdict]]:
    """Return the annotations that are a verdict, each as it is and as parsed."""
    marked = []
    for annotation in annotations_of(content) or []:
        with suppress(ValidationError):  # the user's own annotation
            marked.append((annotation, _Verdict.model_validate(annotation)))
    return marked


def _of_these_images(
    marked: Sequence[tuple[dict[str, Any], _Verdict]], images: ImageSet, remarks: Remarks
) -> list[dict[str, Any]]:
    """Leave out what lies on an image that is not at its place any more."""
    here: list[dict[str, Any]] = []
    for number, (annotation, verdict) in enumerate(marked, 1):
        xy, name = verdict.xy, verdict.image
        if name is not None and xy is not None and 0 <= xy < len(images):
            given = printable(images[xy].name)
            if not _same_name(name, given):
                remarks.leave_out(number, f"marked on {name}, but the image at XY {xy + 1} is {given}")
                continue
        here.append(annotation)
    return here


def _with_exact_outlines(
    annotations: list[dict[str, Any]], earlier: Path | None, remarks: Remarks
) -> list[dict[str, Any]]:
    """Give the exact outlines, with holes, to the annotations that stand for objects of the results."""
    numbered: dict[Location, list[int]] = defaultdict(list)
    for i, annotation in enumerate(annotations):
        location = location_of(annotation)
        if "number" in annotation and location is not None:
            numbered[location].append(i)
    exact = list(annotations)
    finished = None
    if earlier is not None:
        with suppress(InputError):  # it holds no results
            finished = read_finished(earlier)
    for location, which in numbered.items():
        record = finished and finished.record(location)
        objects = asked_about(record) if record else []
        for i in which:
            found = _object_of(annotations[i], objects)
            if found is not None:
                exact[i] = {**annotations[i], **outline_document(mask_to_area(found.instance))}
            else:
                why = "the results have no such object"
                remarks.note(i + 1, "drawn from its outline, without holes", why)
    return exact


def _object_of(annotation: dict[str, Any], objects: Sequence[Detection]) -> Detection | None:
    """Return the object that an annotation is the outline of: that of its number, else the likest; None for none.

    The report's outlines are a pixel of its picture away at most, which is more than one of the image where that is
    large.
    """
    points = points_of(annotation)
    if not len(points) or not objects:
        return None
    ring = shapely.linestrings([*points, points[0]])
    rings = np.array([item.polygon.exterior for item in objects], object)
    farthest = max(1.0, max(objects[0].instance.frame_shape) / LONGEST)
    near = np.flatnonzero(np.abs(shapely.bounds(rings) - shapely.bounds(ring)).max(axis=1) <= farthest)
    distance = shapely.hausdorff_distance(rings[near], ring)
    alike = near[np.argsort(distance, kind="stable")][: np.count_nonzero(distance <= farthest)].tolist()
    number = (index(annotation["number"]) or 0) - 1
    return objects[number if number in alike else alike[0]] if alike else None


def _same_name(one: str, other: str) -> bool:
    """Tell whether two names can be of one image: what else was given decides with how many folders it is named."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _correction(placed: PlacedExemplar) -> Correction:
    exemplar = replace(placed.exemplar, negative=WRONG in placed.tags)
    assert exemplar.polygon is not None  # only polygons are verdicts
    return Correction(PlacedExemplar(exemplar, placed.tags), polygon_to_mask(exemplar.polygon, placed.frame.shape))


def _same(first: Correction, second: Correction) -> bool:
    return first.placed.location == second.placed.location and mask_iou(first.mask, second.mask) >= SAME_OBJECT
