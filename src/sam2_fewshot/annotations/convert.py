"""Marked objects from one file format to another."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from shapely import Polygon, box

from sam2_fewshot.annotations.examples import marked_files, read_objects
from sam2_fewshot.annotations.label_bands import hidden_pixels
from sam2_fewshot.annotations.named import UNKNOWN, images_of_run
from sam2_fewshot.annotations.nominal import nominal_images
from sam2_fewshot.annotations.record import LARGEST_NUMBER, FrameRecord, MarkedPoint
from sam2_fewshot.annotations.registry import FORMATS, NAMES, Format, named_by
from sam2_fewshot.errors import InputError, SettingsError, counted, listed
from sam2_fewshot.geometry.outlines import crop_to_object, mask_to_area, polygons_to_masks
from sam2_fewshot.images.addresses import composed, holds_zarr
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.stems import safe_stem
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import Detection, Location
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.files import check_free, replacing_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from sam2_fewshot.annotations.placing import PlacedExemplar
    from sam2_fewshot.images.image_file import ImageFile
    from sam2_fewshot.images.image_set import ImageSet
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Exemplar, InstanceMask

_LISTED = 5
_WHITE = 255
_FILES = {".png", ".roi", *(suffix for form in FORMATS.values() for suffix in form.suffixes)}
"""Endings of files, which no folder to write to has."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written.

    Parameters
    ----------
    files
        The files or folders, in order.
    objects
        Number of objects in them.
    frames
        Number of frames that the objects lie on.
    """

    files: Sequence[Path]
    objects: int
    frames: int


def convert(
    source: Path,
    out: Path,
    kind: str | None = None,
    images: Sequence[Path] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Read marked objects in any format that examples can have, and write them in another.

    Parameters
    ----------
    source
        File or folder, as for :func:`~sam2_fewshot.annotations.examples.read_examples`.
    out
        The file to write; for several images in a format of one image a file, the folder to write to.
    kind
        One of :data:`~sam2_fewshot.annotations.registry.NAMES`; None to go by the ending of `out`.
    images
        The images that the objects lie on. Without them their names and sizes are what the source tells.
    overwrite
        Replace what is there.
    progress
        Takes warnings: what could not be read, and what the new format cannot hold.

    Raises
    ------
    InputError
        If the source cannot be read, has no object that the format can hold, or does not tell what the format needs;
        or if something is there already.
    SettingsError
        If the format is not clear or not known.
    """
    progress = progress or Quiet()
    form = _chosen(out, kind)
    known = open_images(images, Settings(), progress=progress) if images else nominal_images(source, progress)
    placed = read_objects(source, known, progress, may_say=False)
    boxes = sum(item.exemplar.box is not None for item in placed)
    if boxes:
        is_or_are = "is a box" if boxes == 1 else "are boxes"
        progress.warn(f"{boxes} of {len(placed)} objects {is_or_are} without an outline, written as a rectangle.")
    are_exact = any(item.exemplar.mask is not None or item.instance is not None for item in placed)
    records: Sequence[FrameRecord] = _records(placed, known, progress)
    if form.name == "zarr":
        records = _without_numbers_of_planes(records, source)
    records = _fitting(records, form, progress, are_exact)
    stems = [record.stem for record in records]
    sources = [source, *(marked_files(source) if source.is_dir() and not holds_zarr(source) else ())]
    given = {os.path.realpath(part) for image in known for part in (image.path, *image.header.parts) if images}
    inputs = _Inputs(sources, lambda path: os.path.realpath(path) in given)
    return _written(records, stems, (), form, inputs, out, overwrite, progress, len(known))


