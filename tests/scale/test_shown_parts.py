"""Which parts of a frame are learned from."""

from __future__ import annotations

import numpy as np
import shapely

from sam2_fewshot import Exemplar, Settings
from sam2_fewshot.examples.windows import parts_of, shown_parts
from sam2_fewshot.records import Frame
from told import Told

FRAME = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
OUTLINE = shapely.box(100, 120, 110, 128)


def test_what_is_learned_of_a_large_frame_does_not_depend_on_the_memory() -> None:
    exemplars = [Exemplar(image=FRAME, polygon=OUTLINE)]
    results = [parts_of(exemplars, Settings(), most, Told(), whole=90_000) for most in (10**9, 400_000)]
    for digest, shape, (part,) in results:
        assert shape == (300, 400)
        assert part.window == (34, 54, 177, 195)  # six times its longer side, 11 px, on each side
        assert np.array_equal(part.frame.pixels, FRAME[54:195, 34:177])
        assert digest == results[0][0]
    digest, _, (part,) = parts_of(exemplars, Settings(), 10**9, Told(), whole=120_000)
    assert part.frame.shape == (300, 400)
    assert digest == results[0][0]


def test_a_point_of_a_large_frame_shows_its_surroundings() -> None:
    (part,) = shown_parts([Exemplar(image=FRAME, point=(200.0, 150.0))], Frame(FRAME), 10**6, Told())
    x0, y0, x1, y1 = part.window
    assert x0 <= 136
    assert y0 <= 86
    assert x1 >= 265
    assert y1 >= 215


def test_what_is_wrong_with_an_example_of_a_large_frame_is_told() -> None:
    told = Told()
    wrong = [
        Exemplar(image=FRAME, mask=np.ones((5, 6), bool), label="A"),
        Exemplar(image=FRAME, point=(500.0, 10.0), label="B"),
        Exemplar(image=FRAME, polygon=OUTLINE),
    ]
    assert len(shown_parts(wrong, Frame(FRAME, "slide"), 10**6, told)) == 1
    assert told.warnings == [
        "A is left out: its mask has the shape (5, 6), but its image, slide, is 400 × 300 px.",
        "B is left out: no pixel of it lies on its image, slide.",
    ]
