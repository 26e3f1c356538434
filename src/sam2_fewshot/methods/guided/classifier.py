"""Learning from the candidates on the training frames which candidates are right, and from what score on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtr

from sam2_fewshot.geometry.overlap import shared_area
from sam2_fewshot.methods.guided.box_refinement import non_overlapping
from sam2_fewshot.methods.guided.logistic import Logistic, fit_logistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import InstanceMask

_RIGHT, _WRONG = 0.6, 0.5
"""A candidate is right when its IoU with an example is at least the first, and wrong when it overlaps one noticeably
with less than the second; between them it is neither."""
_NOTICEABLE = 0.1
_HOLDS = 4.0
"""A candidate of more than so many times the area of an unwanted object in it holds that, as a cell holds its nucleus;
a smaller one is that object and what lies around it, which is wrong. If all that hold one were exempt, thick flakes
would have .62 in place of .69 with five negative examples, and dead cells .55 in place of .60."""
_NEAR = 0.8
"""Share of the wrong rows' weight that lies with parts and unions of examples; the rest lies with what is away from
them. Telling a nucleus from its halves is the harder task of the two (.5 costs .02 of F1, .95 as much)."""
_HELD_OUT_FOLDS = 5
_RECALL = 10
"""Percentile of the held-out examples' scores from which on a candidate counts as an object: about 90 % of what looks
like the examples is detected, as far as their number allows (at best n / (n + 1), as in conformal prediction)."""
_ROOM = 0.75
"""The threshold may lie so far on the way from there to the score that 90 % of the wrong candidates do not reach, if
these score lower. Outlines that were learned from score higher than their like, and other frames differ from those
learned from."""
_BELOW, _FEWEST = 0.3, 3
"""The threshold may lie so many log-odds below that, if so many held-out examples tell that more is gained than let in.
"""
EVEN_CHANCES = 0.0
"""Log-odds above which the threshold lies only where that is much better, unless negative examples or a gap say that
what looks alike is unwanted."""
_BANDWIDTH = 2.0
"""Of the kernel that smooths the scores of left-out examples and of detections, in the examples' standard deviations
times n ** (-1 / 5). Silverman's 1.06 follows single examples: one set of ten lost .13 of F1 by it, with 2 none lost
over .07.
"""
_STEPS = 200
_MUCH = 1.5
"""How many times as good a threshold above the usual one has to be. Examples are chosen for being large, bright and
alone, so a higher one often seems better and is not: 1.4 times for the largest and the most salient living cells. Of 58
runs with ten examples only a scene of three brightnesses with the middle one marked has more, 1.8, and needs it."""
_LOOKS_LIKE, _ROUNDS = 30, 2
"""Candidates away from the examples above this percentile of the right ones' scores may be objects themselves; they
are not taken as wrong."""

RIGHT, WRONG, AWAY = 1, 0, -1


class ThresholdRange(NamedTuple):
    """Log-odds between which the threshold is looked for, from which on a candidate counts as an object.

    Parameters
    ----------
    low
        Most wrong candidates lie below it.
    high
        Most examples reach it.
    held_out
        float64 (k,), log-odds of the examples under classifiers that were fitted without them.
    unseen
        float64 (N,), log-odds of all rows, of those about an example under the classifier that was fitted without it.
    """

    low: float
    high: float
    held_out: NDArray[np.float64]
    unseen: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """Candidates on the examples' frames, and what is known of them.

    Parameters
    ----------
    features
        float64 (N, D).
    label
        int64 (N,): right, wrong, or away from all that is marked.
    weight
        float64 (N,), 0 for candidates that are neither right nor wrong.
    owner
        int64 (N,), number of the example that a candidate is about; -1 for none.
    proposed
        Boolean (N,), False for masks that the user drew.
    """

    features: NDArray[np.float64]
    label: NDArray[np.int64]
    weight: NDArray[np.float64]
    owner: NDArray[np.int64]
    proposed: NDArray[np.bool_]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Boolean (N,): right proposals."""
        right: NDArray[np.bool_] = self.proposed & (self.label == RIGHT)
        return right

    @property
    def unwanted(self) -> NDArray[np.bool_]:
        """Boolean (N,): candidates about negative examples."""
        unwanted: NDArray[np.bool_] = (self.label == WRONG) & (self.owner < 0)
        return unwanted

    def as_if_unmarked(self) -> TrainingTable:
        """Return what would be known if the negative examples had not been marked."""
        return replace(self, label=np.where(self.unwanted, AWAY, self.label))

    def without(self, rows: NDArray[np.bool_]) -> TrainingTable:
        """Return the table with nothing learned from some of its rows, boolean (N,)."""
        return replace(self, weight=np.where(rows, 0.0, self.weight))


