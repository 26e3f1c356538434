"""How well the examples are found again, and what else looks the same."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.methods.base import TrainingFrame
from sam2_fewshot.methods.guided.classifier import TrainingCandidates
from sam2_fewshot.methods.guided.erosion import eroded
from sam2_fewshot.methods.guided.expectation import (
    PRECISION,
    RECALL,
    Evidence,
    LookAlike,
    evidence_of,
    expected,
    in_words,
    look_alikes,
)
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone

SHAPE = (200, 300)


def square(x: int, y: int, side: int = 10) -> InstanceMask:
    return InstanceMask(np.ones((side, side), bool), x, y, SHAPE)


def counted(frame: TrainingFrame, candidates: Sequence[tuple[InstanceMask, float]]) -> tuple[Evidence, list[LookAlike]]:
    """Return what is counted with the marks drawn first, as they are in learning, and a threshold of 1."""
    drawn = [*frame.positives, *frame.negatives]
    masks = [*drawn, *(mask for mask, _ in candidates)]
    odds = np.array([9.0] * len(drawn) + [odds for _, odds in candidates])
    among = TrainingCandidates(frame.positives, frame.negatives, masks, np.zeros((len(masks), 2)), len(drawn))
    evidence, places, _ = evidence_of([frame], [among], [odds], 1.0)
    return evidence, places


def test_each_detection_is_an_example_or_beside_one_or_elsewhere() -> None:
    frame = TrainingFrame(
        np.zeros((*SHAPE, 3), np.uint8), [square(10, 10), square(50, 50), square(90, 90)], [square(150, 150)],
        name="a.png", corner=(1000, 2000),
    )  # fmt: skip
    evidence, places = counted(
        frame,
        [
            (square(11, 10), 3.0),  # the first example
            (square(50, 50), 0.5),  # the second, below the threshold
            (square(90, 90, 5), 2.0),  # a part of the third
            (square(150, 150), 2.0),  # a negative one
            (square(200, 20), 1.5),
            (square(240, 20), 4.0),
            (square(270, 20), 0.9),
        ],
    )
    assert evidence == Evidence(examples=3, found=1, beside=1, elsewhere=2)
    assert places == [LookAlike(3.0, "a.png", 1245, 2025), LookAlike(0.5, "a.png", 1205, 2025)]


def test_how_well_examples_agree_with_what_is_detected_of_them() -> None:
    marks = [square(10, 10), square(50, 50), square(90, 90)]
    frame = TrainingFrame(np.zeros((*SHAPE, 3), np.uint8), marks)
    masks, odds = (
        [square(10, 10), square(50, 55), square(90, 90)],
        np.array([2.0, 2.0, 0.5]),
    )  # the last is not detected
    among = TrainingCandidates(marks, [], masks, np.zeros((3, 2)), 0)
    assert evidence_of([frame], [among], [odds], 1.0)[2] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert evidence_of([], [], [], 1.0)[2] == 0


def test_cores_are_compared_as_the_whole_objects_that_they_are_grown_to() -> None:
    marks = [square(50, 50, 20), square(70, 50, 20)]
    frame = TrainingFrame(np.zeros((*SHAPE, 3), np.uint8), marks)
    cores = [eroded(mask, 4) for mask in marks]
    among = TrainingCandidates(cores, [], cores, np.zeros((2, 2)), 0)
    odds = np.array([2.0, 2.0])
    evidence, _, agreement = evidence_of([frame], [among], [odds], 1.0, 4.0)
    assert evidence == Evidence(examples=2, found=2, beside=0, elsewhere=0)
    assert agreement > 0.9  # corners are lost
    assert evidence_of([frame], [among], [odds], 1.0)[2] < 0.5


def test_a_small_part_of_an_example_is_beside_it_and_what_only_touches_one_is_elsewhere() -> None:
    frame = TrainingFrame(np.zeros((*SHAPE, 3), np.uint8), [square(50, 50, 20)])
    part, touching = square(52, 52, 4), square(65, 69, 20)
    assert counted(frame, [(part, 2.0)])[0] == Evidence(examples=1, found=0, beside=1, elsewhere=0)
    assert counted(frame, [(touching, 2.0)])[0] == Evidence(examples=1, found=0, beside=0, elsewhere=1)


def test_an_example_that_is_found_in_two_halves_is_found_once() -> None:
    frame = TrainingFrame(np.zeros((*SHAPE, 3), np.uint8), [square(50, 50, 20)])
    halves = [InstanceMask(np.ones((11, 20), bool), 50, y, SHAPE) for y in (50, 59)]
    evidence, _ = counted(frame, [(half, 2.0) for half in halves])
    assert evidence == Evidence(examples=1, found=1, beside=1, elsewhere=0)


def test_what_is_known_to_be_marked_is_not_elsewhere() -> None:
    """Whether it is unwanted, or is learned from on another part of the frame."""
    frame = TrainingFrame(
        np.zeros((*SHAPE, 3), np.uint8), [square(10, 10)], [square(150, 150)], others=[square(200, 20)]
    )
    evidence, places = counted(frame, [(square(150, 150), 2.0), (square(200, 20), 1.5)])
    assert evidence == Evidence(examples=1, found=0, beside=0, elsewhere=0)
    assert not places


def test_places_of_all_frames_are_in_the_order_of_their_scores() -> None:
    frames = [TrainingFrame(np.zeros((*SHAPE, 3), np.uint8), [square(10, 10)], name=name) for name in "ab"]
    among = [
        TrainingCandidates(frame.positives, [], [square(100, 20), square(200, 20)], np.zeros((2, 2)), 0)
        for frame in frames
    ]
    odds = [np.array([4.0, 2.0]), np.array([5.0, 3.0])]
    places = evidence_of(frames, among, odds, 1.0)[1]
    assert [(place.frame, place.odds) for place in places] == [("b", 4.0), ("a", 3.0), ("b", 2.0), ("a", 1.0)]


def test_what_was_adopted_is_no_example() -> None:
    frame = TrainingFrame(np.zeros((*SHAPE, 3), np.uint8), [square(10, 10), square(50, 50)], adopted=1)
    evidence, _ = counted(frame, [(square(10, 10), 3.0), (square(50, 50), 3.0)])
    assert evidence == Evidence(examples=1, found=1, beside=0, elsewhere=1)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(1, 1, 0, 5), ""),
        (
            Evidence(10, 9, 0, 16),
            "Left out in turn, 9 of the 10 examples are found again at the default threshold; 16 other places score as "
            "high on the same images.",
        ),
        (
            Evidence(6, 2, 1, 1),
            "Left out in turn, 2 of the 6 examples are found again at the default threshold, 1 of their detections has "
            "another outline; 1 other place scores as high on the same images.",
        ),
        (
            Evidence(6, 2, 3, 0),
            "Left out in turn, 2 of the 6 examples are found again at the default threshold, 3 of their detections "
            "have another outline; no other places score as high on the same images.",
        ),
        (
            Evidence(5, 1, 0, 2),
            "Left out in turn, 1 of the 5 examples is found again at the default threshold; 2 other places score as "
            "high on the same images.",
        ),
    ],
)
def test_in_words(evidence: Evidence, words: str) -> None:
    assert in_words(evidence) == words


def test_what_is_to_be_expected_follows_from_how_well_the_examples_are_outlined() -> None:
    figures = [expected(10, agreement) for agreement in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert figures == [(PRECISION[i][1], RECALL[k][1]) for i, k in ((0, 0), (0, 0), (1, 1), (2, 1), (2, 1))]
    for table in (PRECISION, RECALL):
        assert all(0 <= low <= middle <= high <= 1 for _, (low, middle, high) in table)
        assert all(before.middle < after.middle for (_, before), (_, after) in pairwise(table))


def test_nothing_is_expected_where_the_examples_tell_little() -> None:
    assert expected(4, 0.9) is None
    assert expected(10, math.nan) is None
    four = Evidence(4, 4, 0, 3)
    assert in_words(four, 0.9) == in_words(four)


def test_what_is_expected_is_told_in_tenths() -> None:
    evidence = Evidence(10, 9, 0, 16)
    assert in_words(evidence, 0.8) == in_words(evidence) + (
        " On other sets of images whose left-out examples were outlined about as well, 9 of 10 detections were right "
        "(on half of the sets 8 to 10), and 7 of 10 objects were found (5 to 8)."
    )


def test_what_was_learned_tells_what_to_expect_when_it_is_loaded_again(
    filters: Backbone, discs: tuple[NDArray[np.uint8], NDArray[np.int32]], tmp_path: Path
) -> None:
    image, labels = discs
    segmenter = FewShotSegmenter(filters).fit([Exemplar(image, mask=labels == i) for i in range(1, 7)])
    assert "On other sets of images" in segmenter.summary
    segmenter.save(tmp_path / "discs.npz")
    again = FewShotSegmenter(filters).adopt_saved((tmp_path / "discs.npz").read_bytes())
    assert again.summary == segmenter.summary
    # Version 0.5.0 did not keep how well they are outlined.
    learned = {name: array for name, array in segmenter.object_model.learned.items() if name != "agreement"}
    earlier = again.adopt(replace(segmenter.object_model, learned=learned)).summary
    assert earlier
    assert segmenter.summary.startswith(f"{earlier} On other sets")


def test_places_are_named_where_the_examples_can_hardly_be_told_from_others() -> None:
    places = [LookAlike(5.0 - i / 10, f"XY {i + 1}", i, 2 * i) for i in range(41)]
    sentence = look_alikes(Evidence(10, 4, 2, 41), places)
    assert sentence is not None
    assert "from 41 other places" in sentence
    for i in (0, 10, 20, 30, 40):
        assert f"XY {i + 1}, x {i}, y {2 * i}" in sentence
    assert "negative examples" in sentence
    assert look_alikes(Evidence(10, 8, 6, 41), places) is not None
    assert look_alikes(Evidence(10, 8, 2, 41), places) is None
    assert look_alikes(Evidence(10, 4, 2, 19), places[:19]) is None


@pytest.mark.parametrize("method", ["guided", "grid"])
def test_the_summary_survives_saving(
    filters: Backbone, discs: tuple[NDArray[np.uint8], NDArray[np.int32]], method: str
) -> None:
    image, labels = discs
    settings = Settings(method=method)  # type: ignore[arg-type]
    segmenter = FewShotSegmenter(filters, settings=settings)
    segmenter.fit([Exemplar(image, mask=labels == number) for number in range(1, 7)])
    assert "6 examples" in segmenter.summary
    again = FewShotSegmenter(filters, settings=settings).adopt(segmenter.object_model)
    assert again.summary == segmenter.summary
