"""Examples from a label image: each object's pixels have its number, 0 is background."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.readers.images import LARGE
from sam2_fewshot.readers.json_file import load_json, words
from sam2_fewshot.readers.label_rows import Gathered, RowSource, band_rows, put_together
from sam2_fewshot.readers.placing import Figures, PlacedExemplar
from sam2_fewshot.readers.regions import Regions
from sam2_fewshot.readers.source import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.readers.images import FrameFile, ImageFile
    from sam2_fewshot.readers.placing import Placer
    from sam2_fewshot.readers.source import PixelSource

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
