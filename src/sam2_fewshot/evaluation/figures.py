"""Figures over many frames: precision, recall, F1, average precision, panoptic quality, AJI, and all by size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.evaluation.matching import Scores, matched, mostly_inside
from sam2_fewshot.geometry.overlap import overlaps, shared_area, touching
from sam2_fewshot.methods.base import is_known, lies_in

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sam2_fewshot.evaluation.matching import Matching
    from sam2_fewshot.records import InstanceMask

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which precision is averaged, those of COCO (``pycocotools.cocoeval.Params.setDetParams``)."""

PANOPTIC_IOU = float(np.nextafter(0.5, 1))
"""A match of the panoptic quality has an IoU of more than .5 (Kirillov et al., CVPR 2019)."""


@dataclass(frozen=True, eq=False)
class EvaluatedFrame:
    """A frame to evaluate.

    Parameters
    ----------
    name
        What to call it.
    predicted, truth
        Masks of the detections and of the true objects.
    scores
        Of the detections, in any range; None where they have none.
    below
        Masks and scores of the candidates below the threshold; they only count for the average precision.
    ignore
        What is not evaluated, such as the examples; see :func:`without_examples`. Detections inside one count neither
        way.
    unwanted
        Likewise, what was marked as not wanted.
    """

    name: str
    predicted: Sequence[InstanceMask]
    truth: Sequence[InstanceMask]
    scores: Sequence[float] | None = None
    below: Sequence[tuple[InstanceMask, float]] = ()
    ignore: Sequence[InstanceMask] = ()
    unwanted: Sequence[InstanceMask] = ()

    @cached_property
    def masks(self) -> list[InstanceMask]:
        """Masks of the detections, then of the candidates below the threshold."""
        return [*self.predicted, *(mask for mask, _ in self.below)]

    @cached_property
    def ious(self) -> dict[tuple[int, int], float]:
        """IoUs of the pairs of one of the :attr:`masks` and a true object, counted once for all figures."""
        return overlaps(self.masks, self.truth)

    @cached_property
    def inside(self) -> set[int]:
        """Indices of those :attr:`masks` that are mostly inside something that is not evaluated."""
        return mostly_inside(self.masks, [*self.ignore, *self.unwanted])

    def match(self, iou: float) -> Matching:
        """Match the detections; see :func:`~sam2_fewshot.evaluation.matching.matched`."""
        found = len(self.predicted)
        ious = {(p, t): overlap for (p, t), overlap in self.ious.items() if p < found}
        return matched(ious, found, len(self.truth), iou, {p for p in self.inside if p < found})


@dataclass(frozen=True, slots=True)
class SizeClass:
    """The scores of objects of similar area.

    Parameters
    ----------
    low, high
        Areas in pixels, from `low` to below `high`; the last class has no upper end (infinity).
    scores
        A true object counts in the class of its area, a detection that matches none in the class of its own.
    """

    low: float
    high: float
    scores: Scores


@dataclass(frozen=True)
class Evaluation:
    """All figures.

    Parameters
    ----------
    frames
        Scores of each frame at the first IoU, by name.
    ious
        IoUs of a match, in the order given.
    scores
        Scores over all frames at each of them; counts are added up before shares are taken.
    average_precision
        At each of them; None where the detections have no scores.
    panoptic_quality, segmentation_quality
        PQ, and SQ, its mean IoU.
    aji
        Aggregated Jaccard Index, the mean over the frames that have true objects; NaN without any.
    sizes
        By area of the object, at the first IoU.
    not_judged
        Number of true objects that were left out, see :func:`without_examples`.
    """

    frames: dict[str, Scores]
    ious: tuple[float, ...]
    scores: tuple[Scores, ...]
    average_precision: tuple[float, ...] | None
    panoptic_quality: float
    segmentation_quality: float
    aji: float
    sizes: tuple[SizeClass, ...]
    not_judged: int = 0

    def as_facts(self) -> dict[str, object]:
        """Return everything as plain values, for JSON."""
        rows = []
        for place, (iou, scores) in enumerate(zip(self.ious, self.scores, strict=True)):
            row = {"iou": iou, **_facts(scores)}
            if self.average_precision is not None:
                row["average_precision"] = self.average_precision[place]
            rows.append(row)
        return {
            "by_iou": rows,
            "panoptic_quality": self.panoptic_quality,
            "segmentation_quality": self.segmentation_quality,
            "aji": self.aji,
            "by_size": [{"from_px": s.low, "below_px": s.high, **_facts(s.scores)} for s in self.sizes],
            "by_frame": [{"frame": name, **_facts(scores)} for name, scores in self.frames.items()],
            "not_judged": self.not_judged,
        }


