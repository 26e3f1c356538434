"""Where the guided method's score is cut, by what lies on the examples' frames."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_fewshot.methods.guided.judging import CutRange, Marked, choose_cut
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.similarity.logistic import Logistic

ODDS = Logistic(np.zeros(1), np.ones(1), np.ones(1), 0.0)
"""A judge whose log-odds are the only feature."""


def frame_of(odds: list[float], drawn: int = 0) -> Marked:
    """Return a frame with squares in a row that do not touch, each with its log-odds."""
    masks = [InstanceMask(np.ones((3, 3), bool), 5 * i, 0, (10, 1000)) for i in range(len(odds))]
    return Marked([], [], masks, np.array(odds).reshape(-1, 1), drawn)


def test_the_cut_is_low_where_nothing_speaks_against_it() -> None:
    assert choose_cut(ODDS, CutRange(-2.0, 2.0), [frame_of([4.0] * 18 + [0.0] * 2 + [-4.0] * 30)]) == -2.0
    # Examples that are better than the middle of their kind leave more of it in between.
    assert choose_cut(ODDS, CutRange(-2.0, 2.0), [frame_of([4.0] * 18 + [0.0] * 9)]) == -2.0


def test_the_cut_lies_above_what_looks_alike() -> None:
    alike = frame_of([4.0] * 20 + [0.0] * 20)
    assert choose_cut(ODDS, CutRange(-2.0, 2.0), [alike]) == pytest.approx(0.0)
    # A tenth more than reach the higher cut are expected, and one; they stay.
    mixed = frame_of([4.0] * 20 + [1.0] * 3 + [0.0] * 20)
    assert choose_cut(ODDS, CutRange(-2.0, 2.0), [mixed]) == pytest.approx(0.5)


def test_all_frames_count_and_what_the_user_drew_does_not() -> None:
    pure, alike = frame_of([9.0] * 10 + [3.0] * 10, drawn=10), frame_of([0.0] * 9)
    assert choose_cut(ODDS, CutRange(-2.0, 2.0), [pure]) == -2.0
    assert choose_cut(ODDS, CutRange(-2.0, 2.0), [pure, alike]) == pytest.approx(0.0)
    assert choose_cut(ODDS, CutRange(-2.0, 2.0), []) == -2.0


def test_of_nested_candidates_one_counts() -> None:
    frame = frame_of([4.0] * 10)
    nested = Marked([], [], [*frame.masks, *frame.masks], np.r_[frame.features, frame.features - 4.0], 0)
    assert choose_cut(ODDS, CutRange(-2.0, 2.0), [nested]) == -2.0
