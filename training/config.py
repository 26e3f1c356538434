"""Read the settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config:
    """The settings of ``config.yaml``; see the comments there."""

    seed: int
    architecture: str
    frozen: tuple[str, ...]
    image_size: int
    batch: int
    scene_share: float
    scene_pool: int
    scenes_first: int
    scenes_per_step: int
    whole_share: float
    object_pixels: tuple[float, float]
    workers: int
    clicks: int
    background_clicks: int
    boxes: int
    contrast_objects: int
    contrast_background: int
    weight_mask: float
    weight_iou: float
    weight_object: float
    weight_contrast: float
    weight_dense: float
    weight_stability: float
    learning_rate: float
    final_share: float
    warmup_steps: int
    weight_decay: float
    clip: float
    ema: float

    @property
    def grid(self) -> int:
        """Side of the coarsest feature map, in cells."""
        return self.image_size // 16

    @property
    def prompts(self) -> int:
        """Number of prompts of one image."""
        return self.clicks + self.background_clicks + self.boxes


def read_config(path: Path | None = None, **changes: Any) -> Config:
    """Read a configuration file.

    Parameters
    ----------
    path
        A YAML file; ``config.yaml`` beside this module if left out.
    **changes
        Settings that replace those of the file.

    Returns
    -------
    Config
        The settings.

    Raises
    ------
    ValueError
        If a setting is missing or unknown.
    """
    path = path or HERE / "config.yaml"
    raw = {**yaml.safe_load(path.read_text()), **changes}
    known = {field.name for field in fields(Config)}
    if set(raw) != known:
        wrong = ", ".join(sorted(set(raw) ^ known))
        raise ValueError(f"{path.name}: these settings are missing or unknown: {wrong}.")
    raw["frozen"] = tuple(raw["frozen"])
    raw["object_pixels"] = tuple(raw["object_pixels"])
    return Config(**raw)
