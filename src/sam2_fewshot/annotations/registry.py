"""The formats of marked objects: one entry each, from which everything that lists formats is derived.

A format is a module of this package, imported when it is first used, with these functions:

``read(file)``
    Yields the objects of a :class:`~sam2_fewshot.annotations.named.MarkedFile`, each a
    :class:`~sam2_fewshot.annotations.drawings.Drawing` or placed already; of formats that are read.
``recognises(content)``
    Tells whether the content of a JSON file is of the format; of those that share an ending.
``images_in(path, content)``
    Returns headers of the images that a file speaks of, none where it does not tell; may be missing.
``companion(path)``
    Returns the file beside another that belongs to it, None when there is none; may be missing.
``write(path, tags)``, with one file an image ``write(path, tags, first)``
    Context manager that gives an :data:`~sam2_fewshot.annotations.record.Add`. `tags` are those of every object whose
    record does not have its own, `first` is the first frame of the image.
``write_companions(records, paths, folder, overwrite, progress)``
    Writes what belongs beside converted files, given by the stems of their images; may be missing.
``is_own(path)``
    Tells whether a folder is one that ``write`` made, so that another may take its place; of formats that are folders.
"""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import SettingsError, needed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import ModuleType

    from sam2_fewshot.annotations.record import Add, FrameRecord


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file with marked objects.

    Parameters
    ----------
    name
        By which ``--write`` and ``--to`` take it.
    module
        The module of this package that reads and writes it.
    result
        Where a run's objects go in its output folder; ``{stem}`` is that of the image, where each has a file.
    suffixes
        Endings of files to convert to, the usual one first.
    reads
        Endings of files that are read; none for a format that is written only.
    readable
        What it is called in messages that list what is read; empty where another format's words include it.
    note
        What help says behind the name.
    stems
        A pattern; where the ending alone is not clear, a file whose stem matches it in small letters is of the format.
    writer
        The function of the module that writes it.
    always
        Whether every run writes it; the others are written on request.
    is_folder
        Whether the "file" is a folder.
    needs_size
        Whether the image's size must be known.
    counts_channels
        Whether the place of an object in a stack depends on the number of channels.
    is_painted
        Whether a pixel belongs to one object at most.
    has_points, has_holes, has_masks, has_figures, has_numbers
        Whether there is a place for points, for holes, for exact masks, for scores, and for the numbers that objects
        have in a label image.
    package
        A package that must be installed, which the extra of the format's name brings; empty for none.
    """

    name: str
    module: str
    result: str
    suffixes: tuple[str, ...]
    reads: tuple[str, ...] = ()
    readable: str = ""
    note: str = ""
    stems: str = ""
    writer: str = "write"
    always: bool = False
    is_folder: bool = False
    needs_size: bool = False
    counts_channels: bool = False
    is_painted: bool = False
    has_points: bool = False
    has_holes: bool = True
    has_masks: bool = False
    has_figures: bool = True
    has_numbers: bool = False
    package: str = ""

    @property
    def per_image(self) -> bool:
        """Whether each image has a file of its own."""
        return "{stem}" in self.result

    def load(self) -> ModuleType:
        """Return the module of the format."""
        return import_module(f"{__package__}.{self.module}")

    def optional(self, function: str) -> Callable[..., Any] | None:
        """Return a function that the module may have, None when it does not."""
        found: Callable[..., Any] | None = getattr(self.load(), function, None)
        return found

    def path(self, out: Path, stem: str) -> Path:
        """Return where the result of an image is in an output folder."""
        return out / self.result.format(stem=stem)

    def is_kept_in(self, folder: Path) -> bool:
        """Tell whether a folder is called as that of the results in an output folder."""
        return folder == (folder.parent / self.result).parent

    def check(self, what: str, is_installed: Callable[[str], object] = find_spec) -> None:
        """Refuse a format whose package is missing.

        Raises
        ------
        InputError
            Saying what cannot be written, and the extra to install.
        """
        if self.package:
            needed(what, self.package, self.name, is_installed)

    def begin(self, path_of: Callable[[str], Path], tags: Sequence[str]) -> AbstractContextManager[Add]:
        """Return the writer of a file each image, or of one for all; an image's frames must follow one another.

        Parameters
        ----------
        path_of
            Gives the file to write, or the folder where a format is one, by the stem of its image, which is empty where
            one file is for all.
        tags
            Tags of every object, where a record does not have its own. A table or a label image has no place for them.

        Returns
        -------
        context manager of Add
            Takes the frames.
        """
        write: Callable[..., AbstractContextManager[Add]] = getattr(self.load(), self.writer)
        if self.per_image:
            return a_file_an_image(lambda first: write(path_of(first.stem), tags, first))
        return write(path_of(""), tags)


_JSON = (".json", ".geojson")

FORMATS = {
    each.name: each
    for each in (
        Format(
            "labels",
            "label_images",
            "labels/{stem}.tif",
            (".tif", ".tiff"),
            # Formats that keep numbers as they are; JPEG does not.
            reads=(".png", ".tif", ".tiff", ".btf", ".tf8", ".bmp", ".gif", ".pgm"),
            readable="a label image (PNG, TIFF, OME-Zarr)",
            note="TIFF",
            always=True,
            needs_size=True,
            is_painted=True,
            has_masks=True,
            has_figures=False,
            has_numbers=True,
        ),
        Format(
            "zarr",
            "ome_zarr",
            "zarr/{stem}.zarr",
            (".zarr",),
            note="OME-Zarr labels",
            is_folder=True,
            needs_size=True,
            is_painted=True,
            has_masks=True,
            has_numbers=True,
            package="zarr",
        ),
        Format(
            "geojson",
            "geojson",
            "geojson/{stem}.geojson",
            (".geojson", ".json"),
            reads=_JSON,
            readable="a QuPath GeoJSON",
            always=True,
            has_points=True,
        ),
        Format(
            "roi",
            "imagej",
            "rois/{stem}.zip",
            (".zip",),
            reads=(".roi", ".zip"),
            readable="ImageJ ROIs (.roi, .zip)",
            note="ImageJ",
            counts_channels=True,
            has_points=True,
        ),
        Format(
            "coco",
            "coco",
            "coco.json",
            (".json",),
            reads=_JSON,
            readable="COCO",
            stems=".*coco.*",
            needs_size=True,
            has_masks=True,
        ),
        Format(
            "nimbus",
            "nimbus",
            "annotations.json",
            (".json",),
            reads=_JSON,
            readable="a NimbusImage JSON export",
            stems="annotations",
            always=True,
            has_points=True,
            has_holes=False,
        ),
        Format(
            "csv",
            "tables",
            "detections.csv",
            (".csv",),
            writer="write_csv",
            always=True,
            has_masks=True,
            has_numbers=True,
        ),
        Format(
            "parquet",
            "tables",
            "detections.parquet",
            (".parquet",),
            writer="write_parquet",
            has_masks=True,
            has_numbers=True,
            package="pyarrow",
        ),
    )
}
"""By name, in the order in which messages list what is read."""

NAMES = sorted(FORMATS)
"""What ``convert --to`` takes."""
ON_REQUEST = [name for name in NAMES if not FORMATS[name].always]
"""What ``segment --write`` takes."""
READ_SUFFIXES = frozenset(suffix for each in FORMATS.values() for suffix in each.reads)
"""Endings of files that can hold examples; an OME-Zarr is a folder."""


def check_formats(names: Collection[str], is_installed: Callable[[str], object] = find_spec) -> None:
    """Refuse names that are not among those :data:`ON_REQUEST`, and formats whose package is missing.

    Raises
    ------
    SettingsError
        If there is no such format.
    InputError
        If an extra is missing.
    """
    for name in names:
        if name not in ON_REQUEST:
            known = ", ".join(ON_REQUEST)
            raise SettingsError(f"There is no result format {name[:40]!r}; --write takes {known}, separated by commas.")
        FORMATS[name].check(name, is_installed)


def named_by(path: Path) -> Format | None:
    """Return the format that a file to write has by its name, None when the name is not clear."""
    found = [each for each in FORMATS.values() if path.suffix.lower() in each.suffixes]
    if len(found) > 1:
        found = [each for each in found if re.fullmatch(each.stems, path.stem.lower(), re.DOTALL)]
    return found[0] if found else None


def readable() -> str:
    """Return what examples can be read from, in words."""
    return _listed([each.readable for each in FORMATS.values() if each.readable], " or ")


def noted(names: Sequence[str], last: str = ", ") -> str:
    """Return formats with their notes, such as ``csv, roi (ImageJ) or zarr (OME-Zarr labels)``, for a help text."""
    return _listed([name + (f" ({FORMATS[name].note})" if FORMATS[name].note else "") for name in names], last)


def _listed(texts: Sequence[str], last: str) -> str:
    return ", ".join(texts[:-1]) + last + texts[-1]


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
