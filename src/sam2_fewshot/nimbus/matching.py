"""Annotations that are there already, and which of them is of the same object as a detection."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely import Point, Polygon, STRtree

from sam2_fewshot.annotations.nimbus import extent_of
from sam2_fewshot.annotations.record import vertices

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from sam2_fewshot.nimbus.marks import OwnerMark

SAME_OBJECT = 0.5
"""An outline and an annotation with at least this IoU are of the same object, unless one of them has a better match."""
SAME_OUTLINE = 0.9
"""And with at least this one the outline is the same, but for the rounding of another run or another GPU."""
IDENTICAL = 2.0


@dataclass(frozen=True, eq=False, slots=True)
class StoredAnnotation:
    """An annotation that is there. Millions of them fit into memory.

    Parameters
    ----------
    id
        The server's id.
    shape
        The annotation's shape.
    points
        Its vertices (n, 2) as stored.
    content
        As :func:`~sam2_fewshot.nimbus.marks.content_of`.
    mark
        Whose it is; None where it is the user's, or was edited.
    is_marked
        Whether this tool made it; if it has no mark as well, it was edited since.
    is_negative
        Whether the user has said that this is not wanted.
    is_example
        Whether it is learned from, and therefore not detected.
    is_exact
        Whether it has the tags of the job's results and no other.
    """

    id: str
    shape: str
    points: NDArray[np.float64]
    content: bytes
    mark: OwnerMark | None = None
    is_marked: bool = False
    is_negative: bool = False
    is_example: bool = False
    is_exact: bool = True

    @property
    def is_untouched(self) -> bool:
        """Whether a job made it under just the tags of this one, and nobody has changed it since."""
        return self.mark is not None and self.is_exact

    @property
    def is_of_another_tool(self) -> bool:
        """Whether a job made it under more tags, and nobody has changed it: those are the results of another tool."""
        return self.mark is not None and not self.is_exact


_Placed = tuple[StoredAnnotation, "BaseGeometry"]


@dataclass(frozen=True, eq=False, slots=True)
class Match:
    """An annotation of the same object as a detection.

    Parameters
    ----------
    known
        The annotation.
    likeness
        As :func:`alike`; below :data:`SAME_OBJECT` where the two are one object only together with others.
    pieces
        Further annotations that are parts of the detection, where the user has split it.
    """

    known: StoredAnnotation
    likeness: float
    pieces: tuple[StoredAnnotation, ...] = ()

    @property
    def is_alike(self) -> bool:
        """Whether the annotation by itself is the detection's object, and not a piece of it or several in one."""
        return self.likeness >= SAME_OBJECT

    @property
    def same_outline(self) -> bool:
        """Whether the annotation's outline is that of the detection too."""
        return self.known.shape == "polygon" and self.likeness >= SAME_OUTLINE


def match(polygons: Sequence[Polygon], known: Sequence[StoredAnnotation]) -> list[Match | None]:
    """Return for each outline the annotation of the same object, None where there is none.

    An area matches at an IoU of :data:`SAME_OBJECT`, a point when it lies in the outline. An annotation stands for one
    outline: where it is like several, as a filled ring is like the disc inside, it goes to the most alike, a point to
    the smallest, and the others look for their next. What the user has drawn or edited goes before what this tool has
    made, and that before what it has made and has further tags, as the results of another one, edited or not; then the
    most alike, then what was there first.

    What is left over may have been split or joined by the user: then the pieces together are the object.
    """
    there = [(item, extent) for item in known if (extent := extent_of(item.shape, item.points)) is not None]
    tree = STRtree([extent for _, extent in there])
    pairs = []
    for number, polygon in enumerate(polygons):
        for at in tree.query(polygon, predicate="intersects"):
            item, extent = there[int(at)]
            each = Match(item, alike(polygon, item, extent))
            if each.likeness >= SAME_OBJECT:
                pairs.append((_rank(each), polygon.area, number, each))
    found: list[Match | None] = [None] * len(polygons)
    taken: set[str] = set()
    for _, _, number, each in sorted(pairs, key=itemgetter(0, 1, 2)):
        if found[number] is None and each.known.id not in taken:
            found[number] = each
            taken.add(each.known.id)
    _split(polygons, there, found, taken)
    _join(polygons, there, found)
    return found


def _split(
    polygons: Sequence[Polygon], there: Sequence[_Placed], found: list[Match | None], taken: Collection[str]
) -> None:
    """Match outlines with what the user has split them into. One that has a match by itself gets only the pieces."""
    free = [(item, extent) for item, extent in there if item.mark is None and item.id not in taken]
    free.sort(key=lambda each: each[0].is_negative)
    extents = {item.id: extent for item, extent in there}
    partners = [extents[each.known.id] if each else None for each in found]
    for number, inside in _in_pieces(polygons, partners, [extent for _, extent in free]):
        items = tuple(free[i][0] for i in inside)
        first = Match(items[0], alike(polygons[number], *free[inside[0]]))
        found[number] = replace(found[number] or first, pieces=items)


def _join(polygons: Sequence[Polygon], there: Sequence[_Placed], found: list[Match | None]) -> None:
    """Match outlines with that into which the user has joined them."""
    loose = [number for number, each in enumerate(found) if each is None]
    partner = {each.known.id: polygons[number] for number, each in enumerate(found) if each and each.is_alike}
    drawn = [(item, extent) for item, extent in there if item.mark is None]
    wholes, partners = [extent for _, extent in drawn], [partner.get(item.id) for item, _ in drawn]
    for at, inside in _in_pieces(wholes, partners, [polygons[number] for number in loose]):
        for number in (loose[i] for i in inside):
            found[number] = Match(drawn[at][0], alike(polygons[number], *drawn[at]))


def _in_pieces(
    wholes: Sequence[BaseGeometry], partners: Sequence[BaseGeometry | None], pieces: Sequence[BaseGeometry]
) -> Iterator[tuple[int, list[int]]]:
    """Yield the wholes that are the same object as several pieces together, with these.

    A piece lies for more than half in the whole, and not on what is like the whole already, which is a piece as well:
    so a disc is no piece of the ring around it.
    """
    near = defaultdict(list)
    if wholes and pieces:
        for at, number in STRtree(pieces).query(wholes, predicate="intersects").T.tolist():
            near[at].append(number)
    for at, numbers in near.items():
        whole, partner = wholes[at], partners[at]
        left = whole if partner is None else whole.difference(partner)
        inside = [i for i in sorted(numbers) if shapely.intersection(left, pieces[i]).area > pieces[i].area / 2]
        if inside and _iou(whole, shapely.union_all([partner, *(pieces[i] for i in inside)])) >= SAME_OBJECT:
            yield at, inside


def _rank(each: Match) -> tuple[bool, int, float, str]:
    known = each.known
    maker = 2 if known.is_marked and not known.is_exact else int(known.is_untouched)
    return not known.is_negative, maker, -each.likeness, known.id


def alike(polygon: Polygon, known: StoredAnnotation, extent: BaseGeometry) -> float:
    """Return the IoU of an outline and an annotation; 1 for a point in it, :data:`IDENTICAL` for the same vertices."""
    if np.array_equal(known.points, vertices(polygon.exterior)):
        return IDENTICAL
    if isinstance(extent, Point):
        return float(polygon.covers(extent))
    return _iou(polygon, extent)


def _iou(one: BaseGeometry, other: BaseGeometry) -> float:
    shared = shapely.intersection(one, other).area
    total = one.area + other.area - shared
    return float(shared / total) if total else 0.0
