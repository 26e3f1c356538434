"""A segmenter that finds bright things with the real blocks around it, and someone who listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scale_scenes import Heard, bright_segmenter

if TYPE_CHECKING:
    from collections.abc import Callable

    from bright import BrightSegmenter


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def bright(heard: Heard) -> Callable[..., BrightSegmenter]:
    return lambda pixels, **changes: bright_segmenter(pixels, heard, **changes)
