"""What is to be evaluated, read from files: label images, folders of them, and output folders of this program."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sam2_fewshot.annotations.examples import marked_files
from sam2_fewshot.annotations.label_bands import objects_of, put_together
from sam2_fewshot.annotations.label_images import read_classes
from sam2_fewshot.annotations.named import Entry, images_of_run, shared_folders
from sam2_fewshot.annotations.record import frame_title
from sam2_fewshot.annotations.registry import FORMATS, READ_SUFFIXES
from sam2_fewshot.errors import InputError, command_line, counted, listed
from sam2_fewshot.evaluation.figures import EvaluatedFrame
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.images.addresses import composed, natural_key, position_stem, stem_of
from sam2_fewshot.images.image_file import LARGE
from sam2_fewshot.images.registry import example_stems, open_source
from sam2_fewshot.images.source import kind_of, reading
from sam2_fewshot.images.stems import safe_stem, safe_stems
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.records import Location

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set

    from sam2_fewshot.annotations.label_images import Classes
    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.output.finished import Finished
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
    stem
        What to call its files, without ending.
    shape
        ``(height, width)`` in pixels.
    picture
        Where a JPEG of the plane is, or would be; None for a plane of a label image.
    """

    frame: EvaluatedFrame
    stem: str
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
    unwanted: Sequence[InstanceMask] = ()
    picture: Path | None = None


_Planes = Path | dict[tuple[int, int], _Plane]
"""A label image, or the planes of an image in an output folder by slice and time point, counted from 0."""


def read_pairs(predicted: Path, truth: Path, progress: Progress, tag: str | None = None) -> Iterator[Pair]:
    """Yield the planes that are on both sides, one at a time.

    Parameters
    ----------
    predicted, truth
        Each a label image, a folder of label images, or of folders of them, or an output folder of this program. Files
        belong together that are named after the same image (``a.tif`` and ``a_labels.png``), of images that share a
        name those in folders that are called the same; two single files do in any case. In an output folder the
        examples are known and not evaluated.
    progress
        Takes warnings, of planes that only one side has.
    tag
        Of the truth, only objects of this class, as the ``_classes.json`` beside a label image says.

    Raises
    ------
    InputError
        If something cannot be read, has another size than its counterpart, or nothing belongs together.
    """
    here, there = _sources(predicted, truth), _sources(truth, predicted)
    if len(here) == len(there) == 1 and predicted.is_file() and truth.is_file():
        common = {next(iter(here)): next(iter(there))}
    else:
        common = _together(here, there)
    if not common:
        raise InputError(
            f"Nothing in {predicted} ({_some(here.values())}) is named after the same image as anything in {truth} "
            f"({_some(there.values())}). Name the files alike, such as a.tif and a_labels.tif."
        )
    for side, others, path in ((here, common.keys(), predicted), (there, common.values(), truth)):
        alone = [image for stem, image in side.items() if stem not in others]
        if alone:
            progress.warn(f"Not evaluated, because only {path} has them: {_some(alone)}.")
    for stem, other in common.items():
        yield from _planes_of(stem, here[stem], there[other], progress, tag)


@dataclass(frozen=True, eq=False)
class _Image:
    """One side of all planes of an image.

    Parameters
    ----------
    title
        What to call it.
    entry
        The image's file where results tell it, with folders where several images have that name; else the label image.
    names
        Stems of files that are named after it, the likeliest first.
    planes
        Of this side.
    searched
        Slice and time point of each plane that a run has searched beside whose results the labels lie; else None.
    is_result
        Whether they are such results, and not only in another folder there, as the truth may be.
    """

    title: str
    entry: Entry
    names: Sequence[str]
    planes: _Planes
    searched: Set[tuple[int, int]] | None = None
    is_result: bool = True


