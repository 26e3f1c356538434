"""Learning the guided method from examples."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sam2_fewshot.methods.guided.appearance import measure, prominence_of
from sam2_fewshot.methods.guided.box_refinement import refined_masks, to_refine_in_training, with_refined
from sam2_fewshot.methods.guided.classifier import (
    EVEN_CHANCES,
    Logistic,
    TrainingCandidates,
    best_threshold,
    fit_classifier,
    table_of,
)
from sam2_fewshot.methods.guided.descriptors import CORE_SCORE, FrameMaps, describe
from sam2_fewshot.methods.guided.expectation import evidence_of, look_alikes
from sam2_fewshot.methods.guided.maps import PixelModel, averaged, cells_of, cells_per_tile, dense_maps, learn_pixels
from sam2_fewshot.methods.guided.model import EncodedFrame, GuidedModel
from sam2_fewshot.methods.guided.other_sizes import for_other_sizes
from sam2_fewshot.methods.guided.proposals import threshold_levels
from sam2_fewshot.methods.guided.self_training import (
    FEW,
    ROUNDS,
    TrainingTiles,
    what_few_means,
    with_surest,
)
from sam2_fewshot.methods.guided.smaller import FEWEST_PIXELS
from sam2_fewshot.methods.guided.training_windows import training_windows
from sam2_fewshot.resources import STORED
from sam2_fewshot.settings import SIMILAR_AREAS
from sam2_fewshot.tiling.tiles import TileGrid, tile_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import TrainingFrame
    from sam2_fewshot.methods.guided.maps import CellStore
    from sam2_fewshot.protocols import Backbone, Progress
    from sam2_fewshot.records import InstanceMask

_DIAMETER = 1 / 13
"""An object's diameter in the backbone's input, as a share of its side: 40 px of 512, 80 of 1024. micro-sam's FAQ
advises 64 to 128 px of 1024."""
_ZOOM = (0.25, 4.0)
_LONGEST = 3.0
"""Detections may be this much longer than the longest example: walls between objects are far longer, and no larger."""
_BACKGROUND = 0.5
"""A candidate whose mean score is below this lies on background."""
_UNTRAINED = Logistic(np.zeros(0), np.zeros(0), np.zeros(0), 0.0)


def learn_guided(
    backbone: Backbone,
    frames: Sequence[TrainingFrame],
    area_limits: tuple[int, int],
    progress: Progress,
    room: int = STORED,
) -> GuidedModel:
    """Learn from examples; from fewer than :data:`FEW`, by self-training (:mod:`~.self_training`).

    Parameters
    ----------
    backbone
        Encodes the frames.
    frames
        With their examples, at least one of them wanted.
    area_limits
        The user's smallest and largest area in pixels; a largest of 0 is no limit.
    progress
        Reports each tile done; warns of a limit that excludes examples, and that there are few.
    room
        Bytes in which encoded tiles are stored; what has no room is encoded twice.
    """
    areas = _areas_of(frames)
    _warn_of_limits(areas, area_limits, progress)
    side = _tile_side(areas, frames, backbone.input_size)
    frames = training_windows(frames, side)
    tiles = TrainingTiles(backbone, frames, side, progress, room)
    learned = learn_once(backbone, frames, area_limits, tiles, progress, is_last=len(areas) >= FEW)
    if len(areas) >= FEW:
        if (sentence := look_alikes(learned.evidence, learned.places)) is not None:
            progress.warn(sentence)
        return learned
    extended = frames
    for total, least in ROUNDS:
        extended = with_surest(learned, backbone, frames, tiles, total - len(areas), least, progress)
        is_last = total == ROUNDS[-1][0]
        learned = learn_once(backbone, extended, area_limits, tiles, progress, is_last=is_last, self_trained=is_last)
    progress.warn(what_few_means(len(areas), len(_areas_of(extended)) - len(areas)))
    return learned


def learn_once(
    backbone: Backbone,
    frames: Sequence[TrainingFrame],
    area_limits: tuple[int, int],
    tiles: TrainingTiles,
    progress: Progress,
    *,
    is_last: bool = False,
    self_trained: bool = False,
) -> GuidedModel:
    """Learn from examples once, for the last time with `is_last`; with `self_trained`, most of them were not marked."""
    progress.start("learning")
    areas, side = _areas_of(frames), tiles.side
    diameter = _diameter_of(areas)
    folds = deal_folds(frames)
    pixel_models = learn_cells(backbone, tiles.stores, frames, side, folds)
    cells = averaged(pixel_models)
    colours, unit = learn_colours(frames, diameter)
    encoded = []
    for frame, frame_folds, store in zip(frames, folds, tiles.stores, strict=True):
        shape = (frame.pixels.shape[0], frame.pixels.shape[1])
        every, embeddings = dense_maps(store, shape, side, backbone, [cells, *pixel_models])
        seen = measure(frame.pixels, colours, unit, diameter)
        maps = FrameMaps.of(seen, held_out(every, frame, frame_folds, diameter))
        encoded.append(EncodedFrame(TileGrid(shape, side), embeddings, maps))
    local = [frame.maps.local for frame in encoded]
    learned = GuidedModel(
        side=side,
        diameter=diameter,
        areas=_area_range(areas, area_limits),
        colours=colours,
        unit=unit,
        levels=learn_levels(frames, [frame.maps for frame in encoded], diameter),
        cells=cells,
        first=_UNTRAINED,
        second=_UNTRAINED,
        threshold=0.0,
        prominence=prominence_of(local, [frame.marked for frame in frames], diameter),
        longest=_LONGEST * max(math.hypot(*mask.data.shape) for frame in frames for mask in frame.positives),
    )
    return _with_classifiers(
        learned, backbone, frames, encoded, area_limits, progress, is_last=is_last, self_trained=self_trained
    )


def _areas_of(frames: Sequence[TrainingFrame]) -> NDArray[np.int64]:
    return np.array([mask.area for frame in frames for mask in frame.positives], np.int64)


def _diameter_of(areas: NDArray[np.int64]) -> float:
    """Return the median example's diameter in pixels, the square root of its area."""
    return float(np.sqrt(float(np.median(areas))))


