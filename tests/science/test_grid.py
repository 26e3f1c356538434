"""The grid of prompts, held against ``SAM2AutomaticMaskGenerator`` on the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.sam2_image_predictor import SAM2ImagePredictor
from torch.nn import functional

from random_networks import random_network
from sam2_fewshot.backbones.sam2.checkpoints import SAM2_GATES
from sam2_fewshot.backbones.sam2.masks import stable_masks
from sam2_fewshot.backbones.sam2.network import Sam2Model
from sam2_fewshot.methods.base import Place
from sam2_fewshot.methods.grid import points_in, propose
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.methods.grid import Candidate

# The public generator scripts its transforms, which torch has deprecated.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*torch.jit.script:{kind}") for kind in ("FutureWarning", "DeprecationWarning")
]


def whole_grid(points_per_side: int) -> NDArray[np.float64]:
    return points_in(Place((0, 0, 1, 1), (1, 1)), points_per_side)


Discs = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]


def official(model: Sam2Model, image: NDArray[np.uint8], points: int, iou: float, stability: float) -> list[dict]:
    generator = SAM2AutomaticMaskGenerator(
        model.network, points_per_side=points, pred_iou_thresh=iou, stability_score_thresh=stability
    )
    side = model.input_size
    generator.predictor = SAM2ImagePredictor(model.network, disable_torch_jit=True)
    generator.predictor._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
    return generator.generate(image)


def ours(model: Sam2Model, image: NDArray[np.uint8], **settings: float) -> list[Candidate]:
    # Settings allows no grid under 16; the generator itself takes any.
    chosen = Settings.model_construct(**{**Settings().model_dump(), "min_mask_area": 0, **settings})
    return propose(model, model.embed(image), chosen, Quiet(), whole_grid(chosen.points_per_side))


def assert_equal(candidates: list[Candidate], masks: list[dict]) -> None:
    assert len(candidates) == len(masks) > 0
    for candidate in candidates:
        mine = candidate.mask.full()
        ious = [np.sum(mine & m["segmentation"]) / np.sum(mine | m["segmentation"]) for m in masks]
        same = masks[int(np.argmax(ious))]
        assert max(ious) >= 0.99
        assert candidate.predicted_iou == pytest.approx(same["predicted_iou"], abs=1e-4)


@pytest.mark.parametrize(("crop", "points"), [((160, 200), 8), ((97, 64), 8), ((160, 31), 8)])
def test_candidates_are_those_of_the_public_generator(
    micro: Sam2Model, discs: Discs, crop: tuple[int, int], points: int
) -> None:
    image = np.ascontiguousarray(discs[0][: crop[0], : crop[1]])
    gates = micro.gates
    assert_equal(
        ours(micro, image, points_per_side=points), official(micro, image, points, gates.predicted_iou, gates.stability)
    )


def test_other_gates_are_taken_alike(micro: Sam2Model, discs: Discs) -> None:
    settings = {"points_per_side": 8, "predicted_iou_gate": 0.3, "stability_gate": 0.5}
    assert_equal(ours(micro, discs[0], **settings), official(micro, discs[0], 8, 0.3, 0.5))


@pytest.mark.slow
def test_an_official_configuration_gives_the_same_candidates(discs: Discs) -> None:
    """Random weights of the tiny model: other sizes and heads than the embedded one's, masks over the whole frame."""
    network = random_network("tiny")
    for mlp in network.sam_mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight.mul_(300)  # logits of random weights are all near 0, and no mask would be stable
    model = Sam2Model(network, name="tiny", sha256="", gates=SAM2_GATES, device=torch.device("cpu"), points_per_batch=5)
    image = np.ascontiguousarray(discs[0][:90, :70])
    mine = ours(model, image, points_per_side=3, predicted_iou_gate=0.01, stability_gate=0.05)
    assert_equal(mine, official(model, image, 3, 0.01, 0.05))


def test_the_discs_are_found_to_their_last_row(micro: Sam2Model, discs: Discs) -> None:
    image, labels = discs
    candidates = ours(micro, image, points_per_side=16)
    found = 0
    for number in range(1, labels.max() + 1):
        truth = labels == number
        best = max(np.sum(truth & c.mask.full()) / np.sum(truth | c.mask.full()) for c in candidates)
        found += best > 0.8
    assert found >= 7


