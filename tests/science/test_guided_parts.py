from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from sam2_fewshot import Exemplar, FewShotSegmenter
from sam2_fewshot.backbones.filters import FilterEmbedding, FilterTile
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.methods.base import TrainingFrame
from sam2_fewshot.methods.guided.appearance import local_mean
from sam2_fewshot.methods.guided.descriptors import FrameMaps, Proposed, describe
from sam2_fewshot.methods.guided.logistic import fit_logistic
from sam2_fewshot.methods.guided.map_learning import held_out
from sam2_fewshot.methods.guided.maps import Background, PixelModel, averaged, cells_of, learn_pixels, maps_of_tile
from sam2_fewshot.methods.guided.proposals import component_candidates, threshold_levels
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone

NOTHING = Proposed([], np.zeros(0, int))


def two_touching_discs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:60, :80]
    left, right = (rows - 30) ** 2 + (columns - 26) ** 2 <= 144, (rows - 30) ** 2 + (columns - 48) ** 2 <= 144
    return left, right, (left | right).astype(np.float32)


def test_touching_objects_are_proposed_together_and_separately() -> None:
    left, right, plane = two_touching_discs()
    found, _ = component_candidates([(plane, np.array([0.5]))], 24.0, (100, 2000))
    for truth in (left, right, left | right):
        assert max(mask_iou(mask, crop_to_object(truth)) for mask in found) > 0.85


def test_what_comes_out_at_several_levels_is_counted_and_what_was_split_counts_three_times() -> None:
    left, right, plane = two_touching_discs()
    found, times = component_candidates([(plane, np.array([0.3, 0.4, 0.5]))], 24.0, (100, 2000))
    for truth in (left, right, left | right):
        assert times[int(np.argmax([mask_iou(mask, crop_to_object(truth)) for mask in found]))] == 3


def test_what_touches_is_split_alike_wherever_it_lies() -> None:
    _, _, plane = two_touching_discs()
    wide = np.zeros((plane.shape[0] + 40, plane.shape[1] + 300), np.float32)
    wide[31 : 31 + plane.shape[0], 253 : 253 + plane.shape[1]] = plane
    wide[2:6, 2:100] = 1.0  # something else, of another width
    levels = np.array([0.5])
    near, _ = component_candidates([(plane, levels)], 24.0, (50.0, 5000.0))
    far, _ = component_candidates([(wide, levels)], 24.0, (50.0, 5000.0))
    there = [(mask.x0 - 253, mask.y0 - 31, mask.data.tolist()) for mask in far if mask.x0 > 200]
    assert [(mask.x0, mask.y0, mask.data.tolist()) for mask in near] == there
    assert len(there) == 3


def test_any_number_of_threads_proposes_and_describes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    planes = [ndimage.gaussian_filter(rng.normal(size=(150, 200)), 3.0).astype(np.float32) for _ in range(3)]
    maps = [(plane, np.linspace(0, 0.15, 5)) for plane in planes]
    of_frame = FrameMaps(planes[0], planes[1], planes[2], planes[0], np.stack(planes))
    results = []
    for count in (1, 4):
        monkeypatch.setenv("OMP_NUM_THREADS", str(count))
        proposed = Proposed(*component_candidates(maps, 12.0, (20.0, 2000.0)))
        results.append((proposed, describe(proposed.masks, of_frame, 12.0, proposed, sheet=5000)))
    (one, by_one), (four, by_four) = results
    assert len(one.masks) > 50
    assert [(m.box, m.data.tolist()) for m in one.masks] == [(m.box, m.data.tolist()) for m in four.masks]
    assert one.times.tolist() == four.times.tolist()
    assert np.array_equal(by_one, by_four)


def test_holes_are_filled_and_sizes_kept_to() -> None:
    _, _, plane = two_touching_discs()
    plane[28:32, 24:28] = 0
    plane[2:4, 2:4] = 1
    found, _ = component_candidates([(plane, np.array([0.5]))], 24.0, (100, 2000))
    assert all(100 <= mask.area <= 2000 for mask in found)
    assert any(mask.window((24, 28, 28, 32)).all() for mask in found)


def test_a_hole_is_filled_however_the_component_is_shaped() -> None:
    rng = np.random.default_rng(8)
    planes = [ndimage.gaussian_filter(rng.normal(size=(120, 120)), sigma) for sigma in (1.0, 2.0)]
    for plane in planes:
        found, _ = component_candidates([(plane.astype(np.float32), np.array([0.0, plane.std()]))], 8.0, (6, 10000))
        assert len(found) > 10
        for mask in found:
            assert np.array_equal(ndimage.binary_fill_holes(mask.data), mask.data)


