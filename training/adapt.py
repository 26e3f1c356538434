"""Let weights that were trained without top-down links on the fine levels start with them, nearly unchanged.

With ``fpn_top_down_levels: [0, 1, 2, 3]`` the projections of the fine levels (``conv_s0``, ``conv_s1``) suddenly see
the coarse features too, and the masks fall apart. Only the product of a lateral and its projection matters for the old
result, so both are rewritten: the projections read directions in which the coarse features hardly vary, and training
finds out by itself what the new links are good for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NECK = "image_encoder.neck.convs.{}.conv.{}"
DECODER = "sam_mask_decoder.conv_s{}.{}"


@torch.no_grad()
def open_top_down(model: Any, images: Tensor) -> None:
    """Rewrite the fine levels of `model` in place.

    Parameters
    ----------
    model
        A ``SAM2Base`` with top-down links on all levels, holding weights trained with ``[2, 3]``.
    images
        (b, 3, size, size) normalised pictures, to see in which directions the coarse features vary.
    """
    weights = model.state_dict()
    coarse = model.image_encoder.neck(model.image_encoder.trunk(images))[0][2]
    flat = coarse.permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = flat.mean(0)
    spread = (flat - mean).T @ (flat - mean) / len(flat)
    quiet = torch.linalg.eigh(spread)[1].T.float()  # rows; the quietest directions first
    begin = 0
    for level, lateral in ((1, 2), (0, 3)):
        side, side_bias = weights[NECK.format(lateral, "weight")], weights[NECK.format(lateral, "bias")]
        out, out_bias = weights[DECODER.format(level, "weight")], weights[DECODER.format(level, "bias")]
        width = out.shape[0]
        reader = quiet[begin : begin + width]
        begin += width
        product = out[:, :, 0, 0] @ side[:, :, 0, 0]
        constant = out[:, :, 0, 0] @ side_bias + out_bias
        side[:] = (reader.T @ product)[:, :, None, None]
        side_bias.zero_()
        out[:] = reader[:, :, None, None]
        out_bias[:] = constant - reader @ mean.float()
    model.load_state_dict(weights)
