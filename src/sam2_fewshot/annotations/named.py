"""A file of marked objects, and which image is meant by its name, or by what it says about its images."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sam2_fewshot.annotations.values import MOST_IMAGES, index, load_json
from sam2_fewshot.errors import InputError, listed
from sam2_fewshot.images.addresses import composed, holds_zarr, position_stem, stem_of
from sam2_fewshot.images.registry import IMAGE_SUFFIXES, example_stems
from sam2_fewshot.images.source import Header, reading
from sam2_fewshot.images.stems import place_of, safe_stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sam2_fewshot.annotations.placing import Placer
    from sam2_fewshot.images.image_file import ImageFile
    from sam2_fewshot.images.image_set import ImageSet
    from sam2_fewshot.records import PixelSize

_LISTED = 5


class Entry(NamedTuple):
    """An image as a file speaks of it.

    Parameters
    ----------
    file
        The image file's name, perhaps with folders.
    position
        Name of the position, where the image's file has several; else empty.
    """

    file: str
    position: str = ""


class RunImage(NamedTuple):
    """An image as ``run.json`` has it.

    Parameters
    ----------
    entry
        What it is called.
    xy
        Its XY position, counted from 0; None where that makes no sense.
    planes
        Slice and time point of each plane that was searched, counted from 0.
    """

    entry: Entry
    xy: int | None
    planes: set[tuple[int, int]]


def output_of(path: Path) -> Path:
    """Return the output folder where a file would be a run's result, also of one that is given without its folder."""
    return Path(os.path.abspath(path)).parent.parent  # noqa: PTH100  (a link stays one)


def images_of_run(folder: Path) -> dict[str, RunImage]:
    """Return the images of a run by what their results are called, composed; none where a folder has no results."""
    found: dict[str, RunImage] = {}
    with suppress(InputError, LookupError, TypeError, ValueError, AttributeError):
        facts = load_json(folder / "run.json") if (folder / "run.json").is_file() else {"frames": []}
        for line in facts["frames"]:
            entry = Entry(str(line.get("file", line["image"])), str(line.get("position", "")))
            xy = index(line.get("xy"))
            xy = xy - 1 if xy is not None and 0 < xy <= MOST_IMAGES else None
            image = found.setdefault(composed(str(line["stem"])), RunImage(entry, xy, set()))
            z, time = index(line.get("z")), index(line.get("time"))
            if z is not None and time is not None:
                image.planes.add((z - 1, time - 1))
    return found


