"""Masks that are upscaled in a window around their prompt, held against those that are upscaled whole."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from sam2_fewshot.backbones.sam2.decoder import PromptDecoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model


def bright_disc(radius: int, at: tuple[int, int] = (256, 256)) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:512, :512]
    grey = np.where((rows - at[1]) ** 2 + (columns - at[0]) ** 2 <= radius**2, 180, 40)
    noise = np.random.default_rng(0).normal(0, 6, grey.shape)
    return np.repeat((grey + noise).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def whole(model: Sam2Model, image: NDArray[np.uint8], point: tuple[float, float]) -> torch.Tensor:
    with torch.inference_mode():
        decoder = PromptDecoder(model.network, model.embed(image))
        return decoder.decode(torch.tensor([point]), -math.inf).logits


def in_window(model: Sam2Model, image: NDArray[np.uint8], point: tuple[float, float], reach: float) -> torch.Tensor:
    with torch.inference_mode():
        decoder = PromptDecoder(model.network, model.embed(image))
        return decoder.decode(torch.tensor([point]), -math.inf, reach).logits


@pytest.mark.parametrize("at", [(256, 256), (20, 30), (500, 256)])
def test_a_window_has_the_logits_of_the_whole(micro: Sam2Model, at: tuple[int, int]) -> None:
    image = bright_disc(16, at)
    full, part = whole(micro, image, at), in_window(micro, image, at, reach=20)
    inside = part > -32
    assert inside.any()
    assert not inside.all()
    assert torch.allclose(part[inside], full[inside], atol=1e-3)
    rows, columns = inside[0].nonzero(as_tuple=True)
    assert rows.min() <= at[1] / 4 <= rows.max()
    assert columns.min() <= at[0] / 4 <= columns.max()


def test_a_mask_that_goes_on_beyond_its_window_is_whole(micro: Sam2Model) -> None:
    image = bright_disc(60)
    full, part = whole(micro, image, (256, 256)), in_window(micro, image, (256, 256), reach=8)
    large = full.flatten(1).gt(0).sum(1) > 400
    assert large.any()
    assert torch.equal(part[large] > 0, full[large] > 0)


def test_large_and_small_boxes_share_a_batch(micro: Sam2Model) -> None:
    image = bright_disc(40)
    boxes = np.array([[216, 216, 296, 296], [0, 0, 512, 512], [250, 250, 251, 251]], np.float32)
    embedding = micro.embed(image)
    together = micro.prompt_boxes(embedding, boxes)
    alone = micro.prompt_boxes(embedding, boxes[:1])
    assert together.boxes[0] == pytest.approx(alone.boxes[0], abs=1)
    assert together.data[0].sum() == pytest.approx(alone.data[0].sum(), rel=0.02)
    assert len(micro.prompt_boxes(embedding, boxes[:0]).data) == 0


def test_masks_are_numbered_by_their_boxes_in_whichever_order_these_come(micro: Sam2Model) -> None:
    image, rng = bright_disc(40), np.random.default_rng(2)
    corners, sides = rng.uniform(150, 300, (70, 2)), rng.uniform(20, 160, (70, 1))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    embedding, order = micro.embed(image), rng.permutation(70)
    asked, mixed = micro.prompt_boxes(embedding, boxes), micro.prompt_boxes(embedding, boxes[order])
    assert asked.prompt.tolist() == sorted(asked.prompt.tolist())
    assert mixed.prompt.tolist() == sorted(mixed.prompt.tolist())
    places = [mixed.prompt.tolist().index(order.tolist().index(number)) for number in asked.prompt]
    assert sorted(places) == list(range(len(mixed.prompt)))
    assert mixed.predicted_iou[places] == pytest.approx(asked.predicted_iou, abs=1e-4)
    assert mixed.boxes[places] == pytest.approx(asked.boxes, abs=1)
    assert mixed.stability[places] == pytest.approx(asked.stability, abs=0.01)
