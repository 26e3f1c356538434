"""NimbusImage's annotations: the document that its server keeps, and the JSON export."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely import Polygon

from sam2_fewshot.annotations.drawings import Drawing, place
from sam2_fewshot.annotations.named import nominal_header
from sam2_fewshot.annotations.record import a_line_each, figure, hexadecimal_id, printable, vertices
from sam2_fewshot.annotations.values import (
    MOST_IMAGES,
    TITLES,
    Figures,
    Vertices,
    as_kind,
    index,
    json_number,
    location_at,
    words,
)
from sam2_fewshot.geometry.outlines import polygons_to_masks, valid_polygon
from sam2_fewshot.records import Location
from sam2_fewshot.storage.files import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from sam2_fewshot.annotations.drawings import Ring
    from sam2_fewshot.annotations.named import MarkedFile
    from sam2_fewshot.annotations.placing import PlacedExemplar, Placer, Point, Remarks
    from sam2_fewshot.annotations.record import Add, FrameRecord
    from sam2_fewshot.images.source import Header
    from sam2_fewshot.records import Detection

_ALONG = 0.999
"""A rectangle fills its bounding box at least so far if it lies along the image's sides, but for rounding."""

Document = dict[str, Any]
"""An annotation as the server and the export have it."""


def document_of(
    shape: str, points: Iterable[Sequence[float]], location: Location, tags: Sequence[str], channel: int = 0
) -> Document:
    """Return an annotation: integers as integers, ``tags`` always a list.

    Parameters
    ----------
    shape
        Such as ``"polygon"`` or ``"point"``.
    points
        Its vertices ``(x, y)`` in image pixels; those of a polygon are open, the first one is not repeated.
    location
        Where it lies, counted from 0.
    tags
        Its tags.
    channel
        0-based channel that it belongs to.
    """
    return {
        "shape": shape,
        "coordinates": [{"x": float(x), "y": float(y)} for x, y in points],
        "tags": list(tags),
        "channel": int(channel),
        "location": {"XY": int(location.xy), "Z": int(location.z), "Time": int(location.time)},
    }


def polygon_document(polygon: Polygon, location: Location, tags: Sequence[str], channel: int = 0) -> Document:
    """Return the annotation of an outline; see :func:`document_of`."""
    return document_of("polygon", vertices(polygon.exterior).tolist(), location, tags, channel)


def outline_document(polygon: Polygon) -> Document:
    """Return the ``coordinates`` and the ``holes`` of an outline.

    NimbusImage has no holes, and passes over them.
    """
    shell, *holes = (
        [{"x": float(x), "y": float(y)} for x, y in vertices(ring).tolist()]
        for ring in (polygon.exterior, *polygon.interiors)
    )
    return {"coordinates": shell, "holes": holes} if holes else {"coordinates": shell}


def location_of(document: Document) -> Location | None:
    """Return where an annotation lies, None when its location is no set of whole numbers. What is missing is 0."""
    value = document.get("location")
    if value is None:
        return Location()
    return location_at(*(value.get(key, 0) for key in ("XY", "Z", "Time"))) if isinstance(value, dict) else None


def tags_of(document: Document) -> tuple[str, ...]:
    """Return an annotation's tags."""
    return words(document.get("tags"))


def points_of(document: Document) -> NDArray[np.float64]:
    """Return an annotation's vertices ``(x, y)`` (n, 2); none when one of them is no pair of finite numbers."""
    points = _points(document.get("coordinates"))
    return np.zeros((0, 2)) if points is None or not np.isfinite(points).all() else points


def extent_of(shape: object, points: NDArray[np.float64]) -> BaseGeometry | None:
    """Return an annotation's extent in image pixels ``(x, y)``; None for lines and what has no extent.

    Parameters
    ----------
    shape
        The annotation's shape.
    points
        Its vertices (n, 2), as :func:`points_of` gives them.
    """
    if not len(points):
        return None
    if shape == "point":
        return shapely.Point(points[0])
    if shape == "rectangle" and len(points) == 2:
        outline: Polygon = shapely.box(*points.min(axis=0), *points.max(axis=0))
        return outline
    if shape in ("polygon", "rectangle") and len(points) >= 3:
        return valid_polygon(Polygon(points))
    return None


PROPERTIES = ("Similarity", "Score", "Predicted IoU", "Area")
"""Names of the properties that every annotation has a value of, as :func:`values_of` gives them."""
JOB_PROPERTY = "SAM2 few-shot"
"""Name of the one property that has all of these as its value, where a job on the server saves them."""
_PROPERTY_IDS = {name: hexadecimal_id("property", name) for name in PROPERTIES}


def values_of(item: Detection | None, area: int) -> dict[str, float | None]:
    """Return a detection's figures by the names of properties; null for a figure that there is none of.

    Parameters
    ----------
    item
        The detection; None for an annotation that stands for none by itself, which has no other figure than its area.
    area
        That of the annotation, as :func:`areas_of` gives it.
    """
    scores = (item.similarity, item.score, item.predicted_iou) if item else (np.nan,) * 3
    return dict(zip(PROPERTIES, (*map(figure, scores), area), strict=True))


