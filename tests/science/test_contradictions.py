"""Examples that contradict or repeat each other, or are odd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calls import calls_of
from sam2_fewshot import Exemplar, InputError, Settings
from sam2_fewshot.examples.checks import CheckedExample, check
from sam2_fewshot.examples.training_set import training_set
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import touching
from told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.examples.training_set import TrainingSet
    from sam2_fewshot.protocols import Backbone

Discs = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]


def square(left: int, top: int, side: int = 10) -> NDArray[np.bool_]:
    inside = np.zeros((200, 200), bool)
    inside[top : top + side, left : left + side] = True
    return inside


def mark(name: str, left: int, top: int, side: int = 10, *, negative: bool = False, frame: str = "a") -> CheckedExample:
    return CheckedExample(name, frame, crop_to_object(square(left, top, side)), negative)


def test_what_is_wanted_and_not_is_left_out_with_both_names() -> None:
    marks = [mark("Example 1", 0, 0), mark("Example 2", 50, 50), mark("the negative example 3", 51, 51, negative=True)]
    verdict = check(marks)
    assert verdict.contradicting == {1, 2}
    (sentence,) = verdict.sentences
    assert sentence.startswith("Example 2 and the negative example 3 mark the same object")
    assert "neither is learned from" in sentence


def test_the_same_place_on_another_frame_is_another_object() -> None:
    verdict = check([mark("A", 0, 0), mark("B", 0, 0, negative=True, frame="b"), mark("C", 0, 0, frame="c")])
    assert not verdict.contradicting | verdict.repeated
    assert verdict.sentences == []


def test_a_sentence_begins_with_a_capital_and_a_file_name_does_not() -> None:
    negative, wanted = mark("the negative example 1", 0, 0, negative=True), mark("a.tif, object 2", 0, 0)
    assert check([negative, wanted]).sentences[0].startswith("The negative example 1 and a.tif, object 2 mark")
    assert check([wanted, negative]).sentences[0].startswith("a.tif, object 2 and the negative example 1 mark")


def test_marks_are_compared_with_those_of_their_frame_alone() -> None:
    marks = [mark(str(i), 0, 0, frame=str(i)) for i in range(60)]
    with calls_of(touching) as steps:  # a generator goes on once for each pair, and ends
        assert check(marks).sentences == []
    assert len(steps) == 2 * len(marks)


def test_an_object_marked_twice_counts_once() -> None:
    verdict = check([mark("A", 0, 0), mark("B", 1, 0), mark("C", 0, 1), mark("D", 100, 100)])
    assert verdict.repeated == {1, 2}
    assert verdict.sentences == ["A and B; A and C mark the same object, which is counted once."]


def test_a_repeated_object_that_is_contradicted_is_left_out_with_all_its_marks() -> None:
    verdict = check([mark("A", 0, 0), mark("B", 0, 0), mark("C", 0, 0, negative=True), mark("D", 100, 100)])
    assert verdict.contradicting == {0, 1, 2}
    assert verdict.repeated == set()


def test_a_part_of_another_size_may_be_unwanted() -> None:
    verdict = check([mark("The cell", 0, 0, 40), mark("its nucleus", 10, 10, negative=True)])
    assert not verdict.contradicting | verdict.repeated
    (sentence,) = verdict.sentences
    assert "its nucleus within The cell" in sentence
    assert "Both are learned from" in sentence


def test_of_what_is_left_out_nothing_else_is_said() -> None:
    marks = [mark(name, 20 * i, 0) for i, name in enumerate("ABC")]
    large = [mark("D", 100, 100, 60), mark("E", 100, 100, 60, negative=True)]
    part = mark("F", 110, 110, 12, negative=True)
    for more in ([], [part]):
        verdict = check([*marks, *large, *more])
        assert verdict.contradicting == {3, 4}
        (sentence,) = verdict.sentences
        assert sentence.startswith("D and E mark the same object")


def test_touching_objects_are_no_contradiction() -> None:
    assert check([mark("A", 0, 0), mark("B", 7, 0, negative=True), mark("C", 0, 8)]).sentences == []


def test_an_odd_size_is_said_by_name() -> None:
    plain = [mark(f"Example {i}", 20 * i, 0) for i in range(1, 5)]
    verdict = check([*plain, mark("cells.geojson, object 9", 0, 50, 40), mark("N", 100, 100, 90, negative=True)])
    assert not verdict.contradicting | verdict.repeated
    (sentence,) = verdict.sentences
    assert sentence.startswith("cells.geojson, object 9 (1,600 px) has an area more than 8 times that of the median")
    assert "100 px" in sentence
    small = check([*plain, mark("X", 0, 50, 3), mark("Y", 50, 50, 30)]).sentences[0]
    assert small.startswith("X (9 px); Y (900 px) have an area")
    assert check([mark("A", 0, 0), mark("B", 50, 50, 90)]).sentences == []
    # Unwanted ones are of any size.
    unwanted = [mark(f"N{i}", 20 * i, 0, negative=True) for i in range(4)]
    assert check([*unwanted, mark("M", 100, 100, 90, negative=True)]).sentences == []


def test_of_many_only_some_are_named() -> None:
    pairs = [mark(f"{'N' * negative}{i}", 15 * i, 0, negative=negative) for i in range(6) for negative in (False, True)]
    (sentence,) = check(pairs).sentences
    assert sentence.startswith("0 and N0; 1 and N1; 2 and N2; and 3 more mark the same object")
    assert check([]).sentences == []


def learned_from(model: Backbone, exemplars: Sequence[Exemplar], told: Told) -> TrainingSet:
    return training_set(exemplars, model, Settings(), 10**9, told)


def test_contradictions_are_found_between_equal_frames_and_all_kinds_of_marks(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    told = Told()
    rows, columns = np.nonzero(labels == 3)
    learned = learned_from(
        filters,
        [
            Exemplar(image, mask=labels == 1),
            Exemplar(image, point=(columns.mean() + 0.5, rows.mean() + 0.5)),
            Exemplar(image.copy(), mask=labels == 3, negative=True, label="debris.geojson, object 1"),
        ],
        told,
    )
    assert [(len(frame.positives), len(frame.negatives)) for frame in learned.frames] == [(1, 0)]
    assert len(learned.known) == 3  # none of them is reported as a find
    (sentence,) = told.warnings
    assert sentence.startswith("debris.geojson, object 1 (negative) and Example 2 mark the same object")


def test_of_an_outline_and_a_point_the_outline_is_kept(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    told = Told()
    rows, columns = np.nonzero(labels == 3)
    point = Exemplar(image, point=(columns.mean() + 0.5, rows.mean() + 0.5))
    learned = learned_from(filters, [point, Exemplar(image, mask=labels == 3)], told)
    assert learned.areas.tolist() == [np.sum(labels == 3)]
    assert told.warnings == ["Example 2 and Example 1 mark the same object, which is counted once."]


def test_where_nothing_is_left_it_is_an_error(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    both = [Exemplar(image, mask=labels == 3, negative=negative) for negative in (False, True)]
    with pytest.raises(InputError, match="what is wanted is marked as not wanted, too"):
        learned_from(filters, both, Told())


def test_whether_an_example_is_negative_may_be_a_number_of_numpy(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    negative = np.arange(1, 5) == 4
    exemplars = [Exemplar(image, mask=labels == n, negative=negative[n - 1]) for n in range(1, 5)]
    learned = learned_from(filters, exemplars, Told())
    assert len(learned.areas) == 3
    assert [len(frame.negatives) for frame in learned.frames] == [1]
