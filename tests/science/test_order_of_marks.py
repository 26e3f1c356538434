"""The order in which marks and images are given, and what images are called, do not decide what is learned."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from disc_scenes import discs

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.records import Frame
from told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from disc_scenes import Scene

    from sam2_fewshot.protocols import Backbone


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Two images of discs of several sizes."""
    return [
        discs([(25 + 40 * (i % 6), 30 + 45 * (i // 6), 8 + (i * step) % 5) for i in range(24)], (230, 260))
        for step in (3, 2)
    ]


def marks_on(scenes: Sequence[Scene], names: Sequence[str] = ("a", "b")) -> list[Exemplar]:
    """Outlines, boxes, points and an unwanted one on each image."""
    found = []
    for (pixels, masks), name in zip(scenes, names, strict=True):
        image = Frame(pixels, name)
        for i, mask in enumerate(masks[::2]):
            x0, y0, x1, y1 = (float(each) for each in mask.box)
            way: dict[str, Any] = {"mask": mask.full()}
            if i % 4 == 1:
                way = {"box": (x0, y0, x1, y1)}
            elif i % 4 == 2:
                way = {"point": ((x0 + x1) / 2, (y0 + y1) / 2)}
            found.append(Exemplar(image, negative=i == 7, **way))
    return found


def learned(backbone: Backbone, marks: Sequence[Exemplar], **settings: Any) -> bytes:
    segmenter = FewShotSegmenter(backbone, settings=Settings(**settings), progress=Told())
    return segmenter.fit(marks).object_model.to_bytes()


@pytest.mark.parametrize("method", ["guided", "grid"])
def test_the_order_of_the_marks_does_not_matter(filters: Backbone, scenes: list[Scene], method: str) -> None:
    marks = marks_on(scenes)
    shuffled = random.Random(1).sample(marks, len(marks))
    assert learned(filters, shuffled, method=method) == learned(filters, marks, method=method)


@pytest.mark.slow
def test_the_order_of_few_marks_does_not_matter(filters: Backbone, scenes: list[Scene]) -> None:
    marks = marks_on(scenes[:1], ["a"])
    few = [marks[0], marks[4], marks[8]]
    assert learned(filters, few[::-1]) == learned(filters, few)


def test_neither_the_order_of_the_images_nor_their_names_matter(filters: Backbone, scenes: list[Scene]) -> None:
    before = learned(filters, marks_on(scenes))
    assert learned(filters, marks_on(scenes[::-1])) == before
    assert learned(filters, marks_on(scenes, ["z", "b"])) == before


def test_the_order_of_marks_on_parts_of_an_image_does_not_matter(filters: Backbone) -> None:
    image, masks = discs([(60 + 420 * i, 60, 9 + i % 4) for i in range(5)], (120, 1800))
    marks = [Exemplar(image, mask=mask.full()) for mask in masks]
    assert learned(filters, marks[::-1]) == learned(filters, marks)
