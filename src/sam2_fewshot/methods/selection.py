"""From scored masks to detections: the size prior and the threshold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial import ConvexHull

from sam2_fewshot.errors import counted
from sam2_fewshot.geometry.outlines import largest_part, mask_to_area, mask_to_polygon, without_pinholes
from sam2_fewshot.records import Detection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from shapely import Polygon

    from sam2_fewshot.methods.base import ScoredMask, TrainingFrame
    from sam2_fewshot.records import FrameResult, InstanceMask, Kind, Location
    from sam2_fewshot.settings import Settings
    from sam2_fewshot.tiling.blocks import View

_FLOOR = 0.1
"""Detections below the threshold are reported down to this share of it: a user who lowers the threshold that far need
not wait, and below it lie a few in a thousand objects and most of the background."""
_USUAL = 0.5
"""Where the threshold is chosen later, the floor is that of this one."""


def shape_arrays(frames: Sequence[TrainingFrame]) -> dict[str, NDArray[np.generic]]:
    """Return the examples' sizes and shapes as arrays by name, for saving."""
    prior = learn_shapes([mask for frame in frames for mask in frame.positives])
    return {"shape_mean": prior.mean, "shape_spread": prior.spread}


def within_prior(
    found: Sequence[ScoredMask], learned: Mapping[str, NDArray[np.generic]], settings: Settings
) -> list[ScoredMask]:
    """Lower the scores of masks that are shaped otherwise than the examples, or leave them out."""
    if settings.size_prior == "off" or not found:
        return list(found)
    prior = ShapePrior(learned["shape_mean"].astype(np.float64), learned["shape_spread"].astype(np.float64))
    masks = [item.mask for item in found]
    if settings.size_prior == "strict":
        return [item for item, excess in zip(found, prior.excess(masks), strict=True) if excess == 0]
    weights = prior.weights(masks)
    return [replace(item, score=item.score * float(weight)) for item, weight in zip(found, weights, strict=True)]


def floor_of(settings: Settings) -> float:
    """Return the score down to which detections are reported."""
    return _FLOOR * (settings.similarity_threshold if settings.threshold_mode == "fixed" else _USUAL)


def least_score(learned: Mapping[str, NDArray[np.generic]], settings: Settings) -> float:
    """Return the score that an object has at least, as far as it is known before a frame is searched."""
    if settings.threshold_mode not in ("fixed", "auto"):
        return floor_of(settings)
    return _chosen(learned, settings, np.zeros(0)).value


def outlined(masks: Iterable[ScoredMask], view: View, settings: Settings, least_area: int) -> list[Detection]:
    """Return the masks of a window down to the floor as detections of its frame; see :func:`shape_of`.

    What is smaller than the least area only because a part of it is cut off is left out.

    Parameters
    ----------
    masks
        Of the window.
    view
        The window.
    settings
        ``smoothing`` is used, and those of the threshold.
    least_area
        The smallest area in pixels that was looked for.
    """
    floor = floor_of(settings)
    shaped = [(item, *shape_of(view.placed(item.mask), settings)) for item in masks if item.score >= floor]
    return [
        Detection(instance, polygon, item.score, item.similarity, item.predicted_iou, view.frame.location)
        for item, instance, polygon in shaped
        # A mask that was large enough may have fallen into parts that are not.
        if not instance.area < least_area <= item.mask.area
    ]


def marked(mask: InstanceMask, settings: Settings, location: Location, kind: Kind) -> Detection:
    """Return an object that the user marked, shaped as those that are found."""
    instance, polygon = shape_of(mask, settings)
    instance = replace(instance, data=instance.data.copy())  # who edits a result does not edit what was learned
    return Detection(instance, polygon, 1.0, float("nan"), float("nan"), location, kind)


def shape_of(mask: InstanceMask, settings: Settings) -> tuple[InstanceMask, Polygon]:
    """Return a mask's largest part, and its outline.

    Where outlines are smoothed, pinholes are filled, so that neither has any; where they are not, the mask stays as it
    is, and the outline has its holes and gives it back exactly.
    """
    part = largest_part(mask)
    if not settings.smoothing:
        return part, mask_to_area(part)
    part = without_pinholes(part)
    return part, mask_to_polygon(part, settings.smoothing)


