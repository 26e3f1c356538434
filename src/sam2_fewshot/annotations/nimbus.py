"""NimbusImage's annotations: the document, and the JSON export."""

from __future__ import annotations

import json
import math
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.placing import Figures, PlacedExemplar
from sam2_fewshot.annotations.values import as_number, figure, hexadecimal_id, index, printable, words
from sam2_fewshot.records import Location
from sam2_fewshot.storage.files import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from sam2_fewshot.annotations.placing import Placer, Point
    from sam2_fewshot.annotations.record import Add, FrameRecord
    from sam2_fewshot.records import Detection, Exemplar


def annotations_of(content: Any) -> list[Any] | None:
    """Return the annotations in an export, or in a plain list of them; None when it is neither."""
    if isinstance(content, dict):
        # COCO has "annotations" too, beside "images".
        found = content.get("annotations")
        return found if isinstance(found, list) and "images" not in content else None
    if isinstance(content, list) and any(isinstance(e, dict) and "shape" in e and "coordinates" in e for e in content):
        return content
    return None


def figures_of(content: Any) -> dict[str, Figures]:
    """Return the figures in an export, by the annotations' ids: the values of the properties with their names."""
    if not isinstance(content, dict):
        return {}
    properties, values = content.get("annotationProperties"), content.get("annotationPropertyValues")
    if not isinstance(properties, list) or not isinstance(values, dict):
        return {}
    keys: dict[object, str] = {}
    for entry in properties:
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            key = entry.get("id", entry.get("_id"))
            if isinstance(key, str):
                keys[entry["name"]] = key
    wanted = [keys.get(name, "") for name in ("Score", "Similarity", "Predicted IoU")]
    found: dict[str, Figures] = {}
    for annotation, of_it in values.items():
        if isinstance(of_it, dict):
            numbers = [as_number(of_it.get(key)) for key in wanted]
            found[annotation] = Figures(*(math.nan if value is None else value for value in numbers))
    return found


def read_annotations(
    annotations: list[Any], placer: Placer, figures: dict[str, Figures] | None = None
) -> Iterator[PlacedExemplar]:
    """Yield the annotations that can serve as examples; the others become remarks.

    Parameters
    ----------
    annotations
        As :func:`annotations_of` gives them.
    placer
        Puts them on their frames.
    figures
        As :func:`figures_of` gives them.
    """
    known = figures or {}
    for count, annotation in enumerate(annotations, 1):
        placer.remarks.total += 1
        if not isinstance(annotation, dict):
            placer.remarks.leave_out(count, "not an annotation")
            continue
        exemplar = _exemplar(count, annotation, placer)
        if exemplar is not None:
            key = annotation.get("id", annotation.get("_id"))
            told = known.get(key, Figures()) if isinstance(key, str) else Figures()
            yield PlacedExemplar(exemplar, words(annotation.get("tags")), told)


def _exemplar(count: int, annotation: dict[str, Any], placer: Placer) -> Exemplar | None:
    location = _location(annotation.get("location"))
    points = _points(annotation.get("coordinates"))
    shape = annotation.get("shape")
    if location is None:
        placer.remarks.leave_out(count, "a location whose XY, Z or Time is not a whole number")
    elif points is None:
        placer.remarks.leave_out(count, "coordinates that are not numbers")
    elif shape == "point":
        return placer.point(count, location, points[0])
    elif shape == "polygon":
        return placer.outline(count, location, points)
    elif shape == "rectangle":
        if len(points) == 2:
            (x0, y0), (x1, y1) = points
            points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        return placer.outline(count, location, points)
    else:
        shown = shape if isinstance(shape, str) else "unknown"
        placer.remarks.leave_out(count, f"of the shape {shown[:40]!r}; polygons, rectangles and points can be examples")
    return None


def _location(value: Any) -> Location | None:
    if value is None:
        return Location()
    if not isinstance(value, dict):
        return None
    parts = [index(value.get(key, 0)) for key in ("XY", "Z", "Time")]
    xy, z, time = parts
    return None if xy is None or z is None or time is None else Location(xy, z, time)


