"""The shape of results: pinholes, exact outlines, and the smallest area, the same in masks and outlines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam2_fewshot import Frame, Settings
from sam2_fewshot.geometry.outlines import PINHOLE, crop_to_object, polygon_to_mask, without_pinholes
from sam2_fewshot.methods.base import ScoredMask
from sam2_fewshot.methods.selection import marked, outlined, shape_of
from sam2_fewshot.records import InstanceMask, Kind, Location
from sam2_fewshot.tiling.blocks import View

SHAPE = (40, 50)


def holed(hole: int) -> InstanceMask:
    """A square of 20 × 20 px with a hole of some pixels in a row, and one of 3 × 3."""
    data = np.ones((20, 20), bool)
    data[5, 3 : 3 + hole] = False
    data[12:15, 12:15] = False
    return InstanceMask(data, 4, 6, SHAPE)


@pytest.mark.parametrize("hole", [1, 2, 5])
def test_pinholes_are_filled_at_default_smoothing(hole):
    instance, polygon = shape_of(holed(hole), Settings())
    assert instance.area == 400 - 9
    assert not polygon.interiors


def test_larger_holes_stay_in_the_mask():
    instance, _ = shape_of(holed(PINHOLE + 1), Settings())
    assert instance.area == 400 - 9 - PINHOLE - 1


@pytest.mark.parametrize("hole", [1, 5, 6])
def test_without_smoothing_mask_and_outline_have_the_same_holes(hole):
    instance, polygon = shape_of(holed(hole), Settings(smoothing=0))
    assert instance.area == 400 - 9 - hole
    assert len(polygon.interiors) == 2
    back = polygon_to_mask(polygon, SHAPE)
    assert back.box == instance.box
    assert (back.data == instance.data).all()


@given(arrays(bool, (12, 14)))
def test_an_outline_without_smoothing_gives_the_mask_back(mask):
    if not mask.any():
        return
    instance, polygon = shape_of(crop_to_object(mask), Settings(smoothing=0))
    assert (polygon_to_mask(polygon, mask.shape).full() == instance.full()).all()


@given(arrays(bool, (10, 10)), st.integers(0, 20))
def test_what_is_filled_was_surrounded(mask, most):
    instance = InstanceMask(mask, 0, 0, mask.shape)
    filled = without_pinholes(instance, most).data
    assert (filled | ~mask).all()  # nothing is taken away
    assert not (filled & ~mask)[[0, -1]].any()  # what reaches the border is no hole
    assert (without_pinholes(InstanceMask(filled, 0, 0, mask.shape), most).data == filled).all()


def found(mask: np.ndarray, least_area: int) -> list[int]:
    view = View(Frame(np.zeros((*SHAPE, 3), np.uint8)), (0, 0, SHAPE[1], SHAPE[0]), np.zeros((*SHAPE, 3), np.uint8), [])
    item = ScoredMask(crop_to_object(mask), 0.9, 0.9, 0.9)
    return [detection.area for detection in outlined([item], view, Settings(), least_area)]


def test_what_falls_below_the_smallest_area_with_its_smaller_parts_is_left_out():
    mask = np.zeros(SHAPE, bool)
    mask[2:7, 2:7] = True  # 25 px
    mask[20:23, 20:23] = True  # 9 px
    assert found(mask, 30) == []
    assert found(mask, 25) == [25]
    assert found(mask, 60) == [25]  # looked for although it is small, like the examples


def test_what_the_user_marked_has_the_shape_of_what_is_found():
    item = marked(holed(3), Settings(), Location(2), Kind.CONFIRMED)
    assert (item.area, item.score, item.kind, item.location) == (391, 1.0, "confirmed", Location(2))
    assert np.isnan([item.similarity, item.predicted_iou]).all()
