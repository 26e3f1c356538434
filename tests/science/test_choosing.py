"""From scored masks to detections: size prior and threshold, through the segmenter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, InputError, Settings
from sam2_fewshot.methods.base import ScoredMask, TrainingFrame
from sam2_fewshot.methods.selection import floor_of, select, shape_arrays, within_prior
from sam2_fewshot.records import FrameResult, InstanceMask

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone

PIXELS = np.zeros((200, 200, 3), np.uint8)


def square(side: int) -> InstanceMask:
    return InstanceMask(np.ones((side, side), bool), 0, 0, (200, 200))


LEARNED = shape_arrays([TrainingFrame(PIXELS, [square(10), square(11), square(12)])])
FOUND = [ScoredMask(square(11), 0.9, 0.5), ScoredMask(square(60), 0.8, 0.5)]


def test_the_prior_leaves_lowers_or_drops() -> None:
    assert within_prior(FOUND, LEARNED, Settings()) == FOUND
    assert within_prior([], LEARNED, Settings(size_prior="strict")) == []
    assert [item.mask.area for item in within_prior(FOUND, LEARNED, Settings(size_prior="strict"))] == [121]
    like, unlike = within_prior(FOUND, LEARNED, Settings(size_prior="soft"))
    assert like.score == 0.9
    assert 0 <= unlike.score < 0.1


def test_the_floor_is_that_of_the_usual_threshold_where_it_is_chosen_later() -> None:
    assert floor_of(Settings(similarity_threshold=0.8)) == pytest.approx(0.08)
    assert floor_of(Settings(similarity_threshold=0.8, threshold_mode="otsu")) == pytest.approx(0.05)


@pytest.fixture(scope="module")
def examples(discs: tuple[NDArray[np.uint8], NDArray[np.int32]]) -> list[Exemplar]:
    image, labels = discs
    return [Exemplar(image=image, mask=labels == number) for number in (1, 2, 3)]


def test_the_best_quarter_is_detected_and_the_rest_reported(filters: Backbone, examples: list[Exemplar]) -> None:
    image = examples[0].image
    settings = Settings(method="grid", points_per_side=16, threshold_mode="top", top_percent=25, similarity_threshold=0)
    segmenter = FewShotSegmenter(filters, settings=settings).fit(examples)
    result = segmenter.predict(image)
    count = len(result.detections)
    assert count == pytest.approx(0.25 * (count + len(result.below)), abs=1)
    assert result.threshold == result.detections[-1].score
    assert "best 25 %" in result.reason
    automatic = FewShotSegmenter(filters, settings=settings.changed({"threshold_mode": "auto"}))
    threshold = automatic.adopt(segmenter.object_model).predict(image).threshold
    assert threshold == pytest.approx(np.percentile(segmenter.object_model.learned["left_out"], 10))


def test_a_saved_model_is_compared_as_it_was_learned(
    filters: Backbone, examples: list[Exemplar], tmp_path: Path
) -> None:
    settings = Settings(method="grid", points_per_side=16, scorer="knn")
    FewShotSegmenter(filters, settings=settings).fit(examples).save(tmp_path / "discs.npz")
    assert FewShotSegmenter.load(tmp_path / "discs.npz", model=filters).settings.scorer == "knn"
    with pytest.raises(InputError, match="learned with Scorer knn, but the settings say lda"):
        FewShotSegmenter.load(tmp_path / "discs.npz", model=filters, settings=settings.changed({"scorer": "lda"}))


def test_nothing_found_is_nothing_detected() -> None:
    result = select(FrameResult(), LEARNED, Settings(threshold_mode="otsu"))
    assert list(result.detections) == []
    assert result.threshold == 0.5
