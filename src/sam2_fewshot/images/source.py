"""What every image format gives: a header that is cheap to read, and planes one at a time.

Beside it lies what all formats share: the checks of sizes and kinds of numbers, sizes of pixels in micrometres, and the
sentences for what goes wrong. This module knows no format; :mod:`~sam2_fewshot.images.registry` does.
"""

from __future__ import annotations

import errno
import math
import re
import stat
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from sam2_fewshot.errors import FewShotError, InputError
from sam2_fewshot.images.addresses import image_title, shown
from sam2_fewshot.records import PixelSize
from sam2_fewshot.rendering.contrast import sample_step
from sam2_fewshot.storage.files import refuse_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.records import Box

MAX_PLANE_PIXELS = 500_000_000
"""Largest plane that is read whole, in pixels (22,000 × 22,000): its RGB picture takes 1.5 GB."""
MAX_PIECE_BYTES = 1_000_000_000
"""Largest chunk of an OME-Zarr, and tile of a TIFF whose plane is smaller, that is unpacked: into memory as a whole."""

NUMBERS = "buif"
"""Kinds of data types whose pixels can be read."""

_TAIL = 1 << 16
"""Bytes at the end of a file among which the marker of the end must be."""
_DAMAGE = {None, errno.EINVAL, errno.EOVERFLOW}
"""What the system says when a damaged file sends a decoder to an impossible place."""
_MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre", r"\u00b5m"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("inch", "inches", "in", '"'), 25_400.0),
}
_SMALLEST_PIXEL, _LARGEST_PIXEL = 1e-6, 1e6
"""Micrometres between which a pixel's size is believed: from below an atom to a metre."""

ORIENTATION = 0x0112
"""The number of the tag in EXIF and in TIFF."""
_TURNED: dict[object, str] = {
    2: "mirrored",
    3: "turned by 180°",
    4: "mirrored and turned by 180°",
    5: "mirrored and turned by 90°",
    6: "turned by 90°",
    7: "mirrored and turned by 90°",
    8: "turned by 90°",
}
"""What the values of that tag mean, but for 1, which is upright."""

ChannelNames = tuple[str | None, ...]
ChannelColors = tuple[tuple[int, int, int] | None, ...]
"""One entry a channel, None where the file does not say; colours are RGB, 0 to 255."""


@dataclass(frozen=True, eq=False, slots=True)
class Header:
    """What is known about an image file before its pixels are read.

    Parameters
    ----------
    path
        The file, or of an OME-Zarr the folder or address of the image itself.
    height, width
        Of a plane, in pixels.
    dtype
        Of the pixels as stored.
    size_c, size_z, size_t
        Channels, slices and time points, each at least 1.
    by_region
        True when a region can be read without the rest of the plane; the source is a :class:`RegionSource` then.
    is_photo
        True when the samples of a pixel are red, green and blue, so that a plane is (H, W, 3).
    is_inverted
        True when 0 is stored for white.
    palette
        uint8 (n, 3), the colours that the pixels are numbers of; None when they are intensities.
    stretched_from
        The largest number of the file's own range, which its reader stretches to 255, or to 65,535 for pixels of more
        than 8 bits; 0 when pixels are as stored.
    channel_names, channel_colors
        One a channel, None where the file does not say.
    warnings
        Sentences about what of the file is not used.
    pixel_size
        In micrometres, None where the file does not say.
    position
        Name of the position, where a file holds several; else empty.
    number
        Which of the images at `path` it is, counted from 0.
    title
        What to call the file, where it is more than what is at `path`: a plate for one of its fields.
    parts
        The files with the pixels, where they are others than the one at `path`, or more.
    """

    path: Path
    height: int
    width: int
    dtype: np.dtype[Any]
    size_c: int = 1
    size_z: int = 1
    size_t: int = 1
    by_region: bool = False
    is_photo: bool = False
    is_inverted: bool = False
    palette: NDArray[np.uint8] | None = None
    stretched_from: int = 0
    channel_names: ChannelNames = (None,)
    channel_colors: ChannelColors = (None,)
    warnings: tuple[str, ...] = ()
    pixel_size: PixelSize | None = None
    position: str = ""
    number: int = 0
    title: str = ""
    parts: tuple[Path, ...] = ()

    @property
    def file_name(self) -> str:
        """What the file is called, whatever position of it this is."""
        return self.title or self.path.name

    @property
    def name(self) -> str:
        """What to call the image: the file's name, and the position's where it has several."""
        return image_title(self.file_name, self.position)


class PixelSource(Protocol):
    """An open image file: its header is known, and its planes can be read."""

    header: Header

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Yield the pixels at a slice and time point as stored, one channel (H, W) after the other.

        A photo is one plane (H, W, 3). Where a picture has transparent pixels the opacity follows as a last sample,
        (H, W, 2) or (H, W, 4), and is 0 for these.

        Raises
        ------
        InputError
            If they cannot be read.
        """
        ...


@runtime_checkable
class RegionSource(PixelSource, Protocol):
    """A :class:`PixelSource` that need not read all of a plane."""

    def region(self, z: int, t: int, box: Box) -> Iterator[NDArray[Any]]:
        """Yield a region (h, w) or (h, w, 3) of the planes that :meth:`planes` yields.

        Parameters
        ----------
        z, t
            Slice and time point.
        box
            ``(x0, y0, x1, y1)`` in pixels, half open, inside the plane.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        ...

    def reduced(self, z: int, t: int, pixels: int) -> Iterator[NDArray[Any]] | None:
        """Return the planes at a lower resolution, which the file has anyway or gives without much work; else None.

        Parameters
        ----------
        z, t
            Slice and time point.
        pixels
            About so many are wanted of each plane: at least, from a level of a pyramid, else every n-th pixel, each
            way, with the n that :func:`~sam2_fewshot.rendering.contrast.contrast` would choose.
        """
        ...

    def has_level(self, z: int, t: int, pixels: int) -> bool:
        """Tell whether what :meth:`reduced` gives is a level of a pyramid, and no sample of the plane itself."""
        ...


