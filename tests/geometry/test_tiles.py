from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_fewshot.tiling.tiles import PARTS, TileGrid, holds, tile_side


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


def test_tiles_that_are_as_many_but_nearer_to_the_ideal_magnify_more() -> None:
    # A tile of 4/3 of 404 px is too small for the frame, so it takes four whatever their size.
    assert tile_side((512, 512), 404.0) == 400
    assert tile_side((256, 320), 253.0) == 304
    # A frame that a row of such tiles just covers has them.
    assert tile_side((512, 512), 446.0) == 592


def test_a_window_holds_what_ends_with_it_and_nothing_beyond() -> None:
    window = (10, 20, 50, 70)
    assert holds(window, window)
    for side, beyond in ((0, 9), (1, 19), (2, 51), (3, 71)):
        box = list(window)
        box[side] = beyond
        assert not holds(window, (box[0], box[1], box[2], box[3]))
