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
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

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
from sam2_fewshot.errors import InputError, SettingsError, were
from sam2_fewshot.files.earlier import known_images
from sam2_fewshot.geometry.outlines import mask_to_area, polygon_to_mask
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.methods.selection import shape_of
from sam2_fewshot.output.pictures import LONGEST
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from shapely import Polygon

    from sam2_fewshot.annotations.mark_next import Suggestion
    from sam2_fewshot.annotations.nimbus import Document
    from sam2_fewshot.files.earlier import KnownImages
    from sam2_fewshot.images.image_set import ImageSet
    from sam2_fewshot.output.finished import Finished
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Detection, InstanceMask, Location

    _Object = tuple[Polygon, InstanceMask]

RIGHT, WRONG, UNANSWERED = "right", "wrong", "unanswered"
KEY = "sam2-fewshot"
"""Where the file holds what the report knew of the run."""

SAME_OBJECT = 0.5
"""Outlines with at least this IoU mean the same object."""

_FRAMES = 4
"""The objects of so many frames are held, since marks on one frame mostly follow one another."""

CORRECTIONS = "corrections.json"
"""Name of the file in an output folder with all corrections that its objects were learned from."""
MARK_NEXT = "mark_next.json"
"""Name of the file in an output folder with the places to mark next."""


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
    paths: Iterable[Path], images: ImageSet, progress: Progress, earlier: Finished | None = None
) -> list[Correction]:
    """Read what the user marked, and put each object on its frame.

    Of two verdicts on the same object the later counts.

    Parameters
    ----------
    paths
        Files that the report exported, the oldest first.
    images
        The images that are given now. A correction goes to the image of its name, wherever that is among them.
    progress
        Takes warnings: about objects that are left out or mended, and files that say nothing new.
    earlier
        The results that the corrections are for, which have the exact masks of their objects, and know the images that
        they lie on. What lies on one whose content has changed since is left out.

    Raises
    ------
    InputError
        If a file cannot be read, is not such a file, or has no object that can be used.
    """
    every: list[Correction] = []
    by_location: dict[Location, list[Correction]] = {}
    known = known_images(images, earlier)
    nothing = ""
    for path in paths:
        annotations = annotations_of(load_json(path)) or []
        marked = _marked(annotations)
        if not marked and (asked := _unanswered(annotations)):
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
        here = _of_these_images(marked, known, remarks)
        exact = [mark.moved for mark in _with_exact_outlines(here, earlier, by_location, remarks)]
        placed = read_annotations(exact, Placer(images, remarks), names=[str(mark.number) for mark in here])
        new = [_correction(each) for each in placed]
        if not new:
            nothing = f"No correction in {path.name} can be used: {remarks.left_out() or 'it has none'}."
            if earlier is None or path != earlier.out / CORRECTIONS:
                raise InputError(nothing)
        remarks.report()
        _warn_of_others(annotations, path.name, progress)
        repeated = 0
        for correction in new:
            others = by_location.get(correction.placed.location, ())
            ious = {other: mask_iou(other.mask, correction.mask) for other in others}
            repeated += any(iou == 1 and other.is_right == correction.is_right for other, iou in ious.items())
            others = [other for other, iou in ious.items() if iou < SAME_OBJECT]
            by_location[correction.placed.location] = [*others, correction]
        if new and repeated == len(new):
            progress.warn(
                f"Nothing new is learned from {path.name}: all of its corrections are known already. To learn more, "
                "mark others in the report.html of the last results and press Export there."
            )
        every += new
    left = {correction for others in by_location.values() for correction in others}
    corrections = [correction for correction in every if correction in left]
    if nothing and not corrections:
        raise InputError(nothing)
    return corrections


def results_folder(path: Path) -> str | None:
    """Return the folder with the results that a file of corrections is for, None when it does not name one.

    Raises
    ------
    InputError
        If the file cannot be read as JSON.
    """
    content = load_json(path)
    about = content.get(KEY) if isinstance(content, dict) else None
    results = about.get("results") if isinstance(about, dict) else None
    return results if results and isinstance(results, str) else None


