"""Where blocks lie, what they own, and how they become one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sam2_fewshot.tiling.search import SearchPlan, look_again

from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.records import Detection, InstanceMask
from sam2_fewshot.tiling.blocks import (
    Block,
    BlockFinds,
    block_plan,
    contrast_of,
    example_windows,
    is_cut,
    is_even,
    is_owned,
    join,
    least_pixels,
    window_around,
)

if TYPE_CHECKING:
    from sam2_fewshot.records import Box

SHAPE = (100, 200)


def mask(x0: int, y0: int, width: int = 4, height: int = 4) -> InstanceMask:
    return InstanceMask(np.ones((height, width), bool), x0, y0, SHAPE)


def detection(where: InstanceMask, score: float = 0.9) -> Detection:
    return Detection(where, mask_to_polygon(where), score, score, 0.5)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.integers(1, 40),
    st.integers(0, 60),
    st.integers(1, 400),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_blocks_cover_a_frame_once(
    shape: tuple[int, int], step: int, reach: int, side: int, shift: tuple[int, int]
) -> None:
    blocks = block_plan(shape, max(side**2, least_pixels(step, reach)), step, reach, shift)
    covered = np.zeros(shape, int)
    halo = -(-reach // step) * step
    for block in blocks:
        x0, y0, x1, y1 = block.core
        covered[y0:y1, x0:x1] += 1
        assert not x0 % step
        assert not y0 % step
        read = block.read
        assert (read[0], read[1]) == (max(x0 - halo, 0), max(y0 - halo, 0))
        assert (read[2], read[3]) == (min(x1 + halo, shape[1]), min(y1 + halo, shape[0]))
        assert (read[2] - read[0]) * (read[3] - read[1]) <= max(side**2, least_pixels(step, reach))
    assert (covered == 1).all()


def test_a_mask_at_the_end_of_what_was_read_is_cut_but_not_at_the_end_of_the_frame() -> None:
    read = (20, 0, 60, 100)
    assert is_cut(mask(20, 10), read)
    assert is_cut(mask(56, 10), read)
    assert not is_cut(mask(40, 0), read)
    assert not is_cut(mask(40, 96), read)
    assert is_cut(mask(40, 46), (20, 0, 60, 50))
    assert is_cut(mask(40, 50), (20, 50, 60, 100))


def test_each_object_has_one_owner() -> None:
    left, right = Block((0, 0, 100, 100), (0, 0, 120, 100)), Block((100, 0, 200, 100), (80, 0, 200, 100))
    for x in range(90, 110):
        assert is_owned(mask(x, 5), left) != is_owned(mask(x, 5), right)
    assert is_owned(mask(103, 5), left, slack=10)


def two(left: list[Detection], right: list[Detection], cut: list[InstanceMask] | None = None) -> list[BlockFinds]:
    return [
        BlockFinds(Block((0, 0, 100, 100), (0, 0, 120, 100)), left, cut or []),
        BlockFinds(Block((100, 0, 200, 100), (80, 0, 200, 100)), right),
    ]


def test_an_object_seen_by_both_neighbours_comes_once_from_its_owner() -> None:
    own, other = detection(mask(92, 5, 12, 6), 0.6), detection(mask(93, 5, 12, 6), 0.9)
    found, cut = join(two([own], [other]))
    assert [item.score for item in found] == [0.6]
    assert cut == []


def test_an_object_that_each_took_for_the_others_is_not_lost() -> None:
    # The left block saw it reach farther right, the right one farther left: both middles lie beyond the border.
    found, _ = join(two([detection(mask(96, 5, 12, 6), 0.8)], [detection(mask(90, 5, 12, 6), 0.7)]))
    assert [item.score for item in found] == [0.8]


def test_what_lies_below_the_threshold_has_no_part_in_what_does_not() -> None:
    low, high = detection(mask(92, 5, 12, 6), 0.3), detection(mask(93, 5, 12, 6), 0.9)
    found, _ = join(two([low], [high]), 0.5)  # the low one is owned, and would be taken first
    assert [item.score for item in found] == [0.9]
    piece = mask(92, 5, 28, 6)
    most_of_it = detection(mask(92, 5, 20, 6), 0.3)
    assert join(two([most_of_it], [], [piece]), 0.2)[1] == []
    assert join(two([most_of_it], [], [piece]), 0.5)[1] == [piece]


def test_a_part_of_another_is_dropped_and_neighbours_stay() -> None:
    whole, part, beside = mask(90, 5, 18, 10), mask(101, 6, 4, 4), mask(109, 5, 6, 6)
    found, _ = join(two([detection(whole, 0.9)], [detection(part, 0.95), detection(beside, 0.7)]))
    assert sorted(item.bbox[0] for item in found) == [101, 109]  # two owned ones: the better stays
    found, _ = join(two([detection(whole, 0.97)], [detection(part, 0.95), detection(beside, 0.7)]))
    assert sorted(item.bbox[0] for item in found) == [90, 109]


def test_finds_of_one_block_are_left_as_they_are() -> None:
    # What may overlap within a block is the method's business.
    found, _ = join(two([detection(mask(5, 5)), detection(mask(6, 6))], []))
    assert len(found) == 2


def test_cut_pieces_are_told_once_and_only_when_nobody_has_the_object() -> None:
    whole = detection(mask(80, 5, 40, 4))
    assert join(two([], [whole], [mask(90, 5, 30, 4)]))[1] == []
    left = join(two([], [], [mask(60, 5, 60, 4), mask(70, 6, 50, 3), mask(60, 50, 60, 4)]))[1]
    assert [piece.y0 for piece in left] == [5, 50]


def test_nothing_joined_is_nothing() -> None:
    assert join([]) == ([], [])


def test_a_window_grows_with_the_piece_and_stays_inside() -> None:
    assert window_around(mask(90, 40, 20, 4), 5) == (65, 15, 135, 69)
    assert window_around(mask(0, 0, 200, 4), 5) == (0, 0, 200, 100)


def test_contrast_does_not_see_noise_but_sees_a_small_object() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(100, 3, (200, 200, 3)).clip(0, 255).astype(np.uint8)
    assert contrast_of(noise) > 15
    assert contrast_of(noise, 8) < 4
    assert is_even(noise, 200, 24)
    noise[90:114, 90:114] += 60
    assert not is_even(noise, 200, 24)
    assert contrast_of(np.zeros((3, 3, 3), np.uint8), 9) == 0


def test_examples_near_one_another_are_shown_together() -> None:
    boxes = [(1000, 1000, 1020, 1020), (1100, 1050, 1115, 1070)]
    ((window, numbers),) = example_windows(boxes, (9000, 9000), 10**6)
    assert (window, numbers) == ((880, 880, 1235, 1190), [0, 1])


@pytest.mark.parametrize("most", [10**5, 10**6])
def test_examples_far_apart_are_shown_in_parts(most: int) -> None:
    boxes = [(x, y, x + 20, y + 20) for x in (0, 40, 5000, 8980) for y in (0, 8000)]
    parts = example_windows(boxes, (9000, 9000), most)
    assert sorted(number for _, numbers in parts for number in numbers) == list(range(8))
    for (x0, y0, x1, y1), numbers in parts:
        assert 0 <= x0 < x1 <= 9000
        assert 0 <= y0 < y1 <= 9000
        for number in numbers:
            a, b, c, d = boxes[number]
            assert x0 <= a
            assert y0 <= b
            assert c <= x1
            assert d <= y1


def looked_at_again(piece: InstanceMask, whole: InstanceMask, most: int) -> tuple[list[Detection], int, list[Box]]:
    """Look again for a piece of an object; each search finds what of the object lies in its window."""
    plan = SearchPlan([], 5, most, 5.0, 1.0, [])
    windows: list[Box] = []

    def search(window: Box) -> list[Detection]:
        windows.append(window)
        x0, y0, x1, y1 = (max(whole.box[0], window[0]), whole.box[1], min(whole.box[2], window[2]), whole.box[3])
        return [detection(mask(x0, y0, x1 - x0, y1 - y0), 0.9)]

    found, lost = look_again([], [piece], plan, search)
    return found, lost, windows


def test_an_object_longer_than_the_window_around_its_piece_is_looked_at_once_more() -> None:
    piece, whole = mask(90, 40, 10, 4), mask(30, 40, 150, 4)
    found, lost, windows = looked_at_again(piece, whole, 10**6)
    assert [item.bbox for item in found] == [(30, 40, 180, 44)]
    assert lost == 0
    assert len(windows) == 3


def test_an_object_that_outgrows_the_largest_window_is_told() -> None:
    found, lost, windows = looked_at_again(mask(90, 40, 10, 4), mask(30, 40, 150, 4), 45 * 40)
    assert (found, lost) == ([], 1)
    assert len(windows) == 1


def test_a_piece_of_nothing_is_no_object() -> None:
    plan = SearchPlan([], 5, 10**6, 5.0, 1.0, [])
    assert look_again([], [mask(90, 40, 10, 4)], plan, lambda window: []) == ([], 0)
    piece = mask(90, 40, 10, 4)
    same = [detection(mask(75, 40, 25, 4))]  # reaches to the window's end, and no further when there is more to see
    assert look_again([], [piece], plan, lambda window: same if window[0] == 75 else []) == ([], 0)
