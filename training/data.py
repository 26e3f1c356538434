"""Draw batches of pictures with masks from real images and made-up scenes."""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.augment import normalise, photograph, rotations, warp
from training.pictures import MAX_IDS, Pictures

if TYPE_CHECKING:
    from training.config import Config
    from training.pool import ScenePool


@dataclass
class Batch:
    """One batch.

    Attributes
    ----------
    images
        (b, 3, size, size) normalised as the predictor does.
    labels
        (b, size, size) int64.
    classes
        (b, MAX_IDS) class of each object, 1 where there is one class only.
    """

    images: Tensor
    labels: Tensor
    classes: Tensor


class Loader:
    """Draws batches from real pictures and the scene pool, on the device."""

    def __init__(self, config: Config, pictures: Pictures, pool: ScenePool) -> None:
        self.config, self.pictures, self.pool = config, pictures, pool
        counts = collections.Counter(pictures.groups)
        # the square root keeps the largest group from drowning the others
        self.weights = torch.tensor([counts[group] ** -0.5 for group in pictures.groups])

    def _real(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        p, config = self.pictures, self.config
        chosen = torch.multinomial(self.weights, count, replacement=True)
        sizes = p.sizes[chosen].float()
        low, high = (math.log(value) for value in config.object_pixels)
        scale = config.image_size / 512
        zoom = torch.exp(torch.rand(count) * (high - low) + low) * scale / p.objects[chosen]
        zoom = zoom.clamp(0.4 * scale, 6)
        whole = torch.rand(count) < config.whole_share
        span = config.image_size / zoom / 2
        free = (sizes.flip(1) / 2 - span[:, None]).clamp(min=0)
        centres = sizes.flip(1) / 2 + (torch.rand(count, 2) * 2 - 1) * free
        maps = rotations(count, 0.12) / zoom[:, None, None]
        # shown whole: the squashing acts on the source's axes, after the turn
        squash = sizes.flip(1) / config.image_size * torch.exp(torch.randn(count, 1) * 0.08)
        maps = torch.where(whole[:, None, None], squash[:, :, None] * rotations(count, 0.0), maps)
        centres = torch.where(whole[:, None], sizes.flip(1) / 2, centres)
        to = p.images.device
        chosen, sizes, centres, maps = (value.to(to) for value in (chosen, sizes, centres, maps))
        images, labels = warp(p.images[chosen], p.labels[chosen], sizes, centres, maps, config.image_size, 2)
        return images, labels, torch.ones(count, MAX_IDS, dtype=torch.int16, device=to)

    def _made_up(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        pool, size = self.pool, self.config.image_size
        chosen = torch.randint(len(pool), (count,))
        zoom = torch.exp(torch.rand(count) * math.log(2.1) + math.log(0.8))
        zoom = torch.where(torch.rand(count) < 0.35, torch.ones(count), zoom)
        free = (size / 2 - size / zoom / 2).clamp(min=0)
        centres = size / 2 + (torch.rand(count, 2) * 2 - 1) * free[:, None]
        maps = rotations(count, 0.1) / zoom[:, None, None]
        sizes = torch.full((count, 2), float(size))
        to = pool.images.device
        chosen, sizes, centres, maps = (value.to(to) for value in (chosen, sizes, centres, maps))
        images, labels = warp(pool.images[chosen], pool.labels[chosen], sizes, centres, maps, size, 1)
        return images, labels, pool.classes[chosen]

    def next(self) -> Batch:
        """Draw a batch.

        Returns
        -------
        Batch
            Pictures, masks and classes.
        """
        made_up = round(self.config.batch * self.config.scene_share)
        images, labels, classes = (
            torch.cat(pair)
            for pair in zip(self._real(self.config.batch - made_up), self._made_up(made_up), strict=True)
        )
        return Batch(normalise(photograph(images)), labels, classes)
