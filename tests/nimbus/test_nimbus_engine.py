"""The engine's few words about the machine."""

from __future__ import annotations

from importlib import metadata

import pytest

from sam2_fewshot.nimbus import engine


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
