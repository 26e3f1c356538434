"""Examples from the label images of an OME-Zarr (0.4 and 0.5), read by zarr, large planes in bands of rows.

Label images lie in the group ``labels`` of an image (https://ngff.openmicroscopy.org). Values are object numbers; what
``image-label.properties`` says of one (``class``, ``tags``, ``score``) becomes its tags and figures.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.readers.json_file import index, load_json, number, words
from sam2_fewshot.readers.label_image import Classes, objects_in
from sam2_fewshot.readers.pixel_size import zarr_pixel_size
from sam2_fewshot.readers.places import holds_zarr
from sam2_fewshot.readers.placing import Figures
from sam2_fewshot.readers.source import Header, check_size, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.readers.images import ImageFile
    from sam2_fewshot.readers.placing import PlacedExemplar, Placer
    from sam2_fewshot.records import Box, PixelSize

MAX_CHUNK_BYTES = 1_000_000_000
"""Largest chunk that is unpacked; it is in memory as a whole."""

MAX_PIXELS = 50_000_000_000
"""Largest plane, in pixels (223,000 × 223,000). What is not stored costs nothing, so a size may be made up."""

_SAFE = re.compile(r"(?!\.)[^/\\\0]+(/(?!\.)[^/\\\0]+)*")
"""A path that stays inside: no way up, no root."""


def image_path(path: Path) -> Path:
    """Return the outermost Zarr that a path lies in: ``a.zarr`` for ``a.zarr/labels/cells``."""
    while holds_zarr(path.parent):
        path = path.parent
    return path


def read_zarr_labels(path: Path, image: ImageFile, placer: Placer) -> Iterator[PlacedExemplar]:
    """Yield the objects of a label image, as :func:`~sam2_fewshot.readers.label_image.read_labels` does.

    Parameters
    ----------
    path
        A label image, or an image or ``labels`` group with a single one.
    image, placer
        As there.

    Raises
    ------
    InputError
        If there is none, several, or one that cannot be read; or if the extra "zarr" is missing.
    """
    source = ZarrLabels(path)
    yield from objects_in(source, image, placer, source.classes, source.figures)


@dataclass(frozen=True, slots=True)
class _Array:
    """The full-resolution array of a label image."""

    folder: Path
    axes: str
    pixel_size: PixelSize | None


class ZarrLabels:
    """Labels as a :class:`~sam2_fewshot.readers.label_rows.RowSource`.

    Parameters
    ----------
    path
        As for :func:`read_zarr_labels`.

    Raises
    ------
    InputError
        As there.
    """

    def __init__(self, path: Path) -> None:
        folder = _label_folder(path)
        attributes = _attributes(folder)
        self.classes, self.figures = _properties(attributes)
        found = _array(folder, attributes)
        self._axes = found.axes
        with reading(path):
            self._array = _open(found.folder)
            shape = tuple(int(n) for n in self._array.shape)
            if len(shape) != len(found.axes):
                raise InputError(f"{path.name} has {len(shape)} axes, and its description names {len(found.axes)}.")
            sizes = dict(zip(found.axes, shape, strict=True))
            check_size(path, sizes["y"], sizes["x"], by_region=sizes["y"] * sizes["x"] <= MAX_PIXELS)
            if sizes.get("c", 1) != 1:
                raise InputError(f"{path.name} has {sizes['c']} channels; a label image has one.")
            dtype = np.dtype(self._array.dtype)
            if dtype.kind not in "bui":
                raise InputError(f"The values of {path.name} are {dtype}; a label image has whole numbers.")
            chunk = math.prod(int(n) for n in self._array.chunks) * dtype.itemsize
            if chunk > MAX_CHUNK_BYTES:
                raise InputError(
                    f"The chunks of {path.name} unpack to {chunk // 10**6:,} MB each; save it with smaller ones."
                )
        self.piece_rows = int(self._array.chunks[found.axes.index("y")])
        """Height of the chunks."""
        self.header = Header(
            path,
            sizes["y"],
            sizes["x"],
            dtype.newbyteorder("="),
            size_z=max(1, sizes.get("z", 1)),
            size_t=max(1, sizes.get("t", 1)),
            by_region=True,
            pixel_size=found.pixel_size,
        )

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Yield the one plane at a slice and time point."""
        return self.region(z, t, (0, 0, self.header.width, self.header.height))

    def region(self, z: int, t: int, box: Box) -> Iterator[NDArray[Any]]:
        """Yield a region ``(x0, y0, x1, y1)`` of it."""
        x0, y0, x1, y1 = box
        at = {"z": z, "t": t, "c": 0, "y": slice(y0, y1), "x": slice(x0, x1)}
        with reading(self.header.path):
            pixels = np.asarray(self._array[tuple(at[axis] for axis in self._axes)])
            if self._axes.index("x") < self._axes.index("y"):
                pixels = pixels.T
        yield np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))