def test_the_same_component_at_many_levels_is_one_candidate() -> None:
    left, _, _ = two_touching_discs()
    levels = np.linspace(0.1, 0.9, 14)
    found, _ = component_candidates([(left.astype(np.float32), levels)], 24.0, (50, 2000))
    assert len({mask.box for mask in found}) == len(found) == 1


def test_levels_lie_between_the_surroundings_and_the_objects() -> None:
    levels = threshold_levels(np.full(9, 5, np.float32), np.full(9, 1, np.float32))
    assert 1 < levels[0] < levels[-1] == 5
    assert len(threshold_levels(np.full(9, 1, np.float32), np.full(9, 1, np.float32))) == 0
    assert component_candidates([(np.ones((5, 5), np.float32), np.zeros(0))], 5.0, (1, 99))[0] == []


def maps_of(model: PixelModel, cells: np.ndarray) -> np.ndarray:
    """Return a pixel model's maps (1 + L, 1, N) of the features of cells (N, D), as if all levels were equally fine."""
    levels = np.split(cells.T.astype(np.float32)[:, None], np.cumsum(channels_of(cells))[:-1])
    embedding = FilterEmbedding(np.zeros((1, 1, 3), np.uint8))
    return maps_of_tile(FilterTile(tuple(levels), embedding), 0, [model])[0]


def channels_of(cells: np.ndarray) -> list[int]:
    """Return how many features each of three levels has; they differ."""
    size = cells.shape[1]
    return [size // 6, size // 3, size // 2]


def test_unmarked_objects_do_not_spoil_the_pixel_model() -> None:
    rng = np.random.default_rng(0)
    size = 18
    ground = rng.normal(size=(400, size)).astype(np.float32)
    objects = rng.normal(size=(60, size)).astype(np.float32) + 3
    unmarked = rng.normal(size=(150, size)).astype(np.float32) + 3
    background = np.concatenate([ground, unmarked])
    none = np.zeros(len(objects), bool)
    model = learn_pixels(objects, Background(background), np.zeros(len(background), bool), none, channels_of(objects))
    maps = maps_of(model, np.concatenate([unmarked, ground]))
    assert maps.shape == (4, 1, 550)
    assert maps[0, 0, :150].mean() == pytest.approx(1, abs=0.2)
    assert maps[0, 0, 150:].mean() == pytest.approx(0, abs=0.2)
    assert np.abs(maps[1:]).max() <= 1 + 1e-5
    both = maps_of(averaged([model, model]), objects)
    assert both == pytest.approx(maps_of(model, objects), abs=1e-5)


def test_certain_background_stays_background() -> None:
    rng = np.random.default_rng(1)
    size = 12
    objects = rng.normal(size=(50, size)).astype(np.float32) + 2
    ground = rng.normal(size=(300, size)).astype(np.float32)
    decoys = objects[:30] + np.float32([0.0] * (size - 1) + [6.0])
    background = np.concatenate([ground, decoys])
    certain = np.arange(len(background)) >= len(ground)
    model = learn_pixels(objects, Background(background), certain, np.zeros(len(objects), bool), channels_of(objects))
    scores = [maps_of(model, rows)[0].mean() for rows in (objects, decoys)]
    assert scores[0] > scores[1] + 0.5


@pytest.mark.parametrize("share", [0.02, 0.4, 0.9, 1.0])
def test_moments_of_some_of_the_background_are_those_of_these_cells(share: float) -> None:
    rng = np.random.default_rng(2)
    background = Background(rng.gamma(2, 30, (500, 7)).astype(np.float32))
    chosen = rng.random(500) < share
    mean, covariance = background.moments(chosen)
    rows = background.scaled[chosen].astype(np.float64)
    assert mean == pytest.approx(rows.mean(0), abs=1e-10)
    assert covariance == pytest.approx(np.cov(rows, rowvar=False, bias=True), abs=1e-10)


def test_features_without_spread_are_no_accident() -> None:
    same = np.ones((9, 6), np.float32)
    model = learn_pixels(same, Background(same), np.zeros(9, bool), np.ones(9, bool), channels_of(same))
    assert np.isfinite(maps_of(model, same)).all()


def test_cells_lie_where_the_mask_lies() -> None:
    mask = np.zeros((100, 90), bool)
    mask[20:60, 30:50] = True
    shares = cells_of(InstanceMask(mask, 0, 0, mask.shape), 256, 128)  # cells of two pixels
    rows, columns = np.nonzero(shares > 0.6)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 29, 15, 24)
    assert np.isnan(shares[50:]).all()
    assert np.isnan(shares[:, 45:]).all()
    assert np.isfinite(shares[:50, :45]).all()


