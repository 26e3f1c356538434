"""Objects smaller than the examples: found at twice the magnification, where the examples leave the size open."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from disc_scenes import discs as discs_of
from disc_scenes import found_of
from PIL import Image

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.methods.base import Stopwatch
from sam2_fewshot.methods.guided.classifier import AWAY, RIGHT, TrainingTable
from sam2_fewshot.methods.guided.magnifications import NEVER, pieces, search_windows, windows_to_search
from sam2_fewshot.methods.guided.model import GuidedModel
from sam2_fewshot.methods.guided.other_sizes import are_the_largest, window_around
from sam2_fewshot.methods.guided.scaling import enlarged
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import Frame, InstanceMask
from sam2_fewshot.tiling.blocks import is_owned
from sam2_fewshot.tiling.tiles import TileGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disc_scenes import Scene

    from sam2_fewshot.methods.guided.magnifications import Found
    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.records import Box


def discs(centres: Sequence[tuple[int, int]], radius: int, shape: tuple[int, int] = (220, 300)) -> Scene:
    return discs_of([(x, y, radius) for x, y in centres], shape)


LARGE = [(40 + 72 * (i % 4), 40 + 65 * (i // 4)) for i in range(12)]
SMALL = [(25 + 36 * (i % 8), 24 + 42 * (i // 8)) for i in range(40)]


def segmenter_of(backbone: Backbone, scene: Scene, negatives: Sequence[int] = ()) -> FewShotSegmenter:
    image, masks = scene
    marks = [Exemplar(Frame(image), mask=mask.full(), negative=i in negatives) for i, mask in enumerate(masks)]
    return FewShotSegmenter(backbone).fit(marks)


@pytest.fixture(scope="module")
def large() -> Scene:
    return discs(LARGE, 15)


@pytest.fixture(scope="module")
def small() -> Scene:
    return discs(SMALL, 6)


@pytest.fixture(scope="module")
def fitted(filters: Backbone, large: Scene) -> FewShotSegmenter:
    return segmenter_of(filters, large)


def test_objects_of_less_than_half_the_diameter_are_found(fitted: FewShotSegmenter, small: Scene) -> None:
    image, masks = small
    found = fitted.segment(Frame(image))
    assert found_of(found, masks) >= 0.9 * len(masks)
    assert len(found) <= 1.1 * len(masks)


def test_only_sizes_like_the_examples_are_found_where_that_is_set(
    filters: Backbone, fitted: FewShotSegmenter, large: Scene, small: Scene
) -> None:
    alike = FewShotSegmenter(filters, settings=Settings(sizes="similar")).adopt(fitted.object_model)
    assert found_of(alike.segment(Frame(small[0])), small[1]) == 0
    both = fitted.segment(discs(LARGE, 15, (230, 320))[0])
    assert found_of(both, discs(LARGE, 15, (230, 320))[1]) == len(LARGE)


def test_a_frame_with_objects_like_the_examples_alone_is_not_searched_again(
    filters: Backbone, fitted: FewShotSegmenter, large: Scene
) -> None:
    model = GuidedModel.from_arrays(fitted.object_model.learned)
    pixels, _ = discs(LARGE, 15, (230, 320))
    found = model.candidates(filters, pixels, Quiet(), Stopwatch())
    assert windows_to_search(model, found, 30, []) == []


def test_tiles_with_small_objects_are_searched_again_and_others_are_not(
    filters: Backbone, fitted: FewShotSegmenter
) -> None:
    model = GuidedModel.from_arrays(fitted.object_model.learned)
    shape = (model.side * 2, model.side * 2)
    pixels, masks = discs([(20 + 30 * (i % 4), 20 + 30 * (i // 4)) for i in range(12)], 6, shape)
    found = model.candidates(filters, pixels, Quiet(), Stopwatch())
    windows = windows_to_search(model, found, 30, [])
    assert TileGrid(shape, model.side).cores()[0] in windows
    assert len(windows) < len(TileGrid(shape, model.side).cores())
    smaller = search_windows(model, filters, pixels, windows, 30, Quiet(), Stopwatch())
    surest = [mask for mask, odds in zip(smaller.masks, smaller.odds, strict=True) if odds > 0]
    assert all(any(mask_iou(mask, other) > 0.6 for other in surest) for mask in masks)
    assert windows_to_search(model, found, 30, masks) == [], "what is marked already is not looked for"
    assert windows_to_search(model, found, 10**6, []) == [], "Min Mask Area is the user's"


def test_a_smaller_object_counts_in_the_window_of_its_middle_and_has_to_be_surer(
    filters: Backbone, fitted: FewShotSegmenter, small: Scene
) -> None:
    pixels, _ = small
    height, width = pixels.shape[:2]
    halves = [(0, 0, width // 2, height), (width // 2, 0, width, height)]
    model = GuidedModel.from_arrays(fitted.object_model.learned)

    def search(margin: float, windows: Sequence[Box]) -> Found:
        with_margin = replace(model, margin=margin)
        return search_windows(with_margin, filters, pixels, windows, 30, Quiet(), Stopwatch())

    freely, surer = search(0.0, halves), search(1.5, halves)
    assert np.allclose(freely.odds - 1.5, surer.odds)
    for half in halves:
        here = search(0.0, [half]).masks
        assert here
        assert all(is_owned(mask, half) for mask in here)


def test_objects_below_the_smallest_area_are_not_found(
    filters: Backbone, fitted: FewShotSegmenter, small: Scene
) -> None:
    strict = FewShotSegmenter(filters, settings=Settings(min_mask_area=200)).adopt(fitted.object_model)
    assert found_of(strict.segment(Frame(small[0])), small[1]) == 0


def test_small_objects_marked_as_unwanted_are_not_found(filters: Backbone, small: Scene) -> None:
    rng = np.random.default_rng(1)
    shape = (260, 420)
    large, masks = discs(LARGE[:8], 15, shape)
    few, others = discs([(320 + 30 * (i % 3), 30 + 40 * (i // 3)) for i in range(12)], 6, shape)
    image = np.maximum(large, few) + rng.integers(0, 2, large.shape).astype(np.uint8)
    scene = image, [*masks, *others]
    wanted = segmenter_of(filters, scene, negatives=range(len(masks), len(masks) + len(others)))
    assert found_of(wanted.segment(Frame(small[0])), small[1]) <= 2


def test_an_object_model_of_an_earlier_version_does_not_look_for_smaller_objects(fitted: FewShotSegmenter) -> None:
    arrays = dict(fitted.object_model.learned)
    assert GuidedModel.from_arrays(arrays).margin < NEVER
    del arrays["sizes"]
    assert GuidedModel.from_arrays(arrays).margin == NEVER


def test_cores_of_tiles_cover_a_frame_once() -> None:
    grid = TileGrid((130, 250), 64)
    covered = np.zeros(grid.frame_shape, int)
    for x0, y0, x1, y1 in grid.cores():
        covered[y0:y1, x0:x1] += 1
    assert (covered == 1).all()
    assert len(grid.cores()) == len(grid.windows())


def test_a_picture_is_enlarged_without_a_shift() -> None:
    pixels = np.zeros((8, 10, 3), np.uint8)
    pixels[2:5, 3:7] = 200
    large = enlarged(pixels)
    assert large.shape == (16, 20, 3)
    rows, columns = np.nonzero(large[..., 0] > 100)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (4, 10, 6, 14)


def test_it_is_enlarged_as_pillow_does_it() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(80, 170, (20, 31, 3), np.uint8)  # what would lie below 0 or above 255 is cut off
    theirs = np.asarray(Image.fromarray(pixels).resize((62, 40), Image.Resampling.BICUBIC)).astype(int)
    inner = np.s_[4:-4, 4:-4]  # beyond the border Pillow takes nothing, not the last pixel
    assert np.abs(enlarged(pixels).astype(int) - theirs)[inner].max() <= 1


@pytest.mark.parametrize("window", [(0, 0, 448, 448), (100, 40, 2375, 1900), (0, 0, 5, 3000)])
def test_what_is_searched_enlarged_at_a_time_is_bounded(window: Box) -> None:
    halo, most = 40, 500_000
    found = pieces(window, halo, most)
    covered = np.zeros((window[3], window[2]), int)
    for x0, y0, x1, y1 in found:
        covered[y0:y1, x0:x1] += 1
        assert 4 * (x1 - x0 + 2 * halo) * (y1 - y0 + 2 * halo) <= most
    assert covered.sum() == (window[2] - window[0]) * (window[3] - window[1])
    assert covered.max() == 1


def test_an_example_is_seen_enlarged_with_as_much_around_it_as_the_memory_allows() -> None:
    def square(side: int, shape: tuple[int, int]) -> InstanceMask:
        return InstanceMask(np.ones((side, side), bool), 900, 900, shape)

    shape = (3000, 3000)
    assert window_around(square(100, shape), 100.0, 10**6) == (800, 800, 1100, 1100)
    assert window_around(square(400, shape), 400.0, 10**6) is None  # 4 x 600 x 600 are more
    assert window_around(square(400, shape), 400.0, 2 * 10**6) == (800, 800, 1400, 1400)
    assert window_around(square(300, (1200, 1200)), 300.0, 3 * 10**6) == (600, 600, 1200, 1200)


def test_a_window_is_not_split_into_less_than_its_halos() -> None:
    assert pieces((0, 0, 100, 100), 60, 1000) == [(0, 0, 100, 100)]


@pytest.mark.parametrize(("elsewhere", "expected"), [(3.0, True), (6.0, False)])
def test_examples_are_the_largest_if_what_looks_like_them_is_smaller(elsewhere: float, expected: bool) -> None:
    areas = np.concatenate([np.linspace(5, 6, 5), np.full(10, elsewhere)])
    table = TrainingTable(
        features=areas[:, None],
        label=np.array([RIGHT] * 5 + [AWAY] * 10),
        weight=np.ones(15),
        owner=np.array([0, 1, 2, 3, 4] + [-1] * 10),
        proposed=np.ones(15, bool),
    )
    assert are_the_largest(table, np.zeros(15), -1.0) is expected
    assert not are_the_largest(table, np.zeros(15), 1.0), "what is not like the examples tells nothing"
