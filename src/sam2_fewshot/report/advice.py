"""The report's summary: how many detections, on which frames, how certain, and what to change next."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.errors import counted, listed
from sam2_fewshot.records import Counts
from sam2_fewshot.report.looks import Looks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_FEW_EXAMPLES = 5
_MANY_DOUBTFUL = 0.2
_MARGIN, _LEAST_MARGIN = 0.1, 0.001
"""Scores are doubtful within this share of their span from the threshold, or within the smallest step of the slider."""
_POOR = 0.25
"""A frame with less than this share of the median frame's objects is named."""
_SIDES = (("area", "larger", "smaller"), ("brightness", "brighter", "darker"), ("roundness", "rounder", "less round"))
_MARK = {"smaller": "small", "darker": "dark", "less round": "less round"}
_ENOUGH_BELOW, _ENOUGH_SHARE = 5, 0.25
"""Examples are compared with so many candidates below the threshold at least, and only where these are this share of
what was found on the same frames."""
_MOST = 0.5


@dataclass(frozen=True)
class FrameFigures:
    """The figures of a frame.

    Parameters
    ----------
    name
        What to call it.
    scores
        Of the detections, at least the threshold.
    below
        Scores of the candidates below the threshold.
    threshold
        The score that a detection on it needs.
    areas
        Of the detections, in pixels.
    examples, negatives
        Numbers of examples on it.
    counts
        Numbers of the objects in the results.
    candidates
        How many masks were proposed on it.
    flat
        Whether it is the same everywhere.
    example_looks, below_looks
        Of the wanted examples that have an outline, and of the candidates below the threshold.
    """

    name: str
    scores: NDArray[np.float64]
    below: NDArray[np.float64]
    threshold: float
    areas: NDArray[np.int64]
    examples: int
    negatives: int
    counts: Counts = field(default_factory=Counts)
    candidates: int = 0
    flat: bool = False
    example_looks: Looks = field(default_factory=Looks)
    below_looks: Looks = field(default_factory=Looks)


@dataclass(frozen=True)
class Overview:
    """The summary.

    Parameters
    ----------
    found, frames
        How many detections on how many frames.
    clear, doubtful, missed
        Detections far above the threshold, detections close to it, and candidates closely below it.
    margin
        What is close: a tenth of the range of all scores.
    median_score, median_area
        Of the detections; NaN when there are none.
    examples, negatives
        How many were marked.
    counts
        Numbers of the objects in the results.
    advice
        Sentences on what to change next.
    """

    found: int
    frames: int
    clear: int
    doubtful: int
    missed: int
    margin: float
    median_score: float
    median_area: float
    examples: int
    negatives: int
    counts: Counts = field(default_factory=Counts)
    advice: list[str] = field(default_factory=list)


def overview(frames: Sequence[FrameFigures], asked: int = 0) -> Overview:
    """Return the summary of some frames.

    Parameters
    ----------
    frames
        Their figures.
    asked
        How many places to mark next the gallery begins with; 0 where it lists none.
    """
    scores = np.concatenate([np.zeros(0), *(frame.scores for frame in frames)])
    below = np.concatenate([np.zeros(0), *(frame.below for frame in frames)])
    areas = np.concatenate([np.zeros(0, np.int64), *(frame.areas for frame in frames)])
    everything = np.concatenate([scores, below])
    margin = max(_MARGIN * float(np.ptp(everything)), _LEAST_MARGIN) if everything.size else 0.0
    doubtful = sum(int(np.count_nonzero(frame.scores < frame.threshold + margin)) for frame in frames)
    summary = Overview(
        found=scores.size,
        frames=len(frames),
        clear=scores.size - doubtful,
        doubtful=doubtful,
        missed=sum(int(np.count_nonzero(frame.below >= frame.threshold - margin)) for frame in frames),
        margin=margin,
        median_score=float(np.median(scores)) if scores.size else float("nan"),
        median_area=float(np.median(areas)) if areas.size else float("nan"),
        examples=sum(frame.examples for frame in frames),
        negatives=sum(frame.negatives for frame in frames),
        counts=sum((frame.counts for frame in frames), Counts()),
    )
    summary.advice.extend(_advice(summary, frames, below, asked))
    return summary


