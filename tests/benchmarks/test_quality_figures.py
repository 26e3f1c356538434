"""The figures that methods are matched by."""

import pytest
from benchmarks.quality.figures import MatchedFrame, Prediction, counts, curve, match_frame, reach, reached
from hypothesis import given
from hypothesis import strategies as st
from quality_world import box


def test_average_precision_by_hand():
    frames = [
        MatchedFrame([(0.9, 0), (0.8, -1), (0.7, 1), (0.6, 0)], [10, 10], [True, True]),
        MatchedFrame([(0.5, 0)], [10, 10], [True, False]),
    ]
    # By score: hit, miss, hit, the same object again, hit; 4 objects. Precision made monotone: 1, 2/3, 3/5.
    found = curve(frames)
    assert found.average_precision == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert found.best_f1 == pytest.approx(2 * 3 / (5 + 4))
    assert found.best_threshold == 0.5


def test_finds_of_the_same_score_come_together():
    first = curve([MatchedFrame([(0.5, -1), (0.5, 0)], [10], [True])])
    second = curve([MatchedFrame([(0.5, 0), (0.5, -1)], [10], [True])])
    assert first == second
    assert first.average_precision == 0.5


def test_no_finds_or_no_objects_give_no_figures():
    assert curve([MatchedFrame([], [10], [False])]).best_f1 == 0
    assert curve([MatchedFrame([(0.5, -1)], [], [])]).average_precision == 0
    assert reach([MatchedFrame([], [], [])]) == (None, [None] * 3, [])


def test_recall_of_the_proposals_by_thirds():
    areas = [1, 2, 10, 20, 100, 200]
    overall, by_size, edges = reach([MatchedFrame([], areas, [False, False, True, False, True, True])])
    assert overall == 0.5
    assert by_size == [0, 0.5, 1]
    assert 2 < edges[0] < 10 < 20 < edges[1] < 100


def test_a_find_on_what_is_ignored_counts_neither_way():
    truth, ignored = [box(10, 10, 10, 10)], [box(50, 50, 10, 10)]
    predictions = [
        Prediction(box(10, 10, 10, 9), 0.9),
        Prediction(box(50, 50, 10, 10), 0.8),
        Prediction(box(80, 80, 5, 5), 0.1),
    ]
    matched = match_frame(predictions, truth, ignored)
    assert matched.scored == [(0.9, 0), (0.1, -1)]
    assert matched.reached == [True]
    scores = counts(predictions, truth, ignored, 0.5)
    assert (scores.tp, scores.fp, scores.fn) == (1, 1, 0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 80),
            st.integers(0, 80),
            st.integers(4, 20),
            st.integers(4, 20),
            st.sampled_from([0.1, 0.5, 0.9]),
        ),
        max_size=12,
    )
)
def test_the_best_f1_of_the_curve_is_that_of_one_to_one_matching(drawn):
    truth = [box(x, y, 13, 13) for x in (5, 20, 60) for y in (5, 18, 60)]
    predictions = [Prediction(box(x, y, w, h), score) for x, y, w, h, score in drawn]
    found = curve([match_frame(predictions, truth, [])])
    over_all = [
        counts([f for f in predictions if f.score >= cut], truth, [], 0.5).f1
        for cut in {f.score for f in predictions} or {0.0}
    ]
    assert found.best_f1 == pytest.approx(max(over_all))
    assert 0 <= found.average_precision <= 1


def test_recall_of_the_proposals_counts_what_was_dropped_later():
    truth = [box(10, 10, 10, 10), box(50, 50, 10, 10), box(80, 10, 10, 10)]
    assert reached([box(10, 10, 10, 6), box(50, 50, 10, 4), box(52, 50, 10, 10)], truth) == [True, True, False]
    assert reached([], truth) == [False, False, False]
