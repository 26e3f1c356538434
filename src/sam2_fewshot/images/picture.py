"""PNG, JPEG, BMP, GIF and WebP, by Pillow.

Pixels are taken as they are stored: an EXIF orientation is not applied, so that coordinates are those of the stored
pixels, and a warning says so. Opacity is given only where some pixels are transparent. Of files with several pictures
the first is read.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.source import (
    ORIENTATION,
    Header,
    check_end,
    check_kind,
    check_size,
    damaged,
    reading,
    turned,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

    from sam2_fewshot.images.source import PixelSource

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")
_DTYPES = {
    "1": "uint8",
    "L": "uint8",
    "P": "uint8",
    "I;16": "uint16",
    "I;16B": "uint16",
    "I": "int32",
    "F": "float32",
}


def open_picture(path: Path, only: int | None = None) -> list[PixelSource]:
    """Open a picture; see :class:`PictureSource`."""
    return [PictureSource(path)]


class PictureSource:
    """A picture file; a :class:`~sam2_fewshot.images.source.PixelSource`.

    Raises
    ------
    InputError
        If it is not a whole picture, or has more than
        :data:`~sam2_fewshot.images.source.MAX_PLANE_PIXELS`.
    """

    def __init__(self, path: Path) -> None:
        self.header = _header(path)

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Yield the one plane, (H, W) or (H, W, 3), or with the opacity (H, W, 2) or (H, W, 4)."""
        path = self.header.path
        with reading(path):
            if _is_deep_png(path):
                import imagecodecs

                pixels = imagecodecs.png_decode(path.read_bytes())
            else:
                with _open(path) as image:
                    pixels = _pixels(image)
                    if image.has_transparency_data and pixels.dtype == np.uint8:
                        pixels = np.dstack([pixels, np.asarray(image.convert("RGBA"))[..., 3]])
        yield _without_opacity(pixels)


def _header(path: Path) -> Header:
    notes: list[str] = []
    with reading(path):
        if _is_deep_png(path):
            width, height = (int.from_bytes(part, "big") for part in (_start(path)[16:20], _start(path)[20:24]))
            check_size(path, height, width)
        with _open(path) as image:
            if image.format == "PNG":
                image.verify()  # reads all of the file, without decoding; the image is of no use afterwards
        with _open(path) as image:
            width, height = image.size
            mode, kind = "L" if _is_grey_gif(image) else image.mode, image.format
            palette = _palette(image) if mode == image.mode else None
            stretched_from = _stretched_from(image, path)
            orientation = _orientation(image)
            if getattr(image, "is_animated", False):
                notes.append(f"{path.name} has several pictures; the first is read. Save stacks as TIFF.")
        check_size(path, height, width)
        if kind in {"JPEG", "MPO"}:
            check_end(path)
        if _is_deep_png(path):
            photo, dtype = _start(path)[25] in (2, 6), np.dtype("uint16")
        else:
            photo = palette is None and mode not in _DTYPES and mode not in {"LA", "La", "PA"}
            dtype = np.dtype(_DTYPES.get(mode, "uint8"))
        check_kind(path, dtype)
    if mode == "CMYK":
        notes.append(f"{path.name} is a CMYK picture; it is converted to RGB without a colour profile.")
    notes += turned(path, orientation, "EXIF")
    return Header(
        path,
        height,
        width,
        dtype,
        is_photo=photo,
        palette=palette,
        stretched_from=stretched_from,
        warnings=tuple(notes),
    )


def _orientation(image: Image) -> object:
    """Return the orientation of a picture, None where it does not tell."""
    from PIL import Image

    try:
        # What PNG has in its place decodes the pixels, to look behind them.
        return Image.Image.getexif(image).get(ORIENTATION)
    except Exception:  # damaged EXIF, of any kind; the pixels are as good without
        return None


def _open(path: Path) -> Image:
    from PIL import Image, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 - makes WebP known

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(path, formats=_FORMATS)
        except UnidentifiedImageError:
            raise damaged(path, "") from None
        except Image.DecompressionBombError:
            return _open_large(path)


def _open_large(path: Path) -> Image:
    """Open a picture of more pixels than Pillow's own limit for all formats, up to that of this program."""
    from PIL import Image

    start = _start(path)
    for kind in _FORMATS:
        factory, accepts = Image.OPEN[kind]
        if accepts is None or accepts(start):
            opened: Any = factory  # it takes a path as well, and then closes the file
            image: Image.Image = opened(str(path))
            try:
                check_size(path, image.height, image.width)
            except InputError:
                image.close()
                raise
            return image
    raise damaged(path, "")


def _palette(image: Image) -> NDArray[np.uint8] | None:
    if image.mode not in {"P", "PA"}:
        return None
    table = image.getpalette("RGB") or [0, 0, 0]
    return np.asarray(table, np.uint8).reshape(-1, 3)


def _is_grey_gif(image: Image) -> bool:
    """Tell whether the palette of a GIF, which has no other way to be grey, brightens from black."""
    table = _palette(image) if image.format == "GIF" else None
    if table is None or (table != table[:, :1]).any():
        return False
    greys = table[: table[:, 0].argmax() + 1, 0].astype(int)  # what follows is not used
    return bool(greys[0] == 0 and (np.diff(greys) > 0).all())


def _stretched_from(image: Image, path: Path) -> int:
    """Return the largest number that samples of a grey picture can have, where Pillow makes more of it; else 0."""
    if image.mode == "1":
        return 1
    if image.format == "PNG" and image.mode == "L":
        bits = _start(path)[24]
        return (1 << bits) - 1 if bits < 8 else 0
    opened: Any = image
    # Where the decoder of PPM and PGM stretches, it is given the largest number besides the mode.
    arguments = opened.tile[0][3] if image.format == "PPM" else None
    return int(arguments[1]) if isinstance(arguments, tuple) else 0


def _pixels(image: Image) -> NDArray[Any]:
    if _is_grey_gif(image):
        return np.asarray(image.convert("L"))
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if image.mode in _DTYPES:
        return np.asarray(image)
    if image.mode in {"LA", "La", "PA"}:
        return np.asarray(image)[..., 0]
    return np.asarray(image.convert("RGB"))


def _without_opacity(pixels: NDArray[Any]) -> NDArray[Any]:
    """Leave out the opacity of a picture, its last sample, where it says nothing: where no pixel or all are hidden."""
    if pixels.ndim == 2 or pixels.shape[2] % 2:
        return pixels
    shown = pixels[..., -1] != 0
    if shown.any() and not shown.all():
        return pixels
    return pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]


def _is_deep_png(path: Path) -> bool:
    """Tell whether it is a PNG of 16 bits a sample with more than one sample: Pillow drops the low byte of those."""
    start = _start(path)
    return start.startswith(b"\x89PNG\r\n\x1a\n") and len(start) == 26 and start[24] == 16 and start[25] != 0


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(26)