def write_results(
    read: Callable[[], Iterable[FrameRecord]],
    tags: Sequence[str],
    source: Path,
    out: Path,
    kind: str | None,
    overwrite: bool = False,
    is_image: Callable[[Path], bool] = lambda path: False,
) -> Converted:
    """Write the results of a run in another format, as the run itself would have; one frame is in memory at a time.

    Parameters
    ----------
    read
        Reads all frames, in order of location. It is called twice, so that nothing is written where one is missing.
    tags
        Of all their objects.
    source
        The output folder that they are of.
    out, kind, overwrite
        As for :func:`convert`, which tells what is raised, too.
    is_image
        Tells whether a file is an image that was searched, which is never written over.
    """
    form = _chosen(out, kind)
    stems, lost = [], _Lost(form)
    for record in read():
        stems.append(safe_stem(record.stem))
        lost.count(record)
    if not stems:
        raise InputError(f"{source} holds no finished frame; run sam2-fewshot segment again.")
    lost.report(Quiet())
    # Beside label images the tags are written of each object.
    tagged = (
        replace(record, stem=safe_stem(record.stem), tags=(tuple(tags),) * len(record.detections)) for record in read()
    )
    inputs = _Inputs([source], is_image)
    return _written(tagged, stems, tags, form, inputs, out, overwrite, Quiet(), len(set(stems)))


class _Inputs:
    """What is read, and so never written over.

    Parameters
    ----------
    files
        Those with the objects.
    is_image
        Tells whether a file is an image that they lie on.
    """

    def __init__(self, files: Iterable[Path], is_image: Callable[[Path], bool]) -> None:
        self._files, self._is_image = set(map(os.path.realpath, files)), is_image

    def check(self, path: Path) -> None:
        """Refuse a path to write to."""
        if os.path.realpath(path) in self._files:
            raise InputError(f"{path} would be written over itself; give another name.")
        if self._is_image(path):
            raise InputError(f"{path} is the image itself, and would be written over; give another name or folder.")


def _written(
    records: Iterable[FrameRecord],
    stems: Sequence[str],
    tags: Sequence[str],
    form: Format,
    inputs: _Inputs,
    out: Path,
    overwrite: bool,
    progress: Progress,
    images: int,
) -> Converted:
    paths = _paths(out, form, images, stems)
    check = partial(check_free, overwrite=overwrite, is_own=form.optional("is_own") or (lambda folder: False))
    for path in paths.values():
        inputs.check(path)
        check(path)
    counts = []
    bare = []
    first, *others = paths.values()
    folder = first.parent  # of all of them
    # With some of the files there the same command would be refused.
    with replacing_together(folder, check, named=None if others else first) as temporary:
        places = {stem: temporary / path.name for stem, path in paths.items()}
        with form.begin(places.__getitem__, tags) as add:
            for record in records:
                add(record)
                counts.append(len(record.detections) + len(record.points))
                # What is written beside needs no more than the tags and the numbers.
                bare.append(replace(record, detections=(), below=(), points=(), examples=(), numbers=tuple(record.ids)))
        write_companions = form.optional("write_companions")
        if write_companions:
            write_companions(bare, places, folder, overwrite, progress)
    return Converted(list(paths.values()), sum(counts), sum(count > 0 for count in counts))


def read_records(source: Path) -> list[FrameRecord]:
    """Return the marked objects of a file as the records of their frames, without the images themselves.

    Parameters
    ----------
    source
        File or folder, as for :func:`convert`.

    Raises
    ------
    InputError
        If it cannot be read, or has no object.
    """
    images, progress = nominal_images(source), Quiet()
    return _records(read_objects(source, images, progress), images, progress)


def _chosen(out: Path, kind: str | None) -> Format:
    """Return the format to write, which the path must fit."""
    form = named_by(out) if kind is None else FORMATS.get(kind)
    if form is not None:
        if not _is_file(out, form) and not out.is_dir() and out.suffix.lower() in _FILES:
            endings = " or ".join(form.suffixes)
            raise SettingsError(f"{out.name} does not end as files of the format {form.name} do ({endings}).")
        form.check(form.suffixes[0] if form.per_image else form.result)
        return form
    known = ", ".join(NAMES)
    if kind is None:
        raise SettingsError(f"It is not clear from {out.name!r} in what format to write; say it with --to ({known}).")
    raise SettingsError(f"There is no format {kind[:40]!r}; --to takes {known}.")


