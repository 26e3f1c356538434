from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import grown, intersect, mask_iou, most_shared, overlaps, shared_area, touching
from sam2_fewshot.records import InstanceMask

PAIRS = arrays(bool, st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9)))


@given(PAIRS)
def test_cropped_masks_overlap_like_whole_ones(pair: np.ndarray) -> None:
    a, b = (crop_to_object(mask) for mask in pair)
    both, either = np.sum(pair[0] & pair[1]), np.sum(pair[0] | pair[1])
    assert shared_area(a, b) == both
    assert mask_iou(a, b) == (both / either if either else 0.0)


@given(arrays(bool, st.tuples(st.integers(2, 5), st.integers(1, 7), st.integers(1, 7))))
def test_of_each_mask_the_other_is_found_that_shares_most_with_it(planes: np.ndarray) -> None:
    masks = [crop_to_object(plane) for plane in planes]
    shares = np.array([[shared_area(mask, other) for other in masks[1:]] for mask in masks])
    best = most_shared(masks, masks[1:])
    assert np.array_equal(best, np.where(shares.any(axis=1), shares.argmax(axis=1), -1)), "of equal ones the first"
    assert {(i, k) for i, k in np.argwhere(shares).tolist()} <= set(touching(masks, masks[1:]))


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(0, 4)] * 2), min_size=1, max_size=12))
def test_pairs_come_in_order_wherever_their_boxes_share_a_pixel(boxes: list[tuple[int, int, int, int]]) -> None:
    masks = [InstanceMask(np.ones((height, width), bool), x, y, (20, 20)) for x, y, width, height in boxes]

    def share(a: InstanceMask, b: InstanceMask) -> bool:
        (x0, y0, x1, y1), (left, top, right, bottom) = a.box, b.box
        return x0 < right and left < x1 and y0 < bottom and top < y1

    first, second = masks[::2], masks[1::2]
    expected = [(i, k) for i, a in enumerate(first) for k, b in enumerate(second) if share(a, b)]
    assert list(touching(first, second)) == expected
    shared = {(i, k): mask_iou(first[i], second[k]) for i, k in expected if shared_area(first[i], second[k])}
    assert overlaps(first, second) == shared


def test_without_others_nothing_is_shared() -> None:
    mask = crop_to_object(np.ones((2, 2), bool))
    assert most_shared([mask], []).tolist() == [-1]
    assert most_shared([], [mask]).tolist() == []
    assert list(touching([], [mask])) == []


@given(PAIRS, st.integers(-4, 10), st.integers(-4, 10), st.integers(0, 9), st.integers(0, 9))
def test_a_window_shows_the_mask_and_nothing_beyond_the_frame(
    pair: np.ndarray, x0: int, y0: int, width: int, height: int
) -> None:
    mask = pair[0]
    window = crop_to_object(mask).window((x0, y0, x0 + width, y0 + height))
    padded = np.pad(mask, 25)
    assert np.array_equal(window, padded[25 + y0 : 25 + y0 + height, 25 + x0 : 25 + x0 + width])


@given(PAIRS, st.integers(-4, 10), st.integers(-4, 10), st.integers(0, 9), st.integers(0, 9))
def test_what_lies_within_a_window_is_a_mask_of_it(pair: np.ndarray, x0: int, y0: int, width: int, height: int) -> None:
    whole, window = crop_to_object(pair[0]), (x0, y0, x0 + width, y0 + height)
    part, expected = whole.within(window), whole.window(window)
    if part is None:
        assert not expected.any()
        return
    assert part.frame_shape == (height, width)
    assert np.array_equal(part.full(), expected)
    assert part.box == crop_to_object(expected).box
    assert not np.shares_memory(part.data, whole.data), "a large mask is not kept for a small part of it"


def test_a_part_takes_no_more_memory_than_the_mask_however_large_the_window() -> None:
    part = InstanceMask(np.ones((3, 4), bool), 7, 8, (20, 20)).within((-(10**9), -(10**9), 10**9, 9))
    assert part is not None
    assert (part.x0, part.y0, part.data.shape) == (10**9 + 7, 10**9 + 8, (1, 4))


def test_boxes_that_only_touch_share_nothing() -> None:
    assert intersect((0, 0, 3, 3), (3, 0, 5, 3)) is None
    assert intersect((0, 0, 3, 3), (2, 1, 5, 9)) == (2, 1, 3, 3)


def test_full_puts_the_crop_in_its_place() -> None:
    full = InstanceMask(np.array([[True, False], [True, True]]), 3, 1, (4, 6)).full()
    assert full.shape == (4, 6)
    assert [tuple(index) for index in np.argwhere(full)] == [(1, 3), (2, 3), (2, 4)]


def test_a_box_grows_as_far_as_the_frame_goes() -> None:
    assert grown((5, 6, 8, 9), 2, (20, 30)) == (3, 4, 10, 11)
    assert grown((1, 0, 29, 18), 3, (20, 30)) == (0, 0, 30, 20)
