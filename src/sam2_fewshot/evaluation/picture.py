"""A picture of an evaluated frame: which objects were hit, missed, and falsely detected."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import shapely

from sam2_fewshot.evaluation.figures import without_examples
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.output.pictures import read_preview
from sam2_fewshot.storage.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from sam2_fewshot.evaluation.files import Pair
    from sam2_fewshot.records import InstanceMask

# Okabe & Ito's sky blue, yellow and vermilion (https://jfly.uni-koeln.de/color/), and a line of its own for each, so
# that no colour has to be seen.
HIT, MISSED, FALSE = (86, 180, 233), (240, 228, 66), (213, 94, 0)
_SHARPEST, _LARGEST = 1000, 2400
_DASH = 7


def write_picture(path: Path, pair: Pair, iou: float) -> None:
    """Draw an evaluated frame as PNG, on its picture where there is one, else on dark ground.

    Parameters
    ----------
    path
        The file.
    pair
        The frame.
    iou
        Smallest IoU of a match.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    frame = without_examples(pair.frame)
    result = frame.match(iou)
    found, hit = {p for p, _, _ in result.pairs}, {t for _, t, _ in result.pairs}
    longest = max(pair.shape)
    scale = min(max(round(_SHARPEST / longest), 1), 4) if longest < _LARGEST else _LARGEST / longest
    page = _ground(pair, scale)
    draw = ImageDraw.Draw(page)
    for p in sorted(found):
        _line(draw, frame.predicted[p], scale, HIT)
    for t, mask in enumerate(frame.truth):
        if t not in hit:
            _line(draw, mask, scale, MISSED, dash=_DASH)
    false = [mask for p, mask in enumerate(frame.predicted) if p not in found and p not in result.ignored]
    for mask in false:
        _line(draw, mask, scale, FALSE)
        _cross(draw, mask, scale)
    size = max(page.width // 55, 12)
    whole = Image.new("RGB", (max(page.width, 480), page.height + 3 * size), (24, 24, 24))
    whole.paste(page, (0, 0))
    legend, font, x = ImageDraw.Draw(whole), ImageFont.load_default(size), float(size)
    middle = page.height + 1.5 * size
    scores = result.scores
    for colour, text in (
        (HIT, f"{scores.tp} hit"),
        (MISSED, f"{scores.fn} missed (dashed)"),
        (FALSE, f"{scores.fp} false (crossed)"),
    ):
        legend.rectangle((x, middle - size / 2, x + size, middle + size / 2), fill=colour)
        legend.text((x + 1.5 * size, middle), text, fill="white", font=font, anchor="lm")
        x += legend.textlength(text, font=font) + 3 * size
    with replacing(path) as temporary, temporary.open("wb") as file:
        whole.save(file, format="PNG")


def _ground(pair: Pair, scale: float) -> Image:
    from PIL import Image

    height, width = pair.shape
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    content = b"" if pair.picture is None else read_preview(pair.picture)
    if not content:
        return Image.new("RGB", size, (40, 44, 46))
    with Image.open(io.BytesIO(content)) as picture:
        return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _line(draw: ImageDraw, mask: InstanceMask, scale: float, colour: tuple[int, int, int], dash: float = 0) -> None:
    ring = shapely.LinearRing(np.asarray(mask_to_polygon(mask, 0.3).exterior.coords) * scale)
    lines = [shapely.get_coordinates(ring)]
    if dash:
        count = max(2 * round(ring.length / (2 * dash)), 4)
        places = [np.linspace(part, part + 1, 9) / count for part in range(0, count, 2)]
        lines = [shapely.get_coordinates(shapely.line_interpolate_point(ring, at, normalized=True)) for at in places]
    for line in lines:
        points = [(x, y) for x, y in line.tolist()]
        draw.line(points, fill=(0, 0, 0), width=4)
        draw.line(points, fill=colour, width=2)


def _cross(draw: ImageDraw, mask: InstanceMask, scale: float) -> None:
    x0, y0, x1, y1 = (value * scale for value in mask.box)
    x, y, arm = (x0 + x1) / 2, (y0 + y1) / 2, max(min(x1 - x0, y1 - y0) / 4, 3)
    for way in (1, -1):
        draw.line([(x - arm, y - way * arm), (x + arm, y + way * arm)], fill=FALSE, width=2)
