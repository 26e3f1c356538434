"""Points as examples, from the click to the mask that is learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from shapely import Point

from sam2_fewshot import Exemplar, Frame, Settings
from sam2_fewshot.examples.points import masks_at_points
from sam2_fewshot.examples.training_set import training_set
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.sample import sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.examples.training_set import TrainingSet
    from sam2_fewshot.protocols import Embedding
    from sam2_fewshot.records import InstanceMask


def learned(model: Sam2Model, exemplars: Sequence[Exemplar]) -> TrainingSet:
    return training_set(exemplars, model, Settings(), 10**9, Quiet())


def middle(inside: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(inside)
    return columns.mean() + 0.5, rows.mean() + 0.5


def ious(masks: Sequence[InstanceMask], truth: Sequence[NDArray[np.bool_]]) -> list[float]:
    """IoU of each object with that of as many masks, in any order, that is most like it."""
    assert len(masks) == len(truth)
    return [max(mask_iou(mask, crop_to_object(inside)) for mask in masks) for inside in truth]


class Counting:
    """A model that counts the images it encodes."""

    def __init__(self, model: Sam2Model) -> None:
        self._model = model
        self.input_size = model.input_size
        self.prompt = model.prompt
        self.encoded = 0

    def embed(self, image: NDArray[np.uint8]) -> Embedding:
        self.encoded += 1
        return self._model.embed(image)


@pytest.fixture(scope="module")
def crowd() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Small bright grains in a grey patch on a dark ground: SAM 2 may take a point for the patch."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:400, :400]
    labels = np.zeros((400, 400), np.int32)
    for number in range(9):
        row, column = 150 + 45 * (number // 3), 150 + 45 * (number % 3)
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= (6 + number % 3) ** 2] = number + 1
    patch = (rows - 198) ** 2 + (columns - 198) ** 2 < 150**2
    grey = np.where(labels > 0, 130, np.where(patch, 90, 20))
    noisy = ndimage.gaussian_filter(grey + rng.normal(0, 25, grey.shape), 0.8)
    return np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), labels


def test_points_near_each_other_share_their_windows(micro: Sam2Model, discs: tuple[NDArray[np.uint8], object]) -> None:
    alone, together = Counting(micro), Counting(micro)
    points = [(40.5, 30.5), (60.5, 40.5), (160.5, 84.5)]
    single = [masks_at_points(alone, discs[0], [each])[0] for each in points]  # type: ignore[arg-type]
    assert alone.encoded == 6  # the frame and a quarter of the input, 128 px, for each
    shared = masks_at_points(together, discs[0], points)  # type: ignore[arg-type]
    assert together.encoded == 3
    assert [item.mask.box for item in shared[0]] == [item.mask.box for item in single[0]]
    for point, offers in zip(points, shared, strict=True):
        column, row = int(point[0]), int(point[1])
        assert offers
        assert all(item.mask.window((column, row, column + 1, row + 1)).all() for item in offers)


def test_one_point_is_given_the_mask_with_the_highest_predicted_iou(
    micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    point = middle(labels == 3)
    best = max(masks_at_points(micro, image, [point])[0], key=lambda item: item.predicted_iou)
    (mask,) = learned(micro, [Exemplar(image, point=point)]).frames[0].positives
    assert mask_iou(mask, best.mask) == 1


@pytest.mark.slow
def test_points_on_a_crowd_are_not_taken_for_what_it_lies_in(
    micro: Sam2Model, crowd: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = crowd
    truth = [labels == number for number in range(1, 10)]
    points = [middle(inside) for inside in truth]
    surest = [max(offers, key=lambda item: item.predicted_iou).mask for offers in masks_at_points(micro, image, points)]
    chosen = learned(micro, [Exemplar(Frame(image), point=point) for point in points]).frames[0].positives
    assert np.mean(ious(chosen, truth)) > 0.6
    assert np.mean(ious(chosen, truth)) >= np.mean(ious(surest, truth))


def test_an_outline_tells_what_the_points_mean(
    micro: Sam2Model, crowd: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = crowd
    outlined = Exemplar(image, polygon=Point(*middle(labels == 1)).buffer(6))
    pointed = Exemplar(image, point=middle(labels == 4))
    frame = learned(micro, [pointed, outlined, Exemplar(image, mask=labels == 9)]).frames[0]
    assert min(ious(frame.positives, [labels == 4, labels == 1, labels == 9])) > 0.6


def test_points_on_known_nuclei_give_their_masks(micro: Sam2Model) -> None:
    files = sample()
    image, labels = np.asarray(Image.open(files.image)), np.asarray(Image.open(files.examples))
    truth = [labels == number for number in np.unique(labels)[1::2]]
    frame = learned(micro, [Exemplar(image, point=middle(inside)) for inside in truth]).frames[0]
    assert np.mean(ious(frame.positives, truth)) > 0.93


def test_negative_points_are_chosen_among_their_own_kind(
    micro: Sam2Model, crowd: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = crowd
    wanted = [Exemplar(image, point=middle(labels == number)) for number in (1, 5, 8)]
    beside = Exemplar(image, point=(20.5, 380.5), negative=True)
    with_it, without = learned(micro, [*wanted, beside]), learned(micro, wanted)
    assert [mask.box for mask in with_it.frames[0].positives] == [mask.box for mask in without.frames[0].positives]
    assert len(with_it.frames[0].negatives) == 1
