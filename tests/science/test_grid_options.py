"""The grid method's other ways to take features and to compare them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.backbones.filters import FilterBackbone
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.protocols import PromptedMasks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.protocols import Backbone

Scene = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]
SETTINGS = Settings(method="grid", points_per_side=16, similarity_threshold=0.0)


def fitted(filters: Backbone, discs: Scene, **values: object) -> FewShotSegmenter:
    image, labels = discs
    examples = [Exemplar(image=image, mask=labels == number) for number in (1, 2, 3)]
    return FewShotSegmenter(filters, settings=SETTINGS.changed(values)).fit(examples)


@pytest.mark.parametrize(
    "values",
    [{"features_from": "frame"}, {"occupancy_levels": "three"}, {"scorer": "knn"}, {"scorer": "lda"}],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_objects_come_before_the_ground(filters: Backbone, discs: Scene, values: dict[str, object]) -> None:
    image, labels = discs
    segmenter = fitted(filters, discs, **values)
    found = segmenter.segment(image)
    best = [labels[detection.mask].mean() for detection in found[:3]]
    assert len(found) > 3
    assert all(share > 0 for share in best)
    assert all(0 <= detection.score <= 1 and -1 <= detection.similarity <= 1 for detection in found)
    left_out = segmenter.object_model.learned["left_out"]
    assert left_out.shape == (3,)
    assert (left_out > 0.5).all()


def test_three_levels_make_longer_vectors(filters: Backbone, discs: Scene) -> None:
    one, three = (fitted(filters, discs, occupancy_levels=levels).object_model.learned for levels in ("one", "three"))
    assert three["vectors"].shape[1] == 3 * one["vectors"].shape[1]


def test_features_of_a_whole_frame_are_means_over_masks(micro: Sam2Model, discs: Scene) -> None:
    image, labels = discs
    masks = [crop_to_object(labels == number) for number in (1, 2)]
    pooled = micro.pool_frame(image, masks)
    assert pooled.shape == (2, 128)
    assert np.allclose(pooled[:1], micro.pool_frame(image, masks[:1]), atol=1e-5)
    assert micro.pool_frame(image, []).shape == (0, 128)
    everything = crop_to_object(np.ones(labels.shape, bool))
    embedding = micro.embed(image).image_embed[0].numpy()
    assert np.allclose(micro.pool_frame(image, [everything])[0], embedding.mean((1, 2)), atol=1e-4)


@pytest.mark.parametrize(("count", "scorer", "words"), [(1, "mean", "one example"), (3, "lda", "lda")])
def test_where_the_examples_do_not_tell_the_threshold_is_as_set(
    filters: Backbone, discs: Scene, count: int, scorer: str, words: str
) -> None:
    image, labels = discs
    settings = SETTINGS.changed({"threshold_mode": "auto", "scorer": scorer, "similarity_threshold": 0.3})
    segmenter = FewShotSegmenter(filters, settings=settings)
    segmenter.fit([Exemplar(image=image, mask=labels == number) for number in range(1, count + 1)])
    result = segmenter.predict(image)
    assert result.threshold == 0.3
    assert result.reason.startswith("as set, since ")
    assert words in result.reason
    assert segmenter.summary == ""
    assert result.detections


class Crumbs(FilterBackbone):
    """Proposes one mask in two parts of about one size."""

    def prompt(self, *_: object, **__: object) -> PromptedMasks:
        mask = np.zeros((8, 30), bool)
        mask[:7, :6] = mask[:, 20:25] = True
        return PromptedMasks(np.array([0]), np.array([0.9]), np.array([1.0]), np.array([[100, 60, 130, 68]]), [mask])


@pytest.mark.parametrize(("least", "areas"), [(30, [42]), (50, [])])
def test_the_least_area_holds_for_the_part_that_is_left_of_a_mask(discs: Scene, least: int, areas: list[int]) -> None:
    image, labels = discs
    segmenter = FewShotSegmenter(Crumbs(), settings=SETTINGS.changed({"min_mask_area": least}))
    segmenter.fit([Exemplar(image=image, mask=labels == number) for number in (1, 2, 3)])
    assert [item.area for item in segmenter.segment(image[::-1].copy())] == areas
