"""Learning what the maps are made with: the pixel models, the colours, and the levels of the thresholds.

No example is to be measured on maps that were learned from it. So the pixel models are learned in folds, each without
some of the examples, and on and around an example the maps are those of the model without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sam2_fewshot.geometry.overlap import union_of
from sam2_fewshot.methods.guided.maps import Background, PixelModel, cells_of, cells_per_tile, learn_pixels
from sam2_fewshot.methods.guided.proposals import threshold_levels
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import TrainingFrame
    from sam2_fewshot.methods.guided.descriptors import FrameMaps
    from sam2_fewshot.methods.guided.maps import CellStore
    from sam2_fewshot.protocols import Backbone

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
    folds: Sequence[Sequence[int]],
) -> list[PixelModel]:
    """Learn a pixel model for each fold, from the examples of the other folds."""
    rng = np.random.default_rng(0)
    objects: list[NDArray[np.float32]] = []
    owners: list[NDArray[np.int64]] = []
    ground: list[NDArray[np.float32]] = []
    certain: list[NDArray[np.bool_]] = []
    for frame, frame_folds, store in zip(frames, folds, stores, strict=True):
        fold_of, share, negative = _cell_planes(frame, frame_folds, store.side, cells_per_tile(backbone))
        # An example smaller than a cell still has its nearest one.
        on_object = fold_of >= 0
        off = ~on_object & (share < 0.1) & np.isfinite(share)
        keep = rng.random(off.shape) < _MOST_CELLS / len(frames) / max(1, int(np.count_nonzero(off)))
        taken = off & (keep | negative)
        for tile in store:
            here, there = (plane[tile.rows, tile.columns] for plane in (on_object, taken))
            features = tile.features(here | there)
            is_object = here[here | there]
            objects.append(features[is_object])
            owners.append(fold_of[tile.rows, tile.columns][here])
            ground.append(features[~is_object])
            certain.append(negative[tile.rows, tile.columns][there])
    cells, owner = np.concatenate(objects), np.concatenate(owners)
    features, sure = np.concatenate(ground), np.concatenate(certain)
    if not len(features):  # the examples fill their frames: what is left is the frame itself
        features, sure = cells, np.zeros(len(cells), bool)
    background = Background(features)
    number = max(fold for frame_folds in folds for fold in frame_folds) + 1
    if number == 1:  # a single example is halved, so that some of its cells are unseen
        return [learn_pixels(cells, background, sure, rng.random(len(cells)) < 0.5, backbone.channels, examples=1)]
    total = sum(map(len, folds))
    return [learn_pixels(cells, background, sure, owner == fold, backbone.channels, total) for fold in range(number)]


def _cell_planes(
    frame: TrainingFrame, folds: Sequence[int], side: int, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Return planes of a frame's cells: fold of the example they lie on (else -1), share on a mark, and negative."""
    empty = cells_of(InstanceMask(np.zeros((1, 1), bool), 0, 0, frame.shape), side, cells)
    total, fold_of = empty, np.full(empty.shape, -1)
    for mask, fold in zip(frame.positives, folds, strict=True):
        share = cells_of(mask, side, cells)
        inside = share > 0.6
        if not inside.any():
            inside = share >= np.nanmax(share)
        fold_of[inside] = fold
        total = total + share
    if frame.others:
        total = total + cells_of(InstanceMask(union_of(frame.others, frame.shape), 0, 0, frame.shape), side, cells)
    negative = np.zeros(empty.shape, bool)
    for mask in frame.negatives:
        share = cells_of(mask, side, cells)
        negative |= share >= min(0.6, float(np.nanmax(share)))
    return fold_of, total, negative & (fold_of < 0)


def learn_colours(frames: Sequence[TrainingFrame], diameter: float) -> tuple[NDArray[np.float64], float]:
    """Return the direction in RGB in which examples differ most from their surroundings, and the spread along it."""
    inside, around = [], []
    for frame in frames:
        smooth = ndimage.gaussian_filter(frame.pixels.astype(np.float32), (1, 1, 0))
        positive = union_of(frame.positives, frame.shape)
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
    # Last, since an example may lie around another one.
    for mask, fold in zip(frame.positives, folds, strict=True):
        x0, y0, x1, y1 = mask.box
        planes[:, y0:y1, x0:x1][:, mask.data] = every[1 + fold][:, y0:y1, x0:x1][:, mask.data]
    return planes


def learn_levels(frames: Sequence[TrainingFrame], maps: Sequence[FrameMaps], diameter: float) -> NDArray[np.float64]:
    """Return the levels (3, T) at which contrast, local contrast and score are thresholded.

    They are NaN where the examples do not stand out.
    """
    masks = [union_of(frame.positives, frame.shape) for frame in frames]
    rings = [_ring(mask, max(2, int(0.2 * diameter))) for mask in masks]
    rows = []
    for name in ("contrast", "local", "score"):
        planes: list[NDArray[np.float32]] = [getattr(each, name) for each in maps]
        inside = np.concatenate([plane[mask] for plane, mask in zip(planes, masks, strict=True)])
        around = np.concatenate([plane[ring] for plane, ring in zip(planes, rings, strict=True)])
        rows.append(threshold_levels(inside, around) if len(around) else np.zeros(0))
    width = max(map(len, rows))
    return np.array([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows])


def _ring(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    ring: NDArray[np.bool_] = ndimage.binary_dilation(mask, iterations=width) & ~mask
    return ring