@dataclass(frozen=True, eq=False)
class TrainingCandidates:
    """What the user marked on a frame, and candidates there.

    Parameters
    ----------
    positives, negatives
        Masks of the examples and of the negative examples.
    masks
        The candidates.
    features
        float64 (N, D), theirs.
    drawn
        How many of them, at the beginning, the user drew.
    """

    positives: Sequence[InstanceMask]
    negatives: Sequence[InstanceMask]
    masks: Sequence[InstanceMask]
    features: NDArray[np.float64]
    drawn: int


def table_of(frames: Sequence[TrainingCandidates]) -> TrainingTable:
    """Compare the candidates of all frames with what is marked there."""
    labels: list[int] = []
    weights: list[float] = []
    owners: list[int] = []
    proposed: list[bool] = []
    begun = 0
    for frame in frames:
        for mask in frame.masks:
            label, weight, owner = _label(mask, frame.positives, frame.negatives)
            labels.append(label)
            weights.append(weight)
            owners.append(begun + owner if owner >= 0 else -1)
        proposed += [i >= frame.drawn for i in range(len(frame.masks))]
        begun += len(frame.positives)
    features = np.concatenate([frame.features for frame in frames])
    return TrainingTable(
        features, np.array(labels, int), np.array(weights), np.array(owners, int), np.array(proposed, bool)
    )


def fit_classifier(table: TrainingTable, background: NDArray[np.bool_]) -> tuple[Logistic, ThresholdRange]:
    """Learn to tell right candidates from wrong ones.

    Parameters
    ----------
    table
        With one right row at least.
    background
        Boolean (N,): rows that are not objects for sure, if they lie away from the examples.

    Returns
    -------
    classifier
        Gives log-odds.
    between
        Where its threshold is looked for.
    """
    used = table.label >= 0
    if not (table.label == WRONG).any():
        used = np.ones(len(used), bool)  # nothing is known to be wrong: what lies elsewhere has to serve
    # Away from the examples lie more objects of their kind; to begin with, only evident background is taken as wrong.
    classifier = _fit(table, used | background)
    for _ in range(_ROUNDS):
        odds = classifier.log_odds(table.features)
        # Right candidates score higher than others of their kind, because they were learned from; held-out ones do not.
        likely = float(np.percentile(odds[table.label == RIGHT], _LOOKS_LIKE))
        sure = (table.label >= 0) | (odds < min(_threshold_range(classifier, table, used).low, likely))
        if (table.label[sure] != RIGHT).any():  # otherwise there is nothing to tell the right ones from
            used = sure
        classifier = _fit(table, used)
    return classifier, _threshold_range(classifier, table, used)


def best_threshold(
    between: ThresholdRange,
    frames: Sequence[TrainingCandidates],
    odds: Sequence[NDArray[np.float64]],
    usual: float = EVEN_CHANCES,
) -> float:
    """Return the threshold in a range, or the usual one, at which precision and recall are best on the marked frames.

    The unmarked detections there show it: where a lower threshold lets in much more than examples it gains, other
    things that look alike lie below.

    Parameters
    ----------
    between
        From :func:`fit_classifier`.
    frames
        The examples' frames.
    odds
        Log-odds of the candidates on each of them, float64 (N,).
    usual
        Log-odds above which the threshold lies only where that is much better, even if all of the range does.
    """
    reached: list[float] = []
    for frame, values in zip(frames, odds, strict=True):
        proposed = values[frame.drawn :]
        reached += proposed[non_overlapping(frame.masks[frame.drawn :], proposed)].tolist()
    if len(between.held_out) < _FEWEST or not reached:
        return between.low
    lowest = between.low - _BELOW
    return threshold_for_precision_and_recall(between.held_out, np.array(reached), lowest, between.high, usual)


