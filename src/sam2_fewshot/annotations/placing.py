"""From a file of marked objects to exemplars on frames; what is wrong with an object is reported, in few sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import shapely
from shapely import Polygon, box

from sam2_fewshot.annotations.named import UNKNOWN
from sam2_fewshot.annotations.values import Figures
from sam2_fewshot.errors import listed
from sam2_fewshot.geometry.outlines import largest_part, mask_to_polygon, polygon_to_mask, valid_polygon
from sam2_fewshot.geometry.overlap import intersect
from sam2_fewshot.images.source import MAX_PLANE_PIXELS
from sam2_fewshot.records import Exemplar, whole_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from sam2_fewshot.images.image_file import ImageFile
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import FrameReader, InstanceMask, Location

_FARTHEST = 1e9
"""Coordinates in pixels that are farther from 0 make no sense."""
_LISTED = 5
_LEFT_OUT = "left out"
_MOST_CROSSED = 100
"""Corners of an outline that is mended corner by corner; longer ones are mended by their pixels, because the time goes
with more than the third power (100 random corners take 0.4 s, 300 take 11 s)."""
_LONGEST = 1e8
"""Length in pixels of an outline that is drawn; a circle around a whole slide of 100,000 px has 3e5."""

Point = tuple[float, float]


@dataclass(frozen=True, eq=False, slots=True)
class PlacedExemplar:
    """An example on its frame, with the tags that the user gave it.

    Parameters
    ----------
    exemplar
        Its ``image`` is the :class:`~sam2_fewshot.records.FrameReader` it lies on.
    tags
        Tags or classes, in the file's order; none when the format has none.
    figures
        What the file says about how sure the program was of it.
    instance
        Its exact mask, where the file gives both an outline and a mask.
    number
        Its value in the label image that it is from; else None.
    """

    exemplar: Exemplar
    tags: tuple[str, ...]
    figures: Figures = field(default_factory=Figures)
    instance: InstanceMask | None = None
    number: int | None = None

    @property
    def frame(self) -> FrameReader:
        """The frame it lies on."""
        return self.exemplar.image  # type: ignore[return-value]

    @property
    def location(self) -> Location:
        """Position of that frame in the dataset."""
        return self.frame.location


@dataclass(eq=False, slots=True)
class Remarks:
    """Collects what is to be reported about the objects of one file, so that many alike make one sentence.

    Parameters
    ----------
    file
        Name of the file.
    progress
        Takes the sentences.
    """

    file: str
    progress: Progress
    total: int = 0
    _groups: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def label(self, number: object) -> str:
        """Return what to call an object where the others are of other files."""
        return f"{self.file}, object {number}"

    def leave_out(self, number: object, why: str) -> None:
        """Note that an object is not used."""
        self.note(number, _LEFT_OUT, why)

    def note(self, number: object, done: str, why: str) -> None:
        """Note what was done with an object, and why."""
        self._groups.setdefault((done, why), []).append(str(number))

    def warn(self, sentence: str) -> None:
        """Report something about the whole file, at once."""
        self.progress.warn(sentence)

    def left_out(self) -> str:
        """Return in a few words why objects were left out, for an error's message."""
        reasons = [
            f"{why} ({'object ' + who[0] if len(who) == 1 else f'{len(who)} objects'})"
            for (done, why), who in self._groups.items()
            if done == _LEFT_OUT
        ]
        return listed(reasons, _LISTED, "; ")

    def report(self) -> None:
        """Report the remarks, one sentence for each kind; of what is left out nothing else is said."""
        out = {number for (done, _), who in self._groups.items() if done == _LEFT_OUT for number in who}
        for (done, why), noted in self._groups.items():
            who = noted if done == _LEFT_OUT else [number for number in noted if number not in out]
            if not who:
                continue
            if len(who) == 1:
                self.progress.warn(f"{self.file}: object {who[0]} was {done}: {why}.")
                continue
            between = "; " if any(", " in name for name in who[:_LISTED]) else ", "
            some = listed(who, _LISTED, between)
            self.progress.warn(f"{self.file}: {len(who)} of {self.total} objects were {done} (objects {some}): {why}.")


class Unusable(Exception):
    """An object cannot serve as an example; the message is the reason that follows *object 3 was left out:*."""


