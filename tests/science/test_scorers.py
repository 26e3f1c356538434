"""The ways to compare candidates with examples, their shapes, and where to cut."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from sam2_fewshot import Settings
from sam2_fewshot.methods.grid import Prototype, Scorer
from sam2_fewshot.methods.selection import choose_threshold, floor_of, learn_shapes, least_score, otsu
from sam2_fewshot.records import InstanceMask

NONE = np.zeros((0, 4), np.float32)
SCORERS: list[Scorer] = ["mean", "nearest", "knn", "lda"]


def of_two_looks() -> np.ndarray:
    rng = np.random.default_rng(0)
    looks = np.array([[5, 0, 0, 1], [0, 5, 0, 1]], np.float32)
    return np.concatenate([look + rng.normal(0, 0.1, (4, 4)).astype(np.float32) for look in looks])


@pytest.mark.parametrize("scorer", ["nearest", "knn"])
def test_a_negative_between_two_looks_leaves_both_in(scorer: Scorer) -> None:
    looks = of_two_looks()
    between = np.array([[4, 3, 0, 1]], np.float32).repeat(3, axis=0)
    prototype = Prototype(looks, between, scorer)
    assert not prototype.nearer_to_negatives(looks).any()
    assert prototype.nearer_to_negatives(between).all()


@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_leaves_out_what_looks_like_a_negative(scorer: Scorer) -> None:
    wanted, unwanted = of_two_looks()[:4], of_two_looks()[4:]
    prototype = Prototype(wanted, unwanted, scorer)
    assert prototype.nearer_to_negatives(unwanted).all()
    assert not prototype.nearer_to_negatives(wanted).any()


@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_puts_the_like_before_the_unlike(scorer: Scorer) -> None:
    rng = np.random.default_rng(1)
    like = np.array([5, 5, 0, 1]) + rng.normal(0, 0.3, (5, 4))
    unlike = np.array([0, 0, 5, 1]) + rng.normal(0, 0.3, (20, 4))
    prototype = Prototype(like.astype(np.float32), NONE, scorer)
    similarity = prototype.similarity(np.concatenate([like, unlike]).astype(np.float32))
    assert similarity[:5].min() > similarity[5:].max()
    assert np.abs(similarity).max() <= 1
    assert len(prototype.similarity(NONE)) == 0


@pytest.mark.parametrize("scorer", ["nearest", "knn"])
def test_examples_of_two_looks_are_found_by_the_nearest(scorer: Scorer) -> None:
    examples = of_two_looks()
    between = np.array([[3, 3, 0, 1]], np.float32)
    prototype = Prototype(examples, NONE, scorer)
    assert prototype.similarity(examples).min() > 0.99 > prototype.similarity(between)[0]
    assert Prototype(examples, NONE).similarity(between)[0] > Prototype(examples, NONE).similarity(examples).max()


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_left_out_example_is_compared_with_the_others(scorer: Scorer) -> None:
    examples = np.concatenate([of_two_looks(), [[0, 0, -5, 1]]]).astype(np.float32)
    left_out = Prototype(examples, NONE, scorer).left_out()
    assert len(left_out) == len(examples)
    assert left_out.argmin() == 8
    assert Prototype(examples[:1], NONE, scorer).left_out().tolist() == [1.0]


@pytest.mark.parametrize("scorer", SCORERS)
def test_no_score_is_nan(scorer: Scorer) -> None:
    same = np.ones((3, 4), np.float32)
    assert np.isfinite(Prototype(same, NONE, scorer).similarity(same)).all()
    assert np.isfinite(Prototype(same * 0, NONE, scorer).similarity(same * 0)).all()


def test_lda_is_the_cosine_after_whitening() -> None:
    rng = np.random.default_rng(3)
    examples, candidates = (rng.normal((1, 2, 0, 4), (1, 3, 0.2, 2), (n, 4)).astype(np.float32) for n in (6, 40))
    covariance = np.cov(candidates.T, bias=True)
    values, axes = np.linalg.eigh(0.5 * covariance + 0.5 * np.trace(covariance) / 4 * np.eye(4))
    root = axes @ np.diag(values**-0.5) @ axes.T
    white, like = (candidates - candidates.mean(0)) @ root, ((examples - candidates.mean(0)) @ root).mean(0)
    expected = white @ like / np.linalg.norm(white, axis=1) / np.linalg.norm(like)
    assert Prototype(examples, NONE, "lda").similarity(candidates) == pytest.approx(expected, abs=1e-4)


def bar(height: int, width: int) -> InstanceMask:
    return InstanceMask(np.ones((height, width), bool), 0, 0, (200, 200))


def test_shapes_like_the_examples_keep_their_score() -> None:
    prior = learn_shapes([bar(10, 10), bar(11, 10), bar(10, 12), bar(12, 12)])
    like, large, long = prior.weights([bar(11, 11), bar(60, 60), bar(3, 40)])
    assert like == 1
    assert large < 0.01
    assert long < 0.01
    assert prior.excess([bar(11, 11)])[0] == 0
    assert len(prior.weights([])) == 0


def test_ragged_shapes_are_unlike_compact_ones() -> None:
    cross = np.zeros((21, 21), bool)
    cross[9:12] = cross[:, 9:12] = True
    prior = learn_shapes([bar(11, 10), bar(10, 11), bar(11, 11)])
    assert prior.weights([InstanceMask(cross, 0, 0, (200, 200))])[0] < 0.01


def test_a_shape_fills_a_share_of_its_convex_hull() -> None:
    right_angled = np.tri(40, dtype=bool)  # 820 px; the hull fills its 39 steps, half a pixel each
    prior = learn_shapes([InstanceMask(right_angled, 0, 0, (200, 200))])
    assert prior.mean[2] == pytest.approx(820 / (820 + 39 / 2))
    ring = np.ones((30, 30), bool)
    ring[5:25, 5:25] = False
    assert learn_shapes([InstanceMask(ring, 0, 0, (200, 200))]).mean[2] == pytest.approx(500 / 900)


def test_measuring_a_large_example_takes_little_memory() -> None:
    large = [bar(1400, 1400)]
    tracemalloc.start()
    learn_shapes(large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 130e6  # without the corners of each pixel, of which there are four


def test_one_example_leaves_room() -> None:
    prior = learn_shapes([bar(10, 10)])
    assert prior.weights([bar(14, 14)])[0] == 1
    assert prior.weights([InstanceMask(np.ones((1, 1), bool), 0, 0, (9, 9))])[0] < 1


SCORES = np.array([0.1, 0.15, 0.2, 0.7, 0.75, 0.8, 0.9, 0.95])
NOBODY = np.zeros(0)


def by(mode: Any, percent: float = 25) -> Settings:
    return Settings(threshold_mode=mode, similarity_threshold=0.4, top_percent=percent)


def test_thresholds_of_every_mode_say_why() -> None:
    assert choose_threshold(by("fixed"), SCORES, NOBODY) == (0.4, "as set")
    assert choose_threshold(by("top"), SCORES, NOBODY).value == 0.9
    assert "25 % of 8" in choose_threshold(by("top"), SCORES, NOBODY).reason
    assert 0.2 < choose_threshold(by("otsu"), SCORES, NOBODY).value < 0.7
    assert choose_threshold(by("auto"), SCORES, NOBODY).value == 0.5
    left_out = np.linspace(0.8, 0.9, 11)
    assert choose_threshold(by("auto"), SCORES, left_out).value == pytest.approx(0.81)
    assert "10 others" in choose_threshold(by("auto"), SCORES, left_out).reason


@pytest.mark.parametrize(("number", "reached", "others"), [(2, 1, "1 other"), (5, 4, "4 others"), (8, 7, "7 others")])
def test_how_many_examples_reach_the_threshold_is_counted(number: int, reached: int, others: str) -> None:
    left_out = np.linspace(0.8, 0.9, number)
    value, reason = choose_threshold(by("auto"), SCORES, left_out)
    assert reason == f"{reached} of the {number} examples reach it, each compared with the {others}"
    assert np.count_nonzero(left_out >= value) == reached
    assert "about 90 %" in choose_threshold(by("auto"), SCORES, NOBODY).reason


def test_where_scores_cannot_tell_the_set_threshold_holds() -> None:
    assert choose_threshold(by("top"), NOBODY, NOBODY).value == 0.4
    assert choose_threshold(by("otsu"), np.full(5, 0.7), NOBODY).value == 0.4
    assert choose_threshold(by("otsu"), NOBODY, NOBODY).value == 0.4
    assert choose_threshold(by("top", 0.1), SCORES, NOBODY).value == 0.95


def test_otsu_is_that_of_a_fine_histogram() -> None:
    from skimage.filters import threshold_otsu

    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 300), np.random.default_rng(1).normal(6, 1, 200)])
    assert otsu(values) == pytest.approx(threshold_otsu(values, nbins=2000), abs=0.5)
    assert otsu(np.array([1.0, 1.0, 2.0])) == 1.5


@pytest.mark.parametrize("value", np.random.default_rng(0).random(8))
def test_otsu_parts_even_neighbouring_numbers(value: float) -> None:
    above = np.nextafter(value, 1)
    assert value < otsu(np.array([value, above])) <= above


def test_where_the_threshold_follows_from_a_frame_all_down_to_the_floor_may_be_objects() -> None:
    left_out = {"left_out": np.linspace(0.8, 0.9, 11)}
    assert least_score(left_out, Settings(similarity_threshold=0.7)) == 0.7
    assert least_score(left_out, Settings(similarity_threshold=0.7, threshold_mode="auto")) == pytest.approx(0.81)
    assert least_score({}, Settings(similarity_threshold=0.7, threshold_mode="auto")) == 0.5
    for mode in ("top", "otsu"):
        chosen = Settings(similarity_threshold=0.7, threshold_mode=mode)
        assert least_score(left_out, chosen) == floor_of(chosen) == pytest.approx(0.05)
