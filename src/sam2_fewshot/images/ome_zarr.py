"""OME-Zarr 0.4 and 0.5 (https://ngff.openmicroscopy.org), in a folder, on the web or in S3, read by region.

A plate's fields, and the images in a group as bioformats2raw writes it (``0``, ``1``, …), are positions; of each the
first multiscale image is read. The array of full resolution gives the pixels, a smaller one the contrast.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import FewShotError, InputError, ServerError, needed
from sam2_fewshot.images.addresses import check_address, remote, shown
from sam2_fewshot.images.positions import check_counts, check_positions, opened_positions
from sam2_fewshot.images.source import (
    MAX_PIECE_BYTES,
    NUMBERS,
    Header,
    check_kind,
    check_size,
    damaged,
    pixel_size,
    reading,
)
from sam2_fewshot.images.zarr_places import ImagePlace, is_outer, leads_inside, places_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.images.source import ChannelColors, ChannelNames, PixelSource
    from sam2_fewshot.records import Box, PixelSize

PATIENCE = 30.0
"""Seconds that a server may stay silent."""

_AXES = "tczyx"
_FORBIDDEN = (401, 403)
"""Answers of a server that wants a login, or another one."""
_AT_A_TIME = 8
"""So many images of a plate on a server are opened at a time."""
_MOST_COUNTED = 50_000
"""Of so many files and folders of an array is found out which pieces are missing; that takes .1 s."""
_PRIMARIES = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
_PHOTO_NAMES = (("red", "green", "blue"), ("r", "g", "b"))


def open_ome_zarr(path: Path, only: int | None = None) -> list[PixelSource]:
    """Open the images of an OME-Zarr: the fields of a plate or well, those of a bioformats2raw group, or the only one.

    Each has its own folder or address as its path, so that it is opened alone later.
    """
    with _reading(path):
        places = _places(path)
    check_positions(path, len(places))
    names = {number: place.position for number, place in enumerate(places)}

    def opened(number: int) -> ZarrSource:
        return ZarrSource(places[number].path, title=places[number].title)

    # Over a network most of the time is spent on waiting.
    return opened_positions(path, opened, names, only, None if remote(path) is None else _AT_A_TIME)


class ZarrSource:
    """An OME-Zarr image; a :class:`~sam2_fewshot.images.source.RowSource`.

    Parameters
    ----------
    path
        Its folder, or its address (:func:`~sam2_fewshot.images.addresses.remote`).
    patience
        Seconds that a server may stay silent.
    title
        What the whole is called that it is in; empty when it is that itself.

    Raises
    ------
    InputError
        If it cannot be read as an OME-Zarr image, or the package zarr is missing.
    ServerError
        If its server does not answer, or answers with an error.
    """

    def __init__(self, path: Path, patience: float = PATIENCE, title: str = "") -> None:
        self._path = path
        with _reading(path):
            self._axes, self._levels, attributes = _open(path, patience)
            self.header = _header(path, self._axes, self._levels, attributes, title)
            self.piece_rows = int(self._levels[0].chunks[self._axes.index("y")])
            """Height of the chunks."""

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Yield the planes at a slice and time point; photos as (H, W, 3)."""
        return self._read(0, z, t, None)

    def region(self, z: int, t: int, box: Box) -> Iterator[NDArray[Any]]:
        """Yield a region of the planes."""
        return self._read(0, z, t, box)

    def reduced(self, z: int, t: int, pixels: int) -> Iterator[NDArray[Any]] | None:
        """Yield the planes of the smallest level that has so many pixels and all slices; None if there is none."""
        enough = [
            number
            for number, level in enumerate(self._levels)
            if number
            and self._size(level, "x") * self._size(level, "y") >= pixels
            and self._size(level, "z") == self.header.size_z
        ]
        return self._read(enough[-1], z, t, None) if enough else None

    def has_level(self, z: int, t: int, pixels: int) -> bool:
        """Tell whether there is a smaller level that has so many pixels."""
        return self.reduced(z, t, pixels) is not None

    def _size(self, level: Any, axis: str) -> int:
        return int(level.shape[self._axes.index(axis)]) if axis in self._axes else 1

    def _read(self, level: int, z: int, t: int, box: Box | None) -> Iterator[NDArray[Any]]:
        array = self._levels[level]
        x0, y0, x1, y1 = box or (0, 0, self._size(array, "x"), self._size(array, "y"))
        place = {"t": t, "z": z}

        def channel(number: int | slice) -> NDArray[Any]:
            at: dict[str, int | slice] = {**place, "c": number, "y": slice(y0, y1), "x": slice(x0, x1)}
            with _reading(self._path):
                pixels = np.asarray(array[tuple(at[axis] for axis in self._axes)])
            kept = [axis for axis in self._axes if isinstance(at[axis], slice)]
            pixels = pixels.transpose([kept.index(axis) for axis in "yxc" if axis in kept])
            return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))

        if self.header.is_photo:
            yield channel(slice(None))
            return
        for number in range(self.header.size_c):
            yield channel(number)


