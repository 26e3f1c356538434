"""What a candidate looks like: shape, contrast, the learned maps on and around it, how often its like was proposed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from sam2_fewshot.geometry.overlap import boxes_of
from sam2_fewshot.geometry.sheets import sheets, squared_distances, stacked
from sam2_fewshot.methods.guided.appearance import Appearance
from sam2_fewshot.resources import mapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import InstanceMask


SHEET = 1 << 19
"""Pixels that are measured at a time."""
LOG_AREA = 0
"""Which descriptor is the logarithm of the area in pixels."""
ELONGATION, FILLING = 1, 2
"""Which descriptors are the ratio of the axes, and the share of an ellipse with these axes that a mask fills."""
CORE_CONTRAST = 4
"""Which descriptor is the contrast well inside of the outline."""
CONTRAST = 6
"""Which descriptor is the contrast to the surroundings."""
CORE_SCORE = 9
"""Which descriptor is the mean score on the mask, about 0 on background and 1 on examples."""
_COSINES = 15
"""Which descriptor is the first of the mean cosines to the examples, one for each level of the pyramid."""
SUPPORT = -1
"""Which descriptor, counted from the end, tells how often something like the mask was proposed."""
COARSE_COSINE = -2
"""Which descriptor, counted from the end, is the mean cosine to the examples at the coarsest level."""


@dataclass(frozen=True, eq=False)
class FrameMaps(Appearance):
    """Planes of one frame, on which candidates are measured: its appearance, and the maps of a pixel model.

    Parameters
    ----------
    score
        float32 (H, W), the discriminant of :mod:`sam2_fewshot.methods.guided.maps`.
    cosines
        float32 (L, H, W), cosine to the examples at each level of the pyramid, the finest first.
    """

    score: NDArray[np.float32]
    cosines: NDArray[np.float32]

    @classmethod
    def of(cls, seen: Appearance, maps: NDArray[np.float32]) -> FrameMaps:
        """Put a frame's appearance and the maps (1 + L, H, W) of a pixel model together."""
        return cls(seen.contrast, seen.local, seen.edges, maps[0], maps[1:])


