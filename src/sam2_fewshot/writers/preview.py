"""A small picture of each frame, beside its record in the journal; the report shows it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.writers.whole import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LONGEST = 1600
"""px; larger frames are shrunk to this, which fills a screen and keeps 50 frames below about 15 MB."""

_QUALITY = 82


def write_preview(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write :func:`preview_jpeg` of a frame.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(preview_jpeg(pixels))


def preview_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return a frame as JPEG, of at most :data:`LONGEST` px on its longer side.

    JPEG, since every browser reads it and it costs a fraction of the time of WebP or PNG.

    Parameters
    ----------
    pixels
        uint8 RGB (H, W, 3).
    """
    from PIL import Image

    is_grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if is_grey else pixels))
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()


def smaller(data: bytes, factor: float, least: int) -> bytes:
    """Return a JPEG with its sides shrunk by a factor; the longer one keeps at least so many pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        longest = max(max(picture.size) * factor, min(max(picture.size), least))
        picture.thumbnail((round(longest), round(longest)), Image.Resampling.BICUBIC, reducing_gap=2.0)
        out = io.BytesIO()
        picture.save(out, format="JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()
