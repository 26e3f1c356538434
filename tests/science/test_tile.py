"""The maps of a tile are those of its interpolated features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from sam2_fewshot.backbones.sam2.pyramid import Embedding, Tile
from sam2_fewshot.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANNELS, SIDE, HALO = 6, 16, 1
NOTHING = Embedding(torch.zeros(0), (torch.zeros(0), torch.zeros(0)), (1, 1))


@pytest.fixture
def tile() -> Tile:
    draw = torch.Generator().manual_seed(0)
    fine, middle, coarse = (torch.randn(CHANNELS, SIDE // n, SIDE // n, generator=draw) for n in (1, 2, 4))
    return Tile((fine, middle, coarse), NOTHING)


def enlarged(tile: Tile, halo: int) -> NDArray[np.float32]:
    """All features of a tile (3 C, s - 2 halo, s - 2 halo)."""
    side = SIDE - 2 * halo
    return tile.features(halo, np.ones((side, side), bool)).T.reshape(-1, side, side)


def test_features_are_those_of_the_levels_enlarged(tile: Tile) -> None:
    levels = [
        functional.interpolate(level[None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0]
        for level in tile.levels
    ]
    features = np.concatenate(levels)
    assert enlarged(tile, 0) == pytest.approx(features, abs=1e-5)
    some = np.random.default_rng(0).random((SIDE - 2 * HALO, SIDE - 2 * HALO)) < 0.2
    assert tile.features(HALO, some) == pytest.approx(features[:, HALO:-HALO, HALO:-HALO][:, some].T, abs=1e-5)
    assert tile.features(HALO, np.zeros_like(some)).shape == (0, 3 * CHANNELS)


def test_features_of_a_level_of_one_cell_are_the_same_everywhere() -> None:
    fine, one = torch.zeros(CHANNELS, 2, 2), torch.arange(CHANNELS, dtype=torch.float32)[:, None, None]
    features = Tile((fine, fine, one), NOTHING).features(0, np.ones((2, 2), bool))
    assert np.array_equal(features[:, 2 * CHANNELS :], np.tile(np.arange(CHANNELS), (4, 1)))


def test_maps_are_those_of_the_interpolated_features(tile: Tile) -> None:
    rng = np.random.default_rng(1)
    centres, weights, directions = (rng.normal(size=(n, 3 * CHANNELS)).astype(np.float32) for n in (1, 2, 2))
    maps = tile.maps(HALO, centres[0], weights, directions)
    features = enlarged(tile, HALO)
    assert maps.shape == (2, 4, SIDE - 2 * HALO, SIDE - 2 * HALO)
    centred = features - centres[0][:, None, None]
    assert maps[:, 0] == pytest.approx(np.einsum("nc,chw->nhw", weights, centred), abs=1e-4)
    for level in range(3):
        here = slice(level * CHANNELS, (level + 1) * CHANNELS)
        along = np.einsum("nc,chw->nhw", directions[:, here], centred[here])
        assert maps[:, 1 + level] == pytest.approx(along / np.linalg.norm(centred[here], axis=0), abs=1e-4)


def test_a_shortened_tile_takes_half_the_memory_and_has_nearly_the_same_features(tile: Tile) -> None:
    short = tile.shortened()
    assert 2 * short.level_bytes == tile.level_bytes == 4 * CHANNELS * SIDE**2 * 21 // 16
    assert np.abs(enlarged(short, 0) - enlarged(tile, 0)).max() < 0.01


class Large(torch.Tensor):
    """A tensor that leaves no memory for anything else."""

    @classmethod
    def __torch_function__(cls, *_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_memory_that_runs_out_is_a_sentence() -> None:
    level = torch.zeros(CHANNELS, SIDE, SIDE).as_subclass(Large)
    tile, row = Tile((level, level, level), NOTHING), np.zeros((1, 3 * CHANNELS), np.float32)
    cells = np.ones((SIDE - 2 * HALO, SIDE - 2 * HALO), bool)
    for work in (tile.shortened, lambda: tile.features(HALO, cells), lambda: tile.maps(HALO, row[0], row, row)):
        with pytest.raises(InputError, match="does not fit into the device's memory"):
            work()
