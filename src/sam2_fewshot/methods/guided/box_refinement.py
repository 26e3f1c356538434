"""Box refinement: the backbone's mask of each candidate's bounding box, classified along with the candidate.

Components of maps come in nests, an object's parts within it and its unions with neighbours around it, and their
descriptors alone often do not tell which one is the object. The masks of their box prompts do: an object gives its own
mask back; of a part of an object, or of two that touch, the backbone makes something else, and is less sure of it. Both
the mask and the doubt are of use. How far they are to be trusted is learned on the examples, because backbones differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import compress
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.overlap import boxes_of, mask_iou, most_shared, sharing, union_of
from sam2_fewshot.methods.base import is_known
from sam2_fewshot.methods.guided.descriptors import describe
from sam2_fewshot.methods.guided.scaling import TIMES
from sam2_fewshot.tiling.tiles import TileGrid, holds, tile_of, whole_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.guided.descriptors import FrameMaps, Proposed
    from sam2_fewshot.protocols import Backbone, Embedding
    from sam2_fewshot.records import InstanceMask

_COARSER = (TIMES, 2 * TIMES)
"""How many times wider the tiles are in which candidates are refined that fit into none of the usual ones."""


@dataclass(frozen=True, eq=False, slots=True)
class RefinedMask:
    """The mask of a candidate's bounding box as a prompt.

    Parameters
    ----------
    mask
        In the frame; never empty.
    predicted_iou
        The backbone's own estimate of the mask's quality.
    stability
        How little the mask depends on the level at which it is thresholded.
    agreement
        IoU of the mask with the candidate.
    """

    mask: InstanceMask
    predicted_iou: float
    stability: float
    agreement: float


def refined_masks(
    backbone: Backbone,
    pixels: NDArray[np.uint8],
    embeddings: Mapping[int, Embedding],
    grid: TileGrid,
    candidates: Sequence[InstanceMask],
    on_done: Callable[[int], None] = lambda done: None,
    wider: Mapping[int, Embedding] = MappingProxyType({}),
) -> list[RefinedMask | None]:
    """Refine each candidate by a box prompt, at a lower magnification where a tile is too small for it.

    An object that is much larger than most, or lies across the border of two tiles, is whole in none of them. Tiles
    twice and four times as wide, of which only those are encoded that are needed, show it whole.

    Parameters
    ----------
    backbone, embeddings, grid, candidates, on_done
        As in :func:`refined_in_tiles`.
    pixels
        uint8 RGB (H, W, 3), the frame.
    wider
        Embeddings of tiles twice as wide that there are already, by their numbers.
    """
    found = refined_in_tiles(backbone, embeddings, grid, candidates, on_done)
    for times in _COARSER:
        left = [i for i, refined in enumerate(found) if refined is None]
        wide = TileGrid(grid.frame_shape, grid.side * times)
        windows = wide.windows()
        tiles = np.array([tile_of(wide, candidates[i]) for i in left], int)
        held = np.array([holds(windows[tile], candidates[i].box) for tile, i in zip(tiles, left, strict=True)], bool)
        needed = np.unique(tiles[held])
        if not len(needed):
            continue
        of_tiles = dict(wider) if times == TIMES else {}
        missing = [tile for tile in needed.tolist() if tile not in of_tiles]
        encoded = backbone.tiles(pixels, [windows[tile] for tile in missing])
        # Of a tile only the embedding is used; its pyramid takes more memory.
        of_tiles |= {number: tile.embedding for number, tile in zip(missing, encoded, strict=True)}
        refined = refined_in_tiles(backbone, of_tiles, wide, [candidates[i] for i in left])
        for i, mask in zip(left, refined, strict=True):
            found[i] = mask
    return found


def refined_in_tiles(
    backbone: Backbone,
    embeddings: Mapping[int, Embedding],
    grid: TileGrid,
    candidates: Sequence[InstanceMask],
    on_done: Callable[[int], None] = lambda done: None,
) -> list[RefinedMask | None]:
    """Refine candidates by box prompts in the tiles of one grid.

    Parameters
    ----------
    backbone
        Decodes the prompts.
    embeddings
        Of the grid's tiles, by their numbers, counted row by row. Of those that are left out no candidate is refined.
    grid
        Of the candidates' frame.
    candidates
        None of them empty.
    on_done
        Called with the number of candidates done.

    Returns
    -------
    list
        For each candidate, None where its box reaches beyond the tile in whose core its middle lies, where the mask
        goes on beyond that tile, and where there is no mask.
    """
    windows = grid.windows()
    found: list[RefinedMask | None] = [None] * len(candidates)
    places: dict[int, list[int]] = {}
    for i, mask in enumerate(candidates):
        tile = tile_of(grid, mask)
        if tile in embeddings and holds(windows[tile], mask.box):
            places.setdefault(tile, []).append(i)
    for tile, here in sorted(places.items()):
        x, y = windows[tile][:2]
        boxes = (boxes_of(candidates[i] for i in here) - (x, y, x, y)) * (backbone.input_size / grid.side)
        answers = backbone.prompt_boxes(embeddings[tile], boxes.astype(np.float32))
        for n, mask in whole_masks(answers, windows[tile], grid.frame_shape):
            i = here[answers.prompt[n]]
            iou, stability = float(answers.predicted_iou[n]), float(answers.stability[n])
            found[i] = RefinedMask(mask, iou, stability, mask_iou(mask, candidates[i]))
        on_done(len(here))
    return found


REFINEMENT = 4
"""Numbers that box refinement adds to a candidate's descriptors."""
PREDICTED_IOU = -REFINEMENT
"""Which feature, counted from the end, is the predicted IoU of a candidate's refined mask."""

