"""Learning the guided method from examples."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.overlap import most_shared
from sam2_fewshot.methods.guided.appearance import measure, prominence_of
from sam2_fewshot.methods.guided.box_refinement import (
    refined_masks,
    to_refine_in_training,
    with_refined,
)
from sam2_fewshot.methods.guided.classifier import (
    EVEN_CHANCES,
    TrainingCandidates,
    best_threshold,
    fit_classifier,
    table_of,
)
from sam2_fewshot.methods.guided.descriptors import CORE_SCORE, FrameMaps, describe
from sam2_fewshot.methods.guided.erosion import depth_of, eroded, restored
from sam2_fewshot.methods.guided.expectation import evidence_of, look_alikes
from sam2_fewshot.methods.guided.kinds import compared, divides, in_words, less_for_kind, of_another_kind
from sam2_fewshot.methods.guided.limits import limited, warn_of_limits
from sam2_fewshot.methods.guided.logistic import Logistic
from sam2_fewshot.methods.guided.magnifications import FEWEST_PIXELS
from sam2_fewshot.methods.guided.map_learning import deal_folds, held_out, learn_cells, learn_colours, learn_levels
from sam2_fewshot.methods.guided.maps import CellStore, Room, averaged, dense_maps
from sam2_fewshot.methods.guided.model import EncodedFrame, GuidedModel
from sam2_fewshot.methods.guided.other_sizes import for_other_sizes
from sam2_fewshot.methods.guided.self_training import FEW, ROUNDS, lowered_threshold, what_few_means, with_surest
from sam2_fewshot.methods.guided.training_windows import training_windows
from sam2_fewshot.settings import SIMILAR_AREAS
from sam2_fewshot.tiling.tiles import TileGrid, tile_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import TrainingFrame
    from sam2_fewshot.methods.guided.descriptors import Proposed
    from sam2_fewshot.protocols import Backbone, Progress

_DIAMETER = 1 / 13
"""An object's diameter in the backbone's input, as a share of its side: 40 px of 512, 80 of 1024. micro-sam's FAQ
advises 64 to 128 px of 1024."""
_ZOOM = (0.25, 4.0)
_LONGEST = 3.0
"""Detections may be this much longer than the longest example: walls between objects are far longer, and no larger."""
_BACKGROUND = 0.5
"""A candidate whose mean score is below this lies on background."""
_ENOUGH, _BETTER = 0.7, 0.12
"""Mean IoU of the left-out examples with what is detected of them, below which their cores are tried, and by how much
it has to be higher then. In four of six pictures of bacteria and one of plant cells it rises by .14 to .5, and the F1
by .3 to .8; of 42 runs on other images by .1 at most, where purple stain loses .03 and precipitates .4."""
_UNTRAINED = Logistic(np.zeros(0), np.zeros(0), np.zeros(0), 0.0)


def learn_guided(
    backbone: Backbone,
    frames: Sequence[TrainingFrame],
    area_limits: tuple[int, int],
    progress: Progress,
    room: int,
    most_tiles: int,
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
    most_tiles
        So many are learned from, or as many more as the examples take.
    """
    areas = _areas_of(frames)
    warn_of_limits(_extent(areas), area_limits, progress)
    least, most = _area_range(areas)
    if least > most:
        progress.warn(
            f"The largest example has {areas.max()} px, but what has fewer than {FEWEST_PIXELS} px has no shape to be "
            "known by, so nothing like the examples is found. Enlarge the images, for instance three times each way, "
            "and mark the objects there."
        )
    side = _tile_side(areas, frames, backbone.input_size)
    frames = training_windows(frames, side, most_tiles)
    shared = Room(room)
    stores = [CellStore(backbone, frame.pixels, side, shared, progress.advance) for frame in frames]
    is_last = len(areas) >= FEW
    withheld = _Withheld(progress)
    learned = learn_once(backbone, frames, area_limits, stores, withheld, is_last=is_last)
    depth = depth_of([mask for frame in frames for mask in frame.positives])
    if depth and learned.agreement < _ENOUGH and len(areas) > 1:  # of a single example nothing can be left out
        of_cores_withheld = _Withheld(progress)
        of_cores = learn_once(backbone, frames, area_limits, stores, of_cores_withheld, depth, is_last=is_last)
        if of_cores.agreement > learned.agreement + _BETTER:
            learned, withheld = of_cores, of_cores_withheld
    withheld.pass_on()
    if is_last:
        if (sentence := look_alikes(learned.evidence, learned.places)) is not None:
            progress.warn(sentence)
        return replace(learned, areas=_area_range(_areas_of(_eroded(frames, learned.erosion))))
    extended = frames
    for total, least in ROUNDS:
        cores = _eroded(frames, learned.erosion)
        surest = with_surest(learned, backbone, cores, stores, total - len(areas), least, progress)
        extended = [_with_adopted(*pair, learned.erosion) for pair in zip(frames, surest, strict=True)]
        is_last = total == ROUNDS[-1][0]
        learned = learn_once(backbone, extended, area_limits, stores, progress, learned.erosion, is_last=is_last)
    areas_of_all = _areas_of(_eroded(extended, learned.erosion))
    progress.warn(what_few_means(len(areas), len(areas_of_all) - len(areas)))
    return replace(learned, areas=_area_range(areas_of_all))


