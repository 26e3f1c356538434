"""Objects on the planes of arrays: label images that are painted where they are read, records, and the review."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import Polygon, box

from sam2_fewshot.annotations.arrays import LabelImage, axis_names, label_image, location_of, masks_of, records_of
from sam2_fewshot.annotations.review import CONFIRMED, EXAMPLE, FOUND, UNWANTED, Mark, Part, Results
from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.outlines import mask_to_area, polygon_to_mask
from sam2_fewshot.records import Detection, InstanceMask, Location

SHAPE, AXES = (2, 40, 3, 50), (1, 3)


def detection(x, y, side=6, score=0.9, shape=(40, 50)):
    outline = box(x, y, x + side, y + side)
    return Detection(polygon_to_mask(outline, shape), outline, score, 0.5, 0.8)


@pytest.fixture(scope="module")
def results():
    """Squares on two planes of an array whose rows and columns are its axes 1 and 3."""
    made = Results(SHAPE, AXES)
    made.add(Part((0, 1), (0, 0, 50, 40), [detection(3, 4), detection(30, 20, 9, 0.4), detection(46, 36, 8)], 0.05))
    made.add(Part((1, 2), (0, 0, 50, 40), [detection(10, 10, 5, 0.2)], 0.1))
    made.show(0.0)
    return made


def painted(results):
    whole = np.zeros(SHAPE, np.int32)
    for label, (mask, place) in enumerate(zip(results.masks, results.places, strict=True), 1):
        whole[place[0], :, place[1], :][mask.full()] = label
    return whole


indices = st.one_of(
    st.integers(-2, 1),
    st.slices(40),
)


@given(key=st.tuples(st.one_of(st.integers(-2, 1), st.slices(2)), st.slices(40), st.integers(0, 2), st.slices(50)))
def test_any_part_is_painted_as_of_the_whole(results, key):
    np.testing.assert_array_equal(LabelImage(results)[key], painted(results)[key])


def test_it_is_an_array_for_numpy(results):
    image = LabelImage(results)
    whole = painted(results)
    assert (image.shape, image.ndim, image.size, image.dtype) == (SHAPE, 4, whole.size, np.int32)
    np.testing.assert_array_equal(np.asarray(image), whole)
    np.testing.assert_array_equal(image[..., 3], whole[..., 3])
    np.testing.assert_array_equal(image[1], whole[1])
    assert len(image) == 2
    with pytest.raises(InputError, match="cannot be painted on"):
        image[0, 3:5] = 7


@pytest.mark.parametrize("step", [2, 3, 4])
def test_levels_have_each_so_many_th_pixel(results, step):
    np.testing.assert_array_equal(np.asarray(LabelImage(results, step)), painted(results)[:, ::step, :, ::step])


def test_large_planes_get_a_pyramid(results):
    assert isinstance(label_image(results), LabelImage)
    levels = label_image(results, largest=20)
    assert isinstance(levels, list)
    assert [level.shape for level in levels] == [(2, 40, 3, 50), (2, 20, 3, 25), (2, 10, 3, 13)]


def test_threshold_and_area_choose_and_the_image_follows():
    made = Results((40, 50), (0, 1))
    made.add(Part((), (0, 0, 50, 40), [detection(3, 4), detection(30, 20, 9, 0.4)], 0.05))
    assert made.show(0.5) == 1
    assert set(np.unique(LabelImage(made))) == {0, 2}  # the best is painted last
    assert made.show(0.0, 50) == 1
    assert set(np.unique(LabelImage(made))) == {0, 1}
    assert made.show(0.0, 0, 50) == 1
    assert made.floor == 0.05
    table = made.table()
    assert list(table["index"]) == [2]
    assert (table["kind"][0], table["area"][0], table["x"][0]) == (FOUND, 36, 6.0)


@pytest.mark.parametrize(("by_score", "scores"), [(True, [0.4, 0.9]), (False, [0.9, 0.4])])
def test_labels_follow_the_scores_or_the_order_in_which_objects_were_added(by_score, scores):
    made = Results((40, 50), (0, 1), by_score)
    made.add(Part((), (0, 0, 50, 40), [detection(3, 4), detection(30, 20, 9, 0.4)], 0.05))
    assert list(made.table()["score"]) == scores
    assert made.scores[np.asarray(LabelImage(made))[5, 5] - 1] == 0.9


def test_what_is_found_anew_takes_the_place_of_what_was_there():
    made = Results((40, 50), (0, 1))
    made.add(Part((), (0, 0, 50, 40), [detection(3, 4), detection(30, 20)], 0.05))
    made.add(Part((), (0, 0, 20, 40), [detection(5, 30), detection(30, 20)], 0.05))
    made.show(0.0)
    assert sorted(item.bbox[:2] for item in made.items) == [(5, 30), (30, 20)]


def test_what_is_found_on_both_sides_of_a_seam_is_there_once():
    made = Results((40, 50), (0, 1))
    left, right = detection(14, 10), detection(16, 10)
    made.add(Part((), (0, 0, 20, 40), [left], 0.05), Part((), (20, 0, 50, 40), [right, detection(30, 10)], 0.05))
    assert sorted(item.bbox[0] for item in made.items) == [14, 30]


def test_blocks_with_many_objects_are_taken_at_once():
    shape = (320, 2000)
    base = detection(0, 0, shape=shape)
    mask = base.instance
    made, began = Results(shape, (0, 1)), time.thread_time()
    for left in range(0, 2000, 500):
        places = [(left + 10 * (i % 50), 10 * (i // 50)) for i in range(1000)]
        found = [replace(base, instance=InstanceMask(mask.data, x, y, shape)) for x, y in places]
        made.add(Part((), (left, 0, left + 500, 320), found, 0.05))
    assert len(made.items) == 4000
    assert time.thread_time() - began < 10  # to compare each with each would take minutes


def test_marks_hide_what_was_found_on_them_and_are_objects_themselves():
    made = Results((40, 50), (0, 1))
    made.add(Part((), (0, 0, 50, 40), [detection(3, 4), detection(30, 20), detection(15, 30)], 0.05))
    marks = [Mark((), box(3, 4, 9, 9)), Mark((), box(30, 20, 36, 26), UNWANTED), Mark((), box(400, 4, 409, 9))]
    made.mark(marks)
    made.show(0.0)
    table = made.table()
    assert list(table["kind"]) == [EXAMPLE, FOUND]
    assert np.isnan(table["similarity"][0])
    assert made.label(marks[0]) == 1
    assert made.label(None) == 0
    made.mark([Mark((), box(15, 30, 21, 36), CONFIRMED)])
    made.show(1.0)
    assert list(made.table()["kind"]) == [CONFIRMED]


def test_a_cell_whose_nucleus_is_marked_as_not_wanted_is_displayed_and_asked_about():
    made = Results((40, 50), (0, 1))
    cell, nucleus, half = detection(3, 4, 20), detection(9, 9, 6), detection(9, 9, 5)
    made.add(Part((), (0, 0, 50, 40), [cell, nucleus, half], 0.05))
    made.mark([Mark((), box(9, 9, 15, 15), UNWANTED)])
    assert made.show(0.0) == 1
    assert asked_in_order(made) == [cell]
    made.mark([Mark((), box(9, 9, 15, 15))])
    assert made.show(0.0) == 1, "what holds a wanted one is no other object"
    assert asked_in_order(made) == []


def asked_in_order(made: Results) -> list[Detection]:
    asked: list[Detection] = []
    while (item := made.to_mark_next(0.5, asked)) is not None:
        asked.append(item)
    return asked


def test_each_is_asked_about_once_those_that_teach_most_first():
    shape = (60, 400)
    made = Results(shape, (0, 1))
    assert made.to_mark_next(0.5, []) is None
    # Many small ones near the threshold, and two large ones that are surer.
    alike = [detection(9 * i, 5, score=0.5 + 0.01 * (i % 5 - 2), shape=shape) for i in range(30)]
    other = [detection(20 + 50 * i, 30, 25, 0.8 - 0.5 * i, shape) for i in range(2)]
    made.add(Part((), (0, 0, 400, 60), [*alike, *other], 0.05))
    asked = asked_in_order(made)
    assert len(asked) == len({id(item) for item in asked}) == 32
    assert asked[0].score == 0.5
    assert max(abs(item.score - 0.5) for item in asked[:3]) > 0.1, "not the same again and again"


def test_what_is_marked_is_not_asked_about():
    made = Results((40, 50), (0, 1))
    made.add(Part((), (0, 0, 50, 40), [detection(15 * i, 5, score=0.5) for i in range(3)], 0.05))
    made.mark([Mark((), box(15, 5, 21, 11), UNWANTED)])
    assert sorted(item.bbox[0] for item in asked_in_order(made)) == [0, 30]


def test_what_was_asked_and_then_marked_still_counts_as_asked():
    shape = (60, 400)
    made = Results(shape, (0, 1))
    large = [detection(20 + 50 * i, 30, 25, 0.5, shape) for i in range(3)]
    small = [detection(9 * i, 5, score=0.45, shape=shape) for i in range(3)]
    made.add(Part((), (0, 0, 400, 60), [*large, *small], 0.05))
    first = made.to_mark_next(0.5, [])
    assert first is not None
    assert first.area == 625
    made.mark([Mark((), first.polygon, CONFIRMED)])
    second = made.to_mark_next(0.5, [first])
    assert second is not None
    third = made.to_mark_next(0.5, [first, second])
    assert third is not None
    assert (second.score, third.area) == (0.5, 36), "one of the highest scores, and then: large ones were answered"


@pytest.mark.parametrize(
    ("labels", "count", "names"),
    [
        ((), 0, []),
        ((), 1, ["z"]),
        ((), 2, ["time", "z"]),
        (("-3", "-2"), 2, ["time", "z"]),
        (("T",), 1, ["time"]),
        (("z", "t"), 2, ["z", "time"]),
        (("p", "c", "z"), 3, ["xy", "xy", "z"]),
    ],
)
def test_axes_are_named(labels, count, names):
    assert axis_names(labels, count) == names


def test_several_axes_of_positions_are_counted_through():
    assert location_of((2, 1, 4), (3, 5, 9), ["xy", "xy", "z"]) == Location(11, 4, 0)


def test_records_are_in_the_order_of_their_places():
    labels = np.zeros((2, 3, 20, 20), int)
    labels[1, 2, 3:6, 4:9] = 7
    labels[0, 1, 10:12, 10:12] = 3
    objects = [
        (place, Detection(mask, mask_to_area(mask), 0.5, 0.5, 0.5), (str(label),))
        for place in np.ndindex(2, 3)
        for label, mask in masks_of(labels[place])
    ]
    records = records_of("cells: 1", objects[::-1], labels.shape)
    assert [record.location for record in records] == [Location(0, 1, 0), Location(0, 2, 1)]
    assert [record.tags for record in records] == [(("3",),), (("7",),)]
    assert (records[0].size_z, records[0].size_t, records[0].frame_shape) == (3, 2, (20, 20))
    assert records[1].detections[0].bbox == (4, 3, 9, 6)
    assert records[1].detections[0].location == Location(0, 2, 1)


@pytest.mark.parametrize("label", [1, 4_000_000_000, np.iinfo(np.uint64).max])
def test_labels_may_be_any_number(label):
    labels = np.zeros((20, 30), np.uint64)
    labels[3:6, 4:9] = label
    ((number, mask),) = masks_of(labels)
    assert (number, mask.box, mask.area) == (label, (4, 3, 9, 6), 15)


def test_an_outline_that_covers_no_pixel_is_no_mark():
    made = Results((40, 50), (0, 1))
    made.mark([Mark((), Polygon([(1.1, 1.1), (1.2, 1.1), (1.2, 1.2)]))])
    assert not made.items
