"""SAM 2's mask decoder for many prompts on one image, without its repeated work.

The public decoder copies the image embedding once a prompt and upscales every mask before anyone asks
whether it is wanted. Here, with the same weights and the same result:

* what does not depend on the prompt is computed once: the keys, values and queries that the first layer's cross
  attentions project from the image embedding, and every projection of the positional encoding;
* the projections that read the same image tokens are one matrix product;
* masks are upscaled only for the prompts of which at least one predicted IoU passes the gate;
* where it is known about where an object lies, only a window around it is upscaled. The upscaling layers have kernels
  as wide as their strides, so a window's logits are those of the whole.

Sources: Ravi et al. 2024, "SAM 2: Segment Anything in Images and Videos", section 4 and appendix D;
``sam2/modeling/sam/{mask_decoder,transformer}.py`` (the modules called here). The tests compare both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sam2_fewshot.backbones.sam2.cpu import Projection, attend

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sam2_fewshot.backbones.sam2.pyramid import Embedding

_OUTSIDE = -32.0
"""Logit beyond a window: surely not the object. SAM 2's own stay within about 30."""
_MARGIN = 2
_STEP = 4
"""A window has this many cells of the coarse map around a box, or half the box's side, whichever is more; its side is
a multiple of the second number, so that few shapes occur."""
_REACHED = -1.0
"""Where a logit on a window's edge is above this, the mask may go on beyond it; it counts for a mask's stability."""


class DecodedPrompts(NamedTuple):
    """Masks that passed the gate on predicted IoU, as logits at the decoder's resolution.

    Parameters
    ----------
    prompt
        int64 (M,), index of the prompt that gave the mask.
    predicted_iou
        float32 (M,).
    logits
        float32 (M, h, w), h and w a quarter of the model's input size.
    """

    prompt: Tensor
    predicted_iou: Tensor
    logits: Tensor