def corrections_json(corrections: Sequence[Correction]) -> str:
    """Return corrections as the text of a file that :func:`read_corrections` takes."""
    annotations = []
    for each in corrections:
        polygon, location = each.placed.exemplar.polygon, each.placed.location
        assert polygon is not None
        document = polygon_document(polygon, location, [RIGHT if each.is_right else WRONG])
        annotations.append({**document, **outline_document(polygon), "image": printable(each.placed.frame.name)})
    return _text(annotations)


def mark_next_json(asked: Sequence[tuple[Suggestion, Detection]]) -> str:
    """Return places to mark as the text of a file that :func:`read_corrections` takes once some are answered.

    Parameters
    ----------
    asked
        Each place with its object.
    """
    annotations = [
        {
            **polygon_document(item.polygon, place.location, [UNANSWERED]),
            "image": place.title,
            "number": place.number,
            "score": figure(place.score),
        }
        for place, item in asked
    ]
    return _text(annotations)


def _text(annotations: Sequence[Document]) -> str:
    return json.dumps({"annotations": annotations, KEY: {"kind": "corrections", "version": 1}}, indent=1) + "\n"


def _unanswered(annotations: Sequence[Any]) -> int:
    """Return how many annotations have the tag of an answer that is not given."""
    return sum(UNANSWERED in _words_of(each) for each in annotations)


