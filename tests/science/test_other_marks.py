"""Marks that are learned from elsewhere, or not at all, are neither objects nor ground where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from disc_scenes import discs
from scipy import ndimage
from shapely import Polygon

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.examples import training_set as training
from sam2_fewshot.methods.base import TrainingFrame
from sam2_fewshot.methods.guided.training_windows import training_windows
from told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disc_scenes import Scene
    from numpy.typing import NDArray

    from sam2_fewshot.examples.points import Alternatives
    from sam2_fewshot.protocols import Backbone

NOTHING_ELSE = "no other places score as high on the same images."


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Eight discs, and nothing else."""
    return discs([(40 + 70 * (i % 4), 55 + 110 * (i // 4), 14) for i in range(8)])


def union(frame: TrainingFrame) -> NDArray[np.bool_]:
    where = np.zeros(frame.pixels.shape[:2], bool)
    for mask in [*frame.positives, *frame.negatives, *frame.others]:
        where |= mask.full()
    return where


def test_each_window_knows_all_that_is_marked_on_it() -> None:
    image, masks = discs([(20 + 24 * i, 30 + (17 * i) % 60, 4) for i in range(12)], (900, 900))
    everywhere = np.zeros(image.shape[:2], bool)
    for mask in masks:
        everywhere |= mask.full()
    windows = training_windows([TrainingFrame(image, masks[:7], masks[7:10], others=masks[10:])], 80)
    assert sum(len(window.positives) for window in windows) == 7
    assert sum(len(window.negatives) for window in windows) == 3
    for window in windows:
        (x, y), (height, width) = window.corner, window.pixels.shape[:2]
        assert np.array_equal(union(window), everywhere[y : y + height, x : x + width])


def test_marks_near_one_another_on_a_large_frame_are_not_taken_for_other_places(filters: Backbone) -> None:
    image, masks = discs([(20 + 24 * i, 30 + (17 * i) % 60, 4) for i in range(12)], (900, 900))
    segmenter = FewShotSegmenter(filters).fit([Exemplar(image, mask=mask.full()) for mask in masks])
    assert NOTHING_ELSE in segmenter.summary


def test_an_image_read_anew_for_each_example_is_one_frame(filters: Backbone, scene: Scene) -> None:
    image, masks = scene
    segmenter = FewShotSegmenter(filters).fit([Exemplar(image.copy(), mask=mask.full()) for mask in masks])
    assert NOTHING_ELSE in segmenter.summary
    once = FewShotSegmenter(filters).fit([Exemplar(image, mask=mask.full()) for mask in masks])
    assert segmenter.summary == once.summary


def test_marks_beyond_max_examples_are_not_taken_for_other_places(filters: Backbone, scene: Scene) -> None:
    image, masks = scene
    segmenter = FewShotSegmenter(filters, settings=Settings(max_examples=5), progress=Told())
    segmenter.fit([Exemplar(image, mask=mask.full()) for mask in masks])
    assert NOTHING_ELSE in segmenter.summary


@pytest.mark.parametrize("most_pixels", [10**9, 60_000], ids=["whole", "in parts"])
@pytest.mark.parametrize("wider", [0, 1])
def test_what_is_marked_twice_teaches_what_it_teaches_once(
    filters: Backbone, scene: Scene, most_pixels: int, wider: int
) -> None:
    image, masks = scene
    once = [Exemplar(image, mask=mask.full()) for mask in masks[:5]]
    again = [
        Exemplar(image, mask=np.copy(each.mask) if not wider else ndimage.binary_dilation(each.mask)) for each in once
    ]
    found = training.training_set([*once, *again], filters, Settings(), most_pixels, Told())
    assert sorted(found.areas) == sorted(mask.area for mask in masks[:5])
    known = training.training_set(once, filters, Settings(), most_pixels, Told())
    assert [len(frame.others) for frame in found.frames] == [len(frame.others) for frame in known.frames]


def test_what_is_drawn_again_a_little_wider_is_found_as_it_was_drawn_first(filters: Backbone, scene: Scene) -> None:
    image, masks = scene
    other, _ = discs([(30 + 60 * (i % 4), 45 + 90 * (i // 4), 13 + i % 3) for i in range(8)])
    once = [Exemplar(image, mask=mask.full()) for mask in masks[:5]]
    again = [Exemplar(image, mask=ndimage.binary_dilation(each.mask)) for each in once]
    one, two = (
        FewShotSegmenter(filters, progress=Told()).fit(marks).segment(other) for marks in (once, [*once, *again])
    )
    assert [(each.bbox, each.area, each.score) for each in two] == [(each.bbox, each.area, each.score) for each in one]


def test_parts_of_a_frame_know_the_marks_of_one_another(filters: Backbone, scene: Scene) -> None:
    image, masks = scene
    exemplars = [Exemplar(image, mask=mask.full(), negative=i == 7) for i, mask in enumerate(masks)]
    learned = training.training_set(exemplars, filters, Settings(), 60_000, Told())
    assert len(learned.frames) > 1
    assert sum(len(frame.positives) + len(frame.negatives) for frame in learned.frames) == 8
    everywhere = np.zeros(image.shape[:2], bool)
    for mask in masks:
        everywhere |= mask.full()
    for frame in learned.frames:
        (x, y), (height, width) = frame.corner, frame.pixels.shape[:2]
        assert np.array_equal(union(frame), everywhere[y : y + height, x : x + width])


def test_examples_that_cannot_be_used_do_not_count_among_the_most(filters: Backbone, scene: Scene) -> None:
    image, masks = scene
    told = Told()
    nothing = np.zeros(image.shape[:2], bool)
    bad = [Exemplar(image, mask=nothing), Exemplar(image, polygon=Polygon([(0, 0), (np.inf, 0), (10, 10)]))]
    good = [Exemplar(image, mask=mask.full()) for mask in masks[:2]]
    learned = training.training_set([*bad, *good], filters, Settings(max_examples=1), 10**9, told)
    assert learned.areas.tolist() == [masks[0].area]
    assert told.warnings[:2] == [
        "Example 1 is left out: its mask is empty.",
        "Example 2 is left out: its outline has no area.",
    ]


def test_outlines_on_another_frame_tell_what_a_point_means(
    filters: Backbone, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, masks = scene
    known = []

    def agreeing(points: Sequence[Alternatives], outlined: NDArray[np.float64]) -> list[int]:
        known.append((len(points), len(outlined)))
        return [0] * len(points)

    monkeypatch.setattr(training, "agreeing", agreeing)
    for other in (image, image[::-1].copy()):
        known.clear()
        marks = [Exemplar(image, mask=mask.full()) for mask in masks[:3]]
        training.training_set([*marks, Exemplar(other, point=(40.5, 165.5))], filters, Settings(), 10**9, Told())
        assert (1, 3) in known
