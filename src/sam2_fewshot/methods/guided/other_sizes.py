"""Whether objects smaller or larger than the examples are looked for, and how sure they have to be.

The examples set the magnification and the sizes that are looked for, and what they are chosen for differs: people mark
what is large, or small and alone, and other frames may have been taken at another magnification. So frames are searched
at twice and at half the magnification as well (:mod:`~sam2_fewshot.methods.guided.magnifications`), unless size is part
of what tells the objects from others: how sure the classifier is of an example that is twice as large as it was learned
tells how little it goes by size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.overlap import grown, shared_area
from sam2_fewshot.methods.base import Stopwatch
from sam2_fewshot.methods.guided.classifier import AWAY, RIGHT
from sam2_fewshot.methods.guided.descriptors import LOG_AREA
from sam2_fewshot.methods.guided.kinds import is_by_size
from sam2_fewshot.methods.guided.limits import for_candidates, limited
from sam2_fewshot.methods.guided.magnifications import PIECE, at_half, leaves_room
from sam2_fewshot.methods.guided.scaling import TIMES, enlarged, enlarged_mask, reduced_mask
from sam2_fewshot.settings import SIMILAR_AREAS
from sam2_fewshot.tiling.overview import is_flat, reduced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import TrainingFrame
    from sam2_fewshot.methods.guided.classifier import ThresholdRange, TrainingTable
    from sam2_fewshot.methods.guided.model import GuidedModel
    from sam2_fewshot.protocols import Backbone, Progress
    from sam2_fewshot.records import Box, InstanceMask

_LARGER, _FEWEST = 0.75, 6
"""Share of pairs of an example and one of so many other candidates at least in which the example is the larger one
(the area under the ROC curve), from which on the examples were chosen for their size. With ten examples at random it is
.36 to .72 on most of twenty tasks, with the ten largest .61 to .91."""
_OF_THE_LARGEST = -1.0
"""Log-odds above which the threshold does not lie if the examples were chosen for their size. On nineteen tasks with
the ten largest as examples the mean F1 at the default threshold rises from .480 to .521 by it (.501 with -.5), and with
examples at random it stays the same; at the usual magnification alone."""
_WORTH = {True: 0.1, False: 1.0}
"""A tile is searched again where so many places for each detection in it look like small objects: fewer if the examples
were chosen for their size. Otherwise small ones are among the examples already, and searching for smaller ones still
finds nothing: with .5, frames of pebbles took twice as long. But a field of objects of half the diameter is
searched."""
_ABOUT = 0.5
"""Share of a mask that lies on an example from which on it is about the example, or a part of it."""
_MOST = {True: 5, False: 3}
"""So many examples of each kind are looked at to calibrate the scores; each takes a tile or a few. The fewer serve
where the largest of the log-odds is asked for, not the median."""
_REFUSED = -1.0
"""Log-odds, a chance of about 1 in 4, below which an example is refused for its size. In scenes where objects differ by
their size only the median is -2 to -3.3; in eleven tasks on real images it is -.5 to 1.4."""


def for_other_sizes(
    learned: GuidedModel,
    backbone: Backbone,
    frames: Sequence[TrainingFrame],
    table: TrainingTable,
    between: ThresholdRange,
    area_limits: tuple[int, int],
    progress: Progress,
) -> GuidedModel:
    """Return the model with what it looks for at other magnifications.

    Where other kinds are divided from the wanted objects by their size, or an example that is seen twice as large as it
    was learned would be refused, size is part of what tells the objects from others, and nothing is looked for.
    Otherwise what is found at twice the magnification has to be surer than the examples seen so: than the median one
    where they were chosen for their size and smaller ones are to be expected, otherwise than any; and surer than any of
    the unwanted ones, which are often unwanted because they are small. Nothing larger is looked for where an unwanted
    object that is larger would be found. Where the examples were chosen for their size, the threshold is lower as well.

    Parameters
    ----------
    learned
        With its classifiers and threshold.
    backbone
        The one that it was learned with.
    frames
        With what the user marked.
    table, between
        What the second classifier was learned from, and its threshold's range.
    area_limits
        The user's smallest and largest area in pixels; a largest of 0 is no limit.
    progress
        Reports each tile done.
    """
    if is_by_size(learned.kinds):
        return learned
    is_sized = are_the_largest(table, between.unseen, between.low - 1)
    wanted = _some([(f, mask) for f in frames for mask in f.marked], _MOST[is_sized])
    unwanted = [(f, mask) for f in frames for mask in f.negatives]
    odds = _odds_at_twice(learned, backbone, wanted, progress)
    if not odds or np.median(odds) < _REFUSED:
        return learned
    threshold, needed = learned.threshold, float(np.median(odds)) if is_sized else max(odds)
    if is_sized and leaves_room(learned, for_candidates(learned, area_limits)[0]):
        threshold = min(threshold, _OF_THE_LARGEST)
    # Smaller ones are learned about whatever the limit is: that of a later search may be another.
    against = _odds_at_twice(learned, backbone, _some(unwanted, _MOST[is_sized]), progress)
    # The log-odds above were those above the former threshold.
    margin = max(0.0, max([needed, *against]) + learned.threshold - threshold)
    result = replace(learned, threshold=threshold, margin=margin, worth=_WORTH[is_sized])
    larger = what_is_larger(max(mask.area for f in frames for mask in f.marked), is_sized=is_sized)
    with_larger = replace(result, larger=larger)
    against = _odds_at_half(result, backbone, limited(with_larger, area_limits).larger, unwanted, progress)
    return result if max(against, default=-1.0) >= 0 else with_larger


def what_is_larger(largest: int, *, is_sized: bool) -> tuple[float, float]:
    """Return the areas of what is larger than the examples, the largest of which has so many pixels.

    Where the examples are the largest objects of their frames, what is a little larger is rather several that touch;
    but other frames may show all of them larger.
    """
    return largest * (SIMILAR_AREAS[1] if is_sized else 1.0), TIMES**2 * SIMILAR_AREAS[1] * largest


def are_the_largest(table: TrainingTable, unseen: NDArray[np.float64], low: float) -> bool:
    """Tell whether the examples are larger than nearly all else that looks like them on their frames.

    Then they were chosen for it, and their scores are those of the best objects, not of the typical ones.

    Parameters
    ----------
    table
        Candidates on the examples' frames.
    unseen
        float64 (N,), log-odds of its rows by classifiers that have not seen the example that a row is about.
    low
        Log-odds from which on a candidate may be an object.
    """
    areas = table.features[:, LOG_AREA]
    elsewhere = areas[(table.label == AWAY) & table.proposed & (unseen > low)]
    right = table.label == RIGHT
    examples = [float(np.median(areas[right & (table.owner == i)])) for i in np.unique(table.owner[right])]
    if len(elsewhere) < _FEWEST or not examples:
        return False
    return float(np.mean(np.array(examples)[:, None] > elsewhere)) > _LARGER


def _some(marks: list[tuple[TrainingFrame, InstanceMask]], most: int) -> list[tuple[TrainingFrame, InstanceMask]]:
    return [marks[i] for i in dict.fromkeys(np.linspace(0, len(marks) - 1, most).round().astype(int))] if marks else []


def window_around(mask: InstanceMask, diameter: float, most: int) -> Box | None:
    """Return a window of a mask's frame around it, None where the mask alone is too large to be seen enlarged.

    Parameters
    ----------
    mask
        The mask.
    diameter
        Typical diameter of an object in pixels: the margin, or a quarter of it where the window would be too large.
    most
        Pixels of the enlarged window at most, if these are not few.
    """
    for margin in (round(diameter), round(diameter / 4)):
        x0, y0, x1, y1 = window = grown(mask.box, margin, mask.frame_shape)
        if TIMES**2 * (x1 - x0) * (y1 - y0) <= max(PIECE, most):
            return window
    return None


def _odds_at_twice(
    learned: GuidedModel, backbone: Backbone, marks: Sequence[tuple[TrainingFrame, InstanceMask]], progress: Progress
) -> list[float]:
    """Return how sure the model is of marks at twice the magnification, without those that are too large for it."""
    odds = []
    for frame, mask in marks:
        window = window_around(mask, learned.diameter, frame.shape[0] * frame.shape[1])
        part = mask.within(window) if window else None
        if window and part:
            x0, y0, x1, y1 = window
            large = enlarged_mask(part, ((y1 - y0) * TIMES, (x1 - x0) * TIMES))
            pixels = enlarged(frame.pixels[y0:y1, x0:x1])
            odds.append(_odds_about(learned, backbone, pixels, large, 1 / len(marks), progress))
    return odds


def _odds_at_half(
    learned: GuidedModel,
    backbone: Backbone,
    larger: tuple[float, float],
    marks: Sequence[tuple[TrainingFrame, InstanceMask]],
    progress: Progress,
) -> list[float]:
    """Return how sure the model is of some marks at half the magnification, of those as large as what is looked for."""
    odds = []
    least, most = larger
    here = at_half(replace(learned, larger=larger))
    large = _some([(frame, mask) for frame, mask in marks if least <= mask.area <= most], _MOST[False])
    for frame, mask in large:
        window = grown(mask.box, round(TIMES * learned.diameter), mask.frame_shape)
        part = mask.within(window)
        small = reduced_mask(part) if part else None
        if small:
            x0, y0, x1, y1 = window
            pixels = reduced(frame.pixels[y0:y1, x0:x1], TIMES)
            odds.append(_odds_about(here, backbone, pixels, small, 1 / len(large), progress))
    return odds


def _odds_about(
    learned: GuidedModel,
    backbone: Backbone,
    pixels: NDArray[np.uint8],
    mark: InstanceMask,
    share: float,
    progress: Progress,
) -> float:
    """Return the highest log-odds of a candidate about a mark in a picture, −inf where there is none."""
    if is_flat(pixels):
        return -np.inf
    found = learned.candidates(backbone, pixels, progress, Stopwatch(), about=[mark], share=share).likely
    odds = [
        value
        for candidate, value in zip(found.masks, found.odds, strict=True)
        if shared_area(candidate, mark) > _ABOUT * candidate.area
    ]
    return float(max(odds, default=-np.inf))
