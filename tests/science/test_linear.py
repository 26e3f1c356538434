"""Linear layers through oneDNN give what PyTorch's own give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sam2_fewshot.backbones.sam2.cpu import OneDnnLinear, linear, use_onednn


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (2, 5, 4, 3)])
@pytest.mark.parametrize("biased", [True, False])
def test_equals_the_layer_of_pytorch(shape: tuple[int, ...], biased: bool) -> None:
    layer = nn.Linear(3, 7, bias=biased)
    x = torch.randn(shape)
    with torch.inference_mode():
        assert torch.allclose(linear(x, layer.weight, layer.bias), layer(x), atol=1e-6)


def test_learns_where_derivatives_are_wanted() -> None:
    layer = nn.Linear(3, 7)
    linear(torch.randn(2, 3), layer.weight, layer.bias).sum().backward()
    assert layer.weight.grad is not None


def test_leaves_other_precisions_alone() -> None:
    layer, x = nn.Linear(3, 7), torch.randn(2, 3)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert linear(x, layer.weight, layer.bias).dtype == torch.bfloat16


def test_changes_the_way_and_not_the_weights() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    before, x = network.state_dict(), torch.randn(5, 3)
    with torch.inference_mode():
        plain = network(x)
        use_onednn(network)
        assert torch.allclose(network(x), plain, atol=1e-6)
    assert [type(module) for module in network] == [OneDnnLinear, nn.ReLU, OneDnnLinear]
    assert list(network.state_dict()) == list(before)
