from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from shapely import Polygon, box

from sam2_fewshot.geometry.outlines import (
    crop_to_object,
    fill_rings,
    largest_part,
    mask_to_area,
    mask_to_polygon,
    polygon_to_mask,
    valid_polygon,
)
from sam2_fewshot.records import InstanceMask

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def test_a_single_pixel_lies_around_its_centre() -> None:
    mask = np.zeros((5, 7), bool)
    mask[2, 4] = True
    polygon = mask_to_polygon(crop_to_object(mask))
    assert polygon.is_valid
    assert (polygon.centroid.x, polygon.centroid.y) == (4.5, 2.5)
    assert polygon.area == 0.5


def test_a_rectangle_keeps_its_last_row_and_column() -> None:
    mask = polygon_to_mask(box(2, 1, 6, 4), (5, 7))
    assert mask.box == (2, 1, 6, 4)
    assert mask.area == 12


def test_a_mask_that_fills_the_frame_comes_back() -> None:
    instance = crop_to_object(np.ones((6, 9), bool))
    assert polygon_to_mask(mask_to_polygon(instance), (6, 9)).full().all()


@given(MASKS)
def test_the_largest_part_without_holes_comes_back_exactly(mask: np.ndarray) -> None:
    instance = crop_to_object(mask)
    if not instance.area:
        return
    polygon = mask_to_polygon(instance)
    assert polygon.is_valid
    assert polygon.geom_type == "Polygon"
    parts, count = ndimage.label(np.pad(mask, 1))
    filled = [ndimage.binary_fill_holes(parts == part, np.ones((3, 3)))[1:-1, 1:-1] for part in range(1, count + 1)]
    back = polygon_to_mask(polygon, mask.shape).full()
    assert back.sum() >= max(np.sum(parts == part) for part in range(1, count + 1))
    # A part that sits in another one's hole belongs to the filled outline.
    assert any(np.array_equal(back, part) for part in filled)


@given(MASKS, st.floats(0.05, 2.0))
@example(np.ones((3, 1), bool), 0.75)
@example(np.ones((1, 3), bool), 0.75)
def test_smoothing_gives_a_valid_polygon_near_the_outline(mask: np.ndarray, smoothing: float) -> None:
    instance = crop_to_object(mask)
    if not instance.area:
        return
    exact, simpler = mask_to_polygon(instance), mask_to_polygon(instance, smoothing)
    assert simpler.is_valid
    assert simpler.area > 0
    assert len(simpler.exterior.coords) <= len(exact.exterior.coords)
    assert simpler.exterior.hausdorff_distance(exact.exterior) <= smoothing + 1e-9


def test_an_outline_starts_where_the_crop_lies_in_the_frame() -> None:
    instance = InstanceMask(np.ones((2, 3), bool), 10, 20, (30, 40))
    assert mask_to_polygon(instance).bounds == (10, 20, 13, 22)


def test_an_empty_mask_has_no_outline() -> None:
    with pytest.raises(ValueError, match="empty"):
        mask_to_polygon(crop_to_object(np.zeros((3, 3), bool)))


def test_what_lies_outside_the_frame_is_cut_off() -> None:
    assert polygon_to_mask(box(-5, -5, 2, 2), (10, 10)).box == (0, 0, 2, 2)
    assert polygon_to_mask(box(20, 20, 30, 30), (10, 10)).area == 0
    assert polygon_to_mask(box(3.1, 3.1, 3.2, 3.2), (10, 10)).area == 0


def test_holes_are_left_out() -> None:
    ring = Polygon(box(0, 0, 9, 9).exterior.coords, [box(3, 3, 6, 6).exterior.coords])
    assert polygon_to_mask(ring, (9, 9)).area == 81 - 9


def test_a_self_crossing_outline_gives_its_largest_part() -> None:
    bow_tie = Polygon([(0, 0), (10, 10), (10, 0), (0, 2)])
    mended = valid_polygon(bow_tie)
    assert mended is not None
    assert mended.is_valid
    assert mended.area > 15


@pytest.mark.parametrize("flat", [Polygon(), Polygon([(0, 0), (1, 1), (2, 2)])])
def test_an_outline_without_area_is_none(flat: Polygon) -> None:
    assert valid_polygon(flat) is None


def test_a_spiked_outline_is_mended() -> None:
    spiked = Polygon([(0, 0), (4, 0), (4, 4), (4, 9), (4, 4), (0, 4)])
    mended = valid_polygon(spiked)
    assert mended is not None
    assert mended.area == 16


def test_an_outline_with_a_spike_that_crosses_itself_gives_its_largest_part() -> None:
    mended = valid_polygon(Polygon([(0, 0), (6, 6), (6, 0), (0, 6), (0, 9), (0, 6)]))
    assert mended is not None
    assert mended.area == 9


def test_the_area_of_a_mask_is_its_largest_part_with_the_holes_in_it() -> None:
    mask = np.zeros((20, 20), bool)
    mask[1, 1] = mask[18, 18] = True
    mask[4:12, 4:12] = True
    mask[6:9, 6:9] = False
    area = mask_to_area(crop_to_object(mask))
    assert area.bounds == (4, 4, 12, 12)
    assert len(area.interiors) == 1
    drawn = polygon_to_mask(area, mask.shape)
    assert drawn.area == 64 - 9


@given(MASKS)
def test_the_largest_part_is_one_and_the_largest(mask: np.ndarray) -> None:
    instance = crop_to_object(mask)
    if not instance.area:
        return
    part = largest_part(instance)
    parts, count = ndimage.label(mask)
    assert part.area == max(np.sum(parts == number) for number in range(1, count + 1))
    assert ndimage.label(part.full())[1] == 1
    assert not (part.full() & ~mask).any()


@pytest.mark.parametrize("low", [0.5, 2.5])
def test_centres_on_an_outline_belong_to_it(low: float) -> None:
    assert polygon_to_mask(box(low, low, low + 8, low + 8), (20, 20)).area == 81


def test_a_pixel_counts_where_an_outline_ends_beyond_its_centre() -> None:
    mask = polygon_to_mask(box(2.2, 2.2, 10.7, 10.7), (20, 20))
    assert mask.box == (2, 2, 11, 11)
    assert mask.area == 81


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_rings_are_filled_alike_however_much_is_held_at_a_time(at_once: int) -> None:
    rng = np.random.default_rng(0)
    rings = [rng.uniform(-3, 23, (5, 2)) for _ in range(9)] + [np.array([(2.0, 2.0), (9.0, 2.0), (9.0, 7.0)])]
    shapes = [(20, 15 + i) for i in range(10)]
    for one, other in zip(fill_rings(rings, shapes, at_once), fill_rings(rings, shapes), strict=True):
        assert np.array_equal(one, other)