def _eroded(frames: Sequence[TrainingFrame], depth: float) -> Sequence[TrainingFrame]:
    """Return frames with the cores of what is marked on them."""
    if depth <= 0:
        return frames
    return [
        replace(
            frame,
            positives=[eroded(mask, depth) for mask in frame.positives],
            negatives=[eroded(mask, depth) for mask in frame.negatives],
            others=[eroded(mask, depth) for mask in frame.others],
        )
        for frame in frames
    ]


def _with_adopted(frame: TrainingFrame, cores: TrainingFrame, depth: float) -> TrainingFrame:
    """Return a frame with the whole objects whose cores were adopted on it."""
    adopted = cores.positives[len(cores.positives) - cores.adopted :]
    marked = [*frame.positives, *frame.negatives, *frame.others]
    return replace(frame, positives=[*frame.positives, *restored(adopted, depth, marked)], adopted=cores.adopted)


class _Withheld:
    """A listener that passes on what it hears, but for the warnings: these are passed on if they are to be.

    Parameters
    ----------
    progress
        Hears the rest.
    """

    def __init__(self, progress: Progress) -> None:
        self.start, self.advance, self._progress = progress.start, progress.advance, progress
        self._sentences: list[str] = []

    def warn(self, sentence: str) -> None:
        """Keep a warning."""
        self._sentences.append(sentence)

    def pass_on(self) -> None:
        """Warn of what was kept."""
        for sentence in self._sentences:
            self._progress.warn(sentence)


