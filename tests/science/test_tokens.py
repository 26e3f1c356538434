"""What each mask was made from, compared with what those of the examples were made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from disc_scenes import discs

from sam2_fewshot import Exemplar, FewShotSegmenter
from sam2_fewshot.methods.guided.box_refinement import TOKEN_SIMILARITY
from sam2_fewshot.methods.guided.classifier import AWAY, RIGHT, WRONG, TrainingTable
from sam2_fewshot.methods.guided.model import GuidedModel
from sam2_fewshot.methods.guided.tokens import UNKNOWN_TOKENS, TokenModel, learn_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.protocols import Backbone


def token(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def known_as(labels: Sequence[int], owners: Sequence[int]) -> TrainingTable:
    count = len(labels)
    return TrainingTable(np.zeros((count, 1)), np.array(labels), np.ones(count), np.array(owners), np.ones(count, bool))


def shapes(kinds: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Discs and bars of one brightness and about one area on noise, and their boxes."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:512, :512]
    grey, boxes = np.full((512, 512), 60.0), []
    for number, kind in enumerate(kinds):
        x, y = 64 + 128 * (number % 4), 64 + 128 * (number // 4)
        across, down = (22, 22) if kind == "disc" else (9, 44) if number % 2 else (44, 9)
        dx, dy = np.abs(columns - x), np.abs(rows - y)
        inside = dx**2 + dy**2 <= across**2 if kind == "disc" else (dx <= across) & (dy <= down)
        grey[inside] = 170
        boxes.append([x - across, y - down, x + across + 1, y + down + 1])
    grey += rng.normal(0, 6, grey.shape)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), np.array(boxes, np.float32)


def fit(backbone: Backbone) -> FewShotSegmenter:
    image, masks = discs([(25 + 36 * (i % 5), 24 + 42 * (i // 5), 8) for i in range(15)], (140, 190))
    return FewShotSegmenter(backbone).fit([Exemplar(image, mask=mask.full()) for mask in masks[:6]])


def test_objects_of_a_kind_have_more_alike_tokens(micro: Sam2Model) -> None:
    kinds = ["disc", "bar", "bar", "disc", "disc", "bar", "disc", "bar"] * 2
    image, boxes = shapes(kinds)
    answer = micro.prompt_boxes(micro.embed(image), boxes)
    assert answer.prompt.tolist() == list(range(16))
    tokens = list(answer.tokens)
    is_disc = np.array(kinds) == "disc"
    labels, owners = np.where(is_disc, RIGHT, AWAY)[:8], np.where(is_disc, np.arange(16), -1)[:8]
    learned, left_out = learn_tokens(tokens[:8], known_as(labels.tolist(), owners.tolist()))
    others = learned.similarity(tokens[8:])
    assert others[is_disc[8:]].min() > others[~is_disc[8:]].max() + 0.3
    assert left_out[is_disc[:8]].min() > left_out[~is_disc[:8]].max(), "also of discs that were left out"


def test_each_mask_has_its_own_token(micro: Sam2Model) -> None:
    image, boxes = shapes(["disc", "bar", "disc"])
    embedding = micro.embed(image)
    together = micro.prompt_boxes(embedding, boxes)
    for number in range(3):
        alone = micro.prompt_boxes(embedding, boxes[number : number + 1])
        assert together.tokens[number] == pytest.approx(alone.tokens[0], abs=1e-3)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    points = micro.prompt(embedding, middles, iou_gate=0.5, stability_gate=0.5)
    assert points.tokens.shape == (len(points.prompt), together.tokens.shape[1])
    assert len(micro.prompt_boxes(embedding, boxes[:0]).tokens) == 0


def test_a_cosine_is_measured_from_the_others_mean() -> None:
    learned = TokenModel(token(1, 1), token(1, 2), token(1, 0))
    tokens = [token(3, 1), token(-1, 1), token(1, 9), token(2, 3), None, token(1, 1)]
    expected = [1, -1, 0, 0.5**0.5, np.nan, 0]
    assert learned.similarity(tokens) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_an_example_is_compared_with_the_others_only() -> None:
    away = [token(x, y) for x in (0, 1) for y in (0, 1)] * 5
    odd = token(0, 9)
    table = known_as([RIGHT] * 5 + [WRONG] + [AWAY] * 20, [0, 1, 2, 3, 4, 4, *[-1] * 20])
    learned, similarity = learn_tokens([*[token(9, 0)] * 4, odd, odd, *away], table)
    assert similarity[4] < learned.similarity([odd])[0] - 0.1
    assert similarity[5] == similarity[4], "nor with what else is about itself"
    assert similarity[:4].min() > 0.8


@pytest.mark.parametrize(
    ("tokens", "labels", "owners"),
    [
        ([token(), token()], [RIGHT, AWAY], [0, -1]),
        ([None, token(1, 2)], [RIGHT, AWAY], [0, -1]),
        ([token(1, 2), None], [RIGHT, AWAY], [0, -1]),
        ([token(1, 2), token(3, 4)], [RIGHT, RIGHT], [0, 1]),
    ],
    ids=["no tokens", "none of an example", "none of anything else", "nothing else"],
)
def test_without_both_kinds_nothing_is_known(
    tokens: list[NDArray[np.float32] | None], labels: list[int], owners: list[int]
) -> None:
    learned, similarity = learn_tokens(tokens, known_as(labels, owners))
    assert learned is UNKNOWN_TOKENS
    assert np.isnan(similarity).all()
    assert np.isnan(learned.similarity([token(1, 2), None])).all()


def test_a_single_example_is_not_compared_with_itself() -> None:
    table = known_as([RIGHT, WRONG, AWAY], [0, 0, -1])
    learned, similarity = learn_tokens([token(5, 0), token(4, 1), token(0, 0)], table)
    assert learned is not UNKNOWN_TOKENS
    assert np.isnan(similarity[:2]).all()
    assert np.isfinite(similarity[2])


def test_a_backbone_without_tokens_detects_all_the_same(filters: Backbone) -> None:
    segmenter = fit(filters)
    learned = GuidedModel.from_arrays(segmenter.object_model.learned)
    assert len(learned.tokens.direction) == 0
    assert learned.second.weights[TOKEN_SIMILARITY] == 0
    assert len(segmenter.segment(discs([(40, 40, 8), (100, 50, 8)])[0])) == 2


def test_what_earlier_versions_learned_takes_no_account_of_tokens(micro: Sam2Model) -> None:
    arrays = dict(fit(micro).object_model.learned)
    now = GuidedModel.from_arrays(arrays)
    assert len(now.tokens.direction) > 0
    assert now.second.weights[TOKEN_SIMILARITY] > 0
    before = GuidedModel.from_arrays({name: array for name, array in arrays.items() if "token" not in name})
    features = np.random.default_rng(0).normal(size=(5, len(now.second.weights)))
    features[:, TOKEN_SIMILARITY] = 0.9
    without = features.copy()
    without[:, TOKEN_SIMILARITY] = np.nan
    assert before.second.log_odds(features) == pytest.approx(now.second.log_odds(without))