class ImageNames:
    """The images by all that they are called, with accents however they are written.

    Parameters
    ----------
    images
        The images that were given.
    """

    def __init__(self, images: ImageSet) -> None:
        self._images = images
        self._by_full_name = {_normal(image.full_name, image.position): image for image in images}
        self._by_file: dict[Entry, list[ImageFile]] = defaultdict(list)
        self._by_own_stem: dict[str, list[ImageFile]] = defaultdict(list)
        for image in images:
            self._by_file[_normal(image.file_name, image.position)].append(image)
            self._by_own_stem[_own_stem(image.file_name, image.position)].append(image)
        # What results are called goes first, then the file's own name, also one that results cannot have.
        self._by_stem = {image.stem: image for image in images}
        for stem, (first, *_) in self._by_own_stem.items():
            self._by_stem.setdefault(stem, first)
        counts = Counter(image.position for image in images)
        for image in images:
            for name in _position_names(image, is_alone=counts[image.position] == 1):
                self._by_stem.setdefault(composed(name), image)
        self._runs: dict[Path, dict[str, ImageFile | None]] = {}

    def of_file(self, path: Path) -> list[ImageFile]:
        """Return the image that a file is named after: none, one, or the several that have the name.

        Among the results of a run it is the one that ``run.json`` says. A position goes by its own name too, where no
        other image has it: ``B03_labels.tif`` for well B03 of ``p.zarr``, beside ``p_B03_labels.tif``; and by the name
        that QuPath gives it, such as ``a.lif - Series001``. Of images that share a name it is the one in the file's
        folder.
        """
        results = self._results(output_of(path))
        if (image := results.get(composed(path.stem))) is not None:
            return [image]
        # The others of the run have results of their own.
        others = {image.xy for image in results.values() if image} if composed(path.stem) in results else set()
        for stem in (*example_stems(path), composed(path.stem)):
            alike = self._by_own_stem.get(stem, [])
            if stem in self._by_stem and self._by_stem[stem] not in alike:
                alike = [self._by_stem[stem], *alike]
            if alike := [image for image in alike if image.xy not in others]:
                return _beside(path, stem, alike)
        return []

    def _results(self, folder: Path) -> dict[str, ImageFile | None]:
        """Return the stems of a run's results, with their images, where its folder is one of results."""
        if folder not in self._runs:
            run = images_of_run(folder)
            counts = Counter(image.entry for image in run.values())
            found, _ = self.of_entries(entry for entry, count in counts.items() if count == 1)
            self._runs[folder] = {stem: found.get(image.entry) for stem, image in run.items()}
        return self._runs[folder]

    def of_entries(self, entries: Iterable[Entry]) -> tuple[dict[Entry, ImageFile], set[Entry]]:
        """Return the images that a file speaks of, and the entries that could mean several images, or share one.

        An image goes by its full name, else by its file's name, else by that without its ending. Where several have
        it, the one is meant that has most of the entry's folders too, from the innermost on.
        """
        found: dict[Entry, ImageFile] = {}
        unclear: set[Entry] = set()
        claims: dict[int, list[tuple[tuple[int, int], Entry]]] = defaultdict(list)
        for entry in dict.fromkeys(entries):
            certainty, candidates = self._candidates(entry)
            best = _nearest(entry.file, candidates)
            if len(best) == 1:
                found[entry] = best[0]
                claims[best[0].xy].append(((certainty, _shared_folders(entry.file, best[0])), entry))
            elif best:
                unclear.add(entry)
        for claimed in claims.values():
            most = max(rank for rank, _ in claimed)
            first = [entry for rank, entry in claimed if rank == most]
            for _, entry in claimed:
                if entry not in first or len(first) > 1:
                    del found[entry]
            if len(first) > 1:
                unclear.update(first)
        return found, unclear

    def _candidates(self, entry: Entry) -> tuple[int, Sequence[ImageFile]]:
        """Return how sure an entry's name is, and the images that have it."""
        normal = _normal(*entry)
        if normal in self._by_full_name:
            return 3, [self._by_full_name[normal]]
        name = PurePosixPath(normal.file).name
        if alike := self._by_file.get(Entry(name, normal.position)):
            return 2, alike
        stem = _own_stem(name, normal.position)
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES and stem in self._by_stem:
            return 1, [self._by_stem[stem]]
        return 1, self._by_own_stem.get(stem, [])

    def called(self, name: str) -> ImageFile:
        """Return the image of a name that the user gives: a file's, with its ending or without, or a position's.

        Raises
        ------
        InputError
            If there is none, or several.
        """
        images, wanted = self._images, composed(name)
        bare = Path(wanted).name
        found = [image for image in images if bare == composed(image.header.name)] or [
            image for image in images if {wanted, bare} & set(map(composed, image.names))
        ]
        found = [image for image in found if wanted == composed(image.name)] or _nearest(name, found)
        if len(found) == 1:
            return found[0]
        what = "several images have that name" if found else "no image that was given has that name"
        raise InputError(f"--examples-on says {name!r}, but {what}; the images are {first_of(images)}.")


@dataclass(frozen=True, eq=False, slots=True)
class MarkedFile:
    """A file or folder with marked objects, as it is given to the reader of its format.

    Parameters
    ----------
    path
        Where it is.
    image
        The image that it is named after, or that the user says; None when there is none, or it is not clear which.
    images
        Those that were given.
    placer
        Puts its objects on their frames.
    content
        Of a JSON file.
    tagged
        True when tags are asked for, so that a file without tags is of no use.
    alike
        The images that have the name that the file has, where it is not clear which of them is meant.
    may_say
        Whether the user can say with ``--examples-on`` which image is meant.
    is_said
        Whether the user has said it.
    """

    path: Path
    image: ImageFile | None
    images: ImageSet
    placer: Placer
    content: Any = None
    tagged: bool = False
    alike: Sequence[ImageFile] = ()
    may_say: bool = True
    is_said: bool = False

    def said(self, images: int) -> ImageFile | None:
        """Return the image that the user says, whatever the file does; None where it is left to the file.

        Parameters
        ----------
        images
            Of so many the file speaks itself.

        Raises
        ------
        InputError
            If these are several.
        """
        if self.image is None or not self.is_said:
            return None
        if images > 1:
            raise InputError(
                f"--examples-on says that the objects of {self.path.name} lie on {self.image.name}, but the file "
                f"speaks of {images} images. Leave out --examples-on, or give a file with the objects of one image."
            )
        return self.image

    def target(self, ending: str = "") -> ImageFile:
        """Return the image that the objects lie on: the one that the file is named after, else the only one.

        Parameters
        ----------
        ending
            What usually follows the image's name in that of the file.

        Raises
        ------
        InputError
            If it could be one of several, or the file is named after another image.
        """
        if self.image is not None:
            return self.image
        path = named_part(self.path)
        if self.alike:
            raise InputError(
                f"{path.name} is named after several images, {first_of(self.alike)}. Put it into the folder of the one "
                "on which its objects lie, or "
                + (f"say it with --examples-on {self.alike[0].name}." if self.may_say else "give that one only.")
            )
        first = self.images[0]
        example = f"{first.stem}{ending}{path.suffix}"
        if len(self.images) > 1:
            raise InputError(
                f"It is not clear to which of the {len(self.images)} images {path.name} belongs; name it after "
                f"its image, for instance {example} for {first.name}, or give "
                + ("the image's name with --examples-on." if self.may_say else "that image only.")
            )
        other = _other_image(path, first)
        if other is None and len(stems := example_stems(path)) > 1:
            other = f"an image {stems[-1]}"
        if other is not None:
            raise InputError(
                f"{path.name} is named after {other}, but only {first.name} was given. If its objects were marked on "
                f"{first.name}, "
                + (
                    f"say so with --examples-on {first.name}; else segment with both images, of which --batch-xy "
                    "chooses those that are searched."
                    if self.may_say
                    else f"name it after that, for instance {example}; else give the other image in its place."
                )
            )
        return first


