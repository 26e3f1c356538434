from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import tifffile

from sam2_fewshot.readers import open_images
from sam2_fewshot.readers.pixel_size import pixel_size, tiff_pixel_size
from sam2_fewshot.records import PixelSize
from sam2_fewshot.settings import Settings

PLANE = np.arange(600, dtype=np.uint16).reshape(20, 30)


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [
        ((0.5, 0.25, 2), "µm", PixelSize(0.5, 0.25, 2)),
        (("500", "250"), "nm", PixelSize(0.5, 0.25)),
        ((1, 2, -1), " Microns ", PixelSize(1, 2)),
        ((1e-3, 1e-3), "MM", PixelSize(1, 1)),
        ((1, 1), "pixel", None),
        ((1, 1), "", None),
        ((0, 1), "µm", None),
        ((float("nan"), 1), "µm", None),
        ((float("inf"), 1), "µm", None),
        ((None, 1), "µm", None),
        (("x", 1), "µm", None),
        ((10**400, 1), "µm", None),
    ],
)
def test_units_and_nonsense(size, unit, expected):
    found = pixel_size(*size, unit=unit)
    if expected is None:
        assert found is None
    else:
        assert (found.x, found.y, found.z) == pytest.approx((expected.x, expected.y, expected.z))
        assert found.area == pytest.approx(expected.x * expected.y)


def size_of(path):
    return open_images([path], Settings())[0].pixel_size


def test_ome(tmp_path):
    told = {"axes": "YX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, ome=True, metadata={**told, "Channel": {"Name": ["DAPI"]}})
    assert size_of(tmp_path / "a.ome.tif") == PixelSize(0.25, 0.5)
    assert open_images([tmp_path / "a.ome.tif"], Settings())[0].channel_names == ("DAPI",)


def test_imagej(tmp_path):
    stack = np.stack([PLANE] * 3)
    told = {"axes": "ZYX", "unit": "um", "spacing": 1.5}
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(4.0, 2.0), metadata=told)
    assert size_of(tmp_path / "a.tif") == PixelSize(0.25, 0.5, 1.5)


def test_a_printers_resolution_is_not_a_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, resolution=(72, 72), resolutionunit="INCH")
    assert size_of(tmp_path / "a.tif") is None


def test_lsm_and_damaged_metadata():
    class Told:
        is_ome, is_lsm, is_imagej = False, True, False
        lsm_metadata: ClassVar = {"VoxelSizeX": 2e-7, "VoxelSizeY": 3e-7, "VoxelSizeZ": 0}

    assert tiff_pixel_size(Told()) == PixelSize(pytest.approx(0.2), pytest.approx(0.3))
    Told.lsm_metadata = None
    assert tiff_pixel_size(Told()) is None
    Told.is_ome, Told.ome_metadata = True, "<OME><Image/></OME>"
    assert tiff_pixel_size(Told()) is None
    Told.ome_metadata = "<OME"
    assert tiff_pixel_size(Told()) is None
