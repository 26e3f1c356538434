"""What objects can be converted to: every format that is written, and what it can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam2_fewshot.writers.coco import coco_file
from sam2_fewshot.writers.formats import need
from sam2_fewshot.writers.labels import label_file
from sam2_fewshot.writers.nimbus_json import nimbus_json
from sam2_fewshot.writers.ome_zarr import zarr_file
from sam2_fewshot.writers.parquet import parquet_table
from sam2_fewshot.writers.qupath import qupath_file
from sam2_fewshot.writers.rois import roi_file
from sam2_fewshot.writers.table import table

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sam2_fewshot.writers.record import Add, FrameRecord


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
