"""Learning from examples the maps on which candidates are found: of the features of cells, and of the colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sam2_fewshot.proposals.components import cut_levels
from sam2_fewshot.proposals.dense_map import PixelModel, cells_of, learn_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.common import Shown
    from sam2_fewshot.proposals.dense_map import CellStore
    from sam2_fewshot.records import InstanceMask
    from sam2_fewshot.similarity.descriptors import FrameMaps

_FOLDS = 3
_MOST_CELLS = 20_000


def deal_folds(shown: Sequence[Shown]) -> list[list[int]]:
    """Deal the wanted examples of all frames out to folds, in turn; one example alone is a fold for itself."""
    total = sum(len(frame.wanted) for frame in shown)
    number, folds = 0, []
    for frame in shown:
        folds.append([(number + i) % min(_FOLDS, total) for i in range(len(frame.wanted))])
        number += len(frame.wanted)
    return folds


def learn_cells(
    stores: Sequence[CellStore], shown: Sequence[Shown], side: int, image_size: int, folds: Sequence[Sequence[int]]
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
    frame: Shown, folds: Sequence[int], side: int, image_size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Return planes of a frame's cells: fold of the example they lie on (else -1), share on any, and unwanted."""
    shape = (frame.pixels.shape[0], frame.pixels.shape[1])
    empty = cells_of(np.zeros(shape, bool), side, image_size)
    total, fold_of = empty, np.full(empty.shape, -1)
    for mask, fold in zip(frame.wanted, folds, strict=True):
        share = cells_of(mask.full(), side, image_size)
        inside = share > 0.6
        if not inside.any():
            inside = share >= np.nanmax(share)
        fold_of[inside] = fold
        total = total + share
    unwanted = np.zeros(empty.shape, bool)
    for mask in frame.unwanted:
        share = cells_of(mask.full(), side, image_size)
        unwanted |= share >= min(0.6, float(np.nanmax(share)))
    return fold_of, total, unwanted & (fold_of < 0)


def learn_colours(shown: Sequence[Shown], diameter: float) -> tuple[NDArray[np.float64], float]:
    """Return the direction in RGB in which examples differ most from their surroundings, and the spread along it."""
    inside, around = [], []
    for frame in shown:
        smooth = ndimage.gaussian_filter(frame.pixels.astype(np.float32), (1, 1, 0))
        wanted = _union(frame.wanted, frame.pixels.shape)
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


def held_out(every: NDArray[np.float32], frame: Shown, folds: Sequence[int], diameter: float) -> NDArray[np.float32]:
    """Return the averaged model's maps (4, H, W), on and around each example those of the model without it."""
    reach = int(0.5 * diameter) + 2
    planes: NDArray[np.float32] = every[0].copy()
    for mask, fold in zip(frame.wanted, folds, strict=True):
        x0, y0, x1, y1 = mask.box
        place = (slice(max(0, y0 - reach), y1 + reach), slice(max(0, x0 - reach), x1 + reach))
        planes[:, *place] = every[1 + fold][:, *place]
    return planes


def learn_levels(shown: Sequence[Shown], maps: Sequence[FrameMaps], diameter: float) -> NDArray[np.float64]:
    """Return where contrast, local contrast and score are cut, (3, L), NaN where the examples do not stand out."""
    masks = [_union(frame.wanted, frame.pixels.shape) for frame in shown]
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
