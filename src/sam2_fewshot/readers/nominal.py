"""Images that are known by what their annotations say of them, for conversion where the images are not at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.readers.coco import is_coco, pictures
from sam2_fewshot.readers.examples import SINGLE_SUFFIXES
from sam2_fewshot.readers.images import ImageSet, images_of
from sam2_fewshot.readers.json_file import index, load_json
from sam2_fewshot.readers.label_image import LABEL_SUFFIXES
from sam2_fewshot.readers.naming import example_stems, natural_key, unique_stems
from sam2_fewshot.readers.nimbus_json import annotations_of
from sam2_fewshot.readers.places import holds_zarr
from sam2_fewshot.readers.source import Header, kind_of, open_source, reading
from sam2_fewshot.readers.zarr_labels import ZarrLabels, image_path
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

UNKNOWN = 1_000_000
"""Width, height, slices and time points of an image that the annotations do not tell the size of."""

_MOST_IMAGES = 100_000


@dataclass(frozen=True, slots=True)
class _NoPixels:
    """An image without pixels; a :class:`~sam2_fewshot.readers.source.PixelSource`."""

    header: Header

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Refuse."""
        raise InputError(f"The pixels of {self.header.path.name} are not at hand.")


def nominal_images(path: Path) -> ImageSet:
    """Return the images that a file or folder of annotations speaks of.

    A label image and an OME-Zarr have the size of their image and COCO tells it; of the others nothing is known, so
    they get :data:`UNKNOWN`. An image is called what the file says, or else like the file.

    Raises
    ------
    InputError
        If there is no such file, or if it cannot be read.
    """
    kind = kind_of(path)
    if kind == "missing":
        raise InputError(f"There is no file or folder {path}; check its name.")
    if kind == "folder" and not holds_zarr(path):
        with reading(path):
            found = [file for file in path.iterdir() if file.suffix.lower() in SINGLE_SUFFIXES or holds_zarr(file)]
        files = sorted((file for file in found if not file.name.startswith(".")), key=natural_key)
        if not files:
            raise InputError(f"There is no file of annotations in the folder {path}.")
        headers = _distinct(header for file in files for header in _headers(file))
    else:
        headers = _headers(path)
    stems = unique_stems([header.path for header in headers])
    return images_of([_NoPixels(header) for header in headers], stems, Settings())


def _distinct(headers: Iterable[Header]) -> list[Header]:
    """Return one header an image, the one that knows its size where there is one."""
    found: dict[str, Header] = {}
    for header in headers:
        before = found.get(header.path.name)
        if before is None or before.height == UNKNOWN:
            found[header.path.name] = header
    return list(found.values())


def _headers(path: Path) -> list[Header]:
    if holds_zarr(path):
        return [_renamed(ZarrLabels(path).header, image_path(path).with_suffix(""))]
    if path.suffix.lower() in LABEL_SUFFIXES:
        return [_renamed(open_source(path).header, path)]
    own = Path(example_stems(path)[-1])
    if path.suffix.lower() not in {".json", ".geojson"}:
        return [_unknown(own)]
    content = load_json(path)
    if is_coco(content):
        return _of_coco(content) or [_unknown(own)]
    annotations = annotations_of(content)
    if annotations is None:
        return [_unknown(own)]
    count = 1 + max((_xy(annotation) for annotation in annotations), default=0)
    return [_unknown(own)] if count == 1 else [_unknown(Path(f"position-{n + 1}")) for n in range(count)]


def _of_coco(content: dict[str, Any]) -> list[Header]:
    found: dict[str, Header] = {}
    for picture in pictures(content).values():
        height, width = picture.shape or (UNKNOWN, UNKNOWN)
        before = found.get(picture.name)
        size_z, size_t = picture.z + 1, picture.time + 1
        if before is not None:
            size_z, size_t = max(size_z, before.size_z), max(size_t, before.size_t)
        name = Path(picture.name or "image")
        found[picture.name] = Header(name, height, width, np.dtype(np.uint8), size_z=size_z, size_t=size_t)
    return list(found.values())[:_MOST_IMAGES]


def _xy(annotation: Any) -> int:
    place = annotation.get("location") if isinstance(annotation, dict) else None
    xy = index(place.get("XY", 0)) if isinstance(place, dict) else None
    return xy if xy is not None and 0 <= xy < _MOST_IMAGES else 0


def _unknown(name: Path) -> Header:
    return Header(name, UNKNOWN, UNKNOWN, np.dtype(np.uint8), size_z=UNKNOWN, size_t=UNKNOWN)


def _renamed(header: Header, path: Path) -> Header:
    return Header(
        Path(example_stems(path)[-1]),
        header.height,
        header.width,
        header.dtype,
        size_z=header.size_z,
        size_t=header.size_t,
        pixel_size=header.pixel_size,
    )
