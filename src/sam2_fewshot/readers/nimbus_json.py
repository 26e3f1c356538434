"""Examples from NimbusImage's JSON export. Each annotation says on which XY, Z and Time it lies, from 0."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sam2_fewshot.readers.json_file import index, number, words
from sam2_fewshot.readers.placing import Figures, PlacedExemplar
from sam2_fewshot.records import Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sam2_fewshot.readers.placing import Placer, Point
    from sam2_fewshot.records import Exemplar


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
            numbers = [number(of_it.get(key)) for key in wanted]
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
        x, y = (number(entry.get(axis)) for axis in "xy") if isinstance(entry, dict) else (None, None)
        if x is None or y is None:
            return None
        points.append((x, y))
    return points
