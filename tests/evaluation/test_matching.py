from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sam2_fewshot.annotations.arrays import masks_of
from sam2_fewshot.evaluation.figures import EvaluatedFrame
from sam2_fewshot.evaluation.matching import Matching, Scores
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.records import InstanceMask

SHAPE = (100, 100)


def match(
    predicted: Sequence[InstanceMask],
    truth: Sequence[InstanceMask],
    iou: float = 0.5,
    ignore: Sequence[InstanceMask] = (),
) -> Matching:
    return EvaluatedFrame("", predicted, truth, ignore=ignore).match(iou)


def box(x0: int, y0: int, width: int = 10, height: int = 10) -> InstanceMask:
    return InstanceMask(np.ones((height, width), bool), x0, y0, SHAPE)


def test_equal_sets_match_fully() -> None:
    objects = [box(0, 0), box(20, 0), box(50, 50)]
    result = match(objects, objects[::-1])
    assert result.pairs == ((0, 2, 1.0), (1, 1, 1.0), (2, 0, 1.0))
    assert result.scores == Scores(tp=3, fp=0, fn=0, mean_matched_iou=1.0)
    assert (result.scores.precision, result.scores.recall, result.scores.f1) == (1.0, 1.0, 1.0)


def test_scores_count_what_is_wrong_and_what_is_missed() -> None:
    result = match([box(0, 0), box(40, 40), box(80, 80)], [box(1, 0), box(20, 20)])
    scores = result.scores
    assert (scores.tp, scores.fp, scores.fn) == (1, 2, 1)
    assert scores.precision == pytest.approx(1 / 3)
    assert scores.recall == pytest.approx(1 / 2)
    assert scores.f1 == pytest.approx(2 / 5)
    assert scores.mean_matched_iou == pytest.approx(90 / 110)


def test_nothing_gives_zeros() -> None:
    assert match([], []).scores == Scores(0, 0, 0, 0.0)
    assert match([box(0, 0)], []).scores == Scores(0, 1, 0, 0.0)
    empty = match([], [box(0, 0)]).scores
    assert (empty.precision, empty.recall, empty.f1) == (0.0, 0.0, 0.0)


def test_the_iou_itself_is_enough() -> None:
    truth, half = box(0, 0, 10, 10), box(0, 0, 10, 5)
    assert match([half], [truth], 0.5).scores.tp == 1
    assert match([half], [truth], 0.501).scores.tp == 0


@pytest.mark.parametrize("iou", [0.0, -1.0, 1.1, float("nan")])
def test_an_iou_out_of_range_is_refused(iou: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        match([], [], iou)


def test_one_true_object_counts_once() -> None:
    assert match([box(0, 0), box(0, 0), box(1, 0)], [box(0, 0)]).scores == Scores(1, 2, 0, 1.0)


def test_more_pairs_win_over_a_better_single_pair() -> None:
    # The find on both true objects takes the one that the other find cannot have.
    truth = [box(0, 0, 10, 10), box(10, 0, 10, 10)]
    predicted = [box(2, 0, 14, 10), box(0, 0, 10, 10)]
    result = match(predicted, truth, 0.3)
    assert [(p, t) for p, t, _ in result.pairs] == [(0, 1), (1, 0)]


def test_finds_inside_ignored_objects_count_neither_way() -> None:
    open_ground = box(40, 40, 20, 20)
    inside, straddling, match_inside = box(45, 45), box(34, 45), box(48, 55)
    result = match([inside, straddling, match_inside], [match_inside], ignore=[open_ground])
    assert result.ignored == (0,)
    assert result.scores == Scores(tp=1, fp=1, fn=0, mean_matched_iou=1.0)


def test_scores_of_frames_add_up() -> None:
    total = Scores(1, 2, 3, 0.5) + Scores(3, 0, 1, 0.9)
    assert total == Scores(4, 2, 4, pytest.approx(0.8))
    assert Scores(0, 0, 0, 0.0) + Scores(0, 1, 0, 0.0) == Scores(0, 1, 0, 0.0)


masks = st.builds(
    lambda data, x, y: InstanceMask(np.array(data, bool).reshape(4, 4), x, y, (12, 12)),
    st.lists(st.booleans(), min_size=16, max_size=16),
    st.integers(0, 8),
    st.integers(0, 8),
)


@given(st.lists(masks, max_size=7), st.lists(masks, max_size=7), st.sampled_from([0.05, 0.3, 0.5, 0.9]))
def test_matching_agrees_with_one_dense_assignment(
    predicted: list[InstanceMask], truth: list[InstanceMask], iou: float
) -> None:
    table = np.array([[mask_iou(p, t) for t in truth] for p in predicted]).reshape(len(predicted), len(truth))
    gain = np.where(table >= iou, 100 + table, 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = gain[rows, columns] > 0
    result = match(predicted, truth, iou)
    assert len(result.pairs) == kept.sum()
    assert sum(pair[2] for pair in result.pairs) == pytest.approx(table[rows, columns][kept].sum())
    assert len({p for p, _, _ in result.pairs}) == len({t for _, t, _ in result.pairs}) == len(result.pairs)


def test_thousands_of_objects_match() -> None:
    labels = np.kron(np.arange(1, 2501).reshape(50, 50), np.ones((8, 8), int))
    objects = [*dict(masks_of(labels)).values()]
    assert match(objects, objects[100:]).scores == Scores(2400, 100, 0, 1.0)


def test_a_label_image_gives_its_objects_in_order() -> None:
    labels = np.zeros((6, 8), np.uint32)
    labels[1:3, 2:5] = 4_000_000_000
    labels[5, 0] = labels[0, 7] = 7
    first, second = [*dict(masks_of(labels)).values()]
    assert first.box == (0, 0, 8, 6)
    assert first.area == 2
    assert second.box == (2, 1, 5, 3)
    assert second.data.all()
    for value, instance in ((7, first), (4_000_000_000, second)):
        assert np.array_equal(instance.full(), labels == value)


@pytest.mark.parametrize(
    ("labels", "count"),
    [
        (np.zeros((3, 4), np.uint8), 0),
        (np.ones((3, 4), np.uint16), 1),
        (np.array([[1, 2], [2, 3]]), 3),
        (np.array([[-5, 0], [2, 2]], np.int64), 2),
        (np.array([[True, False]]), 1),
        (np.zeros((0, 4), np.uint8), 0),
        (np.array([[np.iinfo(np.uint64).max, 0]], np.uint64), 1),
    ],
)
def test_odd_label_images(labels: np.ndarray, count: int) -> None:
    instances = [*dict(masks_of(labels)).values()]
    assert len(instances) == count
    assert sum(instance.area for instance in instances) == np.count_nonzero(labels)