@pytest.mark.parametrize("side", [64, 200, 256, 304, 640])
def test_the_share_of_a_cell_is_what_of_its_area_lies_on_the_mask(side: int) -> None:
    mask = np.random.default_rng(3).random((90, 75)) < 0.4
    shares, cell = cells_of(InstanceMask(mask, 0, 0, mask.shape), side, 128), side / 128

    def parts(length: int, number: int) -> NDArray[np.float64]:
        """How much of each pixel lies in a cell."""
        low, high = np.arange(length), np.arange(1, length + 1)
        return (np.minimum(high, (number + 1) * cell) - np.maximum(low, number * cell)).clip(0)

    for row, column in ((0, 0), (3, 7), (11, 4), (int(89 / cell), int(74 / cell))):
        expected = parts(90, row) @ mask @ parts(75, column) / cell**2
        assert shares[row, column] == pytest.approx(expected, abs=1e-6)


def test_examples_side_by_side_are_measured_on_maps_learned_without_them() -> None:
    shape = (40, 60)
    masks = [InstanceMask(np.ones((10, 10), bool), x, 15, shape) for x in (10, 20, 32)]
    frame = TrainingFrame(np.zeros((*shape, 3), np.uint8), masks)
    every = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None, None], (4, 2, *shape))
    maps = held_out(every, frame, [0, 1, 2], 10.0)
    for number, mask in enumerate(masks):
        assert (mask.under(maps[0]) == 1 + number).all()
    assert (maps[:, :5] == 0).all()


def flat_maps(shape: tuple[int, int]) -> FrameMaps:
    plane = np.zeros(shape, np.float32)
    return FrameMaps(plane, plane, plane, plane, np.zeros((3, *shape), np.float32))


def test_descriptors_tell_shape_and_contrast() -> None:
    left, right, plane = two_touching_discs()
    blurred = ndimage.gaussian_filter(plane, 1)
    edges = ndimage.gaussian_gradient_magnitude(plane, 1)
    maps = FrameMaps(blurred, blurred, edges, blurred, np.stack([plane] * 3))
    disc, pair = describe([crop_to_object(left), crop_to_object(left | right)], maps, 24.0, NOTHING)
    assert np.exp(disc[0]) == pytest.approx(left.sum())
    assert disc[1] > 0.95 > 0.6 > pair[1]
    assert disc[2] == pytest.approx(1, abs=0.03)
    assert disc[5] > 0.3
    assert disc[15:18] == pytest.approx([1, 1, 1])


def test_a_mask_is_described_alike_alone_and_among_others() -> None:
    rng = np.random.default_rng(5)
    shape = (90, 110)
    planes = [ndimage.gaussian_filter(rng.normal(size=shape), 2).astype(np.float32) for _ in range(7)]
    maps = FrameMaps(*planes[:4], np.stack(planes[4:]))
    labels, count = ndimage.label(planes[0] > 0.02)
    masks = [crop_to_object(labels == number) for number in range(1, count + 1)]
    assert any(min(mask.box[:2]) == 0 for mask in masks)  # some lie on the border
    each = Proposed(masks, np.ones(len(masks), int))
    together = describe(masks, maps, 12.0, each)
    alone = np.concatenate([describe([mask], maps, 12.0, each) for mask in masks])
    assert together == pytest.approx(alone, rel=1e-5, abs=1e-6)
    assert describe(masks, maps, 12.0, each, sheet=2000) == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_descriptors_are_what_they_are_called() -> None:
    rng = np.random.default_rng(6)
    shape = (60, 70)
    planes = [ndimage.gaussian_filter(rng.normal(size=shape), 2).astype(np.float32) for _ in range(7)]
    mask = np.zeros(shape, bool)
    mask[20:40, 25:37] = True
    row = describe([crop_to_object(mask)], FrameMaps(*planes[:4], np.stack(planes[4:])), 16.0, NOTHING)[0]
    inner, outer = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    depth = 1.6
    core, rim, surroundings = inner > depth, mask & (inner <= depth), (outer > 1) & (outer <= 4)
    contrast, score = planes[0], planes[3]
    assert row[1] == pytest.approx(np.sqrt((12**2) / (20**2)))
    assert row[4] == pytest.approx(contrast[core].mean(), rel=1e-4)
    assert row[6] == pytest.approx(contrast[mask].mean() - contrast[surroundings].mean(), rel=1e-4)
    assert row[7] == pytest.approx(contrast[mask].std(), rel=1e-4)
    assert row[10] == pytest.approx(score[rim].mean(), rel=1e-4)
    assert row[14] == pytest.approx(np.percentile(score[mask], 10), rel=1e-4)
    assert row[15] == pytest.approx(planes[4][mask].mean(), rel=1e-4)


