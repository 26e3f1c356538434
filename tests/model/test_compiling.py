"""The compiled encoder gives what the plain one gives, or is given up."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from sam2_fewshot.backbones.sam2 import open_model
from sam2_fewshot.backbones.sam2.encoder import CompiledEncoder, ImageEncoder, inductor
from sam2_fewshot.backbones.sam2.network import Sam2Model
from sam2_fewshot.errors import FewShotWarning
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam2_fewshot.backbones.sam2.encoder import Encoder, Levels


class Tiny(nn.Module):
    """An image encoder that has three levels and takes no time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(3, 4, size, stride=size) for size in (2, 4, 8))

    def forward(self, images: torch.Tensor) -> Levels:
        return tuple(layer(images) for layer in self.layers)


class Watching:
    """A compiler that compiles nothing and remembers the shapes."""

    def __init__(self, change: Callable[[Levels], Levels] = lambda levels: levels) -> None:
        self.shapes: list[int] = []
        self.change = change

    def __call__(self, encode: Encoder) -> Encoder:
        def run(images: torch.Tensor) -> Levels:
            self.shapes.append(len(images))
            return self.change(encode(images))

        return run


IMAGES = torch.rand(11, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def same(plain: Tiny, encoder: CompiledEncoder, images: torch.Tensor) -> bool:
    with torch.inference_mode():
        levels, expected = encoder(images), plain(images)
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(levels, expected, strict=True))


def test_only_two_shapes_occur() -> None:
    plain, watching = Tiny(), Watching()
    encoder = CompiledEncoder(plain, batch_size=4, compiler=watching)
    for count in (11, 3, 1, 4, 2):
        assert same(plain, encoder, IMAGES[:count])
    assert watching.shapes == [4, 4, 4, 4, 1, 4, 4]
    assert same(plain, encoder, IMAGES[:0])


def test_the_tracer_of_pytorch_gives_the_same() -> None:
    plain = Tiny()
    encoder = CompiledEncoder(plain, batch_size=4, compiler=lambda f: torch.compile(f, backend="eager", dynamic=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FewShotWarning)
        assert same(plain, encoder, IMAGES)
        assert same(plain, encoder, IMAGES[:1])


def refusing(encode: Encoder) -> Encoder:
    raise RuntimeError("\n no C compiler was found.\nlong explanation")


def failing(encode: Encoder) -> Encoder:
    def run(images: torch.Tensor) -> Levels:
        raise KeyError("cpu backend")

    return run


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        (refusing, "RuntimeError: no C compiler was found"),
        (failing, "cpu backend"),
        (Watching(lambda levels: tuple(level * 1.1 for level in levels)), "its results differ by"),
        (Watching(lambda levels: tuple(level * torch.nan for level in levels)), "its results differ by nan"),
    ],
)
def test_where_it_fails_it_is_given_up_with_a_warning(compiler: Callable[[Encoder], Encoder], why: str) -> None:
    plain = Tiny()
    encoder = CompiledEncoder(plain, batch_size=4, compiler=compiler)
    with pytest.warns(FewShotWarning, match=why) as caught:
        assert same(plain, encoder, IMAGES)
    assert len(caught) == 1
    assert same(plain, encoder, IMAGES)  # it is said once


def test_memory_that_runs_out_is_no_failure_of_the_compiler() -> None:
    def hungry(levels: Levels) -> Levels:
        if len(levels[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return levels

    plain = Tiny()
    encoder = CompiledEncoder(plain, batch_size=4, compiler=Watching(hungry))
    with pytest.raises(torch.OutOfMemoryError):
        encoder(IMAGES[:4])
    assert same(plain, encoder, IMAGES[:4])  # two at a time from then on


@pytest.mark.slow
def test_the_model_works_with_a_compiled_encoder(micro: Sam2Model) -> None:
    """Linear layers leave oneDNN while they are traced, since the compiler cannot look into it."""
    encoder = CompiledEncoder(
        ImageEncoder(micro.network), batch_size=2, compiler=lambda f: torch.compile(f, backend="eager", dynamic=False)
    )
    compiled = Sam2Model(
        micro.network, name="micro", sha256="", gates=micro.gates, device=micro.device, batch_size=2, encoder=encoder
    )
    images = list(np.random.default_rng(0).integers(0, 256, (3, 64, 80, 3), dtype=np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FewShotWarning)
        windows = [(0, 0, 80, 64), (10, 0, 74, 64), (5, 5, 30, 30)]
        for ours, plain in zip(compiled.tiles(images[0], windows), micro.tiles(images[0], windows), strict=True):
            assert torch.allclose(ours.embedding.image_embed, plain.embedding.image_embed, atol=1e-4)
        assert torch.allclose(compiled.embed(images[0]).image_embed, micro.embed(images[0]).image_embed, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the compiler, which are not ours to mend
def test_the_real_compiler_gives_the_same(micro: Sam2Model) -> None:
    model = open_model("sam2.1_hiera_micro.pt", "cpu", Settings(compile=True))
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FewShotWarning)
        ours, plain = model.embed(image), micro.embed(image)
    assert torch.allclose(ours.image_embed, plain.image_embed, atol=1e-3)
    for mine, theirs in zip(ours.high_res, plain.high_res, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-3)


def test_it_is_off_unless_asked_for(micro: Sam2Model) -> None:
    assert Settings().compile is False
    assert not isinstance(micro.encoder, CompiledEncoder)
    asked = open_model("sam2.1_hiera_micro.pt", "cpu", Settings(compile=True)).encoder
    assert isinstance(asked, CompiledEncoder)
    assert asked._compiler is inductor
