"""What is opened, learned and searched while images are looked at, as records; nothing here knows napari or Qt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sam2_fewshot.annotations.review import UNWANTED, Part
from sam2_fewshot.backbones import open_backbone
from sam2_fewshot.backbones.wrapped import Interruptible, Remembering
from sam2_fewshot.examples.outliner import Outliner
from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import run
from sam2_fewshot.geometry.overlap import pixels_in
from sam2_fewshot.images.display import channels_of
from sam2_fewshot.records import Exemplar, whole_box
from sam2_fewshot.resources import room_for_tiles
from sam2_fewshot.segmenter import FewShotSegmenter
from sam2_fewshot.settings import AFTER_LEARNING
from sam2_fewshot.storage.digests import pixels_digest
from sam2_fewshot.storage.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.arrays import PlaneIndex
    from sam2_fewshot.annotations.review import Mark
    from sam2_fewshot.object_model import ObjectModel
    from sam2_fewshot.records import Box, FrameReader, InstanceMask
    from sam2_fewshot.rendering.viewer import BlendedPlane, Look
    from sam2_fewshot.runner.progress import Estimate
    from sam2_fewshot.settings import Settings

_BLOCK = 1 << 20  # pixels that are searched, and displayed, at a time


class Search(NamedTuple):
    """What is searched, and how.

    Parameters
    ----------
    marks
        What is learned from.
    plane, places, region
        A plane by its place, the places of those that are searched, and the part of each, None for all of it.
    model, settings
        The checkpoint's name, and the settings.
    loaded
        What was learned before, in place of the marks.
    """

    marks: Sequence[Mark]
    plane: Callable[[PlaneIndex], FrameReader]
    places: Sequence[PlaneIndex]
    region: Box | None
    model: str
    settings: Settings
    loaded: ObjectModel | None


class Session:
    """What was opened and learned stays for the next time; all methods but :meth:`seconds` are for the thread.

    Parameters
    ----------
    check
        Called often; it raises an error when the work shall stop.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self.opened: tuple[Any, Any, Outliner] | None = None
        self.learned: Any = (None, None)
        self._read: dict[PlaneIndex, _Noted] = {}  # what was learned from
        self.costs = [np.inf, np.inf]  # seconds to learn, and seconds a pixel to search

    def open(self, model: str, settings: Settings) -> tuple[Any, Outliner]:
        """Return the backbone and what outlines with it; loading takes seconds."""
        key = model, settings.precision, settings.batch_size, settings.points_per_batch, settings.compile
        if self.opened is None or self.opened[0] != key:
            backbone = open_backbone(model, "auto", settings)
            if backbone.on_cpu:  # a GPU encodes a tile in milliseconds
                backbone = Remembering(backbone, room_for_tiles(settings.max_memory))
            self.opened = key, Interruptible(backbone, self._check), Outliner(backbone)
        return self.opened[1:]

    def seconds(self, box: Box) -> float:
        """Return how long learning and searching a box would take, infinite before it was done once."""
        return float(self.costs[0] + self.costs[1] * pixels_in(box))

    def outline(
        self,
        plane: BlendedPlane,
        model: str,
        settings: Settings,
        prompts: Sequence[Sequence[tuple[float, float]]],
        outlined: Sequence[InstanceMask],
        told: Estimate,
    ) -> Iterator[InstanceMask | None]:
        """Yield the object at each point, or in the box between two, None for none; `outlined` are right."""
        told.start("loading")
        outliner = self.open(model, settings)[1]
        for number, corners in enumerate(prompts):
            told.part_begins(number, len(prompts))
            (x0, y0), (x1, y1) = corners[0], corners[-1]
            if len(corners) == 1:
                yield outliner.at_point(plane, corners[0], outlined)
            else:
                yield outliner.in_box(plane, (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))

    def prepare(self, plane: BlendedPlane, model: str, settings: Settings, region: Box, _: Estimate) -> Iterator[None]:
        """Encode a region ahead, so that outlines in it come at once."""
        yield from self.open(model, settings)[1].prepare(plane, region)

    def search(self, asked: Search, told: Estimate) -> Iterator[FewShotSegmenter | Part | str]:
        """Yield what has learned, what is found as soon as a block is finished, and how long all took, in words."""
        told.start("loading")
        began, settings = time.monotonic(), asked.settings
        segmenter = FewShotSegmenter(self.open(asked.model, settings)[0], settings=settings, progress=told)
        marked = [(mark.place, mark.outline.wkb, mark.kind) for mark in asked.marks]
        key = marked, asked.model, settings.model_dump(exclude=set(AFTER_LEARNING))
        objects = asked.loaded
        if (
            objects is None
            and self.learned[0] == key
            and all(x.is_same(asked.plane(at)) for at, x in self._read.items())
        ):
            objects = self.learned[1]
        if objects is not None:
            segmenter.adopt(objects, "The object model")
        else:
            read: dict[PlaneIndex, _Noted] = {}
            segmenter.fit(exemplars(asked.marks, lambda at: read.setdefault(at, _Noted(asked.plane(at)))))
            self._read = read
            for noted in read.values():
                noted.forget()
            self.learned, self.costs[0] = (key, segmenter.object_model), time.monotonic() - began
        yield segmenter
        searching, pixels = time.monotonic(), 0
        for number, place in enumerate(asked.places):

            def begins(done: int, total: int, number: int = number) -> None:
                # It is taken that all planes have as many blocks.
                told.part_begins(number * total + done, len(asked.places) * total)

            frame = asked.plane(place)
            pixels += pixels_in(asked.region or whole_box(frame.shape))
            for box, result in segmenter.stream(frame, asked.region, _BLOCK, begins):
                yield Part(place, box, [*result.detections, *result.below], result.floor)
        self.costs[1] = (time.monotonic() - searching) / pixels
        yield f"in {time.monotonic() - began:.1f} s"

    def run(self, request: Request, told: Estimate) -> Iterator[Any]:
        """Yield the summary of a run on files, with the backbone that is open."""
        backbone = self.open(str(request.model), request.settings)[0]
        yield run(request, told, lambda _, device, settings, watch: FewShotSegmenter(backbone, device, settings, watch))


