"""Objects smaller than the examples, searched for at twice the magnification.

People mark what is large. The examples set the magnification and the sizes that are looked for, so that smaller objects
of the kind are passed over, though at a higher magnification they look as the examples do. So the same learned model is
applied to the frame enlarged, and what is found there and at the usual magnification is put together by score.

Twice as wide and high takes four times as long, so only those tiles are searched again in which components of the maps,
which are there already, look like small objects. And scores have to mean the same at both magnifications: how sure the
classifier is of an example that is twice as large as it was learned tells how little it goes by size, and a detection
at twice the magnification has to be surer than that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from sam2_fewshot.geometry.overlap import shared_area
from sam2_fewshot.methods.base import Stopwatch
from sam2_fewshot.methods.guided.box_refinement import non_overlapping
from sam2_fewshot.methods.guided.classifier import AWAY, RIGHT
from sam2_fewshot.methods.guided.descriptors import LOG_AREA, describe
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.settings import SIMILAR_AREAS
from sam2_fewshot.tiling.tiles import tile_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import TrainingFrame
    from sam2_fewshot.methods.guided.classifier import ThresholdRange, TrainingTable
    from sam2_fewshot.methods.guided.model import FrameCandidates, GuidedModel
    from sam2_fewshot.protocols import Backbone, Progress
    from sam2_fewshot.records import Box

TIMES = 2
"""The frame is enlarged so many times each way."""
_CUBIC = np.array([-0.0234375, 0.2265625, 0.8671875, -0.0703125])
"""Weights of the pixels whose middles lie 1.75 and .75 before a place and .25 and 1.25 behind it."""
FEWEST_PIXELS = 6
"""What is smaller has no shape."""
_LARGER, _FEWEST = 0.75, 6
"""Share of pairs of an example and one of so many other candidates at least in which the example is the larger one
(the area under the ROC curve), from which on the examples were chosen for their size. With ten examples at random it is
.36 to .72 on most of twenty tasks, with the ten largest .61 to .91."""
_OF_THE_LARGEST = -1.0
"""Log-odds above which the threshold does not lie if the examples were chosen for their size. On nineteen tasks with
the ten largest as examples the mean F1 at the default threshold rises from .480 to .521 by it (.501 with -.5), and with
examples at random it stays the same; at the usual magnification alone."""
_WORTH = {True: 0.1, False: 1.0}
"""A tile is searched again where so many places for each detection in it look like small objects: fewer if the examples
were chosen for their size. Otherwise small ones are among the examples already, and searching for smaller ones still
finds nothing: with .5, frames of pebbles took twice as long. But a field of objects of half the diameter is
searched."""
_ABOUT = 0.5
"""Share of a mask that lies on an example from which on it is about the example, or a part of it."""
_MOST = {True: 5, False: 3}
"""So many examples of each kind are looked at to calibrate the scores; each takes a tile or a few. The fewer serve
where the largest of the log-odds is asked for, not the median."""
_PIECE = 1 << 20
"""Pixels of an enlarged picture that are searched at a time: as many as of the frame, which fits into the memory, or so
many."""
_REFUSED = -1.0
"""Log-odds, a chance of about 1 in 4, below which an example is refused for its size. In scenes where objects differ by
their size only the median is -2 to -3.3; in eleven tasks on real images it is -.5 to 1.4."""
NEVER = 24.0
"""A margin that no log-odds exceed: objects smaller than the examples are not looked for."""


class Smaller(NamedTuple):
    """What was found in a frame at twice the magnification.

    Parameters
    ----------
    masks
        In the frame.
    odds
        float64 (N,), how far their log-odds lie above the threshold and the margin.
    features
        float64 (N, D), by which they were scored.
    """

    masks: list[InstanceMask]
    odds: NDArray[np.float64]
    features: NDArray[np.float64]


def for_other_sizes(
    learned: GuidedModel,
    backbone: Backbone,
    frames: Sequence[TrainingFrame],
    table: TrainingTable,
    between: ThresholdRange,
    least_area: int,
    progress: Progress,
) -> GuidedModel:
    """Return the model with its margin, and with a lower threshold where the examples were chosen for their size.

    What is found at twice the magnification has to be surer than the examples are when seen twice as large as they were
    learned: than the median one where they were chosen for their size and smaller ones are to be expected, otherwise
    than any; and surer than any of the unwanted ones, which are often unwanted because they are small. Where the
    examples themselves would be refused for their size, size is part of what tells the objects from others, and smaller
    ones are not looked for.

    Parameters
    ----------
    learned
        With its classifiers and threshold, without a margin.
    backbone
        The one that it was learned with.
    frames
        With what the user marked.
    table, between
        What the second classifier was learned from, and its threshold's range.
    least_area
        Area in pixels below which no object is looked for.
    progress
        Reports each tile done.
    """
    if not _leaves_room(learned, least_area):
        return learned
    is_sized = are_the_largest(table, between.unseen, between.low - 1)
    wanted = _some([(f, mask) for f in frames for mask in f.marked], _MOST[is_sized])
    unwanted = _some([(f, mask) for f in frames for mask in f.negatives], _MOST[is_sized])
    odds, against = (
        [
            _odds_about(learned, backbone, frame, mask, window, 1 / len(marks), progress)
            for frame, mask in marks
            if (window := window_around(mask, learned.diameter, frame.pixels.shape[0] * frame.pixels.shape[1]))
        ]
        for marks in (wanted, unwanted)
    )
    if not odds or np.median(odds) < _REFUSED:
        return learned
    threshold, needed = learned.threshold, max(odds)
    if is_sized:
        threshold, needed = min(threshold, _OF_THE_LARGEST), float(np.median(odds))
    # The log-odds above were those above the former threshold.
    margin = max(0.0, max([needed, *against]) + learned.threshold - threshold)
    return replace(learned, threshold=threshold, margin=margin, worth=_WORTH[is_sized])


def are_the_largest(table: TrainingTable, unseen: NDArray[np.float64], low: float) -> bool:
    """Tell whether the examples are larger than nearly all else that looks like them on their frames.

    Then they were chosen for it, and their scores are those of the best objects, not of the typical ones.

    Parameters
    ----------
    table
        Candidates on the examples' frames.
    unseen
        float64 (N,), log-odds of its rows by classifiers that have not seen the example that a row is about.
    low
        Log-odds from which on a candidate may be an object.
    """
    areas = table.features[:, LOG_AREA]
    elsewhere = areas[(table.label == AWAY) & table.proposed & (unseen > low)]
    right = table.label == RIGHT
    examples = [float(np.median(areas[right & (table.owner == i)])) for i in np.unique(table.owner[right])]
    if len(elsewhere) < _FEWEST or not examples:
        return False
    return float(np.mean(np.array(examples)[:, None] > elsewhere)) > _LARGER


def _some(marks: list[tuple[TrainingFrame, InstanceMask]], most: int) -> list[tuple[TrainingFrame, InstanceMask]]:
    return [marks[i] for i in dict.fromkeys(np.linspace(0, len(marks) - 1, most).round().astype(int))] if marks else []


def window_around(mask: InstanceMask, diameter: float, most: int) -> Box | None:
    """Return a window of a mask's frame around it, None where the mask alone is too large to be seen enlarged.

    Parameters
    ----------
    mask
        The mask.
    diameter
        Typical diameter of an object in pixels: the margin, or a quarter of it where the window would be too large.
    most
        Pixels of the enlarged window at most, if these are not few.
    """
    for margin in (round(diameter), round(diameter / 4)):
        x0, y0, x1, y1 = window = _grown(mask.box, margin, mask.frame_shape)
        if TIMES**2 * (x1 - x0) * (y1 - y0) <= max(_PIECE, most):
            return window
    return None


def _odds_about(
    learned: GuidedModel,
    backbone: Backbone,
    frame: TrainingFrame,
    mask: InstanceMask,
    window: Box,
    share: float,
    progress: Progress,
) -> float:
    """Return the highest log-odds of a candidate about a mark at twice the magnification, −inf where there is none."""
    x0, y0, x1, y1 = window
    part = mask.within(window)
    assert part is not None  # the window holds its box
    large = InstanceMask(
        part.data.repeat(TIMES, axis=0).repeat(TIMES, axis=1),
        part.x0 * TIMES,
        part.y0 * TIMES,
        ((y1 - y0) * TIMES, (x1 - x0) * TIMES),
    )
    pixels = enlarged(frame.pixels[y0:y1, x0:x1])
    if np.ptp(pixels, axis=(0, 1)).max() == 0:
        return -np.inf
    found = learned.candidates(backbone, pixels, progress, Stopwatch(), about=[large], share=share)
    odds = [
        value
        for candidate, value in zip(found.refined.masks, found.odds, strict=True)
        if shared_area(candidate, large) > _ABOUT * candidate.area
    ]
    return float(max(odds, default=-np.inf))


def enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) at twice its size, by cubic convolution (Keys 1981, with a = -1/2)."""
    large = pixels.astype(np.float32)
    for axis in (0, 1):
        # A pixel becomes two, a quarter of its width before and behind its middle.
        before = ndimage.correlate1d(large, _CUBIC, axis, mode="nearest")
        behind = ndimage.correlate1d(large, _CUBIC[::-1], axis, mode="nearest", origin=-1)
        shape = [TIMES * length if i == axis else length for i, length in enumerate(large.shape)]
        large = np.stack([before, behind], axis=axis + 1).reshape(shape)
    rounded: NDArray[np.uint8] = np.rint(large.clip(0, 255)).astype(np.uint8)
    return rounded


