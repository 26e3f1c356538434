"""Objects as their file draws them, put on their frames: many at a time, since a file may have very many."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import shapely

from sam2_fewshot.annotations.placing import FARTHEST, LONGEST, PlacedExemplar, Unusable, covers_a_pixel, reach_beyond
from sam2_fewshot.annotations.values import Figures
from sam2_fewshot.images.source import MAX_PLANE_PIXELS
from sam2_fewshot.records import Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.placing import Placer, Point
    from sam2_fewshot.records import Exemplar, InstanceMask

    Ring = NDArray[np.float64]

_AT_ONCE = 1 << 17
"""Corners that are looked at together; their arrays take some megabytes."""


@dataclass(frozen=True, eq=False, slots=True)
class Drawing:
    """An object as its file draws it: an outline, a point, a box, or the reason why it is none of them.

    Parameters
    ----------
    number
        What the file calls it.
    location
        Where it lies.
    rings
        Outline and holes, float64 (n, 2), ``(x, y)`` in image pixels, closed or open.
    point
        ``(x, y)`` in image pixels.
    box
        ``(x0, y0, x1, y1)`` in image pixels.
    why
        Why it cannot be used.
    is_part
        Whether it is the largest of several parts.
    tags, figures, instance
        As in :class:`~sam2_fewshot.annotations.placing.PlacedExemplar`.
    """

    number: object
    location: Location = field(default_factory=Location)
    rings: Sequence[Ring] = ()
    point: Point | None = None
    box: tuple[float, float, float, float] | None = None
    why: str = ""
    is_part: bool = False
    tags: tuple[str, ...] = ()
    figures: Figures = field(default_factory=Figures)
    instance: InstanceMask | None = None


def area_within(ring: Ring) -> float:
    """Return the area in a ring by the shoelace formula, 0 where its numbers make no sense."""
    x, y = ring.T
    with np.errstate(all="ignore"):  # such numbers are reported where the outline is placed
        area = abs(float(sum((x * np.roll(y, -1) - np.roll(x, -1) * y).tolist()))) / 2
    return area if math.isfinite(area) else 0.0


def place(
    drawings: Iterable[Drawing | PlacedExemplar], placer: Placer, at_once: int = _AT_ONCE
) -> Iterator[PlacedExemplar]:
    """Yield the objects that can serve as examples, in order; the others become remarks.

    Parameters
    ----------
    drawings
        The objects of a file. What is placed already is passed on.
    placer
        Puts them on their frames.
    at_once
        About so many corners are looked at together.
    """
    batch: list[Drawing | PlacedExemplar] = []
    corners = 0
    for drawing in drawings:
        batch.append(drawing)
        corners += 1 if isinstance(drawing, PlacedExemplar) else 1 + sum(map(len, drawing.rings))
        if corners >= at_once:
            yield from _placed(batch, placer)
            batch, corners = [], 0
    yield from _placed(batch, placer)


def _placed(batch: Sequence[Drawing | PlacedExemplar], placer: Placer) -> Iterator[PlacedExemplar]:
    remarks = placer.remarks
    ordinary = _ordinary([each for each in batch if isinstance(each, Drawing) and each.rings], placer)
    for each in batch:
        if isinstance(each, PlacedExemplar):
            yield each
            continue
        if each.is_part:
            remarks.note(each.number, "cut to the largest part", "several parts")
        try:
            exemplar = ordinary.get(id(each)) or _with_care(each, placer)
        except Unusable as why:
            remarks.leave_out(each.number, str(why))
            continue
        yield PlacedExemplar(exemplar, each.tags, each.figures, each.instance)


def _with_care(drawing: Drawing, placer: Placer) -> Exemplar:
    """Place one object on its own, with a look at all that may be wrong with it."""
    if drawing.why:
        raise Unusable(drawing.why)
    frame = placer.frame(drawing.location)
    if drawing.point is not None:
        return placer.point(drawing.number, frame, drawing.point)
    if drawing.box is not None:
        return placer.box(drawing.number, frame, drawing.box)
    shell, *holes = ([(x, y) for x, y in ring.tolist()] for ring in drawing.rings)
    return placer.outline(drawing.number, frame, shell, holes)


def _ordinary(drawings: Sequence[Drawing], placer: Placer) -> dict[int, Exemplar]:
    """Return examples for outlines with which nothing is wrong, by the ``id`` of their drawing.

    All are looked at together by shapely, with what :meth:`Placer.outline` asks of one; whatever is doubtful is left
    for that.
    """
    drawings = [each for each in drawings if placer.frames.has(each.location) and all(map(_is_ring, each.rings))]
    if not drawings:
        return {}
    drawings = [each for each, sensible in zip(drawings, _sensible(drawings), strict=True) if sensible]
    frames = [placer.frames.frame(each.location) for each in drawings]
    try:
        polygons = _polygons(drawings)
        fine = _fine(polygons, np.array([frame.shape for frame in frames], np.float64).reshape(-1, 2))
    except shapely.errors.ShapelyError:  # by one of them; each is placed on its own then
        return {}
    return {id(drawings[i]): placer.exemplar(drawings[i].number, frames[i], polygons[i]) for i in np.flatnonzero(fine)}


def _is_ring(ring: Ring) -> bool:
    """Tell whether shapely can make a ring, which has four corners when it is closed."""
    return len(ring) > 3 or (len(ring) == 3 and bool((ring[0] != ring[2]).any()))


def _sensible(drawings: Sequence[Drawing]) -> NDArray[np.bool_]:
    corners = np.concatenate([ring for each in drawings for ring in each.rings])
    with np.errstate(invalid="ignore"):
        good = (np.abs(corners) <= FARTHEST).all(axis=1)
    starts = [0, *accumulate(sum(map(len, each.rings)) for each in drawings)][:-1]
    found: NDArray[np.bool_] = np.logical_and.reduceat(good, starts)
    return found


def _polygons(drawings: Sequence[Drawing]) -> NDArray[np.object_]:
    """Return the polygon of each drawing, of which the first ring is the outline and the others are holes."""
    rings = [ring for each in drawings for ring in each.rings]
    if not rings:
        return np.zeros(0, object)
    of_ring = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    of_drawing = np.repeat(np.arange(len(drawings)), [len(each.rings) for each in drawings])
    lines = shapely.linearrings(np.concatenate(rings), indices=of_ring)
    found: NDArray[np.object_] = shapely.polygons(lines, indices=of_drawing)
    return found


def _fine(polygons: NDArray[np.object_], shapes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which polygons are valid, lie on frames of ``(height, width)`` pixels (N, 2), and cover a pixel there."""
    x0, y0, x1, y1 = shapely.bounds(polygons).T.reshape(4, -1)
    height, width = shapes.T
    fine = ~reach_beyond(polygons, shapes)
    fine &= (np.minimum(x1, width) - np.maximum(x0, 0)) * (np.minimum(y1, height) - np.maximum(y0, 0)) <= (
        MAX_PLANE_PIXELS
    )
    fine &= (shapely.length(polygons) <= LONGEST) & (shapely.area(polygons) > 0)
    rest = np.flatnonzero(fine)
    fine[rest] = shapely.is_valid(polygons[rest])
    rest = rest[fine[rest]]
    fine[rest] = covers_a_pixel(polygons[rest], shapes[rest])
    return fine
