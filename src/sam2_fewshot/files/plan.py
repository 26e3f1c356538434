"""The plan of a run on files: a request with everything checked that can be before the model is loaded.

Also how a worker process opens a frame of the plan.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.annotations.record import frame_title
from sam2_fewshot.annotations.registry import check_formats
from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.files.corrections import read_corrections
from sam2_fewshot.files.earlier import files_again, known_images
from sam2_fewshot.files.image_paths import image_paths
from sam2_fewshot.files.request import check_request
from sam2_fewshot.files.results import check_results
from sam2_fewshot.images.addresses import parse_range, whole_path
from sam2_fewshot.images.display import parse_channels, read_channels
from sam2_fewshot.images.image_set import images_of, open_images, stems_of
from sam2_fewshot.images.registry import frame_fingerprint, open_positions, signatures
from sam2_fewshot.object_model import ObjectModel, content_of
from sam2_fewshot.output.finished import results_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sam2_fewshot.annotations.placing import PlacedExemplar
    from sam2_fewshot.files.corrections import Correction
    from sam2_fewshot.files.request import Request
    from sam2_fewshot.images.display import ChannelSetting
    from sam2_fewshot.images.image_set import ImageSet
    from sam2_fewshot.output.finished import Finished
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Exemplar, FrameReader, Location
    from sam2_fewshot.settings import Settings


@dataclass(frozen=True)
class Plan:
    """A request that was checked; the :class:`~sam2_fewshot.runner.tasks.Source` of a run on files.

    Parameters
    ----------
    request
        What was asked for.
    images
        The images, their headers read.
    examples
        The examples that can be used.
    frames
        The frames to do, by XY, then Z, then Time.
    corrections
        Objects that the user marked as right or wrong in earlier results, which are learned from too.
    saved
        What was learned before, instead of examples.
    channels
        How to display channels: as the request says, else as where the saved was learned.
    """

    request: Request
    images: ImageSet
    examples: Sequence[PlacedExemplar]
    frames: Sequence[FrameReader]
    corrections: Sequence[Correction] = ()
    saved: SavedObjects | None = None
    channels: Sequence[ChannelSetting] = ()

    @property
    def placed(self) -> list[PlacedExemplar]:
        """All that there is to learn from: the examples, then the corrections."""
        return [*self.examples, *(correction.placed for correction in self.corrections)]

    @property
    def exemplars(self) -> list[Exemplar]:
        """What to learn from; none where an object model is there already."""
        return [item.exemplar for item in self.placed]

    def examples_on(self, location: Location) -> Sequence[PlacedExemplar]:
        """Return what is marked on a frame."""
        return self._placed_on.get(location, ())

    @cached_property
    def _placed_on(self) -> dict[Location, list[PlacedExemplar]]:
        """The same by the frame: each frame of a plate is asked for, and there may be as many marks as frames."""
        found: dict[Location, list[PlacedExemplar]] = {}
        for example in self.placed:
            found.setdefault(example.location, []).append(example)
        return found

    def name(self, frame: FrameReader) -> str:
        """Return what to call a frame in messages: the image's name, with Z and Time where there are several."""
        image = self.images[frame.location.xy]
        return frame_title(image.name, frame.location, image.size_z, image.size_t)

    def address(self, frame: FrameReader) -> FrameAddress:
        """Return the address at which another process opens a frame, in whatever folder that runs."""
        header = self.images[frame.location.xy].header
        return FrameAddress(
            frame.name,
            whole_path(header.path).as_posix(),
            frame.location,
            self.request.settings,
            self.channels,
            frame_fingerprint("", self.signatures[frame.location.xy]),
            header.number,
        )

    @cached_property
    def signatures(self) -> list[list[object]]:
        """What shows whether the images are the same as before, taken once: results are recorded under it."""
        return signatures([image.header for image in self.images])


def make_plan(request: Request, progress: Progress) -> Plan:
    """Read all headers and examples, and check the ranges and the output folder. Nothing is written.

    Raises
    ------
    InputError
        If an image, the examples or the output folder cannot be used, or results would be written over the user's own.
    SettingsError
        If a range or the channels' file cannot be used.
    """
    check_request(request)
    check_formats(request.write)
    request = replace(request, images=image_paths(request.images, request.examples, progress))
    earlier = None if request.earlier is None else results_in(request.earlier)
    if request.object_model is not None:
        return _plan_with(read_saved(request.object_model), request, earlier, progress)
    channels = () if request.channels is None else read_channels(request.channels)
    images = _open(request, earlier, channels, progress)
    frames = _chosen(request, earlier, images, progress)
    check_results(Plan(request, images, (), frames))
    assert request.examples is not None
    examples = read_examples(
        request.examples,
        images,
        request.training_tag,
        request.negative_tag,
        progress,
        boxes=request.boxes,
        on=request.examples_on,
    )
    corrections = read_corrections(request.corrections, images, progress, earlier)
    _check_display(images, [*frames, *(item.frame for item in examples)])
    return Plan(request, images, examples, frames, corrections, channels=channels)