def named_part(path: Path) -> Path:
    """Return what of a path is named after an image: of an OME-Zarr the outermost Zarr, ``a.zarr`` of its labels."""
    while path.is_dir() and holds_zarr(path.parent):
        path = path.parent
    return path


def first_of(images: Sequence[ImageFile]) -> str:
    """Return the names of the first images, for a message."""
    return listed([image.name for image in images], _LISTED)


def _beside(path: Path, stem: str, alike: list[ImageFile]) -> list[ImageFile]:
    """Return the one of some images of a name that lies in the folder of a file, else all of them."""
    if len(alike) > 1:
        folder = os.path.realpath(path.parent)
        near = [image for image in alike if os.path.realpath(named_part(image.path).parent) == folder]
        # Where only annotations are at hand, images without an ending are called like the files.
        near = near or [image for image in alike if composed(image.file_name) == stem]
        return near if len(near) == 1 else alike
    return alike


def _nearest(file: str, images: Sequence[ImageFile]) -> list[ImageFile]:
    """Return those of some images that lie in most of the folders of a name."""
    shared = [_shared_folders(file, image) for image in images]
    return [image for image, count in zip(images, shared, strict=True) if count == max(shared)]


def _normal(file: str, position: str) -> Entry:
    """Return an entry as it is compared."""
    return Entry(composed(file.replace("\\", "/")), composed(position))


def _own_stem(file: str, position: str) -> str:
    return position_stem(stem_of(Path(file)), composed(position))


def _position_names(image: ImageFile, is_alone: bool) -> Iterator[str]:
    if image.position:
        yield image.header.name
        yield f"{image.file_name} - {image.position}"
        if is_alone:
            yield image.position
            yield position_stem("", image.position)[1:]


def _shared_folders(file: str, image: ImageFile) -> int:
    """Return how many of the folders of an entry an image lies in, from the innermost on."""
    return shared_folders(file, "/".join(place_of(image.header)))


def shared_folders(one: str, other: str) -> int:
    """Return how many folders of two files are called the same, from the innermost on."""
    folders = (PurePosixPath(composed(file.replace("\\", "/"))).parts[-2::-1] for file in (one, other))
    return sum(1 for _ in takewhile(lambda names: names[0] == names[1], zip(*folders, strict=False)))


def _other_image(path: Path, given: ImageFile) -> str | None:
    """Return the name of an image that lies there, was not given, and is what a file of examples is named after."""
    for folder in (path.parent, given.path.parent):
        if not folder.is_dir():  # the image is on the web
            continue
        with reading(folder):
            found = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
        beside = [file for file in found if os.path.realpath(file) != os.path.realpath(path)]
        for stem in example_stems(path):
            names = sorted(file.name for file in beside if stem in (stem_of(file), safe_stem(stem_of(file))))
            if names:
                return names[0]
    return None


UNKNOWN = 1_000_000
"""Width, height, slices and time points of an image that the annotations do not tell the size of."""


def nominal_header(
    name: Path,
    shape: tuple[int, int] = (UNKNOWN, UNKNOWN),
    size_z: int = UNKNOWN,
    size_t: int = UNKNOWN,
    pixel_size: PixelSize | None = None,
) -> Header:
    """Return the header of an image of which only annotations are at hand, which do not tell its channels.

    Its shape is ``(height, width)`` in pixels, and the size of a pixel is in micrometres.
    """
    kind = np.dtype(np.uint8)
    return Header(
        name, *shape, kind, size_z=size_z, size_t=size_t, channel_names=(), channel_colors=(), pixel_size=pixel_size
    )
