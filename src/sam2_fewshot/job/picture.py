"""The pictures of a frame, the overlay and the small one for the report, made where the frame was searched."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import shapely.affinity

from sam2_fewshot.frames import overview
from sam2_fewshot.writers.overlay import draw_overlay
from sam2_fewshot.writers.preview import preview_jpeg
from sam2_fewshot.writers.record import ExampleMark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.protocols import FrameReader
    from sam2_fewshot.records import Detection

_LONGEST = 4096
"""px; an overlay is never larger, so a larger frame is reduced before it is drawn on."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of a frame.

    Parameters
    ----------
    overlay
        Content of a PNG file: the frame with what was found and shown.
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
    """Draw a frame with what was found and shown.

    Parameters
    ----------
    frame
        Read whole where it is not large, else strip by strip and reduced.
    detections, marks, threshold
        As for :func:`~sam2_fewshot.writers.overlay.draw_overlay`.
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