def areas_of(outlines: Sequence[Polygon], frame_shape: tuple[int, int]) -> list[int]:
    """Return the areas of annotations: the pixels whose centres lie in the outline. An annotation has no holes.

    Parameters
    ----------
    outlines
        In image pixels ``(x, y)``, as they are written.
    frame_shape
        ``(height, width)`` of their frame in pixels.
    """
    shells = [Polygon(outline.exterior) for outline in outlines]
    return [mask.area for mask in polygons_to_masks(shells, [frame_shape] * len(shells))]


def property_document(name: str, tags: Sequence[str] = ()) -> Document:
    """Return a property of polygons with some tags."""
    return {
        "name": name,
        # The server wants an image's name; none computes these values again.
        "image": "properties/none:latest",
        "shape": "polygon",
        "tags": {"tags": list(tags), "exclusive": False},
        "workerInterface": {},
    }


def recognises(content: Any) -> bool:
    """Tell whether the content of a JSON file is an export, or a plain list of annotations."""
    return annotations_of(content) is not None


def annotations_of(content: Any) -> list[Any] | None:
    """Return the annotations in an export, or in a plain list of them; None when it is neither."""
    if isinstance(content, dict):
        # COCO has "annotations" too, beside "images".
        found = content.get("annotations")
        return found if isinstance(found, list) and "images" not in content else None
    if isinstance(content, list) and any(isinstance(e, dict) and "shape" in e and "coordinates" in e for e in content):
        return content
    return None


def images_in(path: Path, content: Any) -> list[Header]:
    """Return the positions that a file speaks of; none where it speaks of one, which is called like the file."""
    locations = [a.get("location") for a in annotations_of(content) or () if isinstance(a, dict)]
    positions = [index(place.get("XY", 0)) or 0 for place in locations if isinstance(place, dict)]
    count = 1 + max((xy for xy in positions if 0 <= xy < MOST_IMAGES), default=0)
    return [] if count == 1 else [nominal_header(Path(f"position-{n + 1}")) for n in range(count)]


def read(file: MarkedFile) -> Iterator[Drawing]:
    """Yield the annotations of a file, with their figures."""
    annotations = annotations_of(file.content) or []
    places = {at.xy for each in annotations if isinstance(each, dict) and (at := location_of(each)) is not None}
    if (said := file.said(len(places))) is not None:
        annotations = [_moved(each, said.xy) for each in annotations]
    return _drawings(annotations, range(1, len(annotations) + 1), file.placer.remarks, _figures_in(file.content))


def _moved(annotation: Any, xy: int) -> Any:
    """Return an annotation at another XY; one that does not say where it lies stays as it is."""
    if not isinstance(annotation, dict) or location_of(annotation) is None:
        return annotation
    return {**annotation, "location": {**(annotation.get("location") or {}), "XY": xy}}