def _records(placed: Sequence[PlacedExemplar], images: ImageSet, progress: Progress) -> list[FrameRecord]:
    """Return the objects as records; a warning says where they cannot have the numbers of their files."""
    frames: dict[Location, list[tuple[PlacedExemplar, InstanceMask | None]]] = defaultdict(list)
    for item, instance in zip(placed, _instances(placed), strict=True):
        frames[item.location].append((item, instance))
    used = {location.xy for location in frames}
    sizes = {xy: _planes(images[xy], [place for place in frames if place.xy == xy]) for xy in used}
    unclear = _unclear(frames, images, progress)
    records = []
    for location, found in sorted(frames.items()):
        image, (size_z, size_t) = images[location.xy], sizes[location.xy]
        outlined = [(item, instance) for item, instance in found if instance is not None]
        points = [(item, item.exemplar.point) for item, _ in found if item.exemplar.point is not None]
        records.append(
            FrameRecord(
                name=image.file_name,
                position=image.position,
                full_name=image.full_name,
                stem=image.stem,
                location=location,
                frame_shape=image.shape,
                size_z=size_z,
                size_t=size_t,
                detections=tuple(_detection(item, instance) for item, instance in outlined),
                pixel_size=image.header.pixel_size,
                channel_names=image.header.channel_names,
                tags=tuple(item.tags for item, _ in outlined),
                points=tuple(MarkedPoint(xy, item.tags) for item, xy in points),
                numbers=() if location.xy in unclear else tuple(item.number or 0 for item, _ in outlined),
            )
        )
    return records


def _without_numbers_of_planes(records: Sequence[FrameRecord], source: Path) -> list[FrameRecord]:
    """Leave out the numbers of a run's label images of several planes, in which those of each plane are counted from 1.

    In an OME-Zarr objects of different planes would be one.
    """
    folder = (source if source.is_dir() else source.parent).absolute()
    run = images_of_run(folder.parent) if FORMATS["labels"].is_kept_in(folder) else {}
    return [replace(it, numbers=()) if it.is_stack and composed(it.stem) in run else it for it in records]


def _unclear(
    frames: Mapping[Location, Sequence[tuple[PlacedExemplar, InstanceMask | None]]],
    images: ImageSet,
    progress: Progress,
) -> set[int]:
    """Return the images whose objects have no numbers that distinguish them on each frame; a warning says so.

    Nor have those that all have the number 255, which black-and-white masks have.
    """
    lost: dict[int, set[int]] = {}
    known: dict[int, set[int]] = defaultdict(set)
    for location, found in frames.items():
        given = [item.number for item, instance in found if instance is not None]
        usable = {number for number in given if number is not None and number <= LARGEST_NUMBER}
        known[location.xy] |= {number for number in given if number is not None}
        if len(usable) < len(given):
            lost[location.xy] = known[location.xy]
    # Of one number there is nothing to be said.
    renumbered = [images[xy].name for xy in sorted(lost) if len(lost[xy]) > 1]
    if renumbered:
        progress.warn(
            f"The objects of {listed(renumbered, _LISTED)} get new numbers, from 1 on: on some frame two have the same "
            f"number, or one has none, or one above {LARGEST_NUMBER:,}."
        )
    return set(lost) | {xy for xy, numbers in known.items() if numbers == {_WHITE}}


def _planes(image: ImageFile, places: Sequence[Location]) -> tuple[int, int]:
    """Return slices and time points of an image; what is needed, where nothing is known of it."""
    z = max(place.z for place in places) + 1 if image.size_z == UNKNOWN else image.size_z
    time = max(place.time for place in places) + 1 if image.size_t == UNKNOWN else image.size_t
    return z, time


def _outline(exemplar: Exemplar) -> Polygon | None:
    """Return the outline of an object, of a box its rectangle; None where a mask or a point says where it is."""
    return exemplar.polygon if exemplar.box is None else box(*exemplar.box)


def _instances(placed: Sequence[PlacedExemplar]) -> list[InstanceMask | None]:
    """Return the mask of each object, None for a point."""
    found = [item.instance if item.exemplar.mask is None else crop_to_object(item.exemplar.mask) for item in placed]
    outlines = [_outline(item.exemplar) for item in placed]
    bare = {i: outline for i, outline in enumerate(outlines) if found[i] is None and outline is not None}
    shapes = [placed[i].frame.shape for i in bare]
    for i, mask in zip(bare, polygons_to_masks(list(bare.values()), shapes), strict=True):
        found[i] = mask
    return found


