"""The examples a user marked, from whatever file they are in."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_fewshot.annotations.coco import is_coco, read_coco
from sam2_fewshot.annotations.geojson import features_of, read_features
from sam2_fewshot.annotations.imagej import ROI_SUFFIXES, read_rois
from sam2_fewshot.annotations.label_images import LABEL_SUFFIXES, read_labels, sidecar
from sam2_fewshot.annotations.nimbus import annotations_of, figures_of, read_annotations
from sam2_fewshot.annotations.ome_zarr import image_path, read_zarr_labels
from sam2_fewshot.annotations.placing import PlacedExemplar, Placer, Remarks
from sam2_fewshot.annotations.values import load_json
from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.images.addresses import holds_zarr, natural_key, stem_of
from sam2_fewshot.images.registry import IMAGE_SUFFIXES, example_stems
from sam2_fewshot.images.source import kind_of, reading
from sam2_fewshot.protocols import Quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.images.image_set import ImageFile, ImageSet
    from sam2_fewshot.protocols import Progress

_JSON_SUFFIXES = frozenset({".json", ".geojson"})
SINGLE_SUFFIXES = LABEL_SUFFIXES | _JSON_SUFFIXES | ROI_SUFFIXES
"""Endings of files that can hold examples; an OME-Zarr is a folder."""

_KINDS = (
    "a label image (PNG, TIFF, OME-Zarr), a QuPath GeoJSON, ImageJ ROIs (.roi, .zip), COCO or a NimbusImage JSON export"
)


def read_examples(
    path: Path | str,
    images: ImageSet,
    training_tag: str | None = None,
    negative_tag: str | None = None,
    progress: Progress | None = None,
) -> list[PlacedExemplar]:
    """Read examples and put each on its frame.

    Parameters
    ----------
    path
        A label image (PNG, TIFF, OME-Zarr), a QuPath GeoJSON, ImageJ ROIs, COCO, or a NimbusImage JSON export; or a
        folder with files named after the images, such as ``a_labels.png``, ``a.geojson`` or ``a_rois.zip`` for
        ``a.tif``. A single file that is named after none of the images belongs to the image if only one was given;
        COCO and a NimbusImage export say themselves where their objects lie.
    images
        The images that were given.
    training_tag
        Take the objects with this tag or class (in this very spelling, or else in any letter case). None takes
        all that do not carry `negative_tag`.
    negative_tag
        Take the objects with this tag or class as examples of what is not wanted.
    progress
        Takes warnings: about objects that are left out, mended, or doubtful.

    Returns
    -------
    list of PlacedExemplar
        In the order XY, Z, Time and then that of the file; at least one is positive.

    Raises
    ------
    InputError
        If there is no such file, or if it has no example that can be used.
    SettingsError
        If both tags are the same.
    """
    progress = progress or Quiet()
    training_tag, negative_tag = training_tag or None, negative_tag or None
    if training_tag is not None and training_tag == negative_tag:
        raise SettingsError(f"Training tag and negative tag are both {training_tag!r}; they must differ.")
    path = Path(path)
    tagged = training_tag is not None or negative_tag is not None
    placed = read_objects(path, images, progress, tagged)
    chosen = _choose(placed, path.name, training_tag, negative_tag, progress)
    return sorted(chosen, key=lambda example: example.location)


def read_objects(path: Path, images: ImageSet, progress: Progress, tagged: bool = False) -> list[PlacedExemplar]:
    """Read all marked objects and put each on its frame, whatever their tags.

    Parameters
    ----------
    path, images, progress
        As for :func:`read_examples`.
    tagged
        True when tags are asked for, so that a label image must come with its classes.

    Raises
    ------
    InputError
        If there is no such file, or if it has no object that can be used.
    """
    placed: list[PlacedExemplar] = []
    all_remarks: list[Remarks] = []
    for file, image in _files(path, images, progress):
        remarks = Remarks(file.name, progress)
        placed += _read(file, image, Placer(images, remarks), tagged)
        all_remarks.append(remarks)
    if not placed:  # the one sentence says why, so no warnings come before it
        reasons = {remarks.file: remarks.left_out() for remarks in all_remarks}
        told = [f"{file}: {why}" if len(reasons) > 1 else why for file, why in reasons.items() if why]
        why = "; ".join(told) or "it has no objects"
        raise InputError(f"No example in {path.name} can be used: {why}.")
    for remarks in all_remarks:
        remarks.tell()
    return placed


def _files(path: Path, images: ImageSet, progress: Progress) -> list[tuple[Path, ImageFile | None]]:
    """Return the files to read, each with its image; None where the file says it itself."""
    kind = kind_of(path)
    if kind == "missing":
        raise InputError(f"There is no file or folder {path} with examples; check its name.")
    if kind == "file":
        if _is_image(path, images):
            raise InputError(f"{path.name} is given both as examples and as an image; leave it out of the images.")
        return [(path, _image_of(path, images))]
    if holds_zarr(path):
        return [(path, _image_of(image_path(path), images))]
    with reading(path):
        found = [file for file in path.iterdir() if file.suffix.lower() in SINGLE_SUFFIXES or holds_zarr(file)]
    files = sorted(found, key=natural_key)
    files = [file for file in files if not file.name.startswith(".") and not _is_image(file, images)]
    matched = [(file, image) for file in files if (image := _image_of(file, images)) is not None]
    tables = {sidecar(file) for file, _ in matched if file.suffix.lower() in LABEL_SUFFIXES}
    matched = [(file, image) for file, image in matched if file not in tables]
    if not matched:
        stem = images[0].stem
        raise InputError(
            f"No file in the folder {path} is named after an image; for {images[0].name} it would be, for instance, "
            f"{stem}_labels.png, {stem}_labels.tif, {stem}.geojson or {stem}.json."
        )
    others = len(files) - len(matched) - len(tables - {None})
    if others:
        count = "1 file was" if others == 1 else f"{others} files were"
        progress.warn(f"{count} passed over in {path}: named after none of the images.")
    return [*matched]


def _image_of(path: Path, images: ImageSet) -> ImageFile | None:
    """Return the image that a file is named after, None when there is none."""
    by_stem = {image.stem: image for image in images}
    for stem in example_stems(path):
        if stem in by_stem:
            return by_stem[stem]
    return None


def _is_image(path: Path, images: ImageSet) -> bool:
    real = os.path.realpath(path)
    return any(os.path.realpath(image.path) == real for image in images)


def _read(path: Path, image: ImageFile | None, placer: Placer, tagged: bool) -> list[PlacedExemplar]:
    suffix = path.suffix.lower()
    if path.is_dir():
        return list(read_zarr_labels(path, _only(image_path(path), image, placer), placer))
    if suffix in ROI_SUFFIXES:
        return list(read_rois(path, _only(path, image, placer), placer))
    if suffix in LABEL_SUFFIXES:
        target = _only(path, image, placer)
        if tagged and sidecar(path) is None:
            raise InputError(
                f"{path.name} is a label image, which has no tags; leave the tag out, or put a file "
                f'{path.stem}_classes.json like {{"1": "living", "2": "dead"}} beside it.'
            )
        return list(read_labels(path, target, placer))
    if suffix not in _JSON_SUFFIXES:
        reason = "JPEG changes the numbers in a label image" if suffix in {".jpg", ".jpeg"} else "it is not known"
        raise InputError(f"{path.name} cannot give examples ({reason}); they are read from {_KINDS}.")
    content = load_json(path)
    annotations = annotations_of(content)
    if annotations is not None:
        return list(read_annotations(annotations, placer, figures_of(content)))
    features = features_of(content)
    if features is not None:
        return list(read_features(features, _only(path, image, placer).xy, placer))
    if is_coco(content):
        only = placer.images[0] if len(placer.images) == 1 else None
        return list(read_coco(content, image or only, placer))
    raise InputError(f"{path.name} is JSON of another kind; examples are read from {_KINDS}.")


def _only(path: Path, image: ImageFile | None, placer: Placer) -> ImageFile:
    """Return the image that a file's objects lie on: the one it is named after, else the only one."""
    if image is not None:
        return image
    images = placer.images
    if len(images) == 1:
        other = _other_image(path, images[0])
        if other is not None:
            placer.remarks.say(
                f"{path.name} is named after {other}, but its objects are taken to lie on {images[0].name}. If they "
                f"were marked on {other}, give both images; --batch-xy chooses which of them are searched."
            )
        return images[0]
    stem = images[0].stem + ("_labels" if path.suffix.lower() in LABEL_SUFFIXES else "")
    raise InputError(
        f"It is not clear to which of the {len(images)} images {path.name} belongs; name it after its image, "
        f"for instance {stem}{path.suffix} for {images[0].name}."
    )


