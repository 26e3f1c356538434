"""Which parts of a frame are learned from."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from sam2_fewshot import Exemplar, Settings
from sam2_fewshot.examples.windows import ExampleFrame, chosen_of, frames_of, parts_of
from sam2_fewshot.records import Frame
from told import Told

FRAME = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
OUTLINE = shapely.box(100, 120, 110, 128)


def test_what_is_learned_of_a_large_frame_does_not_depend_on_the_memory() -> None:
    exemplars = [Exemplar(image=FRAME, polygon=OUTLINE)]
    digests = set()
    for most in (10**9, 400_000):
        (seen,) = frames_of(exemplars, Settings(), most, whole=90_000)
        (part,) = parts_of(seen, exemplars, ["A"], Told())
        assert seen.frame.shape == (300, 400)
        assert part.window == (34, 54, 177, 195)  # six times its longer side, 11 px, on each side
        assert np.array_equal(part.frame.pixels, FRAME[54:195, 34:177])
        digests.add(seen.digest)
    (seen,) = frames_of(exemplars, Settings(), 10**9, whole=120_000)
    (part,) = parts_of(seen, exemplars, ["A"], Told())
    assert part.frame.shape == (300, 400)
    assert part.window == (0, 0, 400, 300)
    assert digests == {seen.digest}


@pytest.mark.parametrize("whole", [90_000, 120_000])
def test_copies_of_an_image_are_one_frame(whole: int) -> None:
    other = FRAME[::-1].copy()
    images = [FRAME, other, FRAME.copy(), Frame(FRAME.copy(), "the same")]
    seen = frames_of([Exemplar(image=image, polygon=OUTLINE) for image in images], Settings(), 10**9, whole=whole)
    assert [frame.numbers for frame in seen] == [[0, 2, 3], [1]]


def test_a_point_of_a_large_frame_shows_its_surroundings() -> None:
    seen = ExampleFrame(Frame(FRAME), None, 10**6, "", [0])
    (part,) = parts_of(seen, [Exemplar(image=FRAME, point=(200.0, 150.0))], ["A"], Told())
    x0, y0, x1, y1 = part.window
    assert x0 <= 136
    assert y0 <= 86
    assert x1 >= 265
    assert y1 >= 215


def test_what_is_wrong_with_an_example_of_a_large_frame_is_told() -> None:
    told = Told()
    wrong = [
        Exemplar(image=FRAME, mask=np.ones((5, 6), bool)),
        Exemplar(image=FRAME, point=(500.0, 10.0)),
        Exemplar(image=FRAME, polygon=OUTLINE),
        Exemplar(image=FRAME, point=(401.0, 10.0)),
    ]
    seen = ExampleFrame(Frame(FRAME, "slide"), None, 10**6, "", [0, 1, 2, 3])
    (part,) = parts_of(seen, wrong, ["A", "B", "C", "D"], told)
    assert list(part.exemplars) == [2]
    assert told.warnings == [
        "A is left out: its mask has the shape (5, 6), but its image, slide, is 400 × 300 px.",
        "B is left out: no pixel of it lies on its image, slide.",
        "D is left out: no pixel of it lies on its image, slide.",
    ]


def test_of_many_examples_as_many_of_either_sign_are_chosen_from_the_first_to_the_last() -> None:
    told = Told()
    marks = [Exemplar(image=FRAME, polygon=OUTLINE, negative=number % 3 == 0) for number in range(30)]
    usable = [number for number in range(30) if number != 15]
    chosen = chosen_of(marks, usable, 4, told)
    assert chosen == {1, 10, 20, 29} | {0, 9, 18, 27}
    assert [warning[:40] for warning in told.warnings] == [
        "Of 20 examples 4, spread evenly, are lea",
        "Of 9 negative examples 4, spread evenly,",
    ]
    assert {i for i in usable if i % 3 == 0} < chosen_of(marks, usable, 9, told)


def test_an_empty_mask_does_not_change_where_the_others_are_learned_from() -> None:
    image = Frame(np.zeros((400, 400, 3), np.uint8), "slide")
    masks = np.zeros((3, 400, 400), bool)
    masks[0, 350:360, 350:360] = masks[1, 320:330, 330:340] = True
    marks = [Exemplar(image=image, mask=mask) for mask in masks]
    told = Told()
    windows = []
    for count in (2, 3):
        (seen,) = frames_of(marks[:count], Settings(), 60_000)
        parts = parts_of(seen, marks[:count], ["A", "B", "C"][:count], told)
        windows.append([(part.window, list(part.exemplars)) for part in parts])
    assert windows[0] == windows[1]
    assert told.warnings == ["C is left out: its mask is empty."]
