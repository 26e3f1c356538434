"""A frame's pictures: the overlay, ``overlays/STEM.png``, and the small one for the report.

On the overlay detections and examples are outlined. The lines are thin beside the objects (small images are enlarged),
readable on dark and on bright ground, and in colours that colour-blind eyes can distinguish; the legend is below the
image, not on it.
"""

from __future__ import annotations

import io
import math
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import shapely.affinity

from sam2_fewshot.annotations.record import ExampleMark
from sam2_fewshot.errors import counted
from sam2_fewshot.records import Counts, Kind
from sam2_fewshot.tiling.overview import is_flat, overview

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from shapely import Polygon

    from sam2_fewshot.records import Detection, FrameReader

    _Color = int | tuple[int, int, int]

# Sixteen equidistant colours of viridis (Stéfan van der Walt and Nathaniel Smith, CC0,
# https://bids.github.io/colormap/); it is even in lightness and safe for colour-blind eyes.
_VIRIDIS = (
    np.frombuffer(
        bytes.fromhex(
            "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e"
            "1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
        ),
        np.uint8,
    )
    .reshape(16, 3)
    .astype(float)
)
# The dark end would be lost on fluorescence's black ground.
_DARKEST = 0.5

_POSITIVE = (255, 0, 200)
_NEGATIVE = (0, 0, 0)
_WHITE = (255, 255, 255)
_PAPER = (24, 24, 24)
_SHARPEST = 1200  # px; images are enlarged towards this, at most fourfold
_FINEST = 16  # px; and until the typical object is this wide
_LARGEST = 4096  # px; larger ones are shrunk to this
_NARROWEST = 720  # px; room that the legend needs
LONGEST = 1600
"""px; larger frames are shrunk to this for the report, which fills a screen and keeps 50 frames below about 15 MB."""
_QUALITY = 82
_JPEG = b"\xff\xd8\xff"
"""How every JPEG file begins."""
FLAT = "is the same everywhere, so nothing can be found in it."
"""In a warning, after the frame's name."""
_OF = "sam2-fewshot"
"""Keyword of the text in an overlay's file that says what it is of."""


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
    frame: FrameReader, detections: Sequence[Detection], marks: Sequence[ExampleMark], threshold: float, of: str = ""
) -> Pictures:
    """Draw a frame with its detections and examples.

    Parameters
    ----------
    frame
        Read whole where it is not large, else strip by strip and reduced.
    detections, marks, threshold
        As for :func:`draw_overlay`.
    of
        What :func:`drawn_of` shall say about the overlay.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    step = -(-max(frame.shape) // _LARGEST)
    if step == 1:
        pixels = frame.read()
    else:
        pixels = overview(frame, step)

        def smaller(geometry: Any) -> Any:
            return shapely.affinity.scale(geometry, 1 / step, 1 / step, origin=(0, 0))

        detections = [replace(item, polygon=smaller(item.polygon)) for item in detections]
        marks = [replace(mark, outline=smaller(mark.outline)) for mark in marks]
    drawn = draw_overlay(pixels, detections, marks, threshold=threshold)
    file, note = io.BytesIO(), PngInfo()
    note.add_text(_OF, of)
    Image.fromarray(drawn).save(file, format="PNG", pnginfo=note)
    return Pictures(file.getvalue(), preview_jpeg(pixels), is_flat(pixels))


def drawn_of(path: Path) -> str:
    """Return what :func:`pictures_of` was told that an overlay is of; empty where there is none. No pixels are read."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return str(picture.info.get(_OF, ""))
    except (OSError, ValueError):  # missing, or no picture
        return ""


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


def read_preview(path: Path) -> bytes:
    """Return the content of a file of :func:`preview_jpeg`; empty where there is none.

    A link is none: it may lead to a file of the user's, which the report would give away.
    """
    try:
        content = path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b""
    except OSError:
        return b""
    return content if content.startswith(_JPEG) else b""


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


def color_of(share: float) -> tuple[int, int, int]:
    """Return the colour for a place between the lowest (0) and the highest score (1), as 8-bit RGB."""
    place = (_DARKEST + (1 - _DARKEST) * min(max(share, 0.0), 1.0)) * (len(_VIRIDIS) - 1)
    below = min(int(place), len(_VIRIDIS) - 2)
    mixed = _VIRIDIS[below] + (place - below) * (_VIRIDIS[below + 1] - _VIRIDIS[below])
    red, green, blue = (round(value) for value in mixed.tolist())
    return red, green, blue


