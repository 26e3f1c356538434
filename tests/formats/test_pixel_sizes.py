from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import tifffile
import zarr

from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.ome_zarr import zarr_pixel_size
from sam2_fewshot.images.source import pixel_size
from sam2_fewshot.images.tiff_metadata import tiff_pixel_size
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
    return open_images([path], Settings())[0].header.pixel_size


def test_ome(tmp_path):
    told = {"axes": "YX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, ome=True, metadata={**told, "Channel": {"Name": ["DAPI"]}})
    assert size_of(tmp_path / "a.ome.tif") == PixelSize(0.25, 0.5)
    assert open_images([tmp_path / "a.ome.tif"], Settings())[0].header.channel_names == ("DAPI",)


def test_imagej(tmp_path):
    stack = np.stack([PLANE] * 3)
    told = {"axes": "ZYX", "unit": "um", "spacing": 1.5}
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(4.0, 2.0), metadata=told)
    assert size_of(tmp_path / "a.tif") == PixelSize(0.25, 0.5, 1.5)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({"unit": "micron", "yunit": "sec"}, None),
        ({"unit": "sec", "yunit": "micron"}, None),
        ({"unit": "micron", "yunit": "nm"}, (0.25, 0.0005, 3.0)),
        ({"unit": "micron", "zunit": "nm"}, (0.25, 0.5, 0.003)),
        ({"unit": "micron", "zunit": "sec"}, (0.25, 0.5, None)),
        ({"unit": "nm", "yunit": r"\u00B5m", "zunit": "mm"}, (0.00025, 0.5, 3000.0)),
        ({"yunit": "micron"}, None),
        ({"unit": "micron", "yunit": "", "zunit": " "}, (0.25, 0.5, 3.0)),
    ],
)
def test_imagej_has_a_unit_for_each_axis(tmp_path, units, expected):
    stack = np.stack([PLANE] * 3)
    told = {"axes": "ZYX", "spacing": 3.0, **units}
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(4.0, 2.0), metadata=told)
    found = size_of(tmp_path / "a.tif")
    assert (found and (found.x, found.y, found.z)) == (expected and pytest.approx(expected))


@pytest.mark.parametrize(
    ("resolution", "unit", "more", "expected"),
    [
        (25_400.0, "INCH", {}, PixelSize(1.0, 1.0)),
        (10_000.0, "CENTIMETER", {}, PixelSize(1.0, 1.0)),
        (72.0, "INCH", {}, None),
        (2.0, "NONE", {}, None),
        (25_400.0, "NONE", {"unit": "inch"}, PixelSize(1.0, 1.0)),
        (25_400.0, "NONE", {"unit": '"'}, PixelSize(1.0, 1.0)),
        (4.0, "INCH", {"unit": "um"}, PixelSize(0.25, 0.25)),
    ],
)
def test_units_that_imagej_gives_by_the_resolution_only(tmp_path, resolution, unit, more, expected):
    told = {"imagej": True, "resolution": (resolution, resolution), "resolutionunit": unit, "metadata": more}
    tifffile.imwrite(tmp_path / "a.tif", PLANE, **told)
    found = size_of(tmp_path / "a.tif")
    assert found == (expected and PixelSize(pytest.approx(expected.x), pytest.approx(expected.y)))


def test_a_printers_resolution_is_not_a_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, resolution=(72, 72), resolutionunit="INCH")
    assert size_of(tmp_path / "a.tif") is None


def test_a_slide_scanners_file_is_found_in_its_folder_with_its_pixel_size(tmp_path):
    head = "Aperio Image Library v11.2.1\r\n46000x32914 (240x240) JPEG/RGB Q=30"
    with tifffile.TiffWriter(tmp_path / "slide.svs") as file:
        for part, more in ((PLANE, "|AppMag = 20|MPP = 0.4990|Left = 25.7"), (PLANE[::2, ::2], "")):
            file.write(part, description=head + more, metadata=None)
    (image,) = open_images([tmp_path], Settings())
    assert image.name == "slide.svs"
    assert size_of(tmp_path / "slide.svs") == PixelSize(0.499, 0.499)


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


def told_by_zarr(units, *scales, axes="zyx", whole=None):
    named = [{"name": axis, **({"unit": unit} if unit else {})} for axis, unit in zip(axes, units, strict=True)]
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for n, scale in enumerate(scales)
    ]
    over = {} if whole is None else {"coordinateTransformations": [{"type": "scale", "scale": whole}]}
    return {"axes": named, "datasets": datasets, **over}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (told_by_zarr(["micrometer"] * 3, [2, 0.5, 0.25], [2, 1, 0.5]), PixelSize(0.25, 0.5, 2)),
        (told_by_zarr(["millimeter", "nanometer", "micrometer"], [0.001, 500, 0.25]), PixelSize(0.25, 0.5, 1)),
        (told_by_zarr(["", "nanometer", "nanometer"], [3, 500, 250]), PixelSize(0.25, 0.5)),
        (told_by_zarr(["micrometer"] * 3, [1, 1, 1], whole=[3, 0.5, 0.25]), PixelSize(0.25, 0.5, 3)),
        (told_by_zarr(["micrometer"] * 3, [2, 0.5, 2], whole=[3, 0.5, 0.25]), PixelSize(0.5, 0.25, 6)),
        (told_by_zarr([""] * 3, [2, 0.5, 0.25]), None),
        (told_by_zarr(["micrometer", "micrometer", ""], [2, 0.5, 0.25]), None),
        (told_by_zarr(["micrometer", "second", "second"], [2, 0.5, 0.25]), None),
        (told_by_zarr(["micrometer"] * 3, [2, 0.5]), None),
        (told_by_zarr(["micrometer"] * 3, [2, 0.5, "wide"]), None),
        (told_by_zarr(["micrometer"] * 3, [2, 0.5, 10**400]), None),
        (told_by_zarr(["micrometer"] * 3, [2, -1, 1]), None),
        ({**told_by_zarr(["micrometer"] * 3), "datasets": [{"path": "0"}]}, None),
        ({"axes": ["y", "x"], "datasets": [{"path": "0"}]}, None),
        ({"datasets": [{"path": "0"}]}, None),
        (3, None),
    ],
)
def test_scales_of_ome_zarr(told, expected):
    assert zarr_pixel_size(told) == expected


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr(tmp_path, version):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    for level in range(2):
        group.create_array(str(level), data=PLANE[None, :: 2**level, :: 2**level])
    units = ["micrometer", "nanometer", "nanometer"]
    told = {"multiscales": [told_by_zarr(units, [2, 500, 250], [2, 1000, 500])]}
    group.attrs.update({"ome": {"version": "0.5", **told}} if version == 3 else told)
    assert size_of(tmp_path / "a.zarr") == PixelSize(0.25, 0.5, 2)
