"""The oracle: how good prompting can get when the truth says where to click and which mask to take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.records import Box

# Diameter of the median object in the zoomed input, as a share of the input's side: 64 px of 512, in the middle of
# what micro-sam's FAQ recommends (KNOWLEDGE: 64 to 128 of 1024), never enlarged more than 8 times.
_ZOOMED_SHARE = 1 / 8
_LARGEST_ZOOM = 8.0


def interior_point(mask: InstanceMask) -> tuple[float, float]:
    """Return the centre ``(x, y)`` of the pixel of a mask that lies farthest from its edge, in image pixels."""
    depth = ndimage.distance_transform_edt(np.pad(mask.data, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return mask.x0 + float(column) + 0.5, mask.y0 + float(row) + 0.5


def click(
    model: Sam2Model, pixels: NDArray[np.uint8], truth: Sequence[InstanceMask], *, zoom: bool = False
) -> list[InstanceMask]:
    """Click once on every true object and take of SAM's three masks the one of the largest true IoU.

    Parameters
    ----------
    model
        Decodes the clicks.
    pixels
        uint8 RGB (H, W, 3).
    truth
        The objects.
    zoom
        Whether the frame is cut into overlapping tiles in which the median object is an eighth of the input's side,
        each object being clicked in the tile in whose middle it lies; else the frame is seen whole.

    Returns
    -------
    list of InstanceMask
        At most one for each object; objects for which SAM gives only empty masks are missing.
    """
    if not truth:
        return []
    points = np.array([interior_point(mask) for mask in truth])
    height, width = pixels.shape[:2]
    windows = _tiles(truth, (height, width), model.input_size) if zoom else [(0, 0, width, height)]
    boxes = np.array(windows, float)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = np.abs(points[:, None] - centres).max(axis=2).argmin(axis=1)
    best: dict[int, tuple[float, InstanceMask]] = {}
    for tile in np.unique(nearest):
        x0, y0, x1, y1 = windows[tile]
        here = np.flatnonzero(nearest == tile)
        embedding = model.embed(pixels[y0:y1, x0:x1])
        # SAM 2's prompt encoder adds the half pixel itself.
        scale = model.input_size / np.array([x1 - x0, y1 - y0])
        prompts = ((points[here] - (x0, y0)) * scale - 0.5).astype(np.float32)
        found = model.prompt(embedding, prompts)
        for prompt, box, data in zip(found.prompt, found.boxes, found.data, strict=True):
            target = int(here[prompt])
            mask = InstanceMask(data, x0 + int(box[0]), y0 + int(box[1]), (height, width))
            iou = mask_iou(mask, truth[target])
            if iou > best.get(target, (-1.0, mask))[0]:
                best[target] = iou, mask
    return [best[i][1] for i in sorted(best)]


def _tiles(truth: Sequence[InstanceMask], shape: tuple[int, int], input_side: int) -> list[Box]:
    """Return square tiles that overlap by half, and cover the frame."""
    diameter = 2 * math.sqrt(float(np.median([mask.area for mask in truth])) / math.pi)
    side = math.ceil(min(max(diameter / _ZOOMED_SHARE, input_side / _LARGEST_ZOOM), max(shape)))
    spans = []
    for length in shape:
        span = min(side, length)
        count = max(1, math.ceil(2 * (length - span) / span) + 1)
        spans.append([(int(start), int(start) + span) for start in np.linspace(0, length - span, count)])
    rows, columns = spans
    return [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]