def select(found: FrameResult, learned: Mapping[str, NDArray[np.generic]], settings: Settings) -> FrameResult:
    """Apply the threshold to a frame's detections: what reaches it, and what lies below, the highest score first.

    Parameters
    ----------
    found
        Its detections are of any score.
    learned
        What the method has learned.
    settings
        ``threshold_mode``, ``similarity_threshold`` and ``top_percent`` are used.
    """
    ordered = sorted(found.detections, key=lambda detection: detection.score, reverse=True)
    threshold, reason = _chosen(learned, settings, np.array([detection.score for detection in ordered], np.float64))
    count = sum(detection.score >= threshold for detection in ordered)
    return replace(found, detections=ordered[:count], below=ordered[count:], threshold=threshold, reason=reason)


def _chosen(learned: Mapping[str, NDArray[np.generic]], settings: Settings, scores: NDArray[np.float64]) -> Threshold:
    left_out = np.asarray(learned.get("left_out", np.zeros(0)), np.float64)
    if settings.threshold_mode == "auto" and "left_out" in learned:
        if len(left_out) < 2:
            return Threshold(settings.similarity_threshold, "as set, since one example cannot be compared with others")
        if settings.scorer == "lda":  # the examples' own similarities are those of the scorer mean
            return Threshold(settings.similarity_threshold, "as set, since scores of lda differ from frame to frame")
    return choose_threshold(settings, scores, left_out)


_TOLERATED = 2.0
"""Standard deviations from the examples' mean within which nothing happens (the seed document's figure)."""
_LEAST_SPREAD = (0.15, 0.1, 0.03)
"""Standard deviations of log-area, log aspect ratio and solidity that even examples of one size leave open."""


@dataclass(frozen=True, eq=False, slots=True)
class ShapePrior:
    """Mean and spread of the examples' shapes.

    Parameters
    ----------
    mean, spread
        float64 (3,): of the logarithm of the area in pixels, of the logarithm of the aspect ratio, and of the solidity.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    def excess(self, masks: Sequence[InstanceMask]) -> NDArray[np.float64]:
        """Return by how many standard deviations (n,) each mask's worst measure lies beyond what is tolerated; ≥ 0."""
        beyond = np.abs((_shapes(masks) - self.mean) / self.spread) - _TOLERATED
        excess: NDArray[np.float64] = np.maximum(beyond.max(axis=1, initial=0.0), 0.0)
        return excess

    def weights(self, masks: Sequence[InstanceMask]) -> NDArray[np.float64]:
        """Return a factor (n,) in (0, 1] for each mask's score: 1 within the tolerance, a Gaussian beyond."""
        weights: NDArray[np.float64] = np.exp(-0.5 * self.excess(masks) ** 2)
        return weights


def learn_shapes(masks: Sequence[InstanceMask]) -> ShapePrior:
    """Return the prior of examples, at least one; the fewer there are, the wider it is.

    The spread of n examples is that of a Student distribution's prediction, ``s · sqrt(1 + 1/n)``, and never less than
    what outlines drawn by hand differ by.
    """
    shapes = _shapes(masks)
    count = len(shapes)
    spread = shapes.std(axis=0, ddof=1) if count > 1 else np.full(3, 0.5)
    return ShapePrior(shapes.mean(axis=0), np.maximum(spread * np.sqrt(1 + 1 / count), _LEAST_SPREAD))


def _shapes(masks: Sequence[InstanceMask]) -> NDArray[np.float64]:
    return np.array([_shape(mask) for mask in masks], np.float64).reshape(-1, 3)


def _shape(mask: InstanceMask) -> tuple[float, float, float]:
    # 1/12 is the variance of a pixel's own square.
    spread = np.cov(np.stack(np.nonzero(mask.data)), bias=True) + np.eye(2) / 12
    minor, major = np.linalg.eigvalsh(spread)
    return float(np.log(mask.area)), float(np.log(major / minor) / 2), mask.area / _hull_area(mask.data)


