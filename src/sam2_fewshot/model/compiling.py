"""The image encoder translated for the device it runs on, where that is asked for and works."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from sam2_fewshot.errors import FewShotWarning
from sam2_fewshot.model.device import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Levels = tuple[Tensor, ...]
    Encoder = Callable[[Tensor], Levels]

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
            apart = float((level[:1] - right).abs().max()) / max(1e-6, float(right.abs().max()))
            if not apart <= self._tolerance:
                raise ArithmeticError(f"its results differ by {apart:.2g} of the largest value")
        self._tried.add(len(images))
        return levels

    def _give_up(self, reason: str) -> None:
        self._given_up = True
        self._compiled = None
        warnings.warn(
            f"SAM 2 cannot be compiled for this device ({reason}). It runs as it is, which is only slower; without "
            "--compile nothing is tried.",
            FewShotWarning,
            stacklevel=2,
        )


def _first_line(error: Exception) -> str:
    """Return what an error says, in one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else "no reason given"
