"""The records that flow through the program, all of them frozen.

Coordinates are ``(x, y)`` in pixels of the full image, x to the right and y down. Pixel (column c, row r) covers
``c..c+1`` and ``r..r+1``, so its centre lies at ``(c + 0.5, r + 0.5)``. Arrays are indexed ``[row, column]``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from sam2_fewshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray
    from shapely import Polygon

Box = tuple[int, int, int, int]
"""Pixel box ``(x0, y0, x1, y1)``, half open: columns ``x0 .. x1 - 1`` and rows ``y0 .. y1 - 1``."""


def whole_box(shape: tuple[int, int]) -> Box:
    """Return the box of all of a frame ``(height, width)``."""
    height, width = shape
    return 0, 0, width, height


def common_part(one: Box, other: Box) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the rows and columns of what two boxes have in common, in an array of the one and in one of the other.

    Where they have nothing in common the slices are empty.
    """
    x0, y0 = max(one[0], other[0]), max(one[1], other[1])
    x1, y1 = max(min(one[2], other[2]), x0), max(min(one[3], other[3]), y0)
    in_one, in_other = ((slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)) for left, top in (one[:2], other[:2]))
    return in_one, in_other


def extent(data: NDArray[Any]) -> Box | None:
    """Return the box of what is true in an array (h, w), None where nothing is."""
    rows, columns = np.flatnonzero(data.any(axis=1)), np.flatnonzero(data.any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if rows.size else None


class Kind(StrEnum):
    """How an object came into a result: ``example``, ``found`` or ``confirmed``."""

    EXAMPLE = "example"
    """The user marked it, and it was learned from or could have been."""
    FOUND = "found"
    """The program found it."""
    CONFIRMED = "confirmed"
    """The program found it in an earlier run, and the user marked it as right."""


@dataclass(frozen=True, order=True, slots=True)
class Location:
    """Position of a frame in a dataset, all indices counted from 0.

    Parameters
    ----------
    xy, z, time
        Image (stage position), slice and time point.
    """

    xy: int = 0
    z: int = 0
    time: int = 0


@dataclass(frozen=True, slots=True)
class PixelSize:
    """How large a pixel is, in micrometres.

    Parameters
    ----------
    x, y
        Width and height of a pixel.
    z
        Distance of two slices; None when it is not known.
    """

    x: float
    y: float
    z: float | None = None

    @property
    def area(self) -> float:
        """Area of a pixel in µm²."""
        return self.x * self.y


@dataclass(frozen=True, eq=False, slots=True)
class InstanceMask:
    """One object's mask, cropped to its bounding box.

    A full-frame array for each of a thousand objects would take a gigabyte a thousand megapixels; the crop
    takes what the object takes.

    Parameters
    ----------
    data
        Boolean array (h, w), True on the object.
    x0, y0
        Column and row of ``data[0, 0]`` in the frame.
    frame_shape
        ``(height, width)`` of the frame in pixels.
    """

    data: NDArray[np.bool_]
    x0: int
    y0: int
    frame_shape: tuple[int, int]

    @property
    def box(self) -> Box:
        """The box of the crop ``(x0, y0, x1, y1)``, half open, in pixels."""
        height, width = self.data.shape
        return self.x0, self.y0, self.x0 + width, self.y0 + height

    @property
    def area(self) -> int:
        """Number of pixels on the object."""
        return int(np.count_nonzero(self.data))

    def under(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return the part of a plane of the frame (H, W, …) that lies under the crop, as a view."""
        x0, y0, x1, y1 = self.box
        return plane[y0:y1, x0:x1]

    def full(self) -> NDArray[np.bool_]:
        """Return the mask as a boolean array of the frame's shape (H, W)."""
        return self.window(whole_box(self.frame_shape))

    def window(self, box: Box) -> NDArray[np.bool_]:
        """Return the part of the mask in a box, boolean (y1 - y0, x1 - x0).

        Parameters
        ----------
        box
            ``(x0, y0, x1, y1)`` in frame pixels, half open; it may reach beyond the frame, where the mask is False.
        """
        x0, y0, x1, y1 = box
        out = np.zeros((y1 - y0, x1 - x0), bool)
        into, of = common_part(box, self.box)
        out[into] = self.data[of]
        return out

    def within(self, window: Box) -> InstanceMask | None:
        """Return the part that lies in a window of the frame, as a mask of the window; None when there is none."""
        x0, y0, x1, y1 = window
        left, top = max(x0 - self.x0, 0), max(y0 - self.y0, 0)  # where the window begins in the crop
        data = self.data[top : max(y1 - self.y0, 0), left : max(x1 - self.x0, 0)]
        part = extent(data)
        if part is None:
            return None
        crop = data[part[1] : part[3], part[0] : part[2]].copy()
        x, y = self.x0 + left + part[0], self.y0 + top + part[1]
        return InstanceMask(crop, x - x0, y - y0, (y1 - y0, x1 - x0))

    def is_clipped(self, window: Box) -> bool:
        """Return whether the mask ends where a window does and the frame goes on: it may be a part of an object."""
        (x0, y0, x1, y1), (height, width) = self.box, self.frame_shape
        return 0 < x0 <= window[0] or 0 < y0 <= window[1] or window[2] <= x1 < width or window[3] <= y1 < height

    def placed(self, window: Box, frame_shape: tuple[int, int]) -> InstanceMask:
        """Return a mask of a window as one of the frame that the window lies in."""
        return InstanceMask(self.data, self.x0 + window[0], self.y0 + window[1], frame_shape)


@runtime_checkable
class FrameReader(Protocol):
    """One image plane that can be read by region, as 8-bit RGB."""

    @property
    def name(self) -> str:
        """What to call the frame in results and messages."""
        ...

    @property
    def location(self) -> Location:
        """Position of the frame in the dataset."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        ...

    def read(self, region: Box | None = None) -> NDArray[np.uint8]:
        """Return the uint8 RGB pixels (h, w, 3) of a region, or of all of the frame.

        Parameters
        ----------
        region
            ``(x0, y0, x1, y1)`` in pixels, half open, inside the frame; None for all of it.

        Raises
        ------
        InputError
            If the pixels cannot be read.
        """
        ...


def held_bytes(frame: FrameReader) -> int:
    """Return how many bytes a reader holds of its frame for as long as parts of it are read.

    A reader that cannot read a large frame by region has an attribute of this name; others hold little.
    """
    return int(getattr(frame, "held_bytes", 0))


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One image plane in memory, as SAM 2 sees it.

    It is also the simplest :class:`FrameReader`.

    Parameters
    ----------
    pixels
        uint8 array (H, W, 3), RGB.
    name
        What to call the frame in results and messages, usually the file's name.
    location
        Where it belongs in the dataset.
    """

    pixels: NDArray[np.uint8]
    name: str = "image"
    location: Location = field(default_factory=Location)

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self, region: Box | None = None) -> NDArray[np.uint8]:
        """Return the RGB pixels (h, w, 3) of a region, or of all of the frame."""
        if region is None:
            return self.pixels
        x0, y0, x1, y1 = region
        return self.pixels[y0:y1, x0:x1]


@dataclass(frozen=True, eq=False, slots=True, init=False)
class Exemplar:
    """One object that the user has marked.

    Give exactly one of `mask`, `polygon`, `box` and `point`. Learning leaves out an example with none or several of
    them, with a warning.

    Parameters
    ----------
    image
        Array (H, W) or (H, W, 3), or a :class:`FrameReader`.
    mask
        Array (H, W), true on the object: of one label of a label image, ``labels == 3``. Of a masked array the masked
        pixels are not on it.
    polygon
        Outline in image pixels ``(x, y)``. It is made of a sequence of at least three points, or of an array (n, 2),
        where one is given.
    point
        A point ``(x, y)`` on the object; SAM 2 makes the mask from it.
    negative
        True for an object of the kind that is *not* wanted.
    label
        What to call the example in messages, for instance "cells.geojson, object 3".
    box
        A box ``(x0, y0, x1, y1)`` around the object, two opposite corners in image pixels, with fractions or without;
        SAM 2 makes the mask from it.

    Raises
    ------
    InputError
        If the mask is no array, or the outline, the box or the point is not made of such numbers.
    """

    image: NDArray[Any] | FrameReader
    mask: NDArray[Any] | None
    polygon: Polygon | None
    point: tuple[float, float] | None
    negative: bool
    label: str
    box: tuple[float, float, float, float] | None

    def __init__(
        self,
        image: NDArray[Any] | FrameReader,
        mask: ArrayLike | None = None,
        polygon: Polygon | ArrayLike | None = None,
        point: Sequence[float] | NDArray[Any] | None = None,
        negative: bool = False,
        label: str = "",
        box: Sequence[float] | NDArray[Any] | None = None,
    ) -> None:
        marks = {
            "mask": None if mask is None else _mask(mask),
            "polygon": None if polygon is None else _outline(polygon),
            "point": None if point is None else tuple(_values("point", point, "(x, y)").tolist()),
            "box": None if box is None else tuple(np.sort(_corners(box), axis=0).ravel().tolist()),
        }
        for name, value in {"image": image, "negative": bool(negative), "label": label, **marks}.items():
            object.__setattr__(self, name, value)


def _mask(given: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(np.ma.filled(given, 0))  # what a masked array leaves open is not on the object
    except ValueError:
        raise InputError(f"The mask of an example must be an array (height, width), but it is {given!r:.60}.") from None


def _outline(given: Polygon | ArrayLike) -> Polygon:
    if hasattr(given, "geom_type"):
        return given
    from shapely import Polygon

    points = _numbers(given)
    if points is None or points.ndim != 2 or len(points) < 3 or points.shape[1] != 2:
        raise InputError(
            "The outline of an example must be a shapely polygon or at least three points (x, y), but it is "
            f"{given!r:.60}."
        )
    return Polygon(points)


def _corners(box: object) -> NDArray[np.float64]:
    return _values("box", box, "(x0, y0, x1, y1)").reshape(2, 2)


def _values(what: str, given: object, form: str) -> NDArray[np.float64]:
    count, numbers = form.count(",") + 1, _numbers(given)
    if numbers is None or numbers.shape != (count,):
        raise InputError(f"The {what} of an example must be {count} numbers {form}, but it is {given!r:.60}.")
    return numbers


def _numbers(given: object) -> NDArray[np.float64] | None:
    try:
        return np.asarray(given, np.float64)
    except (TypeError, ValueError):
        return None


FIGURES = ("score", "similarity", "predicted_iou")
"""The figures of a detection, which tell how sure the program is, as they are called in it and in files."""


@dataclass(frozen=True, eq=False, slots=True)
class Detection:
    """An object of a result: one that was detected, or that the user marked.

    Parameters
    ----------
    instance
        The object's mask, cropped to its bounding box: one connected part, which may have holes.
    polygon
        Valid outline in image pixels ``(x, y)``: the outer ring of the mask; without smoothing its holes as well.
    score
        How sure the program is, in [0, 1]; 1 for what the user marked, which nobody is surer of.
    similarity
        Raw cosine similarity of its features to the examples', in [-1, 1]; NaN for what the user marked, since it was
        not compared.
    predicted_iou
        SAM 2's own guess of the mask's quality, in [0, 1]; NaN for a mask that was not prompted.
    location
        Position of the frame in the dataset.
    kind
        How it came into the result; None where a file that it was read from does not tell.
    """

    instance: InstanceMask
    polygon: Polygon
    score: float
    similarity: float
    predicted_iou: float
    location: Location = field(default_factory=Location)
    kind: Kind | None = Kind.FOUND

    @property
    def is_marked(self) -> bool:
        """Whether the user marked it, so that no threshold and no size applies to it."""
        return self.kind in (Kind.EXAMPLE, Kind.CONFIRMED)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask as a boolean array of the frame's shape (H, W)."""
        return self.instance.full()

    @property
    def area(self) -> int:
        """Area of the mask in pixels."""
        return self.instance.area

    @property
    def bbox(self) -> Box:
        """Bounding box ``(x0, y0, x1, y1)`` in pixels, half open."""
        return self.instance.box


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of objects by kind.

    Parameters
    ----------
    found, confirmed, marked
        Of those that were found, that are confirmed, and that are examples.
    """

    found: int = 0
    confirmed: int = 0
    marked: int = 0

    @classmethod
    def of(cls, detections: Iterable[Detection]) -> Counts:
        """Count the objects of a result; those of no known kind count as found."""
        kinds = Counter(item.kind for item in detections)
        confirmed, marked = kinds[Kind.CONFIRMED], kinds[Kind.EXAMPLE]
        return cls(kinds.total() - confirmed - marked, confirmed, marked)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.found + other.found, self.confirmed + other.confirmed, self.marked + other.marked)

    @property
    def total(self) -> int:
        """All of them."""
        return self.found + self.confirmed + self.marked

    def __str__(self) -> str:
        """Return the sum in words, such as ``100 found + 8 marked = 108``; ``100 found`` where that is all."""
        parts = [f"{self.found:,} found"]
        parts += [f"{self.confirmed:,} confirmed"] if self.confirmed else []
        parts += [f"{self.marked:,} marked"] if self.marked else []
        return " + ".join(parts) + (f" = {self.total:,}" if len(parts) > 1 else "")


@dataclass(frozen=True, slots=True)
class Learned:
    """What was said when the examples were learned.

    Parameters
    ----------
    summary
        How well they are found again, in words; perhaps empty.
    warnings
        What the user was warned of.
    """

    summary: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class FrameResult:
    """The result of the search of a frame, or of a block of one.

    Parameters
    ----------
    detections
        Objects whose score reaches the threshold, the highest score first.
    below
        Objects with a lower score, the highest first.
    floor
        The score down to which `below` is complete.
    threshold, reason
        The score that had to be reached, and how it came about, in words.
    candidates
        Number of masks that were compared with the examples.
    seconds
        Wall-clock seconds of each stage.
    blocks, blank
        In how many blocks the frame was searched, and how many of them were skipped because they are empty.
    proposed
        All masks that were proposed, where that was asked for; else None. They may be thousands.
    examples
        The wanted examples that lie on the frame, none of which is among the detections: of the kind
        :attr:`Kind.EXAMPLE`, with the masks that were learned from (of several parts the largest), also of those that a
        point or a box marks.
    """

    detections: Sequence[Detection] = ()
    below: Sequence[Detection] = ()
    floor: float = 0.0
    threshold: float = 0.0
    reason: str = ""
    candidates: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    blocks: int = 1
    blank: int = 0
    proposed: Sequence[InstanceMask] | None = None
    examples: Sequence[Detection] = ()
