"""A large label image is the same as one that is painted at once."""

from __future__ import annotations

import math
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr

from sam2_fewshot.annotations import label_images, ome_zarr
from sam2_fewshot.annotations.label_bands import Bands, hidden_pixels
from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.records import Detection, InstanceMask, Location

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (90, 130)


def crowd(count: int = 120, seed: int = 0) -> list[Detection]:
    """Many objects that overlap and hide one another, some of one pixel."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        height, width = rng.integers(1, 14, 2)
        data = rng.random((height, width)) < 0.8
        data[0, 0] = True
        x0, y0 = int(rng.integers(0, SHAPE[1] - width + 1)), int(rng.integers(0, SHAPE[0] - height + 1))
        mask = InstanceMask(data, x0, y0, SHAPE)
        found.append(Detection(mask, mask_to_polygon(mask), round(float(rng.random()), 1), 0.5, 0.5))
    inside = InstanceMask(np.ones((2, 2), bool), 40, 40, SHAPE)
    over = InstanceMask(np.ones((20, 20), bool), 32, 32, SHAPE)
    return [
        *found,
        Detection(inside, mask_to_polygon(inside), 0.01, 0, 0),
        Detection(over, mask_to_polygon(over), 2, 0, 0),
    ]


def paint(detections: list[Detection], shape: tuple[int, int]) -> np.ndarray:
    """Paint a whole frame in the plainest way."""
    labels = np.zeros(shape, np.uint32)
    scores = [item.score if math.isfinite(item.score) else -math.inf for item in detections]
    order = sorted(range(len(detections)), key=lambda number: -scores[number])
    for number in reversed(order):
        x0, y0, x1, y1 = detections[number].bbox
        labels[y0:y1, x0:x1][detections[number].instance.data] = number + 1
    left = np.bincount(labels.ravel(), minlength=len(detections) + 1)
    for number in order:
        instance = detections[number].instance
        if left[number + 1]:
            continue
        x0, y0, x1, y1 = instance.box
        rows, columns = np.nonzero(instance.data)
        owners = labels[y0:y1, x0:x1][rows, columns]
        richest = int(np.argmax(left[owners]))
        if left[owners[richest]] > 1:
            left[owners[richest]] -= 1
            left[number + 1] = 1
            labels[y0 + rows[richest], x0 + columns[richest]] = number + 1
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_bands_are_the_parts_of_the_whole(seed: int) -> None:
    found = crowd(seed=seed)
    assert np.array_equal(np.concatenate(list(Bands(found, SHAPE).of(16))), paint(found, SHAPE))


@pytest.mark.parametrize("rows", [1, 7, 90, 200])
def test_bands_may_have_any_height(rows: int) -> None:
    found = crowd()
    bands = list(Bands(found, SHAPE, counted=1000).of(rows))
    assert len(bands[0]) == min(rows, SHAPE[0])
    assert np.array_equal(np.concatenate(bands), paint(found, SHAPE))


def test_hidden_pixels_are_counted_in_bands() -> None:
    found = crowd()
    hidden = sum(item.area for item in found) - np.count_nonzero(paint(found, SHAPE))
    assert hidden > 0
    assert hidden_pixels(found, SHAPE) == hidden_pixels(found, SHAPE, counted=1000) == hidden
    assert hidden_pixels([], SHAPE) == 0
    tracemalloc.start()
    assert hidden_pixels(found, (6000, 6000), counted=1 << 18) == hidden
    assert tracemalloc.get_traced_memory()[1] < 6000 * 6000
    tracemalloc.stop()


def test_scores_that_are_no_numbers_count_alike() -> None:
    found = crowd(40)
    for number, score in enumerate((math.nan, math.inf, -math.inf) * 6):
        object.__setattr__(found[2 * number], "score", score)
    assert np.array_equal(np.concatenate(list(Bands(found, SHAPE).of(512))), paint(found, SHAPE))


def test_nothing_found_is_empty_bands() -> None:
    assert not np.concatenate(list(Bands([], SHAPE).of(512))).any()


def test_objects_are_painted_with_their_ids() -> None:
    found = crowd()
    ids = np.random.default_rng(5).permutation(2**32 - 1 - np.arange(len(found)))
    painted = np.concatenate(list(Bands(found, SHAPE, ids.tolist()).of(16)))
    assert np.array_equal(painted, np.array([0, *ids])[paint(found, SHAPE)])


@pytest.mark.parametrize("times", [1, 2])
def test_a_large_file_is_tiled_and_holds_the_same(times: int, tmp_path: Path) -> None:
    found = crowd()
    record = FrameRecord("a", "a", Location(), SHAPE, 1, times, tuple(found))
    with label_images.write(tmp_path / "a.tif", (), record, large=100, tile=16) as add:
        add(record)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages[0].is_tiled
        pixels = tif.asarray().reshape(times, *SHAPE)
    assert np.array_equal(pixels[0], paint(found, SHAPE))
    assert not pixels[1:].any()


@pytest.mark.parametrize("chunk", [16, 13, 1024])
def test_an_ome_zarr_in_bands_holds_the_same(chunk: int, tmp_path: Path) -> None:
    first, second = crowd(seed=1), crowd(seed=2)
    record = FrameRecord("a", "a", Location(), SHAPE, 1, 2, tuple(first))
    with ome_zarr.write(tmp_path / "a.zarr", [], record, chunk) as add:
        for time, found in enumerate((first, second)):
            add(FrameRecord("a", "a", Location(0, 0, time), SHAPE, 1, 2, tuple(found)))
    planes = [paint(found, SHAPE) for found in (first, second)]
    planes[1][planes[1] > 0] += len(first)
    group = zarr.open_group(tmp_path / "a.zarr" / "labels" / "objects", mode="r")
    levels = sorted(group.array_keys())
    assert len(levels) == (1 if chunk > 130 else 5)
    for level in levels:
        step = 2 ** int(level)
        for time, plane in enumerate(planes):
            assert np.array_equal(group[level][time, 0], plane[::step, ::step])


def test_a_large_ome_zarr_takes_little_memory(tmp_path: Path) -> None:
    side = 8192
    mask = InstanceMask(np.ones((40, 40), bool), 5000, 1000, (side, side))
    record = FrameRecord("a", "a", Location(), (side, side), 1, 1, (Detection(mask, mask_to_polygon(mask), 1, 1, 1),))
    tracemalloc.start()
    try:
        with ome_zarr.write(tmp_path / "a.zarr", [], record) as add:
            add(record)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < side * side * 4 / 2
    group = zarr.open_group(tmp_path / "a.zarr" / "labels" / "objects", mode="r")
    assert [np.count_nonzero(group[str(level)][...]) for level in range(4)] == [1600, 400, 100, 25]
