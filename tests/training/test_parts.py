"""The parts of the training pipeline, one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from training.adapt import open_top_down
from training.config import HERE, Config, read_config
from training.data import Loader
from training.decoder import decode, encode
from training.export import build
from training.families import FAMILIES
from training.losses import contrast_loss, mask_targets
from training.measures import aligned_edge, average_precision, count_hits, mask_iou
from training.pictures import MAX_IDS, load_pictures, read_pairs
from training.pool import ScenePool
from training.prompts import Prompts, draw_prompts
from training.scenes import scene
from training.shapes import KINDS, Shape


@pytest.mark.parametrize("family", FAMILIES)
def test_scenes_are_the_same_for_the_same_seed_and_number_their_objects(family: str) -> None:
    one, two = scene(5, size=160, family=family), scene(5, size=160, family=family)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.image.dtype == np.uint8
    assert set(np.unique(one.labels)) | {0} == set(range(len(one.classes)))
    assert one.classes[0] == 0
    assert (one.classes[1:] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_outline_has_an_inside_and_an_outside(kind: str) -> None:
    rng = np.random.default_rng(1)
    line = np.linspace(-2, 2, 81, dtype=np.float32)
    u, v = np.meshgrid(line, line)
    inside = Shape.random(rng, (kind,)).evaluate(u, v, rng) > 0
    assert inside.any()
    assert not inside[0].any()


def test_the_fast_decoder_equals_the_public_one() -> None:
    torch.manual_seed(0)
    model = build(HERE / "architecture.yaml", 128).eval()
    points, labels = torch.rand(6, 2, 2) * 128, torch.tensor([2.0, 3.0]).expand(6, 2)
    with torch.no_grad():
        embed, high = encode(model, torch.randn(2, 3, 128, 128))
        ours = decode(model, embed, high, points, labels)
        sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
        masks, iou, _, present = model.sam_mask_decoder.predict_masks(
            image_embeddings=embed.repeat_interleave(3, 0),
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=[f.repeat_interleave(3, 0) for f in high],
        )
    torch.testing.assert_close(ours.masks, masks, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.iou.sigmoid(), iou, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.present, present[:, 0], rtol=1e-4, atol=1e-4)


def test_opening_the_top_down_links_keeps_what_the_projections_gave() -> None:
    torch.manual_seed(0)
    old, new = build(HERE / "given.yaml", 128).eval(), build(HERE / "architecture.yaml", 128).eval()
    new.load_state_dict(old.state_dict())
    new.image_encoder.neck.fpn_interp_model = "nearest"
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        fine = new.image_encoder.trunk(images)[0]
        out = {}
        for name in ("before", "after"):
            if name == "after":
                open_top_down(new, images)
            side = new.image_encoder.neck.convs[3](fine)
            out[name] = new.sam_mask_decoder.conv_s0(side)
    # the constant differs by the mean of the coarse features, which the links now add
    moved = out["after"] - out["before"]
    torch.testing.assert_close(moved, moved.mean((0, 2, 3), keepdim=True).expand_as(moved), rtol=1e-3, atol=1e-4)


def test_prompts_lie_on_their_objects(pictures: Path, tiny: Config) -> None:
    torch.manual_seed(3)
    pool = ScenePool(tiny)
    pool.start(0, torch.device("cpu"))
    batch = Loader(tiny, load_pictures(pictures, torch.device("cpu")), pool).next()
    assert batch.images.shape == (2, 3, 128, 128)
    prompts = draw_prompts(batch.labels, batch.classes, tiny)
    for picture in range(2):
        for (x, y), name in zip(prompts.points[picture].long(), prompts.ids[picture], strict=False):
            assert int(name) in (-1, int(batch.labels[picture, y, x]))
    target = mask_targets(batch.labels, prompts.ids)
    assert target.shape == (2 * tiny.prompts, 64, 64)
    area = target.sum((1, 2)).view(2, -1) * 4
    wanted = (batch.labels[:, None] == prompts.ids[..., None, None]).sum((2, 3))
    torch.testing.assert_close(area, wanted.float())


def test_the_scene_pool_depends_on_the_number_of_scenes_alone(tiny: Config) -> None:
    one, two = ScenePool(tiny), ScenePool(tiny)
    one.start(0, torch.device("cpu"))
    one.add(6)
    two.start(9, torch.device("cpu"))
    assert one.made == two.made == 9
    assert torch.equal(one.labels, two.labels)


def test_contrast_falls_when_classes_part(tiny: Config) -> None:
    labels = torch.zeros(1, 128, 128, dtype=torch.long)
    for index in range(4):
        labels[0, 32 * index : 32 * index + 16, :64] = index + 1
    classes = torch.tensor([[1, 1, 2, 2]])
    none = torch.zeros(1, 1, 2)
    prompts = Prompts(none, none, none.long(), torch.tensor([[1, 2, 3, 4]]), classes, none)
    mixed = torch.randn(1, 8, 8, 8, generator=torch.manual_seed(0))
    parted = mixed * 0.01
    parted[0, 0, :4], parted[0, 1, 4:] = 1.0, 1.0
    assert contrast_loss(parted, labels, prompts, tiny) < contrast_loss(mixed, labels, prompts, tiny)


def test_measures() -> None:
    labels = np.zeros((128, 128), np.int16)
    labels[10:90, 10:90] = 1
    cut = labels == 1
    cut[:, 32:] = False
    assert mask_iou(labels == 1, labels == 1) == 1
    assert aligned_edge(cut, labels == 1)
    assert not aligned_edge(labels == 1, labels == 1)
    assert count_hits([labels == 1, cut], labels) == (1, 2, 1)
    assert average_precision(np.array([3.0, 2.0, 1.0]), np.array([False, True, False])) == 0.5


def test_unknown_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown: colour"):
        read_config(colour=1)
    with pytest.raises(FileNotFoundError, match="No images with masks"):
        read_pairs(tmp_path)
    assert read_config().contrast_objects < MAX_IDS
