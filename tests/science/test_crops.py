from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_fewshot.methods.grid import context_window
from sam2_fewshot.records import InstanceMask


def rectangle(width: int, height: int, x0: int = 50, y0: int = 40) -> InstanceMask:
    return InstanceMask(np.ones((height, width), bool), x0, y0, (200, 300))


@pytest.mark.parametrize("occupancy", [0.05, 0.2, 0.8])
def test_an_object_fills_its_share(occupancy: float) -> None:
    x0, y0, x1, y1 = context_window(rectangle(30, 30), occupancy, 1)
    assert x1 - x0 == y1 - y0
    assert 900 / (x1 - x0) ** 2 == pytest.approx(occupancy, rel=0.07)


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 9),
    st.integers(0, 9),
    st.floats(0.05, 0.8),
    st.integers(1, 99),
)
def test_the_whole_object_is_inside_and_central(
    width: int, height: int, x: int, y: int, occupancy: float, smallest: int
) -> None:
    mask = rectangle(width, height, x, y)
    x0, y0, x1, y1 = context_window(mask, occupancy, smallest)
    left, top, right, bottom = mask.box
    assert x1 - x0 == y1 - y0 >= smallest
    assert x0 <= left
    assert y0 <= top
    assert x1 >= right
    assert y1 >= bottom
    assert abs((left - x0) - (x1 - right)) <= 1
    assert abs((top - y0) - (y1 - bottom)) <= 1


def test_a_tiny_object_keeps_surroundings() -> None:
    x0, _, x1, _ = context_window(rectangle(3, 3), 0.2, 64)
    assert x1 - x0 == 64
