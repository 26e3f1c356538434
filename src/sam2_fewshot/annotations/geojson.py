"""GeoJSON as QuPath reads and writes it."""

from __future__ import annotations

import json
import math
import uuid
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.drawings import Drawing, area_within
from sam2_fewshot.annotations.record import a_line_each, figure
from sam2_fewshot.annotations.values import TITLES, Figures, Vertices, json_number, location_at, words
from sam2_fewshot.records import Location
from sam2_fewshot.storage.files import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sam2_fewshot.annotations.drawings import Ring
    from sam2_fewshot.annotations.named import MarkedFile
    from sam2_fewshot.annotations.placing import Point
    from sam2_fewshot.annotations.record import Add, FrameRecord
    from sam2_fewshot.records import Kind

_NO_NUMBERS = "coordinates that are not numbers"


def recognises(content: Any) -> bool:
    """Tell whether the content of a JSON file is a collection, a list or a single one of features or geometries."""
    return _features_in(content) is not None


def _features_in(content: Any) -> list[Any] | None:
    if isinstance(content, dict):
        if content.get("type") == "Feature":
            return [content]
        if _is_geometry(content):
            return [{"type": "Feature", "geometry": part} for part in _flat(content)]
        features = content.get("features")
        return features if content.get("type") == "FeatureCollection" and isinstance(features, list) else None
    if isinstance(content, list) and any(isinstance(e, dict) and e.get("type") == "Feature" for e in content):
        return content
    return None


_GEOMETRIES = (
    *("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"),
    "GeometryCollection",
)
"""https://datatracker.ietf.org/doc/html/rfc7946#section-1.4"""


def _is_geometry(content: dict[str, Any]) -> bool:
    member = "geometries" if content.get("type") == "GeometryCollection" else "coordinates"
    return content.get("type") in _GEOMETRIES and isinstance(content.get(member), list | np.ndarray | Vertices)


def _flat(geometry: dict[str, Any]) -> Iterator[Any]:
    """Yield the geometries in a collection of them, which may lie in one another; any other geometry as it is."""
    waiting: list[Any] = [geometry]
    while waiting:
        part = waiting.pop()
        inner = part.get("geometries") if isinstance(part, dict) and part.get("type") == "GeometryCollection" else None
        if isinstance(inner, list):
            waiting.extend(reversed(inner))
        else:
            yield part


def read(file: MarkedFile) -> Iterator[Drawing]:
    """Yield the features of a file."""
    image = file.target()
    features = _features_in(file.content) or ()
    # Where some have a plane, one without lies on the first.
    has_planes = any(_plane_of(feature) is not None for feature in features)
    for count, feature in enumerate(features, 1):
        file.placer.remarks.total += 1
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        if not isinstance(geometry, dict):
            yield Drawing(count, why="not a GeoJSON feature with a geometry")
            continue
        location = _location(geometry, image.xy)
        if location is None:
            yield Drawing(count, why="a plane whose z or t is not a whole number")
            continue
        if not has_planes:
            file.placer.without_plane(count, image)
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        yield from _drawn(Drawing(count, location, tags=_tags(properties), figures=_figures(properties)), geometry)


def _drawn(drawing: Drawing, geometry: dict[str, Any]) -> Iterator[Drawing]:
    """Yield a drawing, which has neither outline nor point yet, for each object of a geometry."""
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    kind = kind if isinstance(kind, str) else "unknown"
    if kind in {"Polygon", "MultiPolygon"}:
        parts = coordinates if kind == "MultiPolygon" and isinstance(coordinates, list) else [coordinates]
        polygons = [rings for rings in map(_rings, parts) if rings]
        if not polygons:
            yield replace(drawing, why=_NO_NUMBERS)
        elif len(polygons) == 1:
            yield replace(drawing, rings=polygons[0])
        else:
            yield replace(drawing, rings=max(polygons, key=lambda rings: area_within(rings[0])), is_part=True)
    elif kind in {"Point", "MultiPoint"}:
        if kind == "MultiPoint" and isinstance(coordinates, np.ndarray):
            coordinates = coordinates.tolist()
        for at in map(_point, coordinates if kind == "MultiPoint" and isinstance(coordinates, list) else [coordinates]):
            yield replace(drawing, why=_NO_NUMBERS) if at is None else replace(drawing, point=at)
    elif kind == "GeometryCollection":
        for part in _flat(geometry):
            if isinstance(part, dict) and part.get("type") != kind:
                yield from _drawn(drawing, part)
    else:
        yield replace(drawing, why=f"of the geometry {kind[:40]!r}; polygons and points can be examples")


def _rings(value: Any) -> list[Ring] | None:
    """Return a Polygon's rings, None when it is not made of lists of points."""
    if not isinstance(value, list) or not value:
        return None
    rings = []
    for ring in value:
        if isinstance(ring, np.ndarray) and ring.ndim == 2:
            rings.append(ring)
            continue
        points = [_point(point) for point in ring] if isinstance(ring, list) else [None]
        if not points or None in points:
            return None
        rings.append(np.array(points, np.float64))
    return rings


