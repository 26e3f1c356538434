"""Frames with few objects or none, after learning from a crowded one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from disc_scenes import Disc, discs, found_of

from sam2_fewshot import Exemplar, FewShotSegmenter

if TYPE_CHECKING:
    from sam2_fewshot.protocols import Backbone


def crowd(seed: int) -> tuple[list[Disc], int]:
    """Discs in most or some cells of a raster, and the side of their square frame."""
    rng = np.random.default_rng(seed)
    side, step, share = int(rng.integers(700, 1100)), int(rng.integers(38, 50)), rng.uniform(0.3, 0.9)
    across = side // step
    cells = rng.permutation(across**2)[: int(share * across**2)]
    places = (
        step // 2 + step * np.column_stack([cells % across, cells // across]) + rng.integers(-3, 4, (len(cells), 2))
    )
    return [(int(x), int(y), int(rng.integers(9, 13))) for x, y in places], side


@pytest.mark.parametrize("seed", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_nothing_is_found_on_the_ground(filters: Backbone, seed: int) -> None:
    placed, side = crowd(seed)
    image, masks = discs(placed, (side, side))
    segmenter = FewShotSegmenter(filters).fit([Exemplar(image, mask=mask.full()) for mask in masks[20:30]])
    assert segmenter.predict(discs([], (400, 400))[0]).detections == []
    few, true = discs([(100, 100, 11), (300, 200, 10)], (400, 400))
    found = segmenter.predict(few).detections
    assert (len(found), found_of(found, true)) == (2, 2)
