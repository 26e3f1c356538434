"""What every image format gives: a header that is cheap to read, and planes one at a time."""

from __future__ import annotations

import errno
import math
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from sam2_fewshot.errors import FewShotError, InputError
from sam2_fewshot.images.addresses import is_zarr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, PixelSize

MAX_PLANE_PIXELS = 500_000_000
"""Largest plane that is read whole, in pixels (22,000 × 22,000): its RGB picture takes 1.5 GB."""

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DAMAGE = {None, errno.EINVAL, errno.EOVERFLOW}
"""What the system says when a damaged file sends a decoder to an impossible place."""
_OTHER_FORMATS = {
    ".lsm5",
    ".oib",
    ".oif",
    ".vsi",
    ".mrxs",
    ".h5",
    ".hdf5",
    ".ims",
}


@dataclass(frozen=True, eq=False, slots=True)
class Header:
    """What is known about an image file before its pixels are read.

    Parameters
    ----------
    path
        The file.
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
    channel_names, channel_colors
        One a channel, None where the file does not tell.
    warnings
        Sentences about what of the file is not used.
    pixel_size
        In micrometres, None where the file does not tell.
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
    channel_names: tuple[str | None, ...] = (None,)
    channel_colors: tuple[tuple[int, int, int] | None, ...] = (None,)
    warnings: tuple[str, ...] = ()
    pixel_size: PixelSize | None = None


class PixelSource(Protocol):
    """An image file that has been looked at and whose planes can be read."""

    @property
    def header(self) -> Header:
        """What the file holds."""
        ...

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Yield the pixels at a slice and time point as stored, one channel (H, W) after the other.

        A photo is one plane (H, W, 3).

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
            way, with the n that :func:`~sam2_fewshot.rendering.contrast` would choose.
        """
        ...


def open_source(path: Path) -> PixelSource:
    """Look at an image file, whatever its format; no pixels are read.

    Raises
    ------
    InputError
        If there is no such file, or if it cannot be read as an image.
    """
    if is_zarr(path):
        from sam2_fewshot.images.ome_zarr import ZarrSource

        return ZarrSource(path)
    kind = kind_of(path)
    if kind == "folder":
        raise InputError(f"{path} is a folder, not an image file.")
    if kind == "missing":
        raise InputError(f"There is no file {path}; check its name and folder.")
    if path.suffix.lower() in _OTHER_FORMATS:
        raise InputError(
            f"{path.name}: files of the kind {path.suffix} are not read; export it as OME-TIFF, TIFF or PNG."
        )
    with reading(path), path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise InputError(f"{path.name} is empty (0 bytes); copy or export it again.")
    source: PixelSource
    suffix = path.suffix.lower()
    if suffix == ".nd2":
        from sam2_fewshot.images.nd2 import Nd2Source

        source = Nd2Source(path)
    elif suffix == ".lif":
        from sam2_fewshot.images.lif import LifSource

        source = LifSource(path)
    elif suffix == ".czi":
        from sam2_fewshot.images.czi import CziSource

        source = CziSource(path)
    elif start in _TIFF_MAGIC:
        from sam2_fewshot.images.tiff import TiffSource

        source = TiffSource(path)
    else:
        from sam2_fewshot.images.picture import PictureSource

        source = PictureSource(path)
    return source


def kind_of(path: Path) -> Literal["file", "folder", "missing"]:
    """Tell what a path leads to.

    Raises
    ------
    InputError
        If that cannot be found out, or if it is a device or a pipe, which would be waited for.
    """
    with reading(path):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a file.")
    return "file"


def check_size(path: Path, height: int, width: int, by_region: bool = False) -> None:
    """Refuse planes without pixels and, where they are read whole, those of more than :data:`MAX_PLANE_PIXELS`.

    Raises
    ------
    InputError
        Saying the size.
    """
    if height < 1 or width < 1:
        raise InputError(f"{path.name} has no pixels ({width} × {height}).")
    if height * width > MAX_PLANE_PIXELS and not by_region:
        raise InputError(
            f"{path.name} says it is {width:,} × {height:,} px; planes of up to {MAX_PLANE_PIXELS:,} px can be read. "
            "Cut it into smaller images, or save it as a tiled TIFF or OME-Zarr, of which regions can be read."
        )


def every(size: int, pixels: int) -> int:
    """Return the n for which every n-th pixel each way is about so many of a plane; at least 1.

    Parameters
    ----------
    size
        Pixels of the plane.
    pixels
        How many of them are wanted at most, but for the rest of a division.
    """
    return max(1, math.ceil(math.sqrt(size / pixels)))


def check_kind(path: Path, dtype: np.dtype[Any]) -> None:
    """Refuse pixels that are not real numbers.

    Raises
    ------
    InputError
        Saying what they are.
    """
    if dtype.kind not in "buif":
        kind = "complex numbers" if dtype.kind == "c" else f"of the kind {dtype}"
        raise InputError(
            f"The pixels of {path.name} are {kind}; save it with whole numbers or 32-bit floats (for instance "
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
        raise InputError(f"{path.name} does not fit into the memory of this computer.") from None
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
        raise damaged(path, error) from None
    except Exception as error:
        raise damaged(path, error) from None


def damaged(path: Path, reason: object) -> InputError:
    """Return the error for a file whose content is not what it should be."""
    said = re.sub(r"\s+", " ", str(reason)).strip().rstrip(".")
    said = f" ({said[:160]})" if said else ""
    return InputError(
        f"{path.name} cannot be read as an image: it is damaged, incomplete or of another format{said}. "
        "Copy or export it again as TIFF or PNG."
    )
