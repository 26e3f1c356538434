"""Label images: each object's pixels have its number, 0 is background."""

from __future__ import annotations

import json
import re
import struct
import tempfile
import uuid
import zlib
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.label_bands import BAND, Bands, objects_of, put_together
from sam2_fewshot.annotations.named import nominal_header
from sam2_fewshot.annotations.placing import MAX_MASK_BYTES, PlacedExemplar, Regions
from sam2_fewshot.annotations.values import Figures, load_json, words
from sam2_fewshot.errors import InputError, listed
from sam2_fewshot.images.image_file import LARGE
from sam2_fewshot.images.registry import example_stems, open_source
from sam2_fewshot.storage.files import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.named import MarkedFile
    from sam2_fewshot.annotations.placing import Placer
    from sam2_fewshot.annotations.record import Add, FrameRecord
    from sam2_fewshot.images.image_file import FrameFile, ImageFile
    from sam2_fewshot.images.source import Header, PixelSource
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import PixelSize

Classes = dict[int, tuple[str, ...]]
_LISTED = 5


def read(file: MarkedFile) -> Iterator[PlacedExemplar]:
    """Yield the objects of a label image.

    An object that its outline describes exactly comes as the outline, which is small; one with holes or
    several parts as a mask. A file with one number only, whose pixels fall into several parts, is taken as
    a black-and-white mask, with a warning: each part is an object. A large file in tiles or strips is read in bands of
    rows, with the same objects.

    Parameters
    ----------
    file
        PNG or TIFF of 8, 16 or 32 bits, of its image's height and width. A stack must have its image's slices and
        time points, or as many pages as these are together, with time outermost; a single plane belongs to the first
        frame.

    Raises
    ------
    InputError
        If the file cannot be read, has another size than its image, is not a label image, or has no tags where tags
        are asked for.
    """
    path, image = file.path, file.target(ending="_labels")
    classes = read_classes(path)
    if file.tagged and classes is None:
        raise InputError(
            f"{path.name} is a label image, which has no tags; leave the tag out, or put a file "
            f'{path.stem}_classes.json like {{"1": "living", "2": "dead"}} beside it.'
        )
    yield from objects_in(open_source(path), image, file.placer, classes)


def images_in(path: Path, content: Any) -> list[Header]:
    """Return the image that a label image is for, which has its size and its warnings."""
    labels = open_source(path).header
    return [replace(nominal_image(path, labels), warnings=labels.warnings)]


def nominal_image(path: Path, labels: Header) -> Header:
    """Return the header of the image that labels are for, after which the path is named."""
    shape = labels.height, labels.width
    return nominal_header(Path(example_stems(path)[-1]), shape, labels.size_z, labels.size_t, labels.pixel_size)


def objects_in(
    source: PixelSource,
    image: ImageFile,
    placer: Placer,
    classes: Classes | None = None,
    figures: Mapping[int, Figures] | None = None,
    *,
    are_numbers: bool = True,
    large: int = LARGE,
    band: int = BAND,
    max_bytes: int = MAX_MASK_BYTES,
) -> Iterator[PlacedExemplar]:
    """Yield the objects of labels, wherever they come from; see :func:`read`.

    Parameters
    ----------
    source
        Gives the labels.
    image
        The image that they are for.
    placer
        Takes remarks.
    classes, figures
        Tags and figures of the objects by their numbers.
    are_numbers
        Whether objects are known by their values elsewhere as well.
    large, band
        Pixels of a plane above which it is read in bands, and about the pixels of a band.
    max_bytes
        What full-frame masks of a plane may take together.
    """
    remarks, classes_of, figures_of = placer.remarks, classes or {}, figures or {}
    seen: set[int] = set()
    places, frames = zip(*_planes(source.header, image, placer), strict=True)
    planes = objects_of(source, places, large, band, may_be_mask=classes is None)
    for frame, (objects, mask) in zip(frames, planes, strict=True):
        if mask:
            remarks.warn(
                f"{remarks.file} has one object number ({mask}) in {len(objects)} separate parts; it is taken as a "
                "black-and-white mask, and each part as an object."
            )
        regions = Regions(remarks, max_bytes, placer.boxes)
        for number, pieces in objects:
            seen.add(number)
            remarks.total += 1
            exemplar = regions.exemplar(number, frame, put_together(pieces, frame.shape))
            tags, sureness = classes_of.get(number, ()), figures_of.get(number, Figures())
            yield PlacedExemplar(exemplar, tags, sureness, number=number if are_numbers and not mask else None)
    if classes and seen.isdisjoint(classes):
        known, there = (listed([*map(str, sorted(numbers))], _LISTED) for numbers in (classes, seen))
        remarks.warn(
            f"{remarks.file} has no object of the numbers that classes are given for ({known}), so its objects have "
            f"none; they are {there}."
        )


