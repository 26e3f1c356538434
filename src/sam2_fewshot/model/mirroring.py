"""Windows of an image that may reach beyond it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from sam2_fewshot.records import Box


def mirrored(frame: Tensor, window: Box) -> Tensor:
    """Cut a window ``(x0, y0, x1, y1)`` from (C, H, W); what lies beyond the frame is its mirror image.

    The edge itself is not repeated.
    """
    x0, y0, x1, y1 = window
    rows = _reflect(torch.arange(y0, y1, device=frame.device), frame.shape[1])
    columns = _reflect(torch.arange(x0, x1, device=frame.device), frame.shape[2])
    return frame[:, rows][:, :, columns]


def _reflect(index: Tensor, size: int) -> Tensor:
    """Fold indices into 0 .. size - 1 as mirrors at both ends would."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    folded = index.remainder(period)
    return torch.minimum(folded, period - folded)