def _detection(item: PlacedExemplar, instance: InstanceMask) -> Detection:
    figures = item.figures
    return Detection(
        instance,
        _outline(item.exemplar) or mask_to_area(instance),
        figures.score,
        figures.similarity,
        figures.predicted_iou,
        item.location,
        figures.kind,
    )


def _fitting(
    records: Sequence[FrameRecord], form: Format, progress: Progress, are_exact: bool
) -> Sequence[FrameRecord]:
    """Leave out what a format cannot hold, and report it; masks are exact unless all were drawn from outlines."""
    name = form.name
    unsized = [each.name for each in records if UNKNOWN in each.frame_shape]
    if unsized and form.needs_size:
        raise InputError(
            f"The format {name} needs the size of the image {unsized[0]}, which the annotations do not tell; "
            "give the image with --image."
        )
    # One with slices and time points is a hyperstack, whatever its channels.
    unknown = [each.name for each in records if not each.channel_names and (each.size_z > 1) != (each.size_t > 1)]
    if unknown and form.counts_channels:
        progress.warn(
            f"The channels of {unknown[0]} are not known, so its objects have a slice and a time point as in a "
            "hyperstack of ImageJ. For a plain stack, where ImageJ counts the pictures, give the image with --image."
        )
    points = sum(len(record.points) for record in records)
    if points and not form.has_points:
        records = [replace(record, points=()) for record in records if record.detections]
        if not records:
            raise InputError(f"There are only points, and the format {name} has no place for them.")
        progress.warn(f"Left out: {counted(points, 'point')}, for which the format {name} has no place.")
    if are_exact and not form.has_masks:
        items = [item for record in records for item in record.detections]
        drawn = polygons_to_masks([item.polygon for item in items], [item.instance.frame_shape for item in items])
        parts = sum(item.area > mask.area for item, mask in zip(items, drawn, strict=True))
        if parts:
            count = counted(parts, "object")
            progress.warn(f"Cut to the largest of several parts: {count}. The format {name} has outlines.")
    lost = _Lost(form)
    for record in records:
        lost.count(record)
    lost.report(progress)
    return records


class _Lost:
    """Counts what a format has no place for, record by record."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._holes = self._hidden = self._scores = 0
        self._has_numbers = False

    def count(self, record: FrameRecord) -> None:
        """Take the objects of a frame."""
        form, items = self._form, record.detections
        self._holes += 0 if form.has_holes else sum(bool(item.polygon.interiors) for item in items)
        self._scores += 0 if form.has_figures else sum(math.isfinite(item.score) for item in items)
        # Objects that are 1, 2, … in their order get these again.
        self._has_numbers |= not form.has_numbers and record.numbers != tuple(range(1, len(record.numbers) + 1))
        self._hidden += hidden_pixels(items, record.frame_shape) if form.is_painted else 0

    def report(self, progress: Progress) -> None:
        """Say what is left out."""
        name = self._form.name
        if self._holes:
            progress.warn(f"The holes of {counted(self._holes, 'outline')} are filled: the format {name} has none.")
        if self._scores:
            progress.warn(f"The scores are left out: the format {name} has no place for them.")
        if self._has_numbers:
            progress.warn(f"The numbers of the objects are left out: the format {name} has no place for them.")
        if self._hidden:
            progress.warn(
                f"Objects overlap in {self._hidden} px, which go to one of them: the format {name} has one object a "
                "pixel."
            )


def _is_file(out: Path, form: Format) -> bool:
    """Tell whether a path stands for a file of a format, and not for a folder to put such files into."""
    return out.suffix.lower() in form.suffixes and (not out.is_dir() or form.is_folder)


def _paths(out: Path, form: Format, images: int, all_stems: Sequence[str]) -> dict[str, Path]:
    """Return the file of each image, by its stem; of all images by an empty one, where they go into one file."""
    stems = list(dict.fromkeys(all_stems))
    is_file = _is_file(out, form)
    if form.per_image:
        if not is_file:
            return {stem: out / (stem + form.suffixes[0]) for stem in stems}
        if len(stems) > 1:
            raise InputError(
                f"The objects lie on {len(stems)} of {images} images, and this format has a file for each; give a "
                "folder instead of a file, and the format with --to."
            )
        return dict.fromkeys(stems, out)
    return {"": out if is_file else out / form.result}
