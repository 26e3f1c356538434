"""The guided method's threshold, by what lies on the examples' frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot.methods.guided.classifier import (
    ThresholdRange,
    TrainingCandidates,
    best_threshold,
    threshold_for_precision_and_recall,
)
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from numpy.typing import NDArray


def range_of(held_out: NDArray[np.float64]) -> ThresholdRange:
    return ThresholdRange(-2.0, 2.0, held_out, unseen=np.zeros(0))


RANGE = range_of(np.linspace(1.5, 4.5, 10))
LOWEST = -2.3
"""The threshold may lie .3 below the range where this pays."""


def frame_of(odds: list[float], drawn: int = 0) -> TrainingCandidates:
    """Return a frame with squares in a row that do not touch, each with its log-odds."""
    masks = [InstanceMask(np.ones((3, 3), bool), 5 * i, 0, (10, 2000)) for i in range(len(odds))]
    return TrainingCandidates([], [], masks, np.array(odds).reshape(-1, 1), drawn)


def threshold_of(between: ThresholdRange, frames: list[TrainingCandidates]) -> float:
    """Return the threshold where the log-odds are the only feature."""
    return best_threshold(between, frames, [frame.features[:, 0] for frame in frames])


def test_the_threshold_lies_at_the_least_of_what_the_examples_reach_where_little_lies_below() -> None:
    # The lowest example reaches 1.5; a threshold far below lets in nothing more, so it counts that all are detected.
    pure = frame_of([3.0] * 20 + [-9.0] * 30)
    assert threshold_of(RANGE, [pure]) < 0.5


def test_a_threshold_that_gains_more_examples_than_it_lets_in_is_low() -> None:
    spread = range_of(np.linspace(-4.0, 4.0, 10))
    evenly = frame_of(np.linspace(-4.0, 4.0, 40).tolist())
    assert threshold_of(spread, [evenly]) == pytest.approx(LOWEST)


def test_the_threshold_lies_above_what_looks_alike() -> None:
    alike = frame_of([3.0] * 20 + [0.0] * 60)
    assert 0.0 < threshold_of(RANGE, [alike]) <= 2.0
    many = frame_of([3.0] * 20 + [0.9] * 200)
    assert threshold_of(RANGE, [many]) == pytest.approx(2.0)  # 90 % of the examples are detected in any case


def test_the_threshold_may_be_raised_freely_where_what_looks_alike_is_known_to_be_unwanted() -> None:
    few = frame_of([3.0] * 20 + [0.0] * 9)
    odds = [few.features[:, 0]]
    assert best_threshold(RANGE, [few], odds) == pytest.approx(0.0)
    assert 0.0 < best_threshold(RANGE, [few], odds, np.inf) <= 2.0


def test_all_frames_count_and_what_the_user_drew_does_not() -> None:
    pure, alike = frame_of([9.0] * 10 + [3.0] * 10, drawn=10), frame_of([0.0] * 20)
    assert threshold_of(RANGE, [pure, alike]) > threshold_of(RANGE, [pure])
    drawn = frame_of([0.0] * 20 + [3.0] * 10, drawn=20)
    assert threshold_of(RANGE, [drawn]) == threshold_of(RANGE, [frame_of([3.0] * 10)])


def test_of_nested_candidates_one_counts() -> None:
    frame = frame_of([3.0] * 10)
    nested = TrainingCandidates([], [], [*frame.masks, *frame.masks], np.r_[frame.features, frame.features - 3.0], 0)
    assert threshold_of(RANGE, [nested]) == threshold_of(RANGE, [frame])


def test_without_examples_held_out_or_detections_the_threshold_is_the_lower_end() -> None:
    assert threshold_of(range_of(np.array([3.0, 4.0])), [frame_of([3.0] * 9 + [0.0] * 40)]) == -2.0
    assert threshold_of(RANGE, []) == -2.0


def test_precision_and_recall_are_weighed_by_recall_squared_per_detection() -> None:
    # All of the examples and 20,000 detections, or the 60 % at 10 and 6,000 finds: 1 / 20,000 < .36 / 6,000.
    left_out = np.repeat([0.0, 10.0], [4_000, 6_000])
    found = np.repeat([0.0, 10.0], [14_000, 6_000])
    assert 1 < threshold_for_precision_and_recall(left_out, found, -5.0, 15.0, usual=20.0) < 10
    # With 12,000 detections, 1 / 12,000 > .36 / 6,000.
    assert threshold_for_precision_and_recall(left_out, found[8_000:], -5.0, 15.0, usual=20.0) < 0
    # Examples all alike have no spread to smooth by.
    assert -6 <= threshold_for_precision_and_recall(np.zeros(5), np.zeros(5), -6.0, 6.0, usual=6.0) <= 0


def test_a_threshold_above_the_usual_one_must_be_much_better() -> None:
    """The examples are the most striking of their kind: others score a little lower, and are not to be lost."""
    left_out = np.linspace(2.0, 4.0, 10)
    few, many = (np.concatenate([left_out, np.full(number, 0.5)]) for number in (2, 20))
    assert threshold_for_precision_and_recall(left_out, few, -2.0, 3.0, usual=9.0) > 0
    assert threshold_for_precision_and_recall(left_out, few, -2.0, 3.0, usual=0.0) == 0
    assert threshold_for_precision_and_recall(left_out, many, -2.0, 3.0, usual=0.0) > 0.5
    # Also where the usual one lies below all that is looked at.
    assert threshold_for_precision_and_recall(left_out, left_out, 1.0, 3.0, usual=0.0) == 0