def windows_to_search(
    learned: GuidedModel, found: FrameCandidates, least_area: int, known: Sequence[InstanceMask]
) -> list[Box]:
    """Return the tiles of a frame that may hold objects smaller than the examples, without their halos.

    Components of the frame's maps that are smaller than every example are scored as if they were seen at twice
    the magnification; which of them are objects is decided there.

    Parameters
    ----------
    learned
        What found the candidates.
    found
        The frame's candidates.
    least_area
        Area in pixels below which no object is looked for.
    known
        Masks of the examples on the frame.
    """
    if learned.margin >= NEVER or not _leaves_room(learned, least_area):
        return []
    areas = _areas(learned, least_area, 1)[0], learned.areas[0] / SIMILAR_AREAS[0]
    at_half = replace(learned, diameter=learned.diameter / TIMES, areas=areas)
    components = at_half.components(found.frame)
    descriptors = describe(components.masks, found.frame.maps, at_half.diameter, components)
    descriptors[:, LOG_AREA] += np.log(TIMES**2)
    odds = learned.first.log_odds(descriptors)
    likely = np.flatnonzero(odds > 0).tolist()
    detected = [found.refined.masks[i] for i in non_overlapping(found.refined.masks, found.odds) if found.odds[i] >= 0]
    masks = [components.masks[i] for i in likely]
    small = [masks[i] for i in non_overlapping(masks, odds[likely], [*known, *detected])]
    windows = []
    for core in found.frame.grid.cores():
        here = sum(_is_in(core, mask) for mask in small)
        if here and here >= learned.worth * sum(_is_in(core, mask) for mask in detected):
            windows.append(core)
    return windows


