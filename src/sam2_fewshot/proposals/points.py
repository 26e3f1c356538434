"""What may be meant by a point that the user clicked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.records import Box

# A mask that fills more of its window than this is the background, or an object that wants a wider window.
_LARGEST_SHARE = 0.5
_CORE = 4
"""Points at most this part of a window's side from its middle share the window, so that an object is whole in it as
long as it is no larger than half the window."""


@dataclass(frozen=True, eq=False, slots=True)
class PointMask:
    """A mask that holds a point.

    Parameters
    ----------
    mask
        Of the frame.
    predicted_iou
        SAM 2's own guess of its quality, in [0, 1].
    """

    mask: InstanceMask
    predicted_iou: float


def masks_at_points(
    model: Sam2Model, pixels: NDArray[np.uint8], points: Sequence[tuple[float, float]]
) -> list[list[PointMask]]:
    """Return the masks that SAM 2 gives for each of several points of a frame.

    The sizes of the objects are not known, and SAM 2 sees an object best when it is neither tiny nor larger than its
    input; so each point is prompted in windows of several sizes, from the whole frame down to a quarter of the model's
    input, and gives three masks in each. Points near each other share their windows, each of which is encoded once.

    Parameters
    ----------
    model
        Decodes the prompts.
    pixels
        uint8 RGB (H, W, 3).
    points
        ``(x, y)`` in image pixels, inside the frame.

    Returns
    -------
    list of list of PointMask
        For each point the masks that hold it and fill at most half of their window, in the order of the windows from
        the largest; none where SAM 2 sees no object.
    """
    height, width = pixels.shape[:2]
    found: list[list[PointMask]] = [[] for _ in points]
    for (x0, y0, x1, y1), numbers in _windows(points, (height, width), model.image_size):
        embedding = model.embed(pixels[y0:y1, x0:x1])
        local = np.array([points[i] for i in numbers]) - (x0, y0)
        # In image pixels a pixel's centre has the fraction .5; SAM 2's prompt encoder adds that half itself.
        scale = np.array([model.image_size / (x1 - x0), model.image_size / (y1 - y0)])
        prompts = (local * scale - 0.5).astype(np.float32)
        answer = model.prompt(embedding, prompts, iou_gate=-math.inf, stability_gate=0.0)
        for prompt, iou, box, data in zip(answer.prompt, answer.predicted_iou, answer.boxes, answer.data, strict=True):
            mask = InstanceMask(data, x0 + int(box[0]), y0 + int(box[1]), (height, width))
            column, row = (int(value) for value in points[numbers[prompt]])
            holds = mask.window((column, row, column + 1, row + 1)).any()
            if holds and mask.area <= _LARGEST_SHARE * (x1 - x0) * (y1 - y0):
                found[numbers[prompt]].append(PointMask(mask, float(iou)))
    return found


def _windows(
    points: Sequence[tuple[float, float]], shape: tuple[int, int], image_size: int
) -> list[tuple[Box, list[int]]]:
    """Return windows, each with the points that are prompted in it.

    They are the whole frame and, around the points, windows of 1, 1/2 and 1/4 of the model's input that are smaller. A
    window is centred on the first point that has none of its size yet.
    """
    height, width = shape
    windows: list[tuple[Box, list[int]]] = [((0, 0, width, height), list(range(len(points))))]
    for side in (image_size, image_size // 2, image_size // 4):
        left = list(range(len(points))) if side < max(height, width) else []
        while left:
            x, y = points[left[0]]
            w, h = min(side, width), min(side, height)
            x0 = min(max(int(x) - w // 2, 0), width - w)
            y0 = min(max(int(y) - h // 2, 0), height - h)
            inside = [i for i in left if max(abs(points[i][0] - x), abs(points[i][1] - y)) <= side / _CORE]
            windows.append(((x0, y0, x0 + w, y0 + h), inside))
            left = [i for i in left if i not in inside]
    return windows
