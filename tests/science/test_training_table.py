"""Which candidates on the examples' frames are taken as right, and which as wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from disc_scenes import found_of

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.methods.guided.classifier import (
    AWAY,
    RIGHT,
    WRONG,
    TrainingCandidates,
    TrainingTable,
    fit_classifier,
    table_of,
)
from told import Told

if TYPE_CHECKING:
    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.records import InstanceMask

SHAPE = (200, 300)


def disc(x: int, y: int, radius: int) -> InstanceMask:
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return crop_to_object((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


CELL, NUCLEUS, ELSEWHERE = disc(100, 100, 20), disc(100, 100, 9), disc(200, 100, 20)


@pytest.mark.parametrize(
    ("candidate", "wanted_cell", "wanted_nucleus"),
    [
        (disc(100, 101, 20), (RIGHT, 0), (WRONG, -1)),
        (disc(101, 100, 9), (WRONG, -1), (RIGHT, 0)),
        (disc(100, 100, 12), (WRONG, -1), (WRONG, 0)),
        (disc(100, 100, 17), (RIGHT, 0), (WRONG, -1)),
        (ELSEWHERE, (AWAY, -1), (AWAY, -1)),
    ],
)
def test_where_one_lies_in_the_other_a_candidate_is_about_the_mark_that_it_is_more_like(
    candidate: InstanceMask, wanted_cell: tuple[int, int], wanted_nucleus: tuple[int, int]
) -> None:
    for wanted, unwanted, expected in ((CELL, NUCLEUS, wanted_cell), (NUCLEUS, CELL, wanted_nucleus)):
        table = table_of([TrainingCandidates([wanted], [unwanted], [candidate], np.zeros((1, 2)), 0)])
        assert (table.label[0], table.owner[0]) == expected


def test_what_holds_an_unwanted_object_is_not_wrong_for_it() -> None:
    table = table_of([TrainingCandidates([ELSEWHERE], [NUCLEUS], [CELL], np.zeros((1, 2)), 0)])
    assert (table.label[0], table.owner[0]) == (AWAY, -1)


def test_examples_are_numbered_through_all_frames() -> None:
    part, beside = disc(50, 50, 12), disc(50, 89, 20)  # the latter has two hundredths of its area on the mark
    first = TrainingCandidates(
        [disc(250, 50, 20), disc(50, 50, 20)],
        [disc(150, 150, 20)],
        [disc(50, 50, 20), disc(51, 50, 20), part, beside, ELSEWHERE, disc(151, 150, 20)],
        np.zeros((6, 2)),
        1,
    )
    second = TrainingCandidates([CELL], [], [CELL, disc(101, 100, 20)], np.ones((2, 2)), 1)
    table = table_of([first, second])
    assert table.label.tolist() == [RIGHT, RIGHT, WRONG, WRONG, AWAY, WRONG, RIGHT, RIGHT]
    assert table.owner.tolist() == [1, 1, 1, 1, -1, -1, 2, 2]
    assert (table.weight > 0).tolist() == [True, True, True, False, True, True, True, True]
    assert table.proposed.tolist() == [False, True, True, True, True, True, False, True]
    assert table.features[:, 0].tolist() == [0] * 6 + [1] * 2


def test_an_example_is_judged_by_a_classifier_that_has_not_seen_it() -> None:
    rng = np.random.default_rng(0)
    owner = np.repeat([0, 1, 2, 3, 4, 5, -1], [5] * 6 + [30])
    label = np.array([RIGHT, RIGHT, RIGHT, WRONG, WRONG] * 6 + [AWAY] * 30)
    features = rng.normal(0, 1, (60, 3)) + 2 * (label == RIGHT)[:, None] + 0.5 * owner[:, None]
    table = TrainingTable(features, label, np.ones(60), owner, np.ones(60, bool))
    classifier, between = fit_classifier(table, label == AWAY)
    differs = between.unseen != classifier.log_odds(features)
    assert differs[owner >= 0].all()
    assert not differs[owner < 0].any()
    best = [between.unseen[(owner == number) & (label == RIGHT)].max() for number in range(6)]
    assert sorted(between.held_out) == sorted(best)


@pytest.mark.parametrize("method", ["grid", "guided"])
def test_a_cell_is_found_whose_nucleus_is_unwanted(filters: Backbone, method: str) -> None:
    image = np.random.default_rng(3).normal(40, 6, SHAPE)
    places = [(x, y) for x in (40, 110, 180, 250) for y in (45, 140)]
    for x, y in places:
        for size, grey in ((26, 90), (8, 100)):
            mask = disc(x, y, size)
            image[mask.y0 : mask.y0 + len(mask.data), mask.x0 : mask.x0 + mask.data.shape[1]][mask.data] += grey
    pixels = image.clip(0, 255).astype(np.uint8)
    marks = [Exemplar(pixels, mask=disc(x, y, 26).full()) for x, y in places[:5]]
    marks += [Exemplar(pixels, mask=disc(x, y, 8).full(), negative=True) for x, y in places[5:7]]
    settings = Settings(method=method, points_per_side=24)
    found = FewShotSegmenter(filters, settings=settings, progress=Told()).fit(marks).segment(pixels)
    assert found_of(found, [disc(x, y, 26) for x, y in places[5:]]) == 3
    assert found_of(found, [disc(x, y, 8) for x, y in places[5:7]]) == 0


@pytest.mark.parametrize(("radius", "unwanted"), [(9, 20), (20, 9)])
def test_nuclei_and_cells_are_told_apart_where_the_others_are_unwanted(
    filters: Backbone, radius: int, unwanted: int
) -> None:
    image = np.full(SHAPE, 40, np.uint8)
    places = [(x, y) for x in (40, 110, 180, 250) for y in (45, 140)]
    for size, grey in ((20, 200), (9, 120)):
        for x, y in places:
            mask = disc(x, y, size)
            image[mask.y0 : mask.y0 + len(mask.data), mask.x0 : mask.x0 + mask.data.shape[1]][mask.data] = grey
    marks = [Exemplar(image, mask=disc(x, y, radius).full()) for x, y in places[:5]]
    marks += [Exemplar(image, mask=disc(x, y, unwanted).full(), negative=True) for x, y in places[:5]]
    told = Told()
    found = FewShotSegmenter(filters, progress=told).fit(marks).segment(image)
    assert any("and 2 more. Both are learned from" in warning for warning in told.warnings)
    assert found_of(found, [disc(x, y, radius) for x, y in places[5:]]) == 3
    assert len(found) == 3
