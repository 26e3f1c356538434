"""Learning the guided method from examples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sam2_fewshot.methods.guided.box_refinement import opinions_of_all, second_pool, to_ask_of_shown
from sam2_fewshot.methods.guided.classifier import Logistic, Marked, choose_cut, fit_judge, table_of
from sam2_fewshot.methods.guided.descriptors import CORE_SCORE, DESCRIPTORS, describe
from sam2_fewshot.methods.guided.maps import PixelModel, averaged, cells_of, dense_maps, learn_pixels
from sam2_fewshot.methods.guided.model import GuidedModel, LookedAt, measure
from sam2_fewshot.methods.guided.proposals import cut_levels
from sam2_fewshot.methods.guided.self_training import FEW, HIGHEST_CUT, ROUNDS, Encoded, what_few_means, with_surest
from sam2_fewshot.tiling.tiles import TileGrid, tile_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.methods.base import TrainingFrame
    from sam2_fewshot.methods.guided.descriptors import FrameMaps
    from sam2_fewshot.methods.guided.maps import CellStore
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import InstanceMask

_DIAMETER = 1 / 13
"""An object's diameter in the model's input, as a share of its side: 40 px of 512, 80 of 1024. micro-sam's FAQ advises
64 to 128 px of 1024."""
_ZOOM = (0.25, 4.0)
_SMALLEST, _LARGEST = 0.4, 2.5
"""Candidates may be this much smaller than the smallest and larger than the largest example."""
_FEWEST_PIXELS = 6
_BACKGROUND = 0.5
"""A candidate whose mean score is below this lies on background."""
_NO_JUDGE = Logistic(np.zeros(DESCRIPTORS), np.ones(DESCRIPTORS), np.zeros(DESCRIPTORS), 0.0)


def learn_guided(
    model: Sam2Model, shown: Sequence[TrainingFrame], area_limits: tuple[int, int], progress: Progress
) -> GuidedModel:
    """Learn from examples; from fewer than :data:`FEW`, by self-training (:mod:`~.self_training`).

    Parameters
    ----------
    model
        Encodes the frames.
    shown
        Frames with their examples, at least one of them wanted.
    area_limits
        The user's smallest and largest area in pixels; a largest of 0 is no limit.
    progress
        Is told of each tile done, of a limit that excludes examples, and that there are few.
    """
    areas = _areas_of(shown)
    _warn_of_limits(areas, area_limits, progress)
    encoded = Encoded(model, shown, _tile_side(areas, shown, model.image_size), progress)
    learned = _learn(model, shown, area_limits, encoded, progress)
    if len(areas) >= FEW:
        return learned
    taught = shown
    for total, least in ROUNDS:
        taught = with_surest(learned, model, shown, encoded, total - len(areas), least, progress)
        learned = _learn(model, taught, area_limits, encoded, progress, self_taught=total == ROUNDS[-1][0])
    progress.warn(what_few_means(len(areas), len(_areas_of(taught)) - len(areas)))
    return learned


def _learn(
    model: Sam2Model,
    shown: Sequence[TrainingFrame],
    area_limits: tuple[int, int],
    encoded: Encoded,
    progress: Progress,
    *,
    self_taught: bool = False,
) -> GuidedModel:
    """Learn from examples once; with `self_taught`, the last time of several, most of them were not marked."""
    progress.start("learning")
    areas, side = _areas_of(shown), encoded.side
    diameter = _diameter_of(areas)
    folds = deal_folds(shown)
    pixel_models = learn_cells(encoded.stores, shown, side, model.image_size, folds)
    cells = averaged(pixel_models)
    colours, unit = learn_colours(shown, diameter)
    looked_at = []
    for frame, frame_folds, store in zip(shown, folds, encoded.stores, strict=True):
        shape = (frame.pixels.shape[0], frame.pixels.shape[1])
        every, of_tiles = dense_maps(store, shape, side, model.image_size, [cells, *pixel_models])
        maps = measure(frame.pixels, held_out(every, frame, frame_folds, diameter), colours, unit, diameter)
        looked_at.append(LookedAt(TileGrid(shape, side), of_tiles, maps))
    learned = GuidedModel(
        side=side,
        diameter=diameter,
        areas=_area_range(areas, area_limits),
        colours=colours,
        unit=unit,
        levels=learn_levels(shown, [frame.maps for frame in looked_at], diameter),
        cells=cells,
        first=_NO_JUDGE,
        second=_NO_JUDGE,
        cut=0.0,
    )
    return _judged(learned, model, shown, looked_at, progress, self_taught=self_taught)


def _areas_of(shown: Sequence[TrainingFrame]) -> NDArray[np.int64]:
    return np.array([mask.area for frame in shown for mask in frame.positives], np.int64)


def _diameter_of(areas: NDArray[np.int64]) -> float:
    """Return the median example's diameter in pixels, the square root of its area."""
    return float(np.sqrt(float(np.median(areas))))


