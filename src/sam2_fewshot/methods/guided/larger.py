"""Objects larger than the examples, searched for at half the magnification.

People also mark what is small, bright and alone, and other frames may show the same objects larger. The examples set
the largest size that is looked for, and of what is larger only parts are proposed. So the same learned model is applied
to the frame at half its size, where larger objects look as the examples do, and what is found in both is put together
by score. Half as wide and high has a quarter of the tiles, so all of the frame is searched.

At half the magnification several objects close together, or ground between them, may look like one; but what holds a
surer detection is left out, as at any magnification.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam2_fewshot.methods.guided.scaling import TIMES, Found, enlarged_mask, reduced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import Stopwatch
    from sam2_fewshot.methods.guided.model import GuidedModel
    from sam2_fewshot.protocols import Backbone, Embedding, Progress


class Larger(NamedTuple):
    """What is looked for at half the magnification.

    Parameters
    ----------
    least, most
        Smallest and largest area in pixels of a frame. Where the first is not below the second, nothing is.
    """

    least: float
    most: float


NOTHING_LARGER = Larger(0.0, 0.0)


def at_half(larger: Larger) -> tuple[float, float]:
    """Return the smallest and the largest area in pixels of a frame at half its size."""
    return larger.least / TIMES**2, larger.most / TIMES**2


class AtHalf(NamedTuple):
    """What was found in a frame at half the magnification.

    Parameters
    ----------
    found
        In the frame.
    embeddings
        Of the tiles that were encoded, by their numbers. They are those of tiles twice as wide as the frame's own, and
        give masks in pixels of the frame.
    """

    found: Found
    embeddings: Mapping[int, Embedding]


NOTHING_AT_HALF = AtHalf(Found([], np.zeros(0), np.zeros((0, 0))), {})


def search_at_half(
    learned: GuidedModel, backbone: Backbone, pixels: NDArray[np.uint8], progress: Progress, watch: Stopwatch
) -> AtHalf:
    """Search a frame at half the magnification for larger objects.

    Parameters
    ----------
    learned, backbone, progress, watch
        As in :meth:`~sam2_fewshot.methods.guided.model.GuidedModel.find`.
    pixels
        uint8 RGB (H, W, 3), the frame.
    """
    if learned.larger.least >= learned.larger.most:
        return NOTHING_AT_HALF
    small = reduced(pixels)
    if np.ptp(small, axis=(0, 1)).max() == 0:
        return NOTHING_AT_HALF
    here = replace(learned, areas=at_half(learned.larger))
    found = here.candidates(backbone, small, progress, watch, share=1 / TIMES**2)
    shape = (pixels.shape[0], pixels.shape[1])
    masks = [enlarged_mask(mask, shape) for mask in found.refined.masks]
    wide = (TIMES * learned.side,) * 2
    embeddings = {number: embedding.resized(wide) for number, embedding in found.frame.embeddings.items()}
    return AtHalf(Found(masks, found.odds, found.refined.features), embeddings)
