from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_fewshot.tiling.tiles import PARTS, TileGrid, tile_side


@given(st.integers(1, 900), st.integers(1, 900), st.integers(2, 30))
def test_the_cores_cover_every_pixel_once(height: int, width: int, parts: int) -> None:
    grid = TileGrid((height, width), parts * PARTS)
    halo = grid.side // PARTS
    covered = np.zeros((height, width), int)
    for x0, y0, x1, y1 in grid.windows():
        assert x1 - x0 == y1 - y0 == grid.side
        covered[max(0, y0 + halo) : y1 - halo, max(0, x0 + halo) : x1 - halo] += 1
    assert (covered == 1).all()
    assert len(grid.windows()) == grid.counts[0] * grid.counts[1]


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(64, 2048))
def test_a_side_is_near_the_ideal(height: int, width: int, ideal: float) -> None:
    side = tile_side((height, width), ideal)
    assert side % PARTS == 0
    assert 2 / 3 * ideal - PARTS <= side <= 4 / 3 * ideal + PARTS


def test_a_frame_just_over_a_tile_takes_one_tile() -> None:
    assert TileGrid((512, 512), tile_side((512, 512), 512)).counts == (1, 1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 4000)])
def test_odd_frames_have_tiles(shape: tuple[int, int]) -> None:
    assert TileGrid(shape, tile_side(shape, 300.0)).windows()


def test_no_smaller_tiles_near_the_ideal_would_cover_the_frame_with_as_many() -> None:
    # 404 px is nearer to one tile of 544 than to two of 304, but either way it takes four.
    assert tile_side((512, 512), 404.0) == 304
    assert tile_side((256, 320), 253.0) == 304
    for height, width, ideal in [(512, 512, 404.0), (520, 696, 287.0), (1040, 1392, 520.0), (485, 1024, 185.0)]:
        side = tile_side((height, width), ideal)
        smaller = side - PARTS
        counts = [TileGrid((height, width), each).counts for each in (side, smaller)]
        assert smaller < ideal * 2 / 3 or counts[0] != counts[1]