def metadata_text(path: Path) -> str:
    """Return an image's metadata as text, which shows whether the image is the same as before.

    Raises
    ------
    InputError, ServerError
        As :class:`ZarrSource`.
    """
    with _reading(path):
        axes, levels, attributes = _open(path, PATIENCE)
        shapes = [[list(level.shape), str(level.dtype)] for level in levels]
        return json.dumps([axes, shapes, attributes], sort_keys=True, default=str)


def _open(path: Path, patience: float) -> tuple[str, list[Any], Mapping[str, Any]]:
    """Return the axes, the arrays from full resolution down, and the image's metadata."""
    group = _group(path, patience)
    attributes = _ome(group)
    if is_outer(attributes, group.__contains__):
        inner = group["0"]
        if isinstance(inner, type(group)):
            group, attributes = inner, _ome(inner)
    if not attributes.get("multiscales"):
        raise InputError(f"{shown(path)} is a Zarr without OME metadata (no multiscales), so its axes are not known.")
    try:
        image = attributes["multiscales"][0]
        names = [str(axis["name"] if isinstance(axis, dict) else axis).lower() for axis in image.get("axes", _AXES)]
        arrays = [str(level["path"]) for level in image["datasets"]]
        arrays[0]
    except (LookupError, TypeError, AttributeError):
        raise InputError(
            f"{shown(path)} cannot be read: its description (multiscales) is missing or unusual. Export it again."
        ) from None
    axes = "".join(names)
    if len(axes) != len(names) or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes) <= set(_AXES):
        raise InputError(f"{shown(path)} has the axes {axes[:40]!r}; y and x are needed, and t, c and z are read.")
    levels = [_array(group, name) for name in arrays]
    if levels[0] is None:
        raise InputError(f"{shown(path)} lacks the array {arrays[0][:60]!r} that its description names. Copy it again.")
    check_kind(path, np.dtype(levels[0].dtype))
    # The smaller ones are a convenience. Objects of Python would be unpickled, which runs what a file says.
    levels = [level for level in levels if level is not None and np.dtype(level.dtype).kind in NUMBERS]
    for level in levels:
        if len(level.shape) != len(axes):
            raise InputError(
                f"{shown(path)} has {len(level.shape)} axes, and its description names {len(axes)}. Export it again."
            )
        chunk = math.prod(level.chunks) * np.dtype(level.dtype).itemsize
        if chunk > MAX_PIECE_BYTES:
            raise InputError(
                f"The chunks of {shown(path)} unpack to {chunk // 10**6:,} MB each; save it with smaller ones."
            )
    return axes, levels, attributes


def _array(group: Any, name: str) -> Any:
    """Return an array that the description names, or None; what it says of a place outside is not followed."""
    inside = name.strip("/")
    try:
        found = group[inside] if leads_inside(inside) else None
    except (KeyError, FileNotFoundError):
        return None
    return None if isinstance(found, type(group)) else found


def _places(path: Path) -> list[ImagePlace]:
    """Return where the images of an OME-Zarr are, and what they are called."""
    group = _group(path, PATIENCE)

    def attributes_at(inside: str) -> Mapping[str, Any]:
        if not inside:
            return _ome(group)
        try:
            inner = group[inside]
        except (KeyError, FileNotFoundError):
            return {}
        return _ome(inner) if isinstance(inner, type(group)) else {}

    return places_in(path, attributes_at)


def _group(path: Path, patience: float) -> Any:
    extra = "s3" if (remote(path) or "").startswith("s3") else "zarr"
    zarr = needed(f"{shown(path)}: OME-Zarr", "zarr", extra)
    return zarr.open_group(_store(path, patience), mode="r")


def _store(path: Path, patience: float) -> Any:
    address = remote(path)
    if address is None:
        return str(path)
    from zarr.storage import FsspecStore

    options: dict[str, Any] = {}
    if address.startswith("http"):
        aiohttp = needed(address, "aiohttp", "zarr")
        options["client_kwargs"] = {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=patience, sock_read=patience),
            "trust_env": True,  # logins of ~/.netrc, and proxies
        }
    else:
        needed(address, "s3fs", "s3")
        import botocore.session

        options["config_kwargs"] = {"connect_timeout": patience, "read_timeout": patience}
        # Public stores are read without keys, which s3fs does only when asked to.
        options["anon"] = botocore.session.get_session().get_credentials() is None
    return FsspecStore.from_url(address, storage_options=options, read_only=True)


def _ome(group: Any) -> Mapping[str, Any]:
    attributes = dict(group.attrs)
    inner = attributes.get("ome")  # version 0.5; 0.4 has everything at the top
    return inner if isinstance(inner, dict) else attributes


