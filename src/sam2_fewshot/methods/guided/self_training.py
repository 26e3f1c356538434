"""Learning from few examples: what is surely like them on their own frames is learned from as if it were marked.

This is self-training (Scudder 1965). One example tells nothing of how much objects of its kind differ, so what was
learned from it alone takes others of the kind for strangers. But what it is surest of is mostly of the kind; with a few
of these detections added, more can be told from the rest, and so on. What the user marked stays; the detections are
chosen anew each time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from sam2_fewshot.geometry.overlap import shared_area
from sam2_fewshot.methods.base import Stopwatch
from sam2_fewshot.methods.guided.box_refinement import REFINEMENT, non_overlapping
from sam2_fewshot.methods.guided.classifier import EVEN_CHANCES
from sam2_fewshot.methods.guided.descriptors import CONTRAST, CORE_SCORE, SUPPORT, Proposed, describe
from sam2_fewshot.methods.guided.kinds import as_detected, divides, of_another_kind
from sam2_fewshot.tiling.overview import is_flat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import TrainingFrame
    from sam2_fewshot.methods.guided.maps import CellStore
    from sam2_fewshot.methods.guided.model import FrameCandidates, GuidedModel
    from sam2_fewshot.protocols import Backbone, Progress
    from sam2_fewshot.records import InstanceMask

FEW = 5
"""With fewer examples than these, detections are learned from, too. With three it adds .07 of F1, with ten it costs
.06."""
ROUNDS = ((4, -np.inf), (10, -np.inf), (20, 0.0))
"""Examples and detections that are learned from in each round, and how many log-odds a detection has to lie above the
threshold. That of the first rounds is good for nothing yet; later, there may not be so many objects of the kind."""
_STANDS_OUT, _LEAST_CONTRAST = 0.5, 0.25
"""A detection that is learned from differs from its surroundings at least this share as much as the examples do (and by
so many standard deviations of the frame), or its mean score is as near to that of the examples, 1, as to background, 0.
Where an example is alone on its frame, nothing is added; otherwise its ground would be."""
_LOWER = 0.75
"""Log-odds by which the threshold is lower where two to four examples were marked and nothing says that what looks
alike is unwanted. On fourteen tasks with three examples the mean F1 is .575 with 0, .595 with .5, .605 with this and
.611 with 1; on two scenes where only the texture differs it is .91, .79, .73 and .70. With one example living and dead
cells lose more by it than others gain."""
_COMPARED = 40
"""Among so many of the surest detections other kinds are looked for: twice as many as are learned from at last. What is
less sure is of any look."""
_MOST = 0.5
"""A candidate is held by another with more than this share of its area."""


def with_surest(
    learned: GuidedModel,
    backbone: Backbone,
    frames: Sequence[TrainingFrame],
    stores: Sequence[CellStore],
    most: int,
    least: float,
    progress: Progress,
) -> list[TrainingFrame]:
    """Return the examples' frames with the surest detections on them among the wanted examples.

    Parameters
    ----------
    learned
        Detects objects.
    backbone
        The one that it was learned with.
    frames
        With what the user marked.
    stores
        The tiles of each of the frames.
    most
        So many detections are added, fewer if there are not so many.
    least
        Log-odds that a detection lies above the threshold.
    progress
        Reports each tile done.
    """
    with_examples = {frame.number for frame in frames if len(frame.positives)}
    found = {
        i: learned.candidates(backbone, frame.pixels, progress, Stopwatch(), store)
        for i, (frame, store) in enumerate(zip(frames, stores, strict=True))
        if (frame.number in with_examples or frame.negatives) and not is_flat(frame.pixels)
    }
    if not found:
        return list(frames)
    positives = {i: _described(frames[i].positives, found[i], learned) for i in found}
    negatives = {i: _described(frames[i].negatives, found[i], learned) for i in found}
    wanted, unwanted = (np.concatenate(list(rows.values())) for rows in (positives, negatives))
    detections: list[_Detection] = []
    for i, here in found.items():
        frame, (masks, odds, features) = frames[i], here.likely
        if learned.erosion:
            odds = np.where(learned.are_within_limits(masks, np.full(len(masks), learned.erosion)), odds, -np.inf)
        if frame.number not in with_examples:  # nothing is wanted there, as far as anyone knows
            continue
        features = features[:, : -1 - REFINEMENT]
        on_frame = [rows for n, rows in positives.items() if frames[n].number == frame.number]
        adoptable = _stand_out(features, np.concatenate(on_frame))
        adoptable &= ~like_negatives(masks, features, wanted, unwanted, learned.second.scale[: features.shape[1]])
        chosen = non_overlapping(masks, odds, [*frame.positives, *frame.negatives, *frame.others])
        likely = (n for n in chosen if adoptable[n] and odds[n] > least)
        detections += [_Detection(float(odds[n]), i, masks[n], features[n]) for n in likely]
    detections.sort(key=lambda detection: -detection.odds)
    marked = [
        here.likely.features[as_detected(frames[i].positives, here.likely.masks, here.likely.odds)]
        for i, here in found.items()
    ]
    surest = _of_one_kind(detections, np.concatenate(marked))[: max(0, most)]
    added = [[each.mask for each in surest if each.frame == number] for number in range(len(frames))]
    return [
        replace(frame, positives=[*frame.positives, *masks], adopted=len(masks))
        for frame, masks in zip(frames, added, strict=True)
    ]


class _Detection(NamedTuple):
    """A detection: its log-odds above the threshold, the number of its frame, its mask and its descriptors."""

    odds: float
    frame: int
    mask: InstanceMask
    descriptors: NDArray[np.float64]


def _of_one_kind(detections: Sequence[_Detection], marked: NDArray[np.float64]) -> list[_Detection]:
    """Return detections, the surest first, without those that are clearly apart from all that the user marked.

    Here no proof is asked for that it is no chance: what is left out is only not learned from.
    """
    if not detections:
        return []
    rows = np.array([each.descriptors for each in detections])
    other = of_another_kind(rows, divides(marked, rows[:_COMPARED], proven=False))
    return [each for each, apart in zip(detections, other, strict=True) if not apart]


def like_negatives(
    masks: Sequence[InstanceMask],
    descriptors: NDArray[np.float64],
    positives: NDArray[np.float64],
    negatives: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return which candidates (N,) are more likely an object like a negative example, or a part of one.

    A candidate is when one that holds most of it, itself for instance, looks more like a negative example than it looks
    like any wanted one. Half of an unwanted object may well look like a wanted one.

    Parameters
    ----------
    masks, descriptors
        The candidates of a frame, and float64 (N, D).
    positives, negatives
        float64 (P, D), (M, D): descriptors of the examples.
    scale
        float64 (D,): by how much each descriptor differs among candidates.
    """
    if not len(negatives):
        return np.zeros(len(masks), bool)
    to_positive, to_negative = (
        cdist(descriptors / scale, marked / scale).min(axis=1, initial=np.inf) for marked in (positives, negatives)
    )
    unwanted = np.flatnonzero(to_negative < to_positive).tolist()
    result = np.zeros(len(masks), np.bool_)
    for i, (mask, distance) in enumerate(zip(masks, to_positive, strict=True)):
        holders = (masks[other] for other in unwanted if to_negative[other] < distance)
        result[i] = any(shared_area(mask, other) > _MOST * mask.area for other in holders)
    return result


