"""What is known about a finished frame, and texts and figures made fit for files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain, repeat
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.images.addresses import image_title
from sam2_fewshot.records import FIGURES, Counts, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from shapely import Point, Polygon

    from sam2_fewshot.records import Detection, Learned, Location, PixelSize


@dataclass(frozen=True, eq=False, slots=True)
class ExampleMark:
    """Where an example lies on a frame, for drawing.

    Parameters
    ----------
    outline
        The example's outline, or the point that marks it, in image pixels ``(x, y)``.
    negative
        True for an object of the kind that is *not* wanted.
    is_box
        Whether the outline is a box around the object, whose mask the backbone made.
    """

    outline: Polygon | Point
    negative: bool = False
    is_box: bool = False

    @property
    def is_object(self) -> bool:
        """Whether the outline is that of the object itself, not a point or a box that marks it."""
        return self.outline.geom_type == "Polygon" and not self.is_box


@dataclass(frozen=True, slots=True)
class MarkedPoint:
    """An object that is marked by a point and has no outline.

    Parameters
    ----------
    xy
        In image pixels.
    tags
        Its tags or classes.
    """

    xy: tuple[float, float]
    tags: tuple[str, ...] = ()


LARGEST_NUMBER = 2**32 - 1
"""Of an object, since label images are written with up to 32 bits."""


@dataclass(frozen=True, eq=False, slots=True)
class FrameRecord:
    """All that the output files say about one finished frame.

    Parameters
    ----------
    name
        The image file's name; it becomes :func:`printable`, so that all files and comparisons have one spelling.
    stem
        What the image's own output files are called, without ending; see
        :func:`~sam2_fewshot.images.stems.safe_stems`. It is the same for all frames of one image.
    location
        Position of the frame in the dataset, counted from 0.
    frame_shape
        ``(height, width)`` in pixels.
    size_z, size_t
        Number of slices and of time points in the image file.
    detections
        The objects: those that are confirmed, those that were found, best first, and the examples.
    candidates
        Number of masks that were proposed on the frame.
    seconds
        Time that each stage took on this frame.
    examples
        The examples that lie on the frame, negative ones too, as they were marked.
    warnings
        Sentences that were reported about this frame.
    below
        What was found with a score below the threshold, best first. Only the report shows it.
    threshold
        The score that a detection had to have.
    floor
        The score down to which `below` is complete.
    file
        Name of its file in the journal; empty where it was not read from there.
    pixel_size
        Of the image, None when its file does not tell.
    channel_names
        Of the image, None for a channel that its file does not name; none where its channels are not known.
    tags
        Tags of each of the detections, where they are not the same for all; else none.
    points
        Objects marked by points; only formats that know points have them.
    position
        Name of the position, where the image's file has several; else empty.
    full_name
        The image file's name, with folders where several images have that name. Left out: `name`.
    learned
        What was said when the examples were learned with which the frame was searched; None where that is not known.
    numbers
        Values of the detections in the label image that they are from, all different, at most
        :data:`LARGEST_NUMBER`; none where they are 1, 2, … in the order of the detections.
    """

    name: str
    stem: str
    location: Location
    frame_shape: tuple[int, int]
    size_z: int = 1
    size_t: int = 1
    detections: tuple[Detection, ...] = ()
    candidates: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[ExampleMark, ...] = ()
    warnings: tuple[str, ...] = ()
    below: tuple[Detection, ...] = ()
    threshold: float = 0.0
    floor: float = 0.0
    file: str = ""
    pixel_size: PixelSize | None = None
    channel_names: tuple[str | None, ...] = ()
    tags: tuple[tuple[str, ...], ...] = ()
    points: tuple[MarkedPoint, ...] = ()
    position: str = ""
    full_name: str = ""
    learned: Learned | None = None
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))
        object.__setattr__(self, "position", printable(self.position))
        object.__setattr__(self, "full_name", printable(self.full_name or self.name))

    @property
    def title(self) -> str:
        """What to call the image: the file's full name, and the position's where it has several."""
        return image_title(self.full_name, self.position)

    @property
    def frame_title(self) -> str:
        """What to call the frame: the image, and the slice and the time point where it has several."""
        return frame_title(self.title, self.location, self.size_z, self.size_t)

    @property
    def ids(self) -> Sequence[int]:
        """The id of each of the detections: its value in the frame's label image, and what tables call it."""
        return self.numbers or range(1, len(self.detections) + 1)

    @property
    def counts(self) -> Counts:
        """How many of the detections are of which kind."""
        return Counts.of(self.detections)

    @property
    def is_stack(self) -> bool:
        """Whether the image has several slices or time points."""
        return self.size_z * self.size_t > 1

    def without_examples(self) -> FrameRecord:
        """Return the record with what was found, and what was confirmed, alone."""
        return replace(self, detections=tuple(item for item in self.detections if item.kind != Kind.EXAMPLE))

    def tags_of(self, number: int, common: Sequence[str]) -> list[str]:
        """Return the tags of an object, printable: its own, or else those `common` to all detections.

        Parameters
        ----------
        number
            Of the object on the frame, counted from 1: the detections, then the points.
        common
            Tags of the detections where the record does not have them.
        """
        if number > len(self.detections):
            own: Sequence[str] = self.points[number - len(self.detections) - 1].tags
        else:
            own = self.tags[number - 1] if self.tags else common
        return [printable(tag) for tag in own]

    def numbered_points(self) -> Iterator[tuple[int, MarkedPoint]]:
        """Yield the points with their numbers on the frame, which follow those of the detections."""
        return enumerate(self.points, start=len(self.detections) + 1)

    def object_id(self, number: int) -> str:
        """Return the id of an object by its number on the frame; it is the same in every run."""
        place = self.location
        return hexadecimal_id(self.title, place.xy, place.z, place.time, number)

    def moved(self, location: Location) -> FrameRecord:
        """Return the record, and all that was found, at another place in the dataset."""
        detections, below = (
            tuple(replace(item, location=location) for item in items) for items in (self.detections, self.below)
        )
        return replace(self, location=location, detections=detections, below=below)

    def at(self, threshold: float) -> FrameRecord | None:
        """Return the record as it would be with another threshold, None when too little is known for that."""
        if threshold == self.threshold:
            return self
        if threshold < self.floor:
            return None
        both = (*self.detections, *self.below)
        kept = [item for item in both if item.is_marked or item.score >= threshold]
        detections = tuple(sorted(kept, key=lambda item: item.kind == Kind.EXAMPLE))  # these stay the last
        below = tuple(item for item in both if not (item.is_marked or item.score >= threshold))
        return replace(self, detections=detections, below=below, threshold=threshold)