def search_windows(
    learned: GuidedModel,
    backbone: Backbone,
    pixels: NDArray[np.uint8],
    windows: Sequence[Box],
    least_area: int,
    progress: Progress,
    watch: Stopwatch,
) -> Smaller:
    """Search windows of a frame at twice the magnification.

    Parameters
    ----------
    learned, backbone, progress, watch
        As in :meth:`~sam2_fewshot.methods.guided.model.GuidedModel.find`.
    pixels
        uint8 RGB (H, W, 3), the frame.
    windows
        Disjoint boxes of the frame. An object counts in the one in which its middle lies.
    least_area
        Area in pixels below which no object is looked for.
    """
    shape = (pixels.shape[0], pixels.shape[1])
    masks: list[InstanceMask] = []
    odds: list[float] = []
    features: list[NDArray[np.float64]] = []
    halo, most = round(learned.diameter), max(_PIECE, shape[0] * shape[1])
    cores = [core for window in windows for core in pieces(window, halo, most)]
    for core in cores:
        window = _grown(core, halo, shape)
        x0, y0, x1, y1 = window
        large = enlarged(pixels[y0:y1, x0:x1])
        # An object near the window's border would be cut off; the halo is as wide as two objects.
        side = tile_side((large.shape[0], large.shape[1]), learned.side)
        here = replace(learned, side=side, areas=_areas(learned, least_area, TIMES**2))
        found = here.candidates(backbone, large, progress, watch, share=1 / len(cores))
        for mask, value, row in zip(found.refined.masks, found.odds, found.refined.features, strict=True):
            small = _shrunk(mask)
            if small is None:
                continue
            placed = small.placed(window, shape)
            if _is_in(core, placed) and not placed.is_clipped(window) and placed.area >= least_area:
                masks.append(placed)
                odds.append(float(value) - learned.margin)
                features.append(row)
    width = len(learned.second.mean)
    return Smaller(masks, np.array(odds), np.array(features).reshape(-1, width))


