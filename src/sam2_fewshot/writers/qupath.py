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
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sam2_fewshot.records import Detection
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
    with a_file_an_image(lambda record: _one_image(folder / f"{record.stem}.geojson", tags)) as add:
        yield add


@contextmanager
def _one_image(path: Path, tags: Sequence[str]) -> Iterator[Add]:
    separator = "\n"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')

        def add(record: FrameRecord) -> None:
            nonlocal separator
            with telling(path):
                for number, item in enumerate(record.detections, start=1):
                    feature = _feature(record, number, item, [printable(tag) for tag in tags])
                    file.write(separator + json.dumps(feature, ensure_ascii=False, allow_nan=False))
                    separator = ",\n"

        yield add
        file.write("]}\n")


def _feature(record: FrameRecord, number: int, item: Detection, tags: list[str]) -> dict[str, object]:
    place = record.location
    geometry: dict[str, object] = {
        "type": "Polygon",
        "coordinates": [np.asarray(item.polygon.exterior.coords)[:, :2].tolist()],
    }
    if record.size_z * record.size_t > 1:
        # c = -1 stands for all channels in QuPath's ImagePlane.
        geometry["plane"] = {"c": -1, "z": int(place.z), "t": int(place.time)}
    measured = {
        "Similarity": figure(item.similarity),
        "Score": figure(item.score),
        "Predicted IoU": figure(item.predicted_iou),
        "Area px": item.area,
    }
    properties: dict[str, object] = {
        "objectType": "detection",
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
