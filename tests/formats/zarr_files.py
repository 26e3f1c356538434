"""Small OME-Zarr images, plates and groups of bioformats2raw, written by zarr with their metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zarr

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def write_zarr_image(path: Path, pixels: np.ndarray, axes: str = "yx", name: str = "", form: int = 3) -> Path:
    """Write an image; version 0.5 in Zarr 3, 0.4 in Zarr 2."""
    group = zarr.open_group(path, mode="w", zarr_format=form)
    group.create_array("0", shape=pixels.shape, dtype=pixels.dtype, chunks=pixels.shape)[...] = pixels
    scales: dict[str, Any] = {"axes": [{"name": axis} for axis in axes], "datasets": [{"path": "0"}]}
    put(group, form, {"multiscales": [scales | ({"name": name} if name else {})]})
    return path


def write_zarr_plate(path: Path, fields: dict[str, list[np.ndarray]], form: int = 3) -> Path:
    """Write a plate, with the fields of each well by its path (``"B/3"``)."""
    group = zarr.open_group(path, mode="w", zarr_format=form)
    put(group, form, {"plate": {"wells": [{"path": well} for well in fields]}})
    for well, images in fields.items():
        inner = zarr.open_group(path / well, mode="w", zarr_format=form)
        put(inner, form, {"well": {"images": [{"path": str(n)} for n in range(len(images))]}})
        for number, pixels in enumerate(images):
            write_zarr_image(path / well / str(number), pixels, form=form)
    return path


def write_zarr_series(path: Path, series: dict[str, np.ndarray], form: int = 2, listed: bool = True) -> Path:
    """Write images by their names as bioformats2raw does."""
    group = zarr.open_group(path, mode="w", zarr_format=form)
    put(group, form, {"bioformats2raw.layout": 3})
    if listed:
        put(group.create_group("OME"), form, {"series": [str(n) for n in range(len(series))]})
    for number, (name, pixels) in enumerate(series.items()):
        write_zarr_image(path / str(number), pixels, name=name, form=form)
    return path


def put(group: zarr.Group, form: int, attributes: dict[str, Any]) -> None:
    """Put OME attributes where the version has them."""
    group.attrs.update({"ome": {"version": "0.5", **attributes}} if form == 3 else attributes)