def _tile_side(areas: NDArray[np.int64], shown: Sequence[TrainingFrame], image_size: int) -> int:
    """Return the side in pixels of tiles that bring the median example to :data:`_DIAMETER` of the model's input."""
    zoom = _DIAMETER * image_size / _diameter_of(areas)
    height, width = shown[0].pixels.shape[:2]
    return tile_side((height, width), image_size / min(max(zoom, _ZOOM[0]), _ZOOM[1]))


def _judged(
    learned: GuidedModel,
    model: Sam2Model,
    shown: Sequence[TrainingFrame],
    looked_at: Sequence[LookedAt],
    progress: Progress,
    *,
    self_taught: bool,
) -> GuidedModel:
    """Return the model with its judges. On the maps, no example was learned from itself."""
    looks, proposed = [], []
    for frame, seen in zip(shown, looked_at, strict=True):
        # The marked masks themselves are the surest rows there are.
        marked = [*frame.positives, *frame.negatives]
        proposed.append(learned.components(seen.maps).and_once(learned.prompted(model, seen)))
        masks = [*marked, *proposed[-1].masks]
        features = describe(masks, seen.maps, learned.diameter, proposed[-1])
        looks.append(Marked(frame.positives, frame.negatives, masks, features, len(marked)))
    table = table_of(looks)
    first, _ = fit_judge(table, table.features[:, CORE_SCORE] < _BACKGROUND)

    def asked(*, of_examples: bool) -> list[Marked]:
        second_looks = []
        for frame, seen, look, among in zip(shown, looked_at, looks, proposed, strict=True):
            odds = first.log_odds(look.features)[look.drawn :]
            asked_about = to_ask_of_shown(look.masks[look.drawn :], odds, look.masks[: look.drawn])
            drawn = range(0 if of_examples else len(frame.positives), look.drawn)
            chosen = [*drawn, *(look.drawn + i for i in asked_about)]
            masks = [look.masks[i] for i in chosen]
            said = opinions_of_all(model, frame.pixels, seen.embeddings, seen.grid, masks, progress.advance)
            pool = second_pool(masks, look.features[chosen], said, seen.maps, learned.diameter, learned.areas, among)
            second_looks.append(Marked(frame.positives, frame.negatives, pool.masks, pool.features, len(drawn)))
        return second_looks

    # SAM 2 agrees with a perfect outline more than with any proposal of the same object, so the examples' own outlines
    # are asked about only where nothing else is right.
    pools = asked(of_examples=False)
    table = table_of(pools)
    if not table.right.any():
        pools = asked(of_examples=True)
        table = table_of(pools)
    second, cuts = fit_judge(table, table.features[:, CORE_SCORE] < _BACKGROUND)
    cut = choose_cut(second, cuts, pools)
    return replace(learned, first=first, second=second, cut=min(cut, HIGHEST_CUT) if self_taught else cut)


def _area_range(areas: NDArray[np.int64], limits: tuple[int, int]) -> tuple[float, float]:
    """Return the smallest and the largest area of a candidate: about those of the examples, within the user's limits.

    A limit that would exclude an example is not meant for objects like the examples, and is ignored.
    """
    smallest, largest = max(_FEWEST_PIXELS, _SMALLEST * areas.min()), _LARGEST * areas.max()
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


def deal_folds(shown: Sequence[TrainingFrame]) -> list[list[int]]:
    """Deal the wanted examples of all frames out to folds, in turn; one example alone is a fold for itself."""
    total = sum(len(frame.positives) for frame in shown)
    number, folds = 0, []
    for frame in shown:
        folds.append([(number + i) % min(_FOLDS, total) for i in range(len(frame.positives))])
        number += len(frame.positives)
    return folds


