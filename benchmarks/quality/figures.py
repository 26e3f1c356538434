"""What is measured, and how.

* Precision, recall and F1: predictions and true objects matched one to one by
  :func:`sam2_fewshot.evaluation.matching.match`, counts added up over the query frames of a task.
* The curve over scores: predictions of all query frames of a task, the highest score first; each takes the true object
  that it covers with an IoU of at least .5, if no prediction before it did. As true objects do not overlap
  and a prediction above that IoU fits one of them only, every prefix has the counts that
  :func:`~sam2_fewshot.evaluation.matching.match` would give it. Predictions of the same score come together.
* AP: area under that curve, precision made monotone: ``sum over n of (R[n] - R[n-1]) * max(P[m] for m >= n)``
  (Everingham et al. 2015, "The Pascal Visual Object Classes Challenge: A Retrospective", all points, as in the VOC
  development kit since 2010).
* Best F1: the largest on the curve, and the score it belongs to. It is found with the truth.
* Recall of the proposals: share of the true objects that *some* mask covers with an IoU of at least .5, of all that
  were proposed, before any was compared with the examples; also by thirds of the true objects of the task by area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam2_fewshot.evaluation.figures import EvaluatedFrame
from sam2_fewshot.geometry.overlap import mask_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.evaluation.matching import Scores
    from sam2_fewshot.records import InstanceMask

STRICT, LOOSE = 0.5, 0.3
"""The IoUs of a match."""


@dataclass(frozen=True, eq=False, slots=True)
class Prediction:
    """A mask with its score; None where the method gives none."""

    mask: InstanceMask
    score: float | None


class MatchedFrame(NamedTuple):
    """What became of a method's candidates on one frame.

    Parameters
    ----------
    scored
        ``(score, index of the true object that it matches alone, or -1)`` of each that counts.
    areas
        Of the true objects, in pixels.
    reached
        Which of the true objects some candidate matches.
    """

    scored: list[tuple[float, int]]
    areas: list[int]
    reached: list[bool]


class Curve(NamedTuple):
    """The precision-recall curve in a few figures; all 0 when nothing was found."""

    average_precision: float
    best_f1: float
    best_threshold: float


def _frame(
    predictions: Sequence[Prediction], truth: Sequence[InstanceMask], ignore: Sequence[InstanceMask] = ()
) -> EvaluatedFrame:
    return EvaluatedFrame("", [prediction.mask for prediction in predictions], truth, ignore=ignore)


def counts(
    predictions: Sequence[Prediction], truth: Sequence[InstanceMask], ignore: Sequence[InstanceMask], iou: float
) -> Scores:
    """Return the counts of one frame."""
    return _frame(predictions, truth, ignore).match(iou).scores


def match_frame(
    predictions: Sequence[Prediction], truth: Sequence[InstanceMask], ignore: Sequence[InstanceMask]
) -> MatchedFrame:
    """Return which true object each candidate of one frame stands for, and which are reached at all."""
    scored = []
    for prediction in predictions:
        alone = _frame([prediction], truth, ignore).match(STRICT)
        if not alone.ignored:
            scored.append((prediction.score or 0.0, alone.pairs[0][1] if alone.pairs else -1))
    found = {t for _, t, _ in _frame(predictions, truth).match(STRICT).pairs}
    return MatchedFrame(scored, [mask.area for mask in truth], [i in found for i in range(len(truth))])


def reached(masks: Sequence[InstanceMask], truth: Sequence[InstanceMask]) -> list[bool]:
    """Return of which true objects some mask is a match."""
    boxes = np.array([mask.box for mask in masks]).reshape(-1, 4)
    found = []
    for target in truth:
        x0, y0, x1, y1 = target.box
        near = (boxes[:, 0] < x1) & (x0 < boxes[:, 2]) & (boxes[:, 1] < y1) & (y0 < boxes[:, 3])
        found.append(any(mask_iou(masks[i], target) >= STRICT for i in np.flatnonzero(near)))
    return found


def curve(frames: Sequence[MatchedFrame]) -> Curve:
    """Return AP and best F1 over the frames of a task taken together."""
    scored = sorted(
        ((score, (frame, hit) if hit >= 0 else None) for frame, j in enumerate(frames) for score, hit in j.scored),
        key=lambda item: -item[0],
    )
    objects = sum(len(matched.areas) for matched in frames)
    if not scored or not objects:
        return Curve(0.0, 0.0, 0.0)
    scores = np.array([score for score, _ in scored])
    taken: set[tuple[int, int]] = set()
    hits = np.zeros(len(scored))
    for i, (_, hit) in enumerate(scored):
        if hit is not None and hit not in taken:
            taken.add(hit)
            hits[i] = 1
    last = np.append(scores[1:] != scores[:-1], True)
    tp = hits.cumsum()[last]
    found = np.arange(1, len(scored) + 1)[last]
    f1 = 2 * tp / (found + objects)
    envelope = np.maximum.accumulate((tp / found)[::-1])[::-1]
    area = float((np.diff(tp / objects, prepend=0.0) * envelope).sum())
    best = int(f1.argmax())
    return Curve(area, float(f1[best]), float(scores[last][best]))


def reach(frames: Sequence[MatchedFrame]) -> tuple[float | None, list[float | None], list[float]]:
    """Return the recall of the proposals: overall, by thirds of the areas, and the two areas between the thirds."""
    areas = np.array([area for matched in frames for area in matched.areas], float)
    reached = np.array([hit for matched in frames for hit in matched.reached], bool)
    if not areas.size:
        return None, [None] * 3, []
    edges = np.quantile(areas, [1 / 3, 2 / 3])
    third = np.searchsorted(edges, areas, side="left")
    by_size = [float(reached[third == i].mean()) if (third == i).any() else None for i in range(3)]
    return float(reached.mean()), by_size, edges.tolist()
