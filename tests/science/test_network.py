"""The encoder and the pooling, held against the public SAM 2 code on the same weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor

from random_networks import random_network
from sam2_fewshot.backbones.sam2 import cpu, open_model
from sam2_fewshot.backbones.sam2.checkpoints import SAM2_GATES
from sam2_fewshot.backbones.sam2.cpu import OneDnnLinear
from sam2_fewshot.backbones.sam2.device import choose_dtype
from sam2_fewshot.backbones.sam2.network import Sam2Model, mask_weighted_mean
from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.methods.grid import context_window
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

RNG = np.random.default_rng(1)
SIZES = [(70, 90), (512, 512), (33, 200), (600, 700), (1, 1)]
WINDOWS = [(0, 0, 90, 70), (50, 60, 562, 572), (7, 9, 207, 42), (0, 0, 700, 600), (5, 5, 6, 6)]
IMAGES = [RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def predictor_of(model: Sam2Model) -> SAM2ImagePredictor:
    network = copy.deepcopy(model.network)
    for module in network.modules():  # the public code goes through PyTorch's own linear layers
        if type(module) is OneDnnLinear:
            module.__class__ = torch.nn.Linear
    predictor = SAM2ImagePredictor(network, disable_torch_jit=True)
    side = model.input_size
    predictor._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
    return predictor


def test_an_embedding_is_that_of_set_image(micro: Sam2Model) -> None:
    predictor = predictor_of(micro)
    for image in IMAGES[:2]:
        predictor.set_image(image)
        ours = micro.embed(image)
        assert torch.allclose(ours.image_embed, predictor._features["image_embed"], atol=1e-4)
        for mine, theirs in zip(ours.high_res, predictor._features["high_res_feats"], strict=True):
            assert torch.allclose(mine, theirs, atol=1e-4)
        assert ours.frame_shape == image.shape[:2]
        kept = (ours.image_embed, *ours.high_res)
        assert micro.embedding_bytes == sum(part.numel() * part.element_size() for part in kept)


def encoded(model: Sam2Model) -> NDArray[np.float32]:
    """Features of windows of several sizes of one image, encoded in batches."""
    tiles = model.tiles(IMAGES[3], WINDOWS)
    return np.concatenate([tile.embedding.image_embed.float().numpy() for tile in tiles])


def test_a_batch_gives_what_single_images_give(micro: Sam2Model) -> None:
    together = encoded(micro)
    assert together.shape == (5, 128, 32, 32)
    assert together.dtype == np.float32
    predictor = predictor_of(micro)
    for (x0, y0, x1, y1), features in zip(WINDOWS, together, strict=True):
        predictor.set_image(np.ascontiguousarray(IMAGES[3][y0:y1, x0:x1]))
        assert np.abs(features - predictor._features["image_embed"][0].numpy()).max() < 1e-4


def test_a_read_only_image_is_taken_without_a_warning(micro: Sam2Model) -> None:
    image = IMAGES[0].copy()
    image.flags.writeable = False
    assert micro.embed(image).image_embed.isfinite().all()


@pytest.fixture
def double() -> Iterator[None]:
    """A program whose tensors are of float64 where nothing else is said."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def answers(model: Sam2Model) -> list[NDArray[np.generic]]:
    """What a model says of a window: features, maps of them, and the masks of points and boxes."""
    (tile,) = model.tiles(IMAGES[0], WINDOWS[:1])
    cells = model.input_size // model.strides[0] - 2
    features = tile.features(1, np.ones((cells, cells), bool))
    rows = np.eye(2, features.shape[1], dtype=np.float32)
    points = model.prompt(tile.embedding, np.array([(250, 250), (100, 90)], np.float32))
    boxes = model.prompt_boxes(tile.embedding, np.array([(100, 90, 260, 250)], np.float32))
    masks = [each for found in (points, boxes) for each in (found.predicted_iou, found.boxes)]
    return [features, tile.maps(1, features.mean(0), rows, rows), *masks]


def test_the_default_dtype_of_the_users_program_does_not_matter(
    micro: Sam2Model, request: pytest.FixtureRequest
) -> None:
    expected, has_onednn = answers(micro), cpu._has_onednn.__wrapped__()
    request.getfixturevalue("double")
    assert cpu._has_onednn.__wrapped__() == has_onednn
    for model in (micro, open_model("sam2.1_hiera_micro.pt", "cpu", Settings())):
        for found, right in zip(answers(model), expected, strict=True):
            assert found.dtype == right.dtype
            assert np.allclose(found, right, atol=1e-4)


def test_no_image_gives_no_features(micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]) -> None:
    assert micro.pool(discs[0], [], []).shape == (0, 128)


@pytest.mark.slow
def test_an_official_configuration_gives_set_images_embedding() -> None:
    """Meta's models have another input size, depth and memory modules; random weights show the path as well."""
    model = Sam2Model(
        random_network("tiny"), name="tiny", sha256="", gates=SAM2_GATES, device=torch.device("cpu"), batch_size=1
    )
    assert model.input_size == 1024
    assert model.feature_size == (64, 64)
    predictor = predictor_of(model)
    predictor.set_image(IMAGES[0])
    assert torch.allclose(model.embed(IMAGES[0]).image_embed, predictor._features["image_embed"], atol=1e-4)