def _point(value: Any) -> Point | None:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list) or len(value) < 2:
        return None
    x, y = json_number(value[0]), json_number(value[1])
    return None if x is None or y is None else (x, y)


def _plane_of(feature: Any) -> Any:
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    return geometry.get("plane") if isinstance(geometry, dict) else None


def _location(geometry: dict[str, Any], xy: int) -> Location | None:
    plane = geometry.get("plane")
    if plane is None:
        return Location(xy)
    return location_at(xy, plane.get("z", 0), plane.get("t", 0)) if isinstance(plane, dict) else None


def _figures(properties: dict[str, Any]) -> Figures:
    """Return the kind and the measurements that this program writes.

    QuPath before 0.4 had measurements as a list of names and values.
    """
    measured = properties.get("measurements")
    if isinstance(measured, list):
        pairs = [(entry.get("name"), entry.get("value")) for entry in measured if isinstance(entry, dict)]
        measured = {name: value for name, value in pairs if isinstance(name, str)}
    known = measured if isinstance(measured, dict) else {}
    metadata = properties.get("metadata")
    kind = properties.get("kind", metadata.get("kind") if isinstance(metadata, dict) else None)
    return Figures.of(known, TITLES, kind)


def _tags(properties: dict[str, Any]) -> tuple[str, ...]:
    kind = properties.get("classification")
    if isinstance(kind, dict):
        # QuPath shows a class that is derived from others, and reads it back, as "Tumor: Positive".
        parts = words(kind.get("names"))
        names: tuple[str, ...] = (*words(kind.get("name")), ": ".join(parts), *parts)
    else:
        names = words(kind)
    return tuple(tag for tag in dict.fromkeys((*names, *words(properties.get("tags")))) if tag)


# Okabe & Ito's vermilion, which colour-blind eyes distinguish from their other colours: https://jfly.uni-koeln.de/color/
_COLOR = [213, 94, 0]


@contextmanager
def write(path: Path, tags: Sequence[str], first: FrameRecord) -> Iterator[Add]:
    """Write the GeoJSON feature collection of one image.

    An object is a QuPath *detection* of the class that the first tag names; ``properties.tags`` has all of
    them, and ``properties.kind`` tells whether it was marked or found. Coordinates are those of the detection's
    polygon, unrounded; for files of several planes, ``geometry.plane`` has Z and T counted from 0. Other programs read
    the file as plain GeoJSON.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        put = a_line_each(file)

        def add(record: FrameRecord) -> None:
            with telling(path):
                for feature in _features(record, tags):
                    put(json.dumps(feature, ensure_ascii=False, allow_nan=False))

        yield add
        file.write("]}\n")


def _features(record: FrameRecord, common: Sequence[str]) -> Iterator[dict[str, object]]:
    for number, item in enumerate(record.detections, start=1):
        rings = [item.polygon.exterior, *item.polygon.interiors]
        coordinates = [np.asarray(ring.coords)[:, :2].tolist() for ring in rings]
        area = math.nan if record.pixel_size is None else item.area * record.pixel_size.area
        measured = {
            "Similarity": figure(item.similarity),
            "Score": figure(item.score),
            "Predicted IoU": figure(item.predicted_iou),
            "Area px": item.area,
            "Area µm^2": float(f"{area:.6g}"),  # as in the table; of an electron microscope it is some 1e-8
        }
        yield _feature(record, number, "Polygon", coordinates, record.tags_of(number, common), measured, item.kind)
    for number, point in record.numbered_points():
        yield _feature(record, number, "Point", list(point.xy), record.tags_of(number, ()), {})


def _feature(
    record: FrameRecord,
    number: int,
    kind: str,
    coordinates: list[object],
    tags: list[str],
    measured: Mapping[str, float | int | None],
    known_as: Kind | None = None,
) -> dict[str, object]:
    place = record.location
    geometry: dict[str, object] = {"type": kind, "coordinates": coordinates}
    if record.is_stack:
        # c = -1 stands for all channels in QuPath's ImagePlane.
        geometry["plane"] = {"c": -1, "z": int(place.z), "t": int(place.time)}
    properties: dict[str, object] = {
        # QuPath knows points as annotations only.
        "objectType": "detection" if kind == "Polygon" else "annotation",
        "tags": tags,
        # QuPath cannot read a null as a measurement, and JSON has no other numbers that are not finite.
        "measurements": {name: value for name, value in measured.items() if value is not None and math.isfinite(value)},
    }
    if known_as is not None:
        # QuPath shows its metadata in tables (from 0.5 on) and exports it again; other programs read plain properties.
        properties |= {"kind": known_as, "metadata": {"kind": known_as}}
    if tags:
        properties["classification"] = {"name": tags[0], "color": _COLOR}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, record.object_id(number))),
        "geometry": geometry,
        "properties": properties,
    }
