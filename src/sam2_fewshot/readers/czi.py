"""Zeiss CZI: tiles put together plane by plane, with imagecodecs for what is compressed.

A CZI file is a chain of segments; the directory lists the subblocks (tiles of a plane), each with its place along the
axes X, Y, C, Z, T, S (scene), M (tile) and others, counted from any number ("ZISRAW file format", Carl Zeiss, 2016;
libCZI's documentation, github.com/ZEISS/libczi, on the compressions). Of several scenes, and of other axes, the first
is read. Tiles of reduced size, which make up the pyramid, are passed over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.readers.pixel_size import pixel_size
from sam2_fewshot.readers.source import Header, check_size, damaged, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.records import PixelSize

_PIXELS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<u2"),
    2: np.dtype("<f4"),
    3: np.dtype(("<u1", 3)),
    4: np.dtype(("<u2", 3)),
    8: np.dtype(("<f4", 3)),
    9: np.dtype(("<u1", 4)),
}
"""By the number in the file: grey of 8 and 16 bits and float, then the same as blue, green, red; 9 has alpha."""
_RAW, _LZW, _JPEG_XR, _ZSTD, _ZSTD_PACKED = 0, 2, 4, 5, 6
_MOST_XML = 100_000_000
_OWN_AXES = frozenset("XYCZTSM")


@dataclass(frozen=True, slots=True)
class _Tile:
    """A subblock as the directory tells it."""

    place: int
    pixels: int
    compression: int
    start: dict[str, int]
    size: dict[str, int]
    is_whole: bool


class CziSource:
    """The first scene of a CZI file; a :class:`~sam2_fewshot.readers.source.PixelSource`.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with reading(path), path.open("rb") as file:
            directory, description = _positions(path, file)
            tiles = [tile for tile in _tiles(path, file, directory) if tile.is_whole and {"X", "Y"} <= set(tile.size)]
            if not tiles:
                raise damaged(path, "no image is in it")
            xml = _xml(file, description)
            self._tiles, notes = _first_scene(path, tiles)
            self._first = {axis: min(tile.start.get(axis, 0) for tile in self._tiles) for axis in "XYCZT"}
            self.header = self._look(path, xml, notes)

    def _look(self, path: Path, xml: ElementTree.Element | None, notes: list[str]) -> Header:
        ends = {
            axis: max(tile.start.get(axis, 0) + tile.size.get(axis, 1) for tile in self._tiles) for axis in self._first
        }
        sizes = {axis: ends[axis] - self._first[axis] for axis in ends}
        check_size(path, sizes["Y"], sizes["X"])
        kinds = {tile.pixels for tile in self._tiles}
        if len(kinds) > 1 or not kinds <= set(_PIXELS):
            raise InputError(f"{path.name} has pixels of an unusual kind ({sorted(kinds)}); export it as OME-TIFF.")
        dtype = _PIXELS[kinds.pop()]
        photo = bool(dtype.shape) and sizes["C"] == 1
        if dtype.shape and not photo:
            raise InputError(f"{path.name} has several channels of colours; export it as OME-TIFF.")
        names, colors = _channels(xml, sizes["C"])
        return Header(
            path,
            sizes["Y"],
            sizes["X"],
            dtype.base.newbyteorder("="),
            size_c=sizes["C"],
            size_z=sizes["Z"],
            size_t=sizes["T"],
            is_photo=photo,
            channel_names=names,
            channel_colors=colors,
            warnings=tuple(notes),
            pixel_size=_size(xml),
        )

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Yield the planes at a slice and time point; photos as (H, W, 3)."""
        header, first = self.header, self._first
        for channel in range(header.size_c):
            at = {"C": channel + first["C"], "Z": z + first["Z"], "T": t + first["T"]}
            shape = (header.height, header.width, *([3] if header.is_photo else []))
            with reading(header.path), header.path.open("rb") as file:
                plane = np.zeros(shape, header.dtype)
                for tile in self._tiles:
                    if all(tile.start.get(axis, 0) == step for axis, step in at.items()):
                        pixels = _decoded(file, tile)[..., :3] if header.is_photo else _decoded(file, tile)
                        y, x = tile.start["Y"] - first["Y"], tile.start["X"] - first["X"]
                        plane[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
            yield plane


def _segment(file: BinaryIO, place: int, name: bytes) -> int:
    """Return the number of bytes in the segment at a place, after whose head the file then stands."""
    file.seek(place)
    found, allocated, used = struct.unpack("<16sqq", file.read(32))
    if found.rstrip(b"\0") != name:
        raise ValueError(f"it has no {name.decode()} where it says")
    return int(used or allocated)


def _positions(path: Path, file: BinaryIO) -> tuple[int, int]:
    _segment(file, 0, b"ZISRAWFILE")
    directory, description = struct.unpack("<52xqq", file.read(68))
    if not directory:
        raise damaged(path, "it was not closed after recording")
    return directory, description


def _tiles(path: Path, file: BinaryIO, directory: int) -> Iterator[_Tile]:
    _segment(file, directory, b"ZISRAWDIRECTORY")
    (count,) = struct.unpack("<i124x", file.read(128))
    length = path.stat().st_size
    if not 0 <= count * 32 <= length:
        raise ValueError(f"it cannot have {count} tiles")
    for _ in range(count):
        yield _tile(file, length)


def _tile(file: BinaryIO, length: int) -> _Tile:
    schema, pixels, place, _, compression, pyramid, axes = struct.unpack("<2siqiiB5xi", file.read(32))
    if schema != b"DV" or not 0 <= place < length or not 0 <= axes <= 64:
        raise ValueError("its list of tiles is damaged")
    start: dict[str, int] = {}
    size: dict[str, int] = {}
    is_whole = pyramid == 0
    for _ in range(axes):
        name, begin, extent, _, stored = struct.unpack("<4siifi", file.read(20))
        axis = name.rstrip(b"\0").decode("ascii")
        start[axis], size[axis] = begin, extent
        is_whole &= stored in (0, extent)
    return _Tile(place, pixels, compression, start, size, is_whole)


def _first_scene(path: Path, tiles: list[_Tile]) -> tuple[list[_Tile], list[str]]:
    notes = []
    scenes = {tile.start.get("S", 0) for tile in tiles}
    if len(scenes) > 1:
        notes.append(f"{path.name} has {len(scenes)} scenes; the first is read. Split the scenes into files.")
    axes = sorted({axis for tile in tiles for axis in tile.start} - _OWN_AXES)
    steps = {axis: {tile.start.get(axis, 0) for tile in tiles} for axis in axes}
    several = [axis for axis in axes if len(steps[axis]) > 1]
    if several:
        notes.append(f"{path.name} has the axes {', '.join(several)} too, of which the first step is read.")
    first = {axis: min(steps[axis]) for axis in axes} | {"S": min(scenes)}
    kept = [tile for tile in tiles if all(tile.start.get(axis, 0) == step for axis, step in first.items())]
    return sorted(kept, key=lambda tile: tile.start.get("M", 0)), notes


def _decoded(file: BinaryIO, tile: _Tile) -> NDArray[Any]:
    """Return a tile's pixels (h, w) or (h, w, 3 or 4), red first."""
    kind = _PIXELS[tile.pixels]
    shape = (tile.size["Y"], tile.size["X"], *kind.shape)
    if min(shape) < 1:
        raise ValueError("a tile has no pixels")
    expected = int(np.prod(shape, dtype=np.int64)) * kind.base.itemsize
    _segment(file, tile.place, b"ZISRAWSUBBLOCK")
    metadata, _, size, axes = struct.unpack("<iiq28xi", file.read(48))
    # The directory entry is repeated here, in a field of at least 240 bytes, and the tile's own XML follows.
    file.seek(tile.place + 32 + 16 + max(240, 32 + 20 * axes) + metadata)
    data = file.read(min(size, 2 * expected + 4096))
    if tile.compression == _JPEG_XR:
        import imagecodecs

        return np.asarray(imagecodecs.jpegxr_decode(data)).reshape(shape)
    pixels = np.frombuffer(_unpacked(data, tile.compression, expected), kind.base)
    if pixels.size * kind.base.itemsize < expected:
        raise ValueError("a tile is cut off")
    pixels = pixels[: expected // kind.base.itemsize].reshape(shape)
    return pixels[..., [2, 1, 0]] if kind.shape else pixels


def _unpacked(data: bytes, compression: int, expected: int) -> bytes:
    import imagecodecs

    if compression == _RAW:
        return data
    if compression == _LZW:
        return bytes(imagecodecs.lzw_decode(data, out=expected))
    if compression == _ZSTD:
        return bytes(imagecodecs.zstd_decode(data, out=expected))
    if compression != _ZSTD_PACKED:
        raise ValueError(f"it is compressed in an unknown way ({compression})")
    # The head is its own length, and when that is 3, a 1 and whether low and high bytes are apart.
    head = data[0]
    plain = bytes(imagecodecs.zstd_decode(data[head:], out=expected))
    if head == 3 and data[1] == 1 and data[2] & 1:
        return np.frombuffer(plain, np.uint8).reshape(2, -1).T.tobytes()
    return plain


def _xml(file: BinaryIO, place: int) -> ElementTree.Element | None:
    """Return the file's description, None when there is none or it makes no sense: the pixels do without it."""
    try:
        _segment(file, place, b"ZISRAWMETADATA")
        (size,) = struct.unpack("<i252x", file.read(256))
        return ElementTree.fromstring(file.read(min(max(size, 0), _MOST_XML)))
    except (OSError, ValueError, struct.error, ElementTree.ParseError):
        return None


def _size(xml: ElementTree.Element | None) -> PixelSize | None:
    if xml is None:
        return None
    steps = {entry.get("Id"): entry.findtext("Value") for entry in xml.iterfind(".//Scaling/Items/Distance")}
    return pixel_size(steps.get("X"), steps.get("Y"), steps.get("Z"), "m")


def _channels(
    xml: ElementTree.Element | None, count: int
) -> tuple[tuple[str | None, ...], tuple[tuple[int, int, int] | None, ...]]:
    nothing = (None,) * count
    if xml is None:
        return nothing, nothing
    entries = xml.findall(".//Information/Image/Dimensions/Channels/Channel")
    names = tuple(entry.get("Name") for entry in entries)
    shown = [entry.findtext("Color", "") for entry in xml.iterfind(".//DisplaySetting/Channels/Channel")]
    colors = tuple(_color(text) for text in shown)
    return names if len(names) == count else nothing, colors if len(colors) == count else nothing


def _color(text: str) -> tuple[int, int, int] | None:
    """Read ``#AARRGGBB``."""
    try:
        number = int(text.removeprefix("#"), 16)
    except ValueError:
        return None
    return number >> 16 & 255, number >> 8 & 255, number & 255
