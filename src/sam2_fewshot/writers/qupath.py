"""``geojson/STEM.geojson``: one file an image, as QuPath reads and writes them.

The form (``objectType``, ``classification``, ``measurements`` as an object, ``geometry.plane``) is that of
QuPath 0.4 and later: ``QuPathTypeAdapters``, ``ROITypeAdapters`` and ``GsonTools`` in
github.com/qupath/qupath.
"""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.writers.names import figure, hexadecimal_id, printable
from sam2_fewshot.writers.per_image import a_file_an_image
from sam2_fewshot.writers.whole import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sam2_fewshot.writers.record import Add, FrameRecord

# Okabe & Ito's vermilion, told apart from the others by colour-blind eyes: https://jfly.uni-koeln.de/color/
_COLOR = [213, 94, 0]


@contextmanager
def qupath_files(folder: Path, tags: Sequence[str]) -> Iterator[Add]:
    """Write one GeoJSON feature collection an image; an image's frames must follow one another.

    An object is a QuPath *detection* of the class that the first tag names; ``properties.tags`` has all of
    them. Coordinates are those of the detection's polygon, unrounded; for files of several planes,
    ``geometry.plane`` has Z and T counted from 0. Other programs read the file as plain GeoJSON.

    Parameters
    ----------
    folder
        Where to put the files.
    tags
        Tags of every object.

    Yields
    ------
    Add
        Takes the frames.
    """
    with a_file_an_image(lambda record: qupath_file(folder / f"{record.stem}.geojson", tags)) as add:
        yield add


@contextmanager
def qupath_file(path: Path, tags: Sequence[str]) -> Iterator[Add]:
    """Write the feature collection of one image, as :func:`qupath_files` does."""
    separator = "\n"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')

        def add(record: FrameRecord) -> None:
            nonlocal separator
            with telling(path):
                for feature in _features(record, tags):
                    file.write(separator + json.dumps(feature, ensure_ascii=False, allow_nan=False))
                    separator = ",\n"

        yield add
        file.write("]}\n")


def _features(record: FrameRecord, common: Sequence[str]) -> Iterator[dict[str, object]]:
    for number, item in enumerate(record.detections, start=1):
        rings = [item.polygon.exterior, *item.polygon.interiors]
        coordinates = [np.asarray(ring.coords)[:, :2].tolist() for ring in rings]
        measured = {
            "Similarity": figure(item.similarity),
            "Score": figure(item.score),
            "Predicted IoU": figure(item.predicted_iou),
            "Area px": item.area,
            "Area µm^2": None if record.pixel_size is None else figure(item.area * record.pixel_size.area),
        }
        yield _feature(record, number, "Polygon", coordinates, record.tags_of(number, common), measured)
    for number, point in enumerate(record.points, start=len(record.detections) + 1):
        yield _feature(record, number, "Point", list(point.xy), point.tags, {})


def _feature(
    record: FrameRecord,
    number: int,
    kind: str,
    coordinates: list[object],
    tags: Sequence[str],
    measured: Mapping[str, float | int | None],
) -> dict[str, object]:
    place = record.location
    geometry: dict[str, object] = {"type": kind, "coordinates": coordinates}
    if record.size_z * record.size_t > 1:
        # c = -1 stands for all channels in QuPath's ImagePlane.
        geometry["plane"] = {"c": -1, "z": int(place.z), "t": int(place.time)}
    tags = [printable(tag) for tag in tags]
    properties: dict[str, object] = {
        # QuPath knows points as annotations only.
        "objectType": "detection" if kind == "Polygon" else "annotation",
        "tags": tags,
        # QuPath cannot read a null as a measurement.
        "measurements": {name: value for name, value in measured.items() if value is not None},
    }
    if tags:
        properties["classification"] = {"name": tags[0], "color": _COLOR}
    key = hexadecimal_id(record.name, place.xy, place.z, place.time, number)
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, key)),
        "geometry": geometry,
        "properties": properties,
    }