def describe(
    masks: Sequence[InstanceMask], maps: FrameMaps, diameter: float, among: Proposed, sheet: int = SHEET
) -> NDArray[np.float64]:
    """Return the descriptors (N, 16 + L) of masks on a frame; L is the number of the pyramid's levels.

    Parameters
    ----------
    masks
        None of them empty.
    maps
        Of their frame.
    diameter
        Typical diameter of an object in pixels; it sets the width of the rings around a mask.
    among
        The frame's candidates, as in :func:`~sam2_fewshot.methods.guided.descriptors.support`.
    sheet
        As :data:`SHEET`.
    """
    values = np.empty((len(masks), _COSINES + len(maps.cosines) + 1))
    margin = max(3, int(diameter * 0.25))
    shapes = np.array([mask.data.shape for mask in masks], int).reshape(-1, 2) + 2 * margin

    def of_sheet(here: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        return here, _describe_sheet(_Sheet([masks[i] for i in here], margin), maps, diameter)

    for here, described in mapped(of_sheet, sheets(shapes, sheet)):
        values[here, :SUPPORT] = described
    values[:, SUPPORT] = support(masks, among)
    return values


class _Sheet:
    """Masks one below the other, with a margin around each, and where they lie in the frame."""

    def __init__(self, masks: Sequence[InstanceMask], margin: int) -> None:
        self.margin = margin
        self.inside, self.starts, self.owner = stacked([mask.data for mask in masks], margin)
        corners = np.array([mask.box[:2] for mask in masks]) - margin
        self.y = np.arange(len(self.owner)) - self.starts[self.owner]
        self.x = np.arange(self.inside.shape[1])
        frame_rows = self.y + corners[self.owner, 1]
        frame_columns = self.x + corners[self.owner, 0, None]
        height, across = masks[0].frame_shape
        self.in_frame = ((frame_rows >= 0) & (frame_rows < height))[:, None] & (
            (frame_columns >= 0) & (frame_columns < across)
        )
        self._places = frame_rows.clip(0, height - 1)[:, None] * across + frame_columns.clip(0, across - 1)

    def of(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values of a plane of the frame; beyond the frame they mean nothing."""
        values: NDArray[np.float32] = np.take(plane, self._places)
        return values

    def total(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum values (rows, columns), or values of rows, over each mask's part of the sheet."""
        of_rows = values if values.ndim == 1 else values.sum(axis=1, dtype=np.float64)
        summed: NDArray[np.float64] = np.add.reduceat(of_rows.astype(np.float64), self.starts)
        return summed


def _describe_sheet(sheet: _Sheet, maps: FrameMaps, diameter: float) -> NDArray[np.float64]:
    inside, in_frame = sheet.inside, sheet.in_frame
    depth, margin = max(1.5, diameter * 0.1), sheet.margin
    outer, inner = squared_distances(~inside, margin), squared_distances(inside, math.ceil(depth))
    core = inner > depth**2
    area = sheet.total(inside)
    all_rim = sheet.total(core) == 0
    core |= inside & all_rim[sheet.owner, None]
    rim = inside & (inner <= depth**2)
    # The pixels next to the mask belong half to it, so the rings begin one farther out.
    beyond = (outer > 1) & in_frame
    ring, surroundings = beyond & (outer <= max(2.5, diameter * 0.12) ** 2), beyond & (outer <= margin**2)
    counts = {id(where): sheet.total(where) for where in (inside, core, rim, ring, surroundings)}
    border = rim | ring
    counts[id(border)] = sheet.total(border)

    def mean(plane: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float64]:
        # A mask that fills the frame has no surroundings; it then differs from them by nothing.
        count = counts[id(where)]
        total = sheet.total(np.where(where, plane, 0))
        if (count == 0).any():
            total = np.where(count > 0, total, sheet.total(np.where(inside, plane, 0)))
            count = np.where(count > 0, count, area)
        averaged: NDArray[np.float64] = total / count
        return averaged

    contrast, edges, score = sheet.of(maps.contrast), sheet.of(maps.edges), sheet.of(maps.score)
    minor, major = _axes(sheet, area)
    outline = np.maximum(1, sheet.total((outer > 0) & (outer <= 1) & in_frame))
    of_contrast = mean(contrast, inside)
    deviation = contrast - of_contrast[sheet.owner, None].astype(np.float32)
    rim_score, ring_score = mean(score, rim), mean(score, ring)
    return np.column_stack(
        [
            np.log(area),
            np.sqrt(minor / major),
            area / (4 * np.pi * np.sqrt(minor * major)),  # 1 for a filled ellipse, less for a concave shape
            np.log(outline**2 / area),
            mean(contrast, core),
            mean(contrast, rim) - mean(contrast, ring),
            of_contrast - mean(contrast, surroundings),
            np.sqrt(mean(deviation**2, inside)),
            mean(edges, border) - mean(edges, core),
            mean(score, core),
            rim_score,
            ring_score,
            mean(score, surroundings),
            rim_score - ring_score,
            _tenths(score[inside], area.astype(int)),
            *(mean(sheet.of(cosine), inside) for cosine in maps.cosines),
        ]
    )


def _axes(sheet: _Sheet, area: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smaller and the larger variance of each mask's pixels along its principal axes."""
    of_rows, x_of_rows = sheet.inside.sum(axis=1), sheet.inside @ sheet.x
    x, y = sheet.total(x_of_rows) / area, sheet.total(of_rows * sheet.y) / area
    # 1/12 is the variance of a pixel's own square, so that one row of pixels has a width.
    along = sheet.total(sheet.inside @ (sheet.x**2)) / area - x**2 + 1 / 12
    down = sheet.total(of_rows * sheet.y**2) / area - y**2 + 1 / 12
    both = sheet.total(x_of_rows * sheet.y) / area - x * y
    middle, half = (along + down) / 2, np.hypot((along - down) / 2, both)
    return np.maximum(middle - half, 1 / 12), middle + half


def _tenths(values: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the 10th percentile of each of several groups of values that lie one after the other."""
    # Sorting all groups in one call takes ten times as long as looking into each for the two values that matter.
    tenths = np.empty(len(counts))
    ends = np.cumsum(counts)
    for i, (end, count) in enumerate(zip(ends, counts, strict=True)):
        low, between = divmod(0.1 * (count - 1), 1)
        high = min(int(low) + 1, count - 1)
        ordered = np.partition(values[end - count : end], (int(low), high))
        tenths[i] = ordered[int(low)] + between * (float(ordered[high]) - float(ordered[int(low)]))
    return tenths


_ALIKE = 0.5
"""IoU of the bounding boxes, and ratio of the areas, from which on a candidate is like another. The IoU of the masks
themselves takes a hundred times as long, and no more is found with it."""


@dataclass(frozen=True, eq=False)
class Proposed:
    """A frame's candidates.

    Parameters
    ----------
    masks
        None of them empty.
    times
        int64 (N,), how often each was proposed.
    """

    masks: Sequence[InstanceMask]
    times: NDArray[np.int64]

    def and_once(self, more: Sequence[InstanceMask]) -> Proposed:
        """Return these, and others that were proposed once."""
        return Proposed([*self.masks, *more], np.concatenate([self.times, np.ones(len(more), np.int64)]))

    def chosen(self, which: NDArray[np.bool_]) -> Proposed:
        """Return some of them, boolean (N,)."""
        return Proposed([mask for mask, taken in zip(self.masks, which, strict=True) if taken], self.times[which])


def support(masks: Sequence[InstanceMask], among: Proposed) -> NDArray[np.float64]:
    """Return how often candidates like each of several masks were proposed, float64 (N,), as log(1 + number).

    An object comes out of a map at many thresholds, and of several maps, nearly alike; a part of it, or a union with a
    neighbour, comes out of few. Maximally stable extremal regions are chosen by the same sign (Matas et al.
    2002).

    Parameters
    ----------
    masks
        None of them empty.
    among
        The candidates of the same frame. A mask that is one of them is like itself.
    """
    if not masks or not among.masks:
        return np.zeros(len(masks))
    boxes, others = boxes_of(masks), boxes_of(among.masks)
    areas, other_areas = (np.array([mask.area for mask in group], np.float64) for group in (masks, among.masks))
    i, j = shapely.STRtree(shapely.box(*others.T)).query(shapely.box(*boxes.T))
    shared = np.minimum(boxes[i, 2:], others[j, 2:]) - np.maximum(boxes[i, :2], others[j, :2])
    overlap = shared.prod(axis=1)
    union = (boxes[i, 2:] - boxes[i, :2]).prod(axis=1) + (others[j, 2:] - others[j, :2]).prod(axis=1) - overlap
    ratio = np.minimum(areas[i], other_areas[j]) / np.maximum(areas[i], other_areas[j])
    alike = (overlap >= _ALIKE * union) & (ratio >= _ALIKE)
    counted: NDArray[np.float64] = np.log1p(np.bincount(i[alike], among.times[j[alike]], len(masks)))
    return counted