def evaluate_frames(
    frames: Sequence[EvaluatedFrame], ious: Sequence[float] = (0.5,), size_edges: Sequence[float] | None = None
) -> Evaluation:
    """Evaluate frames together.

    Matching is one to one, see :func:`~sam2_fewshot.evaluation.matching.matched`. The figures:

    - precision ``tp / (tp + fp)``, recall ``tp / (tp + fn)``, F1 ``2 tp / (2 tp + fp + fn)``, mean IoU of the matched
      pairs: as ``stardist.matching.matching`` (Schmidt et al., MICCAI 2018) has them for one frame and
      ``matching_dataset`` with ``by_image=False`` for several.
    - average precision: :func:`average_precision`.
    - panoptic quality ``sum of matched IoUs / (tp + fp / 2 + fn / 2)`` with matches of an IoU above .5, the product of
      segmentation quality (mean matched IoU) and F1 (Kirillov et al., CVPR 2019, https://arxiv.org/abs/1801.00868).
    - AJI: :func:`aggregated_jaccard`, without the detections that count neither way.

    Parameters
    ----------
    frames
        At least one.
    ious
        IoUs of a match, each above 0 and at most 1.
    size_edges
        Areas in pixels between size classes, in rising order; the terciles of the true objects' areas when left out.

    Raises
    ------
    ValueError
        If an IoU is out of its range, or there are no frames or no IoUs.
    """
    if not frames or not ious:
        raise ValueError("there must be at least one frame and one IoU")
    counted = [without_examples(frame) for frame in frames]
    zero = Scores(0, 0, 0, 0.0)
    at_iou = [[frame.match(iou).scores for frame in counted] for iou in ious]
    matchings = [frame.match(PANOPTIC_IOU) for frame in counted]
    panoptic = sum((matching.scores for matching in matchings), zero)
    jaccards = [
        aggregated_jaccard(frame, set(matching.ignored))
        for frame, matching in zip(counted, matchings, strict=True)
        if frame.truth
    ]
    has_scores = all(frame.scores is not None for frame in counted)
    return Evaluation(
        frames={frame.name: scores for frame, scores in zip(counted, at_iou[0], strict=True)},
        ious=tuple(ious),
        scores=tuple(sum(rows, zero) for rows in at_iou),
        average_precision=tuple(average_precision(counted, iou) for iou in ious) if has_scores else None,
        panoptic_quality=panoptic.mean_matched_iou * panoptic.f1,
        segmentation_quality=panoptic.mean_matched_iou,
        aji=float(np.mean(jaccards)) if jaccards else float("nan"),
        sizes=_by_size(counted, ious[0], size_edges),
        not_judged=sum(len(f.truth) for f in frames) - sum(len(f.truth) for f in counted),
    )


def average_precision(frames: Sequence[EvaluatedFrame], iou: float) -> float:
    """Return the area under the curve of precision over recall as the threshold falls, as COCO takes it.

    On each frame the detections choose in the order of their scores, each the free true object with the highest IoU; a
    detection without one of at least `iou` is false. Over all frames, precision at a recall is the best at this or any
    higher recall, averaged over :data:`RECALLS` (``pycocotools.cocoeval``, area range *all*). Detections inside an
    ignored object do not count when they are false.

    Parameters
    ----------
    frames
        With scores.
    iou
        Smallest IoU of a match.

    Returns
    -------
    float
        In [0, 1]; NaN when there are no true objects.
    """
    scores: list[float] = []
    right: list[bool] = []
    for frame in frames:
        assert frame.scores is not None
        assert len(frame.scores) == len(frame.predicted)
        of_frame = [*frame.scores, *(score for _, score in frame.below)]
        near: dict[int, list[tuple[float, int]]] = {}
        for (p, t), overlap in frame.ious.items():
            near.setdefault(p, []).append((overlap, t))
        free = set(range(len(frame.truth)))
        for p in sorted(range(len(of_frame)), key=lambda p: -of_frame[p]):
            best, taken = max(((overlap, t) for overlap, t in near.get(p, ()) if t in free), default=(0.0, -1))
            hit = taken >= 0 and best >= iou
            if hit:
                free.discard(taken)
            elif p in frame.inside:
                continue
            scores.append(of_frame[p])
            right.append(hit)
    total = sum(len(frame.truth) for frame in frames)
    if not total:
        return float("nan")
    if not scores:
        return 0.0
    order = np.argsort(-np.array(scores), kind="stable")
    hits = np.cumsum(np.array(right)[order])
    precision = hits / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / total, RECALLS, side="left")
    return float(np.mean(np.append(best_from_here, 0.0)[np.minimum(places, len(hits))]))


