"""Masks, outlines and figures of objects as plain arrays, for archives without pickles; all comes back bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from sam2_fewshot.records import Detection, InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Location


def pack_masks(masks: Sequence[InstanceMask]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the crops' boxes, int64 (N, 4), ``x0, y0, x1, y1``, and their pixels.

    The pixels are uint8, the crops row by row, each packed to whole bytes, in a row.
    """
    bits = [np.packbits(mask.data.astype(bool, copy=False)) for mask in masks]
    boxes = np.array([mask.box for mask in masks], np.int64).reshape(-1, 4)
    return boxes, np.concatenate([np.zeros(0, np.uint8), *bits])


def unpack_masks(boxes: NDArray[np.int64], bits: NDArray[np.uint8], frame_shape: tuple[int, int]) -> list[InstanceMask]:
    """Return the masks that :func:`pack_masks` packed, of a frame of ``(height, width)`` pixels."""
    masks = []
    start = 0
    for x0, y0, x1, y1 in boxes.tolist():
        width, height = x1 - x0, y1 - y0
        stop = start + (width * height + 7) // 8
        data = np.unpackbits(bits[start:stop], count=width * height).astype(bool).reshape(height, width)
        masks.append(InstanceMask(data, x0, y0, frame_shape))
        start = stop
    return masks


def pack_outlines(outlines: Sequence[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the well-known binary of geometries in a row, uint8, and the bytes of each, int64 (N,)."""
    parts: list[bytes] = [shapely.to_wkb(outline) for outline in outlines]
    return np.frombuffer(b"".join(parts), np.uint8), np.array([len(part) for part in parts], np.int64)


def unpack_outlines(data: NDArray[np.uint8], lengths: NDArray[np.int64]) -> list[Any]:
    """Return the geometries that :func:`pack_outlines` packed."""
    content, stops = data.tobytes(), np.cumsum(lengths).tolist()
    return [shapely.from_wkb(content[start:stop]) for start, stop in zip([0, *stops], stops, strict=False)]


def pack_figures(found: Sequence[Detection]) -> NDArray[np.float64]:
    """Return score, similarity and predicted IoU of each, float64 (N, 3)."""
    figures = [(item.score, item.similarity, item.predicted_iou) for item in found]
    return np.array(figures, np.float64).reshape(-1, 3)


def unpack_found(
    masks: Sequence[InstanceMask], outlines: Sequence[Any], figures: NDArray[np.float64], location: Location
) -> list[Detection]:
    """Return detections from what :func:`pack_masks`, :func:`pack_outlines` and :func:`pack_figures` packed of them."""
    return [
        Detection(mask, outline, score, similarity, predicted_iou, location)
        for mask, outline, (score, similarity, predicted_iou) in zip(masks, outlines, figures.tolist(), strict=True)
    ]