def learn_once(
    backbone: Backbone,
    frames: Sequence[TrainingFrame],
    area_limits: tuple[int, int],
    stores: Sequence[CellStore],
    progress: Progress,
    erosion: float = 0.0,
    *,
    is_last: bool = False,
) -> GuidedModel:
    """Learn from examples once, for the last time with `is_last`.

    Parameters
    ----------
    backbone, frames, area_limits, progress
        As in :func:`learn_guided`; the model's areas are within the limits.
    stores
        The frames' tiles.
    erosion
        By how many pixels the marks are eroded before they are learned from.
    is_last
        Whether nothing is learned after it.
    """
    progress.start("learning")
    whole, frames = frames, _eroded(frames, erosion)
    areas, side = _areas_of(frames), stores[0].side
    diameter = _diameter_of(areas)
    folds = deal_folds(frames)
    pixel_models = learn_cells(backbone, stores, frames, folds)
    cells = averaged(pixel_models)
    colours, unit = learn_colours(frames, diameter)
    encoded = []
    for frame, frame_folds, store in zip(frames, folds, stores, strict=True):
        every, embeddings = dense_maps(store, frame.shape, side, backbone, [cells, *pixel_models])
        seen = measure(frame.pixels, colours, unit, diameter)
        maps = FrameMaps.of(seen, held_out(every, frame, frame_folds, diameter))
        encoded.append(EncodedFrame(TileGrid(frame.shape, side), embeddings, maps))
    local = [frame.maps.local for frame in encoded]
    learned = GuidedModel(
        side=side,
        diameter=diameter,
        areas=_area_range(areas),
        examples=_extent(np.array([mask.area for frame in whole for mask in frame.marked])),
        colours=colours,
        unit=unit,
        levels=learn_levels(frames, [frame.maps for frame in encoded], diameter),
        cells=cells,
        first=_UNTRAINED,
        second=_UNTRAINED,
        threshold=0.0,
        erosion=erosion,
        prominence=prominence_of(local, [frame.marked for frame in frames], diameter),
        longest=_LONGEST * max(math.hypot(*mask.data.shape) for frame in frames for mask in frame.positives),
    )
    learned = limited(learned, area_limits)
    parts = Counter(frame.number for frame in frames)
    training = [
        _proposed_on(learned, backbone, frame, seen, 1 / parts[frame.number])
        for frame, seen in zip(frames, encoded, strict=True)
    ]
    table = table_of([each.rows for each in training])
    first, _ = fit_classifier(table, _on_background(table.features))
    learned = replace(learned, first=first)
    return _with_second(learned, backbone, training, whole, area_limits, progress, is_last=is_last)


def _areas_of(frames: Sequence[TrainingFrame]) -> NDArray[np.int64]:
    return np.array([mask.area for frame in frames for mask in frame.positives], np.int64)


def _extent(areas: NDArray[np.int64]) -> tuple[float, float]:
    """Return the areas of the smallest and of the largest example."""
    return float(areas.min()), float(areas.max())


def _diameter_of(areas: NDArray[np.int64]) -> float:
    """Return the median example's diameter in pixels, the square root of its area."""
    return float(np.sqrt(float(np.median(areas))))


def _tile_side(areas: NDArray[np.int64], frames: Sequence[TrainingFrame], input_size: int) -> int:
    """Return the side in pixels of tiles that bring the median example to :data:`_DIAMETER` of the backbone's input."""
    zoom = _DIAMETER * input_size / _diameter_of(areas)
    return tile_side(frames[0].shape, input_size / min(max(zoom, _ZOOM[0]), _ZOOM[1]))


@dataclass(frozen=True, eq=False)
class _Training:
    """A frame that is learned from.

    Parameters
    ----------
    frame, seen
        The frame, and what was made of it; on its maps, no example was learned from itself.
    share
        How large a part of a frame it is.
    proposed
        The candidates on it.
    rows
        What the user marked, and the candidates, with their descriptors.
    """

    frame: TrainingFrame
    seen: EncodedFrame
    share: float
    proposed: Proposed
    rows: TrainingCandidates


def _proposed_on(
    learned: GuidedModel, backbone: Backbone, frame: TrainingFrame, seen: EncodedFrame, share: float
) -> _Training:
    """Propose candidates on a frame that is learned from."""
    proposed = learned.components(seen).and_once(learned.prompted(backbone, seen, share=share))
    marked = [*frame.positives, *frame.negatives]
    if frame.others:
        # Of what is about them it is known that it is marked, and nothing more.
        proposed = proposed.chosen(most_shared(proposed.masks, [*marked, *frame.others]) < len(marked))
    # The marked masks themselves are the surest rows there are.
    masks = [*marked, *proposed.masks]
    features = describe(masks, seen.maps, learned.diameter, proposed)
    rows = TrainingCandidates(frame.positives, frame.negatives, masks, features, len(marked))
    return _Training(frame, seen, share, proposed, rows)


