"""The training pipeline is not installed: it is imported from the repository's root."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from training.config import Config, read_config
from training.scenes import scene


@pytest.fixture(scope="session")
def tiny() -> Config:
    return read_config(
        image_size=128,
        batch=2,
        scene_pool=6,
        scenes_first=3,
        scenes_per_step=1,
        workers=0,
        clicks=3,
        background_clicks=1,
        boxes=2,
        contrast_objects=8,
        contrast_background=4,
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands in for the real images: two data sets, two picture sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in (("one", 96), ("two", 128)):
        (folder / name).mkdir()
        for index in range(2):
            item = scene(900 + index, size=size, family="fluorescence")
            Image.fromarray(item.image).save(folder / name / f"{index}.png")
            Image.fromarray(item.labels.astype(np.uint16)).save(folder / name / f"{index}_labels.png")
    return folder