def _hull_area(data: NDArray[np.bool_]) -> float:
    """Return the area of the convex hull of a mask's pixels, as squares."""
    rows = np.flatnonzero(data.any(axis=1))
    # Of a row only the first and the last pixel can be corners.
    first, last = data[rows].argmax(axis=1), data.shape[1] - data[rows, ::-1].argmax(axis=1)
    corners = np.concatenate([np.stack([rows + down, x], axis=1) for down in (0, 1) for x in (first, last)])
    return float(ConvexHull(corners).volume)  # in two dimensions the "volume" is the area


_RECALL = 10
"""Percentile of the left-out examples' similarities: about 90 % of what looks like them reaches the threshold."""

AS_SET = "as set"


class Threshold(NamedTuple):
    """A threshold and how it came about.

    Parameters
    ----------
    value
        Detections with at least this score are results.
    reason
        In words, for the results.
    """

    value: float
    reason: str


def choose_threshold(settings: Settings, scores: NDArray[np.float64], left_out: NDArray[np.float64]) -> Threshold:
    """Choose the threshold for the scores of a frame.

    Parameters
    ----------
    settings
        The ``threshold_mode``. ``fixed``: as set. ``top``: so that this percentage of the detections reaches it.
        ``otsu``: between two groups of scores. ``auto``: so that about 90 % of what looks like the examples reaches it.
    scores
        float64 (n,), of what was found on the frame, overlaps removed.
    left_out
        float64 (k,), scores that the examples have when they are not learned from; empty where .5 is calibrated so
        that about 90 % of them or more reach it.
    """
    mode, percent = settings.threshold_mode, settings.top_percent
    if mode == "auto":
        if not len(left_out):
            return Threshold(0.5, "about 90 % or more of what resembles the examples is expected to reach it")
        value, number = float(np.percentile(left_out, _RECALL)), len(left_out)
        others = counted(number - 1, "other")
        reached = np.count_nonzero(left_out >= value)
        return Threshold(value, f"{reached} of the {number} examples reach it, each compared with the {others}")
    if mode == "top" and len(scores):
        count = max(1, round(percent / 100 * len(scores)))
        return Threshold(float(np.sort(scores)[-count]), f"the best {percent:g} % of {len(scores)} detections")
    if mode == "otsu" and len(np.unique(scores)) > 1:
        return Threshold(otsu(scores), f"between two groups of {len(scores)} scores")
    return Threshold(settings.similarity_threshold, AS_SET)


def to_find_more(settings: Settings, threshold: str, mode: str) -> str:
    """Return what to do about the threshold where too little is found, as a part of a sentence.

    Parameters
    ----------
    settings
        Of the search.
    threshold, mode
        What Similarity Threshold and Threshold Mode are called where the user sets them.
    """
    if settings.threshold_mode == "fixed":
        return f"lower {threshold}"
    return f"choose {mode} fixed and a low {threshold}"  # another mode chooses the threshold itself


def otsu(values: NDArray[np.float64]) -> float:
    """Return the value that parts numbers, not all alike, into those below it and the rest, with the least variance.

    Otsu 1979, "A threshold selection method from gray-level histograms", on the numbers themselves: histograms of a few
    dozen scores are too coarse.
    """
    ordered = np.sort(values)
    count = np.arange(1, len(ordered))
    total = ordered.cumsum()
    low, high = total[:-1] / count, (total[-1] - total[:-1]) / (len(ordered) - count)
    between = count * (len(ordered) - count) * (high - low) ** 2
    between[ordered[1:] == ordered[:-1]] = -1  # equal numbers are not parted
    best = int(between.argmax())
    low, high = ordered[best], ordered[best + 1]
    # Between neighbouring numbers there is none, and their mean may be rounded to the lower one, which parts nothing.
    return float(max((low + high) / 2, np.nextafter(low, high)))