def draw_overlay(
    pixels: NDArray[np.uint8],
    detections: Sequence[Detection],
    examples: Sequence[ExampleMark] = (),
    *,
    threshold: float | None = None,
) -> NDArray[np.uint8]:
    """Draw outlines over a frame.

    Detections get a thin line from teal (the frame's lowest score) over green to yellow (its highest) with a dark halo.
    Examples get a thick dashed line: magenta and white for the wanted ones, black and white with a cross for the
    negative ones; an example that is a point gets a ring, and one that is a box the box. What SAM 2 has made of these
    gets a magenta line.

    Parameters
    ----------
    pixels
        uint8 array (H, W, 3), RGB.
    detections
        In any order, the examples among them or not.
    examples
        Those on this frame, as they were marked.
    threshold
        The score that a detection must have, for the legend.

    Returns
    -------
    ndarray
        uint8 array (H', W', 3): the frame, enlarged up to fourfold when it is small and shrunk to 4,096 px
        when it is large, with a legend below.
    """
    from PIL import Image, ImageDraw

    made = made_from_marks(detections, examples)
    detections = [item for item in detections if item.kind != Kind.EXAMPLE]
    height, width = pixels.shape[:2]
    typical = _typical_width(detections, examples)
    scale = _scale(max(height, width), typical)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    # Lines are drawn twice as large and reduced, which smooths them, where memory allows it.
    smooth = 2 if max(size) <= _SHARPEST * 2 else 1
    ground = Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (size[0] * smooth, size[1] * smooth), Image.Resampling.BICUBIC
    )
    low, high = _range(detections)
    # Thick enough to see on large objects, thin enough not to cover small ones.
    pen = _Pen(scale * smooth, min(max(typical * scale / 25, 1.5), 3.0) * smooth)
    ordered = sorted(detections, key=lambda item: item.score)

    halo = Image.new("L", ground.size, 0)
    shade = ImageDraw.Draw(halo)
    for item in ordered:
        pen.line(shade, item.polygon, 255, 2.2)
    ground.paste((0, 0, 0), mask=halo.point(lambda value: value * 0.7))
    draw = ImageDraw.Draw(ground)
    for item in ordered:
        pen.line(draw, item.polygon, color_of(_share(item.score, low, high)), 1.0)
    for outline in made:
        pen.made(draw, outline)
    for mark in examples:
        pen.mark(draw, mark)
    ground = ground.reduce(smooth)
    return np.asarray(_with_legend(ground, detections, examples, len(made), (low, high), threshold))


def made_from_marks(detections: Sequence[Detection], marks: Sequence[ExampleMark]) -> list[Polygon]:
    """Return the outlines of the examples that the user marked by points or boxes."""
    hints = shapely.STRtree([mark.outline for mark in marks if not (mark.negative or mark.is_object)])
    examples = [item.polygon for item in detections if item.kind == Kind.EXAMPLE]
    outlined = shapely.STRtree([mark.outline for mark in marks if mark.is_object])
    return [
        polygon
        for polygon in examples
        if hints.query(polygon, predicate="intersects").size
        and not any(_same(polygon, outlined.geometries[i]) for i in outlined.query(polygon))
    ]


