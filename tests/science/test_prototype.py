from __future__ import annotations

import numpy as np
import pytest

from sam2_fewshot.methods.grid import Prototype

VECTORS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32) + 2


def test_the_prototype_is_the_mean_of_length_one() -> None:
    direction = Prototype(VECTORS, VECTORS[:0]).direction
    mean = VECTORS.mean(axis=0)
    assert np.allclose(direction, mean / np.linalg.norm(mean))
    assert np.linalg.norm(direction) == pytest.approx(1)


def test_similarity_is_the_cosine() -> None:
    prototype = Prototype(VECTORS, VECTORS[:0])
    others = np.array([prototype.direction * 7, -prototype.direction, np.zeros(8)], np.float32)
    assert prototype.similarity(others) == pytest.approx([1, -1, 0], abs=1e-6)
    assert prototype.similarity(others[:0]).shape == (0,)


def test_negatives_take_what_is_nearer_to_them() -> None:
    prototype = Prototype(VECTORS, -VECTORS[:2])
    others = np.stack([VECTORS[0], -VECTORS[0]])
    assert prototype.nearer_to_negatives(others).tolist() == [False, True]
    assert Prototype(VECTORS, VECTORS[:0]).nearer_to_negatives(others).tolist() == [False, False]
