"""SAM 2's image encoder, without what only its video part needs; compiled where that is asked for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from sam2_fewshot.backbones.sam2.device import is_out_of_memory
from sam2_fewshot.protocols import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from sam2_fewshot.records import Box

    Levels = tuple[Tensor, ...]
    Encoder = Callable[[Tensor], Levels]


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


_CHUNK = 8
"""Images at a time on a GPU, where the user does not say how many. Each number of images is compiled by itself, which
takes minutes, so there are only two, one and this. Larger ones would be filled up with more images of nothing."""
_ALIKE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Largest difference from the plain encoder that is rounding, as a share of the largest value of a level."""


def inductor(encode: Encoder) -> Encoder:
    """Compile with PyTorch's own compiler.

    The shapes are fixed, which gives the best code. Its default mode is taken: ``max-autotune`` takes many times longer
    for a few percent, and ``reduce-overhead`` lets results be overwritten by the next call.
    """
    compiled: Encoder = torch.compile(encode, dynamic=False)
    return compiled


class CompiledEncoder:
    """An image encoder that is compiled when it is first used, and stays what it was where that fails.

    Parameters
    ----------
    plain
        The encoder as it is.
    dtype
        In which the large matrix products are computed.
    batch_size
        Images at a time; 0 is what suits a GPU.
    compiler
        Returns the compiled encoder; it may fail then or when that is first called.
    """

    def __init__(
        self,
        plain: Encoder,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 0,
        compiler: Callable[[Encoder], Encoder] = inductor,
    ) -> None:
        self._plain = plain
        self._compiler = compiler
        self._compiled: Encoder | None = None
        self._tolerance = _ALIKE.get(dtype, max(_ALIKE.values()))
        self._chunk = batch_size or _CHUNK
        self._tried: set[int] = set()
        self._given_up = False

    def __call__(self, images: Tensor) -> Levels:
        """Return the levels of images (N, 3, S, S): those of the plain encoder, but for rounding.

        Images are taken so many at a time, the last ones filled up with images of nothing, so that few shapes occur.
        """
        if self._given_up or not len(images):
            return self._plain(images)
        parts = [self._fixed(part) for part in torch.split(images, self._chunk)]
        return tuple(torch.cat(levels) for levels in zip(*parts, strict=True))

    def _fixed(self, images: Tensor) -> Levels:
        count = len(images)
        size = 1 if count == 1 else self._chunk
        if self._given_up:
            return self._plain(images)
        try:
            filled = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, size - count))
            levels = self._first(filled) if size not in self._tried else self._run(filled)
        except Exception as error:  # a compiler fails in very many ways, and none of them must stop the work
            if is_out_of_memory(error):
                self._chunk = max(1, self._chunk // 2)
                raise
            self._give_up(f"{type(error).__name__}: {_first_line(error)}")
            return self._plain(images)
        return tuple(level[:count] for level in levels)

    def _run(self, images: Tensor) -> Levels:
        if self._compiled is None:
            self._compiled = self._compiler(self._plain)
        return self._compiled(images)

    def _first(self, images: Tensor) -> Levels:
        """Compile for a number of images, and see that the result is that of the plain encoder."""
        expected = self._plain(images[:1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice is not for the user
            levels = self._run(images)
        for level, right in zip(levels, expected, strict=True):
            difference = float((level[:1] - right).abs().max()) / max(1e-6, float(right.abs().max()))
            if not difference <= self._tolerance:
                raise ArithmeticError(f"its results differ by {difference:.2g} of the largest value")
        self._tried.add(len(images))
        return levels

    def _give_up(self, reason: str) -> None:
        self._given_up = True
        self._compiled = None
        Quiet().warn(
            f"SAM 2 cannot be compiled for this device ({reason}). It runs as it is, which is only slower; without "
            "--compile nothing is tried."
        )


def _first_line(error: Exception) -> str:
    """Return what an error says, in one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else "no reason given"


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
