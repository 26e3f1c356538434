"""The ablation changes what it says, and puts it back."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
from benchmarks.ablation import VARIANTS, changed

from sam2_fewshot import Exemplar, FewShotSegmenter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone

WITH_FUNCTIONS = [name for name, changes in VARIANTS.items() if any(callable(value) for value in changes.values())]


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


@pytest.mark.parametrize("name", WITH_FUNCTIONS)
def test_functions_stand_in_for_those_that_they_replace(
    name: str, filters: Backbone, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    with changed(VARIANTS[name]):
        segmenter = FewShotSegmenter(filters).fit([Exemplar(image, mask=labels == number) for number in range(1, 6)])
        segmenter.segment(image)
