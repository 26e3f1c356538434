from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from shapely import box

from sam2_fewshot.annotations import label_images
from sam2_fewshot.annotations.label_bands import Bands
from sam2_fewshot.annotations.record import Add, FrameRecord
from sam2_fewshot.annotations.registry import a_file_an_image
from sam2_fewshot.records import Detection, InstanceMask, Location

Make = Callable[..., FrameRecord]


def label_files(folder: Path) -> AbstractContextManager[Add]:
    """Write one label image an image."""
    return a_file_an_image(lambda first: label_images.write(folder / f"{first.stem}.tif", (), first))


def square(x0: int, y0: int, side: int, score: float, shape: tuple[int, int] = (20, 20)) -> Detection:
    mask = InstanceMask(np.ones((side, side), bool), x0, y0, shape)
    return Detection(mask, box(x0, y0, x0 + side, y0 + side), score, score, score)


def paint(found: Sequence[Detection], shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Return the label image (H, W) of a frame."""
    return np.concatenate(list(Bands(found, shape).of(shape[0])))


def test_objects_apart_come_back_exactly() -> None:
    found = [square(0, 0, 3, 0.9), square(10, 4, 5, 0.8), square(17, 17, 3, 0.7)]
    labels = paint(found, (20, 20))
    for number, item in enumerate(found, start=1):
        assert np.array_equal(labels == number, item.mask)


def test_the_higher_score_wins_and_the_first_of_equals() -> None:
    labels = paint([square(0, 0, 4, 0.1), square(2, 2, 4, 0.9), square(4, 4, 4, 0.9)], (20, 20))
    assert labels[2, 2] == 2
    assert labels[4, 4] == 2
    assert labels[0, 0] == 1
    assert labels[7, 7] == 3


def test_a_hidden_object_keeps_a_pixel() -> None:
    found = [square(5, 5, 2, 0.1), square(0, 0, 12, 0.9), square(5, 5, 3, 0.5), square(6, 6, 1, 0.2)]
    labels = paint(found, (20, 20))
    assert set(np.unique(labels).tolist()) == {0, 1, 2, 3, 4}
    for number, item in enumerate(found, start=1):
        assert not (labels == number)[~item.mask].any()


def test_more_objects_than_pixels_hide_the_weakest() -> None:
    labels = paint([square(0, 0, 1, 0.3), square(0, 0, 1, 0.5)], (2, 2))
    assert labels.tolist() == [[2, 0], [0, 0]]


def test_an_empty_mask_leaves_no_trace() -> None:
    nothing = Detection(InstanceMask(np.zeros((0, 0), bool), 0, 0, (4, 4)), box(0, 0, 1, 1), 1, 1, 1)
    assert paint([nothing], (4, 4)).max() == 0


def test_one_plane_gives_a_flat_16_bit_image(tmp_path: Path, make_record: Make) -> None:
    record = make_record(4)
    with label_files(tmp_path) as add:
        add(record)
    labels = tifffile.imread(tmp_path / "cells.tif")
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, paint(record.detections, record.frame_shape))
    assert [path.name for path in tmp_path.iterdir()] == ["cells.tif"]


def test_nothing_found_gives_a_black_image(tmp_path: Path, make_record: Make) -> None:
    with label_files(tmp_path) as add:
        add(make_record(0))
    labels = tifffile.imread(tmp_path / "cells.tif")
    assert labels.shape == (60, 80)
    assert labels.max() == 0


def test_a_stack_has_the_planes_that_were_done_in_their_places(tmp_path: Path, make_record: Make) -> None:
    places = [Location(0, z, t) for z in (0, 2) for t in (0, 1)]
    records = [make_record(3 + place.z + place.time, place, size_z=3, size_t=2) for place in places]
    with label_files(tmp_path) as add:
        for record in records:
            add(record)
    with tifffile.TiffFile(tmp_path / "cells.tif") as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == "TZYX"
        stack = tiff.asarray()
    assert stack.shape == (2, 3, 60, 80)
    assert not stack[:, 1].any()
    for record in records:
        plane = stack[record.location.time, record.location.z]
        assert np.array_equal(plane, paint(record.detections, record.frame_shape))


def test_the_same_finds_give_the_same_bytes(tmp_path: Path, make_record: Make) -> None:
    for name in ("a", "b"):
        with label_files(tmp_path / name) as add:
            add(make_record(3, size_z=2))
    assert (tmp_path / "a" / "cells.tif").read_bytes() == (tmp_path / "b" / "cells.tif").read_bytes()


def test_more_than_65535_objects_take_32_bits(tmp_path: Path, make_record: Make) -> None:
    shape = (300, 300)
    pixel, outline = np.ones((1, 1), bool), box(0, 0, 1, 1)
    found = tuple(
        Detection(InstanceMask(pixel, number % 300, number // 300, shape), outline, 0.5, 0.5, 0.5)
        for number in range(70_000)
    )
    record = replace(make_record(0, shape=shape), detections=found)
    with label_files(tmp_path) as add:
        add(record)
    labels = tifffile.imread(tmp_path / "cells.tif")
    assert labels.dtype == np.uint32
    assert np.array_equal(labels.ravel()[:70_000], np.arange(1, 70_001))
    with label_files(tmp_path) as add:
        add(replace(record, detections=found[:65_535]))
    assert tifffile.imread(tmp_path / "cells.tif").dtype == np.uint16


def test_an_interrupted_stack_leaves_the_earlier_file(tmp_path: Path, make_record: Make) -> None:
    (tmp_path / "cells.tif").write_text("earlier")

    def interrupted() -> None:
        with label_files(tmp_path) as add:
            add(make_record(3, size_t=2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "cells.tif").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1
