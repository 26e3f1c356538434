"""How well the examples are found again by what was learned without them, and what else is found on their frames.

Whether an example that was left out is found again tells what share of all objects will be found. What is found
elsewhere on the examples' frames may be right or wrong, since a user marks only some of the objects: these are positive
and unlabelled data (Elkan & Noto 2008). How many of them are right cannot be reckoned from one set of images. But over
many sets it goes with how well the left-out examples are outlined, so what was measured on those with as good outlines
is told (``benchmarks/expectation.py``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam2_fewshot.geometry.overlap import mask_iou, shared_area
from sam2_fewshot.methods.guided.box_refinement import non_overlapping
from sam2_fewshot.methods.guided.erosion import restored
from sam2_fewshot.methods.guided.self_training import FEW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import TrainingFrame
    from sam2_fewshot.methods.guided.classifier import TrainingCandidates
    from sam2_fewshot.records import InstanceMask

_RIGHT, _NOTICEABLE = 0.5, 0.1
"""IoU from which on an example counts as found, and share of the smaller one from which on a detection is about it."""
_FOUND, _BESIDE, _ELSEWHERE = 0.7, 0.5, 2
"""With a smaller share of the examples found again, or more detections of another outline for each that is found, the
scores tell little; with more unmarked detections for each example the user is then asked to look at some of them."""
_NAMED = 5


class Expected(NamedTuple):
    """What was measured on sets of images with their truth: a quarter had less than `low`, a quarter more than `high`.

    Parameters
    ----------
    low, middle, high
        Quartiles, in [0, 1].
    """

    low: float
    middle: float
    high: float


PRECISION = (
    (0.0, Expected(0.22, 0.48, 0.63)),
    (0.55, Expected(0.64, 0.78, 0.89)),
    (0.75, Expected(0.77, 0.93, 0.99)),
)
RECALL = ((0.0, Expected(0.13, 0.37, 0.57)), (0.55, Expected(0.51, 0.67, 0.82)))
"""From which mean IoU of the left-out examples on which precision and recall (IoU of .5) are to be expected, from
``benchmarks/results/2026-11-30-cpu-micro-expectation.json``. From .55 on the recall no longer goes with it."""


class Evidence(NamedTuple):
    """What the examples' frames tell of a search.

    Parameters
    ----------
    examples, found
        Examples that the user marked as wanted, and how many of them are found by what was learned without them.
    beside
        Detections about an example that have another outline.
    elsewhere
        Detections away from all that is marked.
    """

    examples: int
    found: int
    beside: int
    elsewhere: int


NO_EVIDENCE = Evidence(0, 0, 0, 0)


class LookAlike(NamedTuple):
    """An unmarked detection on an example's frame.

    Parameters
    ----------
    odds
        How far its log-odds lie above the threshold.
    frame
        The frame's name.
    x, y
        Its middle, in pixels of the frame.
    """

    odds: float
    frame: str
    x: int
    y: int


def evidence_of(
    frames: Sequence[TrainingFrame],
    candidates: Sequence[TrainingCandidates],
    odds: Sequence[NDArray[np.float64]],
    threshold: float,
    erosion: float = 0.0,
) -> tuple[Evidence, list[LookAlike], float]:
    """Count what is detected on the examples' frames.

    Parameters
    ----------
    frames
        The examples' frames, or parts of them, with the marks as the user drew them.
    candidates
        Those on each of them.
    odds
        Their log-odds, float64 (N,) each, by classifiers that have not seen the example that a candidate is about.
    threshold
        Log-odds from which on a candidate counts as an object.
    erosion
        By how many pixels the marks were eroded before the candidates were made, which are compared grown back.

    Returns
    -------
    evidence
        The counts.
    places
        Where unmarked detections lie, those with the highest score first.
    agreement
        Mean IoU of the examples with what is detected of them, 0 for one of which nothing is.
    """
    counted, places = [NO_EVIDENCE], []
    best: list[float] = []
    for frame, among, of_all in zip(frames, candidates, odds, strict=True):
        marked = list(frame.marked)
        found, beside, elsewhere = set(), 0, 0
        # What the user drew is not detected.
        proposed, values = among.masks[among.drawn :], of_all[among.drawn :]
        detected = [i for i in non_overlapping(proposed, values) if values[i] >= threshold]
        masks = restored([proposed[i] for i in detected], erosion)
        best += [max((mask_iou(mask, other) for other in masks), default=0.0) for mask in marked]
        for i, mask in zip(detected, masks, strict=True):
            number, iou = _about(mask, marked)
            if iou >= _RIGHT and number not in found:
                found.add(number)
            elif number >= 0:
                beside += 1
            elif _about(mask, [*frame.negatives, *frame.others])[0] < 0:
                elsewhere += 1
                x0, y0, x1, y1 = mask.box
                x, y = frame.corner[0] + (x0 + x1) // 2, frame.corner[1] + (y0 + y1) // 2
                places.append(LookAlike(float(values[i]) - threshold, frame.name, x, y))
        counted.append(Evidence(len(marked), len(found), beside, elsewhere))
    evidence = Evidence(*(sum(column) for column in zip(*counted, strict=True)))
    return evidence, sorted(places, reverse=True), float(np.mean(best)) if best else 0.0


def expected(examples: int, agreement: float) -> tuple[Expected, Expected] | None:
    """Return the precision and the recall to be expected on images like the examples'; None where nothing is known.

    Parameters
    ----------
    examples
        How many the user marked as wanted.
    agreement
        As :func:`evidence_of` returns it, NaN where it is not known.
    """
    if examples < FEW or math.isnan(agreement):  # what was measured was not learned by self-training
        return None
    precision, recall = (
        next(figure for least, figure in reversed(table) if agreement >= least) for table in (PRECISION, RECALL)
    )
    return precision, recall


def in_words(evidence: Evidence, agreement: float = math.nan) -> str:
    """Return sentences that tell the user how well the examples are found again, and what is to be expected.

    Parameters
    ----------
    evidence, agreement
        From :func:`evidence_of`; NaN where the agreement is not known.

    Returns
    -------
    str
        Empty when nothing is known.
    """
    examples, found, beside, elsewhere = evidence
    if examples < 2:  # a single one cannot be left out
        return ""
    outlines = f", {beside} of their detections {'has' if beside == 1 else 'have'} another outline" if beside else ""
    others = "1 other place scores" if elsewhere == 1 else f"{elsewhere or 'no'} other places score"
    measured = (
        f"Left out in turn, {found} of the {examples} examples {'is' if found == 1 else 'are'} found again at the "
        f"default threshold{outlines}; {others} as high on the same images."
    )
    figures = expected(examples, agreement)
    if figures is None:
        return measured
    (least_right, right, most_right), (least_found, found_of, most_found) = (
        [round(10 * value) for value in figure] for figure in figures
    )
    return (
        f"{measured} On other sets of images whose left-out examples were outlined about as well, {right} of 10 "
        f"detections were right (on half of the sets {least_right} to {most_right}), and {found_of} of 10 objects were "
        f"found ({least_found} to {most_found})."
    )


def look_alikes(evidence: Evidence, places: Sequence[LookAlike]) -> str | None:
    """Return a sentence that asks for negative examples where the examples cannot be told from other places.

    Parameters
    ----------
    evidence, places
        From :func:`evidence_of`. The places that are named have scores from the highest to the lowest.

    Returns
    -------
    str or None
        None where the examples are found again, or not much else is.
    """
    examples, found, beside, elsewhere = evidence
    is_unsure = found < _FOUND * examples or beside > _BESIDE * found
    if not is_unsure or elsewhere < _ELSEWHERE * examples:
        return None
    chosen = [places[i] for i in dict.fromkeys(np.linspace(0, len(places) - 1, _NAMED).round().astype(int))]
    return (
        f"The examples can hardly be told from {elsewhere} other places on the same images, for instance "
        f"{'; '.join(f'{place.frame}, x {place.x}, y {place.y}' for place in chosen)}. Look at these, and mark some of "
        "those that are not wanted as negative examples, and of those that are as further examples."
    )


def _about(mask: InstanceMask, marked: Sequence[InstanceMask]) -> tuple[int, float]:
    """Return which marked object a mask is about, -1 for none, and the IoU with it."""
    about = [
        (mask_iou(mask, other), number)
        for number, other in enumerate(marked)
        if shared_area(mask, other) > _NOTICEABLE * min(mask.area, other.area)
    ]
    iou, number = max(about, default=(0.0, -1))
    return number, iou
