"""What sizes and shapes the examples have, and how far other masks are from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import ConvexHull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import InstanceMask

_TOLERATED = 2.0
"""Standard deviations from the examples' mean within which nothing happens (the seed document's figure)."""
_LEAST_SPREAD = (0.15, 0.1, 0.03)
"""Standard deviations of log-area, log aspect ratio and solidity that even examples of one size leave open."""


@dataclass(frozen=True, eq=False, slots=True)
class ShapePrior:
    """Mean and spread of the examples' shapes.

    Parameters
    ----------
    mean, spread
        float64 (3,): of the logarithm of the area in pixels, of the logarithm of the aspect ratio, and of the solidity.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    def excess(self, masks: Sequence[InstanceMask]) -> NDArray[np.float64]:
        """Return by how many standard deviations (n,) each mask's worst measure lies beyond what is tolerated; ≥ 0."""
        beyond = np.abs((_shapes(masks) - self.mean) / self.spread) - _TOLERATED
        excess: NDArray[np.float64] = np.maximum(beyond.max(axis=1, initial=0.0), 0.0)
        return excess

    def weights(self, masks: Sequence[InstanceMask]) -> NDArray[np.float64]:
        """Return a factor (n,) in (0, 1] for each mask's score: 1 within the tolerance, a Gaussian beyond."""
        weights: NDArray[np.float64] = np.exp(-0.5 * self.excess(masks) ** 2)
        return weights


def learn_shapes(masks: Sequence[InstanceMask]) -> ShapePrior:
    """Return the prior of examples, at least one; the fewer there are, the wider it is.

    The spread of n examples is that of a Student distribution's prediction, ``s · sqrt(1 + 1/n)``, and never less than
    what outlines drawn by hand differ by.
    """
    shapes = _shapes(masks)
    count = len(shapes)
    spread = shapes.std(axis=0, ddof=1) if count > 1 else np.full(3, 0.5)
    return ShapePrior(shapes.mean(axis=0), np.maximum(spread * np.sqrt(1 + 1 / count), _LEAST_SPREAD))


def _shapes(masks: Sequence[InstanceMask]) -> NDArray[np.float64]:
    return np.array([_shape(mask) for mask in masks], np.float64).reshape(-1, 3)


def _shape(mask: InstanceMask) -> tuple[float, float, float]:
    rows, columns = np.nonzero(mask.data)
    # 1/12 is the variance of a pixel's own square.
    spread = np.cov(np.stack([rows, columns]), bias=True) + np.eye(2) / 12
    minor, major = np.linalg.eigvalsh(spread)
    return float(np.log(mask.area)), float(np.log(major / minor) / 2), mask.area / _hull_area(rows, columns)


def _hull_area(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> float:
    """Return the area of the convex hull of pixels, as squares."""
    corners = np.concatenate([np.stack([rows + dy, columns + dx], axis=1) for dy in (0, 1) for dx in (0, 1)])
    return float(ConvexHull(corners).volume)  # in two dimensions the "volume" is the area
