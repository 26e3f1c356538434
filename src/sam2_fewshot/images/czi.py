"""Zeiss CZI: segments, the list of tiles, and tiles put together, only those that a region needs."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.positions import check_counts, check_positions, opened_positions, step_names
from sam2_fewshot.images.source import Header, SteppedSource, check_size, damaged, pixel_size, reading
from sam2_fewshot.records import common_part
from sam2_fewshot.rendering.contrast import sample_step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.images.source import ChannelColors, ChannelNames, PixelSource
    from sam2_fewshot.records import Box, PixelSize

_OWN_AXES = frozenset("XYCZTSM")
LARGEST_TILE = 1 << 24
"""Pixels; a file of larger compressed tiles gains nothing from being read by region."""
_SPARSEST = 100
"""A plane of more than so many times the pixels of its tiles is not believed."""
_FEW = 1000
"""More channels, slices or time points than this are believed only if there is a tile for each."""
_GRID = 256
"""Points each way at which a level of the pyramid is compared with the plane: it must cover the same of them."""


def open_czi(path: Path, only: int | None = None, largest_tile: int = LARGEST_TILE) -> list[PixelSource]:
    """Open the scenes of a CZI file; each further axis (phase, view, …) gives positions as well.

    Parameters
    ----------
    path, only
        As for :func:`~sam2_fewshot.images.registry.open_positions`.
    largest_tile
        Pixels; a scene with a larger compressed tile is read whole.
    """
    with reading(path), path.open("rb") as file:
        directory, description = find_segments(path, file)
        tiles = [tile for tile in read_tiles(path, file, directory) if {"X", "Y"} <= set(tile.size)]
        whole = [tile for tile in tiles if tile.is_whole]
        xml = read_xml(file, description)
        axes = ["S", *sorted({axis for tile in whole for axis in tile.start} - _OWN_AXES)]
        scenes: dict[tuple[int, ...], list[SubBlock]] = {tile.steps(axes): [] for tile in whole}
        check_positions(path, len(scenes))
        for tile in tiles:
            scenes.get(tile.steps(axes), []).append(tile)
        keys = sorted(scenes)
        names = dict(enumerate(step_names(axes, keys, _scene_names(xml))))

    def opened(number: int) -> CziSource:
        return CziSource(path, scenes[keys[number]], xml, largest_tile)

    return opened_positions(path, opened, names, only)


class CziSource(SteppedSource):
    """A scene of a CZI file; a :class:`~sam2_fewshot.images.source.RegionSource`.

    Parameters
    ----------
    path
        The file.
    tiles
        Those of the scene, of the pyramid too.
    xml
        The file's description.
    largest_tile
        As for :func:`open_czi`.

    Raises
    ------
    InputError
        If it cannot be read.
    """

    def __init__(
        self, path: Path, tiles: Sequence[SubBlock], xml: ElementTree.Element | None, largest_tile: int
    ) -> None:
        whole = [tile for tile in tiles if tile.is_whole]
        self._first = {axis: min(tile.start.get(axis, 0) for tile in whole) for axis in "XYCZT"}
        by_region = all(tile.is_raw or tile.area <= largest_tile for tile in whole)
        self.header = self._header(path, whole, xml, by_region)
        self._tiles: dict[tuple[int, int, int], list[SubBlock]] = {}
        """All tiles of a channel, slice and time point, counted from 0, in the order in which they are painted."""
        for tile in sorted(tiles, key=lambda tile: tile.start.get("M", 0)):
            if tile.pixels == whole[0].pixels:
                c, z, t = (tile.start.get(axis, 0) - self._first[axis] for axis in "CZT")
                self._tiles.setdefault((c, z, t), []).append(tile)

    def _header(self, path: Path, tiles: list[SubBlock], xml: ElementTree.Element | None, by_region: bool) -> Header:
        ends = {axis: max(tile.start.get(axis, 0) + tile.size.get(axis, 1) for tile in tiles) for axis in self._first}
        sizes = {axis: ends[axis] - self._first[axis] for axis in ends}
        area = sum(max(0, tile.area) for tile in tiles)
        check_size(path, sizes["Y"], sizes["X"], by_region and sizes["Y"] * sizes["X"] <= _SPARSEST * area)
        if max(sizes["C"], sizes["Z"], sizes["T"]) > max(_FEW, len(tiles)):
            raise damaged(path, "it has fewer tiles than channels, slices or time points")
        check_counts(path, sizes["C"], sizes["Z"], sizes["T"])
        kinds = {tile.pixels for tile in tiles}
        if not kinds <= set(PIXELS):
            raise InputError(f"{path.name} has pixels of an unusual kind ({sorted(kinds)}); export it as OME-TIFF.")
        if len(kinds) > 1:
            raise InputError(
                f"{path.name} has channels of different kinds, as grey and colour, or 8 and 16 bits; export those of "
                "one kind that are to be searched as a TIFF of their own."
            )
        dtype = PIXELS[kinds.pop()]
        photo = bool(dtype.shape) and sizes["C"] == 1
        if dtype.shape and not photo:
            raise InputError(
                f"{path.name} has {sizes['C']} channels, each a colour picture; export the one that is to be searched "
                "as a TIFF of its own."
            )
        names, colors = _channels(xml, sizes["C"])
        count = sizes["C"] * sizes["Z"] * sizes["T"]
        lacking = count - len({tile.steps("CZT") for tile in tiles})
        return Header(
            path,
            sizes["Y"],
            sizes["X"],
            dtype.base.newbyteorder("="),
            size_c=sizes["C"],
            size_z=sizes["Z"],
            size_t=sizes["T"],
            by_region=by_region,
            is_photo=photo,
            channel_names=names,
            channel_colors=colors,
            warnings=(f"{path.name} lacks {lacking:,} of its {count:,} planes; those are black.",) * (lacking > 0),
            pixel_size=_size(xml),
        )

    def _read(self, z: int, t: int, box: Box, step: int) -> Iterator[NDArray[Any]]:
        """Yield pixels of the planes, from the smallest level of the pyramid that has them.

        Only the tiles that are needed are decoded, each once.
        """
        for channel in range(self.header.size_c):
            yield self._mosaic(self._tiles_for(channel, z, t, step), box, step)

    def has_level(self, z: int, t: int, pixels: int) -> bool:
        """Tell whether all channels have a level of the pyramid for so many pixels."""
        step = sample_step(self.header.height * self.header.width, pixels)
        chosen = (self._tiles_for(channel, z, t, step) for channel in range(self.header.size_c))
        return not any(tile.is_whole for tiles in chosen for tile in tiles)

    def _tiles_for(self, channel: int, z: int, t: int, step: int) -> list[SubBlock]:
        """Return the tiles of the smallest level that has every n-th pixel."""
        levels: dict[int, list[SubBlock]] = {}
        for tile in self._tiles.get((channel, z, t), ()):
            levels.setdefault(1 if tile.is_whole else max(2, tile.reduction), []).append(tile)
        whole = levels.get(1, [])
        enough = [n for n, tiles in levels.items() if 1 < n <= step and self._cover_same(tiles, whole)]
        return levels[max(enough)] if enough else whole

    def _corner(self, tile: SubBlock) -> tuple[int, int]:
        return tile.start["X"] - self._first["X"], tile.start["Y"] - self._first["Y"]

    def _mosaic(self, tiles: Sequence[SubBlock], box: Box, step: int) -> NDArray[Any]:
        """Paint tiles over one another, and return the pixels in a box whose coordinates are multiples of a step.

        Tiles without such a pixel are not decoded.
        """
        header = self.header
        x0, y0, x1, y1 = wanted = _stepped(box, step)
        with reading(header.path), header.path.open("rb") as file:
            canvas = np.zeros((y1 - y0, x1 - x0, *([3] if header.is_photo else [])), header.dtype)
            for tile in tiles:
                left, top = self._corner(tile)
                into, of = common_part(wanted, _stepped((left, top, left + tile.size["X"], top + tile.size["Y"]), step))
                if not canvas[into].size:
                    continue
                pixels, n = decode_tile(file, tile), tile.reduction
                part: tuple[slice | NDArray[Any], ...] = of
                if step > 1:
                    down, across = (np.arange(each.start, each.stop) * step for each in into)
                    rows = np.minimum((down + y0 * step - top) // n, pixels.shape[0] - 1)
                    columns = np.minimum((across + x0 * step - left) // n, pixels.shape[1] - 1)
                    part = np.ix_(rows, columns)
                canvas[into] = pixels[part]
            return canvas

    def _cover_same(self, tiles: Sequence[SubBlock], whole: Sequence[SubBlock]) -> bool:
        return not (self._coverage(whole) & ~self._coverage(tiles)).any()

    def _coverage(self, tiles: Sequence[SubBlock]) -> NDArray[np.bool_]:
        """Tell which points of an even grid over the plane lie in tiles."""
        points = np.zeros((_GRID, _GRID), bool)
        for tile in tiles:
            left, top = self._corner(tile)
            x0, x1 = (max(0, math.ceil(x * _GRID / self.header.width - 0.5)) for x in (left, left + tile.size["X"]))
            y0, y1 = (max(0, math.ceil(y * _GRID / self.header.height - 0.5)) for y in (top, top + tile.size["Y"]))
            points[y0:y1, x0:x1] = True
        return points


def _stepped(box: Box, step: int) -> Box:
    """Return the box of the pixels of another whose coordinates are multiples of a step, counted in steps."""
    x0, y0, x1, y1 = (-(-edge // step) for edge in box)
    return x0, y0, x1, y1


def _scene_names(xml: ElementTree.Element | None) -> dict[int, str]:
    """Return what scenes are called, by their numbers: by their own names, after those of their wells."""
    scenes: dict[int, str] = {}
    for entry in [] if xml is None else xml.iterfind(".//Image/Dimensions/S/Scenes/Scene"):
        name, shape = entry.get("Name") or "", entry.find("Shape")
        well = (shape.get("Name") if shape is not None else entry.findtext("ArrayName")) or ""
        index = entry.get("Index", "")
        if index.isdecimal():
            scenes[int(index)] = f"{well}_{name}" if name and well and well != name else name or well
    return scenes


def _size(xml: ElementTree.Element | None) -> PixelSize | None:
    if xml is None:
        return None
    steps = {entry.get("Id"): entry.findtext("Value") for entry in xml.iterfind(".//Scaling/Items/Distance")}
    return pixel_size(steps.get("X"), steps.get("Y"), steps.get("Z"), "m")


def _channels(xml: ElementTree.Element | None, count: int) -> tuple[ChannelNames, ChannelColors]:
    """Return names and colours; a channel without a name among the dimensions has that of the display settings."""
    nothing = (None,) * count
    if xml is None:
        return nothing, nothing
    entries = xml.findall(".//Information/Image/Dimensions/Channels/Channel")
    displayed = xml.findall(".//DisplaySetting/Channels/Channel")
    by_id = {entry.get("Id"): entry.get("Name") for entry in displayed if entry.get("Id")}
    in_order: ChannelNames = nothing
    if len(displayed) == count:
        in_order = tuple(entry.get("Name") for entry in displayed)
    names: ChannelNames = nothing
    if len(entries) == count:
        names = tuple(
            entry.get("Name") or by_id.get(entry.get("Id")) or other
            for entry, other in zip(entries, in_order, strict=True)
        )
    elif not entries:
        names = in_order
    colors = tuple(_color(entry.findtext("Color", "")) for entry in displayed)
    return names, colors if len(colors) == count else nothing


def _color(text: str) -> tuple[int, int, int] | None:
    """Read ``#AARRGGBB``."""
    try:
        number = int(text.removeprefix("#"), 16)
    except ValueError:
        return None
    return number >> 16 & 255, number >> 8 & 255, number & 255