def test_pooling_is_the_documents_formula_on_set_images_features(
    micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    masks = [crop_to_object(labels == number) for number in (1, 3, 5)]
    windows = [context_window(mask, 0.2, 1) for mask in masks]
    seen: list[int] = []
    pooled = micro.pool(image, windows, masks, on_batch=seen.append)
    assert sum(seen) == 3
    predictor = predictor_of(micro)
    for (x0, y0, x1, y1), mask, vector in zip(windows, masks, pooled, strict=True):
        if min(x0, y0) < 0 or x1 > 200 or y1 > 160:
            continue
        predictor.set_image(image[y0:y1, x0:x1])
        inside = torch.from_numpy(mask.window((x0, y0, x1, y1))).float()[None, None]
        weight = torch.nn.functional.interpolate(inside, (32, 32), mode="bilinear", antialias=True)
        features = predictor._features["image_embed"]
        expected = (features * weight).sum(dim=[2, 3]) / weight.sum()
        assert vector == pytest.approx(expected[0].numpy(), abs=1e-4)


def test_the_order_and_the_batch_do_not_matter(
    micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    masks = [crop_to_object(labels == number) for number in range(1, 8)]
    windows = [context_window(mask, 0.2, 64) for mask in masks]
    together = micro.pool(image, windows, masks)
    for i in (6, 0):
        assert micro.pool(image, [windows[i]], [masks[i]])[0] == pytest.approx(together[i], abs=1e-4)


def test_a_crop_beyond_the_frame_sees_its_mirror_image(micro: Sam2Model) -> None:
    """A crop that reaches over the corner must equal the same crop of a picture that was mirrored beforehand."""
    image = IMAGES[0]
    mask = np.zeros((70, 90), bool)
    mask[:9, :12] = True
    corner = micro.pool(image, [(-30, -20, 50, 60)], [crop_to_object(mask)])
    wide = np.pad(image, ((40, 40), (40, 40), (0, 0)), mode="reflect")
    inside = micro.pool(wide, [(10, 20, 90, 100)], [crop_to_object(np.pad(mask, 40))])
    assert corner == pytest.approx(inside, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1)])
def test_a_frame_smaller_than_its_crop_has_features(micro: Sam2Model, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    pooled = micro.pool(image, [(-3, -3, 9, 9)], [crop_to_object(np.ones(shape, bool))])
    assert np.isfinite(pooled).all()


def test_a_mask_smaller_than_a_feature_cell_still_counts() -> None:
    features = torch.randn(1, 4, 8, 8)
    nothing = mask_weighted_mean(features, torch.zeros(1, 8, 8))
    assert torch.allclose(nothing, features.mean((2, 3)))


def test_memory_that_runs_out_halves_the_batch_and_gives_the_same(micro: Sam2Model) -> None:
    calls: list[int] = []

    def small(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encode on a device that has room for one image."""
        calls.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return micro.encoder(images)

    facts = {"name": "", "sha256": "", "gates": micro.gates, "device": micro.device}
    model = Sam2Model(micro.network, **facts, batch_size=4, encoder=small)
    alone = encoded(model)
    assert calls == [4, 2, 1, 1, 1, 1, 1]
    assert np.abs(alone - encoded(micro)).max() < 1e-4
    calls.clear()
    encoded(model)
    assert calls == [1, 1, 1, 1, 1], "it has learned what fits"


class Large(torch.Tensor):
    """A tensor that leaves no memory for anything else."""

    @classmethod
    def __torch_function__(cls, *_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_memory_that_runs_out_outside_batches_is_a_sentence(micro: Sam2Model) -> None:
    def none(_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    facts = {"name": "", "sha256": "", "gates": micro.gates, "device": micro.device}
    model, image = Sam2Model(micro.network, **facts, encoder=none), IMAGES[0]
    embedding = micro.embed(image)._replace(image_embed=torch.zeros(1).as_subclass(Large))
    point, box = np.ones((1, 2), np.float32), np.ones((1, 4), np.float32)
    for work in (
        lambda: model.embed(image),
        lambda: model.pool_frame(image, [crop_to_object(np.ones(image.shape[:2], bool))]),
        lambda: micro.prompt(embedding, point, iou_gate=0, stability_gate=0),
        lambda: micro.prompt_boxes(embedding, box),
    ):
        with pytest.raises(InputError, match="does not fit into the device's memory"):
            work()


def test_bfloat16_agrees_within_its_precision(
    micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    device = torch.device("cpu")
    short = Sam2Model(
        micro.network,
        name="",
        sha256="",
        gates=micro.gates,
        device=device,
        dtype=choose_dtype(device, "bfloat16"),
    )
    a, b = (model.embed(discs[0]).image_embed.float().numpy() for model in (micro, short))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.98
