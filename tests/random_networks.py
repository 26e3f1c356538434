"""Networks as large and as fast as the real ones, with random weights: what they find means nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam2_fewshot.backbones.sam2.checkpoints import find
from sam2_fewshot.backbones.sam2.loading import build

if TYPE_CHECKING:
    import torch


def random_network(name: str, seed: int = 0) -> torch.nn.Module:
    """The network of a known checkpoint such as ``tiny``, ready to be asked; the same seed gives the same weights."""
    checkpoint = find(name)
    assert checkpoint is not None
    assert checkpoint.config is not None
    return build(checkpoint.config, seed).eval().requires_grad_(False)