def _refined_on(
    learned: GuidedModel, backbone: Backbone, training: _Training, progress: Progress, *, with_examples: bool
) -> TrainingCandidates:
    """Refine candidates on a frame, and what the user drew; return all of these as rows."""
    frame, seen, before = training.frame, training.seen, training.rows
    proposed = before.features[before.drawn :]
    likely = to_refine_in_training(
        before.masks[before.drawn :],
        learned.first.log_odds(proposed),
        before.masks[: before.drawn],
        training.share,
        _on_background(proposed),
    )
    drawn = range(0 if with_examples else len(frame.positives), before.drawn)
    chosen = [*drawn, *(before.drawn + i for i in likely)]
    masks, features = [before.masks[i] for i in chosen], before.features[chosen]
    made = refined_masks(backbone, frame.pixels, seen.embeddings, seen.grid, masks, progress.advance)
    both = with_refined(masks, features, made, seen.maps, learned.diameter, learned.areas, training.proposed)
    return TrainingCandidates(frame.positives, frame.negatives, *both, len(drawn))


def _with_second(
    learned: GuidedModel,
    backbone: Backbone,
    training: Sequence[_Training],
    whole: Sequence[TrainingFrame],
    area_limits: tuple[int, int],
    progress: Progress,
    *,
    is_last: bool,
) -> GuidedModel:
    """Return the model with its second classifier, the threshold, and all that is told by them.

    `whole` are the frames with the marks as they were before they were eroded.
    """
    frames = [each.frame for each in training]
    # A backbone agrees with a perfect outline more than with any proposal of the same object, so the examples' own
    # outlines are refined only where nothing else is right.
    for with_examples in (False, True):
        rows = [_refined_on(learned, backbone, each, progress, with_examples=with_examples) for each in training]
        table = table_of(rows)
        if table.right.any():
            break
    background = _on_background(table.features)
    # What is of another kind shows where it is still detected: before anything was learned against it.
    second, between = fit_classifier(table.as_if_unmarked(), background)
    examples, others, unwanted = compared(table, rows, between.unseen)
    kinds = divides(examples, others, unwanted)
    # Of a negative example that nothing was proposed for, it is not known whether it lies beyond a gap.
    negatives = sum(len(frame.negatives) for frame in frames)
    if of_another_kind(unwanted, kinds).sum() < negatives:
        # What lies beyond a gap need not be learned from, which would take from what is near the gap.
        beyond = of_another_kind(table.features, kinds)
        second, between = fit_classifier(table.without(table.unwanted & beyond), background)
    less = less_for_kind(table.features, kinds)
    between = between._replace(unseen=between.unseen - less)
    odds = _by_frame(second.log_odds(table.features) - less, rows)
    threshold = best_threshold(between, rows, odds, math.inf if negatives or kinds else EVEN_CHANCES)
    marked = sum(len(frame.marked) for frame in frames)
    if is_last and marked < FEW:
        threshold = lowered_threshold(threshold, marked, is_divided=bool(negatives or kinds))
    learned = replace(learned, second=second, threshold=threshold, kinds=kinds)
    if is_last:
        if (sentence := in_words(others, kinds)) is not None:
            progress.warn(sentence)
        learned = for_other_sizes(learned, backbone, frames, table, between, area_limits, progress)
    unseen = _by_frame(between.unseen, rows)
    evidence, places, agreement = evidence_of(whole, rows, unseen, learned.threshold, learned.erosion)
    return replace(learned, evidence=evidence, places=places, agreement=agreement)


def _on_background(features: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows of descriptors (N, D) lie on background for sure, if away from the examples; boolean (N,)."""
    on_background: NDArray[np.bool_] = features[:, CORE_SCORE] < _BACKGROUND
    return on_background


def _by_frame(values: NDArray[np.float64], frames: Sequence[TrainingCandidates]) -> list[NDArray[np.float64]]:
    """Part values of all candidates into those of each frame."""
    return np.split(values, np.cumsum([len(frame.masks) for frame in frames])[:-1])


def _area_range(areas: NDArray[np.int64]) -> tuple[float, float]:
    """Return the smallest and the largest area of a candidate: about those of the examples."""
    return float(max(FEWEST_PIXELS, SIMILAR_AREAS[0] * areas.min())), float(SIMILAR_AREAS[1] * areas.max())