@pytest.mark.parametrize(
    "mask", [np.ones((1, 1), bool), np.ones((7, 9), bool), np.eye(5, dtype=bool), np.ones((1, 6), bool)]
)
def test_descriptors_are_finite_for_any_mask(mask: np.ndarray) -> None:
    rows = describe([crop_to_object(mask)], flat_maps(mask.shape), 3.0, NOTHING)
    assert rows.shape == (1, 19)
    assert np.isfinite(rows).all()
    assert describe([], flat_maps((4, 4)), 3.0, NOTHING).shape == (0, 19)


def test_the_regression_separates_what_is_separate_and_stays_finite() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(40, 5)) + 2, rng.normal(size=(200, 5))])
    positive = np.arange(240) < 40
    fitted = fit_logistic(features, positive, np.where(positive, 5.0, 1.0))
    odds = fitted.log_odds(features)
    assert np.mean((odds > 0) == positive) > 0.95
    assert np.isfinite(fitted.log_odds(np.full((1, 5), 1e300))).all()
    assert np.isfinite(fitted.log_odds(np.full((1, 5), np.nan))).all()


def test_the_regression_is_that_of_its_definition() -> None:
    """At the solution the penalised gradient is 0: weighted residuals against the features balance the ridge."""
    rng = np.random.default_rng(3)
    features, positive = rng.normal(size=(90, 3)), rng.random(90) < 0.4
    importance = rng.random(90) + 0.1
    fitted = fit_logistic(features, positive, importance)
    scaled = (features - fitted.mean) / fitted.scale
    chance = 1 / (1 + np.exp(-fitted.log_odds(features)))
    residual = importance / importance.mean() * (chance - positive)
    assert scaled.T @ residual == pytest.approx(-60.0 * fitted.weights, abs=1e-4)
    assert residual.sum() == pytest.approx(0, abs=1e-4)


def test_rows_of_one_kind_are_no_accident() -> None:
    fitted = fit_logistic(np.ones((4, 2)), np.ones(4, bool), np.ones(4))
    assert np.isfinite(fitted.log_odds(np.ones((1, 2)))).all()


@pytest.mark.parametrize("sigma", [1.5, 24.0, 50.0])
def test_a_wide_mean_is_that_of_the_gaussian(sigma: float) -> None:
    plane = np.random.default_rng(2).normal(size=(301, 210)).astype(np.float32) + np.linspace(
        0, 5, 210, dtype=np.float32
    )
    expected = ndimage.gaussian_filter(plane, sigma)
    assert np.abs(local_mean(plane, sigma) - expected).max() < 0.02 * np.ptp(plane)
    assert local_mean(plane, sigma).dtype == np.float32


def test_what_is_much_longer_than_any_example_is_not_detected(filters: Backbone) -> None:
    rows, columns = np.mgrid[:200, :320]
    grey = np.full((200, 320), 50.0)
    centres = [(30 + 44 * (i % 7), 30 + 44 * (i // 7)) for i in range(14)]
    masks = [(columns - x) ** 2 + (rows - y) ** 2 <= 100 for x, y in centres]
    for mask in masks:
        grey[mask] = 150
    grey[150:153, 20:300] = 150  # as large as two and a half of the discs
    grey += np.random.default_rng(0).normal(0, 6, grey.shape)
    image = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    segmenter = FewShotSegmenter(filters).fit([Exemplar(image, mask=mask) for mask in masks[:8]])
    result = segmenter.predict(image)
    assert len(result.detections) >= 6
    assert (
        max(np.hypot(*item.instance.data.shape) for item in (*result.detections, *result.below)) < 3 * 21 * 2**0.5 + 1
    )