def _sources(path: Path, other: Path) -> dict[str, _Image]:
    """Return the images in a file or folder; those that the other side was found in are no labels."""
    kind = kind_of(path)
    if kind == "missing":
        raise InputError(f"There is no file or folder {path}; check its name.")
    finished = read_finished(other) if (other / "run.json").is_file() else None
    if kind == "file":
        if finished and finished.has_searched(path):
            raise InputError(
                f"{path} is one of the images that were searched for {other}; give a label image of its true objects."
            )
        if _has_outlines(path):
            hint = _to_convert(path, f"{stem_of(path)}_labels.tif")
            raise InputError(f"{path} is no label image (PNG, TIFF). {hint}")
        return _label_images({example_stems(path)[-1]: path})
    if (path / "run.json").is_file():
        return _results(path)
    found = _in_folder(path, finished) or _in_subfolders(path, finished)
    if not found:
        what = f"There are no label images (PNG, TIFF) and no results of sam2-fewshot in {path}."
        if any(map(_has_outlines, marked_files(path))):
            what += f" {_to_convert(path, 'labels', '--to', 'labels')}"
        raise InputError(what)
    return found


def _has_outlines(path: Path) -> bool:
    """Tell whether a file can give marked objects, but is no label image, by its ending."""
    suffix = path.suffix.lower()
    return suffix in READ_SUFFIXES and suffix not in FORMATS["labels"].reads


def _to_convert(path: Path, *out: str) -> str:
    command = command_line(["sam2-fewshot", "convert", str(path), *out, "--image"])
    return f"Convert the objects that are marked there first: {command} IMAGES"


def _in_folder(folder: Path, finished: Finished | None) -> dict[str, _Image]:
    """Return the label images in a folder by their stems, those left out that were searched."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in _entries(folder):
        if file.suffix.lower() in FORMATS["labels"].reads and not (finished and finished.has_searched(file)):
            found[example_stems(file)[-1]].append(file)
    return _label_images({stem: _labels_of(folder, stem, some) for stem, some in found.items()}) if found else {}


def _in_subfolders(folder: Path, finished: Finished | None) -> dict[str, _Image]:
    """Return the label images in the folders of a folder, where those of images that share a name are kept apart."""
    images = [
        replace(image, title=f"{below.name}/{image.title}")
        for below in _entries(folder)
        if below.is_dir()
        for image in _in_folder(below, finished).values()
    ]
    return dict(zip(safe_stems([image.title for image in images]), images, strict=True))


def _entries(folder: Path) -> list[Path]:
    with reading(folder):
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural_key)


def _label_images(files: Mapping[str, Path]) -> dict[str, _Image]:
    """Return label images in a folder by their stems; those in the results of a run are of the images that it says."""
    folder = next(iter(files.values())).absolute().parent
    run = images_of_run(folder.parent)
    known = {stem: run[composed(file.stem)] for stem, file in files.items() if composed(file.stem) in run}
    images = _images_of({stem: image.entry for stem, image in known.items()}, files)
    is_own = FORMATS["labels"].is_kept_in(folder)
    return {
        stem: replace(images[stem], searched=known[stem].planes, is_result=is_own)
        if stem in known
        else _Image(stem, Entry(file.absolute().as_posix()), example_stems(file), file)
        for stem, file in files.items()
    }


def _results(out: Path) -> dict[str, _Image]:
    """Return the images in an output folder by their stems there."""
    finished = read_finished(out)
    planes: dict[str, dict[tuple[int, int], _Plane]] = defaultdict(dict)
    entries: dict[str, Entry] = {}
    for record in finished.records(with_examples=True):
        planes[record.stem][record.location.z, record.location.time] = _recorded(record, finished.preview(record))
        entries[record.stem] = Entry(record.full_name, record.position)
    return _images_of(entries, planes)


def _images_of(entries: Mapping[str, Entry], planes: Mapping[str, _Planes]) -> dict[str, _Image]:
    """Return the images of a run by their stems there; the file's name stands for its only position too."""
    positions = Counter(entry.file for entry in entries.values())
    images: dict[str, _Image] = {}
    for stem, entry in entries.items():
        file = Path(entry.file)
        names = [stem, position_stem(stem_of(file), entry.position)]
        names += example_stems(file) if positions[entry.file] == 1 else ()
        title = f"{entry.file} {entry.position}".rstrip() if len(file.parts) > 1 else stem
        images[stem] = _Image(title, entry, tuple(dict.fromkeys(names)), planes[stem])
    return images


