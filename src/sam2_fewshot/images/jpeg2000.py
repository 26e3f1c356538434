"""JPEG 2000 (``.jp2``, ``.j2k``), by OpenJPEG in imagecodecs.

The size and the kind of the pixels are in the code stream's SIZ marker (ISO/IEC 15444-1, A.5.1), so that they are known
before anything is decoded.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.source import Header, check_end, check_size, damaged, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.images.source import PixelSource

_SIZ = b"\xff\x4f\xff\x51"
_MOST_BOXES = 1000


def open_jpeg2000(path: Path, only: int | None = None) -> list[PixelSource]:
    """Open a picture; see :class:`Jpeg2000Source`."""
    return [Jpeg2000Source(path)]


class Jpeg2000Source:
    """A JPEG 2000 picture; a :class:`~sam2_fewshot.images.source.PixelSource`.

    Two samples a pixel are grey and opacity, four are colours and opacity, which is dropped.

    Raises
    ------
    InputError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with reading(path), path.open("rb") as file:
            height, width, samples, bits, is_signed = _size(path, file)
            check_end(path)
            check_size(path, height, width)
            if samples not in (1, 2, 3, 4) or bits > 16:
                raise InputError(
                    f"{path.name} has {samples} samples of {bits} bits a pixel, which is unusual for JPEG 2000; export "
                    "it as TIFF."
                )
            dtype = np.dtype(f"{'i' if is_signed else 'u'}{1 if bits <= 8 else 2}")
        self.header = Header(path, height, width, dtype, is_photo=samples > 2)

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Yield the one plane, (H, W) or (H, W, 3)."""
        import imagecodecs

        header = self.header
        with reading(header.path):
            pixels: NDArray[Any] = imagecodecs.jpeg2k_decode(header.path.read_bytes())
            if pixels.ndim == 3:
                pixels = pixels[..., :3] if header.is_photo else pixels[..., 0]
            shape = (header.height, header.width, *([3] if header.is_photo else []))
            if pixels.shape != shape or pixels.dtype != header.dtype:
                raise ValueError("its pixels are not what its description says")
        yield np.ascontiguousarray(pixels)


def _size(path: Path, file: BinaryIO) -> tuple[int, int, int, int, bool]:
    """Return height, width, samples, bits a sample, and whether they are signed."""
    place, palette = _code_stream(path, file)
    file.seek(place)
    start, length, _, x1, y1, x0, y0 = struct.unpack(">4sHHIIII", file.read(24))
    if start != _SIZ or length < 41:
        raise damaged(path, "it has no size")
    _, _, _, _, samples = struct.unpack(">IIIIH", file.read(18))
    kinds = [tuple(file.read(3)) for _ in range(min(samples, 5))]
    if samples < 1 or len(kinds[-1]) < 3:
        raise damaged(path, "it has no samples")
    if palette:  # the numbers in the code stream are those of colours, which OpenJPEG looks up
        samples, kinds = len(palette), [(kind, 1, 1) for kind in palette]
    if len({kind[0] for kind in kinds}) > 1 or any(kind[1:] != (1, 1) for kind in kinds):
        raise InputError(f"{path.name} has channels of different sizes or kinds; export it as TIFF.")
    return y1 - y0, x1 - x0, samples, (kinds[0][0] & 127) + 1, bool(kinds[0][0] & 128)


def _code_stream(path: Path, file: BinaryIO) -> tuple[int, bytes]:
    """Return where the code stream begins, and what the samples of a palette's colours are; of no palette nothing.

    It begins at once, or in the box ``jp2c`` (I.5.4); a palette is in the box ``pclr`` in ``jp2h`` (I.5.3.4).
    """
    if file.read(4) == _SIZ:
        return 0, b""
    place, end, palette = 0, path.stat().st_size, b""
    for _ in range(_MOST_BOXES):
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            head = 16
        if kind == b"jp2c":
            return place + head, palette
        if kind == b"pclr":
            _, columns = struct.unpack(">HB", file.read(3))
            palette = file.read(columns)
        if length < head or place + length >= end:
            break
        place += head if kind == b"jp2h" else length
    raise damaged(path, "no picture is in it")