def _tile_side(areas: NDArray[np.int64], frames: Sequence[TrainingFrame], input_size: int) -> int:
    """Return the side in pixels of tiles that bring the median example to :data:`_DIAMETER` of the backbone's input."""
    zoom = _DIAMETER * input_size / _diameter_of(areas)
    height, width = frames[0].pixels.shape[:2]
    return tile_side((height, width), input_size / min(max(zoom, _ZOOM[0]), _ZOOM[1]))


def _with_classifiers(
    learned: GuidedModel,
    backbone: Backbone,
    frames: Sequence[TrainingFrame],
    encoded: Sequence[EncodedFrame],
    area_limits: tuple[int, int],
    progress: Progress,
    *,
    is_last: bool,
    self_trained: bool,
) -> GuidedModel:
    """Return the model with its classifiers. On the maps, no example was learned from itself."""
    first_rows, proposed = [], []
    parts = Counter(frame.number for frame in frames)
    shares = [1 / parts[frame.number] for frame in frames]
    for frame, seen, share in zip(frames, encoded, shares, strict=True):
        # The marked masks themselves are the surest rows there are.
        marked = [*frame.positives, *frame.negatives]
        proposed.append(learned.components(seen).and_once(learned.prompted(backbone, seen, share=share)))
        masks = [*marked, *proposed[-1].masks]
        features = describe(masks, seen.maps, learned.diameter, proposed[-1])
        first_rows.append(TrainingCandidates(frame.positives, frame.negatives, masks, features, len(marked)))
    table = table_of(first_rows)
    first, _ = fit_classifier(table, table.features[:, CORE_SCORE] < _BACKGROUND)

    def refined(*, with_examples: bool) -> list[TrainingCandidates]:
        rows = []
        for frame, seen, before, among, share in zip(frames, encoded, first_rows, proposed, shares, strict=True):
            odds = first.log_odds(before.features)[before.drawn :]
            likely = to_refine_in_training(before.masks[before.drawn :], odds, before.masks[: before.drawn], share)
            drawn = range(0 if with_examples else len(frame.positives), before.drawn)
            chosen = [*drawn, *(before.drawn + i for i in likely)]
            masks = [before.masks[i] for i in chosen]
            made = refined_masks(backbone, frame.pixels, seen.embeddings, seen.grid, masks, progress.advance)
            both = with_refined(masks, before.features[chosen], made, seen.maps, learned.diameter, learned.areas, among)
            rows.append(TrainingCandidates(frame.positives, frame.negatives, both.masks, both.features, len(drawn)))
        return rows

    # A backbone agrees with a perfect outline more than with any proposal of the same object, so the examples' own
    # outlines are refined only where nothing else is right.
    rows = refined(with_examples=False)
    table = table_of(rows)
    if not table.right.any():
        rows = refined(with_examples=True)
        table = table_of(rows)
    second, between = fit_classifier(table, table.features[:, CORE_SCORE] < _BACKGROUND)
    threshold = best_threshold(second, between, rows)
    if self_trained:
        # Detections that were chosen for being sure score higher than their like, and would raise it.
        threshold = min(threshold, EVEN_CHANCES)
    learned = replace(learned, first=first, second=second, threshold=threshold)
    if is_last:
        learned = for_other_sizes(learned, backbone, frames, table, between, area_limits, progress)
    unseen = np.split(between.unseen, np.cumsum([len(frame.masks) for frame in rows])[:-1])
    evidence, places = evidence_of(frames, rows, unseen, learned.threshold)
    return replace(learned, evidence=evidence, places=places)


