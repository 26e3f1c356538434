"""The user's limits on the area of a detection.

They are those of the run that searches: a model that was learned under other limits holds areas that follow from the
examples alone. But what it learned from lay within the limits of the run that learned: what the user leaves out is to
move neither the classifiers nor the threshold, which is chosen by what is found beside the examples. A limit that would
exclude an example is not meant for objects like the examples, and is ignored.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from sam2_fewshot.methods.guided.erosion import LEAST_AREA

if TYPE_CHECKING:
    from sam2_fewshot.methods.guided.model import GuidedModel
    from sam2_fewshot.protocols import Progress


def in_force(examples: tuple[float, float], limits: tuple[int, int]) -> tuple[int, int]:
    """Return the limits without those that would exclude an example.

    Parameters
    ----------
    examples
        Areas of the smallest and of the largest example in pixels.
    limits
        The user's smallest and largest area in pixels; a smallest or largest of 0 is no limit.
    """
    (smallest, largest), (low, high) = examples, limits
    return low if low <= smallest else 0, high if high >= largest else 0


def for_candidates(learned: GuidedModel, limits: tuple[int, int]) -> tuple[int, int]:
    """Return the limits in force for candidates: where marks were eroded, limits that nearly all cores of objects keep.

    Parameters
    ----------
    learned
        What looks for them.
    limits
        As for :func:`in_force`.
    """
    low, high = in_force(learned.examples, limits)
    return math.floor(LEAST_AREA * low) if learned.erosion else low, high


def limited(learned: GuidedModel, limits: tuple[int, int]) -> GuidedModel:
    """Return a model that looks for what lies within the limits.

    Parameters
    ----------
    learned
        The model, with the areas and what is larger as the examples alone have it.
    limits
        As for :func:`in_force`.
    """
    (least, most), (least_larger, most_larger) = learned.areas, learned.larger
    low, high = in_force(learned.examples, limits)
    of_whole = (float(low), float(high or math.inf))
    if high:
        most, most_larger = min(most, high), min(most_larger, high)
    areas = max(least, for_candidates(learned, limits)[0]), most
    return replace(learned, areas=areas, larger=(least_larger, most_larger), limits=of_whole)


def warn_of_limits(examples: tuple[float, float], limits: tuple[int, int], progress: Progress) -> None:
    """Say which of the limits are ignored.

    Parameters
    ----------
    examples, limits
        As for :func:`in_force`.
    progress
        Is warned.
    """
    (smallest, largest), (low, high) = examples, in_force(examples, limits)
    if low != limits[0]:
        progress.warn(
            f"Min Mask Area is {limits[0]} px, but the smallest example has {smallest:.0f} px; objects below the limit "
            "are looked for as well."
        )
    if high != limits[1]:
        progress.warn(
            f"Max Mask Area is {limits[1]} px, but the largest example has {largest:.0f} px; objects above the limit "
            "are looked for as well."
        )
