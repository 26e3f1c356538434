"""Label images of a few discs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DISCS = [(14, 14), (14, 48), (46, 16), (48, 48)]


def discs(centres: Sequence[tuple[int, int]] = DISCS, size: int = 64) -> NDArray[np.uint16]:
    """Label image of discs with a radius of 7 pixels."""
    rows, columns = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.uint16)
    for value, (row, column) in enumerate(centres, 1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= 49] = value
    return labels