@runtime_checkable
class RowSource(RegionSource, Protocol):
    """A :class:`RegionSource` that gives some rows without reading the others."""

    @property
    def piece_rows(self) -> int:
        """Height of the tiles, strips or chunks that are unpacked as a whole."""
        ...


class SteppedSource(ABC):
    """A :class:`RegionSource` with one way to read, which takes a region and a step."""

    header: Header

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Yield the planes at a slice and time point; photos as (H, W, 3)."""
        return self.region(z, t, (0, 0, self.header.width, self.header.height))

    def region(self, z: int, t: int, box: Box) -> Iterator[NDArray[Any]]:
        """Yield a region of the planes."""
        return self._read(z, t, box, 1)

    def reduced(self, z: int, t: int, pixels: int) -> Iterator[NDArray[Any]]:
        """Yield every n-th pixel of the planes each way, about so many."""
        height, width = self.header.height, self.header.width
        return self._read(z, t, (0, 0, width, height), sample_step(height * width, pixels))

    def has_level(self, z: int, t: int, pixels: int) -> bool:
        """Tell whether the planes have a level of a pyramid for so many pixels."""
        return False

    @abstractmethod
    def _read(self, z: int, t: int, box: Box, step: int) -> Iterator[NDArray[Any]]:
        """Yield every n-th pixel each way of a region of the planes."""


def kind_of(path: Path) -> Literal["file", "folder", "missing"]:
    """Tell what a path leads to.

    Raises
    ------
    InputError
        If that cannot be found out, or if it is a device or a pipe, which would be waited for.
    """
    refuse_device(path)
    with reading(path):
        try:
            return "folder" if stat.S_ISDIR(path.stat().st_mode) else "file"
        except (FileNotFoundError, NotADirectoryError):
            return "missing"


def check_size(path: Path, height: int, width: int, by_region: bool = False) -> None:
    """Refuse planes without pixels and, where they are read whole, those of more than :data:`MAX_PLANE_PIXELS`.

    Raises
    ------
    InputError
        Saying the size.
    """
    if height < 1 or width < 1:
        raise InputError(f"{shown(path)} has no pixels ({width} × {height}).")
    if height * width > MAX_PLANE_PIXELS and not by_region:
        raise InputError(
            f"{shown(path)} says it is {width:,} × {height:,} px; planes of up to {MAX_PLANE_PIXELS:,} px can be read. "
            "Cut it into smaller images, or save it as a tiled TIFF or OME-Zarr, of which regions can be read."
        )


def check_end(path: Path) -> None:
    """Refuse a JPEG or JPEG 2000 file whose end is missing: OpenJPEG would leave out what is, without a word."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        if b"\xff\xd9" not in file.read():
            raise damaged(path, "its end is missing")


def turned(path: Path, orientation: object, where: str) -> tuple[str, ...]:
    """Return a warning about a picture that is not stored upright; none about one that is, or does not tell.

    Parameters
    ----------
    path
        The file.
    orientation
        The value of the tag :data:`ORIENTATION`.
    where
        What it was read from.
    """
    stored = _TURNED.get(orientation)
    if stored is None:
        return ()
    return (
        f"{path.name} is stored {stored} ({where}); it is read as it is stored, many programs show it upright: save it "
        "again upright before marking.",
    )


def pixel_size(x: object, y: object, z: object = None, unit: str | Sequence[str] = "µm") -> PixelSize | None:
    """Return a pixel's size in micrometres, None when it is not given or cannot be.

    Parameters
    ----------
    x, y
        Width and height, numbers or text.
    z
        Distance of two slices; nonsense there counts as not known.
    unit
        By symbol or English name: of all three, or three of them.
    """
    units = (unit,) * 3 if isinstance(unit, str) else unit
    width, height, depth = map(_micrometres, (x, y, z), units)
    return None if width is None or height is None else PixelSize(width, height, depth)


def _micrometres(value: object, unit: str) -> float | None:
    try:
        number = float(value) * _MICROMETRES.get(unit.strip().casefold(), math.nan)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if _SMALLEST_PIXEL <= number <= _LARGEST_PIXEL else None


def check_kind(path: Path, dtype: np.dtype[Any]) -> None:
    """Refuse pixels that are not real numbers.

    Raises
    ------
    InputError
        Saying what they are.
    """
    if dtype.kind not in NUMBERS:
        kind = "complex numbers" if dtype.kind == "c" else f"of the kind {dtype}"
        raise InputError(
            f"The pixels of {shown(path)} are {kind}; save it with whole numbers or 32-bit floats (for instance "
            "the magnitude)."
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one sentence.

    Decoders of damaged files raise anything: struct.error, KeyError, SyntaxError, zlib.error and more.
    """
    try:
        yield
    except FewShotError:
        raise
    except MemoryError:
        raise InputError(f"{shown(path)} does not fit into the memory of this computer.") from None
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
        raise damaged(path, error) from None
    except Exception as error:
        raise damaged(path, error) from None


def damaged(path: Path, reason: object) -> InputError:
    """Return the error for a file whose content is not what it should be."""
    because = re.sub(r"\s+", " ", str(reason)).strip().rstrip(".")
    because = f" ({because[:160]})" if because else ""
    return InputError(
        f"{shown(path)} cannot be read as an image: it is damaged, incomplete or of another format{because}. "
        "Copy or export it again as TIFF or PNG."
    )