def _points(value: Any) -> list[Point] | None:
    if not isinstance(value, list) or not value:
        return None
    points: list[Point] = []
    for entry in value:
        x, y = (as_number(entry.get(axis)) for axis in "xy") if isinstance(entry, dict) else (None, None)
        if x is None or y is None:
            return None
        points.append((x, y))
    return points


PROPERTIES = ("Similarity", "Score", "Predicted IoU", "Area")
"""Names of the properties that every annotation has a value of; the area is in pixels."""

_PROPERTY_IDS = tuple(hexadecimal_id("property", name) for name in PROPERTIES)


@contextmanager
def nimbus_json(path: Path, tags: Sequence[str], channel: int = 0) -> Iterator[Add]:
    """Write ``annotations.json``, one polygon an object.

    Polygons are open (the first point is not repeated), coordinates are those of the detection's polygon,
    unrounded, and locations count from 0. Ids depend on the frame's name and place and on the object's number
    only, so the same finds give the same file.

    Parameters
    ----------
    path
        The file to write.
    tags
        Tags that every annotation gets.
    channel
        0-based channel that the annotations belong to.

    Yields
    ------
    Add
        Takes the frames.
    """
    tags = [printable(tag) for tag in tags]
    separator = values_separator = "\n"
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
        # In the file the values follow all annotations; a million objects' would fill the memory meanwhile.
        tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as values,
    ):
        file.write('{"annotations": [')

        def add(record: FrameRecord) -> None:
            nonlocal separator, values_separator
            with telling(path):
                for number, item in enumerate(record.detections, start=1):
                    place = record.location
                    name = hexadecimal_id(record.name, place.xy, place.z, place.time, number)
                    points = np.asarray(item.polygon.exterior.coords)[:-1, :2].tolist()
                    own = [printable(tag) for tag in record.tags_of(number, tags)]
                    annotation = _annotation(name, "polygon", points, place, own, int(channel))
                    file.write(separator + json.dumps(annotation, ensure_ascii=False, allow_nan=False))
                    values.write(f'{values_separator}"{name}": {json.dumps(_values(item), allow_nan=False)}')
                    separator = values_separator = ",\n"
                for number, point in enumerate(record.points, start=len(record.detections) + 1):
                    place = record.location
                    name = hexadecimal_id(record.name, place.xy, place.z, place.time, number)
                    own = [printable(tag) for tag in point.tags]
                    annotation = _annotation(name, "point", [point.xy], place, own, int(channel))
                    file.write(separator + json.dumps(annotation, ensure_ascii=False, allow_nan=False))
                    separator = ",\n"

        yield add
        file.write('],\n"annotationConnections": [],\n"annotationProperties": ')
        file.write(json.dumps(_properties(tags), ensure_ascii=False))
        file.write(',\n"annotationPropertyValues": {')
        values.seek(0)
        while chunk := values.read(1 << 20):
            file.write(chunk)
        file.write("}}\n")


def _annotation(
    name: str, shape: str, points: Iterable[Sequence[float]], place: Location, tags: Sequence[str], channel: int
) -> dict[str, object]:
    return {
        "id": name,
        "_id": name,
        "shape": shape,
        "coordinates": [{"x": x, "y": y} for x, y in points],
        "tags": tags,
        "channel": channel,
        "location": {"XY": int(place.xy), "Z": int(place.z), "Time": int(place.time)},
        "color": None,
    }


def _values(item: Detection) -> dict[str, float | int | None]:
    figures = figure(item.similarity), figure(item.score), figure(item.predicted_iou), item.area
    return dict(zip(_PROPERTY_IDS, figures, strict=True))


def _properties(tags: Sequence[str]) -> list[dict[str, object]]:
    return [
        {
            "id": property_id,
            "_id": property_id,
            "name": name,
            # The server wants an image name; none computes these values again.
            "image": "properties/none:latest",
            "shape": "polygon",
            "tags": {"tags": tags, "exclusive": False},
            "workerInterface": {},
        }
        for property_id, name in zip(_PROPERTY_IDS, PROPERTIES, strict=True)
    ]
