"""The examples of a dataset: annotations with any of the tags, wherever they lie."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from sam2_fewshot.annotations.nimbus import location_of, points_of, read_annotations, tags_of
from sam2_fewshot.annotations.placing import Placer, Remarks
from sam2_fewshot.errors import InputError, were
from sam2_fewshot.nimbus.dataset import NOT_THERE
from sam2_fewshot.nimbus.existing import list_annotations
from sam2_fewshot.nimbus.form import NEGATIVE_TAG, TRAINING_TAG
from sam2_fewshot.nimbus.messages import in_short
from sam2_fewshot.nimbus.parameters import place_in_words
from sam2_fewshot.settings import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.annotations.nimbus import Document
    from sam2_fewshot.annotations.placing import PlacedExemplar
    from sam2_fewshot.nimbus.dataset import NimbusDataset, NimbusFrame
    from sam2_fewshot.nimbus.parameters import Request
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Exemplar, Location


def read_training(
    server: Server, dataset: NimbusDataset, request: Request, progress: Progress
) -> tuple[list[Exemplar], list[Exemplar]]:
    """Return the examples a user has tagged.

    Polygons, rectangles and points serve as examples; a rectangle is a box around an object, unless it is turned.
    Coordinates are image pixels as everywhere: the centre of the first pixel is (0.5, 0.5).

    They may lie on frames that are not asked for. The user is warned of what is left out, and why.

    Returns
    -------
    exemplars : list of Exemplar
        What to learn from, by frame.
    outlined : list of Exemplar
        Those of them whose objects are not added to the results on their own frame: outlines, and points and boxes
        that share a tag with the results, where the object would be there twice.

    Raises
    ------
    InputError
        If there is no example of what is wanted that can be used.
    ServerError
        If the server does not tell.
    """
    wanted, unwanted = set(request.training_tags), set(request.negative_tags)
    documents = _tagged(server, dataset.id, [*request.training_tags, *request.negative_tags])
    chosen = " or ".join(repr(tag) for tag in request.training_tags)
    there = {tag for document in documents for tag in tags_of(document)}
    if not wanted & there:
        raise InputError(
            f"No annotation in this dataset has the Training Tag {chosen}. Outline 5 to 20 typical objects, give them "
            f"that tag, and run the tool again; or choose the tag that they have.{_several(request.training_tags)}"
        )
    for field, tags in ((TRAINING_TAG, request.training_tags), (NEGATIVE_TAG, request.negative_tags)):
        for tag in tags:
            if tag not in there:
                progress.warn(
                    f"No annotation in this dataset has the {field} {quoted(tag)}, so it has no effect. Check its "
                    f"spelling, or take it out of the field.{_several([tag])}"
                )
    both = [document for document in documents if wanted & set(tags_of(document)) and unwanted & set(tags_of(document))]
    if both:
        progress.warn(
            f"{were(len(both), 'annotation')} left out for having both a Training Tag and a Negative Tag "
            f"({_places(both)}); take one of them off."
        )
    outside = [each for each in documents if (place := location_of(each)) is None or not dataset.has(place)]
    if outside:
        progress.warn(f"{were(len(outside), 'annotation')} left out for lying {NOT_THERE} ({_places(outside)}).")
    left_out = {id(document) for document in (*both, *outside)}
    usable = [document for document in documents if id(document) not in left_out]
    remarks = _Remarks("Examples", progress)
    placer = Placer(dataset, remarks)
    names = [f"at {place_of(document)}" for document in usable]
    placed = list(read_annotations(usable, placer, names=names, boxes=True))
    exemplars = sorted(
        (replace(item.exemplar, negative=True) if unwanted & set(item.tags) else item.exemplar for item in placed),
        key=location_on,
    )
    if all(exemplar.negative for exemplar in exemplars):
        why = remarks.left_out() or "they were left out"
        raise InputError(
            f"No annotation with the Training Tag {chosen} can serve as an example: {why}. "
            "Polygons, rectangles and points can."
        )
    remarks.report()
    positive = [item for item in placed if not unwanted & set(item.tags)]
    outlined = [item.exemplar for item in positive if item.exemplar.point is None and item.exemplar.box is None]
    return exemplars, [*outlined, *_marks_of_results(positive, request.output_tags, progress)]


def _marks_of_results(
    placed: Sequence[PlacedExemplar], output_tags: Sequence[str], progress: Progress
) -> list[Exemplar]:
    """Return the points and boxes that share a tag with the results, and warn that they stay what they are."""
    sharing = [item for item in placed if not set(output_tags).isdisjoint(item.tags)]
    points = [item for item in sharing if item.exemplar.point is not None]
    boxes = [item for item in sharing if item.exemplar.box is not None]
    for name, marks in (("points", points), ("rectangles", boxes)):
        if marks:
            shared = sorted({tag for item in marks for tag in item.tags if tag in output_tags})
            progress.warn(
                f"{name.capitalize()} stay {name} where the results get their tag {', '.join(map(quoted, shared))} "
                f"too, so that no object is counted twice ({len(marks)} of the examples); to get outlines of them, "
                "give the tool another tag for its results."
            )
    return [item.exemplar for item in (*points, *boxes)]


def place_of(document: Document) -> str:
    """Return where an annotation is found in the app: XY, Z and Time counted from 1, and the middle of its extent."""
    location, points = location_of(document), points_of(document)
    if location is None:
        return "no valid XY, Z and Time"
    place = place_in_words(location)
    if not len(points):
        return place
    x, y = (points.min(axis=0) + points.max(axis=0)) / 2
    return f"{place}, x {x:.0f}, y {y:.0f}"


def location_on(exemplar: Exemplar) -> Location:
    """Return the location of the frame that an example of a dataset lies on."""
    return cast("NimbusFrame", exemplar.image).location


def _tagged(server: Server, dataset_id: str, tags: Sequence[str]) -> list[Document]:
    """Return the annotations with any of the tags, by id. Of several tags the server wants all, so one at a time."""
    found: dict[str, Document] = {}
    for tag in tags:
        for document in list_annotations(server, dataset_id, [tag]):
            found[str(document["_id"])] = document
    return [found[key] for key in sorted(found)]


def _places(documents: Sequence[Document]) -> str:
    return in_short([place_of(document) for document in documents])


def _several(tags: Sequence[str]) -> str:
    """Return a hint where a tag looks like several that a program gave as one text."""
    return " Several tags are given one by one, not with commas between." if any("," in tag for tag in tags) else ""


class _Remarks(Remarks):
    """Names examples such that they are found in the app, where they have no numbers."""

    def label(self, number: object) -> str:
        return f"Example {number}"
