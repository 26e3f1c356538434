"""How much feature vectors are like those of the examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scorer = Literal["mean", "nearest", "knn", "lda"]
"""mean: cosine to the examples' mean. nearest: cosine to the nearest example. knn: mean cosine to the nearest
examples. lda: cosine to the mean after whitening."""

_NEIGHBOURS = 3
_SHRINKAGE = 0.5
"""Weight of a round covariance in the whitening; there are fewer vectors than features (Ledoit & Wolf 2004 give the
principle)."""


@dataclass(frozen=True, eq=False, slots=True)
class Prototype:
    """Feature vectors of examples.

    Parameters
    ----------
    vectors
        float32 (n, C), mask-weighted mean features of the examples, n ≥ 1.
    negatives
        float32 (m, C), those of objects of the kind that is not wanted; m may be 0.
    scorer
        How vectors are compared.
    """

    vectors: NDArray[np.float32]
    negatives: NDArray[np.float32]
    scorer: Scorer = "mean"

    @property
    def direction(self) -> NDArray[np.float32]:
        """The examples' mean feature vector, (C,), of length 1."""
        return _mean_direction(self.vectors)

    def cosine(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine (n,), in [-1, 1], of feature vectors (n, C) to the examples' mean."""
        cosine: NDArray[np.float32] = np.clip(unit(vectors) @ self.direction, -1, 1)
        return cosine

    def similarity(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the similarity (n,), in [-1, 1], of all candidates (n, C) of a frame by the scorer.

        ``lda`` takes the mean and the spread of ordinary things from the candidates themselves, as the linear
        discriminant of one class against the rest does (Hariharan, Malik, Ramanan 2012: "Discriminative decorrelation
        for clustering and classification").
        """
        if self.scorer == "mean" or not len(vectors):
            return self.cosine(vectors)
        if self.scorer == "lda":
            whiten = _Whitening(vectors)
            return Prototype(whiten(self.vectors), self.negatives[:0]).cosine(whiten(vectors))
        nearest = -np.sort(-(unit(vectors) @ unit(self.vectors).T), axis=1)
        count = 1 if self.scorer == "nearest" else _NEIGHBOURS
        similarity: NDArray[np.float32] = np.clip(nearest[:, :count].mean(axis=1), -1, 1)
        return similarity

    def left_out(self) -> NDArray[np.float32]:
        """Return the similarity (n,) of each example to the others; of a single one, that to itself.

        For ``lda``, whose similarities depend on a frame's candidates, it is that of ``mean``.
        """
        count = len(self.vectors)
        if count == 1:
            return np.ones(1, np.float32)
        scorer: Scorer = "mean" if self.scorer == "lda" else self.scorer
        others = [np.delete(self.vectors, i, axis=0) for i in range(count)]
        values = [
            Prototype(rest, self.negatives, scorer).similarity(self.vectors[i : i + 1])[0]
            for i, rest in enumerate(others)
        ]
        return np.array(values, np.float32)

    def nearer_to_negatives(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which of the feature vectors (n, C) are more similar to the mean negative than to the prototype."""
        if not len(self.negatives):
            return np.zeros(len(vectors), bool)
        nearer: NDArray[np.bool_] = unit(vectors) @ _mean_direction(self.negatives) > unit(vectors) @ self.direction
        return nearer


class _Whitening:
    """A map of vectors (n, C) that gives those it was made from a mean of 0 and about the same spread everywhere."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._mean = vectors.mean(axis=0)
        centred = (vectors - self._mean).astype(np.float64)
        covariance = centred.T @ centred / len(vectors)
        size = len(covariance)
        round_ = max(float(np.trace(covariance)) / size, 1e-9) * np.eye(size)
        values, axes = np.linalg.eigh((1 - _SHRINKAGE) * covariance + _SHRINKAGE * round_)
        self._scale = (axes / np.sqrt(values)) @ axes.T

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        whitened: NDArray[np.float32] = ((vectors - self._mean) @ self._scale).astype(np.float32)
        return whitened


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (..., C) scaled to a length of 1; those of length 0 stay."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return scaled


def _mean_direction(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = vectors.mean(axis=0)
    return unit(mean)