def threshold_for_precision_and_recall(
    left_out: NDArray[np.float64], found: NDArray[np.float64], low: float, high: float, usual: float
) -> float:
    """Return the threshold at which precision times recall is largest, as far as examples and unmarked detections tell.

    Recall is the share of the left-out examples above a threshold, and the share of the wanted among the detections
    above it is proportional to recall / number of detections, however many there are in all; so recall² / number is to
    be largest (Lee & Liu 2003, "Learning with positive and unlabeled examples using weighted logistic regression").
    Both are smoothed by a Gaussian kernel.

    Parameters
    ----------
    left_out
        float64 (k,), scores that the examples have when they are not learned from; k ≥ 1.
    found
        float64 (n,), scores of what is found on the examples' frames, overlaps removed, the examples among them; n ≥ 1.
    low, high
        Between which the best threshold is looked for; `low` ≤ `high`.
    usual
        Returned in place of a best one above it that is not much better, also where this one lies below `low`: examples
        that were chosen for being large, bright and alone score higher than their like.
    """
    width = max(_BANDWIDTH * float(left_out.std()) * len(left_out) ** -0.2, 1e-6)

    def product(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
        recall = ndtr((left_out[:, None] - thresholds) / width).mean(axis=0)
        number = ndtr((found[:, None] - thresholds) / width).sum(axis=0)
        values: NDArray[np.float64] = recall**2 / np.maximum(number, 1e-12)
        return values

    thresholds = np.linspace(low, high, _STEPS)
    values = product(thresholds)
    best = float(thresholds[int(np.argmax(values))])
    return usual if best > usual and values.max() < _MUCH * product(np.array([usual]))[0] else best


def _label(
    mask: InstanceMask, positives: Sequence[InstanceMask], negatives: Sequence[InstanceMask]
) -> tuple[int, float, int]:
    """Return whether a candidate is right, its weight, and the index of the example it is about (-1 for none).

    Wanted and unwanted objects may lie in one another, as a nucleus lies in its cell; then a candidate is about the one
    that it is more like. What holds a far smaller unwanted one is about the wanted ones alone.
    """
    shares = [shared_area(mask, other) for other in positives]
    best = int(np.argmax(shares)) if shares else -1
    iou = shares[best] / (mask.area + positives[best].area - shares[best]) if shares else 0.0
    for other in negatives:
        shared = shared_area(mask, other)
        is_like = shared >= iou * (mask.area + other.area - shared)
        holds = mask.area > _HOLDS * other.area
        if shared >= _WRONG * min(mask.area, other.area) and is_like and not holds:
            return WRONG, 1.0, -1
    if best < 0 or not shares[best]:
        return AWAY, 1.0, -1
    if iou >= _RIGHT:
        return RIGHT, 2 * (iou - _WRONG), best
    if iou < _WRONG and shares[best] > _NOTICEABLE * min(mask.area, positives[best].area):
        return WRONG, 1.0, best
    return WRONG, 0.0, best


def _fit(table: TrainingTable, used: NDArray[np.bool_]) -> Logistic:
    """Fit a regression to some rows; the right ones weigh as much as all wrong ones."""
    importance = np.zeros(len(used))
    for kind, share in ((RIGHT, 1.0), (WRONG, _NEAR), (AWAY, 1 - _NEAR)):
        rows = used & (table.label == kind)
        total = table.weight[rows].sum()
        if total > 0:
            importance[rows] = share * table.weight[rows] / total
    chosen = importance > 0
    return fit_logistic(table.features[chosen], table.label[chosen] == RIGHT, importance[chosen])


def _threshold_range(classifier: Logistic, table: TrainingTable, used: NDArray[np.bool_]) -> ThresholdRange:
    """Return the log-odds that most examples reach under classifiers fitted without them, and what lies below.

    Only what was proposed counts: a mask that the user drew scores higher than any proposal of its object.
    """
    right, label = table.right, table.label
    examples = np.unique(table.owner[right])
    best = []
    odds = classifier.log_odds(table.features)
    unseen = odds.copy()
    for fold in range(min(_HELD_OUT_FOLDS, len(examples))):
        here = examples[fold::_HELD_OUT_FOLDS]
        rest = used & ~np.isin(table.owner, here)
        if (rest & (label == RIGHT)).any() and (rest & (label != RIGHT) & (table.weight > 0)).any():
            without = _fit(table, rest).log_odds(table.features)
            best += [without[right & (table.owner == example)].max() for example in here]
            unseen = np.where(np.isin(table.owner, here), without, unseen)
    wrong = (label == WRONG) & (table.weight > 0)
    if not wrong.any():  # nothing is known to be wrong: what lies elsewhere has to serve
        wrong = used & (label != RIGHT)
    # Of one example nothing can be held out; then its own proposals have to serve.
    reached = best if len(best) > 1 else odds[right]
    held_out = np.array(best)
    if not len(reached):
        return ThresholdRange(0.0, 0.0, held_out, unseen)
    high = float(np.percentile(reached, _RECALL))
    if not wrong.any():
        return ThresholdRange(high, high, held_out, unseen)
    # Where right and wrong lie far from each other, a threshold between them leaves room for frames unlike these.
    middle = (1 - _ROOM) * high + _ROOM * float(np.percentile(odds[wrong], 100 - _RECALL))
    return ThresholdRange(min(high, middle), high, held_out, unseen)
