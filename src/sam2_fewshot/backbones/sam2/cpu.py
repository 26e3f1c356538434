"""What makes SAM 2 fast on a CPU: oneDNN's linear layers, attention to few keys, memory that is reused."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias`` as :func:`torch.nn.functional.linear` does.

    Parameters
    ----------
    x
        (..., in).
    weight
        (out, in).
    bias
        (out,), or None.
    """
    # The operator has no derivative, and autocasting to another precision is not its business.
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.numel() > 0
    if torch.compiler.is_compiling():  # it does not know the operator, and makes something of its own
        return functional.linear(x, weight, bias)
    if plain and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu") and _has_onednn():
        fast: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return fast
    return functional.linear(x, weight, bias)


class OneDnnLinear(nn.Linear):
    """A linear layer that goes through :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output."""
        return linear(input, self.weight, self.bias)


def use_onednn(network: nn.Module) -> None:
    """Let all linear layers of a network go through :func:`linear`; weights and names stay as they are."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear


@cache
def _has_onednn() -> bool:
    """Tell whether this build of PyTorch has the operator, which is not of its public interface, and it is right."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x, weight, bias = (torch.arange(count, dtype=torch.float32) for count in (12, 8, 2))
    x, weight = x.reshape(1, 3, 4), weight.reshape(2, 4)
    try:
        found = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    return torch.allclose(found, functional.linear(x, weight, bias))


_FEW_KEYS = 32
"""Keys up to which attention is computed by :func:`_attention_to_few` on a CPU."""


class Projection:
    """Several linear layers of the same image tokens, as one matrix product.

    A linear layer of ``image + position`` is that of ``image`` plus that of ``position``; the second part is the same
    for every prompt, and is computed once.

    Parameters
    ----------
    layers
        Linear layers from C channels.
    positioned
        Whether each takes the image tokens with the positional encoding added.
    position
        (1, L, C), the positional encoding.
    """

    def __init__(self, layers: Sequence[Any], positioned: Sequence[bool], position: Tensor) -> None:
        self._weight = torch.cat([layer.weight for layer in layers])
        self._sizes = [len(layer.weight) for layer in layers]
        offsets = [
            layer(position) if add else layer.bias.expand(1, position.shape[1], -1)
            for layer, add in zip(layers, positioned, strict=True)
        ]
        self._offset = torch.cat(offsets, dim=-1)

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return what each layer makes of image tokens (N, L, C)."""
        products = linear(image, self._weight)
        # In place: with many prompts, taking and filling memory costs as much as the products.
        products += self._offset
        return torch.split(products, self._sizes, dim=-1)


def attend(attention: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Multi-head attention of projected queries, keys and values; one side may be shared by all prompts."""
    heads, prompts = attention.num_heads, max(len(queries), len(keys))
    if len(keys) == 1 and len(queries) > 1:
        # All prompts have the same keys: one long attention instead of many short ones over copies.
        length = queries.shape[1]
        folded = attend(attention, queries.reshape(1, -1, queries.shape[-1]), keys, values)
        return folded.reshape(prompts, length, -1)

    if queries.device.type == "cpu" and keys.shape[1] <= _FEW_KEYS:
        return attention.out_proj(_attention_to_few(heads, queries, keys, values))  # type: ignore[no-any-return]

    def split(x: Tensor) -> Tensor:
        return x.reshape(len(x), x.shape[1], heads, -1).transpose(1, 2).expand(prompts, -1, -1, -1)

    out = functional.scaled_dot_product_attention(split(queries), split(keys), split(values))
    result: Tensor = attention.out_proj(out.transpose(1, 2).flatten(2))
    return result


def _attention_to_few(heads: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the heads' answers (N, q, C) of many queries to a few keys, N of each.

    The weights lie with the queries next to each other in memory, so that a CPU's vector units are used although there
    are few keys and heads are narrow. With 1024 queries, 8 keys and heads of 8 this takes half the time of
    ``scaled_dot_product_attention``.
    """
    q, k, v = (x.reshape(len(x), x.shape[1], heads, -1) for x in (queries, keys, values))
    weights = torch.einsum("nqhd,nkhd->nhkq", q * q.shape[-1] ** -0.5, k).softmax(2)
    return torch.einsum("nhkq,nkhd->nqhd", weights, v).flatten(2)


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Their numbers in glibc's ``malloc.h``."""
_IN_HEAP = 32 << 20
"""Bytes; the largest that glibc allows."""
_RETAINED = 256 << 20


def reuse_memory(library: Any = None) -> bool:
    """Make glibc retain what was freed, up to 256 MB, for the whole of this process.

    A network on a CPU allocates and frees tensors of megabytes hundreds of times a second. Where these come fresh from
    the system, each of their pages is made and cleared anew. By default glibc learns from that, after a while and
    partly; but Dask starts its workers with ``MALLOC_TRIM_THRESHOLD_=65536``, which turns the learning off: a frame
    then took 1.6 times as long.

    Parameters
    ----------
    library
        The C library; None for the one that this process has loaded.

    Returns
    -------
    bool
        Whether there is a glibc that took it. Other systems' allocators have no such setting.
    """
    try:
        if library is None:
            library = ctypes.CDLL(None) if sys.platform.startswith("linux") else object()
        mallopt = library.mallopt
    except (AttributeError, OSError):  # neither has musl
        return False
    # Either alone turns off what glibc adapts by itself, so both have to be set.
    return bool(mallopt(_MMAP_THRESHOLD, _IN_HEAP)) and bool(mallopt(_TRIM_THRESHOLD, _RETAINED))
