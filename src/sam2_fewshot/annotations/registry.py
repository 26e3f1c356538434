"""The formats that objects are written in, and what each can hold."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sam2_fewshot.annotations.coco import coco_file
from sam2_fewshot.annotations.geojson import qupath_file
from sam2_fewshot.annotations.imagej import roi_file, roi_files
from sam2_fewshot.annotations.label_images import label_file
from sam2_fewshot.annotations.nimbus import nimbus_json
from sam2_fewshot.annotations.ome_zarr import zarr_file, zarr_files
from sam2_fewshot.annotations.tables import parquet_table, table
from sam2_fewshot.errors import InputError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sam2_fewshot.annotations.record import Add, FrameRecord


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of result file.

    Parameters
    ----------
    begin
        Called with the output folder and the tags, gives the writer.
    path
        Called with the output folder and an image's stem, tells where its result is.
    module, extra
        The module that must be installed, and the extra of this package that brings it.
    """

    begin: Callable[[Path, Sequence[str]], AbstractContextManager[Add]]
    path: Callable[[Path, str], Path]
    module: str = "roifile"
    extra: str = ""


FORMATS = {
    "coco": Format(lambda out, tags: coco_file(out / "coco.json", tags), lambda out, stem: out / "coco.json"),
    "parquet": Format(
        lambda out, tags: parquet_table(out / "detections.parquet"),
        lambda out, stem: out / "detections.parquet",
        "pyarrow",
        "parquet",
    ),
    "roi": Format(lambda out, tags: roi_files(out / "rois", tags), lambda out, stem: out / "rois" / f"{stem}.zip"),
    "zarr": Format(
        lambda out, tags: zarr_files(out / "zarr", tags),
        lambda out, stem: out / "zarr" / f"{stem}.zarr",
        "zarr",
        "zarr",
    ),
}
"""By the names that ``--write`` takes."""


def check_formats(names: Collection[str]) -> None:
    """Refuse names that are not in :data:`FORMATS`, and formats whose package is missing.

    Raises
    ------
    SettingsError
        If there is no such format.
    InputError
        If an extra is missing.
    """
    for name in names:
        if name not in FORMATS:
            known = ", ".join(FORMATS)
            raise SettingsError(f"There is no result format {name[:40]!r}; --write takes {known}, separated by commas.")
        need(name, FORMATS[name].module, FORMATS[name].extra)


def need(what: str, module: str, extra: str) -> None:
    """Refuse to go on without an optional package.

    Raises
    ------
    InputError
        Naming the extra to install.
    """
    if extra and find_spec(module) is None:
        raise InputError(f'{what} needs the package {module}, which is missing: pip install "sam2-fewshot[{extra}]".')


@dataclass(frozen=True, slots=True)
class Target:
    """A format to convert to.

    Parameters
    ----------
    begin
        Called with a path and the first frame for it, gives the writer.
    name
        What a file for all images is called in a folder.
    suffixes
        Endings that stand for the format, the usual one first.
    per_image
        Whether each image has a file of its own.
    is_folder
        Whether the "file" is a folder.
    needs_size
        Whether the image's size must be known.
    is_painted
        Whether a pixel belongs to one object at most.
    has_points, has_holes, has_masks, has_figures
        Whether there is a place for points, for holes, for exact masks, and for scores.
    module, extra
        The module that must be installed, and the extra that brings it.
    """

    begin: Callable[[Path, FrameRecord], AbstractContextManager[Add]]
    name: str
    suffixes: tuple[str, ...]
    per_image: bool = False
    is_folder: bool = False
    needs_size: bool = False
    is_painted: bool = False
    has_points: bool = False
    has_holes: bool = True
    has_masks: bool = False
    has_figures: bool = True
    module: str = ""
    extra: str = ""

    def check(self) -> None:
        """Refuse a format whose package is missing.

        Raises
        ------
        InputError
            Naming the extra to install.
        """
        need(self.name or self.suffixes[0], self.module, self.extra)


TARGETS = {
    "coco": Target(lambda path, first: coco_file(path, ()), "coco.json", (".json",), needs_size=True, has_masks=True),
    "csv": Target(lambda path, first: table(path), "detections.csv", (".csv",), has_masks=True),
    "geojson": Target(
        lambda path, first: qupath_file(path, ()), "", (".geojson", ".json"), per_image=True, has_points=True
    ),
    "labels": Target(
        label_file,
        "",
        (".tif", ".tiff"),
        per_image=True,
        needs_size=True,
        is_painted=True,
        has_masks=True,
        has_figures=False,
    ),
    "nimbus": Target(
        lambda path, first: nimbus_json(path, ()), "annotations.json", (".json",), has_points=True, has_holes=False
    ),
    "parquet": Target(
        lambda path, first: parquet_table(path),
        "detections.parquet",
        (".parquet",),
        has_masks=True,
        module="pyarrow",
        extra="parquet",
    ),
    "roi": Target(lambda path, first: roi_file(path, ()), "", (".zip",), per_image=True, has_points=True),
    "zarr": Target(
        lambda path, first: zarr_file(path, (), first),
        "",
        (".zarr",),
        per_image=True,
        is_folder=True,
        needs_size=True,
        is_painted=True,
        has_masks=True,
        module="zarr",
        extra="zarr",
    ),
}
"""By the names that ``convert --to`` takes."""