class Frames(Protocol):
    """The frames that objects are put on: those of the images that were given, or of a dataset."""

    def has(self, location: Location) -> bool:
        """Tell whether there is a frame at a location."""
        ...

    def frame(self, location: Location) -> FrameReader:
        """Return the frame at a location where there is one; the same object each time."""
        ...

    def absence(self, location: Location) -> str:
        """Return where an object lies, for the remark that leaves it out because there is no frame."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Placer:
    """Puts objects of one file on frames.

    Parameters
    ----------
    frames
        On which they may lie.
    remarks
        Takes what is wrong with objects.
    boxes
        Whether an outline that is a rectangle along the image's sides stands for whatever is in it.
    """

    frames: Frames
    remarks: Remarks
    boxes: bool = False

    def frame(self, location: Location) -> FrameReader:
        """Return the frame at a location; raises :class:`Unusable` where there is none."""
        if not self.frames.has(location):
            raise Unusable(self.frames.absence(location))
        return self.frames.frame(location)

    def without_plane(self, number: object, image: ImageFile) -> None:
        """Note that an object goes to the first frame of its image, where that has several and the file says none."""
        if image.is_stack and UNKNOWN not in (image.size_z, image.size_t):
            self.remarks.note(number, f"put on the first frame of {image.name}", "no slice or time point is given")

    def outline(self, number: object, frame: FrameReader, rings: Sequence[NDArray[np.float64]]) -> Exemplar:
        """Return an exemplar for an outline.

        Parameters
        ----------
        number
            What the file calls the object.
        frame
            That it lies on.
        rings
            Outline and holes, float64 (n, 2), ``(x, y)`` in image pixels, closed or open.

        Raises
        ------
        Unusable
            If it covers no pixel of the frame, or makes no sense.
        """
        height, width = frame.shape
        shell, *holes = rings
        rings = [shell, *(hole for hole in holes if _corners(hole) >= 3)]
        _check_numbers(np.concatenate(rings))
        if _corners(shell) < 3:
            raise Unusable("an outline of fewer than 3 points")
        given = Polygon(rings[0], rings[1:])
        _check_size(given, width, height)
        polygon = self._mend(number, given, frame.shape)
        if polygon is None:
            raise Unusable("an outline without area")
        x0, y0, x1, y1 = polygon.bounds
        beyond = x0 < -1 or y0 < -1 or x1 > width + 1 or y1 > height + 1
        if beyond or not _covers_a_pixel(polygon, frame.shape):
            inside = valid_polygon(shapely.intersection(polygon, box(0, 0, width, height)))
            if inside is None:
                raise Unusable(_outside(frame))
            if beyond:
                self.remarks.note(number, "cut at the border", f"partly outside its image, {frame.name}")
                polygon = inside
            if not polygon_to_mask(polygon, frame.shape).area:
                raise Unusable("so small that it covers no pixel")
        return self._marked(number, frame, polygon)

    def _marked(self, number: object, frame: FrameReader, polygon: Polygon) -> Exemplar:
        label = self.remarks.label(number)
        if self.boxes and _is_box(polygon):
            return Exemplar(image=frame, box=polygon.bounds, label=label)
        return Exemplar(image=frame, polygon=polygon, label=label)

    def box(self, number: object, frame: FrameReader, corners: tuple[float, float, float, float]) -> Exemplar:
        """Return an exemplar for a box ``(x0, y0, x1, y1)`` in image pixels; raises as :meth:`outline` does."""
        (height, width), (x0, y0, x1, y1) = frame.shape, corners
        _check_numbers(corners)
        if x1 <= x0 or y1 <= y0:
            raise Unusable("a box without area")
        inside = intersect(corners, whole_box(frame.shape))
        if inside is None:
            raise Unusable(_outside(frame))
        if x0 < -1 or y0 < -1 or x1 > width + 1 or y1 > height + 1:
            self.remarks.note(number, "cut at the border", f"partly outside its image, {frame.name}")
        return Exemplar(image=frame, box=inside, label=self.remarks.label(number))

    def point(self, number: object, frame: FrameReader, point: Point) -> Exemplar:
        """Return an exemplar for a point ``(x, y)`` in image pixels; raises as :meth:`outline` does."""
        height, width = frame.shape
        _check_numbers(point)
        if not (0 <= point[0] < width and 0 <= point[1] < height):
            raise Unusable(_outside(frame))
        return Exemplar(image=frame, point=point, label=self.remarks.label(number))

    def _mend(self, number: object, polygon: Polygon, frame_shape: tuple[int, int]) -> Polygon | None:
        try:
            if polygon.is_valid:
                return polygon if polygon.area > 0 else None
            if shapely.get_num_coordinates(polygon) <= _MOST_CROSSED:
                mended = valid_polygon(polygon)
            else:
                region = polygon_to_mask(polygon, frame_shape)
                mended = mask_to_polygon(largest_part(region)) if region.area else None
        except shapely.errors.ShapelyError:
            return None
        if mended is not None:
            self.remarks.note(number, "mended", "the outline crosses or touches itself; its largest part is used")
        return mended


def _corners(ring: NDArray[np.float64]) -> int:
    """Count the points of a ring that differ, up to three at least."""
    few = len(set(map(tuple, ring[:64].tolist())))
    return few if few >= 3 else len(np.unique(ring, axis=0))


def _covers_a_pixel(polygon: Polygon, frame_shape: tuple[int, int]) -> bool:
    """Tell whether it is clear at a glance that a valid polygon covers a pixel; otherwise its mask must be drawn.

    That is where the pixel in its middle has its centre inside.
    """
    if polygon.interiors:  # the centre may lie so near to a hole that it belongs to that
        return False
    with np.errstate(all="ignore"):  # the slope of a sliver may be too large a number
        middle = shapely.point_on_surface(polygon)
    x, y = np.floor(shapely.get_x(middle)) + 0.5, np.floor(shapely.get_y(middle)) + 0.5
    return bool(0 < x < frame_shape[1] and 0 < y < frame_shape[0] and shapely.contains_xy(polygon, x, y))


def _is_box(polygon: Polygon) -> bool:
    """Tell whether a polygon is a rectangle along the image's sides."""
    return len(polygon.exterior.coords) == 5 and not polygon.interiors and bool(polygon.equals(box(*polygon.bounds)))