def _plan_with(saved: SavedObjects, request: Request, earlier: Finished | None, progress: Progress) -> Plan:
    """Return the plan of a run with what was learned before."""
    objects = saved.objects
    objects.check_settings(request.settings, str(saved.path))
    name = saved.path.name
    learned = () if not objects.channels else parse_channels(objects.channels, f"The display of channels in {name}")
    channels = learned if request.channels is None else read_channels(request.channels)
    if objects.channels is not None and channels != learned:
        progress.warn(
            f"The channels are not displayed as those of the images from which {name} was learned, so other objects "
            "may be found; leave out --channels to display them alike."
        )
    whose = name if request.channels is None else None
    with _saying_whose(whose):
        images = _open(request, earlier, channels, progress)
    frames = _chosen(request, earlier, images, progress)
    with _saying_whose(whose):
        _check_display(images, frames)
    if (doubt := objects.doubt(name)) and any(images[frame.location.xy].display.as_photo for frame in frames):
        progress.warn(doubt)
    check_results(Plan(request, images, (), frames))
    model = objects.checkpoint(name, "--model") if request.model == "auto" else request.model
    return Plan(replace(request, model=model), images, (), frames, saved=saved, channels=channels)


@contextmanager
def _saying_whose(model: str | None) -> Iterator[None]:
    """Add to an error about the display of channels that it is that of an object model."""
    try:
        yield
    except SettingsError as error:
        if model is None:
            raise
        raise SettingsError(
            f"{error} How channels are displayed is taken from {model}; give --channels for these images."
        ) from None


def _check_display(images: ImageSet, frames: Iterable[FrameReader]) -> None:
    """Refuse display settings that do not fit the images of some frames.

    Raises
    ------
    SettingsError
        If they name a channel that one of the images does not have.
    """
    for xy in sorted({frame.location.xy for frame in frames}):
        _ = images[xy].display


def _open(
    request: Request, earlier: Finished | None, channels: Sequence[ChannelSetting], progress: Progress
) -> ImageSet:
    """Open the images, those of the earlier results where there are any."""
    return open_images(files_again(request.images, earlier, progress), request.settings, channels, progress)


def _chosen(request: Request, earlier: Finished | None, images: ImageSet, progress: Progress) -> list[FrameReader]:
    """Return the frames of the three ranges. Where files differ in slices or times, each gives what it has."""
    positions: Sequence[int]
    if earlier is not None and (known := known_images(images, earlier)).is_told:
        positions = known.searched(earlier.out, progress)
    else:
        positions = parse_range(request.batch_xy, len(images), "Batch XY", names=[image.names for image in images])
    chosen = [images[xy] for xy in positions]
    slices = parse_range(request.batch_z, max(image.size_z for image in chosen), "Batch Z")
    times = parse_range(request.batch_time, max(image.size_t for image in chosen), "Batch Time")
    frames: list[FrameReader] = [
        image.frame(z, time)
        for image in chosen
        for z in slices
        if z < image.size_z
        for time in times
        if time < image.size_t
    ]
    if not frames:
        raise InputError(
            "No image has a frame that fits both Batch Z and Batch Time; check the two ranges, or leave them out."
        )
    return frames


@dataclass(frozen=True, eq=False)
class SavedObjects:
    """An object model's file.

    Parameters
    ----------
    path
        Where it lies.
    sha256
        SHA-256 of the file, in hexadecimal.
    objects
        What is in it.
    """

    path: Path
    sha256: str
    objects: ObjectModel


def read_saved(path: Path) -> SavedObjects:
    """Read an object model.

    Raises
    ------
    InputError
        If there is none, or it is damaged.
    """
    content = content_of(path)
    return SavedObjects(path, hashlib.sha256(content).hexdigest(), ObjectModel.from_bytes(content, str(path)))


@dataclass(frozen=True)
class FrameAddress:
    """Where another process opens a frame; an :class:`~sam2_fewshot.runner.tasks.Address`.

    Parameters
    ----------
    name
        What to call its image.
    path
        The image's path from the root on, or its address on the web.
    location
        The frame's location in the dataset.
    settings, channels
        How images are displayed.
    signature
        Differs where the image has changed: a worker that lives on may know it as it was before.
    number
        Which of the images in the file it is, counted from 0.
    """

    name: str
    path: str
    location: Location
    settings: Settings
    channels: Sequence[ChannelSetting]
    signature: str
    number: int = 0

    def open(self) -> FrameReader:
        """Return the frame, of an image that stays open until others are; only one at a time holds pixels."""
        frame = _opened(self)[0].frame(self.location.z, self.location.time)
        # A file that is opened alone lacks its place among the images, and the folder that tells it from others.
        return replace(frame, location=self.location, name=self.name)


_OPENED: OrderedDict[tuple[str, str, int, int], ImageSet] = OrderedDict()
_MOST_OPENED = 4


def _opened(address: FrameAddress) -> ImageSet:
    """Open an image, or take one of the last few, whose contrast is known."""
    # Settings themselves cannot be hashed.
    key = address.path, address.signature, address.number, hash(repr((address.settings, address.channels)))
    if key not in _OPENED:
        sources = open_positions(Path(address.path), address.number)
        stems = stems_of([source.header for source in sources])
        _OPENED[key] = images_of(sources, stems, address.settings, address.channels)
    _OPENED.move_to_end(key)
    while len(_OPENED) > _MOST_OPENED:
        _OPENED.popitem(last=False)
    for other, images in _OPENED.items():
        if other != key:
            images.let_go()
    return _OPENED[key]
