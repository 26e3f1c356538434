"""From logits at the decoder's resolution to masks at the frame's, touching only the pixels that matter.

The public generator interpolates all three masks of each prompt to the full frame before any gate. A
pixel's interpolated logit is a weighted mean of its neighbours', so outside the window where some logit is
above the lower threshold nothing can be above it: only that window is interpolated, with the same weights as
``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sam2_fewshot.protocols import PromptedMasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

STABILITY_OFFSET = 1.0
"""Logits by which the threshold is moved up and down for the stability score (``SAM2AutomaticMaskGenerator``)."""

# Floats interpolated at a time: 16 MB on a CPU, where caches matter, 1 GB on an accelerator, where launches
# do.
_CPU_BUDGET, _DEVICE_BUDGET = 2**22, 2**28


class StableMasks(NamedTuple):
    """Masks that passed the gate on stability.

    Parameters
    ----------
    position
        int64 (M,), place among the logits that were given; ascending.
    stability
        float64 (M,), in [0, 1].
    boxes
        int64 (M, 4), ``(x0, y0, x1, y1)`` in frame pixels, half open, tight.
    data
        M boolean arrays, cropped to their boxes.
    """

    position: NDArray[np.int64]
    stability: NDArray[np.float64]
    boxes: NDArray[np.int64]
    data: list[NDArray[np.bool_]]


def stable_masks(logits: Tensor, frame_shape: tuple[int, int], stability_gate: float) -> StableMasks:
    """Interpolate logits to the frame, score their stability and threshold them.

    Parameters
    ----------
    logits
        float32 (N, h, w).
    frame_shape
        ``(height, width)`` of the frame in pixels.
    stability_gate
        Masks with a lower stability are dropped, as are empty ones.
    """
    positions: list[int] = []
    scores: list[float] = []
    boxes: list[tuple[int, int, int, int]] = []
    data: list[NDArray[np.bool_]] = []
    # Autocast would do the interpolation's matrix products in bfloat16.
    with torch.autocast(logits.device.type, enabled=False):
        for batch in _windows(logits, frame_shape):
            window = _interpolate(logits, frame_shape, batch)
            high = (window > STABILITY_OFFSET).sum((1, 2))
            low = (window > -STABILITY_OFFSET).sum((1, 2))
            stability = (high / low).nan_to_num(0.0)  # nothing above the lower threshold: 0 / 0
            mask = window > 0
            keep = ((stability >= stability_gate) & mask.any(2).any(1)).nonzero()[:, 0]
            for position, score, top, left, crop in zip(
                batch.chosen[keep].tolist(),
                stability[keep].tolist(),
                batch.rows.target_start[keep].tolist(),
                batch.columns.target_start[keep].tolist(),
                mask[keep].cpu().numpy(),
                strict=True,
            ):
                rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
                y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
                positions.append(position)
                scores.append(score)
                boxes.append((left + x0, top + y0, left + x1, top + y1))
                data.append(crop[y0:y1, x0:x1].copy())
    order = np.argsort(np.asarray(positions, np.int64), kind="stable")
    return StableMasks(
        np.asarray(positions, np.int64)[order],
        np.asarray(scores, np.float64)[order],
        np.asarray(boxes, np.int64).reshape(-1, 4)[order],
        [data[i] for i in order],
    )


class _Windows(NamedTuple):
    """Windows along one axis: where they start and how long they are, in the logits and in the frame.

    Starts are int64 (n,). Lengths are int64 (n,) before windows are grouped, one number for a group.
    """

    source_start: Tensor
    source_length: Tensor | int
    target_start: Tensor
    target_length: Tensor | int


class _Batch(NamedTuple):
    """Masks whose windows are interpolated together, all of one size."""

    chosen: Tensor
    rows: _Windows
    columns: _Windows


def _windows(logits: Tensor, frame_shape: tuple[int, int]) -> Iterator[_Batch]:
    """Group masks into batches of windows of one size; masks with nothing above the lower threshold are left out."""
    if not len(logits):
        return
    above = logits > -STABILITY_OFFSET
    rows = _reach(above.any(2), frame_shape[0])
    columns = _reach(above.any(1), frame_shape[1])
    present = above.flatten(1).any(1).nonzero()[:, 0]
    sizes = torch.stack([rows.target_length, columns.target_length, rows.source_length, columns.source_length], 1)  # type: ignore[list-item]
    lengths = sizes[present].cpu().numpy()
    budget = _CPU_BUDGET if logits.device.type == "cpu" else _DEVICE_BUDGET
    # Windows of like size share a batch: smallest first, filled until the padded size meets the budget.
    order = np.argsort(lengths[:, 0] * lengths[:, 1], kind="stable")
    while order.size:
        padded = np.maximum.accumulate(lengths[order], axis=0)
        floats = padded[:, 0] * padded[:, 1] + padded[:, 0] * padded[:, 3]
        count = max(1, int(np.searchsorted(floats * np.arange(1, order.size + 1), budget, side="right")))
        height, width, source_height, source_width = (int(v) for v in padded[count - 1])
        chosen = present[torch.as_tensor(order[:count], device=logits.device)]
        order = order[count:]
        yield _Batch(
            chosen,
            _grown(rows, chosen, source_height, logits.shape[1], height, frame_shape[0]),
            _grown(columns, chosen, source_width, logits.shape[2], width, frame_shape[1]),
        )


def _reach(present: Tensor, size: int) -> _Windows:
    """Find the frame rows (or columns) that an interpolation can raise above the lower threshold.

    `present` is boolean (N, h): which rows of the logits have one above that. Row y of a frame of `size`
    rows reads from ``(y + 0.5) · h / size - 0.5``, so row l of the logits reaches the frame's rows from
    ``(l - 0.5) · size / h - 0.5`` to ``(l + 1.5) · size / h - 0.5``; one row of slack covers rounding.
    """
    rows = present.shape[1]
    steps = torch.arange(rows, device=present.device)
    first = torch.where(present, steps, rows).amin(1)
    last = torch.where(present, steps, -1).amax(1)
    # One row of margin on either side holds the taps that pull the outermost pixels below it.
    source_start, source_stop = (first - 1).clamp(min=0), (last + 2).clamp(max=rows)
    start = (((first - 0.5) * (size / rows) - 0.5).floor().long() - 1).clamp(0, size)
    stop = (((last + 1.5) * (size / rows) - 0.5).ceil().long() + 2).clamp(0, size)
    return _Windows(source_start, source_stop - source_start, start, stop - start)


def _grown(windows: _Windows, chosen: Tensor, source: int, rows: int, target: int, size: int) -> _Windows:
    """Give the chosen windows one length; one that would now stick out is moved back inside."""
    return _Windows(
        windows.source_start[chosen].clamp(max=rows - source),
        source,
        windows.target_start[chosen].clamp(max=size - target),
        target,
    )


def _interpolate(logits: Tensor, frame_shape: tuple[int, int], batch: _Batch) -> Tensor:
    """Bilinearly interpolate the windows (n, height, width) of a batch.

    The two passes are products with matrices of two weights a row; that is faster than gathering, on every
    device.
    """
    down = _weights(batch.rows, logits.shape[1], frame_shape[0])
    across = _weights(batch.columns, logits.shape[2], frame_shape[1])
    rows = batch.rows.source_start[:, None] + torch.arange(down.shape[2], device=logits.device)
    columns = batch.columns.source_start[:, None] + torch.arange(across.shape[2], device=logits.device)
    source = logits[batch.chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    return down @ source @ across.transpose(1, 2)


def _weights(windows: _Windows, source: int, target: int) -> Tensor:
    """Return interpolation weights float32 (n, target length, source length) along one axis."""
    start, length = windows.target_start, int(windows.target_length)
    positions = start[:, None] + torch.arange(length, device=start.device)
    exact = ((positions.float() + 0.5) * (source / target) - 0.5).clamp(min=0)
    lower = exact.long().clamp(max=source - 1)
    upper_weight = exact - lower
    matrix = torch.zeros(*positions.shape, int(windows.source_length), dtype=torch.float32, device=start.device)
    # Rows beyond a mask's own window, there because another mask of the batch is larger, may read beyond
    # its source window; every logit at that window's edge is below the threshold (or at the image's edge, where
    # reading stops too).
    inside = int(windows.source_length) - 1
    first = windows.source_start[:, None]
    matrix.scatter_add_(2, (lower - first).clamp(0, inside)[..., None], (1 - upper_weight)[..., None])
    upper = (lower + 1).clamp(max=source - 1)
    matrix.scatter_add_(2, (upper - first).clamp(0, inside)[..., None], upper_weight[..., None])
    return matrix


def joined(parts: Sequence[PromptedMasks], numbers: NDArray[np.intp] | None = None) -> PromptedMasks:
    """Return the masks of all parts.

    Parameters
    ----------
    parts
        Of some prompts each, in order.
    numbers
        (N,), by which the prompts are numbered instead; the masks then come in the order of these numbers.
    """
    prompt = np.concatenate([np.zeros(0, np.int64), *(part.prompt for part in parts)])
    prompt = prompt if numbers is None else numbers[prompt]
    order = np.argsort(prompt, kind="stable")
    data = [crop for part in parts for crop in part.data]
    return PromptedMasks(
        prompt[order],
        np.concatenate([np.zeros(0), *(part.predicted_iou for part in parts)])[order],
        np.concatenate([np.zeros(0), *(part.stability for part in parts)])[order],
        np.concatenate([np.zeros((0, 4), np.int64), *(part.boxes for part in parts)])[order],
        [data[i] for i in order],
    )
