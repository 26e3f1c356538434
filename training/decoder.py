"""The mask decoder of SAM 2 for training: same weights and same result as the public one, but several times faster.

The public `MaskDecoder.predict_masks` repeats the picture's features once a prompt and upscales with transposed
convolutions. With channels last, a 2 x 2 transposed convolution of stride 2 is one matrix product, and the features are
broadcast. A test compares both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Decoded(NamedTuple):
    """What the decoder gives for b pictures with k prompts each.

    Attributes
    ----------
    masks
        (b * k, 4, size / 4, size / 4) logits; the first is the single mask, the others are the three candidates.
    iou
        (b * k, 4) logits of the predicted IoU (the public decoder applies the sigmoid at once).
    present
        (b * k,) logits of "there is an object".
    """

    masks: Tensor
    iou: Tensor
    present: Tensor


def _twice(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Apply a 2 x 2 transposed convolution of stride 2 to (n, h, w, c)."""
    n, h, w, c = x.shape
    weight = layer.weight.permute(0, 2, 3, 1).reshape(c, -1)  # c, (row, column, out)
    out = (x @ weight).view(n, h, w, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
    assert layer.bias is not None
    return out.reshape(n, 2 * h, 2 * w, -1) + layer.bias


def decode(model: Any, image_embed: Tensor, high_res: list[Tensor], points: Tensor, labels: Tensor) -> Decoded:
    """Predict masks for prompts, as ``SAM2ImagePredictor`` asks for them.

    Parameters
    ----------
    model
        A ``SAM2Base``.
    image_embed
        (b, c, h, w) features with the no-memory embedding added.
    high_res
        Features of stride 4 and 8, already projected.
    points
        (b * k, t, 2) coordinates in input pixels; a box is two points.
    labels
        (b * k, t) 1 for a click, 2 and 3 for the corners of a box. The padding point is added by the prompt encoder.

    Returns
    -------
    Decoded
        Masks and scores.
    """
    decoder, encoder = model.sam_mask_decoder, model.sam_prompt_encoder
    b, c, h, w = image_embed.shape
    sparse, _ = encoder(points=(points, labels), boxes=None, masks=None)
    n = len(sparse)
    k = n // b
    own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own[None].expand(n, -1, -1), sparse], 1)
    keys = image_embed.flatten(2).transpose(1, 2) + encoder.no_mask_embed.weight
    keys = keys[:, None].expand(b, k, h * w, c).reshape(n, h * w, c)
    place = encoder.get_dense_pe().flatten(2).transpose(1, 2)
    queries = tokens
    for layer in decoder.transformer.layers:
        queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=place)
    final = decoder.transformer.final_attn_token_to_image(q=queries + tokens, k=keys + place, v=keys)
    queries = decoder.transformer.norm_final_attn(queries + final)

    first, norm, act, second, act2 = decoder.output_upscaling
    fine, middle = (f.permute(0, 2, 3, 1)[:, None] for f in high_res)
    x = _twice(first, keys.view(n, h, w, c)).view(b, k, 2 * h, 2 * w, -1) + middle
    x = act(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)).flatten(0, 1)
    x = act2(_twice(second, x).view(b, k, 4 * h, 4 * w, -1) + fine).view(n, 16 * h * w, -1)
    masks = torch.stack([mlp(queries[:, 2 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1)
    logits = (masks @ x.transpose(1, 2)).view(n, -1, 4 * h, 4 * w)

    score = queries[:, 1]
    head = decoder.iou_prediction_head
    for index, part in enumerate(head.layers):
        score = part(score) if index == head.num_layers - 1 else head.act(part(score))
    return Decoded(logits, score, decoder.pred_obj_score_head(queries[:, 0])[:, 0])


def encode(model: Any, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Encode pictures as ``SAM2ImagePredictor.set_image`` does.

    Parameters
    ----------
    model
        A ``SAM2Base``.
    images
        (b, 3, size, size), normalised.

    Returns
    -------
    tuple
        (b, c, size / 16, size / 16) embedding and the projected features of stride 4 and 8.
    """
    fine, middle, coarse = model.forward_image(images)["backbone_fpn"][:3]
    return coarse + model.no_mem_embed.view(1, -1, 1, 1), [fine, middle]
