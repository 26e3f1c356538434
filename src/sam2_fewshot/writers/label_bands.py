"""A large label image painted a band of rows at a time, with the same result as painted at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, Detection

LARGE = 1 << 24
"""Pixels (4,096 × 4,096); larger planes are painted in bands."""
TILE = 512
"""Height of a band, and side of a tile of the file."""
_COUNTED = 1 << 22
"""About the pixels that are counted at once, which takes three times the memory of labels."""


def best_first(detections: Sequence[Detection]) -> list[int]:
    """Return the places of objects in their sequence, by falling score; of equal ones the earlier comes first.

    A score that is not a finite number counts as the lowest.

    Parameters
    ----------
    detections
        The objects of one frame.
    """
    scores = [-detection.score if math.isfinite(detection.score) else math.inf for detection in detections]
    return sorted(range(len(detections)), key=scores.__getitem__)


class Bands:
    """The bands of one frame, from top to bottom; see :func:`sam2_fewshot.writers.labels.paint` for the rules.

    Parameters
    ----------
    detections
        The objects of the frame.
    frame_shape
        ``(height, width)`` in pixels.
    """

    def __init__(self, detections: Sequence[Detection], frame_shape: tuple[int, int]) -> None:
        self._instances = [item.instance for item in detections]
        self._height, self._width = frame_shape
        self._boxes = np.array([instance.box for instance in self._instances], np.int64).reshape(-1, 4)
        self._order = best_first(detections)
        rank = np.empty(len(detections), np.int64)
        rank[self._order] = np.arange(len(detections))
        self._rank = rank
        self._given: dict[tuple[int, int], int] = {}
        self._give_back()

    def __iter__(self) -> Iterator[NDArray[np.uint32]]:
        """Yield uint32 (h, W), h = :data:`TILE` but for the last."""
        return self.of(TILE)

    def of(self, rows: int) -> Iterator[NDArray[np.uint32]]:
        """Yield uint32 (h, W), h = `rows` but for the last."""
        for top in range(0, self._height, rows):
            yield self._window((0, top, self._width, min(top + rows, self._height)))

    def _window(self, box: Box) -> NDArray[np.uint32]:
        x0, y0, x1, y1 = box
        labels = np.zeros((y1 - y0, x1 - x0), np.uint32)
        b = self._boxes
        inside = np.flatnonzero((b[:, 0] < x1) & (b[:, 2] > x0) & (b[:, 1] < y1) & (b[:, 3] > y0))
        for index in inside[np.argsort(-self._rank[inside])]:
            left, top, right, bottom = b[index]
            common = max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)
            part = self._instances[index].data[common[1] - top : common[3] - top, common[0] - left : common[2] - left]
            labels[common[1] - y0 : common[3] - y0, common[0] - x0 : common[2] - x0][part] = index + 1
        for (row, column), value in self._given.items():
            if y0 <= row < y1 and x0 <= column < x1:
                labels[row - y0, column - x0] = value
        return labels

    def _give_back(self) -> None:
        """Give each object that would be hidden one of its pixels back."""
        left = np.zeros(len(self._instances) + 1, np.int64)
        for band in self.of(max(_COUNTED // max(self._width, 1), 1)):
            left += np.bincount(band.ravel(), minlength=len(left))
        for index in self._order:
            instance = self._instances[index]
            if left[index + 1] or not instance.data.any():
                continue
            window = self._window(instance.box)
            rows, columns = np.nonzero(instance.data)
            owners = window[rows, columns]
            richest = int(np.argmax(left[owners]))
            if left[owners[richest]] > 1:
                left[owners[richest]] -= 1
                left[index + 1] = 1
                self._given[instance.y0 + int(rows[richest]), instance.x0 + int(columns[richest])] = index + 1
