"""What is seen of a frame without the backbone, and which of its tiles are encoded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter
from sam2_fewshot.backbones.filters import FilterBackbone
from sam2_fewshot.methods.guided.appearance import NOT_PROMINENT, Prominence, prominence_of, tiles_with_something
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.tiling.tiles import TileGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone, Tile
    from sam2_fewshot.records import Box

GRID = TileGrid((280, 420), 160)  # two rows and three columns of tiles with cores of 140 px
DIAMETER = 12.0


def blobs(*places: tuple[int, int, float]) -> NDArray[np.float32]:
    """Return a plane of round blobs as wide as an object, by column, row and height."""
    rows, columns = np.mgrid[: GRID.frame_shape[0], : GRID.frame_shape[1]]
    plane = np.zeros(GRID.frame_shape)
    for x, y, height in places:
        plane += height * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 50)
    return plane.astype(np.float32)


def test_tiles_in_which_nothing_stands_out_are_left_out() -> None:
    plane = blobs((60, 60, 1.0), (220, 200, 0.5))
    assert tiles_with_something(plane, GRID, Prominence(1.0, 1.0), DIAMETER) == [0, 4]
    # An object that reaches into a tile's halo is seen there as well.
    assert tiles_with_something(blobs((136, 60, 1.0)), GRID, Prominence(1.0, 1.0), DIAMETER) == [0, 1]


def test_what_is_five_times_as_faint_as_the_faintest_example_is_left_out() -> None:
    bright, faint = blobs((60, 60, 1.0)), blobs((220, 200, 0.12))
    assert tiles_with_something(bright + faint, GRID, Prominence(1.0, 1.0), DIAMETER) == [0]
    assert tiles_with_something(bright + faint, GRID, Prominence(0.3, 1.0), DIAMETER) == [0, 4]


def test_a_frame_with_less_contrast_is_measured_by_its_own() -> None:
    plane = blobs((60, 60, 1.0), (220, 200, 0.5))
    assert tiles_with_something(plane / 20, GRID, Prominence(1.0, 1.0), DIAMETER) == [0, 4]


def test_all_tiles_are_encoded_where_an_example_does_not_stand_out() -> None:
    plane = blobs((60, 60, 1.0))
    for prominence in (Prominence(0.0, 1.0), Prominence(-0.2, 0.5), NOT_PROMINENT):
        assert tiles_with_something(plane, GRID, prominence, DIAMETER) == [0, 1, 2, 3, 4, 5]


def test_prominence_is_that_of_the_faintest_and_of_the_median_example() -> None:
    def around(x: int, y: int) -> InstanceMask:
        return InstanceMask(np.ones((9, 9), bool), x - 4, y - 4, GRID.frame_shape)

    one, other = blobs((60, 60, 1.0), (200, 60, 0.8)), blobs((60, 60, 0.3))
    examples = [[around(60, 60), around(200, 60)], [around(60, 60)], []]
    found = prominence_of([one, other, np.full_like(one, np.nan)], examples, DIAMETER)
    (alone,) = {round(value, 6) for value in prominence_of([one], [[around(60, 60)]], DIAMETER)}
    assert found == pytest.approx((0.3 * alone, 0.8 * alone), rel=1e-3)
    assert prominence_of([one], [[]], DIAMETER) == NOT_PROMINENT


class _Counting(FilterBackbone):
    """Counts the tiles that are encoded."""

    encoded = 0

    def tiles(
        self, image: NDArray[np.uint8], windows: Sequence[Box], on_batch: Callable[[int], None] = lambda done: None
    ) -> Iterator[Tile]:
        self.encoded += len(windows)
        return super().tiles(image, windows, on_batch)


def test_on_a_sparse_frame_the_same_is_found_with_fewer_tiles(
    discs: tuple[NDArray[np.uint8], NDArray[np.int32]],
) -> None:
    image, labels = discs
    backbone = _Counting()
    segmenter = FewShotSegmenter(backbone).fit([Exemplar(image, mask=labels == number) for number in range(1, 7)])
    height, width = image.shape[:2]
    sparse = np.full((4 * height, 5 * width, 3), np.median(image, axis=(0, 1)).astype(np.uint8))
    sparse[height : 2 * height, :width] = image
    objects = segmenter.object_model
    assert objects.learned["prominence"].min() > 0
    everywhere = {**objects.learned, "prominence": np.array(NOT_PROMINENT)}
    found, tiles = [], []
    for learned in (objects.learned, everywhere):
        backbone.encoded = 0
        found.append(segmenter.adopt(replace(objects, learned=learned)).segment(sparse))
        tiles.append(backbone.encoded)
    assert tiles[0] < tiles[1] / 2
    assert len(found[0]) >= 6
    assert sorted(each.instance.box for each in found[0]) == sorted(each.instance.box for each in found[1])


def test_a_saved_object_model_knows_how_far_the_examples_stand_out(
    filters: Backbone, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    segmenter = FewShotSegmenter(filters).fit([Exemplar(image, mask=labels == number) for number in range(1, 6)])
    objects = segmenter.object_model
    loaded = segmenter.adopt_saved(objects.to_bytes()).object_model.learned
    assert np.array_equal(loaded["prominence"], objects.learned["prominence"])
    earlier = {name: values for name, values in objects.learned.items() if name != "prominence"}
    assert segmenter.adopt_saved(replace(objects, learned=earlier).to_bytes()).segment(image)
