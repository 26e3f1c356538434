"""The inside of a CZI file: segments, the list of tiles, and the pixels of one, with imagecodecs where compressed.

A CZI file is a chain of segments; the directory lists the subblocks (tiles of a plane), each with its place along the
axes X, Y, C, Z, T, S (scene), M (tile) and others, counted from any number ("ZISRAW file format", Carl Zeiss, 2016;
libCZI's documentation, github.com/ZEISS/libczi, on the compressions). Tiles that are stored smaller than the area they
show make up the pyramid.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from sam2_fewshot.readers.source import damaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

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
class Tile:
    """A subblock as the directory tells it.

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
    def reduction(self) -> int:
        """How many pixels of the full resolution one of the tile stands for, each way; 1 at full resolution."""
        return max(1, round(max(self.size[axis] / max(1, self.stored[axis]) for axis in "XY")))


def segment(file: BinaryIO, place: int, name: bytes) -> int:
    """Return the number of bytes in the segment at a place, after whose head the file then stands."""
    file.seek(place)
    found, allocated, used = struct.unpack("<16sqq", file.read(32))
    if found.rstrip(b"\0") != name:
        raise ValueError(f"it has no {name.decode()} where it says")
    return int(used or allocated)


def positions(path: Path, file: BinaryIO) -> tuple[int, int]:
    """Return where the list of tiles and the description are.

    Raises
    ------
    InputError
        If the file has no list of tiles.
    """
    segment(file, 0, b"ZISRAWFILE")
    directory, description = struct.unpack("<52xqq", file.read(68))
    if not directory:
        raise damaged(path, "it was not closed after recording")
    return directory, description


def read_tiles(path: Path, file: BinaryIO, directory: int) -> Iterator[Tile]:
    """Yield all tiles, those of the pyramid too, from the list at a place."""
    segment(file, directory, b"ZISRAWDIRECTORY")
    (count,) = struct.unpack("<i124x", file.read(128))
    length = path.stat().st_size
    if not 0 <= count * 32 <= length:
        raise ValueError(f"it cannot have {count} tiles")
    for _ in range(count):
        yield _tile(file, length)


def _tile(file: BinaryIO, length: int) -> Tile:
    schema, pixels, place, _, compression, pyramid, axes = struct.unpack("<2siqiiB5xi", file.read(32))
    if schema != b"DV" or not 0 <= place < length or not 0 <= axes <= 64:
        raise ValueError("its list of tiles is damaged")
    start: dict[str, int] = {}
    size: dict[str, int] = {}
    stored: dict[str, int] = {}
    for _ in range(axes):
        name, begin, extent, _, kept = struct.unpack("<4siifi", file.read(20))
        axis = name.rstrip(b"\0").decode("ascii")
        start[axis], size[axis], stored[axis] = begin, extent, kept or extent
    return Tile(place, pixels, compression, start, size, stored, pyramid == 0 and stored == size)


def decoded(file: BinaryIO, tile: Tile) -> NDArray[Any]:
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
    segment(file, tile.place, b"ZISRAWSUBBLOCK")
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
    # The head is its own length, and when that is 3, a 1 and whether low and high bytes are apart.
    head = data[0]
    plain = bytes(imagecodecs.zstd_decode(data[head:], out=expected))
    if head == 3 and data[1] == 1 and data[2] & 1:
        return np.frombuffer(plain, np.uint8).reshape(2, -1).T.tobytes()
    return plain


def read_xml(file: BinaryIO, place: int) -> ElementTree.Element | None:
    """Return the file's description, None when there is none or it makes no sense: the pixels do without it."""
    try:
        segment(file, place, b"ZISRAWMETADATA")
        (size,) = struct.unpack("<i252x", file.read(256))
        return ElementTree.fromstring(file.read(min(max(size, 0), _MOST_XML)))
    except (OSError, ValueError, struct.error, ElementTree.ParseError):
        return None
