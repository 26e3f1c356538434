"""Marked objects from one file format to another."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from shapely import Polygon

from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.geometry.areas import mask_to_area
from sam2_fewshot.geometry.outlines import crop_to_object, polygon_to_mask
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.readers import open_images
from sam2_fewshot.readers.examples import read_objects
from sam2_fewshot.readers.nominal import UNKNOWN, nominal_images
from sam2_fewshot.records import Detection, Location
from sam2_fewshot.settings import Settings
from sam2_fewshot.writers.labels import paint
from sam2_fewshot.writers.names import safe_stems
from sam2_fewshot.writers.record import FrameRecord, MarkedPoint
from sam2_fewshot.writers.targets import TARGETS, Target
from sam2_fewshot.writers.whole import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.readers import ImageFile, ImageSet, PlacedExemplar

_FILES = {".png", ".json", ".roi", *(suffix for target in TARGETS.values() for suffix in target.suffixes)}
_SUFFIXES = {suffix: name for name, target in TARGETS.items() for suffix in target.suffixes if suffix != ".json"}


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
        File or folder, as for :func:`~sam2_fewshot.readers.read_examples`; or the results of a run, of which the
        outlines in ``geojson/`` are taken.
    out
        The file to write; for several images in a format of one image a file, the folder to write to.
    kind
        One of :data:`~sam2_fewshot.writers.targets.TARGETS`; None to go by the ending of `out`.
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
    if (source / "run.json").is_file() and (source / "geojson").is_dir():  # results of a run; its outlines say all
        source = source / "geojson"
    name, target = _target(out, kind)
    if not _is_file(out, target) and not out.is_dir() and out.suffix.lower() in _FILES:
        endings = " or ".join(target.suffixes)
        raise SettingsError(f"{out.name} does not end as files of the format {name} do ({endings}).")
    target.check()
    known = open_images(images, Settings(), progress=progress) if images else nominal_images(source)
    placed = read_objects(source, known, progress)
    records = _records(placed, known)
    if target.needs_size:
        _check_sizes(records, name)
    records = _fitting(records, name, target, progress)
    paths = _paths(out, target, known, records)
    for path in paths.values():
        _check_place(path, source, overwrite)
    _write(records, target, paths)
    if name == "labels":
        _write_classes(records, paths, overwrite, progress)
    objects = sum(len(record.detections) + len(record.points) for record in records)
    return Converted(list(dict.fromkeys(paths.values())), objects, len(records))


def _target(out: Path, kind: str | None) -> tuple[str, Target]:
    if kind is None:
        kind = _SUFFIXES.get(out.suffix.lower())
        if out.suffix.lower() == ".json":
            kind = "coco" if "coco" in out.stem.lower() else "nimbus" if out.stem.lower() == "annotations" else None
    known = ", ".join(TARGETS)
    if kind is None:
        raise SettingsError(f"It is not clear from {out.name!r} in what format to write; say it with --to ({known}).")
    if kind not in TARGETS:
        raise SettingsError(f"There is no format {kind[:40]!r}; --to takes {known}.")
    return kind, TARGETS[kind]


@dataclass(slots=True)
class _Frame:
    """What is gathered about a frame before its record is made."""

    detections: list[Detection] = field(default_factory=list)
    tags: list[tuple[str, ...]] = field(default_factory=list)
    points: list[MarkedPoint] = field(default_factory=list)


def _records(placed: Sequence[PlacedExemplar], images: ImageSet) -> list[FrameRecord]:
    frames: dict[Location, _Frame] = defaultdict(_Frame)
    for item in placed:
        frame, exemplar = frames[item.location], item.exemplar
        if exemplar.point is not None:
            frame.points.append(MarkedPoint(exemplar.point, item.tags))
            continue
        frame.detections.append(_detection(item))
        frame.tags.append(item.tags)
    stems = safe_stems([image.stem for image in images])
    used = {location.xy for location in frames}
    sizes = {xy: _planes(images[xy], [place for place in frames if place.xy == xy]) for xy in used}
    return [
        FrameRecord(
            name=images[location.xy].name,
            stem=stems[location.xy],
            location=location,
            frame_shape=images[location.xy].shape,
            size_z=sizes[location.xy][0],
            size_t=sizes[location.xy][1],
            detections=tuple(frame.detections),
            pixel_size=images[location.xy].pixel_size,
            channel_names=images[location.xy].channel_names,
            tags=tuple(frame.tags),
            points=tuple(frame.points),
        )
        for location, frame in sorted(frames.items())
    ]


def _planes(image: ImageFile, places: Sequence[Location]) -> tuple[int, int]:
    """Return slices and time points of an image; what is needed, where nothing is known of it."""
    z = max(place.z for place in places) + 1 if image.size_z == UNKNOWN else image.size_z
    time = max(place.time for place in places) + 1 if image.size_t == UNKNOWN else image.size_t
    return z, time


def _detection(item: PlacedExemplar) -> Detection:
    exemplar, shape = item.exemplar, item.frame.shape
    polygon, instance = exemplar.polygon, item.instance
    if exemplar.mask is not None:
        instance = crop_to_object(exemplar.mask)
    if instance is None:
        instance = polygon_to_mask(polygon or Polygon(), shape)
    figures = item.figures
    return Detection(
        instance,
        polygon or mask_to_area(instance),
        figures.score,
        figures.similarity,
        figures.predicted_iou,
        item.location,
    )


def _check_sizes(records: Sequence[FrameRecord], name: str) -> None:
    for record in records:
        if UNKNOWN in record.frame_shape:
            raise InputError(
                f"The format {name} needs the size of the image {record.name}, which the annotations do not tell; "
                "give the image with --image."
            )


def _fitting(records: Sequence[FrameRecord], name: str, target: Target, progress: Progress) -> list[FrameRecord]:
    """Leave out what a format cannot hold, and say so."""
    points = sum(len(record.points) for record in records)
    if points and not target.has_points:
        records = [replace(record, points=()) for record in records if record.detections]
        if not records:
            raise InputError(f"There are only points, and the format {name} has no place for them.")
        progress.warn(f"Left out: {_counted(points, 'point')}, for which the format {name} has no place.")
    items = [item for record in records for item in record.detections]
    if not target.has_holes:
        holes = sum(bool(item.polygon.interiors) for item in items)
        if holes:
            progress.warn(f"The holes of {_counted(holes, 'outline')} are filled: the format {name} has none.")
    if not target.has_masks:
        parts = sum(item.area > polygon_to_mask(item.polygon, item.instance.frame_shape).area for item in items)
        if parts:
            count = _counted(parts, "object")
            progress.warn(f"Cut to the largest of several parts: {count}. The format {name} has outlines.")
    if not target.has_figures and any(np.isfinite(item.score) for item in items):
        progress.warn(f"The scores are left out: the format {name} has no place for them.")
    if target.is_painted:
        hidden = sum(
            sum(i.area for i in r.detections) - np.count_nonzero(paint(r.detections, r.frame_shape)) for r in records
        )
        if hidden:
            progress.warn(
                f"Objects overlap in {hidden} px, which go to one of them: the format {name} has one object a pixel."
            )
    return list(records)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _is_file(out: Path, target: Target) -> bool:
    """Tell whether a path stands for a file of a format, and not for a folder to put such files into."""
    return out.suffix.lower() in target.suffixes and (not out.is_dir() or target.is_folder)


def _paths(out: Path, target: Target, images: ImageSet, records: Sequence[FrameRecord]) -> dict[str, Path]:
    """Return the file of each image, by its stem; the same for all, where all images go into one file."""
    stems = list(dict.fromkeys(record.stem for record in records))
    is_file = _is_file(out, target)
    if target.per_image:
        if not is_file:
            return {stem: out / (stem + target.suffixes[0]) for stem in stems}
        if len(stems) > 1:
            raise InputError(
                f"The objects lie on {len(stems)} of {len(images)} images, and this format has a file for each; give a "
                "folder instead of a file, and the format with --to."
            )
        return dict.fromkeys(stems, out)
    path = out if is_file else out / target.name
    return dict.fromkeys(stems, path)


def _check_place(path: Path, source: Path, overwrite: bool) -> None:
    if os.path.realpath(path) == os.path.realpath(source):
        raise InputError(f"{path} would be written over itself; give another name.")
    if path.is_dir():
        raise InputError(f"{path} is there already and is a folder; give another name, or delete it first.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; give another name, or --overwrite.")


def _write(records: Sequence[FrameRecord], target: Target, paths: dict[str, Path]) -> None:
    with ExitStack() as stack:
        adds = {}
        for record in records:
            path = paths[record.stem]
            if path not in adds:
                adds[path] = stack.enter_context(target.begin(path, record))
            adds[path](record)


def _write_classes(records: Sequence[FrameRecord], paths: dict[str, Path], overwrite: bool, progress: Progress) -> None:
    """Write the classes of a label image's objects beside it, as examples are read."""
    for stem, path in paths.items():
        tags: dict[int, set[tuple[str, ...]]] = defaultdict(set)
        for record in records:
            if record.stem == stem:
                for number, own in enumerate(record.tags, start=1):
                    tags[number].add(own)
        if not any(own for found in tags.values() for own in found):
            continue
        beside = path.with_name(f"{path.stem}_classes.json")
        if any(len(found) > 1 for found in tags.values()):
            progress.warn(f"The classes of {path.name} are left out: objects of one number differ from plane to plane.")
        elif beside.exists() and not overwrite:
            progress.warn(f"{beside.name} is there already and was left as it is; the classes were not written.")
        else:
            table = {str(number): list(next(iter(found))) for number, found in tags.items()}
            with replacing(beside) as temporary:
                temporary.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
