"""Objects on frames, files of them in any format, and a listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.records import Detection, InstanceMask, Location, PixelSize
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sam2_fewshot.annotations.placing import PlacedExemplar
    from sam2_fewshot.images.image_set import ImageSet
    from told import Told


@pytest.fixture
def cells(put: Callable[..., Path], told: Told) -> ImageSet:
    """One image called cells.png, 80 wide and 60 high."""
    plane = (np.arange(4800).reshape(60, 80) % 251).astype(np.uint8)
    return open_images([put("cells.png", plane)], Settings(), progress=told)


@pytest.fixture
def examples_in(cells: ImageSet, told: Told) -> Callable[..., list[PlacedExemplar]]:
    """Read examples on cells.png."""

    def read(path: Path, training: str | None = None, negative: str | None = None) -> list[PlacedExemplar]:
        return read_examples(path, cells, training, negative, told)

    return read


@pytest.fixture
def blob() -> Callable[..., Detection]:
    """Make a detection with a ragged mask that its outline describes exactly, of one part and without holes."""

    def make(seed: int, shape: tuple[int, int] = (60, 80), place: Location | None = None) -> Detection:
        random = np.random.default_rng(seed)
        heights = random.integers(3, 9, 8)
        data = np.arange(9)[:, None] <= heights
        x0, y0 = (seed * 9) % (shape[1] - 8), (seed * 9) // (shape[1] - 8) * 10 % (shape[0] - 9)
        rows = data.any(axis=1)
        instance = InstanceMask(data[rows], x0, y0, shape)
        score, similarity, iou = random.random(3).tolist()
        return Detection(instance, mask_to_polygon(instance), score, similarity, iou, place or Location())

    return make


@pytest.fixture
def frame_of(blob: Callable[..., Detection]) -> Callable[..., FrameRecord]:
    """Make the record of a frame with some objects that do not touch."""

    def make(
        objects: int = 5, place: Location | None = None, name: str = "cells.png", size_z: int = 1, size_t: int = 1
    ) -> FrameRecord:
        place = place or Location()
        return FrameRecord(
            name=name,
            stem=name.rsplit(".", 1)[0],
            location=place,
            frame_shape=(60, 80),
            size_z=size_z,
            size_t=size_t,
            detections=tuple(blob(n + 7 * place.z + 17 * place.time, place=place) for n in range(objects)),
            pixel_size=PixelSize(0.5, 0.25, 2.0),
            channel_names=("DAPI",),
        )

    return make
