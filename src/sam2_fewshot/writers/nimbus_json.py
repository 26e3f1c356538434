"""``annotations.json``: NimbusImage's export format.

What the app's importer reads was looked up in its sources (github.com/arjunrajlaboratory/NimbusImage:
``src/utils/annotationImport.ts``, ``ISerializedData`` in ``src/store/model.ts``, and the server's
``annotation_import``). Annotations are named by ``id`` in the app's own exports and by ``_id`` in the
server's, so both are given. They get new ids at import.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.writers.names import figure, hexadecimal_id, printable
from sam2_fewshot.writers.whole import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from sam2_fewshot.records import Detection, Location
    from sam2_fewshot.writers.record import Add, FrameRecord

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
