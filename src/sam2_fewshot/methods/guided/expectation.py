"""What can be expected of a search, from the examples' own frames: marked objects that were left out, and other finds.

Each example is looked for by what was learned without it, so whether it is found again tells what share of all objects
will be found. What is found around it but is not it (a part, a union with a neighbour) is wrong for sure. What is found
elsewhere may be right or wrong, since the user marks only some of the objects: positive and unlabelled data (Elkan &
Noto 2008). At scores that few things reach, most are right, and from there the number of all objects follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam2_fewshot.geometry.overlap import mask_iou, shared_area
from sam2_fewshot.methods.guided.box_refinement import non_overlapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.guided.classifier import TrainingCandidates
    from sam2_fewshot.records import InstanceMask

_RIGHT, _NOTICEABLE = 0.5, 0.1
"""IoU from which on an example counts as found, and share of the smaller one from which on a find is about it."""


class Evidence(NamedTuple):
    """What the examples' frames tell of a search.

    Parameters
    ----------
    examples, found
        Wanted examples, and how many of them are found by what was learned without them.
    beside
        Finds about an example that are not it.
    elsewhere
        Finds away from all that is marked.
    on_negatives
        Finds on negative examples.
    pure
        Share of all finds that are right at most, as the scores of the examples that are left out tell.
    """

    examples: int
    found: int
    beside: int
    elsewhere: int
    on_negatives: int
    pure: float


NOTHING_KNOWN = Evidence(0, 0, 0, 0, 0, float("nan"))


def evidence_of(
    frames: Sequence[TrainingCandidates], odds: Sequence[NDArray[np.float64]], threshold: float
) -> Evidence:
    """Count what is found on the examples' frames.

    Parameters
    ----------
    frames
        The examples' frames with the candidates on them.
    odds
        Log-odds of each frame's candidates, float64 (N,), by classifiers that have not seen the example that a candidate
        is about.
    threshold
        Log-odds from which on a candidate counts as an object.
    """
    examples = found = beside = elsewhere = on_negatives = 0
    held_out: list[float] = []
    every: list[float] = []
    for frame, all_odds in zip(frames, odds, strict=True):
        masks, values = list(frame.masks[frame.drawn :]), all_odds[frame.drawn :]
        chosen = non_overlapping(masks, values)
        examples += len(frame.positives)
        best = {}
        for i in chosen:
            every.append(float(values[i]))
            number, iou = _about(masks[i], frame.positives)
            if iou >= _RIGHT and number not in best:
                best[number] = float(values[i])
                held_out.append(float(values[i]))
                found += values[i] >= threshold
            elif values[i] >= threshold:
                if number >= 0:
                    beside += 1
                elif _about(masks[i], frame.negatives)[0] >= 0:
                    on_negatives += 1
                else:
                    elsewhere += 1
    return Evidence(examples, int(found), beside, elsewhere, on_negatives, _pure(held_out, every, examples, threshold))


def _about(mask: InstanceMask, marked: Sequence[InstanceMask]) -> tuple[int, float]:
    """Return which marked object a mask is about, -1 for none, and the IoU with it."""
    shares = [shared_area(mask, other) / min(mask.area, other.area) for other in marked]
    if not shares or max(shares) <= _NOTICEABLE:
        return -1, 0.0
    number = int(np.argmax([mask_iou(mask, other) for other in marked]))
    return number, mask_iou(mask, marked[number])


def _pure(held_out: Sequence[float], every: Sequence[float], examples: int, threshold: float) -> float:
    """Return the share of the finds from a threshold on that is right if those with the highest scores all are."""
    reached = np.sort(held_out)[::-1]
    if len(reached) < 3 or reached[2] < threshold:
        return float("nan")
    numbers = np.array([(np.array(every) >= value).sum() for value in reached])
    recall = (np.arange(len(reached)) + 1) / examples
    usable = (np.arange(len(reached)) >= 2) & (reached >= threshold)
    total = (numbers[usable] / recall[usable]).min()
    here = int((reached >= threshold).sum())
    return float(min(1.0, total * here / examples / (np.array(every) >= threshold).sum()))