def _area_range(areas: NDArray[np.int64], limits: tuple[int, int]) -> tuple[float, float]:
    """Return the smallest and the largest area of a candidate: about those of the examples, within the user's limits.

    A limit that would exclude an example is not meant for objects like the examples, and is ignored.
    """
    smallest, largest = max(FEWEST_PIXELS, SIMILAR_AREAS[0] * areas.min()), SIMILAR_AREAS[1] * areas.max()
    low, high = limits
    if areas.min() >= low:
        smallest = max(smallest, low)
    if high and areas.max() <= high:
        largest = min(largest, high)
    return float(smallest), float(largest)


def _warn_of_limits(areas: NDArray[np.int64], limits: tuple[int, int], progress: Progress) -> None:
    """Say which of the user's limits are ignored."""
    low, high = limits
    if areas.min() < low:
        progress.warn(
            f"Min Mask Area is {low} px, but the smallest example has {areas.min()} px; objects below the limit are "
            "looked for as well."
        )
    if high and areas.max() > high:
        progress.warn(
            f"Max Mask Area is {high} px, but the largest example has {areas.max()} px; objects above the limit are "
            "looked for as well."
        )


_FOLDS = 3
_MOST_CELLS = 20_000


def deal_folds(frames: Sequence[TrainingFrame]) -> list[list[int]]:
    """Deal the wanted examples of all frames out to folds, in turn; one example alone is a fold for itself."""
    total = sum(len(frame.positives) for frame in frames)
    number, folds = 0, []
    for frame in frames:
        folds.append([(number + i) % min(_FOLDS, total) for i in range(len(frame.positives))])
        number += len(frame.positives)
    return folds


def learn_cells(
    backbone: Backbone,
    stores: Sequence[CellStore],
    frames: Sequence[TrainingFrame],
    side: int,
    folds: Sequence[Sequence[int]],
) -> list[PixelModel]:
    """Learn a pixel model for each fold, from the examples of the other folds."""
    rng = np.random.default_rng(0)
    objects: list[NDArray[np.float32]] = []
    owners: list[NDArray[np.int64]] = []
    ground: list[NDArray[np.float32]] = []
    certain: list[NDArray[np.bool_]] = []
    for frame, frame_folds, store in zip(frames, folds, stores, strict=True):
        fold_of, share, negative = _cell_planes(frame, frame_folds, side, cells_per_tile(backbone))
        # An example smaller than a cell still has its nearest one.
        on_object = fold_of >= 0
        off = ~on_object & (share < 0.1) & np.isfinite(share)
        keep = rng.random(off.shape) < _MOST_CELLS / len(frames) / max(1, int(np.count_nonzero(off)))
        taken = off & (keep | negative)
        for tile in store:
            rows, columns, features = tile.rows, tile.columns, tile.features
            here, there = on_object[rows, columns], taken[rows, columns]
            objects.append(features[:, here].T)
            owners.append(fold_of[rows, columns][here])
            ground.append(features[:, there].T)
            certain.append(negative[rows, columns][there])
    cells, owner = np.concatenate(objects), np.concatenate(owners)
    background, sure = np.concatenate(ground), np.concatenate(certain)
    if not len(background):  # the examples fill their frames: what is left is the frame itself
        background, sure = cells, np.zeros(len(cells), bool)
    number = max((fold for frame_folds in folds for fold in frame_folds), default=0) + 1
    if number == 1:  # a single example is halved, so that some of its cells are unseen
        return [learn_pixels(cells, background, sure, rng.random(len(cells)) < 0.5, backbone.channels, examples=1)]
    total = sum(map(len, folds))
    return [learn_pixels(cells, background, sure, owner == fold, backbone.channels, total) for fold in range(number)]


