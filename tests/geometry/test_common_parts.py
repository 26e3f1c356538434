from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sam2_fewshot.records import InstanceMask, common_part

SHAPE = (12, 14)
SPANS = [st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True).map(sorted) for size in SHAPE]
BOXES = st.tuples(*SPANS).map(lambda spans: (spans[1][0], spans[0][0], spans[1][1], spans[0][1]))


def cut(plane: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    return plane[box[1] : box[3], box[0] : box[2]]


@given(BOXES, BOXES)
def test_what_boxes_have_in_common_is_copied_and_nothing_else(one, other) -> None:
    plane = np.arange(1, 1 + SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    into, of = common_part(one, other)
    copied = np.zeros_like(cut(plane, one))
    copied[into] = cut(plane, other)[of]
    in_other = np.zeros(SHAPE, bool)
    cut(in_other, other)[...] = True
    assert np.array_equal(copied, cut(np.where(in_other, plane, 0), one))
    assert all(each.start >= 0 for part in (into, of) for each in part)


@given(BOXES, BOXES)
def test_a_window_of_a_mask_may_reach_beyond_it(box, window) -> None:
    height, width = box[3] - box[1], box[2] - box[0]
    mask = InstanceMask(np.indices((height, width)).sum(axis=0) % 2 == 0, box[0], box[1], SHAPE)
    assert np.array_equal(mask.window(window), cut(mask.full(), window))