def companion(path: Path) -> Path | None:
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
    """Return the classes by object number of a label image, None when it has no :func:`companion`.

    Raises
    ------
    InputError
        If the file beside it is not what it should be.
    """
    where = companion(path)
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


def _planes(header: Header, image: ImageFile, placer: Placer) -> Iterator[tuple[tuple[int, int], FrameFile]]:
    """Yield slice and time point of each plane of labels, and the frame that it is for."""
    path = header.path
    if (header.height, header.width) != image.shape:
        height, width = image.shape
        # Labels that lie across are often of a picture that other programs turn; its warnings say so.
        why = image.header.warnings if (header.width, header.height) == image.shape else ()
        raise InputError(
            f"{path.name} is {header.width} × {header.height} px, but its image {image.name} is {width} × {height} px; "
            + " ".join(["labels must have the size of their image.", *why])
        )
    sizes, wanted = (header.size_z, header.size_t), (image.size_z, image.size_t)
    places = [(z, t) for t in range(image.size_t) for z in range(image.size_z)]
    if sizes == wanted:
        pairs = [(place, place) for place in places]
    elif sizes == (len(places), 1):  # pages without a meaning of their own
        pairs = [((page, 0), place) for page, place in enumerate(places)]
        if image.size_z > 1:
            placer.remarks.warn(
                f"{path.name} has {sizes[0]} slices; they are taken for the {image.size_z} slices of the first of the "
                f"{image.size_t} time points of {image.name}, then for those of the second, and so on."
            )
    elif sizes == (1, 1):
        placer.remarks.warn(f"{path.name} has a single plane; it is taken for the first frame of {image.name}.")
        pairs = [((0, 0), (0, 0))]
    else:
        raise InputError(
            f"{path.name} has {sizes[0]} slices and {sizes[1]} time points, but its image {image.name} has {wanted[0]} "
            f"and {wanted[1]}; labels must have the planes of their image, or a single one for its first frame."
        )
    for place, target in pairs:
        yield place, image.frame(*target)


TILE = 512
"""Height of the bands that a large plane is painted in, and side of a tile of its file."""
_LARGEST_16_BIT = 65_535
_DESCRIPTION, _MAKE = 270, 271
"""The TIFF tags ImageDescription and Make."""


