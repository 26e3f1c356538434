"""Large TIFF files are read by region, and a region is what it is in the whole."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.display import frame_exposures, parse_channels
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.registry import open_source
from sam2_fewshot.images.source import RegionSource
from sam2_fewshot.rendering.contrast import bounded
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4000, (2, 300, 410)).astype(np.uint16)
RGB = RNG.integers(0, 255, (300, 410, 3)).astype(np.uint8)
FLOAT = RNG.normal(size=(300, 410, 3)).astype(np.float32)
BOX = (130, 70, 400, 299)
TILE = {"tile": (64, 64)}

FILES = {
    "tiled channels": (DEEP, {**TILE, "compression": "zlib", "ome": True, "metadata": {"axes": "CYX"}}),
    "strips": (DEEP[0], {"rowsperstrip": 32, "compression": "lzw"}),
    "jpeg photo": (RGB, {**TILE, "photometric": "rgb", "compression": "jpeg"}),
    "samples apart": (np.moveaxis(RGB, -1, 0), {**TILE, "photometric": "rgb", "planarconfig": "separate"}),
    "raw photo": (RGB, {"photometric": "rgb"}),
    "float photo": (FLOAT, {**TILE, "photometric": "rgb"}),
    "inverted": (RGB[..., 0], {**TILE, "photometric": "miniswhite"}),
    "slices": (DEEP, {**TILE, "ome": True, "metadata": {"axes": "ZYX"}}),
    "one strip": (DEEP[0], {"rowsperstrip": 300, "compression": "zlib"}),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_region_is_what_it_is_in_the_whole(kind: str, tmp_path: Path) -> None:
    content, options = FILES[kind]
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, content, **options)
    z = 1 if kind == "slices" else 0
    (image,) = open_images([path], Settings())
    whole = image.frame(z).read()
    (image,) = open_images([path], Settings(), whole_plane=10)
    assert image.header.by_region == (kind != "one strip")
    assert np.array_equal(image.frame(z).read(BOX), whole[BOX[1] : BOX[3], BOX[0] : BOX[2]])
    assert np.array_equal(image.frame(z).read(), whole)


def test_only_the_tiles_of_the_region_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, RGB, **TILE, photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as tif:
        far = tif.pages[0].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[far : far + 20] = bytes(20)
    path.write_bytes(content)
    source = open_source(path)
    (plane,) = source.region(0, 0, BOX)
    assert np.array_equal(plane, RGB[BOX[1] : BOX[3], BOX[0] : BOX[2]])
    with pytest.raises(InputError, match=r"image\.tif cannot be read"):
        list(source.region(0, 0, (0, 0, 9, 9)))


def test_a_file_that_was_cut_off_since_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, RGB, **TILE, photometric="rgb", compression="zlib")
    (image,) = open_images([path], Settings(), whole_plane=10)
    with tifffile.TiffFile(path) as tif:
        last = tif.pages[0].dataoffsets[-1]
    with path.open("r+b") as file:
        file.truncate(last + 5)
    with pytest.raises(InputError, match=r"image\.tif cannot be read as an image.*Copy or export it again"):
        image.frame().read(BOX)
    with pytest.raises(InputError, match="should have at least"):
        open_source(path)


def test_missing_tiles_of_a_sparse_file_are_black(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tiles = iter([RGB[:64, :64], None, None, np.ascontiguousarray(RGB[64:128, 64:128])])
    tifffile.imwrite(path, tiles, shape=(128, 128, 3), dtype=np.uint8, **TILE, photometric="rgb")
    (read,) = open_source(path).region(0, 0, (32, 32, 128, 100))
    assert not read[:32, 32:].any()
    assert np.array_equal(read[32:, 32:], RGB[64:100, 64:128])


def pyramid(path: Path) -> None:
    plane = np.zeros((3000, 3200), np.uint16)
    plane[::2] = 1000
    with tifffile.TiffWriter(path) as tif:
        tif.write(plane, **{**TILE, "tile": (256, 256)}, subifds=2)
        for step, value in ((2, 300), (4, 700)):
            level = np.arange(plane[::step, ::step].size).reshape(plane[::step, ::step].shape) % value
            tif.write(level.astype(np.uint16), tile=(256, 256), subfiletype=1)


def test_contrast_comes_from_the_smallest_level_that_has_enough_pixels(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    pyramid(path)
    (image,) = open_images([path], Settings(), whole_plane=10)
    source = image.source
    assert isinstance(source, RegionSource)
    (limits,) = bounded(frame_exposures(source, image.display, 0, 0, "image.tif"), ())
    low, high = limits or (0, 0)
    assert (round(low), round(high)) == (0, 298)
    assert source.reduced(0, 0, 10**9) is None
    regions = [image.frame().read((x, 0, x + 100, 100)) for x in (0, 1500, 3000)]
    assert all(np.array_equal(regions[0], region) for region in regions)


SPARSE = np.full((1100, 1200), 200, np.uint16)  # of which every second pixel each way is a sample
SPARSE[501:1000:100, 301] = 50
SPARSE[501:1000:100, 303] = 900
HOLES = np.full(SPARSE.shape, np.nan, np.float32)
HOLES[1::2, 1::2] = SPARSE[1::2, 1::2]
SPARSE_FRAMES = {
    "grey": (SPARSE, {}, ""),
    "range": (SPARSE, {}, "[{mode: range, black: 10, white: 90}]"),
    "inverted": (SPARSE, {"photometric": "miniswhite"}, ""),
    "photo": (np.stack([SPARSE, SPARSE // 2, SPARSE // 3], axis=-1), {"photometric": "rgb"}, ""),
    "photo's channels": (np.stack([SPARSE, SPARSE // 2, SPARSE // 3], axis=-1), {"photometric": "rgb"}, "[{}, {}, {}]"),
    "channels": (np.stack([SPARSE, SPARSE[::-1] // 2]), {"ome": True, "metadata": {"axes": "CYX"}}, ""),
    "one hidden": (np.stack([SPARSE, SPARSE]), {"ome": True, "metadata": {"axes": "CYX"}}, "[{visible: false}]"),
    "no sample is a number": (HOLES, {}, ""),
}


@pytest.mark.parametrize("kind", SPARSE_FRAMES)
def test_few_small_objects_between_the_samples_are_displayed_as_in_the_whole(kind: str, tmp_path: Path) -> None:
    content, options, channels = SPARSE_FRAMES[kind]
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, content, **TILE, **options)
    styles = parse_channels(channels, "c.yaml") if channels else ()
    (image,) = open_images([path], Settings(), styles)
    whole = image.frame().read()
    assert np.ptp(whole) > 0
    (image,) = open_images([path], Settings(), styles, whole_plane=10)
    assert np.array_equal(image.frame().read(), whole)


def test_the_extremes_of_a_frame_are_those_of_all_its_strips(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    plane = np.full((4200, 4300), 100, np.uint8)
    plane[1, 1], plane[4101, 4101] = 20, 250
    tifffile.imwrite(path, plane, tile=(256, 256), compression="zlib")
    (image,) = open_images([path], Settings())
    source = image.source
    assert isinstance(source, RegionSource)
    assert bounded(frame_exposures(source, image.display, 0, 0, "image.tif"), ()) == ((20, 250),)


def test_objects_that_a_pyramid_leaves_out_do_not_set_the_contrast(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(np.kron(SPARSE, np.ones((2, 2), np.uint16)), **TILE, subifds=1)
        tif.write(np.minimum(SPARSE, 300), **TILE, subfiletype=1)
    (image,) = open_images([path], Settings(), whole_plane=10)
    source = image.source
    assert isinstance(source, RegionSource)
    assert source.has_level(0, 0, 10**6)
    assert bounded(frame_exposures(source, image.display, 0, 0, "image.tif"), ()) == ((50, 300),)


def test_a_frame_without_numbers_is_told(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.full((200, 200), np.nan, np.float32), **TILE)
    (image,) = open_images([path], Settings(), whole_plane=10)
    with pytest.raises(InputError, match="no finite value"):
        image.frame().read((0, 0, 9, 9))


def test_planes_beyond_the_limit_are_read_only_by_region(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tile = zlib.compress(bytes(1024 * 1024))
    tifffile.imwrite(
        path, iter([tile] * 625), shape=(25_600, 25_600), dtype=np.uint8, tile=(1024, 1024), compression="zlib"
    )
    (image,) = open_images([path], Settings())
    assert image.frame().read((25_000, 0, 25_600, 10)).shape == (10, 600, 3)
    strip = tmp_path / "strip.tif"
    lines = iter([zlib.compress(bytes(10**6))])  # is refused before it is read
    tifffile.imwrite(strip, lines, shape=(25_600, 25_600), dtype=np.uint8, rowsperstrip=25_600, compression="zlib")
    with pytest.raises(InputError, match="save it as a tiled TIFF or OME-Zarr"):
        open_source(strip)
