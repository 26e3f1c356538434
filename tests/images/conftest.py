"""Small images and examples, written afresh for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot.images.image_set import ImageSet, open_images
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from told import Told


@pytest.fixture
def ramp() -> np.ndarray:
    """A 20 × 30 plane in which no two neighbours are the same."""
    return (np.arange(600).reshape(20, 30) % 251).astype(np.uint8)


@pytest.fixture
def write(put: Callable[..., Path]) -> Callable[..., Path]:
    """Write an array as PNG, bytes as they are, or anything else as JSON, under a name."""
    return put


@pytest.fixture
def open_with(told: Told) -> Callable[..., ImageSet]:
    """Open image files, with warnings recorded."""

    def open_with(*paths: Path, **settings: float) -> ImageSet:
        return open_images(paths, Settings(**settings), progress=told)

    return open_with


@pytest.fixture
def image(write: Callable[..., Path], open_with: Callable[..., ImageSet], ramp: np.ndarray) -> ImageSet:
    """One image called cells.png, 30 wide and 20 high."""
    return open_with(write("cells.png", ramp))