class _Match(NamedTuple):
    """Two images that have a name in common, one of each side.

    Parameters
    ----------
    folders
        How many of their innermost folders are called the same.
    ranks
        In what way the names are alike, and how likely each of them is; 0 is best.
    stem, other
        Of the two images.
    """

    folders: int
    ranks: tuple[int, int, int]
    stem: str
    other: str


def _together(here: Mapping[str, _Image], there: Mapping[str, _Image]) -> dict[str, str]:
    """Return which images of two sides are the same: the best matches go first, each image is taken once.

    Raises
    ------
    InputError
        If images share a name, and not even their folders tell which is meant.
    """
    matches = sorted(_matches(here, there), key=lambda match: (-match.folders, match.ranks))
    found: dict[str, _Match] = {}
    taken: dict[str, _Match] = {}
    for match in matches:
        if match.stem not in found and match.other not in taken:
            found[match.stem] = taken[match.other] = match
    for match in matches:
        if match.stem not in found and (best := taken[match.other]).folders == match.folders:
            _check_clear(there[match.other], here[best.stem], here[match.stem])
        if match.other not in taken and (best := found[match.stem]).folders == match.folders:
            _check_clear(here[match.stem], there[best.other], there[match.other])
    return {stem: found[stem].other for stem in here if stem in found}


def _check_clear(image: _Image, first: _Image, second: _Image) -> None:
    """Refuse to choose the first of two images for another one where they share a name."""
    (file, position), (other, another) = first.entry, second.entry
    if (Path(file).name, position) == (Path(other).name, another):
        folder = Path(max(file, other, key=len)).parent.name
        raise InputError(
            f"It is not clear whether {Path(image.entry.file).name} belongs to {first.title} or {second.title}. Put "
            f"the label images of each into a folder that is called like that of the images, such as {folder}."
        )


def _matches(here: Mapping[str, _Image], there: Mapping[str, _Image]) -> Iterator[_Match]:
    """Yield what has a name in common.

    Names are compared as they are, then those of one side as results are called, which not all letters are fit for.
    """
    as_they_are, as_results = _by_name(there, str), _by_name(there, safe_stem)
    ways: list[tuple[_ByName, Callable[[str], str]]]
    ways = [(as_they_are, str), (as_they_are, safe_stem), (as_results, str)]
    for way, (names, key) in enumerate(ways):
        for stem, image in here.items():
            for rank, name in enumerate(image.names):
                for of_other, other in names.get(key(name), ()):
                    folders = shared_folders(image.entry.file, there[other].entry.file)
                    yield _Match(folders, (way, rank, of_other), stem, other)


_ByName = dict[str, list[tuple[int, str]]]
"""The stems of images by all their names, each with how likely the name is, 0 for the likeliest."""


def _by_name(side: Mapping[str, _Image], key: Callable[[str], str]) -> _ByName:
    names: _ByName = defaultdict(list)
    for stem, image in side.items():
        for rank, name in enumerate(image.names):
            names[key(name)].append((rank, stem))
    return names


def _labels_of(folder: Path, stem: str, files: Sequence[Path]) -> Path:
    """Return the file that holds the labels: beside ``a.png`` it is ``a_labels.png``."""
    named = [file for file in files if len(example_stems(file)) > 1]
    chosen = named if len(files) > 1 else files
    if len(chosen) != 1:
        names = listed([file.name for file in files], _LISTED)
        raise InputError(f"It is not clear which file in {folder} has the labels of {stem}: {names}. Keep one of them.")
    return chosen[0]


