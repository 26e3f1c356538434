"""What is to be evaluated, read from files: label images, folders of them, and output folders of this program."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.annotations.label_bands import as_numbers, has_one_number
from sam2_fewshot.annotations.label_images import read_classes
from sam2_fewshot.annotations.registry import FORMATS
from sam2_fewshot.errors import InputError
from sam2_fewshot.evaluation.figures import EvaluatedFrame
from sam2_fewshot.evaluation.matching import label_image_to_instances
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.images.addresses import natural_key
from sam2_fewshot.images.image_set import LARGE
from sam2_fewshot.images.registry import example_stems, open_source
from sam2_fewshot.images.source import kind_of, reading
from sam2_fewshot.images.stems import safe_stem
from sam2_fewshot.output.finished import read_finished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.label_images import Classes
    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import InstanceMask

_LISTED = 3


@dataclass(frozen=True, eq=False)
class Pair:
    """A plane with its detections and its true objects.

    Parameters
    ----------
    frame
        Both.
    shape
        ``(height, width)`` in pixels.
    picture
        A JPEG of the plane, None where there is none.
    """

    frame: EvaluatedFrame
    shape: tuple[int, int]
    picture: Path | None


@dataclass(frozen=True, eq=False)
class _Plane:
    """One side of a pair."""

    shape: tuple[int, int]
    masks: Sequence[InstanceMask]
    scores: Sequence[float] | None = None
    below: Sequence[tuple[InstanceMask, float]] = ()
    examples: Sequence[InstanceMask] = ()
    picture: Path | None = None


def read_pairs(predicted: Path, truth: Path, progress: Progress, tag: str | None = None) -> Iterator[Pair]:
    """Yield the planes that are on both sides, one at a time.

    Parameters
    ----------
    predicted, truth
        Each a label image, a folder of label images, or an output folder of this program. Files belong together that
        are named after the same image (``a.tif`` and ``a_labels.png``); two single files do in any case. In an output
        folder the examples are known and not evaluated.
    progress
        Takes warnings, of planes that only one side has.
    tag
        Of the truth, only objects of this class, as the ``_classes.json`` beside a label image says.

    Raises
    ------
    InputError
        If something cannot be read, has another size than its counterpart, or nothing belongs together.
    """
    here, there = _sources(predicted), _sources(truth)
    if len(here) == len(there) == 1 and predicted.is_file() and truth.is_file():
        common = {next(iter(here)): next(iter(there))}
    else:
        common = _together(here, there)
    if not common:
        raise InputError(
            f"Nothing in {predicted} ({_some(here)}) is named after the same image as anything in {truth} "
            f"({_some(there)}). Name the files alike, such as a.tif and a_labels.tif."
        )
    for side, others, path in ((here, common.keys(), predicted), (there, common.values(), truth)):
        alone = [stem for stem in side if stem not in others]
        if alone:
            progress.warn(f"Not evaluated, because only {path} has them: {_some(alone)}.")
    for stem, other in common.items():
        yield from _planes_of(stem, here[stem].planes, there[other].planes, progress, tag)


@dataclass(frozen=True, eq=False)
class _Image:
    """One side of all planes of an image.

    Parameters
    ----------
    names
        Stems of files that are named after it, the likeliest first.
    planes
        A label image, or the planes in an output folder by slice and time point, counted from 0.
    """

    names: Sequence[str]
    planes: Path | dict[tuple[int, int], _Plane]


def _sources(path: Path) -> dict[str, _Image]:
    kind = kind_of(path)
    if kind == "missing":
        raise InputError(f"There is no file or folder {path}; check its name.")
    if kind == "file":
        return {example_stems(path)[-1]: _Image(example_stems(path), path)}
    if (path / "run.json").is_file():
        return _results(path)
    endings = FORMATS["labels"].reads
    with reading(path):
        files = sorted((file for file in path.iterdir() if file.suffix.lower() in endings), key=natural_key)
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if not file.name.startswith("."):
            found[example_stems(file)[-1]].append(file)
    if not found:
        raise InputError(f"There are no label images (PNG, TIFF) and no results of sam2-fewshot in {path}.")
    chosen = {stem: _labels_of(path, stem, some) for stem, some in found.items()}
    return {stem: _Image(example_stems(file), file) for stem, file in chosen.items()}


def _results(out: Path) -> dict[str, _Image]:
    """Return the images in an output folder by their stems there; the file's name stands for its only position too."""
    finished = read_finished(out)
    planes: dict[str, dict[tuple[int, int], _Plane]] = defaultdict(dict)
    files: dict[str, set[str]] = defaultdict(set)
    for record in finished.records(with_examples=True):
        planes[record.stem][record.location.z, record.location.time] = _recorded(record, finished.preview(record))
        files[record.name].add(record.stem)
    alone = {next(iter(stems)): name for name, stems in files.items() if len(stems) == 1}
    return {
        stem: _Image((stem, *(example_stems(Path(alone[stem])) if stem in alone else ())), own)
        for stem, own in planes.items()
    }


