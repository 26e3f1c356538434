"""One-to-one matching of detections with true objects at an IoU: precision, recall, F1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sam2_fewshot.geometry.overlap import shared_area, touching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from sam2_fewshot.records import InstanceMask


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts of a comparison and what follows from them.

    Parameters
    ----------
    tp, fp, fn
        Detections that match a true object, detections that match none, true objects that were not detected.
    mean_matched_iou
        Mean IoU of the matched pairs; 0 when there are none.
    """

    tp: int
    fp: int
    fn: int
    mean_matched_iou: float

    @property
    def precision(self) -> float:
        """Share of the detections that are right, ``tp / (tp + fp)``; 0 when there are none."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the true objects that were detected, ``tp / (tp + fn)``; 0 when there are none."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, ``2 tp / (2 tp + fp + fn)``; 0 when there is nothing."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def __add__(self, other: Scores) -> Scores:
        """Return the scores of two frames taken together (counts add up, the mean is weighted)."""
        tp = self.tp + other.tp
        total = self.tp * self.mean_matched_iou + other.tp * other.mean_matched_iou
        return Scores(tp, self.fp + other.fp, self.fn + other.fn, _share(total, tp))


@dataclass(frozen=True, slots=True)
class Matching:
    """Which detection belongs to which true object.

    Parameters
    ----------
    pairs
        ``(index of the detection, index of the true object, IoU)``, by index of the detection.
    ignored
        Indices of the detections that count neither way.
    scores
        Counts, precision, recall, F1.
    """

    pairs: tuple[tuple[int, int, float], ...]
    ignored: tuple[int, ...]
    scores: Scores


def matched(
    ious: Mapping[tuple[int, int], float], predicted: int, truth: int, iou: float, inside: Set[int]
) -> Matching:
    """Match detections with true objects one to one.

    Of all one-to-one matchings of pairs with at least the given IoU, the one with most pairs is taken, and
    among those the one with the largest sum of IoUs: the rule of ``stardist.matching.matching`` (Schmidt et
    al., MICCAI 2018, https://github.com/stardist/stardist), solved as an assignment problem.

    Parameters
    ----------
    ious
        Of the pairs of a detection and a true object that share a pixel, by their indices.
    predicted, truth
        How many there are.
    iou
        Smallest IoU of a match, above 0 and at most 1.
    inside
        Indices of the detections that count neither way where they match nothing, as of :func:`mostly_inside`.

    Raises
    ------
    ValueError
        If `iou` is out of its range.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"the IoU of a match is {iou}, but it must be above 0 and at most 1")
    weights = {pair: overlap for pair, overlap in ious.items() if overlap >= iou}
    pairs = tuple(sorted((p, t, weights[p, t]) for p, t in _assign(weights, predicted, truth)))
    ignored = inside - {p for p, _, _ in pairs}
    tp = len(pairs)
    scores = Scores(
        tp=tp,
        fp=predicted - tp - len(ignored),
        fn=truth - tp,
        mean_matched_iou=_share(sum(overlap for _, _, overlap in pairs), tp),
    )
    return Matching(pairs, tuple(sorted(ignored)), scores)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def mostly_inside(masks: Sequence[InstanceMask], others: Sequence[InstanceMask]) -> set[int]:
    """Return the indices of the masks of which more than half of the area lies in one of the others."""
    return {i for i, k in touching(masks, others) if 2 * shared_area(masks[i], others[k]) > masks[i].area}


def _assign(weights: dict[tuple[int, int], float], rows: int, columns: int) -> list[tuple[int, int]]:
    """Return the one-to-one pairs: as many as possible, then of the largest sum of weights in (0, 1]."""
    if not weights:
        return []
    edges = np.array(list(weights))
    # Objects that do not overlap do not compete, so each connected group is a small problem of its own; one dense
    # table for 10,000 x 10,000 objects would take 800 MB.
    graph = coo_array(
        (np.ones(len(edges), bool), (edges[:, 0], rows + edges[:, 1])), shape=(rows + columns, rows + columns)
    )
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[edges[:, 0]], kind="stable")
    starts = np.flatnonzero(np.diff(group[edges[order, 0]])) + 1
    pairs: list[tuple[int, int]] = []
    for members in np.split(edges[order], starts):
        row_ids, row = np.unique(members[:, 0], return_inverse=True)
        column_ids, column = np.unique(members[:, 1], return_inverse=True)
        gain = np.zeros((row_ids.size, column_ids.size))
        # One more pair is worth more than all the IoUs of the group together.
        worth = min(gain.shape) + 1
        gain[row, column] = [worth + weights[p, t] for p, t in members.tolist()]
        chosen = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
        pairs += [(int(row_ids[r]), int(column_ids[c])) for r, c in chosen if gain[r, c] > 0]
    return pairs
