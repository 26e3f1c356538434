"""What a dataset holds already under the tags of a job, so that nothing is there twice."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely import Point, Polygon, STRtree

from sam2_fewshot.annotations.nimbus import extent_of, location_of, points_of, tags_of
from sam2_fewshot.annotations.record import vertices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from sam2_fewshot.annotations.nimbus import Document
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.records import Location


def list_annotations(
    server: Server, dataset_id: str, tags: Sequence[str] = (), after: str | None = None
) -> Iterator[Document]:
    """Return the annotations of a dataset that have all of some tags, in the order of their ids.

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
    query = {"datasetId": dataset_id}
    if tags:
        query["tags"] = json.dumps(list(tags))
    return server.pages("reading the annotations", "upenn_annotation", query, after)


SAME_OBJECT = 0.5
"""Two outlines with at least this IoU are of the same object; above it, an object can have only one such match."""
SAME_OUTLINE = 0.9
"""And with at least this one the outline is the same, but for the rounding of another run or another GPU."""
IDENTICAL = 2.0
_SLACK = 2
"""Seconds by which ids of several server processes may be out of order: an id begins with the second it was made."""


@dataclass(frozen=True, eq=False, slots=True)
class Known:
    """An annotation that is there. Millions of them fit into memory.

    Parameters
    ----------
    id
        The server's id.
    shape
        The annotation's shape.
    points
        Its vertices (n, 2) as stored.
    own
        Whether this job has made it.
    """

    id: str
    shape: str
    points: NDArray[np.float64]
    own: bool


@dataclass(frozen=True, eq=False, slots=True)
class Match:
    """An annotation of the same object as a detection.

    Parameters
    ----------
    known
        The annotation.
    likeness
        As :func:`alike`.
    """

    known: Known
    likeness: float

    @property
    def same_outline(self) -> bool:
        """Whether the annotation's outline is that of the detection too."""
        return self.known.shape == "polygon" and self.likeness >= SAME_OUTLINE


class Existing:
    """The annotations with the tags of a job's results, by frame, kept up to date.

    Parameters
    ----------
    server
        The connection.
    dataset_id
        The dataset's folder.
    tags
        The tags; an annotation with all of them counts. Without any, those without tags count.
    """

    def __init__(self, server: Server, dataset_id: str, tags: Sequence[str]) -> None:
        self._server = server
        self._dataset_id = dataset_id
        self._tags = list(tags)
        self._known: dict[Location, dict[str, Known]] = defaultdict(dict)
        self._ids: set[str] = set()
        self._own: set[str] = set()
        self._arrived: set[str] = set()
        self._newest = ""
        self._counted = 0

    def load(self) -> None:
        """Read what is there when the job begins.

        Raises
        ------
        ServerError
            If the server does not tell.
        """
        self._counted = self._count()
        self._read(None)

    def update(self, force: bool = False) -> list[Known]:
        """Read what others have added since; one small request as long as nobody has.

        Parameters
        ----------
        force
            Look even if the number of annotations is as expected.

        Returns
        -------
        list of Known
            What is new.
        """
        count = self._count()
        # Another job that takes out its doubles may have added as many as it deleted.
        if count == self._counted and not force and not self._arrived:
            return []
        self._counted = count
        new = self._read(_before(self._newest))
        self._arrived.update(known.id for known in new)
        return new

    def on(self, location: Location) -> list[Known]:
        """Return what is known to be on a frame."""
        return list(self._known[location].values())

    def rivals(self) -> Iterator[tuple[Known, Known]]:
        """Yield pairs of an own annotation and one of the same object that somebody else added during this job."""
        for known in self._known.values():
            own = [item for item in known.values() if item.own]
            others = [item for item in known.values() if not item.own and item.id in self._arrived]
            if own and others:
                outlines = [Polygon(item.points) for item in own]
                for item, other in zip(own, match(outlines, others), strict=True):
                    if other is not None:
                        yield item, other.known

    def add_own(self, annotation_id: str, document: Document) -> None:
        """Take note of an annotation that this job has made."""
        self._own.add(annotation_id)
        if annotation_id not in self._ids:
            self._counted += 1
        self._note(annotation_id, document)
        self._newest = max(self._newest, annotation_id)

    def forget(self, annotation_id: str) -> None:
        """Take note that an annotation was deleted."""
        self._counted -= annotation_id in self._ids
        self._ids.discard(annotation_id)
        for known in self._known.values():
            known.pop(annotation_id, None)

    def _count(self) -> int:
        query = {"datasetId": self._dataset_id}
        if self._tags:
            query["tags"] = json.dumps(self._tags)
        return int(self._server.get("counting the annotations", "upenn_annotation/count", query)["count"])

    def _read(self, after: str | None) -> list[Known]:
        new = []
        for document in list_annotations(self._server, self._dataset_id, self._tags, after):
            key = str(document["_id"])
            self._newest = max(self._newest, key)
            if key not in self._ids and (self._tags or not tags_of(document)):
                known = self._note(key, document)
                if known is not None:
                    new.append(known)
        return new

    def _note(self, key: str, document: Document) -> Known | None:
        self._ids.add(key)
        location, points = location_of(document), points_of(document)
        if location is None or not len(points):
            return None
        known = Known(key, str(document.get("shape")), points, key in self._own)
        self._known[location][key] = known
        return known


def match(polygons: Sequence[Polygon], known: Sequence[Known]) -> list[Match | None]:
    """Return for each outline the annotation of the same object, None where there is none.

    An area matches at an IoU of :data:`SAME_OBJECT`, a point when it lies in the outline.
    """
    there = [(item, extent) for item in known if (extent := extent_of(item.shape, item.points)) is not None]
    if not there:
        return [None] * len(polygons)
    tree = STRtree([extent for _, extent in there])
    found: list[Match | None] = []
    for polygon in polygons:
        near = [there[int(i)] for i in tree.query(polygon, predicate="intersects")]
        matches = [Match(item, alike(polygon, item, extent)) for item, extent in near]
        best = max(matches, key=lambda each: (each.likeness, each.known.id), default=None)
        found.append(best if best is not None and best.likeness >= SAME_OBJECT else None)
    return found


def alike(polygon: Polygon, known: Known, extent: BaseGeometry) -> float:
    """Return the IoU of an outline and an annotation; 1 for a point in it, :data:`IDENTICAL` for the same vertices."""
    if np.array_equal(known.points, vertices(polygon.exterior)):
        return IDENTICAL
    if isinstance(extent, Point):
        return float(polygon.covers(extent))
    shared = shapely.intersection(polygon, extent).area
    total = polygon.area + extent.area - shared
    return float(shared / total) if total else 0.0


def _before(newest: str) -> str | None:
    """Return an id a little smaller than the newest one, to read from."""
    try:
        seconds = int(newest[:8], 16) - _SLACK
    except ValueError:
        return None
    return f"{max(seconds, 0):08x}" + "0" * 16
