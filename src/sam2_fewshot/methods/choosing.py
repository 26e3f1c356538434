"""From what a method found to what is kept: the size prior and the threshold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.similarity.prior import ShapePrior, learn_shapes
from sam2_fewshot.similarity.threshold import choose_threshold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.common import Found, RunStats, Shown
    from sam2_fewshot.records import Detection
    from sam2_fewshot.settings import Settings

_FLOOR = 0.1
"""Finds below the threshold are told down to this share of it: a user who lowers the threshold that far need not wait,
and below it lie a few in a thousand objects and most of the ground."""
_USUAL = 0.5
"""Where the threshold is chosen later, the floor is that of this one."""


def shape_arrays(shown: Sequence[Shown]) -> dict[str, NDArray[np.generic]]:
    """Return the examples' sizes and shapes as arrays by name, for saving."""
    prior = learn_shapes([mask for frame in shown for mask in frame.wanted])
    return {"shape_mean": prior.mean, "shape_spread": prior.spread}


def within_prior(found: Sequence[Found], learned: Mapping[str, NDArray[np.generic]], settings: Settings) -> list[Found]:
    """Lower the scores of finds that are shaped otherwise than the examples, or leave them out."""
    if settings.size_prior == "off" or not found:
        return list(found)
    prior = ShapePrior(learned["shape_mean"].astype(np.float64), learned["shape_spread"].astype(np.float64))
    masks = [item.mask for item in found]
    if settings.size_prior == "strict":
        return [item for item, excess in zip(found, prior.excess(masks), strict=True) if excess == 0]
    weights = prior.weights(masks)
    return [replace(item, score=item.score * float(weight)) for item, weight in zip(found, weights, strict=True)]


def floor_of(settings: Settings) -> float:
    """Return the score down to which finds are told."""
    return _FLOOR * (settings.similarity_threshold if settings.threshold_mode == "fixed" else _USUAL)


def cut(
    found: Iterable[Detection], learned: Mapping[str, NDArray[np.generic]], settings: Settings, stats: RunStats
) -> list[Detection]:
    """Return what reaches the threshold, best first.

    The rest, the threshold and how it came about are told in `stats`.
    """
    ordered = sorted(found, key=lambda detection: detection.score, reverse=True)
    scores = np.array([detection.score for detection in ordered], np.float64)
    left_out = np.asarray(learned.get("left_out", np.zeros(0)), np.float64)
    threshold = choose_threshold(
        settings.threshold_mode, settings.similarity_threshold, settings.top_percent, scores, left_out
    )
    kept = [detection for detection in ordered if detection.score >= threshold.value]
    stats.below = ordered[len(kept) :]
    stats.threshold, stats.reason = threshold
    return kept
