"""The limits on the area are those of the run that searches, whatever those were with which it was learned."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
from disc_scenes import discs, found_of

from sam2_fewshot import Exemplar, FewShotSegmenter, FewShotWarning, Settings
from sam2_fewshot.methods.guided.limits import in_force
from sam2_fewshot.records import Frame

if TYPE_CHECKING:
    from disc_scenes import Disc, Scene

    from sam2_fewshot.protocols import Backbone

MIXED: list[Disc] = [(25 + 36 * (i % 5), 24 + 42 * (i // 5), 4 + i % 5) for i in range(20)]
MIDDLE: list[Disc] = [(x, y, 7) for x, y, _ in MIXED]
LARGE: list[Disc] = [(40 + 72 * (i % 4), 40 + 65 * (i // 4), 16) for i in range(12)]


def fit(backbone: Backbone, marked: list[Disc], **settings: int) -> FewShotSegmenter:
    image, masks = discs(marked)
    marks = [Exemplar(Frame(image), mask=mask.full()) for mask in masks[:12]]
    return FewShotSegmenter(backbone, settings=Settings(**settings)).fit(marks)


def with_limits(segmenter: FewShotSegmenter, backbone: Backbone, **settings: int) -> FewShotSegmenter:
    return FewShotSegmenter(backbone, settings=Settings(**settings)).adopt(segmenter.object_model)


def test_a_limit_is_in_force_as_long_as_no_example_lies_beyond_it() -> None:
    assert in_force((100.0, 200.0), (100, 200)) == (100, 200)
    assert in_force((100.0, 200.0), (101, 200)) == (0, 200)
    assert in_force((100.0, 200.0), (100, 199)) == (100, 0)
    assert in_force((100.0, 200.0), (0, 0)) == (0, 0)


@pytest.fixture(scope="module")
def mixed(filters: Backbone) -> FewShotSegmenter:
    return fit(filters, MIXED)


def test_a_largest_area_holds_for_what_was_learned_without_one(filters: Backbone, mixed: FewShotSegmenter) -> None:
    image, masks = discs(LARGE)
    assert found_of(with_limits(mixed, filters, max_mask_area=900).segment(Frame(image)), masks) == len(LARGE)
    assert not with_limits(mixed, filters, max_mask_area=500).segment(Frame(image))


def test_a_largest_area_that_was_learned_with_does_not_stay(filters: Backbone) -> None:
    image, masks = discs(LARGE)
    learned = fit(filters, MIXED, max_mask_area=500)
    assert not learned.segment(Frame(image))
    assert found_of(with_limits(learned, filters).segment(Frame(image)), masks) == len(LARGE)


def test_a_smallest_area_holds_for_what_was_learned_without_one(filters: Backbone) -> None:
    image, masks = discs(MIXED, (225, 310))
    wanted = [mask for mask in masks if mask.area >= 110]
    learned = fit(filters, MIDDLE)
    assert min(item.area for item in learned.segment(Frame(image))) < 100
    limited = with_limits(learned, filters, min_mask_area=100).segment(Frame(image))
    assert min(item.area for item in limited) >= 100
    assert found_of(limited, wanted) == len(wanted)


def test_a_limit_that_excludes_an_example_is_ignored_and_that_is_said(
    filters: Backbone, mixed: FewShotSegmenter
) -> None:
    image, masks = discs(LARGE)
    with pytest.warns(FewShotWarning, match=r"Max Mask Area is 100 px, but the largest example has \d+ px"):
        found = with_limits(mixed, filters, max_mask_area=100).segment(Frame(image))
    assert found_of(found, masks) == len(LARGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed.segment(Frame(image))


def test_the_same_limits_give_the_same_however_they_were_learned(filters: Backbone, mixed: FewShotSegmenter) -> None:
    image, _ = discs(MIXED, (225, 310))
    known = fit(filters, MIXED, max_mask_area=250)
    fresh = known.segment(Frame(image))
    again = with_limits(known, filters, max_mask_area=250).segment(Frame(image))
    assert [(item.bbox, item.score) for item in fresh] == [(item.bbox, item.score) for item in again]


@pytest.fixture(scope="module")
def small() -> Scene:
    return discs([(25 + 36 * (i % 8), 24 + 42 * (i // 8), 6) for i in range(40)])


def test_a_smallest_area_that_is_ignored_leaves_nothing_out(filters: Backbone, small: Scene) -> None:
    image, masks = small
    learned = fit(filters, LARGE)
    with pytest.warns(FewShotWarning, match=r"Min Mask Area is 900 px, but the smallest example has \d+ px"):
        found = with_limits(learned, filters, min_mask_area=900).segment(Frame(image))
    without = with_limits(learned, filters, min_mask_area=0).segment(Frame(image))
    assert [(item.bbox, item.score) for item in found] == [(item.bbox, item.score) for item in without]
    assert found_of(found, masks) >= 0.9 * len(masks)


def test_smaller_objects_are_learned_about_whatever_the_smallest_area(filters: Backbone, small: Scene) -> None:
    image, masks = small
    learned = fit(filters, LARGE, min_mask_area=600)
    assert not found_of(learned.segment(Frame(image)), masks)
    assert found_of(with_limits(learned, filters).segment(Frame(image)), masks) >= 0.9 * len(masks)
