"""The ablation changes what it says, and puts it back."""

from __future__ import annotations

import importlib

import pytest
from benchmarks.ablation import VARIANTS, changed


@pytest.mark.parametrize("constants", VARIANTS.values(), ids=VARIANTS)
def test_constants_exist_and_are_put_back(constants: dict[str, object]) -> None:
    def values() -> list[object]:
        return [
            getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2]) for path in constants
        ]

    before = values()
    with changed(constants):
        assert values() == list(constants.values())
    assert values() == before
    assert all(old != new for old, new in zip(before, constants.values(), strict=True))