def _figures_in(content: Any) -> dict[str, Figures]:
    """Return the figures in an export, by the annotations' ids: values of the properties of their names, or a job's."""
    if not isinstance(content, dict):
        return {}
    properties, values = content.get("annotationProperties"), content.get("annotationPropertyValues")
    if not isinstance(properties, list) or not isinstance(values, dict):
        return {}
    named = [entry for entry in properties if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
    keys = {entry["name"]: key for entry in named if isinstance(key := _id_of(entry), str)}
    found: dict[str, Figures] = {}
    for key, numbers in values.items():
        if isinstance(numbers, dict):
            together = numbers.get(keys.get(JOB_PROPERTY, ""))
            table = together if isinstance(together, dict) else {}
            table = {name: numbers.get(keys.get(name, ""), table.get(name)) for name in PROPERTIES}
            found[key] = Figures.of(table, TITLES)
    return found


def _id_of(entry: Document) -> Any:
    return entry.get("id", entry.get("_id"))


def read_annotations(
    annotations: Sequence[Any], placer: Placer, names: Sequence[str], boxes: bool = False
) -> Iterator[PlacedExemplar]:
    """Yield the annotations that can serve as examples; the others become remarks.

    Parameters
    ----------
    annotations
        As :func:`annotations_of` gives them.
    placer
        Puts them on their frames.
    names
        What to call each of the annotations in remarks.
    boxes
        Whether what was drawn with the rectangle tool, along the image's sides, is a box around an object.
    """
    return place(_drawings(annotations, names, placer.remarks, {}, boxes), placer)


def _drawings(
    annotations: Sequence[Any],
    names: Iterable[object],
    remarks: Remarks,
    figures: Mapping[str, Figures],
    boxes: bool = False,
) -> Iterator[Drawing]:
    for name, annotation in zip(names, annotations, strict=True):
        remarks.total += 1
        if not isinstance(annotation, dict):
            yield Drawing(name, why="not an annotation")
            continue
        key = _id_of(annotation)
        own = figures.get(key, Figures()) if isinstance(key, str) else Figures()
        if "kind" in annotation:
            own = replace(own, kind=as_kind(annotation["kind"]))
        yield _drawn(Drawing(name, tags=tags_of(annotation), figures=own), annotation, boxes)


def _drawn(drawing: Drawing, annotation: dict[str, Any], boxes: bool) -> Drawing:
    location, points, shape = location_of(annotation), _points(annotation.get("coordinates")), annotation.get("shape")
    if location is None:
        return replace(drawing, why="a location whose XY, Z or Time is not a whole number")
    if points is None:
        return replace(drawing, why="coordinates that are not numbers")
    if shape == "point":
        x, y = points[0].tolist()
        return replace(drawing, location=location, point=(x, y))
    if boxes and shape == "rectangle" and (corners := _box_of(points)):
        return replace(drawing, location=location, box=corners)
    if shape == "rectangle" and len(points) == 2:
        points = points[[[0, 0], [1, 0], [1, 1], [0, 1]], [0, 1]]
    if shape in ("polygon", "rectangle"):
        return replace(drawing, location=location, rings=(points, *_holes(annotation)))
    quoted = shape[:40] if isinstance(shape, str) else "unknown"
    return replace(drawing, why=f"of the shape {quoted!r}; polygons, rectangles and points can be examples")


def _holes(document: Document) -> Iterator[Ring]:
    """Yield the holes of an outline, which only :func:`outline_document` writes; what is none is passed over."""
    holes = document.get("holes")
    for hole in holes if isinstance(holes, list) else ():
        points = _points(hole)
        if points is not None and len(points) >= 3:
            yield points


def _box_of(points: Ring) -> tuple[float, float, float, float] | None:
    """Return the box ``(x0, y0, x1, y1)`` of a rectangle along the image's sides; None for one that is turned."""
    extent = extent_of("rectangle", points) if np.isfinite(points).all() else None
    if extent is None or extent.area < _ALONG * shapely.box(*extent.bounds).area:
        return None
    x0, y0, x1, y1 = extent.bounds
    return x0, y0, x1, y1


def _points(value: Any) -> Ring | None:
    """Return the vertices in a list (n, 2), which need not be finite; None when one of them is no pair of numbers."""
    if isinstance(value, Vertices):
        return value.points
    if not isinstance(value, list) or not value:
        return None
    points: list[Point] = []
    for entry in value:
        x, y = (json_number(entry.get(axis)) for axis in "xy") if isinstance(entry, dict) else (None, None)
        if x is None or y is None:
            return None
        points.append((x, y))
    return np.array(points, np.float64)


@contextmanager
def write(path: Path, tags: Sequence[str]) -> Iterator[Add]:
    """Write ``annotations.json``, one polygon an object.

    Polygons are open (the first point is not repeated), coordinates are those of the detection's polygon,
    unrounded, and locations count from 0. Ids depend on the frame's name and place and on the object's number
    only, so the same detections give the same file.
    """
    tags = [printable(tag) for tag in tags]
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
        # In the file the values follow all annotations; a million objects' would fill the memory meanwhile.
        tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as values,
    ):
        file.write('{"annotations": [')
        put_annotation, put_value = a_line_each(file), a_line_each(values)

        def put(record: FrameRecord, number: int, document: Document) -> None:
            key = record.object_id(number)
            annotation = {"id": key, "_id": key, **document, "color": None}
            put_annotation(json.dumps(annotation, ensure_ascii=False, allow_nan=False))

        def add(record: FrameRecord) -> None:
            with telling(path):
                areas = areas_of([item.polygon for item in record.detections], record.frame_shape)
                for number, (item, area) in enumerate(zip(record.detections, areas, strict=True), start=1):
                    own = record.tags_of(number, tags)
                    document = polygon_document(item.polygon, record.location, own)
                    # The server and the app take and keep fields that they do not know.
                    put(record, number, document if item.kind is None else {**document, "kind": item.kind})
                    figures = {_PROPERTY_IDS[name]: value for name, value in values_of(item, area).items()}
                    put_value(f'"{record.object_id(number)}": {json.dumps(figures, allow_nan=False)}')
                for number, point in record.numbered_points():
                    own = record.tags_of(number, ())
                    put(record, number, document_of("point", [point.xy], record.location, own))

        yield add
        properties = [{"id": key, "_id": key, **property_document(name, tags)} for name, key in _PROPERTY_IDS.items()]
        file.write('],\n"annotationConnections": [],\n"annotationProperties": ')
        file.write(json.dumps(properties, ensure_ascii=False))
        file.write(',\n"annotationPropertyValues": {')
        values.seek(0)
        while chunk := values.read(1 << 20):
            file.write(chunk)
        file.write("}}\n")