PIXELS: dict[int, np.dtype[Any]] = {
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


@dataclass(frozen=True, slots=True)
class SubBlock:
    """A subblock as the directory describes it.

    Parameters
    ----------
    place
        Where it begins in the file, in bytes.
    pixels
        What its pixels are; a key of :data:`PIXELS`.
    compression
        Number of the way it is compressed.
    start, size
        Where it begins along each axis, and how far it reaches, in pixels of the full resolution.
    stored
        How many pixels of its own it has along each axis.
    is_whole
        True at full resolution, False in the pyramid.
    """

    place: int
    pixels: int
    compression: int
    start: dict[str, int]
    size: dict[str, int]
    stored: dict[str, int]
    is_whole: bool

    @property
    def is_raw(self) -> bool:
        """True when the pixels are not compressed, so that some can be read without the others."""
        return self.compression == _RAW

    @property
    def area(self) -> int:
        """Pixels of the full resolution that it covers."""
        return self.size["X"] * self.size["Y"]

    def steps(self, axes: Sequence[str]) -> tuple[int, ...]:
        """Return where it begins along some axes, at 0 along one that it does not have."""
        return tuple(self.start.get(axis, 0) for axis in axes)

    @property
    def reduction(self) -> int:
        """How many pixels of the full resolution one of the tile stands for, each way; 1 at full resolution."""
        return max(1, round(max(self.size[axis] / max(1, self.stored[axis]) for axis in "XY")))


def enter_segment(file: BinaryIO, place: int, name: bytes) -> int:
    """Return the number of bytes in the segment at a place, after whose head the file is then positioned."""
    file.seek(place)
    found, allocated, used = struct.unpack("<16sqq", file.read(32))
    if found.rstrip(b"\0") != name:
        raise ValueError(f"it has no {name.decode()} where it says")
    return int(used or allocated)


def find_segments(path: Path, file: BinaryIO) -> tuple[int, int]:
    """Return where the list of tiles and the description are.

    Raises
    ------
    InputError
        If the file has no list of tiles.
    """
    enter_segment(file, 0, b"ZISRAWFILE")
    directory, description = struct.unpack("<52xqq", file.read(68))
    if not directory:
        raise damaged(path, "it was not closed after recording")
    return directory, description


def read_tiles(path: Path, file: BinaryIO, directory: int) -> Iterator[SubBlock]:
    """Yield all tiles, those of the pyramid too, from the list at a place."""
    enter_segment(file, directory, b"ZISRAWDIRECTORY")
    (count,) = struct.unpack("<i124x", file.read(128))
    length = path.stat().st_size
    if not 0 <= count * 32 <= length:
        raise ValueError(f"it cannot have {count} tiles")
    for _ in range(count):
        yield _tile(file, length)


def _tile(file: BinaryIO, length: int) -> SubBlock:
    schema, pixels, place, _, compression, pyramid, axes = struct.unpack("<2siqiiB5xi", file.read(32))
    if schema != b"DV" or not 0 <= place < length or not 0 <= axes <= 64:
        raise ValueError("its list of tiles is damaged")
    start: dict[str, int] = {}
    size: dict[str, int] = {}
    stored: dict[str, int] = {}
    for _ in range(axes):
        name, begin, extent, _, own = struct.unpack("<4siifi", file.read(20))
        axis = name.rstrip(b"\0").decode("ascii")
        start[axis], size[axis], stored[axis] = begin, extent, own or extent
    return SubBlock(place, pixels, compression, start, size, stored, pyramid == 0 and stored == size)


def decode_tile(file: BinaryIO, tile: SubBlock) -> NDArray[Any]:
    """Return a tile's pixels (h, w) or (h, w, 3), red first; a memory map of them where they are not compressed.

    Parameters
    ----------
    file
        The CZI file.
    tile
        One of :func:`read_tiles`.

    Raises
    ------
    Exception
        Of any kind, if the tile is damaged or cut off.
    """
    kind = PIXELS[tile.pixels]
    shape = (tile.stored["Y"], tile.stored["X"], *kind.shape)
    if min(shape) < 1:
        raise ValueError("a tile has no pixels")
    expected = math.prod(shape) * kind.base.itemsize
    enter_segment(file, tile.place, b"ZISRAWSUBBLOCK")
    metadata, _, size, axes = struct.unpack("<iiq28xi", file.read(48))
    # The directory entry is repeated here, in a field of at least 240 bytes, and the tile's own XML follows.
    place = tile.place + 32 + 16 + max(240, 32 + 20 * axes) + metadata
    if tile.is_raw:
        if size < expected:
            raise ValueError("a tile is cut off")
        pixels: NDArray[Any] = np.memmap(file, kind.base, "r", place, shape)
        return pixels[..., 2::-1] if kind.shape else pixels
    file.seek(place)
    data = file.read(min(size, 2 * expected + 4096))
    if tile.compression == _JPEG_XR:
        import imagecodecs

        pixels = np.asarray(imagecodecs.jpegxr_decode(data)).reshape(shape)
        return pixels[..., :3] if kind.shape else pixels
    pixels = np.frombuffer(_unpacked(data, tile.compression, expected), kind.base)
    if pixels.size * kind.base.itemsize < expected:
        raise ValueError("a tile is cut off")
    pixels = pixels[: expected // kind.base.itemsize].reshape(shape)
    return pixels[..., 2::-1] if kind.shape else pixels


def _unpacked(data: bytes, compression: int, expected: int) -> bytes:
    import imagecodecs

    if compression == _LZW:
        return bytes(imagecodecs.lzw_decode(data, out=expected))
    if compression == _ZSTD:
        return bytes(imagecodecs.zstd_decode(data, out=expected))
    if compression != _ZSTD_PACKED:
        raise ValueError(f"it is compressed in an unknown way ({compression})")
    # The head is its own length, and when that is 3, a 1 and whether all low bytes come before all high ones.
    head = data[0]
    plain = bytes(imagecodecs.zstd_decode(data[head:], out=expected))
    if head == 3 and data[1] == 1 and data[2] & 1:
        return np.frombuffer(plain, np.uint8).reshape(2, -1).T.tobytes()
    return plain


def read_xml(file: BinaryIO, place: int) -> ElementTree.Element | None:
    """Return the file's description, None when there is none or it makes no sense: the pixels do without it."""
    try:
        enter_segment(file, place, b"ZISRAWMETADATA")
        (size,) = struct.unpack("<i252x", file.read(256))
        return ElementTree.fromstring(file.read(min(max(size, 0), _MOST_XML)))
    except (OSError, ValueError, struct.error, ElementTree.ParseError):
        return None
