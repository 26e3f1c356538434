"""Objects smaller and larger than the examples, searched for at twice and at half the magnification.

The same learned model is applied to the frame enlarged and reduced, and what is found there and at the usual
magnification is put together by score.

Smaller ones: twice as wide and high takes four times as long, so only those tiles are searched again in which
components of the maps, which are there already, look like small objects. A detection at twice the magnification has to
be surer by the model's margin.

Larger ones: people also mark what is small, bright and alone, and other frames may show the same objects larger. The
examples set the largest size that is looked for, and of what is larger only parts are proposed. At half the frame's
size larger objects look as the examples do. Half as wide and high has a quarter of the tiles, so all of the frame is
searched. Several objects close together, or ground between them, may look like one there; but what holds a surer
detection is left out, as at any magnification.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam2_fewshot.geometry.overlap import grown
from sam2_fewshot.methods.guided.box_refinement import non_overlapping
from sam2_fewshot.methods.guided.descriptors import LOG_AREA, describe
from sam2_fewshot.methods.guided.scaling import TIMES, enlarged, enlarged_mask, reduced_mask
from sam2_fewshot.settings import SIMILAR_AREAS
from sam2_fewshot.tiling.blocks import is_owned
from sam2_fewshot.tiling.overview import is_flat, reduced
from sam2_fewshot.tiling.tiles import tile_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import Stopwatch
    from sam2_fewshot.methods.guided.model import FrameCandidates, GuidedModel
    from sam2_fewshot.protocols import Backbone, Embedding, Progress
    from sam2_fewshot.records import Box, InstanceMask

FEWEST_PIXELS = 6
"""What is smaller has no shape."""
PIECE = 1 << 20
"""Pixels of an enlarged picture that are searched at a time: as many as of the frame, which fits into the memory, or so
many."""
NEVER = 24.0
"""A margin that no log-odds exceed: objects smaller than the examples are not looked for."""


NOTHING_LARGER = (0.0, 0.0)
"""The areas of larger objects where none are looked for."""


class Found(NamedTuple):
    """What was found in a frame at one magnification or several.

    Parameters
    ----------
    masks
        In the frame.
    odds
        float64 (N,), how far their log-odds lie above the threshold.
    features
        float64 (N, D), by which they were scored.
    """

    masks: list[InstanceMask]
    odds: NDArray[np.float64]
    features: NDArray[np.float64]


def joined(first: Found, second: Found) -> Found:
    """Return what was found at either of two magnifications."""
    return Found(
        [*first.masks, *second.masks],
        np.concatenate([first.odds, second.odds]),
        np.concatenate([first.features, second.features]),
    )


NOTHING_AT_HALF: tuple[Found, Mapping[int, Embedding]] = Found([], np.zeros(0), np.zeros((0, 0))), {}


def at_half(learned: GuidedModel) -> GuidedModel:
    """Return the model that finds what is larger in a frame at half its size."""
    least, most = learned.larger
    return replace(learned, areas=(least / TIMES**2, most / TIMES**2))


def search_at_half(
    learned: GuidedModel, backbone: Backbone, pixels: NDArray[np.uint8], progress: Progress, watch: Stopwatch
) -> tuple[Found, Mapping[int, Embedding]]:
    """Search a frame at half the magnification for larger objects.

    Parameters
    ----------
    learned, backbone, progress, watch
        As in :meth:`~sam2_fewshot.methods.guided.model.GuidedModel.detect`.
    pixels
        uint8 RGB (H, W, 3), the frame.

    Returns
    -------
    found
        In the frame.
    embeddings
        Of the tiles that were encoded, by their numbers. They are those of tiles twice as wide as the frame's own, and
        give masks in pixels of the frame.
    """
    least, most = learned.larger
    if least >= most:
        return NOTHING_AT_HALF
    small = reduced(pixels, TIMES)
    if is_flat(small):
        return NOTHING_AT_HALF
    here = at_half(learned).candidates(backbone, small, progress, watch, share=1 / TIMES**2)
    shape = (pixels.shape[0], pixels.shape[1])
    wide = (TIMES * learned.side,) * 2
    embeddings = {number: embedding.resized(wide) for number, embedding in here.frame.embeddings.items()}
    return here.likely._replace(masks=[enlarged_mask(mask, shape) for mask in here.likely.masks]), embeddings


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
    if learned.margin >= NEVER or not leaves_room(learned, least_area):
        return []
    areas = _areas(learned, least_area, 1)[0], learned.areas[0] / SIMILAR_AREAS[0]
    at_half = replace(learned, diameter=learned.diameter / TIMES, areas=areas)
    components = at_half.components(found.frame)
    descriptors = describe(components.masks, found.frame.maps, at_half.diameter, components)
    descriptors[:, LOG_AREA] += np.log(TIMES**2)
    odds = learned.first.log_odds(descriptors)
    likely = np.flatnonzero(odds > 0).tolist()
    seen, seen_odds, _ = found.likely
    detected = [seen[i] for i in non_overlapping(seen, seen_odds) if seen_odds[i] >= 0]
    masks = [components.masks[i] for i in likely]
    small = [masks[i] for i in non_overlapping(masks, odds[likely], [*known, *detected])]
    windows = []
    for core in found.frame.grid.cores():
        here = sum(is_owned(mask, core) for mask in small)
        if here and here >= learned.worth * sum(is_owned(mask, core) for mask in detected):
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
) -> Found:
    """Search windows of a frame at twice the magnification.

    Parameters
    ----------
    learned, backbone, progress, watch
        As in :meth:`~sam2_fewshot.methods.guided.model.GuidedModel.detect`.
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
    halo, most = round(learned.diameter), max(PIECE, shape[0] * shape[1])
    cores = [core for window in windows for core in pieces(window, halo, most)]
    for core in cores:
        window = grown(core, halo, shape)
        x0, y0, x1, y1 = window
        large = enlarged(pixels[y0:y1, x0:x1])
        # An object near the window's border would be cut off; the halo is as wide as two objects.
        side = tile_side((large.shape[0], large.shape[1]), learned.side)
        here = replace(learned, side=side, areas=_areas(learned, least_area, TIMES**2))
        found = here.candidates(backbone, large, progress, watch, share=1 / len(cores)).likely
        for mask, value, row in zip(*found, strict=True):
            small = reduced_mask(mask)
            if small is None:
                continue
            placed = small.placed(window, shape)
            if is_owned(placed, core) and not placed.is_clipped(window) and placed.area >= least_area:
                masks.append(placed)
                odds.append(float(value) - learned.margin)
                features.append(row)
    width = len(learned.second.mean)
    return Found(masks, np.array(odds), np.array(features).reshape(-1, width))


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


def leaves_room(learned: GuidedModel, least_area: int) -> bool:
    """Tell whether objects may be smaller than those that are looked for at the usual magnification."""
    return _areas(learned, least_area, 1)[0] < learned.areas[0]


def _areas(learned: GuidedModel, least_area: int, times: int) -> tuple[float, float]:
    """Return the areas of candidates at twice the magnification, in pixels of a picture with so many for one."""
    smallest, largest = learned.areas
    shrunk = times / TIMES**2
    return max(smallest * shrunk, max(least_area, FEWEST_PIXELS) * times), largest * shrunk
