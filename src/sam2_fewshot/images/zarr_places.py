"""Where the images of an OME-Zarr are and what they are called: plates, wells, and groups of bioformats2raw.

A plate (https://ngff.openmicroscopy.org/0.5/#plate-md) lists its wells, a well its fields, and each field is an image.
An image that is given by its own path is called as it is in its plate.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.addresses import remote, shown
from sam2_fewshot.images.positions import MOST_POSITIONS, check_positions, field_names, position_names, well_name
from sam2_fewshot.resources import mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SAFE = re.compile(r"(?!\.)[^/\\\0]+(/(?!\.)[^/\\\0]+)*")
_FIELD = re.compile(r"([A-Za-z]{1,3})/([0-9]{1,3})/([0-9]{1,6})")
"""Where a field is in a plate: row, column, field."""
_MOST_JSON = 10_000_000
_MOST_XML = 100_000_000

Attributes = dict[str, Any]


class ImagePlace(NamedTuple):
    """Where an image is.

    Parameters
    ----------
    path
        Its folder or address.
    position
        Its name among others; empty for the only one.
    title
        What the whole is called; empty where it is the image.
    """

    path: Path
    position: str = ""
    title: str = ""


def places_in(path: Path, attributes_at: Callable[[str], Mapping[str, Any]]) -> list[ImagePlace]:
    """Return the images of a group.

    Parameters
    ----------
    path
        Its folder or address.
    attributes_at
        Gives the OME attributes of the group at a path inside; none where there is no group.

    Raises
    ------
    InputError
        If it is a plate or well without images, or its description leads outside of it.
    """
    attributes = attributes_at("")
    if "plate" in attributes:
        return _plate(path, attributes["plate"], attributes_at)
    if "well" in attributes:
        return _well(path, attributes["well"])
    if "multiscales" not in attributes:
        series = _series(path, attributes, attributes_at)
        if series:
            return series
    return [_alone(path)]


def is_outer(attributes: Mapping[str, Any], holds: Callable[[str], object]) -> bool:
    """Tell whether a group that is opened as an image stands for the image `0` in it, as bioformats2raw writes them.

    Parameters
    ----------
    attributes
        OME attributes of the group.
    holds
        Tells whether the group has something of a name.
    """
    return "multiscales" not in attributes and ("bioformats2raw.layout" in attributes or bool(holds("0")))


def _plate(path: Path, plate: Any, attributes_at: Callable[[str], Mapping[str, Any]]) -> list[ImagePlace]:
    wells = [_inside(path, well.get("path")) for well in _entries(path, plate, "wells")]
    check_positions(path, len(wells))
    described = mapped(attributes_at, wells, 1 if remote(path) is None else 8)
    fields: list[tuple[str, tuple[str, int]]] = []
    for well, attributes in zip(wells, described, strict=True):
        images = _entries(path, attributes.get("well", {}), "images")
        for number, image in enumerate(images, 1):
            fields.append((f"{well}/{_inside(path, image.get('path'))}", (_name_of(well), number)))
        check_positions(path, len(fields))
    if not fields:
        raise InputError(f"{shown(path)} is a plate without images; its wells list none.")
    names = field_names([place for _, place in fields])
    if len(fields) == 1:
        names = (fields[0][1][0],)
    return [ImagePlace(path / inside, name, path.name) for (inside, _), name in zip(fields, names, strict=True)]


def _well(path: Path, well: Any) -> list[ImagePlace]:
    images = [_inside(path, image.get("path")) for image in _entries(path, well, "images")]
    if not images:
        raise InputError(f"{shown(path)} is a well without images.")
    title, name = _plate_of(path)
    several = len(images) > 1 or _has_fields(path.parent.parent)
    names = position_names(f"{name}_f{number}" if several else name for number in range(1, len(images) + 1))
    return [ImagePlace(path / inside, own, title) for inside, own in zip(images, names, strict=True)]


def _series(
    path: Path, attributes: Mapping[str, Any], attributes_at: Callable[[str], Mapping[str, Any]]
) -> list[ImagePlace]:
    """Return the images of a bioformats2raw group; none where it has a single one, which is opened as the group."""
    if "bioformats2raw.layout" not in attributes:
        return []
    listed = attributes_at("OME").get("series")
    inside = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    inside = [_inside(path, name) for name in inside]
    images: list[Mapping[str, Any]] = [attributes_at(name) for name in inside]
    if not inside:
        for number in range(MOST_POSITIONS):
            found = attributes_at(str(number))
            if "multiscales" not in found:
                break
            inside.append(str(number))
            images.append(found)
    if len(inside) < 2:
        return []
    labels = _names_in_xml(path, len(inside)) or [_label(image) for image in images]
    if len(set(labels)) == 1:  # the name of the file that they came from
        labels = [None] * len(labels)
    names = position_names(labels)
    return [ImagePlace(path / name, own, path.name) for name, own in zip(inside, names, strict=True)]


def _label(attributes: Mapping[str, Any]) -> str | None:
    scales = attributes.get("multiscales")
    name = scales[0].get("name") if isinstance(scales, list) and scales and isinstance(scales[0], dict) else None
    return name if isinstance(name, str) and name not in ("", "/") and not name.isdecimal() else None


def _names_in_xml(path: Path, count: int) -> list[str | None]:
    """Return the images' names in ``OME/METADATA.ome.xml``; none where it is not at hand or counts otherwise."""
    file = path / "OME" / "METADATA.ome.xml"
    try:
        if remote(path) is not None or file.stat().st_size > _MOST_XML:
            return []
        images = ElementTree.fromstring(file.read_bytes()).findall("{*}Image")
    except (OSError, ValueError, ElementTree.ParseError):
        return []
    return [image.get("Name") for image in images] if len(images) == count else []


