"""Boxes as examples, from the mark to the mask that is learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from sam2_fewshot import Exemplar, Frame, Settings
from sam2_fewshot.examples.training_set import training_set
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.sample import sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.examples.training_set import TrainingSet


class Listening(Quiet):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def warn(self, sentence: str) -> None:
        self.sentences.append(sentence)


def learned(
    model: Sam2Model, exemplars: list[Exemplar], listening: Listening | None = None, most: int = 10**9
) -> TrainingSet:
    return training_set(exemplars, model, Settings(), most, listening or Quiet())


@pytest.fixture(scope="module")
def nuclei() -> tuple[Frame, list[NDArray[np.bool_]]]:
    files = sample()
    marked = np.asarray(Image.open(files.examples))
    pixels = np.asarray(Image.open(files.image).convert("RGB"))
    return Frame(pixels), [marked == number for number in np.unique(marked)[1:]]


def box_around(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = crop_to_object(mask).box
    return float(x0), float(y0), float(x1), float(y1)


def test_a_box_gives_the_object_in_it(micro: Sam2Model, nuclei: tuple[Frame, list[NDArray[np.bool_]]]) -> None:
    frame, masks = nuclei[0], nuclei[1][:4]
    training = learned(micro, [Exemplar(image=frame, box=box_around(mask)) for mask in masks])
    assert len(training.known) == 4
    ious = [max(mask_iou(item.mask, crop_to_object(mask)) for item in training.known) for mask in masks]
    assert min(ious) > 0.8
    assert np.mean(ious) > 0.9
    assert all(item.wanted for item in training.known)


def test_a_box_is_prompted_in_a_part_of_a_large_frame_too(
    micro: Sam2Model, nuclei: tuple[Frame, list[NDArray[np.bool_]]]
) -> None:
    frame, masks = nuclei
    training = learned(micro, [Exemplar(image=frame, box=box_around(mask)) for mask in masks[:2]], most=200_000)
    for mask in masks[:2]:
        assert max(mask_iou(item.mask, crop_to_object(mask)) for item in training.known) > 0.8


def test_boxes_and_other_marks_go_together(micro: Sam2Model, nuclei: tuple[Frame, list[NDArray[np.bool_]]]) -> None:
    frame, masks = nuclei
    rows, columns = np.nonzero(masks[2])
    marks = [
        Exemplar(image=frame, mask=masks[0]),
        Exemplar(image=frame, box=box_around(masks[1])),
        Exemplar(image=frame, point=(columns.mean() + 0.5, rows.mean() + 0.5)),
        Exemplar(image=frame, box=box_around(masks[3]), negative=True),
    ]
    training = learned(micro, marks)
    assert [item.wanted for item in training.known] == [True, True, True, False]
    assert len(training.areas) == 3


def test_a_box_and_an_outline_of_one_object_count_once(
    micro: Sam2Model, nuclei: tuple[Frame, list[NDArray[np.bool_]]]
) -> None:
    frame, masks = nuclei
    listening = Listening()
    marks = [Exemplar(image=frame, box=box_around(masks[0])), Exemplar(image=frame, mask=masks[0])]
    training = learned(micro, marks, listening)
    outline, found = sorted(training.known, key=lambda item: -item.wanted)
    assert (outline.wanted, found.wanted) == (True, False)
    assert np.array_equal(outline.mask.full(), masks[0])  # it is surer
    assert "mark the same object, which is counted once" in listening.sentences[0]


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((9000.0, 9000.0, 9010.0, 9010.0), "no part of its box (9000, 9000, 9010, 9010) lies on its image"),
        ((20.0, 20.0, 20.0, 30.0), "its box (20, 20, 20, 30) has no area"),
        ((float("nan"), 0.0, 10.0, 10.0), "no part of its box"),
    ],
)
def test_boxes_without_an_object_are_named(
    micro: Sam2Model, nuclei: tuple[Frame, list[NDArray[np.bool_]]], box: tuple[float, ...], said: str
) -> None:
    frame, masks = nuclei
    listening = Listening()
    learned(micro, [Exemplar(image=frame, mask=masks[0]), Exemplar(image=frame, box=box)], listening)  # type: ignore[arg-type]
    assert said in listening.sentences[0]


def test_one_mark_is_one_thing(micro: Sam2Model, nuclei: tuple[Frame, list[NDArray[np.bool_]]]) -> None:
    frame, masks = nuclei
    listening = Listening()
    both = Exemplar(image=frame, box=box_around(masks[1]), point=(5.0, 5.0))
    learned(micro, [Exemplar(image=frame, mask=masks[0]), both], listening)
    assert "either a mask, a polygon, a box or a point, not 2 of them" in listening.sentences[0]
