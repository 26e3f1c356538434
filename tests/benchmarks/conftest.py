"""The benchmarks are not installed: they are imported from the repository's root. A folder of marked images."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture
def data(tmp_path):
    """A data folder with hashed names, a single frame, and two classes of which the truth is rough."""

    from quality_world import picture

    def put(folder, name, classes, listed):
        made = picture(name, classes)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made.image).save(folder / f"{name}.png")
        Image.fromarray(made.labels.astype(np.uint16)).save(folder / f"{name}_labels.png")
        if listed:
            (folder / f"{name}_classes.json").write_text(json.dumps({str(k): v for k, v in made.classes.items()}))

    for i in range(4):
        put(tmp_path / "dev" / "cells", f"round_0000000{i}", ["x"] * 8, listed=False)
        put(tmp_path / "fewshot" / "live_dead_cells", f"f{i}", ["living"] * 6 + ["dead"] * 4, listed=True)
    put(tmp_path / "dev" / "cells", "long_0123abcd", ["x"] * 8, listed=False)
    (tmp_path / "dev" / "SOURCE.md").write_text("not a dataset")
    return tmp_path
