"""Points for SAM 2 where maps are high, and the candidates that it makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.methods.guided.proposals import peaks, point_candidates
from sam2_fewshot.tiling.tiles import TileGrid, tile_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone

LEVELS = np.array([0.5, 0.8])


def hill(x: float, y: float, height: float = 1.0) -> NDArray[np.float32]:
    rows, columns = np.mgrid[:60, :80]
    return (height * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 60)).astype(np.float32)


def test_touching_hills_have_a_peak_each() -> None:
    found = peaks([(hill(20, 30) + hill(45, 30), LEVELS)], 20.0, 9)
    assert sorted(found.tolist()) == [[20.5, 30.5], [45.5, 30.5]]


def test_what_is_low_has_none_and_two_maps_give_a_peak_once() -> None:
    plane = hill(20, 30) + hill(60, 30, height=0.3)
    assert peaks([(plane, LEVELS), (plane, LEVELS)], 20.0, 9).tolist() == [[20.5, 30.5]]
    assert len(peaks([(plane, LEVELS[:0])], 20.0, 9)) == 0
    assert len(peaks([], 20.0, 9)) == 0
    assert len(peaks([(hill(20, 30) + hill(60, 30), LEVELS)], 20.0, most=1)) == 1


def test_a_point_lies_in_the_core_of_its_tile() -> None:
    grid = TileGrid((160, 200), 128)
    assert [tile_at(grid, *point) for point in [(0, 0), (150, 20), (20, 150), (200, 160)]] == [0, 1, 2, 3]


def test_points_give_masks_of_a_plausible_size_in_the_frame(
    filters: Backbone, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    grid = TileGrid((160, 200), 208)
    embeddings = dict(enumerate(tile.embedding for tile in filters.tiles(image, grid.windows())))
    points = np.array([(40.5, 30.5), (196.5, 60.5)])
    found = point_candidates(filters, embeddings, grid, points, (100, 2000))
    assert all(100 <= mask.area <= 2000 and mask.frame_shape == (160, 200) for mask in found)
    for number in (1, 7):
        assert max(mask_iou(mask, crop_to_object(labels == number)) for mask in found) > 0.8
    assert point_candidates(filters, embeddings, grid, points, (1, 2)) == []
    assert point_candidates(filters, {}, grid, points, (100, 2000)) == []
    assert point_candidates(filters, {}, grid, np.empty((0, 2)), (1, 2)) == []
