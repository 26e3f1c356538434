"""Maps of how much each place looks like the examples, from SAM 2's feature maps.

A linear discriminant (Fisher 1936; shrinkage as in Friedman 1989) is learned from the cells of the feature maps that
lie on the examples against those that lie on evident background, and the cosine of each cell's features to the
examples' mean is taken at every level. Both are linear or nearly so, and cheap: no prompt is decoded.

The frame holds more of the wanted objects than were marked, so "not marked" is not "background": cells that look like
the examples are taken out of the background and the discriminant is learned again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import ndimage

from sam2_fewshot.geometry.tiles import PARTS, TileGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.model.outputs import Embedding

LEVELS = 3
"""Fine, middle and coarse: the levels of SAM 2's feature pyramid."""
MAPS = 1 + LEVELS
"""The discriminant, and the cosine at each level."""

_SHRINKAGE = 0.05
"""Share of the mean variance that is added to each variance with ten examples or more; of .02 to .3, the value made no
difference then."""
_ROUNDS = 2
_LOOKS_LIKE = 20
"""Background cells above this percentile of the examples' scores are taken out of the background."""


@dataclass(frozen=True, eq=False)
class PixelModel:
    """What was learned of single cells.

    Parameters
    ----------
    mean, scale
        float32 (D,): features are centred and divided by these.
    weights, bias
        float32 (D,) and a number: the discriminant of the scaled features, about 0 on background and 1 on examples.
    centres, directions
        float32 (D,): mean over the frame, and the examples' mean direction from it, of length 1 at each level.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: float
    centres: NDArray[np.float32]
    directions: NDArray[np.float32]

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the maps (4, h, w) of features (D, h, w): discriminant and the cosines, fine to coarse."""
        height, width = features.shape[1:]
        flat = features.reshape(len(features), -1)
        score = (self.weights / self.scale) @ (flat - self.mean[:, None]) + self.bias
        maps = [score]
        for level in np.split(np.arange(len(flat)), LEVELS):
            centred = flat[level] - self.centres[level, None]
            length = np.maximum(np.linalg.norm(centred, axis=0), 1e-6)
            maps.append(self.directions[level] @ centred / length)
        return np.stack(maps).reshape(MAPS, height, width).astype(np.float32)


def learn_pixels(
    objects: NDArray[np.float32],
    background: NDArray[np.float32],
    certain: NDArray[np.bool_],
    left_out: NDArray[np.bool_],
    examples: int = 10,
) -> PixelModel:
    """Learn a pixel model.

    Parameters
    ----------
    objects
        float32 (n, D), features of cells on the examples, n ≥ 1.
    background
        float32 (m, D), features of cells off the examples, some of which lie on objects like them; m ≥ 1.
    certain
        Boolean (m,): cells of `background` that are known not to be wanted, and stay in it.
    left_out
        Boolean (n,): cells of `objects` not to learn from; what is taken out of the background is measured by them.
        All of them is taken as none.
    examples
        On how many examples the cells lie. The cells of a few examples are alike and easily learned by heart, so the
        fewer there are, the more the discriminant is smoothed.
    """
    shown = objects if left_out.all() else objects[~left_out]
    mean, scale = background.mean(0), background.std(0) + 1e-3
    used, ground = (shown - mean) / scale, (background - mean) / scale
    unseen = used[:0] if left_out.all() else (objects[left_out] - mean) / scale
    shrinkage = _SHRINKAGE * max(1.0, (10 / examples) ** 2)
    kept = np.ones(len(ground), bool)
    for round_ in range(_ROUNDS + 1):
        weights = _discriminant(used, ground[kept], shrinkage)
        if round_ < _ROUNDS:
            below = certain | (ground @ weights < _looks_like(unseen, used, ground, weights))
            if below.sum() >= min(50, len(ground)):
                kept = below
    low, high = np.median(ground[kept] @ weights), np.median(used @ weights)
    span = max(float(high - low), 1e-6)
    toward = shown.mean(0) - mean
    directions = np.concatenate([part / max(float(np.linalg.norm(part)), 1e-6) for part in np.split(toward, LEVELS)])
    return PixelModel(mean, scale, (weights / span).astype(np.float32), -float(low) / span, mean, directions)