def aggregated_jaccard(frame: EvaluatedFrame, left_out: Collection[int] = ()) -> float:
    """Return the Aggregated Jaccard Index of a frame.

    Each true object takes the detection with the highest IoU, and several may take the same one. The sum of their
    intersections is divided by the sum of their unions, to which the areas of the detections that none took are added;
    an object without an overlapping detection adds its own area (Kumar et al., IEEE TMI 36 (2017) 1550, algorithm 1).

    Parameters
    ----------
    frame
        The frame; what lies below the threshold does not count.
    left_out
        Indices of the detections that do not count either.

    Returns
    -------
    float
        In [0, 1]; NaN when there is neither a detection nor a true object.
    """
    predicted = {p: mask for p, mask in enumerate(frame.predicted) if p not in left_out}
    best: dict[int, tuple[float, int]] = {}
    for (p, t), overlap in frame.ious.items():
        if p in predicted and overlap > best.get(t, (0.0, -1))[0]:
            best[t] = overlap, p
    shared = union = 0
    for t, mask in enumerate(frame.truth):
        if t not in best:
            union += mask.area
            continue
        common = shared_area(mask, predicted[best[t][1]])
        shared += common
        union += mask.area + predicted[best[t][1]].area - common
    taken = {p for _, p in best.values()}
    union += sum(mask.area for p, mask in predicted.items() if p not in taken)
    return shared / union if union else float("nan")


def without_examples(frame: EvaluatedFrame) -> EvaluatedFrame:
    """Return the frame without the true objects that are not evaluated; what is detected inside them is not, either.

    These are the ones that the search leaves out, since it takes them for one that is to be ignored, and so could not
    find: also those around which an example is drawn too large, or of which it is only a part. See
    :func:`~sam2_fewshot.methods.base.is_known`, and for what is not wanted :func:`~sam2_fewshot.methods.base.lies_in`.
    """
    truth, ignore, unwanted = frame.truth, frame.ignore, frame.unwanted
    left_out = {t for t, k in touching(truth, ignore) if is_known(truth[t], [ignore[k]])}
    left_out |= {t for t, k in touching(truth, unwanted) if lies_in(truth[t], [unwanted[k]])}
    return replace(
        frame,
        truth=[mask for t, mask in enumerate(truth) if t not in left_out],
        ignore=[*ignore, *(truth[t] for t in sorted(left_out))],
    )


def _by_size(frames: Sequence[EvaluatedFrame], iou: float, edges: Sequence[float] | None) -> tuple[SizeClass, ...]:
    areas = np.array([mask.area for frame in frames for mask in frame.truth], float)
    if edges is None:
        terciles = np.percentile(areas, [100 / 3, 200 / 3]) if areas.size else []
        edges = sorted({float(np.ceil(edge)) for edge in terciles})
    bounds = [0.0, *edges, float("inf")]
    counts = np.zeros((len(bounds) - 1, 3), int)
    overlaps = np.zeros(len(bounds) - 1)

    def place(mask: InstanceMask) -> int:
        return int(np.searchsorted(np.array(bounds[1:-1]), mask.area, side="right"))

    for frame in frames:
        result = frame.match(iou)
        hit, found = {t: overlap for _, t, overlap in result.pairs}, {p for p, _, _ in result.pairs}
        for t, mask in enumerate(frame.truth):
            counts[place(mask), 0 if t in hit else 2] += 1
            overlaps[place(mask)] += hit.get(t, 0.0)
        for p, mask in enumerate(frame.predicted):
            if p not in found and p not in result.ignored:
                counts[place(mask), 1] += 1
    return tuple(
        SizeClass(low, high, Scores(tp, fp, fn, total / tp if tp else 0.0))
        for low, high, (tp, fp, fn), total in zip(
            bounds[:-1], bounds[1:], counts.tolist(), overlaps.tolist(), strict=True
        )
    )


def _facts(scores: Scores) -> dict[str, object]:
    return {
        "tp": scores.tp,
        "fp": scores.fp,
        "fn": scores.fn,
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
        "mean_matched_iou": scores.mean_matched_iou,
    }