def _header(path: Path, axes: str, levels: Sequence[Any], attributes: Mapping[str, Any], title: str) -> Header:
    full = levels[0]
    size = {axis: int(n) for axis, n in zip(axes, full.shape, strict=True)}
    check_size(path, size["y"], size["x"], by_region=True)
    count = size.get("c", 1)
    check_counts(path, count, size.get("z", 1), size.get("t", 1))
    names, colors = _channels(attributes, count)
    lowered = tuple(str(name).lower() for name in names)
    photo = count == 3 and np.dtype(full.dtype) == np.uint8 and (colors == _PRIMARIES or lowered in _PHOTO_NAMES)
    return Header(
        path,
        size["y"],
        size["x"],
        np.dtype(full.dtype).newbyteorder("="),
        size_c=1 if photo else count,
        size_z=size.get("z", 1),
        size_t=size.get("t", 1),
        by_region=True,
        is_photo=photo,
        channel_names=(None,) if photo else names,
        channel_colors=(None,) if photo else colors,
        warnings=_missing(path, full),
        pixel_size=zarr_pixel_size(attributes["multiscales"][0]),
        title=title,
    )


def _channels(attributes: Mapping[str, Any], count: int) -> tuple[ChannelNames, ChannelColors]:
    """Return names and colours from the metadata of OMERO, None where they are missing or senseless."""
    omero = attributes.get("omero")
    listed = omero.get("channels") if isinstance(omero, dict) else None
    channels = listed if isinstance(listed, list) and len(listed) == count else [{}] * count
    entries = [channel if isinstance(channel, dict) else {} for channel in channels]
    names = tuple(str(entry["label"]) if entry.get("label") else None for entry in entries)
    return names, tuple(_color(entry.get("color")) for entry in entries)


def _color(text: object) -> tuple[int, int, int] | None:
    """Read ``RRGGBB``."""
    try:
        red, green, blue = bytes.fromhex(str(text).lstrip("#"))[:3]
    except ValueError:
        return None
    return red, green, blue


def zarr_pixel_size(image: object) -> PixelSize | None:
    """Return the pixel size at full resolution that an OME-Zarr states; an axis without a unit has none.

    Parameters
    ----------
    image
        An entry of ``multiscales`` (https://ngff.openmicroscopy.org/0.4/#multiscale-md). Its own scale comes on top of
        that of its first data set.
    """
    stated: Any = image
    try:
        names = [str(axis["name"]).lower() for axis in stated["axes"]]
        units = dict(zip(names, (str(axis.get("unit") or "") for axis in stated["axes"]), strict=True))
        steps = [1.0] * len(names)
        changes = [c for where in (stated["datasets"][0], stated) for c in where.get("coordinateTransformations") or ()]
        scales = [change["scale"] for change in changes if change["type"] == "scale"]
        for scale in scales:
            steps = [step * float(by) for step, by in zip(steps, scale, strict=True)]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None  # the pixels can be used without it
    if not scales:
        return None
    sizes = dict(zip(names, steps, strict=True))
    return pixel_size(sizes.get("x"), sizes.get("y"), sizes.get("z"), [units.get(axis, "") for axis in "xyz"])


def _missing(path: Path, array: Any) -> tuple[str, ...]:
    """Say how many pieces of the full resolution are not there, where they are few enough to be counted at once."""
    if remote(path) is not None:
        return ()
    total = math.prod(-(-n // c) for n, c in zip(array.shape, array.shards or array.chunks, strict=True))
    stored = _stored(path / str(array.path or array.name).strip("/"))
    if stored is None or stored >= total:
        return ()
    return (
        f"{shown(path)}: {total - stored:,} of its {total:,} pieces are not stored and are taken as "
        f"{array.fill_value}; that is normal for empty background, otherwise the copy is not complete.",
    )


def _stored(folder: Path) -> int | None:
    """Return how many pieces of an array are stored, None where there are too many to count them."""
    count = seen = 0
    for _, folders, files in os.walk(folder):
        seen += len(folders) + len(files)
        if seen > _MOST_COUNTED:
            return None
        count += sum(not name.startswith(".") and name != "zarr.json" for name in files)
    return count


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while an image is read into one sentence."""
    address = remote(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr warns about what is unusual in files
        if address is None:
            with reading(path):
                try:
                    yield
                except FileNotFoundError as error:
                    raise damaged(path, f"a part of it is missing: {error}") from None
            return
        check_address(path)
        try:
            yield
        except FewShotError:
            raise
        except TimeoutError:
            raise ServerError(
                f"{address} could not be read: the server did not answer in time. Run the same command again when it "
                "does."
            ) from None
        except FileNotFoundError:
            raise InputError(f"There is no OME-Zarr at {address}; check the address.") from None
        except Exception as error:
            if isinstance(error, PermissionError) or getattr(error, "status", None) in _FORBIDDEN:
                raise InputError(
                    f"{address} may not be read with the keys at hand. Check the address and, for an s3:// one, the "
                    "keys (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE), else the login in the file "
                    ".netrc in your home folder."
                ) from None
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise ServerError(
                f"{address} could not be read: {reason}. Check the address and the network, and run the same command "
                "again."
            ) from None
