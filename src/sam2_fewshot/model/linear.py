"""Linear layers on a CPU through oneDNN.

PyTorch hands float32 matrix products on a CPU to the BLAS library it was built with, after copying the bias into the
result. oneDNN, which it uses for convolutions anyway, does both at once, and picks its kernels by what the processor
can do, whoever made it: on an AMD EPYC the encoder's layers take a third of the time. The sums are the same but for the
order of their terms.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
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
    if torch.compiler.is_compiling():  # it cannot look into the operator, and makes something of its own
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
    x, weight, bias = torch.arange(12.0).reshape(1, 3, 4), torch.arange(8.0).reshape(2, 4), torch.ones(2)
    try:
        found = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    return torch.allclose(found, functional.linear(x, weight, bias))
