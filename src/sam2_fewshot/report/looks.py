"""What objects look like: size, roundness and brightness, by which examples are compared with what was nearly found."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import shapely

from sam2_fewshot.geometry.outlines import polygons_to_masks
from sam2_fewshot.output.pictures import read_preview

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from shapely import Polygon

_NOTHING = np.zeros(0)
_MOST = 500
"""So many objects of a frame are looked at; of more, some are taken."""


@dataclass(frozen=True, eq=False)
class Looks:
    """What some objects look like.

    Parameters
    ----------
    area
        In pixels, float64 (n,).
    roundness
        4π · area / perimeter², 1 for a circle (Cox 1927), float64 (n,).
    brightness
        Mean grey value in the frame's picture, float64 (n,); NaN where there is none.
    """

    area: NDArray[np.float64] = field(default_factory=lambda: _NOTHING)
    roundness: NDArray[np.float64] = field(default_factory=lambda: _NOTHING)
    brightness: NDArray[np.float64] = field(default_factory=lambda: _NOTHING)


def looks_of(outlines: Sequence[Polygon], picture: Path | None, scale: float) -> Looks:
    """Return what objects of a frame look like.

    Parameters
    ----------
    outlines
        In image pixels.
    picture
        A small picture of the frame; None where there is no example to compare with, and nothing is looked at.
    scale
        Pixels of the picture for each of the image.
    """
    if not len(outlines) or picture is None:
        return Looks()
    some = np.array(outlines[:: -(-len(outlines) // _MOST)])
    area, length = shapely.area(some), shapely.length(some)
    return Looks(area, 4 * np.pi * area / np.maximum(length, 1e-9) ** 2, _brightness(some, picture, scale))


def _brightness(outlines: NDArray[np.object_], picture: Path, scale: float) -> NDArray[np.float64]:
    grey = _grey(picture)
    if grey is None:
        return np.full(len(outlines), np.nan)
    drawn = shapely.transform(outlines, lambda points: points * scale)
    masks = polygons_to_masks(list(drawn), [(grey.shape[0], grey.shape[1])] * len(drawn))
    values = []
    for mask in masks:
        inside = mask.under(grey)[mask.data]
        values.append(float(inside.mean()) if inside.size else math.nan)
    return np.array(values)


def _grey(picture: Path) -> NDArray[np.uint8] | None:
    """Return the grey values of a picture (H, W), None when it cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read_preview(picture))) as image:
            return np.asarray(image.convert("L"))
    except OSError:
        return None
