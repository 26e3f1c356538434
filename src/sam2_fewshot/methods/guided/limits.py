"""The user's limits on the area of a detection.

They are those of the run that searches: a model that was learned under other limits holds what follows from the
examples alone. A limit that would exclude an example is not meant for objects like the examples, and is ignored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2_fewshot.methods.guided.model import GuidedModel
    from sam2_fewshot.protocols import Progress


def limited(learned: GuidedModel, limits: tuple[int, int]) -> GuidedModel:
    """Return a model that looks for what lies within the limits.

    Parameters
    ----------
    learned
        The model, with the areas and what is larger as the examples alone have it.
    limits
        The smallest and largest area in pixels; a largest of 0 is no limit.
    """
    (least, most), (smallest, largest), larger = learned.areas, learned.examples, learned.larger
    low, high = limits
    if smallest >= low:
        least = max(least, low)
    if high and largest <= high:
        most = min(most, high)
        larger = larger._replace(most=min(larger.most, high))
    return replace(learned, areas=(least, most), larger=larger)


def warn_of_limits(examples: tuple[float, float], limits: tuple[int, int], progress: Progress) -> None:
    """Say which of the limits are ignored.

    Parameters
    ----------
    examples
        Areas of the smallest and of the largest example in pixels.
    limits
        As for :func:`limited`.
    progress
        Is warned.
    """
    (smallest, largest), (low, high) = examples, limits
    if smallest < low:
        progress.warn(
            f"Min Mask Area is {low} px, but the smallest example has {smallest:.0f} px; objects below the limit are "
            "looked for as well."
        )
    if high and largest > high:
        progress.warn(
            f"Max Mask Area is {high} px, but the largest example has {largest:.0f} px; objects above the limit are "
            "looked for as well."
        )