def _other_image(path: Path, given: ImageFile) -> str | None:
    """Return the name of an image that lies there, was not given, and is what a file of examples is named after."""
    for folder in (path.parent, given.path.parent):
        if not folder.is_dir():  # the image is on the web
            continue
        with reading(folder):
            beside = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file != path]
        for stem in example_stems(path):
            names = sorted(file.name for file in beside if stem_of(file) == stem)
            if names:
                return names[0]
    return None


def _choose(
    placed: Sequence[PlacedExemplar], file: str, training: str | None, negative: str | None, progress: Progress
) -> list[PlacedExemplar]:
    counts = Counter(chain.from_iterable(example.tags for example in placed))
    wanted = _spellings(training, counts, file, len(placed))
    unwanted = _spellings(negative, counts, file, len(placed))
    chosen: list[PlacedExemplar] = []
    both = 0
    for example in placed:
        is_unwanted = bool(unwanted & set(example.tags))
        is_wanted = bool(wanted & set(example.tags)) if training is not None else not is_unwanted
        if is_wanted and is_unwanted:
            both += 1
        elif is_unwanted:
            chosen.append(replace(example, exemplar=replace(example.exemplar, negative=True)))
        elif is_wanted:
            chosen.append(example)
    if both:
        count, were = ("1 object", "was") if both == 1 else (f"{both} objects", "were")
        progress.warn(f"{file}: {count} with both {training!r} and {negative!r} {were} left out.")
    if all(example.exemplar.negative for example in chosen):
        raise InputError(f"{file} has no example left of what is wanted: all its objects carry {negative!r}.")
    return chosen


def _spellings(tag: str | None, counts: Counter[str], file: str, total: int) -> set[str]:
    """Return the tags in the file that are meant by a tag."""
    if tag is None:
        return set()
    if tag in counts:
        return {tag}
    alike = {known for known in counts if known.casefold() == tag.strip().casefold()}
    if alike:
        return alike
    there = ", ".join(f"{known!r} ({n})" for known, n in counts.most_common(20)) or "none"
    whose = "its only object" if total == 1 else f"its {total} objects"
    raise InputError(f"No object in {file} has the tag {tag!r}. The tags of {whose} are: {there}.")
