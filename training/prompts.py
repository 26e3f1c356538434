"""Draw prompts and training targets from label maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.pictures import MAX_IDS

if TYPE_CHECKING:
    from training.config import Config

MIN_AREA = 20  # pixels of the input; nothing smaller is clicked at


class Prompts(NamedTuple):
    """Prompts of a batch, in input pixels, and what they should give.

    Attributes
    ----------
    points
        (b, clicks, 2) x, y; clicks on objects first, then clicks on background.
    boxes
        (b, boxes, 2, 2) upper left and lower right corner.
    ids
        (b, clicks + boxes) the object that each prompt asks for, -1 for none.
    groups
        (b, k) objects to tell apart, -1 for none; `group_classes` holds their classes.
    dense
        (b, 4, size / 4, size / 4) inside, boundary, offset x and offset y to the object's centre.
    """

    points: Tensor
    boxes: Tensor
    ids: Tensor
    groups: Tensor
    group_classes: Tensor
    dense: Tensor


@dataclass
class _Objects:
    """Per object of each picture: area, centre and box."""

    area: Tensor
    centre: Tensor
    low: Tensor
    high: Tensor


def _measure(labels: Tensor) -> _Objects:
    count, size = len(labels), labels.shape[-1]
    flat = labels.view(count, -1)
    line = torch.arange(size, device=labels.device, dtype=torch.float32)
    place = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).view(1, -1, 2).expand(count, -1, -1)
    index = flat[..., None].expand(-1, -1, 2)
    zeros = torch.zeros(count, MAX_IDS, 2, device=labels.device)
    area = torch.zeros(count, MAX_IDS, device=labels.device).scatter_add_(1, flat, torch.ones_like(flat).float())
    centre = zeros.scatter_add(1, index, place) / area.clamp(min=1)[..., None]
    low = (zeros + size).scatter_reduce(1, index, place, "amin")
    high = (zeros - 1).scatter_reduce(1, index, place, "amax")
    area[:, 0] = 0
    return _Objects(area, centre, low, high)


def _dense(labels: Tensor, objects: _Objects) -> Tensor:
    coarse = labels[:, 2::4, 2::4]
    flat = coarse.reshape(len(labels), -1)
    inside = (coarse > 0).float()
    around = F.pad(coarse.float()[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    side = coarse.shape[-1]
    edge = torch.zeros_like(inside)
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
        shifted = around[:, row : row + side, column : column + side]
        edge = torch.maximum(edge, (shifted != coarse).float() * inside)
    scale = torch.gather(objects.area, 1, flat).sqrt().clamp(min=1)
    line = torch.arange(side, device=labels.device) * 4.0 + 2
    across = (torch.gather(objects.centre[..., 0], 1, flat).view_as(coarse) - line) / scale.view_as(coarse)
    down = (torch.gather(objects.centre[..., 1], 1, flat).view_as(coarse) - line[:, None]) / scale.view_as(coarse)
    return torch.stack([inside, edge, across * inside, down * inside], 1)


def draw_prompts(labels: Tensor, classes: Tensor, config: Config) -> Prompts:
    """Draw prompts: objects are equally likely whatever their size, clicks fall more often near their centres.

    Parameters
    ----------
    labels
        (b, size, size) int64.
    classes
        (b, MAX_IDS) class of each object.
    config
        How many of each.

    Returns
    -------
    Prompts
        Prompts and targets.
    """
    count, size = len(labels), labels.shape[-1]
    objects = _measure(labels)
    usable = (objects.area >= MIN_AREA).float()

    # every second row and column, from a random one on: a quarter of the pixels is enough to draw from
    shift = int(torch.randint(2, ()))
    thin = labels[:, shift::2, shift::2].reshape(count, -1)
    half = size // 2
    line = torch.arange(half, device=labels.device) * 2.0 + shift
    x, y = line.repeat(half), line.repeat_interleave(half)
    centre = torch.gather(objects.centre, 1, thin[..., None].expand(-1, -1, 2))
    area = torch.gather(objects.area, 1, thin)
    off = ((x - centre[..., 0]) ** 2 + (y - centre[..., 1]) ** 2) / area.clamp(min=1)
    weight = torch.gather(usable, 1, thin) / area.clamp(min=1) * (0.2 + torch.exp(-off * 12))
    empty = weight.sum(1, keepdim=True) <= 0
    clicked = torch.multinomial(weight + empty * 1.0, config.clicks, replacement=True)
    missed = torch.multinomial((thin == 0).float() + 1e-9, config.background_clicks, replacement=True)
    pixel = torch.cat([clicked, missed], 1)
    points = torch.stack([x[pixel], y[pixel]], -1)
    hit = torch.gather(thin, 1, pixel)
    hit = torch.where(torch.gather(usable, 1, hit) > 0, hit, -1)

    none = usable.sum(1, keepdim=True) <= 0
    boxed = torch.multinomial(usable + none * 1.0, config.boxes, replacement=True)
    at = boxed[..., None].expand(-1, -1, 2)
    low, high = torch.gather(objects.low, 1, at), torch.gather(objects.high, 1, at) + 1
    loose = torch.rand(count, config.boxes, 1, device=labels.device) * 0.08
    side = (high - low).clamp(min=1)
    low = low + torch.randn_like(low) * side * loose
    high = high + torch.randn_like(high) * side * loose
    boxed = torch.where(none, -1, boxed)

    rank = torch.rand(count, MAX_IDS, device=labels.device) * (objects.area >= 4 * MIN_AREA)
    score, groups = rank.topk(min(config.contrast_objects, MAX_IDS), 1)
    groups = torch.where(score > 0, groups, -1)
    group_classes = torch.gather(classes.long(), 1, groups.clamp(min=0))
    boxes = torch.stack([low, high], 2)
    ids = torch.cat([hit, boxed], 1)
    return Prompts(points, boxes, ids, groups, group_classes, _dense(labels, objects))
