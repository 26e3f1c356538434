"""Objects as their file draws them, put on their frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.annotations.placing import PlacedExemplar, Unusable
from sam2_fewshot.annotations.values import Figures
from sam2_fewshot.records import Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.placing import Placer, Point
    from sam2_fewshot.records import Exemplar, InstanceMask

    Ring = NDArray[np.float64]


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


def place(drawings: Iterable[Drawing | PlacedExemplar], placer: Placer) -> Iterator[PlacedExemplar]:
    """Yield the objects that can serve as examples, in order; the others become remarks.

    Parameters
    ----------
    drawings
        The objects of a file. What is placed already is passed on.
    placer
        Puts them on their frames.
    """
    remarks = placer.remarks
    for each in drawings:
        if isinstance(each, PlacedExemplar):
            yield each
            continue
        if each.is_part:
            remarks.note(each.number, "cut to the largest part", "several parts")
        try:
            exemplar = _exemplar(each, placer)
        except Unusable as why:
            remarks.leave_out(each.number, str(why))
            continue
        yield PlacedExemplar(exemplar, each.tags, each.figures, each.instance)


def _exemplar(drawing: Drawing, placer: Placer) -> Exemplar:
    if drawing.why:
        raise Unusable(drawing.why)
    frame = placer.frame(drawing.location)
    if drawing.point is not None:
        return placer.point(drawing.number, frame, drawing.point)
    if drawing.box is not None:
        return placer.box(drawing.number, frame, drawing.box)
    return placer.outline(drawing.number, frame, drawing.rings)
