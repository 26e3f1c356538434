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

from sam2_fewshot.tiling.tiles import PARTS, TileGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.backbones.sam2.pyramid import Embedding, Tile

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
    directions
        float32 (D,), the examples' mean direction from the background's mean, of length 1 at each level.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: float
    directions: NDArray[np.float32]


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
    return PixelModel(mean, scale, (weights / span).astype(np.float32), -float(low) / span, directions)


def averaged(models: Sequence[PixelModel]) -> PixelModel:
    """Return the mean of pixel models that were learned on the same background."""
    return PixelModel(
        models[0].mean,
        models[0].scale,
        np.mean([model.weights for model in models], axis=0),
        float(np.mean([model.bias for model in models])),
        np.mean([model.directions for model in models], axis=0),
    )


class TileCells(NamedTuple):
    """What the encoder makes of one tile of a frame.

    Parameters
    ----------
    rows, columns
        Where the tile's cells lie among all cells of the frame.
    tile
        With its halo.
    """

    rows: slice
    columns: slice
    tile: Tile

    @property
    def features(self) -> NDArray[np.float32]:
        """float32 (D, r, c), of these cells."""
        return self.tile.features(self._halo)

    def maps(self, learned: Sequence[PixelModel]) -> NDArray[np.float32]:
        """Return the maps (models, 4, r, c) of pixel models that were learned on the same background."""
        return maps_of_tile(self.tile, self._halo, learned)

    @property
    def _halo(self) -> int:
        return self.tile.levels[0].shape[-1] // PARTS


def maps_of_tile(tile: Tile, halo: int, learned: Sequence[PixelModel]) -> NDArray[np.float32]:
    """Return the maps of pixel models on a tile, float32 (models, 4, s - 2 halo, s - 2 halo).

    Each model's are its discriminant and the cosines at the fine, middle and coarse level.

    Parameters
    ----------
    tile
        Whose fine level is s cells wide.
    halo
        Cells that are left out at each border.
    learned
        The pixel models, learned on the same background.
    """
    weights = np.stack([each.weights / each.scale for each in learned]).astype(np.float32)
    directions = np.stack([each.directions for each in learned]).astype(np.float32)
    maps = tile.maps(halo, learned[0].mean, weights, directions)
    maps[:, 0] += np.array([each.bias for each in learned], np.float32)[:, None, None]
    return maps


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
    core = _core(model.image_size)
    for number, tile in enumerate(model.tiles(pixels, grid.windows()[first:], on_tile), first):
        row, column = divmod(number, grid.counts[1])
        yield TileCells(slice(row * core, (row + 1) * core), slice(column * core, (column + 1) * core), tile)


def _core(image_size: int) -> int:
    """Return how many cells wide a tile is without its halo."""
    per_tile = image_size // 4
    return per_tile - 2 * (per_tile // PARTS)


class CellStore:
    """A frame's tiles that are gone through more than once, but encoded once as far as the memory goes.

    Parameters
    ----------
    model, pixels, side, on_tile
        As in :func:`tile_cells`.
    room
        Bytes that the levels kept may take. The tiles beyond are encoded each time.
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
        self._kept: list[TileCells] = []
        self.room = room

    def __iter__(self) -> Iterator[TileCells]:
        """Go through the tiles row by row."""
        yield from self._kept
        for cells in tile_cells(self._model, self._pixels, self._side, self._on_tile, first=len(self._kept)):
            short = cells._replace(tile=cells.tile.shortened())
            if short.tile.level_bytes > self.room:
                self.room = 0
            else:
                self.room -= short.tile.level_bytes
                self._kept.append(short)
            yield short


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
        The pixel models, learned on the same background.
    """
    (rows, columns), core = TileGrid(shape, side).counts, _core(image_size)
    cells = np.empty((len(learned), MAPS, rows * core, columns * core), np.float32)
    embeddings = []
    for here in tiles:
        embeddings.append(here.tile.embedding)
        cells[:, :, here.rows, here.columns] = here.maps(learned)
    planes = [enlarge(plane, shape, side / (image_size // 4)) for plane in cells.reshape(-1, *cells.shape[2:])]
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
