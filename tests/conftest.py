"""Fixtures for the whole suite: a made-up picture, and the embedded model, loaded once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from encoded_once import EncodedOnce
from sam2_fewshot.settings import Settings
from told import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.protocols import Backbone


# A busy machine is no defect, so no test fails for the time that an example takes.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests learn out of the user's cache, and what lies there out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def told() -> Told:
    """A listener that notes what it is told."""
    return Told()


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as PNG, bytes as they are, or anything else as JSON, under a name."""

    def put(name: str, content: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            Image.fromarray(content).save(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content))
        return path

    return put


@pytest.fixture(scope="session")
def micro() -> Sam2Model:
    """The embedded checkpoint on the CPU; the images that tests showed it last it does not encode again."""
    from sam2_fewshot.backbones.sam2 import open_model

    model = open_model("sam2.1_hiera_micro.pt", "cpu", Settings())
    model.encoder = EncodedOnce(model.encoder)
    return model


@pytest.fixture(scope="session")
def filters() -> Backbone:
    """The backbone without a network, for tests of what lies around one: it encodes a tile in some milliseconds."""
    from sam2_fewshot.backbones import open_backbone

    return open_backbone("filters", "cpu", Settings())


@pytest.fixture(scope="session")
def discs() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A picture (160, 200, 3) of bright discs on a noisy ground, one touching the border, and its labels."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:160, :200]
    labels = np.zeros((160, 200), np.int32)
    centres = [(30, 40), (34, 120), (80, 60), (84, 160), (130, 30), (126, 110), (60, 196), (132, 170)]
    for number, (row, column) in enumerate(centres, 1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= (12 + number % 3) ** 2] = number
    grey = np.where(labels > 0, 170, 40) + rng.normal(0, 8, labels.shape)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), labels
