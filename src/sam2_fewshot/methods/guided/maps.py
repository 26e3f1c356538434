"""Maps of how much each place looks like the examples, from the backbone's feature pyramid.

A linear discriminant (Fisher 1936; shrinkage as in Friedman 1989) is learned from the cells of the feature maps that
lie on the examples against those that lie on evident background, and the cosine of each cell's features to the
examples' mean is taken at every level. Both are linear or nearly so, and cheap: no prompt is decoded.

The frame holds more of the wanted objects than were marked, so "not marked" is not "background": cells that look like
the examples are taken out of the background and the discriminant is learned again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from sam2_fewshot.tiling.tiles import TileGrid, core_of, halo_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone, Embedding, Tile
    from sam2_fewshot.records import InstanceMask

Float = TypeVar("Float", np.float32, np.float64)

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
        float32 (D,), the examples' mean direction from the background's mean; the part of each level is of length 1.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: float
    directions: NDArray[np.float32]


class Background:
    """Cells off the examples, with the sums from which the covariance of most of them follows at once.

    Parameters
    ----------
    features
        float32 (m, D), some of which lie on objects like the examples; m ≥ 1.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        self.mean, self.scale = features.mean(0), features.std(0) + 1e-3
        self.scaled: NDArray[np.float32] = (features - self.mean) / self.scale
        self._sums = _sums(self.scaled)

    def moments(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean (D,) and the covariance (D, D) of the scaled features of some cells, boolean (m,)."""
        count = int(np.count_nonzero(chosen))
        total, products = _sums(self.scaled[chosen if 2 * count < len(chosen) else ~chosen])
        if 2 * count >= len(chosen):
            total, products = self._sums[0] - total, self._sums[1] - products
        mean = total / count
        return mean, products / count - np.outer(mean, mean)


def _sums(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum (D,) of rows (n, D), and that of their products (D, D)."""
    precise = rows.astype(np.float64)
    return precise.sum(0), precise.T @ precise


def learn_pixels(
    objects: NDArray[np.float32],
    background: Background,
    certain: NDArray[np.bool_],
    left_out: NDArray[np.bool_],
    channels: Sequence[int],
    examples: int = 10,
) -> PixelModel:
    """Learn a pixel model.

    Parameters
    ----------
    objects
        float32 (n, D), features of cells on the examples, n ≥ 1.
    background
        Its m cells.
    certain
        Boolean (m,): cells of the background that are known not to be wanted, and stay in it.
    left_out
        Boolean (n,): cells of `objects` not to learn from; what is taken out of the background is measured by them.
        All of them is taken as none.
    channels
        Number of features at each level of the pyramid; their sum is D.
    examples
        On how many examples the cells lie. The cells of a few examples are alike and easily learned by heart, so the
        fewer there are, the more the discriminant is smoothed.
    """
    training = objects if left_out.all() else objects[~left_out]
    mean, scale, ground = background.mean, background.scale, background.scaled
    used = (training - mean) / scale
    unseen = used[:0] if left_out.all() else (objects[left_out] - mean) / scale
    shrinkage = _SHRINKAGE * max(1.0, (10 / examples) ** 2)
    clean = np.ones(len(ground), bool)
    for round_ in range(_ROUNDS + 1):
        weights = _discriminant(used, *background.moments(clean), shrinkage)
        if round_ < _ROUNDS:
            below = certain | (ground @ weights < _looks_like(unseen, used, ground, weights))
            if below.sum() >= min(50, len(ground)):
                clean = below
    low, high = np.median(ground[clean] @ weights), np.median(used @ weights)
    span = max(float(high - low), 1e-6)
    levels = np.split(training.mean(0) - mean, np.cumsum(channels)[:-1])
    directions = np.concatenate([part / max(float(np.linalg.norm(part)), 1e-6) for part in levels])
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
    number
        Of the tile, counted row by row.
    rows, columns
        Where the tile's cells lie among all cells of the frame.
    tile
        With its halo.
    halo
        Cells at each border of the tile that belong to its neighbours.
    """

    number: int
    rows: slice
    columns: slice
    tile: Tile
    halo: int

    def features(self, cells: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the features (n, D) of n of these cells, boolean (r, c)."""
        return self.tile.features(self.halo, cells)


def maps_of_tile(tile: Tile, halo: int, learned: Sequence[PixelModel]) -> NDArray[np.float32]:
    """Return the maps of pixel models on a tile, float32 (models, 1 + L, s - 2 halo, s - 2 halo).

    Each model's are its discriminant and the cosines at each of the L levels, the finest first.

    Parameters
    ----------
    tile
        Whose finest level is s cells wide.
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
    backbone: Backbone,
    pixels: NDArray[np.uint8],
    side: int,
    on_tile: Callable[[int], None] = lambda done: None,
    numbers: Sequence[int] | None = None,
) -> Iterator[TileCells]:
    """Encode a frame tile by tile.

    Parameters
    ----------
    backbone
        Encodes the tiles.
    pixels
        uint8 RGB (H, W, 3).
    side
        Side of a tile in pixels; it sets the magnification.
    on_tile
        Called with the number of tiles done.
    numbers
        Of the tiles to encode, counted row by row; None for all of them.
    """
    grid = TileGrid.of(pixels, side)
    cells = cells_per_tile(backbone)
    core, halo = core_of(cells), halo_of(cells)
    windows = grid.windows()
    numbers = range(len(windows)) if numbers is None else numbers
    for number, tile in zip(numbers, backbone.tiles(pixels, [windows[n] for n in numbers], on_tile), strict=True):
        row, column = divmod(number, grid.counts[1])
        rows, columns = slice(row * core, (row + 1) * core), slice(column * core, (column + 1) * core)
        yield TileCells(number, rows, columns, tile, halo)


def cells_per_tile(backbone: Backbone) -> int:
    """Return how many cells of the pyramid's finest level a tile has each way, with its halo."""
    return backbone.input_size // backbone.strides[0]


class Room:
    """Memory that stored tiles share.

    Parameters
    ----------
    left
        Bytes.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, size: int) -> bool:
        """Take so many bytes; False where there are not so many left, and then none are taken any more."""
        fits = size <= self.left
        self.left = self.left - size if fits else 0
        return fits


class CellStore:
    """A frame's tiles that are gone through more than once, but encoded once as far as the memory goes.

    Parameters
    ----------
    backbone, pixels, side, on_tile
        As in :func:`tile_cells`.
    room
        Of the stored pyramids of all frames. The tiles beyond are encoded each time.
    """

    def __init__(
        self,
        backbone: Backbone,
        pixels: NDArray[np.uint8],
        side: int,
        room: Room,
        on_tile: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._backbone, self._pixels, self.side, self._on_tile = backbone, pixels, side, on_tile
        self._stored: list[TileCells] = []
        self.room = room

    def __iter__(self) -> Iterator[TileCells]:
        """Go through the tiles row by row."""
        yield from self._stored
        count = len(TileGrid.of(self._pixels, self.side).cores())
        left = range(len(self._stored), count)
        for cells in tile_cells(self._backbone, self._pixels, self.side, self._on_tile, left):
            short = cells._replace(tile=cells.tile.shortened())
            if self.room.take(short.tile.level_bytes):
                self._stored.append(short)
            yield short


def dense_maps(
    tiles: Iterable[TileCells], shape: tuple[int, int], side: int, backbone: Backbone, learned: Sequence[PixelModel]
) -> tuple[NDArray[np.float32], dict[int, Embedding]]:
    """Return the maps of pixel models at a frame's resolution, and the tiles' embeddings by the tiles' numbers.

    The maps are float32 (models, 1 + L, H, W), with L levels in the pyramid. The features are not returned; they would
    take many times as much memory.

    Parameters
    ----------
    tiles
        Of the frame. Where one is left out, the maps are 0, as about on background.
    shape
        ``(height, width)`` of the frame in pixels.
    side
        Side of a tile in pixels.
    backbone
        Has encoded the tiles.
    learned
        The pixel models, learned on the same background.
    """
    cells = cells_per_tile(backbone)
    (rows, columns), core = TileGrid(shape, side).counts, core_of(cells)
    maps = np.zeros((len(learned), 1 + len(backbone.channels), rows * core, columns * core), np.float32)
    embeddings = {}
    for here in tiles:
        embeddings[here.number] = here.tile.embedding
        maps[:, :, here.rows, here.columns] = maps_of_tile(here.tile, here.halo, learned)
    planes = [enlarge(plane, shape, side / cells) for plane in maps.reshape(-1, *maps.shape[2:])]
    return np.stack(planes).reshape(*maps.shape[:2], *shape), embeddings


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


def _discriminant(
    objects: NDArray[np.float32], mean: NDArray[np.float64], covariance: NDArray[np.float64], shrinkage: float
) -> NDArray[np.float64]:
    """Return the direction ``(S + shrinkage)⁻¹ (μ₁ - μ₀)`` with S the mean of both covariances."""
    precise = objects.astype(np.float64)
    centred = precise - precise.mean(0)
    shared = (centred.T @ centred / len(objects) + covariance) / 2
    shared[np.diag_indices_from(shared)] += shrinkage * max(np.trace(shared) / len(shared), 1e-6)
    direction: NDArray[np.float64] = np.linalg.solve(shared, precise.mean(0) - mean)
    return direction


def enlarge(plane: NDArray[np.float32], shape: tuple[int, int], cell: float) -> NDArray[np.float32]:
    """Interpolate a map of cells, each `cell` pixels wide, bilinearly to a frame's pixels."""
    rows = (np.arange(shape[0]) + 0.5) / cell - 0.5
    columns = (np.arange(shape[1]) + 0.5) / cell - 0.5
    return _along(_along(plane, rows, 0), columns, 1)


def _along(plane: NDArray[Float], positions: NDArray[Any], axis: int) -> NDArray[Float]:
    last = plane.shape[axis] - 1
    at = positions.clip(0, last)
    low = np.floor(at).astype(int)
    weight = (at - low).astype(plane.dtype)
    weight = weight[:, None] if axis == 0 else weight[None, :]
    near, far = np.take(plane, low, axis), np.take(plane, np.minimum(low + 1, last), axis)
    between: NDArray[Float] = near + (far - near) * weight
    return between


def cells_of(mask: InstanceMask, side: int, cells: int) -> NDArray[np.float32]:
    """Return the share of each feature cell of a frame that lies on a mask; NaN for cells beyond the frame.

    `side` is that of a tile in pixels, and `cells` as :func:`cells_per_tile`.
    """
    (height, width), core, cell = mask.frame_shape, core_of(cells), side / cells
    rows, columns = (np.arange(count * core + 1) * cell for count in TileGrid(mask.frame_shape, side).counts)
    shares = _sums_between(_sums_between(mask.data, rows - mask.y0, 0), columns - mask.x0, 1) / cell**2
    shares[rows[:-1] >= height] = np.nan
    shares[:, columns[:-1] >= width] = np.nan
    return shares.astype(np.float32)


def _sums_between(plane: NDArray[Any], edges: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """Add up a plane's values between each two neighbouring edges, in pixels; of a pixel on an edge its part counts."""
    sums: NDArray[np.float64] = np.insert(np.cumsum(plane, axis, dtype=np.float64), 0, 0, axis)
    return np.diff(_along(sums, edges, axis), axis=axis)