def _planes_of(stem: str, here: _Image, there: _Image, progress: Progress, tag: str | None) -> Iterator[Pair]:
    if not there.is_result:
        there = replace(there, searched=None)
    found, true = _planes(here, None, progress), _planes(there, tag, progress)
    found, true = _pages_as_times(found, true), _pages_as_times(true, found)
    common = [place for place in found if place in true]
    if not common:
        raise InputError(f"The truth of {here.title} has none of the slices and time points that were searched.")
    if len(common) < max(len(found), len(true)):
        some = f"{counted(len(common), 'plane')} {'is' if len(common) == 1 else 'are'}"
        progress.warn(f"{here.title}: only {some} on both sides; the others are not evaluated.")
    size_z, size_t = (1 + max(sizes) for sizes in zip(*found, *true, strict=True))
    for z, t in common:
        name, own = (frame_title(each, Location(0, z, t), size_z, size_t) for each in (here.title, stem))
        left, right = found[z, t], true[z, t]
        if left.shape != right.shape:
            (h, w), (height, width) = left.shape, right.shape
            raise InputError(f"{name} is {w} × {h} px, but its truth is {width} × {height} px; they must be the same.")
        frame = EvaluatedFrame(name, left.masks, right.masks, left.scores, left.below, left.examples, left.unwanted)
        yield Pair(frame, own, left.shape, left.picture)


def _pages_as_times(
    side: dict[tuple[int, int], _Plane], other: Collection[tuple[int, int]]
) -> dict[tuple[int, int], _Plane]:
    """Return planes by slice and time; pages without a meaning of their own have that of the others' planes.

    A file that does not say what its pages are counts as slices, as where examples are read. They are time points
    where the others are, or where these are both, the slices of one time point after the other.
    """
    size_z, size_t = (1 + max(places) for places in zip((0, 0), *other, strict=True))
    fits = size_t <= len(side) if size_z == 1 else size_z * size_t == len(side)
    if size_t > 1 and fits and all(t == 0 for _, t in side):
        return {(page % size_z, page // size_z): plane for (page, _), plane in side.items()}
    return side


def _planes(image: _Image, tag: str | None, progress: Progress) -> dict[tuple[int, int], _Plane]:
    if not isinstance(image.planes, Path):
        return image.planes
    planes = dict(_labels(image.planes, tag, progress))
    if image.searched is None:
        return planes
    # A run leaves what it did not search without labels, as if nothing had been found there.
    searched = image.searched
    return {place: plane for place, plane in _pages_as_times(planes, searched).items() if place in searched}


def _recorded(record: FrameRecord, picture: Path) -> _Plane:
    found = [detection for detection in record.detections if not detection.is_marked]
    marked = [detection.instance for detection in record.detections if detection.is_marked]
    wanted, unwanted = (
        [
            polygon_to_mask(mark.outline, record.frame_shape)
            for mark in record.examples
            if mark.is_object and mark.negative == sign
        ]
        for sign in (False, True)
    )
    return _Plane(
        shape=record.frame_shape,
        masks=[detection.instance for detection in found],
        scores=[detection.score for detection in found],
        below=[(detection.instance, detection.score) for detection in record.below],
        examples=[*marked, *wanted],
        unwanted=unwanted,
        picture=picture,
    )


def _labels(path: Path, tag: str | None, progress: Progress) -> Iterator[tuple[tuple[int, int], _Plane]]:
    source = open_source(path)
    header, classes = source.header, read_classes(path)
    wanted = None if tag is None else _wanted(path, classes, tag)
    shape = header.height, header.width
    places = [(z, t) for t in range(header.size_t) for z in range(header.size_z)]
    planes = objects_of(source, places, LARGE, may_be_mask=classes is None)
    for place, (objects, mask) in zip(places, planes, strict=True):
        if mask:
            progress.warn(
                f"{path.name} is taken as a black-and-white mask: each of its {len(objects)} parts is an object."
            )
        masks = [put_together(pieces, shape) for number, pieces in objects if wanted is None or number in wanted]
        yield place, _Plane(shape, masks)


def _wanted(path: Path, classes: Classes | None, tag: str) -> set[int]:
    """Return the numbers of the objects of a class."""
    if classes is None:
        raise InputError(
            f"{path.name} has no classes; put a file {path.stem}_classes.json beside it, or leave out --tag."
        )
    if not any(tag in tags for tags in classes.values()):
        known = ", ".join(sorted({name for tags in classes.values() for name in tags})) or "none"
        raise InputError(f"No object of {path.name} has the class {tag!r}; there are: {known}.")
    return {number for number, tags in classes.items() if tag in tags}


def _some(images: Iterable[_Image]) -> str:
    return listed([image.title for image in images], _LISTED, with_rest=True)
