"""The engine's few words about the machine."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.nimbus import engine
from sam2_fewshot.rendering import as_frame

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model


@pytest.mark.parametrize(
    ("version", "system", "machine", "expected"),
    [
        ("2.9.0", "Linux", "x86_64", True),
        ("2.9.0+cu126", "Linux", "aarch64", True),
        ("2.9.0+cpu", "Linux", "x86_64", False),
        ("2.9.0", "Linux", "aarch64", False),
        ("2.9.0", "Darwin", "arm64", False),
    ],
)
def test_a_gpu_is_missed_only_where_torch_could_use_one(
    monkeypatch: pytest.MonkeyPatch, version: str, system: str, machine: str, expected: bool
) -> None:
    monkeypatch.setattr(engine, "version", lambda package: version)
    monkeypatch.setattr(engine.platform, "system", lambda: system)
    monkeypatch.setattr(engine.platform, "machine", lambda: machine)
    assert engine._built_for_gpu() is expected


def test_without_torch_no_gpu_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(engine, "version", missing)
    assert engine._built_for_gpu() is False


def test_where_the_scores_are_cut_is_told_if_it_was_chosen(
    micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    class Chosen(engine.FewShotEngine):
        def __init__(self, settings: Settings) -> None:
            self._segmenter = FewShotSegmenter(micro, settings=settings)

    image, labels = discs
    settings = Settings(method="grid", points_per_side=16, threshold_mode="top", top_percent=50)
    finder = Chosen(settings)
    finder.fit([Exemplar(image=image, mask=labels == 1)])
    finder.segment(as_frame(image, settings))
    assert "The score is cut at 0." in finder.cut
    assert "the best 50 %" in finder.cut
