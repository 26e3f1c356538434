"""A frame's pictures: the overlay, and the small one for the report."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely.affinity

from sam2_fewshot.annotations.record import ExampleMark
from sam2_fewshot.output.overlay import draw_overlay
from sam2_fewshot.storage.files import write_whole
from sam2_fewshot.tiling.blocks import overview

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

    from sam2_fewshot.records import Detection, FrameReader

_LONGEST = 4096
"""px; an overlay is never larger, so a larger frame is reduced before it is drawn on."""
LONGEST = 1600
"""px; larger frames are shrunk to this for the report, which fills a screen and keeps 50 frames below about 15 MB."""
_QUALITY = 82


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of a frame.

    Parameters
    ----------
    overlay
        Content of a PNG file: the frame with its detections and examples.
    preview
        Content of a JPEG file: the frame alone, small.
    flat
        Whether the frame is the same everywhere.
    """

    overlay: bytes
    preview: bytes
    flat: bool


def pictures_of(
    frame: FrameReader, detections: Sequence[Detection], marks: Sequence[ExampleMark], threshold: float
) -> Pictures:
    """Draw a frame with its detections and examples.

    Parameters
    ----------
    frame
        Read whole where it is not large, else strip by strip and reduced.
    detections, marks, threshold
        As for :func:`~sam2_fewshot.output.overlay.draw_overlay`.
    """
    from PIL import Image

    step = -(-max(frame.shape) // _LONGEST)
    if step == 1:
        pixels = frame.read()
    else:
        pixels = overview(frame, step)

        def smaller(geometry: Any) -> Any:
            return shapely.affinity.scale(geometry, 1 / step, 1 / step, origin=(0, 0))

        detections = [replace(item, polygon=smaller(item.polygon)) for item in detections]
        marks = [ExampleMark(smaller(mark.outline), mark.negative) for mark in marks]
    flat = bool((pixels == pixels[:1, :1]).all())
    drawn = draw_overlay(pixels, detections, marks, threshold=threshold)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, format="PNG")
    return Pictures(file.getvalue(), preview_jpeg(pixels), flat)


def write_preview(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write :func:`preview_jpeg` of a frame.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    write_whole(path, preview_jpeg(pixels))


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
    return _jpeg(Image.fromarray(np.ascontiguousarray(pixels[..., 0] if is_grey else pixels)), LONGEST)


def smaller(data: bytes, factor: float, least: int) -> bytes:
    """Return a JPEG with its sides shrunk by a factor; the longer one keeps at least so many pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        longest = max(max(picture.size) * factor, min(max(picture.size), least))
        return _jpeg(picture, round(longest))


def _jpeg(picture: Image, longest: int) -> bytes:
    """Return a picture as JPEG; it is shrunk in place where its longer side has more pixels than `longest`."""
    from PIL.Image import Resampling

    picture.thumbnail((longest, longest), Resampling.BICUBIC, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()