def averaged(models: Sequence[PixelModel]) -> PixelModel:
    """Return the mean of pixel models that were learned on the same background."""
    return PixelModel(
        models[0].mean,
        models[0].scale,
        np.mean([model.weights for model in models], axis=0),
        float(np.mean([model.bias for model in models])),
        models[0].centres,
        np.mean([model.directions for model in models], axis=0),
    )


class TileCells(NamedTuple):
    """What the encoder makes of one tile of a frame.

    Parameters
    ----------
    rows, columns
        Where the tile's cells lie among all cells of the frame.
    features
        float32 (D, r, c) of these cells, the halo cut off.
    embedding
        Of the tile, for prompts.
    """

    rows: slice
    columns: slice
    features: NDArray[np.float32]
    embedding: Embedding


def tile_cells(
    model: Sam2Model,
    pixels: NDArray[np.uint8],
    side: int,
    on_tile: Callable[[int], None] = lambda done: None,
    first: int = 0,
) -> Iterator[TileCells]:
    """Encode a frame tile by tile, row by row.

    Parameters
    ----------
    model
        Encodes the tiles.
    pixels
        uint8 RGB (H, W, 3).
    side
        Side of a tile in pixels; it sets the magnification.
    on_tile
        Is told the number of tiles done.
    first
        Number of the tile to begin with.
    """
    grid = TileGrid((pixels.shape[0], pixels.shape[1]), side)
    per_tile = model.image_size // 4
    halo = per_tile // PARTS
    core = per_tile - 2 * halo
    for number, tile in enumerate(model.tiles(pixels, grid.windows()[first:], on_tile), first):
        row, column = divmod(number, grid.counts[1])
        rows, columns = slice(row * core, (row + 1) * core), slice(column * core, (column + 1) * core)
        yield TileCells(rows, columns, tile.features[:, halo:-halo, halo:-halo], tile.embedding)