class PromptDecoder:
    """Decodes prompts on one image.

    Parameters
    ----------
    network
        A ``sam2.modeling.sam2_base.SAM2Base`` in evaluation mode.
    embedding
        One image's embedding.
    """

    def __init__(self, network: nn.Module, embedding: Embedding) -> None:
        # sam2 has no type hints that mypy could follow; the modules are addressed by their names.
        net: Any = network
        self._prompt_encoder = net.sam_prompt_encoder
        self._decoder = net.sam_mask_decoder
        self._high_res = embedding.high_res
        channels, self._height, self._width = embedding.image_embed.shape[1:]
        self._channels = channels
        no_mask = self._prompt_encoder.no_mask_embed.weight.reshape(1, channels, 1, 1)
        self._image = _tokens(embedding.image_embed + no_mask)
        position = _tokens(self._prompt_encoder.get_dense_pe())
        transformer = self._decoder.transformer
        first, *others = (
            Projection([to_image.k_proj, to_image.v_proj, to_tokens.q_proj], [True, False, True], position)
            for to_image, to_tokens in map(_crossing, transformer.layers)
        )
        final = transformer.final_attn_token_to_image
        self._first = first(self._image)
        # What the image tokens are projected to after each layer: by the next one, and by the last attention.
        self._projections = [*others, Projection([final.k_proj, final.v_proj], [True, False], position)]

    def decode(self, coordinates: Tensor, iou_gate: float, reach: float = math.inf) -> DecodedPrompts:
        """Decode one foreground point a prompt into three masks each, and keep those above the gate.

        Parameters
        ----------
        coordinates
            float32 (N, 2), ``(x, y)`` in pixels of the model's input, as SAM 2's prompt encoder takes them
            (it adds half a pixel itself).
        iou_gate
            Masks whose predicted IoU is not above this are dropped before they are upscaled.
        reach
            Objects are thought to reach about so far from their point, in pixels of the model's input. Larger ones are
            found as well, but what else SAM 2 marks far from a point is left out.
        """
        labels = torch.ones(len(coordinates), 1, dtype=torch.int32, device=coordinates.device)
        predicted, tokens, image = self._answers(coordinates[:, None], labels)
        decoder, first = self._decoder, self._first_mask
        # The first mask token is the single-mask output; the public generator takes the other three.
        masks = slice(first + 1, first + decoder.num_mask_tokens)
        predicted = predicted[:, 1:]
        passed = predicted > iou_gate
        wanted = passed.any(dim=1).nonzero()[:, 0]
        prompt, output = passed[wanted].nonzero(as_tuple=True)
        around = torch.cat([coordinates[wanted] - reach, coordinates[wanted] + reach], dim=1)
        upscaled = self._upscale(image[wanted], tokens[wanted, masks], decoder.output_hypernetworks_mlps[1:], around)
        return DecodedPrompts(wanted[prompt], predicted[passed], upscaled[prompt, output].float())

    def decode_boxes(self, boxes: Tensor) -> DecodedPrompts:
        """Decode one box a prompt into one mask each, as ``SAM2ImagePredictor.predict`` does without multi-masks.

        What SAM 2 marks far from a box, without a connection to it, is left out.

        Parameters
        ----------
        boxes
            float32 (N, 4), ``(x0, y0, x1, y1)`` in pixels of the model's input.
        """
        # SAM 2 takes a box as its two corners, with labels of their own.
        labels = torch.tensor([[2, 3]], dtype=torch.int32, device=boxes.device).expand(len(boxes), -1)
        predicted, tokens, image = self._answers(boxes.reshape(-1, 2, 2), labels)
        mask = tokens[:, self._first_mask : self._first_mask + 1]
        upscaled = self._upscale(image, mask, self._decoder.output_hypernetworks_mlps[:1], boxes)
        return DecodedPrompts(torch.arange(len(boxes), device=boxes.device), predicted[:, 0], upscaled[:, 0].float())

    @property
    def _first_mask(self) -> int:
        """Place of the first mask token among the tokens."""
        return int(self._decoder.pred_obj_scores) + 1

    def _answers(self, coordinates: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the predicted IoUs (N, 4) of prompts of some points each, and the tokens and images to make masks of.

        `coordinates` are (N, points, 2), `labels` (N, points) in SAM 2's code.
        """
        sparse, _ = self._prompt_encoder(points=(coordinates, labels), boxes=None, masks=None)
        # SAM 2 pads points with numbers of torch's default dtype, which a program may have changed.
        tokens, image = self._attend(torch.cat([self._output_tokens(len(sparse)), sparse.float()], dim=1))
        predicted = self._decoder.iou_prediction_head(tokens[:, self._first_mask - 1]).float()
        return predicted, tokens, image

    def _output_tokens(self, count: int) -> Tensor:
        decoder = self._decoder
        tokens = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            tokens.insert(0, decoder.obj_score_token.weight)
        return torch.cat(tokens).expand(count, -1, -1)

    def _attend(self, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Run the two-way transformer; returns tokens (N, T, C) and image tokens (N, h·w, C)."""
        transformer = self._decoder.transformer
        tokens, image, projected = prompt, self._image, self._first
        for number, layer in enumerate(transformer.layers):
            to_image, to_tokens = _crossing(layer)
            if layer.skip_first_layer_pe:
                tokens = layer.self_attn(q=tokens, k=tokens, v=tokens)
            else:
                with_position = tokens + prompt
                tokens = tokens + layer.self_attn(q=with_position, k=with_position, v=tokens)
            tokens = layer.norm1(tokens)
            keys, values, queries = projected
            tokens = layer.norm2(tokens + attend(to_image, to_image.q_proj(tokens + prompt), keys, values))
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            answer = attend(to_tokens, queries, to_tokens.k_proj(tokens + prompt), to_tokens.v_proj(tokens))
            # In place, see Projection; but of two precisions the sum has the higher one.
            image = layer.norm4(answer.add_(image) if answer.dtype == image.dtype else answer + image)
            projected = self._projections[number](image)
        keys, values = projected
        final = transformer.final_attn_token_to_image
        tokens = tokens + attend(final, final.q_proj(tokens + prompt), keys, values)
        return transformer.norm_final_attn(tokens), image

    def _upscale(self, image: Tensor, mask_tokens: Tensor, hypernetworks: Any, boxes: Tensor) -> Tensor:
        """Return the logits (n, k, 4h, 4w) of k mask tokens a prompt, each with its own hypernetwork.

        `boxes` (n, 4) are about where the objects lie, in pixels of the model's input.
        """
        weights = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(hypernetworks)], dim=1)
        grid = image.reshape(len(image), self._height, self._width, self._channels)
        rows, columns = self._windows(boxes)
        side = rows.shape[1]
        if side >= min(self._height, self._width):
            return self._logits(grid.permute(0, 3, 1, 2), weights, *self._high_res)
        place = torch.arange(len(grid), device=grid.device)[:, None, None]
        window = grid[place, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        finer = [
            level[0][:, _refined(rows, scale)[:, :, None], _refined(columns, scale)[:, None, :]].transpose(0, 1)
            for level, scale in zip(self._high_res, (4, 2), strict=True)
        ]
        inside = self._logits(window, weights, finer[0], finer[1])
        out = inside.new_full((*inside.shape[:2], 4 * self._height, 4 * self._width), _OUTSIDE)
        at_rows, at_columns = _refined(rows, 4), _refined(columns, 4)
        out.permute(0, 2, 3, 1)[place, at_rows[:, :, None], at_columns[:, None, :]] = inside.permute(0, 2, 3, 1)
        high = (inside > _REACHED).any(1)
        cut_off = (
            (high[:, 0].any(1) & (rows[:, 0] > 0))
            | (high[:, -1].any(1) & (rows[:, -1] < self._height - 1))
            | (high[:, :, 0].any(1) & (columns[:, 0] > 0))
            | (high[:, :, -1].any(1) & (columns[:, -1] < self._width - 1))
        ).nonzero()[:, 0]
        if len(cut_off):
            out[cut_off] = self._logits(grid[cut_off].permute(0, 3, 1, 2), weights[cut_off], *self._high_res)
        return out

    def _logits(self, grid: Tensor, weights: Tensor, fine: Tensor, middle: Tensor) -> Tensor:
        """Return the logits (n, k, 4h, 4w) of coarse maps (n, C, h, w), weights (n, k, C / 8), and the finer maps."""
        deconvolve1, norm, activate1, deconvolve2, activate2 = self._decoder.output_upscaling
        upscaled = activate1(norm(deconvolve1(grid) + middle))
        upscaled = activate2(deconvolve2(upscaled) + fine)
        return torch.einsum("nkc,nchw->nkhw", weights.to(upscaled.dtype), upscaled)

    def _windows(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows and columns (n, s) of the coarse map that square windows around boxes take; s is one."""
        cell = self._prompt_encoder.input_image_size[0] / self._height
        low, high = boxes[:, :2] / cell, boxes[:, 2:] / cell
        sides = (high - low).amax(1)
        wanted = (
            float((sides + torch.maximum(2 * torch.full_like(sides, _MARGIN), sides)).amax()) if len(boxes) else 0.0
        )
        most = min(self._height, self._width)
        side = most if wanted > most - _STEP else max(_STEP, math.ceil(wanted / _STEP) * _STEP)
        corner = ((low + high) / 2 - side / 2).nan_to_num(0.0).round().long()
        steps = torch.arange(side, device=boxes.device)
        x = corner[:, 0].clamp(0, self._width - side)
        y = corner[:, 1].clamp(0, self._height - side)
        return y[:, None] + steps, x[:, None] + steps


def _crossing(layer: Any) -> tuple[Any, Any]:
    """Return a layer's attentions from the tokens to the image, and from the image to the tokens."""
    return layer.cross_attn_token_to_image, layer.cross_attn_image_to_token


def _tokens(image: Tensor) -> Tensor:
    """(1, C, h, w) → (1, h·w, C)."""
    return image.flatten(2).transpose(1, 2)


def _refined(cells: Tensor, scale: int) -> Tensor:
    """Return the rows (n, scale · s) of a finer map that some rows (n, s) of the coarse one cover."""
    steps = torch.arange(scale, device=cells.device)
    return (cells[:, :, None] * scale + steps).flatten(1)