def _same(one: Polygon, other: Any) -> bool:
    # Both are of the same pixels, but for smoothing; of one that is not valid nothing can be told.
    return bool(other.is_valid) and one.intersection(other).area > 0.5 * one.union(other).area


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws shapes given in image pixels; `width` is the width of a plain line in pixels of the drawing."""

    scale: float
    width: float

    def line(self, draw: ImageDraw, polygon: Polygon, color: _Color, weight: float) -> None:
        points = np.asarray(polygon.exterior.coords)[:, :2] * self.scale
        self._path(draw, points, color, weight)

    def made(self, draw: ImageDraw, polygon: Polygon) -> None:
        self.line(draw, polygon, (0, 0, 0), 2.4)
        self.line(draw, polygon, _POSITIVE, 1.4)

    def mark(self, draw: ImageDraw, mark: ExampleMark) -> None:
        color = _NEGATIVE if mark.negative else _POSITIVE
        outline = mark.outline
        if isinstance(outline, shapely.Point):
            outline = outline.buffer(6 * self.width / self.scale)
        ring = shapely.affinity.scale(outline.exterior, self.scale, self.scale, origin=(0, 0))
        self._path(draw, shapely.get_coordinates(ring), (0, 0, 0), 3.2)
        self._path(draw, shapely.get_coordinates(ring), _WHITE, 2.0)
        dash = 5 * self.width
        count = max(2 * round(ring.length / (2 * dash)), 4)
        steps = max(int(ring.length / count), 1) + 1
        for index in range(0, count, 2):
            places = np.linspace(index, index + 1, steps + 1) / count
            points = shapely.line_interpolate_point(ring, places, normalized=True)
            self._path(draw, shapely.get_coordinates(points), color, 2.0)
        if mark.negative:
            x0, y0, x1, y1 = ring.bounds
            centre = shapely.get_coordinates(shapely.Polygon(ring).representative_point())
            arm = min(8 * self.width, (x1 - x0) / 3, (y1 - y0) / 3)
            crossed = [centre + np.array([(-arm, way * arm), (arm, -way * arm)]) for way in (1, -1)]
            for color, weight in (((0, 0, 0), 2.4), (_WHITE, 1.2)):
                for stroke in crossed:
                    self._path(draw, stroke, color, weight)

    def _path(self, draw: ImageDraw, points: NDArray[np.float64], color: _Color, weight: float) -> None:
        draw.line(
            [(x, y) for x, y in points.tolist()],
            fill=color,
            width=max(round(self.width * weight), 1),
            joint="curve",
        )


def _typical_width(detections: Sequence[Detection], examples: Sequence[ExampleMark]) -> float:
    """Return the side of a square as large as the median object, in image pixels."""
    found = [item.polygon.area for item in detections]
    areas = [area for area in found or [mark.outline.area for mark in examples] if area > 0]
    return float(np.sqrt(np.median(areas))) if areas else _FINEST


def _scale(longest: int, typical: float) -> float:
    wanted = max(round(_SHARPEST / longest), np.ceil(_FINEST / typical), 1)
    most = _LARGEST / longest
    return float(min(wanted, 4, int(most))) if most >= 1 else most


def _range(detections: Sequence[Detection]) -> tuple[float, float]:
    values = [item.score for item in detections if math.isfinite(item.score)]
    return (min(values), max(values)) if values else (0.0, 1.0)


def _share(value: float, low: float, high: float) -> float:
    if not math.isfinite(value):
        return 0.0
    return (value - low) / (high - low) if high > low else 1.0


def _with_legend(
    ground: Image,
    detections: Sequence[Detection],
    examples: Sequence[ExampleMark],
    made: int,
    limits: tuple[float, float],
    threshold: float | None,
) -> Image:
    """Return the drawing with a band below it that explains the lines."""
    from PIL import Image, ImageDraw, ImageFont

    wide = max(ground.width, _NARROWEST)
    size = max(wide // 60, 12)
    band = 3 * size
    page = Image.new("RGB", (wide, ground.height + band), _PAPER)
    page.paste(ground, ((wide - ground.width) // 2, 0))
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size)
    middle = ground.height + band // 2
    x = float(size)

    def write(text: str) -> None:
        nonlocal x
        draw.text((x, middle), text, fill=_WHITE, font=font, anchor="lm")
        x += draw.textlength(text, font=font) + size * 0.6

    write(str(Counts.of(detections)) + (" " if not detections else ", score"))
    if detections:
        write(f"{limits[0]:.2f}")
        length = size * 7
        for step in range(length):
            color = color_of(_share(step, 0, length - 1))
            draw.line([(x + step, middle - size // 2), (x + step, middle + size // 2)], fill=color)
        x += length + size * 0.6
        write(f"{limits[1]:.2f}")
    if threshold is not None:
        write(f"(threshold {threshold:.2f})")
    pen = _Pen(1.0, max(1.5, size / 10))
    for negative, name in ((False, "example"), (True, "negative example")):
        count = sum(mark.negative == negative for mark in examples)
        if count:
            x += size
            sample = shapely.box(x, middle - size * 0.7, x + size * 1.4, middle + size * 0.7)
            pen.mark(draw, ExampleMark(sample, negative))
            x += size * 2.2
            write(counted(count, name))
    if made:
        x += size
        pen.made(draw, shapely.box(x, middle - size * 0.7, x + size * 1.4, middle + size * 0.7))
        x += size * 2.2
        write("made by SAM 2")
    return page
