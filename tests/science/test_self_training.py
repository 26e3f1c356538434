"""Few examples: what is surely like them is learned from, too, and nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, FewShotWarning
from sam2_fewshot.methods.base import TrainingFrame
from sam2_fewshot.methods.guided.learning import learn_once
from sam2_fewshot.methods.guided.maps import CellStore, Room
from sam2_fewshot.methods.guided.self_training import (
    FEW,
    like_negatives,
    lowered_threshold,
    what_few_means,
    with_surest,
)
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.records import Detection

Scene = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]
SHAPE = (200, 240)


def stores_of(backbone: Backbone, frames: Sequence[TrainingFrame]) -> list[CellStore]:
    room = Room(1 << 30)
    return [CellStore(backbone, frame.pixels, 256, room) for frame in frames]


def discs_at(places: Sequence[tuple[int, int]], radii: Sequence[int], seed: int = 5) -> Scene:
    """Bright discs on noise, and their labels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    labels = np.zeros(SHAPE, np.int32)
    for number, ((y, x), radius) in enumerate(zip(places, radii, strict=True), 1):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number
    grey = np.where(labels > 0, 150, 50) + rng.normal(0, 9, SHAPE)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), labels


@pytest.fixture(scope="module")
def crowd() -> Scene:
    """Twelve discs of unlike sizes."""
    places = [(35 + 60 * row, 30 + 58 * column) for row in range(3) for column in range(4)]
    return discs_at(places, [10, 8, 12, 9, 11, 10, 8, 9, 12, 10, 11, 9])


@pytest.fixture(scope="module")
def alone() -> Scene:
    return discs_at([(100, 120)], [10])


def instance(labels: NDArray[np.int32], number: int) -> InstanceMask:
    rows, columns = np.nonzero(labels == number)
    crop = labels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == number
    return InstanceMask(crop, int(columns.min()), int(rows.min()), SHAPE)


def hits(found: Sequence[Detection], labels: NDArray[np.int32]) -> int:
    """Count the objects that were found."""
    return sum(
        any(np.sum(d.mask & (labels == n)) > 0.6 * np.sum(d.mask | (labels == n)) for d in found)
        for n in range(1, labels.max() + 1)
    )


@pytest.mark.parametrize("number", [3, 7])
def test_one_example_finds_its_like_at_the_default_threshold(filters: Backbone, crowd: Scene, number: int) -> None:
    image, labels = crowd
    with pytest.warns(FewShotWarning, match="^One example tells little"):
        segmenter = FewShotSegmenter(filters).fit([Exemplar(image, mask=labels == number)])
    found = segmenter.segment(image)
    assert hits(found, labels) >= 10
    assert len(found) <= 13


def test_an_example_alone_on_its_frame_is_not_joined_by_its_ground(
    filters: Backbone, alone: Scene, crowd: Scene
) -> None:
    with pytest.warns(FewShotWarning, match="so the scores are low"):
        segmenter = FewShotSegmenter(filters).fit([Exemplar(alone[0], mask=alone[1] == 1)])
    assert segmenter.segment(alone[0]) == []
    found = segmenter.segment(crowd[0])
    assert hits(found, crowd[1]) >= 10
    assert len(found) <= 13


def test_five_examples_are_learned_from_as_they_are(filters: Backbone, crowd: Scene) -> None:
    """With one fewer, detections are learned from, and that is said."""
    examples = [Exemplar(crowd[0], mask=crowd[1] == number) for number in range(1, FEW + 1)]
    FewShotSegmenter(filters).fit(examples)
    with pytest.warns(FewShotWarning, match="4 examples tell little .* were learned from as well"):
        FewShotSegmenter(filters).fit(examples[1:])


@pytest.mark.parametrize(("found", "taken"), [(2.0, 1.0), (0.0, 0.0), (-1.5, -1.5)])
def test_what_was_chosen_for_being_sure_raises_the_threshold_half_as_far(found: float, taken: float) -> None:
    assert lowered_threshold(found, 1, is_divided=False) == taken
    assert lowered_threshold(found, 3, is_divided=True) == taken


def test_the_threshold_is_lower_after_few_examples_unless_what_looks_alike_is_unwanted() -> None:
    for marked in range(2, FEW):
        below = [lowered_threshold(0.4, marked, is_divided=is_divided) for is_divided in (False, True)]
        assert below[0] < 0 < below[1]


def test_a_negative_example_is_never_learned_from_as_wanted(filters: Backbone, crowd: Scene) -> None:
    image, labels = crowd
    wanted, unwanted = instance(labels, 1), instance(labels, 6)
    frames = [TrainingFrame(image, [wanted], [unwanted])]
    stores = stores_of(filters, frames)
    learned = learn_once(filters, frames, (0, 0), stores, Quiet())
    more = with_surest(learned, filters, frames, stores, 20, -np.inf, Quiet())[0]
    assert more.positives[0] is wanted
    assert len(more.positives) > 5
    assert list(more.negatives) == [unwanted]
    for mask in more.positives:
        assert not (mask.full() & unwanted.full()).any()
    assert with_surest(learned, filters, frames, stores, 0, -np.inf, Quiet())[0].positives == [wanted]
    assert with_surest(learned, filters, frames, stores, 20, np.inf, Quiet())[0].positives == [wanted]


