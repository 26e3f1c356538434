"""Label images of an OME-Zarr (0.4 and 0.5), read and written by zarr."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.label_bands import Bands
from sam2_fewshot.annotations.label_images import Classes, nominal_image, objects_in
from sam2_fewshot.annotations.named import named_part
from sam2_fewshot.annotations.record import figures_of
from sam2_fewshot.annotations.values import Figures, index, load_json, words
from sam2_fewshot.errors import InputError, listed
from sam2_fewshot.images.addresses import holds_zarr
from sam2_fewshot.images.ome_zarr import ZarrSource
from sam2_fewshot.images.source import Header, check_size
from sam2_fewshot.images.zarr_places import attributes_in, is_outer, leads_inside, places_in
from sam2_fewshot.storage.files import replacing_folder, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.named import MarkedFile
    from sam2_fewshot.annotations.placing import PlacedExemplar
    from sam2_fewshot.annotations.record import Add, FrameRecord
    from sam2_fewshot.records import Location

MAX_PIXELS = 50_000_000_000
"""Largest plane, in pixels (223,000 × 223,000). What is not stored costs nothing, so a size may be made up."""


def read(file: MarkedFile) -> Iterator[PlacedExemplar]:
    """Yield the objects of a label image, as :func:`~sam2_fewshot.annotations.label_images.read` does.

    Parameters
    ----------
    file
        A label image, or an image or ``labels`` group with a single one.

    Raises
    ------
    InputError
        If there is none, several, or one that cannot be read; or if the extra "zarr" is missing.
    """
    image, source = file.target(), ZarrLabels(file.path)
    are_numbers = source.are_numbers
    yield from objects_in(source, image, file.placer, source.classes, source.figures, are_numbers=are_numbers)


def images_in(path: Path, content: Any) -> list[Header]:
    """Return the image that a label image is for, which has its size."""
    return [nominal_image(named_part(path).with_suffix(""), ZarrLabels(path).header)]


class ZarrLabels(ZarrSource):
    """A label image, found from any path that leads to it.

    Parameters
    ----------
    path
        As for :func:`read`.

    Raises
    ------
    InputError
        As there.
    """

    def __init__(self, path: Path) -> None:
        folder = _label_folder(path)
        self.classes, self.figures, self.are_numbers = _properties(attributes_in(folder, load_json))
        super().__init__(folder)
        self.header = replace(self.header, path=path)
        count, height, width, dtype = (
            self._size(self._levels[0], "c"),
            self.header.height,
            self.header.width,
            self.header.dtype,
        )
        check_size(path, height, width, by_region=height * width <= MAX_PIXELS)
        if count != 1:
            raise InputError(f"{path.name} has {count} channels; a label image has one.")
        if dtype.kind not in "bui":
            raise InputError(f"The values of {path.name} are {dtype}; a label image has whole numbers.")


def _label_folder(path: Path) -> Path:
    attributes = attributes_in(path, load_json)
    if "image-label" in attributes or ("multiscales" in attributes and path.parent.name == "labels"):
        return path
    group = path if path.name == "labels" else _image_folder(path, attributes) / "labels"
    given = attributes_in(group, load_json).get("labels") if group.is_dir() else None
    names = [name for name in words(given) if leads_inside(name) and (group / name).is_dir()]
    if not names and group.is_dir():
        names = sorted(folder.name for folder in group.iterdir() if folder.is_dir() and holds_zarr(folder))
    if not names:
        raise InputError(f"There is no label image in {path}; an OME-Zarr has them in the group 'labels'.")
    if len(names) > 1:
        some = listed([*map(repr, names)], 10)
        raise InputError(f"{path} has {len(names)} label images: {some}. Name one of them, like {group / names[0]}.")
    return group / names[0]


def _image_folder(path: Path, attributes: dict[str, Any]) -> Path:
    """Return where the image of a group lies, as it is opened; of several none is meant."""
    inside = is_outer(attributes, lambda name: (path / name).is_dir()) and not (path / "labels").is_dir()
    if inside and len(places_in(path, lambda name: attributes_in(path / name))) == 1:
        return path / "0"
    return path


def _properties(attributes: dict[str, Any]) -> tuple[Classes | None, dict[int, Figures], bool]:
    """Return classes and figures by label, and whether the labels are what the objects are known by elsewhere.

    Those of a run are not: they are counted through the image, and each has its ``id`` on its plane besides.
    """
    described = attributes.get("image-label")
    entries = described.get("properties") if isinstance(described, dict) else None
    if not isinstance(entries, list):
        return None, {}, True
    classes: Classes = {}
    figures: dict[int, Figures] = {}
    ids: list[int | None] = []
    for entry in entries:
        value = index(entry.get("label-value")) if isinstance(entry, dict) else None
        if value is None:
            continue
        tags = (*words(entry.get("class")), *words(entry.get("tags")))
        classes[value] = tuple(dict.fromkeys(tags))
        figures[value] = Figures.of(entry, kind=entry.get("kind"))
        ids.append(index(entry.get("id")) if {"z", "time"} <= entry.keys() else None)
    through = list(range(1, len(ids) + 1))
    return classes, figures, None in ids or ids == through or list(figures) != through


NAME = "objects"
"""Name of the label image in the group ``labels``."""

CHUNK = 1024
"""Side of a chunk in pixels."""
_VERSION = "0.4"
"""Of OME-Zarr, as it is written."""


@contextmanager
def write(path: Path, tags: Sequence[str], first: FrameRecord, chunk: int = CHUNK) -> Iterator[Add]:
    """Write the labels of one image as OME-Zarr.

    Arrays are uint32 (T, Z, Y, X) in chunks of one plane, with coarser levels (every second pixel of the one before)
    until the longer side is at most that of a chunk. Planes that were not searched are zero. One row of chunks at a
    time is in memory. The root is a multiscale image of the same arrays, since programs open a folder only where its
    root is an image (https://ngff.openmicroscopy.org/0.4/#multiscale-md: paths of datasets are relative to the group).

    Parameters
    ----------
    chunk
        Side of a chunk in pixels.
    """
    import zarr

    with replacing_folder(path) as temporary:
        root = zarr.open_group(str(temporary), mode="w", zarr_format=2)
        labels = root.create_group("labels")
        labels.attrs["labels"] = [NAME]
        group = labels.create_group(NAME)
        levels = _levels(group, first, chunk)
        properties: dict[int, dict[str, object]] = {}

        def add(record: FrameRecord) -> None:
            # What has no number of its own is numbered through, so that no two objects of the image have the same.
            values = record.numbers or range(len(properties) + 1, len(properties) + len(record.detections) + 1)
            for value, new in zip(values, _label_properties(record, tags), strict=True):
                # One object on several planes has one entry, with what is the same on all of them.
                old = properties.get(value, new)
                properties[value] = {key: old[key] for key in old if old[key] == new.get(key)}
            top = 0
            for band in Bands(record.detections, record.frame_shape, values).of(chunk):
                with telling(path):
                    _put(levels, record.location, top, band)
                top += len(band)

        yield add
        scales = _scales(first, len(levels))
        entries = [{"label-value": value, **known} for value, known in properties.items()]
        label: dict[str, Any] = {"version": _VERSION, "properties": entries, "source": {"image": "../../"}}
        group.attrs.update({"multiscales": [scales], "image-label": label})
        inside = [{**level, "path": f"labels/{NAME}/{level['path']}"} for level in scales["datasets"]]
        root.attrs.update({"multiscales": [{**scales, "name": first.stem, "datasets": inside}]})


def is_own(path: Path) -> bool:
    """Return whether a folder holds what :func:`write` makes and nothing else."""
    inside = {each.name for folder in (path, path / "labels") for each in folder.glob("[!.]*")}
    if path.is_symlink() or inside != {"labels", NAME}:
        return False
    try:
        dataset = attributes_in(path, load_json)["multiscales"][0]["datasets"][0]
        return bool(dataset["path"] == f"labels/{NAME}/0")
    except (InputError, LookupError, TypeError):
        return False


def _put(levels: Sequence[Any], place: Location, top: int, band: NDArray[np.uint32]) -> None:
    """Put the rows of a plane from `top` on into each level that has some of them."""
    for number, level in enumerate(levels):
        step = 2**number
        rows = band[-top % step :: step, ::step]
        if len(rows):
            first = -(-top // step)
            level[place.time, place.z, first : first + len(rows)] = rows


def _levels(group: Any, first: FrameRecord, chunk: int) -> list[Any]:
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
                chunks=(1, 1, min(chunk, shape[2]), min(chunk, shape[3])),
                chunk_key_encoding={"name": "v2", "separator": "/"},
                fill_value=0,
            )
        )
        if max(shape[2:]) <= chunk:
            return levels


def _label_properties(record: FrameRecord, tags: Sequence[str]) -> Iterator[dict[str, object]]:
    for number, item in enumerate(record.detections, start=1):
        own = record.tags_of(number, tags)
        known = {
            "class": own[0] if own else None,
            "tags": own if len(own) > 1 else None,
            **figures_of(item),
            "area_px": item.area,
            "kind": item.kind,
            "z": int(record.location.z),
            "time": int(record.location.time),
            "id": record.ids[number - 1],
        }
        yield {key: value for key, value in known.items() if value is not None}


def _scales(first: FrameRecord, levels: int) -> dict[str, Any]:
    """Return the description of the arrays of the label image."""
    size = first.pixel_size
    lengths = {"t": None, "z": size and size.z, "y": size and size.y, "x": size and size.x}
    axes: list[dict[str, str]] = []
    for name, length in lengths.items():
        unit = {"unit": "micrometer"} if length else {}
        axes.append({"name": name, "type": "time" if name == "t" else "space", **unit})
    steps = [length or 1.0 for length in lengths.values()]
    datasets = []
    for level in range(levels):
        scale = [*steps[:2], steps[2] * 2**level, steps[3] * 2**level]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    return {"version": _VERSION, "name": NAME, "axes": axes, "datasets": datasets}