def _marked(annotations: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the annotations that are a verdict, each with the tag of that alone."""
    told = [(each, _verdict_of(each)) for each in annotations]
    return [{**each, "tags": [verdict]} for each, verdict in told if verdict is not None]


def _verdict_of(annotation: Any) -> str | None:
    """Return what an outline with one of the two tags says; None of any other annotation."""
    verdicts = _words_of(annotation) & {RIGHT, WRONG}
    return verdicts.pop() if len(verdicts) == 1 and annotation.get("shape") == "polygon" else None


def _words_of(annotation: Any) -> set[str]:
    """Return the tags of an annotation as they are compared: somebody may have typed them."""
    return {tag.strip().casefold() for tag in tags_of(annotation)} if isinstance(annotation, dict) else set()


def _warn_of_others(annotations: Sequence[Any], file: str, progress: Progress) -> None:
    """Say how many annotations are neither a verdict nor unanswered: somebody may have meant them as answers."""
    others = [each for each in annotations if _verdict_of(each) is None]
    if count := sum(UNANSWERED not in _words_of(each) for each in others):
        they_are = "it is" if count == 1 else "they are"
        progress.warn(
            f"{file}: {were(count, 'annotation')} passed over, because {they_are} no outline with one of the tags "
            f"{RIGHT!r} and {WRONG!r}."
        )


@dataclass(frozen=True, eq=False, slots=True)
class _Mark:
    """An annotation that is a verdict.

    Parameters
    ----------
    number
        Its number among those of its file, from 1.
    annotation
        What the file says.
    before, now
        The location in the results that it is a verdict on, and where that is now; None where it is no location.
    """

    number: int
    annotation: dict[str, Any]
    before: Location | None
    now: Location | None

    @property
    def moved(self) -> dict[str, Any]:
        """The annotation at the location where it belongs now."""
        if self.now is None:
            return self.annotation
        place = {"XY": self.now.xy, "Z": self.now.z, "Time": self.now.time}
        return {**self.annotation, "location": place}


def _of_these_images(marked: Sequence[dict[str, Any]], known: KnownImages, remarks: Remarks) -> list[_Mark]:
    """Find the image that each verdict lies on, and leave out those whose image is gone or was replaced."""
    here: list[_Mark] = []
    find, is_replaced = cache(known.find), cache(known.is_replaced)
    for number, annotation in enumerate(marked, 1):
        location, given = location_of(annotation), annotation.get("image")
        name = given if isinstance(given, str) else None
        xy = find(name, location.xy) if location else None
        now = None if xy is None else known.now[xy]
        if location is None or (name is None and xy is None):
            here.append(_Mark(number, annotation, None, None))  # the reader says why
        elif xy is None or now is None or is_replaced(xy):
            remarks.total += 1
            called = name or f"the image at XY {location.xy + 1}"
            if xy is not None and now is not None:
                why = f"marked on {called} as it was; the file has been replaced since"
            elif xy is None and 0 <= location.xy < len(known.images):
                is_there = printable(known.images[location.xy].name)
                why = f"marked on {called}, but the image at XY {location.xy + 1} is {is_there}"
            else:
                why = f"marked on {called}, which is not among the images"
            remarks.leave_out(number, why)
        else:
            here.append(_Mark(number, annotation, replace(location, xy=xy), replace(location, xy=now)))
    return here


def _with_exact_outlines(
    marks: Sequence[_Mark],
    results: Finished | None,
    corrections: Mapping[Location, Sequence[Correction]],
    remarks: Remarks,
) -> Iterator[_Mark]:
    """Yield marks; what has a number gets the exact outline, with holes, of the object that it stands for.

    That is among the corrections read so far, by location, as where a run was stopped that learned from it, or among
    the results.
    """
    settings = Settings()
    with suppress(SettingsError):  # of another version
        settings = Settings.stored(results.facts["settings"]) if results else settings

    @lru_cache(_FRAMES)
    def found_at(location: Location) -> list[_Object]:
        record = results.record(location) if results else None
        return [(item.polygon, item.instance) for item in asked_about(record)] if record else []

    @lru_cache(_FRAMES)
    def learned_at(location: Location) -> list[_Object]:
        here = [item.mask for item in corrections.get(location, ())]
        return [(shape_of(mask, settings)[1], mask) for mask in here]

    for mark in marks:
        if "number" not in mark.annotation or mark.before is None or mark.now is None:
            yield mark
            continue
        number = index(mark.annotation["number"]) or 0
        mask = _mask_of(mark.annotation, learned_at(mark.now))
        if mask is None:
            mask = _mask_of(mark.annotation, found_at(mark.before), number)
        if mask is None:
            why = "the results have no such object"
            remarks.note(mark.number, "drawn from its outline, without holes", why)
            yield mark
        else:
            yield replace(mark, annotation={**mark.annotation, **outline_document(mask_to_area(mask))})


def _mask_of(annotation: dict[str, Any], objects: Sequence[_Object], number: int = 0) -> InstanceMask | None:
    """Return the mask of the object that an annotation is the outline of: that of its number, else the likest.

    None where it is of none. The report's outlines are a pixel of its picture away at most, which is more than one of
    the image where that is large.
    """
    points = points_of(annotation)
    if not len(points) or not objects:
        return None
    ring = shapely.linestrings([*points, points[0]])
    rings = np.array([polygon.exterior for polygon, _ in objects], object)
    farthest = max(1.0, max(objects[0][1].frame_shape) / LONGEST)
    near = np.flatnonzero(np.abs(shapely.bounds(rings) - shapely.bounds(ring)).max(axis=1) <= farthest)
    distance = shapely.hausdorff_distance(rings[near], ring)
    alike = near[np.argsort(distance, kind="stable")][: np.count_nonzero(distance <= farthest)].tolist()
    return objects[number - 1 if number - 1 in alike else alike[0]][1] if alike else None


def _correction(placed: PlacedExemplar) -> Correction:
    exemplar = replace(placed.exemplar, negative=WRONG in placed.tags)
    assert exemplar.polygon is not None  # only polygons are verdicts
    return Correction(PlacedExemplar(exemplar, placed.tags), polygon_to_mask(exemplar.polygon, placed.frame.shape))
