"""``labels/STEM.tif``: one file an image, 0 for background and 1, 2, … for the objects of each plane."""

from __future__ import annotations

import math
import tempfile
import uuid
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.writers.label_bands import LARGE, TILE, Bands, best_first
from sam2_fewshot.writers.per_image import a_file_an_image
from sam2_fewshot.writers.whole import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import IO, Any

    from numpy.typing import NDArray

    from sam2_fewshot.records import Detection
    from sam2_fewshot.writers.record import Add, FrameRecord

_LARGEST_16_BIT = 65_535


def paint(detections: Sequence[Detection], frame_shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Paint objects into a label image; the n-th object of the sequence has the value n.

    Where objects overlap, the one with the higher score wins, of equal ones the earlier. An object that
    would be hidden altogether gets one pixel of its mask back, from the object there that has most pixels
    left; only when each of those is down to its last pixel does it stay hidden.

    Parameters
    ----------
    detections
        The objects of one frame.
    frame_shape
        ``(height, width)`` in pixels.

    Returns
    -------
    ndarray
        uint32 (H, W).
    """
    labels = np.zeros(frame_shape, np.uint32)
    order = best_first(detections)
    for index in reversed(order):
        instance = detections[index].instance
        x0, y0, x1, y1 = instance.box
        labels[y0:y1, x0:x1][instance.data] = index + 1
    left = np.bincount(labels.ravel(), minlength=len(detections) + 1)
    for index in order:
        instance = detections[index].instance
        if left[index + 1] or not instance.data.any():
            continue
        x0, y0, x1, y1 = instance.box
        window = labels[y0:y1, x0:x1]
        rows, columns = np.nonzero(instance.data)
        owners = window[rows, columns]
        richest = int(np.argmax(left[owners]))
        if left[owners[richest]] > 1:
            left[owners[richest]] -= 1
            left[index + 1] = 1
            window[rows[richest], columns[richest]] = index + 1
    return labels


@contextmanager
def label_files(folder: Path) -> Iterator[Add]:
    """Write one compressed TIFF an image; an image's frames must follow one another.

    They are OME-TIFF with the pixel size, where it is known; an image of one plane is two-dimensional, others have the
    axes TZYX, and planes that were not looked at are zero. Values are 16 bit, or 32 bit where a plane has more than
    65,535 objects. One plane at a time is in memory, of a large one only a band; such a file is stored in tiles.

    Parameters
    ----------
    folder
        Where to put the files.

    Yields
    ------
    Add
        Takes the frames.
    """
    with a_file_an_image(lambda record: label_file(folder / f"{record.stem}.tif", record)) as add:
        yield add


@contextmanager
def label_file(path: Path, first: FrameRecord) -> Iterator[Add]:
    """Write the labels of one image, of which the first frame is given, as :func:`label_files` does."""
    most = 0
    places: dict[tuple[int, int], tuple[int, int]] = {}
    bands: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Frames come with Time innermost and are stored with Time outermost, and how many bits are needed is
    # known at the last one, so painted planes wait in a compressed scratch file.
    with replacing(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as scratch:

        def add(record: FrameRecord) -> None:
            nonlocal most
            place = record.location.time, record.location.z
            with telling(path):
                if _is_large(first):
                    bands[place] = []
                    for band in Bands(record.detections, record.frame_shape):
                        packed = zlib.compress(band.tobytes(), 1)
                        bands[place].append((scratch.tell(), len(packed)))
                        scratch.write(packed)
                else:
                    packed = zlib.compress(paint(record.detections, record.frame_shape).tobytes(), 1)
                    places[place] = scratch.tell(), len(packed)
                    scratch.write(packed)
            most = max(most, len(record.detections))

        yield add
        if _is_large(first):
            _write_tiff(temporary, first, _tiles(first, bands, scratch), most, (TILE, TILE))
        else:
            _write_tiff(temporary, first, _planes(first, places, scratch), most)


def _planes(
    first: FrameRecord, places: dict[tuple[int, int], tuple[int, int]], scratch: IO[bytes]
) -> Iterator[NDArray[np.uint32]]:
    for time in range(first.size_t):
        for z in range(first.size_z):
            if (time, z) not in places:
                yield np.zeros(first.frame_shape, np.uint32)
                continue
            start, size = places[time, z]
            scratch.seek(start)
            plane = np.frombuffer(zlib.decompress(scratch.read(size)), np.uint32)
            yield plane.reshape(first.frame_shape)


def _is_large(first: FrameRecord) -> bool:
    return math.prod(first.frame_shape) > LARGE


def _tiles(
    first: FrameRecord, bands: dict[tuple[int, int], list[tuple[int, int]]], scratch: IO[bytes]
) -> Iterator[NDArray[np.uint32]]:
    height, width = first.frame_shape
    across = -(-width // TILE)
    for time in range(first.size_t):
        for z in range(first.size_z):
            for number in range(-(-height // TILE)):
                band = np.zeros((TILE, across * TILE), np.uint32)
                if (time, z) in bands:
                    start, size = bands[time, z][number]
                    scratch.seek(start)
                    rows = np.frombuffer(zlib.decompress(scratch.read(size)), np.uint32).reshape(-1, width)
                    band[: len(rows), :width] = rows
                yield from np.split(band, across, axis=1)


def _write_tiff(
    path: Path,
    first: FrameRecord,
    planes: Iterator[NDArray[np.uint32]],
    most_objects: int,
    tile: tuple[int, int] | None = None,
) -> None:
    import tifffile

    kind = np.uint16 if most_objects <= _LARGEST_16_BIT else np.uint32
    single = first.size_t * first.size_z == 1
    shape = first.frame_shape if single else (first.size_t, first.size_z, *first.frame_shape)
    # tifffile would make up a UUID from the clock and the network card.
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{first.location.xy}/{first.name}")
    metadata: dict[str, Any] = {"axes": "YX" if single else "TZYX", "UUID": str(name)}
    if first.pixel_size is not None:
        lengths = {"X": first.pixel_size.x, "Y": first.pixel_size.y, "Z": first.pixel_size.z}
        metadata |= {f"PhysicalSize{axis}": length for axis, length in lengths.items() if length is not None}
    tifffile.imwrite(
        path,
        (np.ascontiguousarray(plane, kind) for plane in planes),
        shape=shape,
        dtype=kind,
        ome=True,
        bigtiff=np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64)) > 2**31,
        metadata=metadata,
        photometric="minisblack",
        compression="zlib",
        predictor=True,
        tile=tile,
    )
