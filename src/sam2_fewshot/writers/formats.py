"""The result files that are written on request, beside those that always are."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.writers.coco import coco_file
from sam2_fewshot.writers.ome_zarr import zarr_files
from sam2_fewshot.writers.parquet import parquet_table
from sam2_fewshot.writers.rois import roi_files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sam2_fewshot.writers.record import Add


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