def _described(masks: Sequence[InstanceMask], found: FrameCandidates, learned: GuidedModel) -> NDArray[np.float64]:
    """Return the descriptors of marked objects, but for the support, which outlines that a user drew do not have."""
    nothing = Proposed((), np.zeros(0, np.int64))
    return describe(masks, found.frame.maps, learned.diameter, nothing)[:, :SUPPORT]


def _stand_out(candidates: NDArray[np.float64], marked: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which candidates (N,) differ from the ground as the marked ones do, by the descriptors of both."""
    bar = max(_LEAST_CONTRAST, _STANDS_OUT * float(np.median(marked[:, CONTRAST])))
    result: NDArray[np.bool_] = (candidates[:, CONTRAST] >= bar) | (candidates[:, CORE_SCORE] >= _STANDS_OUT)
    return result


def lowered_threshold(threshold: float, marked: int, *, is_divided: bool) -> float:
    """Return the log-odds of the threshold after self-training.

    Detections that were learned from for being sure score higher than their like, and raise it too far. So it lies half
    as far above even chances, if it lies above: by the scores of runs with three examples ten scenes of look-alikes
    have a mean F1 of .69 with even chances at most, .78 half as far above and .74 as far; fifteen tasks on real images
    .56, .55 and .53. And it lies :data:`_LOWER` below that.

    Parameters
    ----------
    threshold
        Log-odds.
    marked
        Number of examples that the user marked.
    is_divided
        Whether negative examples, or a gap to objects of another kind, say that what looks alike is unwanted.
    """
    half = min(threshold, (threshold + EVEN_CHANCES) / 2)
    return half if marked == 1 or is_divided else half - _LOWER


def what_few_means(marked: int, found: int) -> str:
    """Return a sentence that tells the user what is made of few examples."""
    few = "One example tells" if marked == 1 else f"{marked} examples tell"
    if not found:
        return f"{few} little about how much objects of the kind differ, so the scores are low; mark 5 to 20."
    more = "1 object that looks" if found == 1 else f"{found} objects that look"
    it = "it" if marked == 1 else "them"
    return (
        f"{few} little about how much objects of the kind differ, so the {more} most like {it} on the same images "
        f"{'was' if found == 1 else 'were'} learned from as well, unchecked; mark 5 to 20 for a surer result."
    )
