"""Learning from the candidates on the examples' own frames which candidates are right."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.overlap import shared_area
from sam2_fewshot.similarity.descriptors import CORE_SCORE, FrameMaps, describe
from sam2_fewshot.similarity.logistic import Logistic, fit_logistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.guided.model import GuidedModel
    from sam2_fewshot.records import InstanceMask

_RIGHT, _WRONG = 0.6, 0.5
"""A candidate is right when its IoU with an example is at least the first, and wrong when it overlaps one noticeably
with less than the second; between them it is neither."""
_NOTICEABLE = 0.1
_HELD_OUT_FOLDS = 5
_RECALL = 10
"""Percentile of the held-out examples' scores at which an object counts as found: 90 % of what looks like the examples
is kept, as far as their number allows (at best n / (n + 1), as in conformal prediction)."""
_LOOKS_LIKE, _ROUNDS = 30, 2
"""Candidates away from the examples above this percentile of the right ones' scores may be objects themselves; they
are not taken as wrong."""

_BACKGROUND = 0.5

RIGHT, WRONG, AWAY = 1, 0, -1


def judged(
    learned: GuidedModel,
    shown: Sequence[tuple[Sequence[InstanceMask], Sequence[InstanceMask]]],
    maps: Sequence[FrameMaps],
) -> GuidedModel:
    """Return the model with its judge and the judge's cut.

    Parameters
    ----------
    learned
        All but the judge.
    shown
        For each frame the masks of the examples and of the negative examples.
    maps
        The planes of each frame, on which no example was learned from itself.
    """
    rows: list[NDArray[np.float64]] = []
    verdicts: list[int] = []
    weights: list[float] = []
    owners: list[int] = []
    proposed: list[bool] = []
    begun = 0
    for (wanted, unwanted), planes in zip(shown, maps, strict=True):
        # The marked masks themselves are the surest rows there are.
        candidates = [*wanted, *unwanted, *learned.candidates(planes)]
        rows.append(describe(candidates, planes, learned.diameter))
        for mask in candidates:
            verdict, weight, owner = _verdict(mask, wanted, unwanted)
            verdicts.append(verdict)
            weights.append(weight)
            owners.append(begun + owner if owner >= 0 else -1)
        marked = len(wanted) + len(unwanted)
        proposed += [i >= marked for i in range(len(candidates))]
        begun += len(wanted)
    table = np.concatenate(rows)
    verdict_of, weight_of, owner_of = np.array(verdicts), np.array(weights), np.array(owners)
    right = np.array(proposed) & (verdict_of == RIGHT)
    used = verdict_of >= 0
    if not (verdict_of == WRONG).any():
        used = np.ones(len(used), bool)  # nothing is known to be wrong: what lies elsewhere has to serve
    # Away from the examples lie more objects of their kind; to begin with, only what the score takes for background
    # is taken as wrong there.
    judge = _fit(table, verdict_of, weight_of, used | (table[:, CORE_SCORE] < _BACKGROUND))
    for _ in range(_ROUNDS):
        odds = judge.log_odds(table)
        # Right candidates score higher than others of their kind, because they were learned from; held-out ones do not.
        cut = _cut(judge, table, verdict_of, weight_of, owner_of, used, right)
        unlike = odds < min(cut, float(np.percentile(odds[verdict_of == RIGHT], _LOOKS_LIKE)))
        sure = (verdict_of >= 0) | unlike
        if (verdict_of[sure] != RIGHT).any():  # otherwise there is nothing to tell the right ones from
            used = sure
        judge = _fit(table, verdict_of, weight_of, used)
    return replace(learned, judge=judge, cut=_cut(judge, table, verdict_of, weight_of, owner_of, used, right))


def _verdict(
    mask: InstanceMask, wanted: Sequence[InstanceMask], unwanted: Sequence[InstanceMask]
) -> tuple[int, float, int]:
    """Return whether a candidate is right, its weight, and the index of the example it is about (-1 for none)."""
    for other in unwanted:
        if shared_area(mask, other) >= _WRONG * min(mask.area, other.area):
            return WRONG, 1.0, -1
    shares = [shared_area(mask, other) for other in wanted]
    best = int(np.argmax(shares)) if shares else -1
    if best < 0 or not shares[best]:
        return AWAY, 1.0, -1
    iou = shares[best] / (mask.area + wanted[best].area - shares[best])
    if iou >= _RIGHT:
        return RIGHT, 2 * (iou - _WRONG), best
    if iou < _WRONG and shares[best] > _NOTICEABLE * min(mask.area, wanted[best].area):
        return WRONG, 1.0, best
    return WRONG, 0.0, best


def _fit(
    table: NDArray[np.float64], verdict: NDArray[np.int64], weight: NDArray[np.float64], used: NDArray[np.bool_]
) -> Logistic:
    """Fit a judge; right rows weigh as much as wrong ones, and these half each near the examples and away from them."""
    importance = np.zeros(len(table))
    for kind, share in ((RIGHT, 1.0), (WRONG, 0.5), (AWAY, 0.5)):
        rows = used & (verdict == kind)
        total = weight[rows].sum()
        if total > 0:
            importance[rows] = share * weight[rows] / total
    chosen = importance > 0
    return fit_logistic(table[chosen], verdict[chosen] == RIGHT, importance[chosen])


def _cut(
    judge: Logistic,
    table: NDArray[np.float64],
    verdict: NDArray[np.int64],
    weight: NDArray[np.float64],
    owner: NDArray[np.int64],
    used: NDArray[np.bool_],
    right: NDArray[np.bool_],
) -> float:
    """Return the log-odds that most examples reach under judges that were fitted without them.

    Only what was proposed counts (`right`): a mask that the user drew scores higher than any proposal of its object.
    """
    examples = np.unique(owner[right])
    best = []
    for fold in range(min(_HELD_OUT_FOLDS, len(examples))):
        here = examples[fold::_HELD_OUT_FOLDS]
        rest = used & ~np.isin(owner, here)
        if (rest & (verdict == RIGHT)).any() and (rest & (verdict != RIGHT) & (weight > 0)).any():
            odds = _fit(table, verdict, weight, rest).log_odds(table)
            best += [odds[right & (owner == example)].max() for example in here]
    odds, wrong = judge.log_odds(table), used & (verdict != RIGHT)
    # Of one example nothing can be held out; then its own proposals have to serve.
    reached = best if len(best) > 1 else odds[right]
    if not len(reached):
        return 0.0
    cut = float(np.percentile(reached, _RECALL))
    if not wrong.any():
        return cut
    # Where right and wrong lie far apart, the middle between them leaves room for frames unlike the shown ones.
    return min(cut, (cut + float(np.percentile(odds[wrong], 100 - _RECALL))) / 2)
