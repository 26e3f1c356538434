"""What is known about a finished frame, and its objects as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from shapely import Point, Polygon

    from sam2_fewshot.records import Detection, Location, PixelSize


@dataclass(frozen=True, eq=False, slots=True)
class ExampleMark:
    """Where an example lies on a frame, for drawing.

    Parameters
    ----------
    outline
        The example's outline, or the point that marks it, in image pixels ``(x, y)``.
    negative
        True for an object of the kind that is *not* wanted.
    """

    outline: Polygon | Point
    negative: bool = False


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


@dataclass(frozen=True, eq=False, slots=True)
class FrameRecord:
    """All that the output files say about one finished frame.

    Parameters
    ----------
    name
        The image file's name.
    stem
        What the image's own output files are called, without ending; see
        :func:`~sam2_fewshot.annotations.values.safe_stems`. It is the same for all frames of one image.
    location
        Position of the frame in the dataset, counted from 0.
    frame_shape
        ``(height, width)`` in pixels.
    size_z, size_t
        Number of slices and of time points in the image file.
    detections
        The objects found, best first; their ids in the frame are 1, 2, … in this order.
    candidates
        Number of masks that were proposed on the frame.
    seconds
        Time that each stage took on this frame.
    examples
        The examples that lie on the frame.
    warnings
        Sentences the user was told about this frame.
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
        Of the image, None for a channel that its file does not name.
    tags
        Tags of each of the detections, where they are not the same for all; else none.
    points
        Objects marked by points; only formats that know points have them.
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

    def tags_of(self, number: int, common: Sequence[str]) -> Sequence[str]:
        """Return the tags of the detection with a number, counted from 1: its own, or else those `common` to all."""
        return self.tags[number - 1] if self.tags else common

    def moved(self, location: Location) -> FrameRecord:
        """Return the record, and all that was found, at another place in the dataset."""
        detections, below = (
            tuple(replace(item, location=location) for item in found) for found in (self.detections, self.below)
        )
        return replace(self, location=location, detections=detections, below=below)

    def at(self, threshold: float) -> FrameRecord | None:
        """Return the record as it would be with another threshold, None when too little is known for that."""
        if threshold == self.threshold:
            return self
        if threshold < self.floor:
            return None
        found = (*self.detections, *self.below)
        kept = tuple(item for item in found if item.score >= threshold)
        below = tuple(item for item in found if not item.score >= threshold)
        return replace(self, detections=kept, below=below, threshold=threshold)


Add = Callable[[FrameRecord], None]
"""Takes a finished frame; raises :class:`~sam2_fewshot.errors.InputError` if a file cannot be written.

Every output format is a context manager that gives such a function and is fed the frames in order of
location. Left in peace it puts its last file in place, left by an exception it removes what it has begun.
"""


@contextmanager
def a_file_an_image(begin: Callable[[FrameRecord], AbstractContextManager[Add]]) -> Iterator[Add]:
    """Feed each image's frames to a writer of its own; an image's frames must follow one another.

    Parameters
    ----------
    begin
        Gives the writer of the image that a frame is the first of. It is left when another image begins, and at the
        end, which is when it puts its file in place.

    Yields
    ------
    Add
        Takes the frames.
    """
    with ExitStack() as image:
        writing: tuple[str, Add] | None = None

        def add(record: FrameRecord) -> None:
            nonlocal writing
            if writing is None or writing[0] != record.stem:
                image.close()
                writing = record.stem, image.enter_context(begin(record))
            writing[1](record)

        yield add