_SAME = 0.8
"""Of candidates with a larger IoU only the best is refined."""
_PER_TILE, _LEAST, _PER_LIKELY = 16, 192, 4
"""So many candidates are refined a tile, a frame, and a likely object, whichever are most. Encoding a tile takes as
long as about 20 prompts; a grid of 64 points a side would be 4,096 prompts."""
_UNLIKELY = -3.0
"""Log-odds of the first classifier, a chance of 1 in 20, below which no candidate of a frame is refined. On thirty
tasks nothing is lost; with -2 a third of the precipitates is. Of thick flakes 178 are refined in place of 480."""
_COVERS = 1.5
"""Log-odds of the first classifier, a chance of .82, from which on a peak within a candidate is not prompted. With 0
the mean F1 of fifteen tasks is .01 lower, most of it on grey tissue; without it nothing is detected better."""
OVERLAP = 0.2
"""A candidate that shares more than this of its area with better ones is dropped."""
_HOLDS = 0.5
"""A candidate that covers more than this share of a better one is dropped as well, however large it is: it is several
objects, or ground between them."""
_KNOWN = -1
_PER_EXAMPLE, _AWAY, _ON_GROUND = 12, 100, 30
"""On training frames: candidates refined that overlap an example, for each of these; of the others; and of those that
are background for sure. Where objects are many the best of the others are all objects, and a regression that has never
seen the ground takes it for anything: with a crowded frame for examples 739 objects were found on an empty one."""
_ALIKE_AWAY = 0.6


def with_refined(
    candidates: Sequence[InstanceMask],
    descriptors: NDArray[np.float64],
    refined: Sequence[RefinedMask | None],
    maps: FrameMaps,
    diameter: float,
    areas: tuple[float, float],
    among: Proposed,
) -> tuple[list[InstanceMask], NDArray[np.float64]]:
    """Put candidates and their refined masks together, to be classified together.

    Parameters
    ----------
    candidates, descriptors, refined
        One each.
    maps, diameter, among
        As in :func:`~sam2_fewshot.methods.guided.descriptors.describe`.
    areas
        Smallest and largest area of a mask in pixels; refined masks beyond are left out.

    Returns
    -------
    masks
        Both.
    features
        float64 (N, D + 4): descriptors; predicted IoU, stability and agreement of the refined mask, NaN where there is
        none; and 1 for a refined mask, 0 for a candidate.
    """
    nothing = (np.nan,) * 3
    measured = [(each.predicted_iou, each.stability, each.agreement) if each else nothing for each in refined]
    taken = [i for i, each in enumerate(refined) if each and areas[0] <= each.mask.area <= areas[1]]
    masks = [each.mask for i in taken if (each := refined[i])]
    values = np.array(measured, np.float64).reshape(-1, REFINEMENT - 1)
    of_candidates = np.column_stack([descriptors, values, np.zeros(len(values))])
    of_masks = np.column_stack([describe(masks, maps, diameter, among), values[taken], np.ones(len(taken))])
    return [*candidates, *masks], np.concatenate([of_candidates, of_masks])


