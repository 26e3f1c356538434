"""What a candidate looks like, in eighteen numbers: its shape, its contrast, and the learned maps on and around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import InstanceMask

DESCRIPTORS = 18
CORE_SCORE = 9
"""Which descriptor is the mean score on the mask, about 0 on background and 1 on examples."""


@dataclass(frozen=True, eq=False)
class FrameMaps:
    """Planes of one frame, float32 (H, W) each, on which candidates are measured.

    Parameters
    ----------
    contrast
        Brightness along the direction in which examples differ from their surroundings, smoothed, in units of its
        standard deviation on the examples' frames.
    local
        The same less its mean over a neighbourhood larger than an object.
    edges
        Magnitude of the contrast's gradient.
    score
        The discriminant of :mod:`sam2_fewshot.proposals.dense_map`.
    cosines
        (3, H, W), cosine to the examples at the fine, middle and coarse level.
    """

    contrast: NDArray[np.float32]
    local: NDArray[np.float32]
    edges: NDArray[np.float32]
    score: NDArray[np.float32]
    cosines: NDArray[np.float32]


def describe(masks: Sequence[InstanceMask], maps: FrameMaps, diameter: float) -> NDArray[np.float64]:
    """Return the descriptors (N, 18) of masks on a frame.

    Parameters
    ----------
    masks
        None of them empty.
    maps
        Of their frame.
    diameter
        Typical diameter of an object in pixels; it sets the width of the rings around a mask.
    """
    rows = [_describe(mask, maps, diameter) for mask in masks]
    return np.array(rows, np.float64).reshape(-1, DESCRIPTORS)


def _describe(mask: InstanceMask, maps: FrameMaps, diameter: float) -> list[float]:
    margin = max(3, int(diameter * 0.25))
    left, top, right, bottom = mask.box
    height, width = mask.frame_shape
    x0, y0, x1, y1 = (
        max(0, left - margin),
        max(0, top - margin),
        min(width, right + margin),
        min(height, bottom + margin),
    )
    inside = mask.window((x0, y0, x1, y1))
    outer, inner = (
        ndimage.distance_transform_edt(~inside),
        ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1],
    )
    depth = max(1.5, diameter * 0.1)
    rim, core = inside & (inner <= depth), inner > depth
    if not core.any():
        core = inside
    # The pixels next to the mask belong half to it, so the rings begin one farther out.
    ring, surroundings = (outer > 1) & (outer <= max(2.5, diameter * 0.12)), (outer > 1) & (outer <= margin)
    border = rim | ring
    place = (slice(y0, y1), slice(x0, x1))
    contrast, edges, score = maps.contrast[place], maps.edges[place], maps.score[place]

    def mean(plane: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
        # A mask that fills the frame has no surroundings; it then differs from them by nothing.
        return float(plane[where].mean()) if where.any() else float(plane[inside].mean())

    area = int(np.count_nonzero(inside))
    y, x = np.nonzero(inside)
    # 1/12 is the variance of a pixel's own square, so that one row of pixels has a width.
    spread = np.cov(np.stack([y, x]), bias=True) + np.eye(2) / 12
    minor, major = np.linalg.eigvalsh(spread)
    outline = max(1, int(np.count_nonzero((outer > 0) & (outer <= 1))))
    return [
        np.log(area),
        np.sqrt(minor / major),
        area / (4 * np.pi * np.sqrt(minor * major)),  # 1 for a filled ellipse, less for a concave shape
        np.log(outline**2 / area),
        mean(contrast, core),
        mean(contrast, rim) - mean(contrast, ring),
        mean(contrast, inside) - mean(contrast, surroundings),
        float(contrast[inside].std()),
        mean(edges, border) - mean(edges, core),
        mean(score, core),
        mean(score, rim),
        mean(score, ring),
        mean(score, surroundings),
        mean(score, rim) - mean(score, ring),
        float(np.percentile(score[inside], 10)),
        *(mean(cosine[place], inside) for cosine in maps.cosines),
    ]
