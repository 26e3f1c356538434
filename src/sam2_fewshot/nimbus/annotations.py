"""Annotations as the server stores them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from shapely import Point, Polygon, box

from sam2_fewshot.geometry.outlines import valid_polygon
from sam2_fewshot.readers.json_file import index, number, words
from sam2_fewshot.records import Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from sam2_fewshot.nimbus.server import Server

PAGE = 5000
"""Annotations asked for at a time: a few megabytes."""

Document = dict[str, Any]


def list_annotations(
    server: Server, dataset_id: str, tags: Sequence[str] = (), after: str | None = None
) -> Iterator[Document]:
    """Yield the annotations of a dataset that have all of some tags, in the order of their ids.

    Parameters
    ----------
    server
        The connection.
    dataset_id
        The dataset's folder.
    tags
        All of them; none for every annotation.
    after
        Only those whose id is larger.

    Raises
    ------
    ServerError
        If the server does not tell.
    """
    query: dict[str, Any] = {"datasetId": dataset_id, "limit": PAGE, "sort": "_id", "sortdir": 1}
    if tags:
        query["tags"] = json.dumps(list(tags))
    while True:
        if after:
            query["afterId"] = after
        page = server.get("reading the annotations", "upenn_annotation", query)
        yield from page
        if len(page) < PAGE:
            return
        after = str(page[-1]["_id"])


def location_of(document: Document) -> Location | None:
    """Return where an annotation lies, None when its location is no set of whole numbers. What is missing is 0."""
    value = document.get("location")
    if not isinstance(value, dict):
        return Location() if value is None else None
    xy, z, time = (index(value.get(key, 0)) for key in ("XY", "Z", "Time"))
    return None if xy is None or z is None or time is None else Location(xy, z, time)


def tags_of(document: Document) -> tuple[str, ...]:
    """Return an annotation's tags."""
    return words(document.get("tags"))


def geometry(shape: object, points: NDArray[np.float64]) -> BaseGeometry | None:
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
        return Point(points[0])
    if shape == "rectangle" and len(points) == 2:
        outline: Polygon = box(*points.min(axis=0), *points.max(axis=0))
        return outline
    if shape in ("polygon", "rectangle") and len(points) >= 3:
        return valid_polygon(Polygon(points))
    return None


def points_of(document: Document) -> NDArray[np.float64]:
    """Return an annotation's vertices ``(x, y)`` (n, 2); none when one of them is no pair of finite numbers."""
    found = []
    for entry in document.get("coordinates") or ():
        x, y = (number(entry.get(axis)) for axis in "xy") if isinstance(entry, dict) else (None, None)
        if x is None or y is None:
            return np.zeros((0, 2))
        found.append((x, y))
    points = np.array(found, np.float64).reshape(-1, 2)
    return points if np.isfinite(points).all() else points[:0]


def polygon_document(
    polygon: Polygon, location: Location, tags: Sequence[str], channel: int, dataset_id: str
) -> Document:
    """Return an annotation to send: an open polygon, integers as integers, ``tags`` always a list."""
    return {
        "shape": "polygon",
        "coordinates": [{"x": float(x), "y": float(y)} for x, y in np.asarray(polygon.exterior.coords)[:-1, :2]],
        "tags": list(tags),
        "channel": int(channel),
        "location": {"XY": int(location.xy), "Z": int(location.z), "Time": int(location.time)},
        "datasetId": dataset_id,
    }
