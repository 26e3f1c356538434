"""``zarr/STEM.zarr/labels/objects``: an OME-Zarr 0.4 label image (https://ngff.openmicroscopy.org/0.4/#label-md).

The group ``labels`` can be copied into an image's OME-Zarr. A value stands for one object of the whole file: the
objects of the first plane count from 1, those of the next go on from there. ``image-label.properties`` has an object's
class, tags, figures, plane and number in the frame (its ``id`` in the table).
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.writers.label_bands import Bands
from sam2_fewshot.writers.names import figure, printable
from sam2_fewshot.writers.per_image import a_file_an_image
from sam2_fewshot.writers.whole import telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.records import Location
    from sam2_fewshot.writers.record import Add, FrameRecord

NAME = "objects"
"""Name of the label image in the group ``labels``."""

_CHUNK = 1024
_AXES = ("t", "z", "y", "x")


@contextmanager
def zarr_files(folder: Path, tags: Sequence[str]) -> Iterator[Add]:
    """Write one OME-Zarr an image; an image's frames must follow one another.

    Arrays are uint32 (T, Z, Y, X) in chunks of one plane, with coarser levels (every second pixel of the one before)
    until the longer side is at most 1,024 px. Planes that were not looked at are zero. One row of chunks at a time is
    in memory.

    Parameters
    ----------
    folder
        Where to put them.
    tags
        Tags of every object, where the record does not have its own.

    Yields
    ------
    Add
        Takes the frames.
    """
    with a_file_an_image(lambda record: zarr_file(folder / f"{record.stem}.zarr", tags, record)) as add:
        yield add


@contextmanager
def zarr_file(path: Path, tags: Sequence[str], first: FrameRecord) -> Iterator[Add]:
    """Write the labels of one image, of which the first frame is given, as :func:`zarr_files` does."""
    import zarr

    with _replacing_folder(path) as temporary:
        labels = zarr.open_group(str(temporary), mode="w", zarr_format=2).create_group("labels")
        labels.attrs["labels"] = [NAME]
        group = labels.create_group(NAME)
        levels = _levels(group, first)
        properties: list[dict[str, object]] = []

        def add(record: FrameRecord) -> None:
            start = len(properties)
            properties.extend(_properties(record, start, tags))
            top = 0
            for band in Bands(record.detections, record.frame_shape).of(_CHUNK):
                band[band > 0] += np.uint32(start)
                with telling(path):
                    _put(levels, record.location, top, band)
                top += len(band)

        yield add
        group.attrs.update(_description(first, len(levels), properties))


def _put(levels: Sequence[Any], place: Location, top: int, band: NDArray[np.uint32]) -> None:
    """Put the rows of a plane from `top` on into each level that has some of them."""
    for number, level in enumerate(levels):
        step = 2**number
        rows = band[-top % step :: step, ::step]
        if len(rows):
            first = -(-top // step)
            level[place.time, place.z, first : first + len(rows)] = rows


def _levels(group: Any, first: FrameRecord) -> list[Any]:
    height, width = first.frame_shape
    levels: list[Any] = []
    while True:
        step = 2 ** len(levels)
        shape = (first.size_t, first.size_z, -(-height // step), -(-width // step))
        levels.append(
            group.create_array(
                str(len(levels)),
                shape=shape,
                dtype=np.uint32,
                chunks=(1, 1, min(_CHUNK, shape[2]), min(_CHUNK, shape[3])),
                chunk_key_encoding={"name": "v2", "separator": "/"},
                fill_value=0,
            )
        )
        if max(shape[2:]) <= _CHUNK:
            return levels


def _properties(record: FrameRecord, start: int, tags: Sequence[str]) -> Iterator[dict[str, object]]:
    for number, item in enumerate(record.detections, start=1):
        own = [printable(tag) for tag in record.tags_of(number, tags)]
        told = {
            "class": own[0] if own else None,
            "tags": own if len(own) > 1 else None,
            "score": figure(item.score),
            "similarity": figure(item.similarity),
            "predicted_iou": figure(item.predicted_iou),
            "area_px": item.area,
            "z": int(record.location.z),
            "time": int(record.location.time),
            "id": number,
        }
        yield {"label-value": start + number, **{key: value for key, value in told.items() if value is not None}}


def _description(first: FrameRecord, levels: int, properties: list[dict[str, object]]) -> dict[str, Any]:
    size = first.pixel_size
    steps = [1.0, (size.z if size and size.z else 1.0), size.y if size else 1.0, size.x if size else 1.0]
    known = {"y": size is not None, "x": size is not None, "z": bool(size and size.z)}
    kinds = {"t": "time"}
    axes: list[dict[str, str]] = []
    for name in _AXES:
        unit = {"unit": "micrometer"} if known.get(name) else {}
        axes.append({"name": name, "type": kinds.get(name, "space"), **unit})
    datasets = []
    for level in range(levels):
        scale = [*steps[:2], steps[2] * 2**level, steps[3] * 2**level]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    return {
        "multiscales": [{"version": "0.4", "name": NAME, "axes": axes, "datasets": datasets}],
        "image-label": {"version": "0.4", "properties": properties},
    }


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, which takes its name when the block ends well; see ``whole.replacing``."""
    temporary = path.with_name(f".{os.getpid()}-{path.name[-60:]}.part")
    old = path.with_name(f".{os.getpid()}-{path.name[-60:]}.old")
    with telling(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if path.is_dir():
                path.replace(old)
            temporary.replace(path)
        finally:
            for folder in (temporary, old):
                shutil.rmtree(folder, ignore_errors=True)
