"""Bounded distances are those of the general transform, and masks lie apart on a sheet."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sam2_fewshot.geometry.sheets import sheets, squared_distances, stacked


@pytest.mark.parametrize("reach", [1, 3, 7, 48, 49, 90])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_near_distances_are_exact_and_far_ones_are_far(reach: int, share: float) -> None:
    rng = np.random.default_rng(0)
    for shape in [(1, 1), (1, 40), (37, 2), (60, 45), (150, 130)]:
        inside = ndimage.binary_dilation(rng.random(shape) < share, iterations=2)
        found = squared_distances(inside, reach)
        assert (found[~inside] == 0).all()
        if inside.all():
            assert (found > reach**2).all()
            continue
        right = np.rint(ndimage.distance_transform_edt(inside) ** 2)
        near = right <= reach**2
        assert (found[near] == right[near]).all()
        assert (found[~near] > reach**2).all()


def test_the_plane_is_left_as_it_was() -> None:
    inside = np.ones((5, 5), bool)
    inside[2, 2] = False
    before = inside.copy()
    squared_distances(inside, 3)
    assert (inside == before).all()


def test_a_plane_without_ground_is_far_everywhere() -> None:
    for reach in (2, 60):
        assert (squared_distances(np.ones((9, 200), bool), reach) > reach**2).all()


def test_masks_are_stacked_with_a_margin_around_each() -> None:
    first, second = np.ones((1, 2), bool), np.eye(2, 3, dtype=bool)
    sheet, starts, owner = stacked([first, second], 1)
    assert sheet.shape == (3 + 4, 5)
    assert starts.tolist() == [0, 3]
    assert owner.tolist() == [0] * 3 + [1] * 4
    assert (sheet[1:2, 1:3] == first).all()
    assert (sheet[4:6, 1:4] == second).all()
    assert sheet.sum() == first.sum() + second.sum()


def test_each_crop_is_on_one_sheet_and_no_sheet_of_several_is_too_large() -> None:
    shapes = np.random.default_rng(0).integers(1, 40, (200, 2))
    dealt = list(sheets(shapes, 1200))
    assert sorted(np.concatenate(dealt).tolist()) == list(range(200))
    for crops in dealt:
        heights, widths = shapes[crops].T
        assert len(crops) == 1 or heights.sum() * widths.max() <= 1200
