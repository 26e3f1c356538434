"""The maps of a tile are those of its interpolated features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_fewshot.backbones.sam2.pyramid import Embedding, Tile
from sam2_fewshot.errors import InputError

CHANNELS, SIDE, HALO = 6, 16, 1
NOTHING = Embedding(torch.zeros(0), (torch.zeros(0), torch.zeros(0)), (1, 1))


@pytest.fixture
def tile() -> Tile:
    draw = torch.Generator().manual_seed(0)
    fine, middle, coarse = (torch.randn(CHANNELS, SIDE // n, SIDE // n, generator=draw) for n in (1, 2, 4))
    return Tile((fine, middle, coarse), NOTHING)


def test_maps_are_those_of_the_interpolated_features(tile: Tile) -> None:
    rng = np.random.default_rng(1)
    centres, weights, directions = (rng.normal(size=(n, 3 * CHANNELS)).astype(np.float32) for n in (1, 2, 2))
    maps = tile.maps(HALO, centres[0], weights, directions)
    features = tile.features(HALO)
    assert features.shape == (3 * CHANNELS, SIDE - 2 * HALO, SIDE - 2 * HALO)
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
    assert np.abs(short.features(0) - tile.features(0)).max() < 0.01


class Large(torch.Tensor):
    """A tensor that leaves no memory for anything else."""

    @classmethod
    def __torch_function__(cls, *_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_memory_that_runs_out_is_a_sentence() -> None:
    level = torch.zeros(CHANNELS, SIDE, SIDE).as_subclass(Large)
    tile, row = Tile((level, level, level), NOTHING), np.zeros((1, 3 * CHANNELS), np.float32)
    for work in (tile.shortened, lambda: tile.features(HALO), lambda: tile.maps(HALO, row[0], row, row)):
        with pytest.raises(InputError, match="does not fit into the device's memory"):
            work()