def covered(
    candidates: Sequence[InstanceMask], odds: NDArray[np.float64], frame_shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return where (H, W) a candidate lies that is most likely an object, so that no point needs to be prompted."""
    return union_of(compress(candidates, odds > _COVERS), frame_shape)


def to_refine(
    candidates: Sequence[InstanceMask], odds: NDArray[np.float64], tiles: int, share: float = 1.0
) -> list[int]:
    """Return the indices of the candidates to refine on a frame, the best first; none that are no objects for sure.

    Parameters
    ----------
    candidates, odds
        Theirs, and their log-odds by the first classifier.
    tiles
        Of the frame.
    share
        How large a part of a frame this is.
    """
    likely = sum(odds[i] > 0 for i in non_overlapping(candidates, odds))
    most = max(math.ceil(share * _LEAST), _PER_TILE * tiles, _PER_LIKELY * likely)
    order = np.argsort(-odds, kind="stable")
    return _distinct(candidates, order[odds[order] > _UNLIKELY], _SAME, most)


def to_refine_in_training(
    candidates: Sequence[InstanceMask],
    odds: NDArray[np.float64],
    marked: Sequence[InstanceMask],
    share: float = 1.0,
    ground: NDArray[np.bool_] | None = None,
) -> list[int]:
    """Return the indices of the candidates to refine on a training frame.

    Parameters
    ----------
    candidates, odds
        Theirs, and their log-odds by the first classifier.
    marked
        The examples, wanted or not.
    share
        How large a part of a training frame this is.
    ground
        Boolean (N,): candidates that are background for sure, if they lie away from the examples; None where that is
        not known of any.
    """
    about: list[list[int]] = [[] for _ in marked]
    away: list[int] = []
    owner = most_shared(candidates, marked)
    for i in np.argsort(-odds, kind="stable").tolist():
        (about[owner[i]] if owner[i] >= 0 else away).append(i)
    chosen = [i for group in about for i in _distinct(candidates, group, _SAME, _PER_EXAMPLE)]
    best = _distinct(candidates, away, _ALIKE_AWAY, math.ceil(share * _AWAY))
    on_ground = [] if ground is None else [i for i in away if ground[i]]
    surely_wrong = _distinct(candidates, on_ground, _ALIKE_AWAY, math.ceil(share * _ON_GROUND))
    return [*chosen, *best, *(i for i in surely_wrong if i not in best)]


def _distinct(
    candidates: Sequence[InstanceMask], order: Sequence[int] | NDArray[np.intp], same: float, most: int
) -> list[int]:
    """Go through candidates in an order and leave out those that are like an earlier one."""
    chosen: list[int] = []
    boxes = np.empty((most, 4), np.int64)
    for i in order:
        if len(chosen) == most:
            break
        box = candidates[i].box
        near = np.flatnonzero(sharing(boxes[: len(chosen)], box))
        if any(mask_iou(candidates[i], candidates[chosen[n]]) > same for n in near):
            continue
        boxes[len(chosen)] = box
        chosen.append(int(i))
    return chosen


def non_overlapping(
    candidates: Sequence[InstanceMask], odds: NDArray[np.float64], known: Sequence[InstanceMask] = ()
) -> list[int]:
    """Return the indices of candidates that hardly overlap one another or the known objects, the best first.

    Of two that lie in one another only the better one is among them.
    """
    if not candidates:
        return []
    owner = np.zeros(candidates[0].frame_shape, np.int32)
    for mask in known:
        mask.under(owner)[mask.data] = _KNOWN
    chosen: list[int] = []
    for i in np.argsort(-odds, kind="stable").tolist():
        mask = candidates[i]
        here = mask.under(owner)
        under = here[mask.data]
        shared = under[under != 0]
        if len(shared) > OVERLAP * mask.area or is_known(mask, known):
            continue
        better, counts = np.unique(shared[shared != _KNOWN], return_counts=True)
        if any(count > _HOLDS * candidates[n - 1].area for n, count in zip(better.tolist(), counts, strict=True)):
            continue
        here[mask.data] = i + 1
        chosen.append(i)
    return chosen
