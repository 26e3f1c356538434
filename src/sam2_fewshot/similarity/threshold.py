"""Where the score is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from scipy.stats import norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

ThresholdMode = Literal["fixed", "auto", "top", "otsu"]

_RECALL = 10
"""Percentile of the left-out examples' similarities: 90 % of what looks like the examples is kept."""

_BANDWIDTH = 2.0
"""Of the kernel that smooths what left-out examples and finds reach, in the examples' standard deviations times
n ** (-1 / 5). Silverman's 1.06 follows single examples: one set of ten lost .13 of F1 by it, with 2 none lost over .07.
"""
_STEPS = 200


AS_SET = "as set"


class Threshold(NamedTuple):
    """A cut and how it came about.

    Parameters
    ----------
    value
        Finds with at least this score are kept.
    reason
        In words, for the results.
    """

    value: float
    reason: str


def choose_threshold(
    mode: ThresholdMode, fixed: float, percent: float, scores: NDArray[np.float64], left_out: NDArray[np.float64]
) -> Threshold:
    """Choose where to cut the scores of a frame.

    Parameters
    ----------
    mode
        ``fixed``: as set. ``top``: keep this percentage of the finds. ``otsu``: between two groups of scores.
        ``auto``: so that about 90 % of what looks like the examples is kept.
    fixed
        The threshold that is set.
    percent
        For ``top``.
    scores
        float64 (n,), of what was found on the frame, overlaps removed.
    left_out
        float64 (k,), scores that the examples have when they are not learned from; empty where .5 is calibrated so
        that at least 90 % of them reach it.
    """
    if mode == "auto":
        if not len(left_out):
            return Threshold(0.5, "at least 90 % of the examples reach 0.5 when they are not learned from")
        value = float(np.percentile(left_out, _RECALL))
        return Threshold(value, f"90 % of the examples are this similar to the {len(left_out) - 1} others")
    if mode == "top" and len(scores):
        count = max(1, round(percent / 100 * len(scores)))
        return Threshold(float(np.sort(scores)[-count]), f"the best {percent:g} % of {len(scores)} finds")
    if mode == "otsu" and len(np.unique(scores)) > 1:
        return Threshold(otsu(scores), f"between two groups of {len(scores)} scores")
    return Threshold(fixed, AS_SET)


def otsu(values: NDArray[np.float64]) -> float:
    """Return the value that parts numbers, not all alike, into two groups with the least variance within.

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
    return float((ordered[best] + ordered[best + 1]) / 2)


def cut_for_precision_and_recall(
    left_out: NDArray[np.float64], found: NDArray[np.float64], low: float, high: float
) -> float:
    """Return the cut at which precision times recall is largest, as far as examples and unmarked finds tell.

    Recall is the share of the left-out examples above a cut, and the share of the wanted among the finds above it is
    proportional to recall / number of finds, however many there are in all; so recall² / number is to be largest
    (Lee & Liu 2003, "Learning with positive and unlabeled examples using weighted logistic regression"). Both are
    smoothed by a Gaussian kernel.

    Parameters
    ----------
    left_out
        float64 (k,), scores that the examples have when they are not learned from; k ≥ 1.
    found
        float64 (n,), scores of what is found on the examples' frames, overlaps removed, the examples among them; n ≥ 1.
    low, high
        Between which the cut has to lie; `low` ≤ `high`.
    """
    width = max(_BANDWIDTH * float(left_out.std()) * len(left_out) ** -0.2, 1e-6)
    cuts = np.linspace(low, high, _STEPS)
    recall = norm.cdf((left_out[:, None] - cuts) / width).mean(axis=0)
    number = norm.cdf((found[:, None] - cuts) / width).sum(axis=0)
    return float(cuts[int(np.argmax(recall**2 / np.maximum(number, 1e-12)))])