class CellStore:
    """A frame's tiles that are gone through more than once, but encoded once as far as the memory goes.

    Parameters
    ----------
    model, pixels, side, on_tile
        As in :func:`tile_cells`.
    room
        Bytes that the features kept may take. The tiles beyond are encoded each time.
    """

    def __init__(
        self,
        model: Sam2Model,
        pixels: NDArray[np.uint8],
        side: int,
        room: int,
        on_tile: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._model, self._pixels, self._side, self._on_tile = model, pixels, side, on_tile
        self._kept: list[tuple[slice, slice, NDArray[np.float16], Embedding]] = []
        self.room = room

    def __iter__(self) -> Iterator[TileCells]:
        """Go through the tiles row by row."""
        for rows, columns, kept, embedding in self._kept:
            yield TileCells(rows, columns, kept.astype(np.float32), embedding)
        for tile in tile_cells(self._model, self._pixels, self._side, self._on_tile, first=len(self._kept)):
            # Half precision is enough for what is averaged over hundreds of channels.
            short = tile.features.astype(np.float16)
            if short.nbytes > self.room:
                self.room = 0
            else:
                self.room -= short.nbytes
                self._kept.append((tile.rows, tile.columns, short, tile.embedding))
            yield tile._replace(features=short.astype(np.float32))


def dense_maps(
    tiles: Iterable[TileCells], shape: tuple[int, int], side: int, image_size: int, learned: Sequence[PixelModel]
) -> tuple[NDArray[np.float32], list[Embedding]]:
    """Return the maps of pixel models at a frame's resolution, float32 (models, 4, H, W), and the tiles' embeddings.

    Only these are kept, not the features, which would take many times as much memory.

    Parameters
    ----------
    tiles
        Of the frame.
    shape
        ``(height, width)`` of the frame in pixels.
    side
        Side of a tile in pixels.
    image_size
        Side of the model's input.
    learned
        The pixel models.
    """
    counts, per_tile = TileGrid(shape, side).counts, image_size // 4
    core = per_tile - 2 * (per_tile // PARTS)
    cells = np.empty((len(learned), MAPS, counts[0] * core, counts[1] * core), np.float32)
    embeddings = []
    for rows, columns, features, embedding in tiles:
        embeddings.append(embedding)
        for number, each in enumerate(learned):
            cells[number, :, rows, columns] = each.apply(features)
    planes = [enlarge(plane, shape, side / per_tile) for plane in cells.reshape(-1, *cells.shape[2:])]
    return np.stack(planes).reshape(len(learned), MAPS, *shape), embeddings


def _looks_like(
    unseen: NDArray[np.float32], used: NDArray[np.float32], ground: NDArray[np.float32], weights: NDArray[np.float64]
) -> float:
    """Return the score from which on a background cell may lie on an object.

    Examples that were learned from score higher than other objects of their kind, so those that were not are asked.
    Where there are none, the middle between background and examples has to serve.
    """
    if len(unseen):
        return float(np.percentile(unseen @ weights, _LOOKS_LIKE))
    return float((np.median(used @ weights) + np.median(ground @ weights)) / 2)


def _discriminant(objects: NDArray[np.float32], ground: NDArray[np.float32], shrinkage: float) -> NDArray[np.float64]:
    """Return the direction ``(S + shrinkage)⁻¹ (μ₁ - μ₀)`` with S the mean of both covariances."""
    difference = objects.mean(0) - ground.mean(0)
    covariance = np.zeros((objects.shape[1],) * 2)
    for group in (objects, ground):
        centred = (group - group.mean(0)).astype(np.float64)
        covariance += centred.T @ centred / len(group) / 2
    covariance[np.diag_indices_from(covariance)] += shrinkage * max(np.trace(covariance) / len(covariance), 1e-6)
    direction: NDArray[np.float64] = np.linalg.solve(covariance, difference.astype(np.float64))
    return direction


def enlarge(plane: NDArray[np.float32], shape: tuple[int, int], cell: float) -> NDArray[np.float32]:
    """Interpolate a map of cells, each `cell` pixels wide, bilinearly to a frame's pixels."""
    rows = (np.arange(shape[0]) + 0.5) / cell - 0.5
    columns = (np.arange(shape[1]) + 0.5) / cell - 0.5
    return _along(_along(plane, rows, 0), columns, 1)


def _along(plane: NDArray[np.float32], positions: NDArray[Any], axis: int) -> NDArray[np.float32]:
    last = plane.shape[axis] - 1
    at = positions.clip(0, last)
    low = np.floor(at).astype(int)
    weight = (at - low).astype(np.float32)
    weight = weight[:, None] if axis == 0 else weight[None, :]
    near, far = np.take(plane, low, axis), np.take(plane, np.minimum(low + 1, last), axis)
    between: NDArray[np.float32] = near + (far - near) * weight
    return between


def cells_of(mask: NDArray[np.bool_], side: int, image_size: int) -> NDArray[np.float32]:
    """Return the share of each feature cell that lies on a mask (H, W); NaN for cells beyond the frame."""
    grid = TileGrid((mask.shape[0], mask.shape[1]), side)
    rows, columns = grid.counts
    per_tile = image_size // 4 - 2 * (image_size // 4 // PARTS)
    cell = side / (image_size // 4)
    smooth = ndimage.uniform_filter(mask.astype(np.float32), max(1, round(cell)), mode="constant")
    y = ((np.arange(rows * per_tile) + 0.5) * cell - 0.5).clip(0, mask.shape[0] - 1)
    x = ((np.arange(columns * per_tile) + 0.5) * cell - 0.5).clip(0, mask.shape[1] - 1)
    shares = _along(_along(smooth, y, 0), x, 1)
    shares[np.arange(rows * per_tile) * cell >= mask.shape[0]] = np.nan
    shares[:, np.arange(columns * per_tile) * cell >= mask.shape[1]] = np.nan
    return shares
