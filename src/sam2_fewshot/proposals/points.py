"""The object under a point that the user clicked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.records import Box

# A mask that fills more of its window than this is the background, or an object that wants a wider window.
_LARGEST_SHARE = 0.5


def mask_at_point(model: Sam2Model, pixels: NDArray[np.uint8], point: tuple[float, float]) -> InstanceMask | None:
    """Return the mask that SAM 2 is surest of among those that hold a point.

    The size of the object is not known, and SAM 2 sees an object best when it is neither tiny nor larger than its
    input; so the point is prompted in windows of several sizes, from the whole frame down to a quarter of the
    model's input.

    Parameters
    ----------
    model
        Decodes the prompt.
    pixels
        uint8 RGB (H, W, 3).
    point
        ``(x, y)`` in image pixels, inside the frame.

    Returns
    -------
    InstanceMask or None
        None when no mask holds the point.
    """
    height, width = pixels.shape[:2]
    best, best_iou = None, -math.inf
    for x0, y0, x1, y1 in _windows(point, (height, width), model.image_size):
        embedding = model.embed(pixels[y0:y1, x0:x1])
        column, row = point[0] - x0, point[1] - y0
        # In image pixels a pixel's centre has the fraction .5; SAM 2's prompt encoder adds that half itself.
        scale = np.array([model.image_size / (x1 - x0), model.image_size / (y1 - y0)])
        prompt = (np.array([[column, row]]) * scale - 0.5).astype(np.float32)
        found = model.prompt(embedding, prompt, iou_gate=-math.inf, stability_gate=0.0)
        for iou, box, data in zip(found.predicted_iou, found.boxes, found.data, strict=True):
            left, top = int(box[0]), int(box[1])
            local = InstanceMask(data, left, top, embedding.frame_shape)
            holds = local.window((int(column), int(row), int(column) + 1, int(row) + 1)).any()
            if holds and iou > best_iou and local.area <= _LARGEST_SHARE * (x1 - x0) * (y1 - y0):
                best, best_iou = InstanceMask(data, x0 + left, y0 + top, (height, width)), iou
    return best


def _windows(point: tuple[float, float], shape: tuple[int, int], image_size: int) -> list[Box]:
    """Return the whole frame and, around the point, windows of 1, 1/2 and 1/4 of the model's input that are smaller."""
    height, width = shape
    windows = [(0, 0, width, height)]
    for side in (image_size, image_size // 2, image_size // 4):
        if side < max(height, width):
            w, h = min(side, width), min(side, height)
            x0 = min(max(int(point[0]) - w // 2, 0), width - w)
            y0 = min(max(int(point[1]) - h // 2, 0), height - h)
            windows.append((x0, y0, x0 + w, y0 + h))
    return windows