def pieces(window: Box, halo: int, most: int) -> list[Box]:
    """Split a window until each piece, with its halo and enlarged, has so many pixels at most.

    Parameters
    ----------
    window
        A box of a frame.
    halo
        Pixels around each piece that are searched besides.
    most
        The maps of a piece take as much memory as those of a frame of so many pixels. A piece that is narrower than
        both its halos is not split further.
    """
    x0, y0, x1, y1 = window
    width, height = x1 - x0, y1 - y0
    if TIMES**2 * (width + 2 * halo) * (height + 2 * halo) <= most or max(width, height) <= 2 * halo:
        return [window]
    x, y = (x0 + x1) // 2, (y0 + y1) // 2
    halves = ((x0, y0, x, y1), (x, y0, x1, y1)) if width >= height else ((x0, y0, x1, y), (x0, y, x1, y1))
    return [piece for half in halves for piece in pieces(half, halo, most)]


def _leaves_room(learned: GuidedModel, least_area: int) -> bool:
    """Tell whether objects may be smaller than those that are looked for at the usual magnification."""
    return _areas(learned, least_area, 1)[0] < learned.areas[0]


def _areas(learned: GuidedModel, least_area: int, times: int) -> tuple[float, float]:
    """Return the areas of candidates at twice the magnification, in pixels of a picture with so many for one."""
    smallest, largest = learned.areas
    shrunk = times / TIMES**2
    return max(smallest * shrunk, max(least_area, FEWEST_PIXELS) * times), largest * shrunk


def _grown(box: Box, margin: int, shape: tuple[int, int]) -> Box:
    x0, y0, x1, y1 = box
    return max(0, x0 - margin), max(0, y0 - margin), min(shape[1], x1 + margin), min(shape[0], y1 + margin)


def _is_in(box: Box, mask: InstanceMask) -> bool:
    """Tell whether the middle of a mask's box lies in a box."""
    x0, y0, x1, y1 = mask.box
    return 2 * box[0] <= x0 + x1 < 2 * box[2] and 2 * box[1] <= y0 + y1 < 2 * box[3]


def _shrunk(mask: InstanceMask) -> InstanceMask | None:
    """Return a mask at half its size: pixels that are covered by half or more; None when there are none."""
    (x0, y0, x1, y1), (height, width) = mask.box, mask.frame_shape
    left, top = x0 // TIMES, y0 // TIMES
    right, bottom = -(-x1 // TIMES), -(-y1 // TIMES)
    data = mask.window((left * TIMES, top * TIMES, right * TIMES, bottom * TIMES))
    counts = data.reshape(bottom - top, TIMES, right - left, TIMES).sum(axis=(1, 3))
    half = InstanceMask(2 * counts >= TIMES**2, left, top, (height // TIMES, width // TIMES))
    return half.within((0, 0, width // TIMES, height // TIMES))