def _together(here: Mapping[str, _Image], there: Mapping[str, _Image]) -> dict[str, str]:
    """Return which images of two sides are the same: the likeliest names go first, each image is taken once.

    Names are compared as they are, then those of one side as results are called, which not all letters are fit for.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    as_they_are = _by_name(there, str)
    for names, key in ((as_they_are, str), (as_they_are, safe_stem), (_by_name(there, safe_stem), str)):
        for rank in range(max(len(image.names) for image in here.values())):
            for stem, image in here.items():
                other = names.get(key(image.names[rank])) if rank < len(image.names) else None
                if stem not in found and other is not None and other not in taken:
                    found[stem] = other
                    taken.add(other)
    return {stem: found[stem] for stem in here if stem in found}


def _by_name(side: Mapping[str, _Image], key: Callable[[str], str]) -> dict[str, str]:
    """Return the stems of images by all their names, the likeliest first."""
    ranked = [(rank, key(name), stem) for stem, image in side.items() for rank, name in enumerate(image.names)]
    names: dict[str, str] = {}
    for _, name, stem in sorted(ranked, key=lambda entry: entry[0]):
        names.setdefault(name, stem)
    return names


def _labels_of(folder: Path, stem: str, files: Sequence[Path]) -> Path:
    """Return the file that holds the labels: beside ``a.png`` it is ``a_labels.png``."""
    named = [file for file in files if len(example_stems(file)) > 1]
    chosen = named if len(files) > 1 else files
    if len(chosen) != 1:
        names = ", ".join(file.name for file in files[:_LISTED])
        raise InputError(f"It is not clear which file in {folder} has the labels of {stem}: {names}. Keep one of them.")
    return chosen[0]


_Planes = Path | dict[tuple[int, int], _Plane]
"""A label image, or the planes of an image in an output folder by slice and time point, counted from 0."""


def _planes_of(stem: str, here: _Planes, there: _Planes, progress: Progress, tag: str | None) -> Iterator[Pair]:
    found, true = _planes(here, None, progress), _planes(there, tag, progress)
    found, true = _pages_as_times(found, true), _pages_as_times(true, found)
    common = [place for place in found if place in true]
    if not common:
        raise InputError(f"The truth of {stem} has none of the slices and time points that were searched.")
    if len(common) < max(len(found), len(true)):
        progress.warn(f"{stem}: only {len(common)} planes are on both sides; the others are not evaluated.")
    for z, t in common:
        name = stem + (f" Z {z + 1} Time {t + 1}" if z or t else "")
        left, right = found[z, t], true[z, t]
        if left.shape != right.shape:
            (h, w), (height, width) = left.shape, right.shape
            raise InputError(f"{name} is {w} × {h} px, but its truth is {width} × {height} px; they must be the same.")
        frame = EvaluatedFrame(name, left.masks, right.masks, left.scores, left.below, left.examples)
        yield Pair(frame, left.shape, left.picture)


def _pages_as_times(
    side: dict[tuple[int, int], _Plane], other: dict[tuple[int, int], _Plane]
) -> dict[tuple[int, int], _Plane]:
    """Return planes by slice and time; pages without a meaning of their own are time points where the others are.

    A file that does not say what its pages are counts as slices, as where examples are read.
    """
    of_times = all(z == 0 for z, _ in other) and 0 < max((t for _, t in other), default=0) < len(side)
    if of_times and all(t == 0 for _, t in side):
        return {(0, z): plane for (z, _), plane in side.items()}
    return side


def _planes(source: _Planes, tag: str | None, progress: Progress) -> dict[tuple[int, int], _Plane]:
    return dict(_labels(source, tag, progress)) if isinstance(source, Path) else source


def _recorded(record: FrameRecord, picture: Path) -> _Plane:
    found = [detection for detection in record.detections if not detection.is_marked]
    marked = [detection.instance for detection in record.detections if detection.is_marked]
    outlined = [polygon_to_mask(mark.outline, record.frame_shape) for mark in record.examples if mark.is_object]
    return _Plane(
        shape=record.frame_shape,
        masks=[detection.instance for detection in found],
        scores=[detection.score for detection in found],
        below=[(detection.instance, detection.score) for detection in record.below],
        examples=[*marked, *outlined],
        picture=picture if picture.is_file() else None,
    )


def _labels(path: Path, tag: str | None, progress: Progress) -> Iterator[tuple[tuple[int, int], _Plane]]:
    source = open_source(path)
    header = source.header
    classes = read_classes(path)
    wanted = None if tag is None else _wanted(path, classes, tag)

    @cache  # each plane of a black-and-white stack asks it of the same number
    def is_mask(number: int) -> bool:
        return has_one_number(source, number, LARGE)

    for t in range(header.size_t):
        for z in range(header.size_z):
            labels = as_numbers(header, list(source.planes(z, t)))
            if wanted is not None:
                labels = np.where(np.isin(labels, wanted), labels, 0)
            elif classes is None:
                labels = _separated(labels, is_mask, path, progress)
            yield (z, t), _Plane((header.height, header.width), label_image_to_instances(labels))


def _wanted(path: Path, classes: Classes | None, tag: str) -> list[int]:
    """Return the numbers of the objects of a class."""
    if classes is None:
        raise InputError(
            f"{path.name} has no classes; put a file {path.stem}_classes.json beside it, or leave out --tag."
        )
    if not any(tag in tags for tags in classes.values()):
        known = ", ".join(sorted({name for tags in classes.values() for name in tags})) or "none"
        raise InputError(f"No object of {path.name} has the class {tag!r}; there are: {known}.")
    return [number for number, tags in classes.items() if tag in tags]


def _separated(
    labels: NDArray[np.integer], is_mask: Callable[[int], bool], path: Path, progress: Progress
) -> NDArray[np.integer]:
    """Return labels of a plane; those of a black-and-white mask are its connected parts."""
    from scipy import ndimage

    numbers = np.unique(labels[labels > 0])
    if numbers.size != 1:
        return labels
    parts, count = ndimage.label(labels > 0, np.ones((3, 3)))
    if count == 1 or not is_mask(int(numbers[0])):
        return labels
    progress.warn(f"{path.name} is taken as a black-and-white mask: each of its {count} parts is an object.")
    separated: NDArray[np.integer] = parts
    return separated


def _some(stems: Iterable[str]) -> str:
    names = list(stems)
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
