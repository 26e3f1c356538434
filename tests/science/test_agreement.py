"""Which mask a point means."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_fewshot.examples.points import APPEARANCE, Alternatives, agreeing, appearance, input_scale, spread_of
from sam2_fewshot.geometry.outlines import crop_to_object

NONE = np.zeros((0, APPEARANCE))


def look(area: float, contrast: float = 4.0) -> list[float]:
    return [np.log(area), *[contrast] * 3]


def point(*masks: tuple[list[float], float], holding: tuple[int, ...] = ()) -> Alternatives:
    """Give each mask's look and predicted IoU, and which of them hold another mark."""
    looks, ious = zip(*masks, strict=True)
    return Alternatives(np.array(looks), np.array(ious), np.isin(np.arange(len(masks)), holding))


def test_one_point_gets_what_sam_2_is_surest_of() -> None:
    assert agreeing([point((look(100), 0.7), (look(10_000), 0.9), (look(300), 0.8))], NONE) == [1]
    assert agreeing([], NONE) == []


@pytest.mark.parametrize("odd", [look(40_000), look(2), look(100, contrast=-9.0)])
def test_a_mask_like_the_other_points_is_preferred_to_a_somewhat_surer_one(odd: list[float]) -> None:
    clear = [point((look(area), 0.9), (odd, 0.5)) for area in (90, 100, 110)]
    unclear = point((odd, 0.85), (look(105), 0.8))
    assert agreeing([unclear], NONE) == [0]
    assert agreeing([*clear, unclear], NONE) == [0, 0, 0, 1]


def test_where_sam_2_is_much_surer_it_is_believed() -> None:
    clear = [point((look(area), 0.9)) for area in (90, 100, 110)]
    assert agreeing([*clear, point((look(40_000), 0.95), (look(100), 0.5))], NONE)[-1] == 0


def test_objects_of_one_kind_may_differ_in_size() -> None:
    points = [point((look(area), 0.9), (look(400), 0.87)) for area in (150, 400, 1000)]
    assert agreeing(points, NONE) == [0, 0, 0]


def test_points_meet_where_it_costs_least_whatever_their_order() -> None:
    # Each point alone would take the clump; together all but one are nearly as sure of the small one.
    points = [point((look(30_000), 0.8), (look(100 + i), 0.79)) for i in range(4)]
    points.append(point((look(30_000), 0.3), (look(100), 0.75)))
    assert agreeing(points, NONE) == [1] * 5
    assert agreeing(points[::-1], NONE) == [1] * 5


def test_outlines_say_what_is_meant() -> None:
    points = [point((look(3000), 0.9), (look(100), 0.75)) for _ in range(3)]
    assert agreeing(points, NONE) == [0, 0, 0]
    assert agreeing(points, np.array([look(95), look(105), look(120)])) == [1, 1, 1]
    assert agreeing(points[:1], np.array([look(95)])) == [1]


def test_a_mask_that_holds_another_mark_must_be_much_surer() -> None:
    assert agreeing([point((look(200), 0.9), (look(100), 0.7), holding=(0,))], NONE) == [1]
    assert agreeing([point((look(200), 0.9), (look(100), 0.5), holding=(0,))], NONE) == [0]


def test_very_many_points_are_still_chosen_for() -> None:
    points = [point((look(90 + i % 20), 0.8), (look(40_000), 0.82)) for i in range(1500)]
    points[:500] = [point((look(90 + i % 20), 0.9)) for i in range(500)]
    assert sum(agreeing(points, NONE)) == 0


def test_two_points_do_not_outvote_sam_2() -> None:
    points = [point((look(40_000), 0.8), (look(100), 0.78)), point((look(100), 0.9))]
    assert agreeing(points, NONE) == [0, 0]
    assert agreeing([*points, points[1]], NONE) == [1, 0, 0]


def test_appearance_is_size_and_contrast() -> None:
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[..., 0], pixels[10:20, 10:30] = 10, (60, 40, 20)
    inside = np.zeros((40, 50), bool)
    inside[10:20, 10:30] = True
    values = appearance(crop_to_object(inside), pixels, 10.0)
    assert values == pytest.approx([np.log(200), 5, 4, 2])
    assert np.isfinite(appearance(crop_to_object(np.ones((40, 50), bool)), pixels, spread_of(pixels))).all()
    assert spread_of(np.full((5, 5, 3), 7, np.uint8)) == 1


def test_a_window_that_is_no_square_is_scaled_by_its_own_width_and_height() -> None:
    assert input_scale((10, 20, 110, 70), 1000).tolist() == [10, 20]