def test_what_is_on_a_frame_with_negative_examples_alone_is_not_learned_from(filters: Backbone, crowd: Scene) -> None:
    """Nothing is wanted there, as far as anyone knows."""
    image, labels = crowd
    ground = InstanceMask(np.ones((12, 30), bool), 60, 60, SHAPE)
    frames = [
        TrainingFrame(image, [instance(labels, 2)], number=0),
        TrainingFrame(image[:, ::-1].copy(), [], [ground], number=1),
    ]
    stores = stores_of(filters, frames)
    learned = learn_once(filters, frames, (0, 0), stores, Quiet())
    more = with_surest(learned, filters, frames, stores, 20, -np.inf, Quiet())
    assert len(more[0].positives) > 5
    assert list(more[1].positives) == []


@pytest.mark.parametrize(
    ("marked", "found", "sentence"),
    [
        (
            1,
            0,
            "One example tells little about how much objects of the kind differ, so the scores are low; mark 5 to 20.",
        ),
        (1, 1, "so the 1 object that looks most like it on the same images was learned from as well, unchecked"),
        (
            3,
            17,
            "3 examples tell little .* the 17 objects that look most like them on the same images were learned from",
        ),
    ],
)
def test_what_few_means(marked: int, found: int, sentence: str) -> None:
    assert re.search(sentence, what_few_means(marked, found))


@pytest.fixture(scope="module")
def two_kinds() -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
    """Six discs and six bars of the same brightness, and the labels of each kind."""
    places = [(35 + 60 * row, 30 + 58 * column) for row in range(3) for column in range(4)]
    image, discs = discs_at(places, [10, 0, 9, 0, 0, 11, 0, 10, 9, 0, 10, 0])
    discs[np.isin(discs, [2, 4, 5, 7, 10, 12])] = 0
    bars = np.zeros(SHAPE, np.int32)
    for number in (2, 4, 5, 7, 10, 12):
        y, x = places[number - 1]
        bars[y - 4 : y + 5, x - 18 : x + 19] = number
    bright = np.random.default_rng(6).normal(150, 9, SHAPE).clip(0, 255)
    return np.where(bars[..., None] > 0, bright[..., None].astype(np.uint8), image), discs, bars


def test_what_looks_like_a_negative_example_is_not_learned_from_as_wanted(
    filters: Backbone, two_kinds: tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]
) -> None:
    """Neither in the first rounds, in which all that is surest is taken, nor in the last."""
    image, discs, bars = two_kinds
    wanted, unwanted = [instance(discs, n) for n in (1, 3, 6)], [instance(bars, n) for n in (2, 5, 7)]
    frames = [TrainingFrame(image, wanted, unwanted)]
    stores = stores_of(filters, frames)
    learned = learn_once(filters, frames, (0, 0), stores, Quiet())
    more = with_surest(learned, filters, frames, stores, 20, -np.inf, Quiet())[0]
    adopted = [mask.full() for mask in more.positives[3:]]
    assert any((mask & (discs > 0)).any() for mask in adopted)
    assert not any((mask & (bars > 0)).any() for mask in adopted)


def test_what_lies_in_something_unwanted_is_unwanted_unless_it_looks_more_like_a_wanted_one() -> None:
    bar, half, other_half, elsewhere = (
        InstanceMask(np.ones((10, width), bool), x, y, SHAPE)
        for x, y, width in ((0, 0, 40), (0, 0, 20), (20, 0, 20), (100, 100, 20))
    )
    masks, looks = [bar, half, other_half, elsewhere], np.array([[9.0], [2.0], [0.5], [2.0]])
    wanted, unwanted, nothing = np.array([[0.0]]), np.array([[10.0]]), np.zeros((0, 1))
    assert like_negatives(masks, looks, wanted, unwanted, np.ones(1)).tolist() == [True, True, False, False]
    assert not like_negatives(masks, looks, wanted, nothing, np.ones(1)).any()
    assert like_negatives(masks, looks, nothing, unwanted, np.ones(1)).all()


def test_negative_examples_on_another_frame_count_as_well(
    filters: Backbone, two_kinds: tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]
) -> None:
    image, discs, bars = two_kinds
    frames = [
        TrainingFrame(image, [instance(discs, n) for n in (1, 3, 6)], number=0),
        TrainingFrame(image[::-1].copy(), [], [instance(bars[::-1], n) for n in (2, 5, 7)], number=1),
    ]
    stores = stores_of(filters, frames)
    learned = learn_once(filters, frames, (0, 0), stores, Quiet())
    more = with_surest(learned, filters, frames, stores, 20, -np.inf, Quiet())
    adopted = [mask.full() for mask in more[0].positives[3:]]
    assert any((mask & (discs > 0)).any() for mask in adopted)
    assert not any((mask & (bars > 0)).any() for mask in adopted)
    assert list(more[1].positives) == []