def _advice(summary: Overview, frames: Sequence[FrameFigures], below: NDArray[np.float64], asked: int) -> list[str]:
    if not summary.found:
        if not below.size and not any(frame.candidates for frame in frames):
            return [
                "Nothing that resembles the examples was proposed. Check on the frames that the examples lie where "
                "they should, and try a smaller Min Mask Area."
            ]
        threshold = min(frame.threshold for frame in frames)
        helps = what_helps(
            f"The best candidate has {below.max(initial=0):.2f}: move the slider down until the right objects appear, "
            "and use the command beside it.",
            is_below=below.size > 0,
        )
        return [f"Nothing reached the threshold of {threshold:g}. {helps}", *one_sided(frames)]
    sentences = one_sided(frames)
    if 0 < summary.examples < _FEW_EXAMPLES:
        sentences.append(
            f"Only {counted(summary.examples, 'example')} on these frames: mark 5 to 20, unlike one another, or "
            "confirm detections in the gallery as right."
        )
    if summary.doubtful > _MANY_DOUBTFUL * summary.found or summary.missed > _MANY_DOUBTFUL * summary.found:
        sentences.append(
            f"{counted(summary.doubtful, 'detection')} just above the threshold and "
            f"{counted(summary.missed, 'candidate')} just below it are doubtful. "
            f"Mark {_listed(asked) if asked else 'ten of them in the gallery'}, export, and refine."
        )
    sentences += _poor_frames(frames)
    if not sentences:
        sentences.append(
            "Most detections are far above the threshold. See "
            + (
                f"{_listed(asked)}: if only those below the threshold are wrong, nothing has to be changed."
                if asked
                else "the doubtful ones in the gallery; if they are right, nothing has to be changed."
            )
        )
    return sentences


def what_helps(lower: str, *, is_below: bool) -> str:
    """Return what to do where little was found, in the report and on the terminal.

    Parameters
    ----------
    lower
        The sentence that says to lower the threshold.
    is_below
        Whether there is anything below the threshold; a lower one finds nothing otherwise.
    """
    if is_below:
        return lower
    return (
        "Nothing there lies below the threshold, so a lower one finds no more: if there are objects, mark some of them "
        "as further examples."
    )


def one_sided(frames: Sequence[FrameFigures]) -> list[str]:
    """Say in what the examples differ from most of what was nearly found on their frames, if in anything.

    The method looks for what is like the examples, so of objects that are all smaller, darker or less round than every
    example it finds few.
    """
    frames = [frame for frame in frames if frame.example_looks.area.size]
    if sum(frame.below.size for frame in frames) < _ENOUGH_SHARE * sum(frame.scores.size for frame in frames):
        return []
    sentences = []
    for name, more, less in _SIDES:
        examples, below = (
            np.concatenate([np.zeros(0), *(getattr(looks, name) for looks in side)])
            for side in ([frame.example_looks for frame in frames], [frame.below_looks for frame in frames])
        )
        examples, below = examples[np.isfinite(examples)], below[np.isfinite(below)]
        if not examples.size or below.size < _ENOUGH_BELOW:
            continue
        beyond = float(np.mean(below < examples.min()))
        if beyond > _MOST:
            # A share, since of many candidates some are compared, and brightness not of those too small to be seen.
            sentences.append(
                f"Your examples are {more} than much of what is here: {math.floor(100 * beyond)} % of the candidates "
                f"below the threshold that were compared, on the frames with examples, are {less} than every example. "
                f"Mark some {_MARK[less]} ones."
            )
    return sentences


def _poor_frames(frames: Sequence[FrameFigures]) -> list[str]:
    count = len(frames)
    frames = [frame for frame in frames if not frame.flat]
    if len(frames) < 2:
        return []
    empty = [frame for frame in frames if not frame.scores.size]
    typical = float(np.median([frame.scores.size for frame in frames]))
    poor = empty or [frame for frame in frames if frame.scores.size < _POOR * typical]
    if not poor or len(poor) == len(frames):
        return []
    names = listed([frame.name for frame in poor], 3)
    what = "Nothing was" if empty else "Far fewer objects than elsewhere were"
    of = f"{len(frames)} frames" if len(frames) == count else f"the {len(frames)} frames that show anything"
    helps = what_helps(
        "If there are objects, their appearance differs: lower the threshold to see them, and confirm some as right.",
        is_below=any(frame.below.size for frame in poor),
    )
    return [f"{what} found on {len(poor)} of {of} ({names}). {helps}"]


def _listed(asked: int) -> str:
    return f"the {counted(asked, 'place')} that the gallery begins with"
