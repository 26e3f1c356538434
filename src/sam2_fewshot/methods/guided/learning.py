"""Learning the guided method from examples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.tiles import TileGrid, tile_side
from sam2_fewshot.methods.guided.judging import Marked, choose_cut, fit_judge, table_of
from sam2_fewshot.methods.guided.learning_maps import deal_folds, held_out, learn_cells, learn_colours, learn_levels
from sam2_fewshot.methods.guided.model import GuidedModel, LookedAt, measure
from sam2_fewshot.methods.guided.second_look import second_pool, to_ask_of_shown
from sam2_fewshot.methods.guided.self_training import FEW, HIGHEST_CUT, ROUNDS, Encoded, what_few_means, with_surest
from sam2_fewshot.proposals.boxes import opinions_of_all
from sam2_fewshot.proposals.dense_map import averaged, dense_maps
from sam2_fewshot.similarity.descriptors import CORE_SCORE, DESCRIPTORS, describe
from sam2_fewshot.similarity.logistic import Logistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.common import Shown
    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.protocols import Progress

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
    model: Sam2Model, shown: Sequence[Shown], area_limits: tuple[int, int], progress: Progress
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
    shown: Sequence[Shown],
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


def _areas_of(shown: Sequence[Shown]) -> NDArray[np.int64]:
    return np.array([mask.area for frame in shown for mask in frame.wanted], np.int64)


def _diameter_of(areas: NDArray[np.int64]) -> float:
    """Return the median example's diameter in pixels, the square root of its area."""
    return float(np.sqrt(float(np.median(areas))))


def _tile_side(areas: NDArray[np.int64], shown: Sequence[Shown], image_size: int) -> int:
    """Return the side in pixels of tiles that bring the median example to :data:`_DIAMETER` of the model's input."""
    zoom = _DIAMETER * image_size / _diameter_of(areas)
    height, width = shown[0].pixels.shape[:2]
    return tile_side((height, width), image_size / min(max(zoom, _ZOOM[0]), _ZOOM[1]))


def _judged(
    learned: GuidedModel,
    model: Sam2Model,
    shown: Sequence[Shown],
    looked_at: Sequence[LookedAt],
    progress: Progress,
    *,
    self_taught: bool,
) -> GuidedModel:
    """Return the model with its judges. On the maps, no example was learned from itself."""
    looks, proposed = [], []
    for frame, seen in zip(shown, looked_at, strict=True):
        # The marked masks themselves are the surest rows there are.
        marked = [*frame.wanted, *frame.unwanted]
        proposed.append(learned.components(seen.maps).and_once(learned.prompted(model, seen)))
        masks = [*marked, *proposed[-1].masks]
        features = describe(masks, seen.maps, learned.diameter, proposed[-1])
        looks.append(Marked(frame.wanted, frame.unwanted, masks, features, len(marked)))
    table = table_of(looks)
    first, _ = fit_judge(table, table.features[:, CORE_SCORE] < _BACKGROUND)

    def asked(*, of_examples: bool) -> list[Marked]:
        second_looks = []
        for frame, seen, look, among in zip(shown, looked_at, looks, proposed, strict=True):
            odds = first.log_odds(look.features)[look.drawn :]
            asked_about = to_ask_of_shown(look.masks[look.drawn :], odds, look.masks[: look.drawn])
            drawn = range(0 if of_examples else len(frame.wanted), look.drawn)
            chosen = [*drawn, *(look.drawn + i for i in asked_about)]
            masks = [look.masks[i] for i in chosen]
            said = opinions_of_all(model, frame.pixels, seen.embeddings, seen.grid, masks, progress.advance)
            pool = second_pool(masks, look.features[chosen], said, seen.maps, learned.diameter, learned.areas, among)
            second_looks.append(Marked(frame.wanted, frame.unwanted, pool.masks, pool.features, len(drawn)))
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