def test_areas_are_limited_on_the_full_resolution_mask(micro: Sam2Model, discs: Discs) -> None:
    areas = sorted(c.mask.area for c in ours(micro, discs[0], points_per_side=16))
    low, high = areas[1], areas[-2]
    limited = ours(micro, discs[0], points_per_side=16, min_mask_area=low, max_mask_area=high)
    assert sorted(c.mask.area for c in limited) == [area for area in areas if low <= area <= high]


def test_the_batch_of_prompts_does_not_matter(micro: Sam2Model, discs: Discs) -> None:
    embedding, grid = micro.embed(discs[0]), (whole_grid(16) * 512).astype(np.float32)
    whole = micro.prompt(embedding, grid, iou_gate=0.6, stability_gate=0.8)
    parts = [micro.prompt(embedding, part, iou_gate=0.6, stability_gate=0.8) for part in np.split(grid, [7, 100, 101])]
    assert np.array_equal(whole.boxes, np.concatenate([part.boxes for part in parts]))
    assert whole.predicted_iou == pytest.approx(np.concatenate([part.predicted_iou for part in parts]), abs=1e-5)
    assert (np.diff(whole.prompt) >= 0).all()


def test_gates_that_nothing_passes_give_nothing(micro: Sam2Model, discs: Discs) -> None:
    assert ours(micro, discs[0], points_per_side=16, predicted_iou_gate=1.0) == []


def test_the_grid_has_the_cells_centres() -> None:
    assert whole_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_a_window_has_those_points_of_the_frames_grid_that_lie_in_it() -> None:
    whole = points_in(Place((0, 0, 200, 100), (100, 200)), 16)
    assert np.array_equal(whole, whole_grid(16))
    parts = []
    for window in ((0, 0, 90, 100), (90, 0, 200, 33), (90, 33, 200, 100)):
        x0, y0, x1, y1 = window
        parts.append(points_in(Place(window, (100, 200)), 16) * (x1 - x0, y1 - y0) + (x0, y0))
    together = np.concatenate(parts)
    assert np.allclose(sorted(map(tuple, together.round(6))), sorted(map(tuple, whole * (200, 100))))
    assert len(points_in(Place((0, 0, 5, 2), (100, 200)), 16)) == 0


def test_a_large_frame_has_the_density_of_one_of_2048_px() -> None:
    frame = (1000, 8192)
    points = points_in(Place((2048, 0, 4096, 1000), frame), 16)
    assert len(points) == 16 * 16
    assert np.allclose(points, whole_grid(16))
    assert len(points_in(Place((0, 0, 8192, 1000), frame), 16)) == 4 * 16 * 16


def test_a_window_without_a_point_has_no_candidate(micro: Sam2Model, discs: Discs) -> None:
    embedding = micro.embed(discs[0])
    assert propose(micro, embedding, Settings(), Quiet(), np.zeros((0, 2))) == []


@pytest.mark.parametrize("shape", [(100, 130), (33, 40), (64, 64), (301, 97), (1, 500)])
def test_windows_hold_what_a_full_interpolation_gives(shape: tuple[int, int]) -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    centres = [(20, 30, 5), (1, 62, 3), (40, 30, 20), (63, 0, 9), (5, 5, -3), (31, 31, 80)]
    logits = torch.stack([r - ((rows - y) ** 2 + (columns - x) ** 2).sqrt() for y, x, r in centres])
    full = functional.interpolate(logits[None], shape, mode="bilinear", align_corners=False)[0]
    masks = stable_masks(logits, shape, 0.0)
    assert masks.position.tolist() == [i for i in range(len(centres)) if (full[i] > 0).any()]
    for i, stability, (x0, y0, x1, y1), data in zip(*masks, strict=True):
        whole = np.zeros(shape, bool)
        whole[y0:y1, x0:x1] = data
        # A logit within rounding of 0 may fall on either side.
        assert not (whole != (full[i] > 0).numpy())[full[i].abs().numpy() > 1e-4].any()
        assert stability == pytest.approx(((full[i] > 1).sum() / (full[i] > -1).sum()).item(), abs=0.02)
        assert data.any(0)[[0, -1]].all()
        assert data.any(1)[[0, -1]].all()


def test_no_masks_are_no_masks() -> None:
    assert stable_masks(torch.zeros(0, 8, 8), (9, 9), 0.5).data == []
    assert stable_masks(torch.full((2, 8, 8), -5.0), (9, 9), 0.0).data == []
