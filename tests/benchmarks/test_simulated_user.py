"""The simulated user of the corrections: what it looks at, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
from quality_world import box, picture

from sam2_fewshot import Settings
from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.records import Detection, FrameResult, Location

SHAPE = (60, 400)


def detection(mask, score):
    return Detection(mask, mask_to_polygon(mask), score, np.nan, np.nan)


def found_on(number_right=8):
    """What is found on a frame of :func:`picture`: true squares, one half of one, and three on the ground."""
    right = [detection(box(10 + 30 * i, 20, 20, 20, SHAPE), 0.95 - 0.05 * i) for i in range(number_right)]
    half = detection(box(10, 20, 8, 20, SHAPE), 0.5)
    wrong = [detection(box(10 + 40 * i, 45, 10, 10, SHAPE), 0.52 - 0.1 * i) for i in range(3)]
    return sorted([*right, half, *wrong], key=lambda item: -item.score)


class Learner:
    """Finds the same things again and again; with negative examples, only what is true."""

    def __init__(self):
        self.settings = Settings()
        self.learned = []

    def fit(self, exemplars):
        self.learned.append((sum(not e.negative for e in exemplars), sum(e.negative for e in exemplars)))

    def predict(self, image):
        found = [item for item in found_on() if not self.learned[-1][1] or item.instance.y0 == 20]
        found = [item for item in found if item.instance.data.shape[1] != 8 or not self.learned[-1][1]]
        return FrameResult([d for d in found if d.score >= 0.5], below=[d for d in found if d.score < 0.5])


def records():
    found = found_on()
    above, below = (tuple(d for d in found if (d.score >= 0.5) is side) for side in (True, False))
    return [
        FrameRecord(f"f{xy}", f"f{xy}", Location(xy), SHAPE, detections=above, below=below, threshold=0.5)
        for xy in (0, 1)
    ]


@pytest.mark.parametrize("strategy", ["next", "random"])
def test_every_strategy_goes_through_all(strategy):
    from benchmarks.refine import cards_of, ordered

    frames = records()
    cards = ordered(strategy, frames, (0, 0))
    assert {(xy, id(item)) for xy, item in cards} == {(xy, id(item)) for xy, item in cards_of(frames)}
    assert len(cards) == 24
    again = ordered(strategy, frames, (0, 0))
    assert [(xy, id(item)) for xy, item in again] == [(xy, id(item)) for xy, item in cards]


def test_what_the_user_says():
    from benchmarks.quality.tasks import Query
    from benchmarks.refine import answered

    shown = picture("a", ["x"] * 8)
    query = Query(shown, shown.of("x")[1:], shown.of("x")[:1])  # the first square is an example
    said = answered([(0, item) for item in found_on()], [query])
    assert [exemplar.negative for exemplar in said] == [False] * 7 + [True] * 3
    assert len(answered([(0, item) for item in found_on()] * 2, [query])) == 10


def test_figures_of_a_task(tmp_path, capsys):
    from benchmarks.quality.tasks import make_tasks
    from benchmarks.refine import run, summary, told

    pictures = [picture(f"p{i}", ["x"] * 12) for i in range(8)]
    (task,) = make_tasks("dev", "dev/p", pictures)
    learner = Learner()
    row = run(task, learner, 0, 3, 2)
    assert row["frames"] == 3
    assert row["none"]["precision"] < row["next"]["precision"] == 1
    assert row["next"]["right"] + row["next"]["wrong"] == 10
    assert row["random"]["right"] + row["random"]["wrong"] == 10
    assert len(row["random"]["each"]) == 2
    assert len(learner.learned) == 4  # none, next, and two draws
    assert told(row).startswith("dev/p:x")
    assert any("of 1 tasks" in line for line in summary([row]))