def frame_title(image: str, location: Location, size_z: int, size_t: int) -> str:
    """Return what to call a frame: the image, and the slice and the time point where it has several."""
    z = f" Z {location.z + 1}" if size_z > 1 else ""
    time = f" Time {location.time + 1}" if size_t > 1 else ""
    return image + z + time


Add = Callable[[FrameRecord], None]
"""Takes a finished frame; raises :class:`~sam2_fewshot.errors.InputError` if a file cannot be written.

Every writer is a context manager that gives such a function and is fed the frames in order of location. Left without
an exception it puts its file in place, left by one it removes what it has begun.
"""


def a_line_each(file: IO[str]) -> Callable[[str], None]:
    """Return what writes the entries of a JSON list or object into a file, each on a line, with commas between."""
    before = chain(["\n"], repeat(",\n"))

    def put(entry: str) -> None:
        file.write(next(before) + entry)

    return put


def vertices(ring: Any) -> NDArray[np.float64]:
    """Return the vertices ``(x, y)`` of a shapely ring (n, 2), the first one not repeated."""
    return np.asarray(ring.coords, np.float64)[:-1, :2]


def printable(text: str) -> str:
    r"""Return a text that UTF-8 can hold: stray bytes of a file name become ``\udcff`` and so on."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_named(text: str) -> str:
    r"""Return the name from which :func:`printable` made a text: ``\udcff`` and so on become stray bytes again."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), text)


def figures_of(item: Detection) -> dict[str, float | None]:
    """Return the figures of a detection by name, as :func:`figure` rounds them."""
    return {name: figure(getattr(item, name)) for name in FIGURES}


def figure(value: float, digits: int = 6) -> float | None:
    """Round a figure for a file, None (JSON's null) for one that is not finite."""
    return round(float(value), digits) if math.isfinite(value) else None


def hexadecimal_id(*parts: object) -> str:
    """Return 24 hexadecimal digits, the form of MongoDB's ids, always the same for the same parts."""
    return sha256("/".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:24]
