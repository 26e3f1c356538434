"""Vary pictures on the device that trains: where the camera stands, and what it makes of the light."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def rotations(count: int, spread: float) -> Tensor:
    """Draw quarter turns, flips, a small turn and a small change of aspect.

    Parameters
    ----------
    count
        How many.
    spread
        Of the small turn, in radians; the aspect changes by half of it.

    Returns
    -------
    Tensor
        (count, 2, 2) matrices.
    """
    angle = torch.randint(4, (count,)) * (math.pi / 2) + torch.randn(count) * spread
    flip = torch.randint(2, (count,)) * 2.0 - 1
    stretch = torch.exp(torch.randn(count) * 0.5 * spread)
    c, s = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([c * flip * stretch, -s], 1), torch.stack([s * flip * stretch, c], 1)], 1)


def warp(
    images: Tensor, labels: Tensor, sizes: Tensor, centres: Tensor, maps: Tensor, size: int, finer: int
) -> tuple[Tensor, Tensor]:
    """Cut, turn and zoom pictures; outside they are mirrored.

    Parameters
    ----------
    images
        (b, 3, height, width) uint8.
    labels
        (b, height, width).
    sizes
        (b, 2) height and width without padding.
    centres
        (b, 2) x, y of the source that lands in the middle.
    maps
        (b, 2, 2) from offsets in the result to offsets in the source.
    size
        Side of the result.
    finer
        Pictures are sampled this many times finer and averaged, so that shrinking does not alias.

    Returns
    -------
    tuple
        (b, 3, size, size) float 0 to 1, and (b, size, size) int64.
    """

    def grid(side: int) -> Tensor:
        steps = (torch.arange(side, device=images.device) + 0.5) * (size / side) - size / 2
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
        source = torch.einsum("bij,hwj->bhwi", maps, offsets) + centres[:, None, None]
        edge = sizes.flip(1)[:, None, None].float()
        source = torch.remainder(source, 2 * edge)
        source = torch.where(source > edge, 2 * edge - source, source)
        source = torch.minimum((source - 0.5).clamp(min=0), edge - 1)
        whole = torch.tensor([labels.shape[-1], labels.shape[-2]], device=images.device)
        return (2 * source + 1) / whole - 1

    picture = F.grid_sample(images.float() / 255, grid(size * finer), align_corners=False)
    if finer > 1:
        picture = F.avg_pool2d(picture, finer)
    mask = F.grid_sample(labels[:, None].float(), grid(size), mode="nearest", align_corners=False)
    return picture, mask[:, 0].long()


def photograph(images: Tensor) -> Tensor:
    """Vary colour, contrast, focus and noise, each picture by itself.

    Parameters
    ----------
    images
        (b, 3, height, width), 0 to 1.

    Returns
    -------
    Tensor
        The same shape, 0 to 1.
    """
    count, device = len(images), images.device

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, 1, 1, device=device) * (high - low) + low

    def some(share: float) -> Tensor:
        return (draw(0, 1) < share).float()

    mixed = torch.rand(count, 3, device=device) * (torch.rand(count, 1, device=device) < 0.5)
    order = torch.argsort(mixed, dim=1, stable=True)
    images = torch.gather(images, 1, order[:, :, None, None].expand_as(images))
    grey = some(0.25)
    images = grey * images.mean(1, keepdim=True) + (1 - grey) * images
    sigma = draw(0.05, 2.0) * some(0.45) + 0.05
    taps = torch.arange(-5, 6, device=device).float()
    kernel = torch.exp(-0.5 * (taps / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = F.pad(images.reshape(1, count * 3, *images.shape[2:]), (5, 5, 5, 5), mode="reflect")
    flat = F.conv2d(flat, kernel.view(-1, 1, 1, 11), groups=count * 3)
    images = F.conv2d(flat, kernel.view(-1, 1, 11, 1), groups=count * 3).view_as(images)
    inverse = some(0.12)
    images = (inverse * (1 - images) + (1 - inverse) * images).clamp(0, 1)
    images = images ** draw(0.6, 1.5)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    stretch = some(0.3)
    images = stretch * (images - low) / (high - low).clamp(min=0.02) + (1 - stretch) * images
    # many fluorescence pictures use a tenth of the range: brightness and noise follow the picture's own contrast
    contrast = images.std((1, 2, 3), keepdim=True)
    images = images * draw(0.55, 1.2) + draw(-0.4, 0.6) * contrast
    one = torch.randn(count, 1, *images.shape[2:], device=device)
    each = torch.randn_like(images)
    hue = some(0.5)
    grain = (one * hue + each * (1 - hue)) * (draw(0, 0.05) + draw(0, 0.12) * images.clamp(0, 1).sqrt() * some(0.4))
    grain = grain * (contrast * 6).clamp(0.1, 1)
    return (images + grain).clamp(0, 1)


def normalise(images: Tensor) -> Tensor:
    """Shift and scale the channels as ``SAM2ImagePredictor`` does.

    Parameters
    ----------
    images
        (b, 3, height, width), 0 to 1.

    Returns
    -------
    Tensor
        The same shape.
    """
    mean, std = (torch.tensor(value, device=images.device).view(1, 3, 1, 1) for value in (MEAN, STD))
    return (images - mean) / std