class _Noted:
    """A frame that notes what is read of it, so that it is known whether the same would be read again.

    Pixels may be changed in place, and an image may be too large to be read for it whole.
    """

    def __init__(self, frame: FrameReader) -> None:
        self._frame: FrameReader | None = frame
        self.name, self.location, self.shape = frame.name, frame.location, frame.shape
        self.digest: str | None = getattr(frame, "digest", None)
        self._noted: dict[Box, bytes] = {}

    def read(self, region: Box | None = None) -> NDArray[np.uint8]:
        """Return the pixels of a region, or of all of the frame."""
        assert self._frame is not None
        pixels = self._frame.read(region)
        self._noted[region or whole_box(self.shape)] = pixels_digest(pixels)
        return pixels

    def forget(self) -> None:
        """Let the frame go, which may hold much memory."""
        self._frame = None

    def is_same(self, frame: FrameReader) -> bool:
        """Tell whether of another frame the same would be read."""
        like = (frame.shape, getattr(frame, "digest", None)) == (self.shape, self.digest)
        return like and all(pixels_digest(frame.read(region)) == noted for region, noted in self._noted.items())


def exemplars(marks: Sequence[Mark], plane: Callable[[PlaneIndex], FrameReader]) -> list[Exemplar]:
    """Return marks as exemplars; those of one plane have one image, which is given by its place."""
    planes = {place: plane(place) for place in {mark.place for mark in marks}}
    return [
        Exemplar(planes[mark.place], polygon=mark.outline, negative=mark.kind == UNWANTED, label=f"Mark {number}")
        for number, mark in enumerate(marks, 1)
    ]


def request_for(
    folder: Path, objects: Path, looks: Sequence[Look | None], model: str, settings: Settings
) -> tuple[Request, str]:
    """Return the request that finds objects in a folder, and a sentence where it does not display images alike.

    Parameters
    ----------
    folder
        Of images.
    objects
        The object model. How the channels are displayed is written beside it.
    looks
        Of all channels, None for those that are not displayed; empty where it is not known which were searched.
    model, settings
        The checkpoint's name, and the settings.
    """
    text, is_all = channels_of(looks)
    channels = objects.with_suffix(".channels.yaml") if text else None
    if channels is not None:
        write_whole(channels, text.encode())
    sentence = "" if is_all else _NOT_SAID
    out = folder.with_name(f"{folder.name}-results")
    request = Request([folder], None, out, model=model, channels=channels, object_model=objects, settings=settings)
    return request, sentence if looks else _UNKNOWN


_NOT_SAID = (
    "A gamma, an opacity, a colormap of several colours, and layers that cover one another or mix their colours are no "
    "part of the command, so results may differ."
)
_UNKNOWN = (
    "It is not known which channels of a file the layers are, so the command does not say how channels are displayed, "
    "and results may differ. Search layers of one file, or add --channels to the command."
)