def _check_size(polygon: Polygon, width: int, height: int) -> None:
    """Refuse an outline that could not be drawn in a sensible time."""
    x0, y0, x1, y1 = polygon.bounds
    wide, high = min(x1, width) - max(x0, 0), min(y1, height) - max(y0, 0)  # below 0 where it lies outside
    if min(wide, high) > 0 and wide * high > MAX_PLANE_PIXELS:
        raise Unusable(f"larger than {MAX_PLANE_PIXELS:,} px")
    if polygon.length > _LONGEST:
        raise Unusable("an outline that goes to and fro too often")


def _check_numbers(values: ArrayLike) -> None:
    """Refuse coordinates that make no sense anywhere."""
    given = np.ravel(values)
    wrong = given[~(np.abs(given) <= _FARTHEST)]
    if wrong.size:
        what = "far outside any image" if math.isfinite(wrong[0]) else "that are not finite numbers"
        raise Unusable(f"coordinates {what}")


def _outside(frame: FrameReader) -> str:
    height, width = frame.shape
    return f"outside its image, {frame.name} ({width} × {height} px)"


MAX_MASK_BYTES = 500_000_000
"""Full-frame masks of one plane may take this much together; further objects with holes or several parts become the
outline of their largest part."""


@dataclass(eq=False, slots=True)
class Regions:
    """Makes exemplars of the masks of one plane or file.

    Parameters
    ----------
    remarks
        Takes what is to be reported about an object.
    max_bytes
        What full-frame masks may take together.
    boxes
        Whether masks that fill their bounding boxes are boxes around objects.
    """

    remarks: Remarks
    max_bytes: int = MAX_MASK_BYTES
    boxes: bool = False
    _bytes: int = 0

    def exemplar(self, number: object, frame: FrameReader, instance: InstanceMask) -> Exemplar:
        """Return an exemplar for a mask that is cropped to its object and not empty."""
        label = self.remarks.label(number)
        if self.boxes and instance.data.all():
            x0, y0, x1, y1 = instance.box
            return Exemplar(image=frame, box=(float(x0), float(y0), float(x1), float(y1)), label=label)
        polygon = mask_to_polygon(instance)
        drawn = polygon_to_mask(polygon, frame.shape)
        if drawn.box == instance.box and bool((drawn.data == instance.data).all()):
            return Exemplar(image=frame, polygon=polygon, label=label)
        height, width = frame.shape
        if self._bytes + height * width > self.max_bytes:
            self.remarks.note(number, "cut to the largest part", "there are too many large masks to keep")
            return Exemplar(image=frame, polygon=polygon, label=label)
        self._bytes += height * width
        return Exemplar(image=frame, mask=instance.full(), label=label)