def _cell_planes(
    frame: TrainingFrame, folds: Sequence[int], side: int, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Return planes of a frame's cells: fold of the example they lie on (else -1), share on any, and negative."""
    shape = (frame.pixels.shape[0], frame.pixels.shape[1])
    empty = cells_of(np.zeros(shape, bool), side, cells)
    total, fold_of = empty, np.full(empty.shape, -1)
    for mask, fold in zip(frame.positives, folds, strict=True):
        share = cells_of(mask.full(), side, cells)
        inside = share > 0.6
        if not inside.any():
            inside = share >= np.nanmax(share)
        fold_of[inside] = fold
        total = total + share
    negative = np.zeros(empty.shape, bool)
    for mask in frame.negatives:
        share = cells_of(mask.full(), side, cells)
        negative |= share >= min(0.6, float(np.nanmax(share)))
    return fold_of, total, negative & (fold_of < 0)


def learn_colours(frames: Sequence[TrainingFrame], diameter: float) -> tuple[NDArray[np.float64], float]:
    """Return the direction in RGB in which examples differ most from their surroundings, and the spread along it."""
    inside, around = [], []
    for frame in frames:
        smooth = ndimage.gaussian_filter(frame.pixels.astype(np.float32), (1, 1, 0))
        positive = _union(frame.positives, frame.pixels.shape)
        inside.append(smooth[positive])
        around.append(smooth[_ring(positive, max(3, int(0.4 * diameter)))])
    on, off = np.concatenate(inside).astype(np.float64), np.concatenate(around).astype(np.float64)
    if not len(off):
        off = np.zeros((1, 3))
    covariance = (np.cov(on, rowvar=False, bias=True) + np.cov(off, rowvar=False, bias=True)) / 2
    # One grey level squared keeps the matrix regular where all channels are the same, as in grey images.
    direction = np.linalg.solve(
        covariance + np.eye(3) * (1 + 0.02 * np.trace(covariance) / 3), on.mean(0) - off.mean(0)
    )
    length = float(np.linalg.norm(direction))
    direction = direction / length if length > 1e-9 else np.full(3, 3**-0.5)
    spread = float(np.mean([np.std(frame.pixels @ direction) for frame in frames]))
    return direction, max(spread, 1.0)


def held_out(
    every: NDArray[np.float32], frame: TrainingFrame, folds: Sequence[int], diameter: float
) -> NDArray[np.float32]:
    """Return the averaged model's maps (1 + L, H, W), on and around each example those of the model without it."""
    reach = int(0.5 * diameter) + 2
    planes: NDArray[np.float32] = every[0].copy()
    for mask, fold in zip(frame.positives, folds, strict=True):
        x0, y0, x1, y1 = mask.box
        place = (slice(max(0, y0 - reach), y1 + reach), slice(max(0, x0 - reach), x1 + reach))
        planes[:, *place] = every[1 + fold][:, *place]
    return planes


def learn_levels(frames: Sequence[TrainingFrame], maps: Sequence[FrameMaps], diameter: float) -> NDArray[np.float64]:
    """Return the levels (3, T) at which contrast, local contrast and score are thresholded.

    They are NaN where the examples do not stand out.
    """
    masks = [_union(frame.positives, frame.pixels.shape) for frame in frames]
    rings = [_ring(mask, max(2, int(0.2 * diameter))) for mask in masks]
    rows = []
    for name in ("contrast", "local", "score"):
        planes: list[NDArray[np.float32]] = [getattr(each, name) for each in maps]
        inside = np.concatenate([plane[mask] for plane, mask in zip(planes, masks, strict=True)])
        around = np.concatenate([plane[ring] for plane, ring in zip(planes, rings, strict=True)])
        rows.append(threshold_levels(inside, around) if len(around) else np.zeros(0))
    width = max(map(len, rows), default=0)
    return np.array([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows])


def _union(masks: Sequence[InstanceMask], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    union = np.zeros(shape[:2], bool)
    for mask in masks:
        x0, y0, x1, y1 = mask.box
        union[y0:y1, x0:x1] |= mask.data
    return union


def _ring(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    ring: NDArray[np.bool_] = ndimage.binary_dilation(mask, iterations=width) & ~mask
    return ring
