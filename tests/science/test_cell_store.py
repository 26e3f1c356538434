"""Tiles that are gone through twice and encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot.methods.guided.maps import CellStore, Room, tile_cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone

SIDE = 112


@pytest.mark.parametrize(("stored", "encoded"), [(6, 6), (0, 12), (2, 10)])
def test_tiles_are_encoded_once_as_far_as_the_room_goes(
    filters: Backbone, discs: tuple[NDArray[np.uint8], NDArray[np.int32]], stored: int, encoded: int
) -> None:
    done: list[int] = []
    image = discs[0]
    expected = list(tile_cells(filters, image, SIDE))
    room = Room(stored * expected[0].tile.level_bytes // 2)
    store = CellStore(filters, image, SIDE, room, done.append)
    assert len(expected) == 6
    for _ in range(2):
        for tile, other in zip(store, expected, strict=True):
            assert (tile.number, tile.rows, tile.columns) == (other.number, other.rows, other.columns)
            cells = np.ones((tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start), bool)
            assert tile.features(cells).dtype == np.float32
            assert np.abs(tile.features(cells) - other.features(cells)).max() < 0.01
            assert tile.tile.embedding.frame_shape == other.tile.embedding.frame_shape == (SIDE, SIDE)
    assert sum(done) == encoded


def test_small_frames_share_the_room(filters: Backbone, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]) -> None:
    # A share of the room for each frame would have been too small for any tile.
    done: list[int] = []
    size = next(iter(tile_cells(filters, discs[0], SIDE))).tile.level_bytes // 2
    room = Room(3 * size)
    stores = [CellStore(filters, discs[0][:60, :60], SIDE, room, done.append) for _ in range(4)]
    for _ in range(2):
        for store in stores:
            assert len(list(store)) == 1
    assert sum(done) == 5
