"""Where blocks lie, what they own, and how they become one."""

from __future__ import annotations

import math
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_fewshot.examples.windows import example_windows
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.records import Detection, Frame, FrameResult, InstanceMask
from sam2_fewshot.tiling.blocks import (
    Block,
    BlockResult,
    SearchPlan,
    View,
    is_owned,
    plan_search,
    search_block,
    view_of,
)
from sam2_fewshot.tiling.merging import merge, without_duplicates
from sam2_fewshot.tiling.overview import contrast_of, overview

if TYPE_CHECKING:
    from sam2_fewshot.records import Box

SHAPE = (100, 200)


def mask(x0: int, y0: int, width: int = 4, height: int = 4) -> InstanceMask:
    return InstanceMask(np.ones((height, width), bool), x0, y0, SHAPE)


def detection(where: InstanceMask, score: float = 0.9) -> Detection:
    return Detection(where, mask_to_polygon(where), score, score, 0.5)


@settings(max_examples=60)
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
    halo = -(-reach // step) * step
    most = max(side**2, (max(step, halo) + 2 * halo) ** 2)
    plan = plan_search(
        Frame(np.zeros((*shape, 3), np.uint8)),
        longest=reach / 2,
        diameter=5.0,
        most_pixels=most,
        step=step,
        threshold=0.5,
        shift=shift,
    )
    covered = np.zeros(shape, int)
    for block in plan.blocks:
        x0, y0, x1, y1 = block.core
        covered[y0:y1, x0:x1] += 1
        assert not x0 % step
        assert not y0 % step
        read = block.read
        assert (read[0], read[1]) == (max(x0 - halo, 0), max(y0 - halo, 0))
        assert (read[2], read[3]) == (min(x1 + halo, shape[1]), min(y1 + halo, shape[0]))
        assert (read[2] - read[0]) * (read[3] - read[1]) <= most
    assert (covered == 1).all()


def test_a_mask_at_the_end_of_what_was_read_is_clipped_but_not_at_the_end_of_the_frame() -> None:
    read = (20, 0, 60, 100)
    assert mask(20, 10).is_clipped(read)
    assert mask(56, 10).is_clipped(read)
    assert not mask(40, 0).is_clipped(read)
    assert not mask(40, 96).is_clipped(read)
    assert mask(40, 46).is_clipped((20, 0, 60, 50))
    assert mask(40, 50).is_clipped((20, 50, 60, 100))


def test_each_object_has_one_owner() -> None:
    left, right = Block((0, 0, 100, 100), (0, 0, 120, 100)), Block((100, 0, 200, 100), (80, 0, 200, 100))
    for x in range(90, 110):
        assert is_owned(mask(x, 5), left.core) != is_owned(mask(x, 5), right.core)
    assert is_owned(mask(103, 5), left.core, slack=10)


def two(left: list[Detection], right: list[Detection], clipped: list[InstanceMask] | None = None) -> list[BlockResult]:
    return [
        BlockResult(Block((0, 0, 100, 100), (0, 0, 120, 100)), FrameResult(left), clipped or []),
        BlockResult(Block((100, 0, 200, 100), (80, 0, 200, 100)), FrameResult(right)),
    ]


def test_a_region_is_covered_by_whole_tiles_and_judged_by_what_it_shows() -> None:
    pixels = np.zeros((95, 208, 3), np.uint8)
    pixels[:, :40] = 250  # beyond the region
    pixels[60:70, 120:130] = 100
    plan = plan_search(
        Frame(pixels),
        longest=5,
        diameter=5.0,
        most_pixels=60**2,
        step=10,
        threshold=0.5,
        region=(73, 21, 500, 91),
        at_most=45**2,
    )
    assert plan.region == (70, 20, 208, 95)
    covered = np.zeros(pixels.shape[:2], int)
    for block in plan.blocks:
        (x0, y0, x1, y1), (left, top, right, bottom) = block.core, block.read
        covered[y0:y1, x0:x1] += 1
        assert (x0 % 10, y0 % 10) == (0, 0)
        assert (right - left) * (bottom - top) <= 45**2
    assert (covered[20:, 70:] == 1).all()
    assert covered.sum() == covered[20:, 70:].size
    assert plan.contrast == pytest.approx(0.05 * 100)
    assert plan.most_pixels == 60**2, "what does not fit into a block is searched once more in a larger window"


def test_a_block_has_room_for_its_halo_however_little_is_allowed() -> None:
    frame = Frame(np.zeros((300, 300, 3), np.uint8))
    plan = plan_search(frame, longest=10, diameter=10.0, most_pixels=1, step=10, threshold=0.5, at_most=1)
    assert plan.halo == 20
    assert max((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (block.read for block in plan.blocks)) == plan.most_pixels
    blank = [search_block(frame, plan, block, lambda view: FrameResult()).found.blank for block in plan.blocks]
    assert blank == [1] * len(plan.blocks), "nothing is searched for where all is of one colour"


def test_what_a_block_answers_for() -> None:
    plan = SearchPlan([], 20, 10**6, diameter=5.0, contrast=-1.0, threshold=0.5)
    frame, block = Frame(np.zeros((*SHAPE, 3), np.uint8)), Block((0, 0, 100, 100), (0, 0, 120, 100))
    own, beside, far = detection(mask(40, 40)), detection(mask(101, 10)), detection(mask(108, 10))
    cut, not_in_core = detection(mask(95, 40, 25, 4), 0.5), detection(mask(110, 60, 10, 4))
    unlikely = detection(mask(95, 80, 25, 4), 0.3)
    everything = [own, beside, far, cut, not_in_core, unlikely]
    result = search_block(frame, plan, block, lambda view: FrameResult(everything, floor=0.1))
    assert result.found.detections == [own, beside]
    assert result.clipped == [cut.instance]
    assert result.found.floor == math.nextafter(0.3, 1), "of that score something is missing"
    assert search_block(frame, plan, block, lambda view: FrameResult(everything, floor=0.4)).found.floor == 0.4


def test_a_view_has_what_is_marked_in_its_window() -> None:
    known, unwanted = [mask(30, 40), mask(10, 10)], [mask(60, 70), mask(118, 50)]
    plan = SearchPlan([], 20, 10**6, 5.0, -1.0, 0.5, known=known, unwanted=unwanted)
    view = view_of(Frame(np.zeros((*SHAPE, 3), np.uint8)), plan, (20, 30, 120, 100))
    assert [each.box for each in view.known] == [(10, 10, 14, 14)]
    assert [each.box for each in view.unwanted] == [(40, 40, 44, 44), (98, 20, 100, 24)]
    assert view.placed(view.known[0]).box == known[0].box


def test_an_object_seen_by_both_neighbours_comes_once_from_its_owner() -> None:
    own, other = detection(mask(92, 5, 12, 6), 0.6), detection(mask(93, 5, 12, 6), 0.9)
    found, clipped = without_duplicates(two([own], [other]))
    assert [item.score for item in found] == [0.6]
    assert clipped == []


def test_an_object_that_each_took_for_the_others_is_not_lost() -> None:
    # The left block saw it reach farther right, the right one farther left: both middles lie beyond the border.
    found, _ = without_duplicates(two([detection(mask(96, 5, 12, 6), 0.8)], [detection(mask(90, 5, 12, 6), 0.7)]))
    assert [item.score for item in found] == [0.8]


def test_what_lies_below_the_threshold_has_no_part_in_what_does_not() -> None:
    low, high = detection(mask(92, 5, 12, 6), 0.3), detection(mask(93, 5, 12, 6), 0.9)
    found, _ = without_duplicates(two([low], [high]), 0.5)  # the low one is owned, and would be taken first
    assert [item.score for item in found] == [0.9]
    piece = mask(92, 5, 28, 6)
    most_of_it = detection(mask(92, 5, 20, 6), 0.3)
    assert without_duplicates(two([most_of_it], [], [piece]), 0.2)[1] == []
    assert without_duplicates(two([most_of_it], [], [piece]), 0.5)[1] == [piece]


def test_a_part_of_another_is_dropped_and_neighbours_stay() -> None:
    whole, part, beside = mask(90, 5, 18, 10), mask(101, 6, 4, 4), mask(109, 5, 6, 6)
    found, _ = without_duplicates(two([detection(whole, 0.9)], [detection(part, 0.95), detection(beside, 0.7)]))
    assert sorted(item.bbox[0] for item in found) == [101, 109]  # two owned ones: the better stays
    found, _ = without_duplicates(two([detection(whole, 0.97)], [detection(part, 0.95), detection(beside, 0.7)]))
    assert sorted(item.bbox[0] for item in found) == [90, 109]


def test_detections_of_one_block_are_left_as_they_are() -> None:
    # What may overlap within a block is the method's business.
    found, _ = without_duplicates(two([detection(mask(5, 5)), detection(mask(6, 6))], []))
    assert len(found) == 2


def test_clipped_pieces_are_reported_once_and_only_when_nobody_has_the_object() -> None:
    whole = detection(mask(80, 5, 40, 4))
    assert without_duplicates(two([], [whole], [mask(90, 5, 30, 4)]))[1] == []
    left = without_duplicates(two([], [], [mask(60, 5, 60, 4), mask(70, 6, 50, 3), mask(60, 50, 60, 4)]))[1]
    assert [piece.y0 for piece in left] == [5, 50]
    chain = [mask(60, 5, 40, 4), mask(95, 5, 20, 4), mask(110, 5, 30, 4)]  # the outer ones share nothing
    boxes = [(40, 0, 100, 100), (95, 0, 115, 100), (110, 0, 150, 100)]
    blocks = [BlockResult(Block(box, box), clipped=[piece]) for box, piece in zip(boxes, chain, strict=True)]
    assert without_duplicates(blocks)[1] == chain[:1]
    # What gave way to a better one explains no piece, though it covers most of it.
    better, gave_way, piece = detection(mask(91, 5, 8, 4), 0.9), detection(mask(82, 5, 40, 4), 0.6), mask(70, 5, 50, 4)
    assert without_duplicates(two([better], [gave_way], [piece])) == ([better], [piece])


def test_nothing_joined_is_nothing() -> None:
    assert without_duplicates([]) == ([], [])


def test_contrast_does_not_see_noise_but_sees_a_small_object() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(100, 3, (200, 200, 3)).clip(0, 255).astype(np.uint8)
    assert contrast_of(noise) > 15
    assert contrast_of(noise, 8) < 4
    plan = SearchPlan([], 5, 10**6, diameter=24, contrast=0.05 * 200, threshold=0.5)
    block, searched = Block((0, 0, 200, 200), (0, 0, 200, 200)), []

    def find(view: View) -> FrameResult:
        searched.append(view.window)
        return FrameResult(candidates=1)

    assert search_block(Frame(noise), plan, block, find).found.blank == 1
    assert not searched
    noise[90:114, 90:114] += 60
    assert search_block(Frame(noise), plan, block, find).found.candidates == 1
    assert searched == [block.read]
    assert contrast_of(np.zeros((3, 3, 3), np.uint8), 9) == 0


def test_examples_near_one_another_are_learned_from_together() -> None:
    boxes = [(1000, 1000, 1020, 1020), (1100, 1050, 1115, 1070)]
    ((window, numbers),) = example_windows(boxes, (9000, 9000), 10**6)
    assert (window, numbers) == ((880, 880, 1235, 1190), [0, 1])


@pytest.mark.parametrize("most", [10**5, 10**6])
def test_examples_far_apart_are_learned_from_in_parts(most: int) -> None:
    boxes = [(x, y, x + 20, y + 20) for x in (0, 40, 5000, 8980) for y in (0, 8000)]
    parts = example_windows(boxes, (9000, 9000), most)
    assert sorted(number for _, numbers in parts for number in numbers) == list(range(8))
    for (x0, y0, x1, y1), numbers in parts:
        assert 0 <= x0 < x1 <= 9000
        assert 0 <= y0 < y1 <= 9000
        assert max(x1 - x0, y1 - y0) <= 2 * most**0.5
        for number in numbers:
            a, b, c, d = boxes[number]
            assert x0 <= a
            assert y0 <= b
            assert c <= x1
            assert d <= y1


def plan_of(most: int = 10**6) -> SearchPlan:
    return SearchPlan([], 5, most, diameter=5.0, contrast=1.0, threshold=0.5)


BLOCK = Block((0, 0, 100, 100), (0, 0, 120, 100))


def searched_again(piece: InstanceMask, whole: InstanceMask, most: int) -> tuple[FrameResult, int, list[Box]]:
    """Search once more for a piece of an object; each search finds what of the object lies in its window."""
    windows: list[Box] = []

    def search(window: Box) -> FrameResult:
        windows.append(window)
        x0, y0, x1, y1 = (max(whole.box[0], window[0]), whole.box[1], min(whole.box[2], window[2]), whole.box[3])
        below = detection(mask(x0, y0, x1 - x0, y1 - y0), 0.4)
        return FrameResult([below, detection(mask(x0, y0, x1 - x0, y1 - y0), 0.9)])

    found, lost = merge([BlockResult(BLOCK, clipped=[piece])], plan_of(most), search)
    return found, lost, windows


def test_an_object_longer_than_the_window_around_its_piece_is_searched_once_more() -> None:
    piece, whole = mask(90, 40, 10, 4), mask(30, 40, 150, 4)
    found, lost, windows = searched_again(piece, whole, 10**6)
    assert [(item.bbox, item.score) for item in found.detections] == [((30, 40, 180, 44), 0.9)]
    assert lost == 0
    assert len(windows) == 3


def test_a_window_grows_with_the_piece_and_stays_inside() -> None:
    piece = mask(90, 40, 20, 4)
    assert searched_again(piece, piece, 10**6)[2] == [(65, 15, 135, 69)]
    across = mask(0, 0, 200, 4)
    assert searched_again(across, across, 10**6)[2] == [(0, 0, 200, 100)]


def test_an_object_that_outgrows_the_largest_window_is_reported() -> None:
    found, lost, windows = searched_again(mask(90, 40, 10, 4), mask(30, 40, 150, 4), 45 * 40)
    assert (found.detections, lost) == ([], 1)
    assert len(windows) == 1
    pieces = [mask(0, 10, 120, 2), mask(0, 50, 110, 2), mask(90, 80, 5, 2)]
    _, lost = merge([BlockResult(BLOCK, clipped=pieces)], plan_of(45 * 40), lambda window: FrameResult())
    assert lost == 2, "the last one fits and is no object"


def test_a_piece_of_nothing_is_no_object() -> None:
    results = [BlockResult(BLOCK, clipped=[mask(90, 40, 10, 4)])]
    found, lost = merge(results, plan_of(), lambda window: FrameResult())
    assert (found.detections, lost) == ([], 0)
    same = FrameResult(
        [detection(mask(75, 40, 25, 4))]
    )  # reaches to the window's end, and no further when there is more to see
    found, lost = merge(results, plan_of(), lambda window: same if window[0] == 75 else FrameResult())
    assert (found.detections, lost) == ([], 0)


def test_a_whole_is_compared_only_with_what_lies_where_it_does() -> None:
    compared = 0

    class Watched(InstanceMask):
        @property
        def area(self) -> int:
            nonlocal compared
            compared += 1
            return int(np.count_nonzero(self.data))

    small = [
        detection(Watched(np.ones((2, 2), bool), x, y, SHAPE)) for x in range(1, 80, 4) for y in (1, 5, 41, 60, 70, 80)
    ]
    found, compared = [], 0
    pieces = [mask(90, 40, 10, 4), mask(60, 43, 10, 4)]
    wholes = [detection(mask(30, 40, 100, 4)), detection(mask(30, 41, 90, 6))]
    results = [BlockResult(BLOCK, FrameResult(small), clipped=pieces)]
    found, lost = merge(results, plan_of(), lambda window: FrameResult(wholes))
    covered = [item for item in small if item.bbox[1] == 41 and item.bbox[0] >= 30]
    assert found.detections == [*(item for item in small if item not in covered), wholes[1]], (
        "the second covers the first"
    )
    assert lost == 0
    assert compared < len(small)


def test_a_part_of_one_whole_does_not_come_back_with_the_next() -> None:
    part, pieces = detection(mask(50, 40)), [mask(90, 40, 10, 4), mask(52, 60, 4, 10)]
    wholes = [detection(mask(30, 40, 100, 4)), detection(mask(52, 43, 4, 30))]  # the second shares two pixels with it
    results = [BlockResult(BLOCK, FrameResult([part]), clipped=pieces)]
    found, lost = merge(results, plan_of(), lambda window: FrameResult(wholes))
    assert found.detections == wholes
    assert lost == 0


@pytest.mark.parametrize(
    "others",
    [[mask(30, 43, 140, 4)], [mask(95, 10, 4, 80)], [mask(30, 43, 140, 4), mask(95, 10, 4, 80)]],
    ids=["side by side", "across", "both"],
)
def test_long_objects_that_share_a_few_pixels_are_each_found(others: list[InstanceMask]) -> None:
    wholes = [mask(20, 40, 160, 4), *others]
    blocks = [Block((0, 0, 100, 50), (0, 0, 110, 60)), Block((100, 0, 200, 50), (90, 0, 200, 60))]
    blocks += [Block((0, 50, 100, 100), (0, 40, 110, 100)), Block((100, 50, 200, 100), (90, 40, 200, 100))]

    def seen(window: Box) -> list[InstanceMask]:
        parts = [part.placed(window, SHAPE) for whole in wholes if (part := whole.within(window)) is not None]
        return [part for part in parts if part.area > 20]

    windows: list[Box] = []

    def search(window: Box) -> FrameResult:
        windows.append(window)
        return FrameResult([detection(part) for part in seen(window)])

    results = [
        BlockResult(block, clipped=[part for part in seen(block.read) if part.is_clipped(block.read)])
        for block in blocks
    ]
    found, lost = merge(results, plan_of(), search)
    assert sorted(item.bbox for item in found.detections) == sorted(whole.box for whole in wholes)
    assert lost == 0
    assert len(windows) == len(wholes), "each is searched once more, by one of its pieces"


def test_without_proposals_none_are_told() -> None:
    assert merge([BlockResult(BLOCK)], plan_of(), lambda window: FrameResult())[0].proposed is None


def test_the_figures_of_blocks_are_added_up() -> None:
    blocks = [
        FrameResult(floor=0.1, candidates=3, seconds={"propose": 1.0, "outline": 0.5}, proposed=[mask(5, 5)]),
        FrameResult(floor=0.3, candidates=4, seconds={"propose": 2.0}, proposed=[mask(50, 5)]),
        FrameResult(floor=0.1, blank=1),
    ]
    found, lost = merge([BlockResult(BLOCK, each) for each in blocks], plan_of(), lambda window: FrameResult())
    assert (found.floor, found.candidates, found.blocks, found.blank, lost) == (0.3, 7, 3, 1, 0)
    assert found.seconds == {"propose": 3.0, "outline": 0.5}
    assert found.proposed is not None
    assert [item.box for item in found.proposed] == [(5, 5, 9, 9), (50, 5, 54, 9)]


def test_parts_to_learn_from_have_surroundings_however_little_memory_there_is() -> None:
    boxes = [(100, 100, 120, 110), (130, 100, 140, 120), (900, 900, 920, 920)]
    for most in (1, 400, 2000):
        parts = example_windows(boxes, (1000, 1000), most)
        assert sorted(number for _, numbers in parts for number in numbers) == [0, 1, 2]
        assert all(x1 - x0 >= 30 for (x0, _, x1, _), _ in parts)


@pytest.mark.parametrize("step", [1, 2, 7])
def test_an_overview_takes_little_more_than_the_frame(step: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3001, 2003, 3)).astype(np.uint8)
    tracemalloc.start()
    try:
        reduced = overview(Frame(pixels), step)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * pixels.nbytes
    part = pixels[: 3001 // step * step, : 2003 // step * step].reshape(3001 // step, step, 2003 // step, step, 3)
    means = (part.sum((1, 3)) + step**2 // 2) // step**2
    assert np.array_equal(reduced[: means.shape[0], : means.shape[1]], means)
