"""SAM 2's masks of candidates, and whom it is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor

from random_networks import random_network
from sam2_fewshot.backbones.sam2.checkpoints import SAM2_GATES
from sam2_fewshot.backbones.sam2.network import Sam2Model
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.methods.guided.box_refinement import (
    REFINEMENT,
    RefinedMask,
    covered,
    refined_in_tiles,
    refined_masks,
    to_refine,
    to_refine_in_training,
    with_refined,
)
from sam2_fewshot.methods.guided.descriptors import SUPPORT, FrameMaps, Proposed, describe
from sam2_fewshot.methods.guided.logistic import fit_logistic
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.tiling.overview import reduced
from sam2_fewshot.tiling.tiles import TileGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone

SHAPE = (160, 200)
DESCRIBED = 19
"""Descriptors with three levels."""


def square(x: int, y: int, side: int) -> InstanceMask:
    return InstanceMask(np.ones((side, side), bool), x, y, SHAPE)


def as_predicted(model: Sam2Model, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> None:
    """Hold the masks of boxes against those of the public predictor."""
    predictor = SAM2ImagePredictor(model.network, disable_torch_jit=True)
    side = model.input_size
    predictor._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
    predictor.set_image(image)
    scale = np.array([side / image.shape[1], side / image.shape[0]] * 2)
    ours = model.prompt_boxes(model.embed(image), (boxes * scale).astype(np.float32))
    empty = set(range(len(boxes))) - set(ours.prompt.tolist())
    for i, box in enumerate(boxes):
        theirs, iou, _ = predictor.predict(box=box, multimask_output=False)
        assert (i in empty) == (not theirs.any())
        if i not in empty:
            place = ours.prompt.tolist().index(i)
            assert ours.predicted_iou[place] == pytest.approx(iou[0], abs=1e-4)
            mask = InstanceMask(ours.data[place], int(ours.boxes[place, 0]), int(ours.boxes[place, 1]), image.shape[:2])
            assert mask_iou(mask, crop_to_object(theirs[0] > 0)) > 0.99


def test_a_box_gives_the_mask_of_the_public_predictor(
    micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    boxes = [crop_to_object(labels == number).box for number in range(1, 9)]
    as_predicted(micro, image, np.array(boxes, np.float32))


@pytest.mark.slow
def test_a_box_gives_the_mask_of_an_official_configuration() -> None:
    network = random_network("tiny")
    model = Sam2Model(network, name="tiny", sha256="", gates=SAM2_GATES, device=torch.device("cpu"))
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    as_predicted(model, image, np.array([[10, 20, 90, 120], [200, 100, 390, 290]], np.float32))


def test_an_object_gives_itself_back_wherever_its_tile_lies(
    micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    truth = [crop_to_object(labels == number) for number in range(1, 9)]
    grid = TileGrid(SHAPE, 144)
    embeddings = dict(enumerate(tile.embedding for tile in micro.tiles(image, grid.windows())))
    assert len(embeddings) == 4
    done = []
    found = refined_in_tiles(micro, embeddings, grid, truth, done.append)
    held = [(mask, refined) for mask, refined in zip(truth, found, strict=True) if refined]
    # The tiles' halo of 9 px is narrower than the discs: two of them lie in no tile as a whole, and another one ends
    # where its tile does, so that nobody knows whether SAM 2 sees all of it.
    assert sum(done) == 6
    assert len(held) == 5
    for mask, refined in held:
        assert refined.agreement > 0.8
        assert refined.agreement == mask_iou(refined.mask, mask)
        assert 0 <= refined.stability <= 1
        assert refined.mask.box[2] <= SHAPE[1]


def test_what_no_tile_holds_is_refined_in_wider_ones(
    micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    truth = [crop_to_object(labels == number) for number in range(1, 9)]
    grid = TileGrid(SHAPE, 144)
    embeddings = dict(enumerate(tile.embedding for tile in micro.tiles(image, grid.windows())))
    narrow = refined_in_tiles(micro, embeddings, grid, truth)
    found = refined_masks(micro, image, embeddings, grid, truth)
    assert None in narrow
    for mask, refined, before in zip(truth, found, narrow, strict=True):
        assert refined is not None
        assert refined.agreement > 0.8
        assert refined.agreement == mask_iou(refined.mask, mask)
        if before is not None:
            assert refined.mask.box == before.mask.box
    everything = square(0, 0, 160)
    (whole,) = refined_masks(micro, image, embeddings, grid, [everything])
    assert whole is not None


@pytest.mark.parametrize("name", ["micro", "filters"])
def test_wider_tiles_of_the_frame_at_half_its_size_give_the_same_masks(
    name: str, request: pytest.FixtureRequest, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    backbone = request.getfixturevalue(name)
    image, labels = discs
    truth = [crop_to_object(labels == number) for number in range(1, 9)]
    grid = TileGrid(SHAPE, 144)
    embeddings = dict(enumerate(tile.embedding for tile in backbone.tiles(image, grid.windows())))
    small = reduced(image, 2)
    tiles = backbone.tiles(small, TileGrid.of(small, 144).windows())
    wider = {number: tile.embedding.resized((288, 288)) for number, tile in enumerate(tiles)}
    # Of no usual tile there is an embedding, so that all are refined in the wider ones.
    for of_tiles in (embeddings, {}):
        usual = refined_masks(backbone, image, of_tiles, grid, truth)
        given = refined_masks(backbone, image, of_tiles, grid, truth, wider=wider)
        assert len(truth) == sum(each is not None for each in usual)
        for one, other in zip(usual, given, strict=True):
            assert one is not None
            assert other is not None
            assert mask_iou(one.mask, other.mask) > 0.85
            assert other.agreement > 0.85


def test_what_no_tile_of_twice_the_width_holds_is_refined_in_one_of_four_times_whatever_is_there(
    filters: Backbone,
) -> None:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disc = (rows - 80) ** 2 + (columns - 90) ** 2 <= 50**2
    image = np.repeat(np.where(disc, 200, 40).astype(np.uint8)[..., None], 3, axis=2)
    candidate, grid = crop_to_object(disc), TileGrid(SHAPE, 48)
    wider = dict(enumerate(tile.embedding for tile in filters.tiles(image, TileGrid(SHAPE, 96).windows())))
    (usual,), (given,) = (refined_masks(filters, image, {}, grid, [candidate], wider=there) for there in ({}, wider))
    assert usual is not None
    assert given is not None
    assert given.agreement == usual.agreement > 0.85


def test_a_mask_is_clipped_where_its_tile_ends_within_the_frame() -> None:
    window = (-9, 40, 71, 120)
    assert not square(20, 60, 20).is_clipped(window)
    assert square(20, 40, 20).is_clipped(window)
    assert square(51, 60, 20).is_clipped(window)
    assert not square(0, 60, 20).is_clipped(window)  # the frame's own border
    assert not square(20, 140, 20).is_clipped((-9, 80, 71, 160))
    assert square(20, 60, 60).is_clipped(window)


def test_sure_objects_cover_their_pixels() -> None:
    where = covered([square(10, 10, 5), square(12, 12, 5), square(40, 40, 5)], np.array([3.0, 2.5, 1.0]), SHAPE)
    assert np.count_nonzero(where) == 25 + 25 - 9
    assert where[10, 10]
    assert not where[42, 42]


def test_what_does_not_fit_into_its_tile_is_not_refined(micro: Sam2Model) -> None:
    grid = TileGrid(SHAPE, 64)
    embedding = next(iter(micro.tiles(np.zeros((*SHAPE, 3), np.uint8), grid.windows()[:1]))).embedding
    embeddings = dict.fromkeys(range(len(grid.windows())), embedding)
    assert refined_in_tiles(micro, embeddings, grid, [square(10, 10, 100)]) == [None]
    assert refined_in_tiles(micro, {}, grid, [square(10, 10, 20)]) == [None]
    assert refined_in_tiles(micro, {}, grid, []) == []


def test_like_candidates_are_refined_once_the_best_first() -> None:
    candidates = [square(10, 10, 20), square(10, 10, 21), square(60, 60, 20)]
    assert to_refine(candidates, np.array([1.0, 2.0, 3.0]), tiles=1) == [2, 1]
    many = [square(3 * (i % 60), 3 * (i // 60), 2) for i in range(1200)]
    assert len(to_refine(many, np.zeros(len(many)), tiles=1)) == 192
    assert len(to_refine(many, np.zeros(len(many)), tiles=20)) == 320
    assert to_refine([], np.zeros(0), tiles=1) == []
    for x, y in ((0, 130), (170, 0)):
        assert to_refine([square(x, y, 20), square(x, y, 21)], np.zeros(2), tiles=1) == [0]


def test_what_is_no_object_for_sure_is_not_refined() -> None:
    candidates = [square(10, 10, 20), square(60, 60, 20), square(110, 60, 20)]
    assert to_refine(candidates, np.array([-2.9, 1.0, -3.1]), tiles=1) == [1, 0]
    assert to_refine(candidates, np.full(3, -9.0), tiles=1) == []


def test_of_a_dense_frame_more_are_refined() -> None:
    many = [square(3 * (i % 60), 3 * (i // 60), 2) for i in range(1200)]
    odds = np.where(np.arange(1200) < 200, 1.0, -1.0)
    assert len(to_refine(many, odds, tiles=1)) == 800


def test_each_example_has_its_share_of_the_refined() -> None:
    marked = [square(0, 0, 20), square(100, 100, 20)]
    parts = [square(x, y, 4) for x in (0, 5, 10, 15) for y in (0, 5, 10, 15)]
    away = [square(60, 0, 8)]
    chosen = to_refine_in_training([*parts, *away, square(101, 101, 18)], np.arange(18.0)[::-1], marked)
    assert len([i for i in chosen if i < len(parts)]) == 12
    assert {16, 17} <= set(chosen)


def test_some_of_the_ground_is_refined_though_others_are_better() -> None:
    """With nothing but objects away from the examples, what an empty frame shows would never have been seen."""
    objects = [square(6 * (i % 30), 6 * (i // 30), 4) for i in range(150)]
    ground = [square(6 * (i % 30), 40 + 6 * (i // 30), 5) for i in range(60)]
    marked, odds = [square(190, 150, 8)], np.linspace(5, -5, 210)
    is_ground = np.arange(210) >= 150
    chosen = to_refine_in_training([*objects, *ground], odds, marked, ground=is_ground)
    assert chosen == [*range(100), *range(150, 180)]
    assert to_refine_in_training([*objects, *ground], odds, marked) == [*range(100)]
    # What is among the best others already counts.
    assert to_refine_in_training([*objects, *ground], -odds, marked, ground=is_ground) == [*range(209, 109, -1)]
    assert len(to_refine_in_training([*objects, *ground], odds, marked, 0.5, is_ground)) == 50 + 15


def test_refined_masks_are_added_within_the_limits_of_size() -> None:
    plane = np.zeros(SHAPE, np.float32)
    maps = FrameMaps(plane, plane, plane, plane, np.stack([plane] * 3))
    candidates = [square(10, 10, 10), square(40, 40, 10), square(70, 70, 10)]
    made = [RefinedMask(square(10, 10, 12), 0.9, 0.8, 0.7), None, RefinedMask(square(0, 0, 100), 0.5, 0.5, 0.01)]
    once = Proposed(candidates, np.ones(3, int))
    masks, features = with_refined(
        candidates, describe(candidates, maps, 10.0, once), made, maps, 10.0, (50, 500), once
    )
    assert [mask.area for mask in masks] == [100, 100, 100, 144]
    assert features.shape == (4, DESCRIBED + REFINEMENT)
    assert features[0, DESCRIBED:].tolist() == [0.9, 0.8, 0.7, 0.0]
    assert np.isnan(features[1, DESCRIBED:-1]).all()
    assert features[3, DESCRIBED:].tolist() == [0.9, 0.8, 0.7, 1.0]
    assert features[3, SUPPORT - REFINEMENT] == pytest.approx(np.log(2))  # its candidate, not itself


def test_what_is_unlike_all_that_was_learned_from_is_not_surer_for_it() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(80) < 40
    features = np.column_stack([rng.normal(positive * 1.0, 1), rng.normal(positive * 3.0, 1)])
    fitted = fit_logistic(features, positive, np.ones(80))
    spread = fitted.scale[0]
    near, far, farther = fitted.log_odds(fitted.mean + spread * np.array([[3.0, 0], [4.0, 0], [90.0, 0]]))
    assert near < far
    assert farther == pytest.approx(far)
    against = fitted.log_odds(fitted.mean - spread * np.array([[4.0, 0], [8.0, 0]]))
    assert against[1] < against[0] < near


def test_an_unknown_feature_counts_as_average() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(60) % 2 == 0
    features = np.column_stack([rng.normal(positive * 3.0, 1), rng.normal(positive * 3.0, 1), np.full(60, np.nan)])
    features[:5, 1] = np.nan
    fitted = fit_logistic(features, positive, np.ones(60))
    average = float(np.nanmean(features[:, 1]))
    known, unknown = fitted.log_odds(np.array([[1.0, average, 7.0], [1.0, np.nan, np.nan]]))
    assert known == pytest.approx(unknown)
    assert np.isfinite(fitted.log_odds(np.array([[np.nan] * 3]))).all()
    assert fitted.log_odds(np.array([[-1e6, -1e6, np.nan]]))[0] == -12.0
