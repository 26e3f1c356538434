"""Label images: each object's pixels have its number, 0 is background."""

from __future__ import annotations

import math
import re
import tempfile
import uuid
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.label_bands import (
    TILE,
    Bands,
    Gathered,
    RowSource,
    band_rows,
    best_first,
    put_together,
)
from sam2_fewshot.annotations.placing import Figures, PlacedExemplar, Regions
from sam2_fewshot.annotations.record import a_file_an_image
from sam2_fewshot.annotations.values import load_json, words
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.image_set import LARGE
from sam2_fewshot.images.registry import open_source
from sam2_fewshot.storage.files import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO, Any

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.placing import Placer
    from sam2_fewshot.annotations.record import Add, FrameRecord
    from sam2_fewshot.images.image_set import FrameFile, ImageFile
    from sam2_fewshot.images.source import PixelSource
    from sam2_fewshot.records import Detection

LABEL_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".btf", ".tf8", ".bmp", ".gif", ".pgm"})
"""Formats that keep numbers as they are; JPEG does not."""

Classes = dict[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Plane:
    """One plane of labels, as bands after the row that each begins at, and the frame it is for."""

    bands: Iterator[tuple[int, NDArray[np.integer[Any]]]]
    frame: FrameFile


def read_labels(path: Path, image: ImageFile, placer: Placer) -> Iterator[PlacedExemplar]:
    """Yield the objects of a label image.

    An object that its outline describes exactly comes as the outline, which is small; one with holes or
    several parts as a mask. A file with one number only, whose pixels fall into several parts, is taken as
    a black-and-white mask, with a warning: each part is an object. A large file in tiles or strips is read in bands of
    rows, with the same objects.

    Parameters
    ----------
    path
        PNG or TIFF of 8, 16 or 32 bits, of its image's height and width. A stack must have its image's slices and
        time points; a single plane belongs to the first frame.
    image
        The image that the labels are for.
    placer
        Takes remarks.

    Raises
    ------
    InputError
        If the file cannot be read, has another size than its image, or is not a label image.
    """
    yield from objects_in(open_source(path), image, placer, read_classes(path))


def objects_in(
    source: PixelSource,
    image: ImageFile,
    placer: Placer,
    classes: Classes | None = None,
    figures: Mapping[int, Figures] | None = None,
) -> Iterator[PlacedExemplar]:
    """Yield the objects of labels, wherever they come from; see :func:`read_labels`.

    Parameters
    ----------
    source
        Gives the labels.
    image, placer
        As there.
    classes, figures
        Tags and figures of the objects by their numbers.
    """
    for plane in _planes(source, image, placer):
        yield from _objects(plane, classes, figures, placer)


def sidecar(path: Path) -> Path | None:
    """Return the file that gives the classes of a label image's objects, None when there is none.

    For ``a_labels.png`` it is ``a_labels_classes.json``, ``a_classes.json`` or ``a_labels.json``: an object whose
    keys are the numbers in the image and whose values are names, such as ``{"1": "living", "2": "dead"}``.
    """
    stem = path.stem
    short = re.sub(r"[ ._-](labels?|masks?)$", "", stem, flags=re.IGNORECASE)
    for name in dict.fromkeys((f"{stem}_classes", f"{short}_classes", stem)):
        candidate = path.with_name(f"{name}.json")
        if candidate.is_file() and (name.endswith("_classes") or _is_class_table(load_json(candidate))):
            return candidate
    return None


def read_classes(path: Path) -> Classes | None:
    """Return the classes by object number of a label image, None when it has no :func:`sidecar`.

    Raises
    ------
    InputError
        If the sidecar is not what it should be.
    """
    where = sidecar(path)
    if where is None:
        return None
    table = load_json(where)
    if not _is_class_table(table):
        raise InputError(f'{where.name} must be like {{"1": "living", "2": "dead"}}: object numbers and their classes.')
    return {int(number): words(value) for number, value in table.items()}


def _is_class_table(content: Any) -> bool:
    return isinstance(content, dict) and all(
        re.fullmatch(r"[0-9]{1,18}", key) and isinstance(value, str | list) for key, value in content.items()
    )


def _planes(source: PixelSource, image: ImageFile, placer: Placer) -> Iterator[_Plane]:
    header = source.header
    path = header.path
    if (header.height, header.width) != image.shape:
        height, width = image.shape
        raise InputError(
            f"{path.name} is {header.width} × {header.height} px, but its image {image.name} is {width} × {height} px; "
            "labels must have the size of their image."
        )
    sizes, wanted = (header.size_z, header.size_t), (image.size_z, image.size_t)
    if sizes == (image.size_t, 1) and image.size_z == 1:  # pages without a meaning of their own
        pairs = [((t, 0), (0, t)) for t in range(image.size_t)]
    elif sizes == wanted:
        pairs = [((z, t), (z, t)) for t in range(image.size_t) for z in range(image.size_z)]
    elif sizes == (1, 1):
        placer.remarks.say(f"{path.name} has a single plane; it is taken for the first frame of {image.name}.")
        pairs = [((0, 0), (0, 0))]
    else:
        raise InputError(
            f"{path.name} has {sizes[0]} slices and {sizes[1]} time points, but its image {image.name} has {wanted[0]} "
            f"and {wanted[1]}; labels must have the planes of their image, or a single one for its first frame."
        )
    for (z, t), target in pairs:
        yield _Plane(_bands(source, z, t), image.frame(*target))


def _bands(source: PixelSource, z: int, t: int) -> Iterator[tuple[int, NDArray[np.integer[Any]]]]:
    """Yield a plane of labels, a large one in bands where its file allows it."""
    header = source.header
    path, height, width = header.path, header.height, header.width
    if height * width <= LARGE or not header.by_region or not isinstance(source, RowSource):
        yield 0, _as_numbers(path, list(source.planes(z, t)))
        return
    rows = band_rows(width, source.piece_rows)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        yield top, _as_numbers(path, list(source.region(z, t, box)))


def _as_numbers(path: Path, planes: list[NDArray[Any]]) -> NDArray[np.integer[Any]]:
    first = planes[0]
    if first.ndim == 3 and (first == first[..., :1]).all():
        first = first[..., 0]
    if first.ndim == 3 or any((plane != first).any() for plane in planes[1:]):
        raise InputError(
            f"{path.name} is a colour image; a label image has one number a pixel: "
            "0 for background, 1, 2, … for objects."
        )
    if first.dtype.kind == "f":
        with np.errstate(all="ignore"):
            whole = np.isfinite(first).all() and (first == np.floor(first)).all() and (abs(first) < 2**53).all()
        if not whole:
            raise InputError(f"{path.name} has values that are not whole numbers; a label image has object numbers.")
        first = first.astype(np.int64)
    if first.dtype == bool:
        first = first.astype(np.uint8)
    if first.dtype.kind == "i" and first.min() < 0:
        raise InputError(f"{path.name} has negative values ({first.min()}); objects are numbered from 1.")
    return first


def _objects(
    plane: _Plane, classes: Classes | None, figures: Mapping[int, Figures] | None, placer: Placer
) -> Iterator[PlacedExemplar]:
    remarks, frame = placer.remarks, plane.frame
    gathered = Gathered()
    for top, labels in plane.bands:
        gathered.add(top, labels)
    parts = gathered.parts() if classes is None else []
    objects = sorted(gathered.pieces.items())
    if len(parts) > 1:
        remarks.say(
            f"{remarks.file} has one object number ({objects[0][0]}) in {len(parts)} separate parts; it is taken as a "
            "black-and-white mask, and each part as an object."
        )
        objects = list(enumerate(parts, 1))
    regions = Regions(remarks)
    for number, pieces in objects:
        remarks.total += 1
        exemplar = regions.exemplar(number, frame, put_together(pieces, frame.shape))
        yield PlacedExemplar(exemplar, (classes or {}).get(number, ()), (figures or {}).get(number, Figures()))


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
            _write_tiff(temporary, first, _painted_planes(first, places, scratch), most)


def _painted_planes(
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