def _alone(path: Path) -> ImagePlace:
    """Return an image that is given by its own path, called as in the plate or group that it is a part of."""
    if remote(path) is not None:
        found = re.fullmatch(rf"(.+?)/{_FIELD.pattern}/?", path.as_posix())
        if found is None or not found[1].lower().endswith(".zarr"):
            return ImagePlace(path)
        return ImagePlace(path, f"{well_name(found[2], found[3])}_f{int(found[4]) + 1}", Path(found[1]).name)
    try:
        group = attributes_in(path.parent)
        places: list[ImagePlace] = []
        if isinstance(group.get("well"), dict):
            places = _well(path.parent, group["well"])
        elif "bioformats2raw.layout" in group:
            places = places_in(path.parent, lambda inside: attributes_in(path.parent / inside))
    except (InputError, OSError):
        return ImagePlace(path)  # what is around the image is not needed to read it
    known = {place.path.name: place for place in places}
    return known.get(path.name, ImagePlace(path))._replace(path=path)


def _plate_of(path: Path) -> tuple[str, str]:
    """Return what a well's plate is called, and the well: by its own name where it is not in a plate."""
    if remote(path) is None and "plate" not in attributes_in(path.parent.parent):
        return "", path.name
    return path.parent.parent.name, _name_of("/".join(path.parts[-2:]))


def _has_fields(plate: Path) -> bool:
    """Tell whether a plate says that its wells have several fields."""
    described = {} if remote(plate) is not None else attributes_in(plate).get("plate", {})
    count = described.get("field_count") if isinstance(described, dict) else None
    return isinstance(count, int) and count > 1


def _name_of(well: str) -> str:
    row, _, column = well.rpartition("/")
    return well_name(row.rpartition("/")[2], column)


def _entries(path: Path, where: Any, what: str) -> list[dict[str, Any]]:
    listed = where.get(what) if isinstance(where, dict) else None
    if listed is not None and not isinstance(listed, list):
        raise InputError(f"{shown(path)} has a description that makes no sense ({what} is not a list).")
    return [entry for entry in listed or [] if isinstance(entry, dict)]


def _inside(path: Path, name: object) -> str:
    if not isinstance(name, str) or not leads_inside(name.strip("/")):
        raise InputError(f"{shown(path)} has a description that leads outside of it ({str(name)[:60]!r}).")
    return name.strip("/")


def leads_inside(name: str) -> bool:
    """Tell whether a path that a description names stays inside: no way up, no root."""
    return _SAFE.fullmatch(name) is not None


def attributes_in(folder: Path, load: Callable[[Path], Any] | None = None) -> Attributes:
    """Return a local group's OME attributes: of Zarr 3 under ``ome`` (0.5), of Zarr 2 as they are (0.4).

    Parameters
    ----------
    folder
        Of the group.
    load
        Reads a JSON file; when left out, one that is damaged or too long says nothing.
    """
    file = next((folder / name for name in ("zarr.json", ".zattrs") if (folder / name).is_file()), None)
    if file is None:
        return {}
    content = (load or _json_in)(file)
    if file.name == "zarr.json":
        content = content.get("attributes") if isinstance(content, dict) else None
        content = content.get("ome", content) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _json_in(file: Path) -> Any:
    if file.stat().st_size > _MOST_JSON:
        return None
    try:
        return json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError):
        return None