def _label_folder(path: Path) -> Path:
    attributes = _attributes(path)
    if "image-label" in attributes or ("multiscales" in attributes and path.parent.name == "labels"):
        return path
    group = path if path.name == "labels" else path / "labels"
    listed = _attributes(group).get("labels") if group.is_dir() else None
    names = [name for name in words(listed) if _SAFE.fullmatch(name) and (group / name).is_dir()]
    if not names and group.is_dir():
        names = sorted(folder.name for folder in group.iterdir() if folder.is_dir() and holds_zarr(folder))
    if not names:
        raise InputError(f"There is no label image in {path}; an OME-Zarr has them in the group 'labels'.")
    if len(names) > 1:
        shown = ", ".join(repr(name) for name in names[:10])
        raise InputError(f"{path} has {len(names)} label images: {shown}. Name one of them, like {group / names[0]}.")
    return group / names[0]


def _attributes(folder: Path) -> dict[str, Any]:
    """Return a group's OME attributes: of Zarr 3 under ``ome`` (0.5), of Zarr 2 as they are (0.4)."""
    content: Any = {}
    if (folder / "zarr.json").is_file():
        content = load_json(folder / "zarr.json")
        content = content.get("attributes") if isinstance(content, dict) else None
        content = content.get("ome", content) if isinstance(content, dict) else None
    elif (folder / ".zattrs").is_file():
        content = load_json(folder / ".zattrs")
    return content if isinstance(content, dict) else {}


def _array(folder: Path, attributes: dict[str, Any]) -> _Array:
    try:
        scales = attributes["multiscales"][0]
        names = [str(axis["name"]) for axis in scales["axes"]]
        inside = scales["datasets"][0]["path"]
    except (LookupError, TypeError, AttributeError):
        raise InputError(
            f"{folder} is not an OME-Zarr label image: its description (multiscales) is missing or unusual."
        ) from None
    axes = "".join(names)
    if len(axes) != len(names) or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes) <= set("tczyx"):
        raise InputError(f"{folder} has the axes {axes[:40]!r}; a label image has y and x, and may have t, c and z.")
    if not isinstance(inside, str) or not _SAFE.fullmatch(inside) or not (folder / inside).is_dir():
        raise InputError(f"{folder} lacks the array that its description names.")
    return _Array(folder / inside, axes, zarr_pixel_size(scales))


def _open(folder: Path) -> Any:
    try:
        import zarr
    except ImportError:
        raise InputError(
            'OME-Zarr is read with the package zarr, which is not installed: pip install "sam2-fewshot[zarr]".'
        ) from None
    return zarr.open_array(str(folder), mode="r")


def _properties(attributes: dict[str, Any]) -> tuple[Classes | None, dict[int, Figures]]:
    described = attributes.get("image-label")
    entries = described.get("properties") if isinstance(described, dict) else None
    if not isinstance(entries, list):
        return None, {}
    classes: Classes = {}
    figures: dict[int, Figures] = {}
    for entry in entries:
        value = index(entry.get("label-value")) if isinstance(entry, dict) else None
        if value is None:
            continue
        tags = (*words(entry.get("class")), *words(entry.get("tags")))
        classes[value] = tuple(dict.fromkeys(tags))
        given = (number(entry.get(key)) for key in ("score", "similarity", "predicted_iou"))
        figures[value] = Figures(*(math.nan if figure is None else figure for figure in given))
    return classes, figures
