"""The mean of the examples' feature vectors, and how much others are like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, slots=True)
class Prototype:
    """Feature vectors of examples.

    Parameters
    ----------
    vectors
        float32 (n, C), mask-weighted mean features of the examples, n ≥ 1.
    negatives
        float32 (m, C), those of objects of the kind that is not wanted; m may be 0.
    """

    vectors: NDArray[np.float32]
    negatives: NDArray[np.float32]

    @property
    def direction(self) -> NDArray[np.float32]:
        """The examples' mean feature vector, (C,), of length 1."""
        return _mean_direction(self.vectors)

    def similarity(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine similarity (n,), in [-1, 1], of feature vectors (n, C) to the prototype."""
        cosine: NDArray[np.float32] = np.clip(_unit(vectors) @ self.direction, -1, 1)
        return cosine

    def nearer_to_negatives(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which of the feature vectors (n, C) are more similar to the mean negative than to the prototype."""
        if not len(self.negatives):
            return np.zeros(len(vectors), bool)
        nearer: NDArray[np.bool_] = _unit(vectors) @ _mean_direction(self.negatives) > _unit(vectors) @ self.direction
        return nearer


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit


def _mean_direction(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = vectors.mean(axis=0)
    return _unit(mean)