@contextmanager
def write(path: Path, tags: Sequence[str], first: FrameRecord, large: int = LARGE, tile: int = TILE) -> Iterator[Add]:
    """Write the labels of one image as compressed TIFF.

    It is an OME-TIFF with the pixel size, where it is known, which ImageJ finds in its own way, too. An image of one
    plane is two-dimensional, others have the axes TZYX, and planes that were not searched are zero. Values are 16 bit,
    or 32 bit where one is above 65,535. One plane at a time is in memory, of a large one only a band;
    such a file is stored in tiles.

    Parameters
    ----------
    large
        Pixels of a plane above which it is large.
    tile
        Side of a tile in pixels.
    """
    height, width = first.frame_shape
    is_large = height * width > large
    piece = (tile, tile) if is_large else (height, width)
    largest = 0
    bands: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Frames come with Time innermost and are stored with Time outermost, and how many bits are needed is
    # known at the last one, so painted bands wait in a compressed scratch file.
    with replacing(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as scratch:

        def add(record: FrameRecord) -> None:
            nonlocal largest
            places = bands[record.location.time, record.location.z] = []
            with telling(path):
                for band in Bands(record.detections, record.frame_shape, record.numbers).of(piece[0]):
                    packed = zlib.compress(band.tobytes(), 1)
                    places.append((scratch.tell(), len(packed)))
                    scratch.write(packed)
            largest = max(largest, max(record.ids, default=0))

        yield add
        _write_tiff(temporary, first, _pieces(first, bands, scratch, piece), largest, piece if is_large else None)


def _pieces(
    first: FrameRecord,
    bands: Mapping[tuple[int, int], Sequence[tuple[int, int]]],
    scratch: IO[bytes],
    piece: tuple[int, int],
) -> Iterator[NDArray[np.uint32]]:
    """Yield the pieces ``(height, width)`` of all planes, row by row, from the bands in a scratch file."""
    (height, width), (rows, columns) = first.frame_shape, piece
    across = -(-width // columns)
    for time in range(first.size_t):
        for z in range(first.size_z):
            for number in range(-(-height // rows)):
                band = np.zeros((rows, across * columns), np.uint32)
                if (time, z) in bands:
                    start, size = bands[time, z][number]
                    scratch.seek(start)
                    painted = np.frombuffer(zlib.decompress(scratch.read(size)), np.uint32).reshape(-1, width)
                    band[: len(painted), :width] = painted
                yield from np.split(band, across, axis=1)


def _write_tiff(
    path: Path,
    first: FrameRecord,
    planes: Iterator[NDArray[np.uint32]],
    largest: int,
    tile: tuple[int, int] | None,
) -> None:
    import tifffile

    kind = np.uint16 if largest <= _LARGEST_16_BIT else np.uint32
    single = first.size_t * first.size_z == 1
    shape = first.frame_shape if single else (first.size_t, first.size_z, *first.frame_shape)
    # tifffile would make up a UUID from the clock and the network card.
    calibration: dict[str, Any] = {}
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{first.location.xy}/{first.name}")
    metadata: dict[str, Any] = {"axes": "YX" if single else "TZYX", "UUID": str(name)}
    if first.pixel_size is not None:
        lengths = {"X": first.pixel_size.x, "Y": first.pixel_size.y, "Z": first.pixel_size.z}
        metadata |= {f"PhysicalSize{axis}": length for axis, length in lengths.items() if length is not None}
        calibration = _imagej_calibration(first, first.pixel_size)
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
        **calibration,
    )
    if calibration:
        _add_description(path)


def _imagej_calibration(first: FrameRecord, size: PixelSize) -> dict[str, Any]:
    """Return what ImageJ reads a TIFF's pixel size from: pixels per micron, and the unit in a description."""
    facts: dict[str, object] = {"ImageJ": "1.11a"}
    if first.is_stack:
        # Without "images": by that ImageJ takes the planes for uncompressed and in a row.
        facts |= {"slices": first.size_z, "frames": first.size_t, "hyperstack": "true"}
    facts["unit"] = "micron"
    if size.z is not None:
        facts["spacing"] = size.z
    text = "".join(f"{name}={value}\n" for name, value in facts.items())
    own = (_MAKE, "s", 0, text, True)
    return {"resolution": (1 / size.x, 1 / size.y), "resolutionunit": "NONE", "extratags": [own]}


def _add_description(path: Path) -> None:
    """Make the tag that ImageJ's description was written as a second description.

    ImageJ takes the last one of a file, and Bio-Formats, libtiff and tifffile take the first one, which is OME's. It
    was written under the next number, so that the tags stay in order, because tifffile writes no second one.
    """
    import tifffile

    with tifffile.TiffFile(path) as tif:
        place, order = tif.pages.first.tags[_MAKE].offset, tif.byteorder
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack(f"{order}H", _DESCRIPTION))


def write_companions(
    records: Sequence[FrameRecord], paths: Mapping[str, Path], folder: Path, overwrite: bool, progress: Progress
) -> None:
    """Write the classes of objects beside label images, as :func:`read_classes` takes them.

    Where there are none to write, the classes of the label image that is replaced give way to empty ones: its numbers
    were those of other objects.

    Parameters
    ----------
    records
        All frames, with tags.
    paths
        The label images by the stems of their images.
    folder
        Where these files come.
    overwrite
        Whether files there may be replaced.
    progress
        Takes warnings, of classes that are not written.
    """
    for stem, path in paths.items():
        tags: dict[int, set[tuple[str, ...]]] = defaultdict(set)
        for record in records:
            if record.stem == stem:
                own = record.tags or [()] * len(record.ids)  # tags may be common to all
                for number, each in zip(record.ids, own, strict=True):
                    tags[number].add(each)
        beside = path.with_name(f"{path.stem}_classes.json")
        is_there = (folder / beside.name).exists()
        has_classes = any(own for found in tags.values() for own in found)
        if not has_classes and not is_there:
            continue
        is_clear = all(len(found) == 1 for found in tags.values())
        if not is_clear:
            progress.warn(f"The classes of {path.name} are left out: objects of one number differ from plane to plane.")
        if is_there and not overwrite:
            progress.warn(
                f"{beside.name} is there already and was left as it is; the classes were not written."
                if has_classes and is_clear
                else f"{beside.name} is there already and was left as it is; the objects of {path.name} get its "
                "classes, so delete it if it is not theirs."
            )
        elif is_clear or is_there:
            table = {str(number): list(next(iter(found))) if is_clear else [] for number, found in tags.items()}
            with replacing(beside) as temporary:
                temporary.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
