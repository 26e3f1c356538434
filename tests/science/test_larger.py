"""Objects larger than the examples: found at half the magnification, unless size tells the objects from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from disc_scenes import discs, found_of

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.methods.base import Stopwatch
from sam2_fewshot.methods.guided.box_refinement import non_overlapping
from sam2_fewshot.methods.guided.magnifications import NOTHING_AT_HALF, NOTHING_LARGER, search_at_half
from sam2_fewshot.methods.guided.model import GuidedModel
from sam2_fewshot.methods.guided.other_sizes import what_is_larger
from sam2_fewshot.methods.guided.scaling import enlarged_mask, reduced_mask
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.tiling.overview import reduced
from sam2_fewshot.tiling.tiles import TileGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disc_scenes import Disc, Scene
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.records import Box

SMALL: list[Disc] = [(25 + 36 * (i % 5), 24 + 42 * (i // 5), 4 + i % 5) for i in range(20)]
ALIKE: list[Disc] = [(x, y, 6) for x, y, _ in SMALL]
LARGE: list[Disc] = [(40 + 72 * (i % 4), 40 + 65 * (i // 4), 16) for i in range(12)]


def fit(backbone: Backbone, scene: Scene, wanted: int, unwanted: int = 0, settings: Settings | None = None):
    """Mark the first masks of a scene as wanted, and the last ones as unwanted."""
    image, masks = scene
    marks = [Exemplar(image, mask=mask.full()) for mask in masks[:wanted]]
    marks += [Exemplar(image, mask=mask.full(), negative=True) for mask in masks[len(masks) - unwanted :]]
    return FewShotSegmenter(backbone, settings=settings or Settings()).fit(marks)


@pytest.fixture(scope="module")
def large() -> Scene:
    return discs(LARGE)


@pytest.fixture(scope="module")
def fitted(filters: Backbone) -> FewShotSegmenter:
    return fit(filters, discs(SMALL), 12)


def test_objects_of_more_than_twice_the_diameter_are_found(fitted: FewShotSegmenter, large: Scene) -> None:
    found = fitted.segment(large[0])
    assert found_of(found, large[1]) == len(LARGE)
    assert len(found) == len(LARGE), "no parts of them"


def test_objects_like_the_examples_are_found_as_before(fitted: FewShotSegmenter) -> None:
    image, masks = discs(SMALL, (225, 310))
    assert found_of(fitted.segment(image), masks) == len(SMALL)


def test_only_sizes_like_the_examples_are_found_where_that_is_set(
    filters: Backbone, fitted: FewShotSegmenter, large: Scene
) -> None:
    alike = FewShotSegmenter(filters, settings=Settings(sizes="similar")).adopt(fitted.object_model)
    assert found_of(alike.segment(large[0]), large[1]) == 0


def test_nothing_above_the_users_largest_area_is_found(filters: Backbone, large: Scene) -> None:
    segmenter = fit(filters, discs(SMALL), 12, settings=Settings(max_mask_area=500))
    assert found_of(segmenter.segment(large[0]), large[1]) == 0


@pytest.mark.parametrize(("is_sized", "least"), [(False, 100.0), (True, 250.0)])
def test_up_to_ten_times_the_largest_examples_area_is_looked_for(is_sized: bool, least: float) -> None:
    assert what_is_larger(100, is_sized=is_sized) == (least, 1000.0)


def test_nothing_larger_is_looked_for_where_all_examples_are_of_one_size(filters: Backbone, large: Scene) -> None:
    segmenter = fit(filters, discs(ALIKE), 12)
    assert GuidedModel.from_arrays(segmenter.object_model.learned).larger == NOTHING_LARGER
    assert found_of(segmenter.segment(large[0]), large[1]) == 0


def test_larger_objects_marked_as_unwanted_are_not_found(filters: Backbone, large: Scene) -> None:
    beside = [(240, 50, 16), (240, 120, 16), (240, 180, 16)]
    segmenter = fit(filters, discs([*SMALL, *beside], (230, 310)), 12, unwanted=3)
    assert GuidedModel.from_arrays(segmenter.object_model.learned).larger == NOTHING_LARGER
    assert found_of(segmenter.segment(large[0]), large[1]) == 0


def test_an_object_model_of_an_earlier_version_does_not_look_for_larger_objects(fitted: FewShotSegmenter) -> None:
    arrays = dict(fitted.object_model.learned)
    assert GuidedModel.from_arrays(arrays).larger != NOTHING_LARGER
    del arrays["larger"]
    assert GuidedModel.from_arrays(arrays).larger == NOTHING_LARGER


def test_a_frame_that_is_even_at_half_its_size_has_no_larger_objects(
    filters: Backbone, fitted: FewShotSegmenter
) -> None:
    model = GuidedModel.from_arrays(fitted.object_model.learned)
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 200).astype(np.uint8)
    pixels = np.repeat(board[..., None], 3, axis=2)
    assert search_at_half(model, filters, pixels, Quiet(), Stopwatch()) is NOTHING_AT_HALF


def test_of_two_that_lie_in_one_another_only_the_surer_is_detected() -> None:
    shape = (60, 90)
    large = [InstanceMask(np.ones((20, 20), bool), x, 10, shape) for x in (0, 30, 60)]
    inside = InstanceMask(np.ones((6, 6), bool), 4, 14, shape)
    across = InstanceMask(np.ones((6, 6), bool), 47, 14, shape)  # half of it lies in the second
    masks = [*large, inside, across]
    assert non_overlapping(masks, np.array([1.0, 2.0, 3.0, 1.5, 9.0])) == [4, 2, 1, 3]
    assert non_overlapping(masks[:4], np.array([1.0, 2.0, 3.0, 0.5])) == [2, 1, 0], "it is less sure"
    assert non_overlapping(masks, np.zeros(5), [large[0]]) == [1, 2], "what is marked is not detected"
    assert non_overlapping([], np.zeros(0)) == []


def test_tiles_of_half_the_magnification_serve_candidates_that_cross_the_borders_of_the_usual_ones(
    filters: Backbone, fitted: FewShotSegmenter, large: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GuidedModel.from_arrays(fitted.object_model.learned)
    pixels = np.tile(large[0], (2, 2, 1))
    _, embeddings = search_at_half(model, filters, pixels, Quiet(), Stopwatch())
    wide = TileGrid.of(pixels, 2 * model.side)
    assert set(embeddings) <= set(range(len(wide.cores())))
    assert {embedding.frame_shape for embedding in embeddings.values()} == {(wide.side, wide.side)}
    encoded: list[tuple[int, int]] = []
    tiles = type(filters).tiles

    def counted(self: Backbone, image: NDArray[np.uint8], windows: Sequence[Box], *rest: object) -> object:
        encoded.extend((len(image), x1 - x0) for x0, _, x1, _ in windows)
        return tiles(self, image, windows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(type(filters), "tiles", counted)
    model.detect(filters, pixels, [], Quiet(), Stopwatch(), 30)
    assert (len(pixels), model.side) in encoded
    assert (len(pixels) // 2, model.side) in encoded
    assert (len(pixels), 2 * model.side) not in encoded


@pytest.mark.parametrize("shape", [(8, 10), (7, 11), (1, 1)])
def test_a_picture_is_reduced_to_the_means_of_its_pixels(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    small = reduced(pixels, 2)
    assert small.shape == (-(-shape[0] // 2), -(-shape[1] // 2), 3)
    # A last row or column without a second one is repeated.
    even = np.pad(pixels, [(0, shape[0] % 2), (0, shape[1] % 2), (0, 0)], mode="edge")
    means = even.reshape(len(small), 2, small.shape[1], 2, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.5


def test_a_mask_of_a_reduced_picture_lies_where_its_pixels_were() -> None:
    shape = (7, 9)
    mask = InstanceMask(np.array([[True, True], [False, True]]), 3, 2, (4, 5))
    large = enlarged_mask(mask, shape)
    assert (large.x0, large.y0, large.frame_shape) == (6, 4, shape)
    # The last row and column of the reduced picture are half beyond the frame.
    assert large.full()[4:6, 6:9].all()
    assert not large.full()[6, 6:8].any()
    assert large.full()[6, 8]
    assert large.box[2] <= shape[1]
    assert large.box[3] <= shape[0]


def test_a_mask_is_the_same_once_it_was_enlarged_and_reduced() -> None:
    mask = InstanceMask(np.random.default_rng(1).random((5, 6)) < 0.7, 4, 3, (20, 30))
    mask.data[0] = mask.data[-1] = mask.data[:, 0] = mask.data[:, -1] = True
    back = reduced_mask(enlarged_mask(mask, (40, 60)))
    assert back is not None
    assert back.box == mask.box
    assert np.array_equal(back.data, mask.data)
