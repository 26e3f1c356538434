"""Frames whose objects were painted over."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from quality_world import box, picture


def test_objects_are_covered_by_the_ground_and_the_rest_stays() -> None:
    from benchmarks.emptied import emptied

    shown = picture("frame", ["x", "y"] * 4, shape=(160, 400))
    image = emptied(shown)
    assert image is not None
    assert np.ptp(image) == 0
    assert shown.image.max() == 200
    far = np.s_[60:, :]
    assert np.array_equal(image[far], shown.image[far])


def test_colours_are_kept() -> None:
    from benchmarks.emptied import emptied
    from benchmarks.quality.tasks import Picture

    grey = picture("frame", ["x"] * 3, shape=(160, 400))
    coloured = Picture("frame", np.stack([grey.image, grey.image // 2, grey.image], axis=2), grey.labels, grey.classes)
    image = emptied(coloured)
    assert image is not None
    assert image.shape == (160, 400, 3)
    assert image[..., 1].max() == 15


def test_a_frame_full_of_objects_is_left_out() -> None:
    from benchmarks.emptied import emptied

    assert emptied(picture("full", ["x"] * 13, shape=(44, 400))) is None


class Everything:
    """Finds as many objects as a frame has bright squares, and one more."""

    def fit(self, exemplars: object) -> None:
        self.exemplars = exemplars

    def predict(self, image: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(detections=[box(0, 0, 5, 5)] * (int((image > 100).sum()) // 400 + 1))


def test_what_is_found_on_both_is_counted() -> None:
    from benchmarks.emptied import run, summary
    from benchmarks.quality.tasks import make_tasks

    pictures = [picture(f"f{i}", ["x"] * 8, shape=(160, 400)) for i in range(4)]
    (task,) = make_tasks("dev", "squares", pictures)
    row = run(task, Everything(), 5, 0)
    frames = len(task.query_frames)
    assert row == {
        "task": "squares:x",
        "seed": 0,
        "frames": frames,
        "objects": 8 * frames,
        "found": 9 * frames,
        "found_emptied": frames,
    }
    said = "1 tasks: on emptied frames 0.125 are found for each object that was there, 0.12 at most; none on 0 tasks"
    assert summary([row]) == said


@pytest.mark.parametrize("k", [9, 50])
def test_too_few_objects_are_no_task(k: int) -> None:
    from benchmarks.emptied import run
    from benchmarks.quality.tasks import make_tasks

    (task,) = make_tasks("dev", "squares", [picture(f"f{i}", ["x"] * 4, shape=(160, 400)) for i in range(4)])
    assert run(task, Everything(), k, 0) is None
