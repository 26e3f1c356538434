"""A segmenter that finds bright things with the real blocks around it, and someone who listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scale_scenes import BrightSegmenter, Heard

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam2_fewshot.backbones.sam2.network import Sam2Model


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def bright(micro: Sam2Model, heard: Heard) -> Callable[[int], BrightSegmenter]:
    return lambda pixels: BrightSegmenter(micro, pixels, heard)