def learn_cells(
    stores: Sequence[CellStore],
    shown: Sequence[TrainingFrame],
    side: int,
    image_size: int,
    folds: Sequence[Sequence[int]],
) -> list[PixelModel]:
    """Learn a pixel model for each fold, from the examples of the other folds."""
    rng = np.random.default_rng(0)
    objects: list[NDArray[np.float32]] = []
    owners: list[NDArray[np.int64]] = []
    ground: list[NDArray[np.float32]] = []
    certain: list[NDArray[np.bool_]] = []
    for frame, frame_folds, store in zip(shown, folds, stores, strict=True):
        fold_of, share, unwanted = _cell_planes(frame, frame_folds, side, image_size)
        # An example smaller than a cell still has its nearest one.
        on_object = fold_of >= 0
        off = ~on_object & (share < 0.1) & np.isfinite(share)
        keep = rng.random(off.shape) < _MOST_CELLS / len(shown) / max(1, int(np.count_nonzero(off)))
        taken = off & (keep | unwanted)
        for tile in store:
            rows, columns, features = tile.rows, tile.columns, tile.features
            here, there = on_object[rows, columns], taken[rows, columns]
            objects.append(features[:, here].T)
            owners.append(fold_of[rows, columns][here])
            ground.append(features[:, there].T)
            certain.append(unwanted[rows, columns][there])
    cells, owner = np.concatenate(objects), np.concatenate(owners)
    background, sure = np.concatenate(ground), np.concatenate(certain)
    if not len(background):  # the examples fill their frames: what is left is the frame itself
        background, sure = cells, np.zeros(len(cells), bool)
    number = max((fold for frame_folds in folds for fold in frame_folds), default=0) + 1
    if number == 1:  # a single example is halved, so that some of its cells are unseen
        return [learn_pixels(cells, background, sure, rng.random(len(cells)) < 0.5, examples=1)]
    total = sum(map(len, folds))
    return [learn_pixels(cells, background, sure, owner == fold, total) for fold in range(number)]


def _cell_planes(
    frame: TrainingFrame, folds: Sequence[int], side: int, image_size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Return planes of a frame's cells: fold of the example they lie on (else -1), share on any, and unwanted."""
    shape = (frame.pixels.shape[0], frame.pixels.shape[1])
    empty = cells_of(np.zeros(shape, bool), side, image_size)
    total, fold_of = empty, np.full(empty.shape, -1)
    for mask, fold in zip(frame.positives, folds, strict=True):
        share = cells_of(mask.full(), side, image_size)
        inside = share > 0.6
        if not inside.any():
            inside = share >= np.nanmax(share)
        fold_of[inside] = fold
        total = total + share
    unwanted = np.zeros(empty.shape, bool)
    for mask in frame.negatives:
        share = cells_of(mask.full(), side, image_size)
        unwanted |= share >= min(0.6, float(np.nanmax(share)))
    return fold_of, total, unwanted & (fold_of < 0)


def learn_colours(shown: Sequence[TrainingFrame], diameter: float) -> tuple[NDArray[np.float64], float]:
    """Return the direction in RGB in which examples differ most from their surroundings, and the spread along it."""
    inside, around = [], []
    for frame in shown:
        smooth = ndimage.gaussian_filter(frame.pixels.astype(np.float32), (1, 1, 0))
        wanted = _union(frame.positives, frame.pixels.shape)
        inside.append(smooth[wanted])
        around.append(smooth[_ring(wanted, max(3, int(0.4 * diameter)))])
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
    spread = float(np.mean([np.std(frame.pixels @ direction) for frame in shown]))
    return direction, max(spread, 1.0)


def held_out(
    every: NDArray[np.float32], frame: TrainingFrame, folds: Sequence[int], diameter: float
) -> NDArray[np.float32]:
    """Return the averaged model's maps (4, H, W), on and around each example those of the model without it."""
    reach = int(0.5 * diameter) + 2
    planes: NDArray[np.float32] = every[0].copy()
    for mask, fold in zip(frame.positives, folds, strict=True):
        x0, y0, x1, y1 = mask.box
        place = (slice(max(0, y0 - reach), y1 + reach), slice(max(0, x0 - reach), x1 + reach))
        planes[:, *place] = every[1 + fold][:, *place]
    return planes


def learn_levels(shown: Sequence[TrainingFrame], maps: Sequence[FrameMaps], diameter: float) -> NDArray[np.float64]:
    """Return where contrast, local contrast and score are cut, (3, L), NaN where the examples do not stand out."""
    masks = [_union(frame.positives, frame.pixels.shape) for frame in shown]
    rings = [_ring(mask, max(2, int(0.2 * diameter))) for mask in masks]
    rows = []
    for name in ("contrast", "local", "score"):
        planes: list[NDArray[np.float32]] = [getattr(each, name) for each in maps]
        inside = np.concatenate([plane[mask] for plane, mask in zip(planes, masks, strict=True)])
        around = np.concatenate([plane[ring] for plane, ring in zip(planes, rings, strict=True)])
        rows.append(cut_levels(inside, around) if len(around) else np.zeros(0))
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
