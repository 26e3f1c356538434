"""SAM 2's image encoder, without what only its video part needs and what is the same for every image.

The public encoder computes a positional encoding of each level of its feature pyramid, which the memory attention of
videos takes and nothing else, and interpolates the positional embedding of its input anew for each image. On a CPU both
together are an eighth of its time with the embedded checkpoint.

Sources: Ryali et al. 2023, "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles"; Lin et al. 2017,
"Feature Pyramid Networks for Object Detection"; ``sam2/modeling/backbones/{hieradet,image_encoder}.py`` (the modules
called here). The tests compare both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor, nn


class ImageEncoder:
    """A network's image encoder as a function from images to the levels of its feature pyramid.

    Parameters
    ----------
    network
        A ``sam2.modeling.sam2_base.SAM2Base`` in evaluation mode; its modules are called, not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        # sam2 has no type hints that mypy could follow.
        untyped: Any = network
        self._trunk = untyped.image_encoder.trunk
        self._neck = untyped.image_encoder.neck
        self._unused = int(untyped.image_encoder.scalp)
        self._position: Tensor | None = None

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the levels (N, C, h, w) of normalised images (N, 3, S, S), the finest first."""
        trunk = self._trunk
        patches = trunk.patch_embed(images)
        tokens = patches + self._position_of(patches)
        stages = []
        for number, block in enumerate(trunk.blocks):
            tokens = block(tokens)
            if number in trunk.stage_ends:
                stages.append(tokens.permute(0, 3, 1, 2))
        levels = self._pyramid(stages)
        return tuple(levels[: len(levels) - self._unused])

    def _position_of(self, patches: Tensor) -> Tensor:
        """Return the positional embedding (1, h, w, C) of patches (N, h, w, C)."""
        if self._position is None or self._position.shape[1:3] != patches.shape[1:3]:
            embedding: Tensor = self._trunk._get_pos_embed(patches.shape[1:3])
            self._position = embedding
        return self._position

    def _pyramid(self, stages: list[Tensor]) -> list[Tensor]:
        """Project the trunk's stages, the finest first, to one width, and add the coarser ones to the finer ones."""
        neck, levels = self._neck, []
        above: Tensor | None = None
        for number in reversed(range(len(stages))):
            # The neck's projections are in the order of its levels, the coarsest first.
            level = neck.convs[len(stages) - 1 - number](stages[number])
            if number in neck.fpn_top_down_levels and above is not None:
                smooth = neck.fpn_interp_model != "nearest"
                # As the neck does, in float32 whatever else is computed in.
                level = level + functional.interpolate(
                    above.to(torch.float32),
                    scale_factor=2.0,
                    mode=neck.fpn_interp_model,
                    align_corners=False if smooth else None,
                )
                if neck.fuse_type == "avg":
                    level = level / 2
            above = level
            levels.append(level)
        return levels[::-1]
