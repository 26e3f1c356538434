"""Label images as examples, read in bands: the same objects as from the whole plane."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from sam2_fewshot.annotations.label_bands import band_rows
from sam2_fewshot.annotations.label_images import objects_in
from sam2_fewshot.annotations.ome_zarr import ZarrLabels
from sam2_fewshot.annotations.placing import Placer, Remarks
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.registry import open_source
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.settings import Settings

SHAPE = (90, 70)


def blobs(numbers: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    labels = np.zeros(SHAPE, np.uint16)
    for number in range(1, numbers + 1):
        y, x, radius = rng.integers(0, SHAPE[0]), rng.integers(0, SHAPE[1]), rng.integers(2, 14)
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number * 37
    return labels


class Noted:
    """Labels that note how high the regions are that are read of them."""

    def __init__(self, path):
        self.source = ZarrLabels(path) if path.is_dir() else open_source(path)
        self.header, self.piece_rows, self.planes = self.source.header, self.source.piece_rows, self.source.planes
        self.reduced, self.has_level = self.source.reduced, self.source.has_level
        self.heights: list[int] = []

    def region(self, z, t, box):
        self.heights.append(box[3] - box[1])
        return self.source.region(z, t, box)


def objects(labels, images, **limits) -> list:
    """Read the objects of labels, with other limits than usual."""
    placer = Placer(images, Remarks(labels.header.path.name, Quiet()))
    found = []
    for item in objects_in(labels, images[0], placer, **limits):
        exemplar = item.exemplar
        mask = exemplar.mask
        if mask is None:
            mask = polygon_to_mask(exemplar.polygon, SHAPE).full()
        found.append((exemplar.label.split(", ")[-1], mask.tobytes()))
    return found


IN_BANDS = {"large": 1, "band": 16 * SHAPE[1]}
"""Read in bands of a few rows whatever the size."""


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(tmp_path / "a.png")
    return open_images([tmp_path / "a.png"], Settings())


KINDS = [{"tile": (16, 16), "compression": "zlib"}, {"rowsperstrip": 8, "compression": "lzw"}, {"rowsperstrip": 10}]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("numbers", [1, 12])
def test_tiff_in_bands(numbers, options, tmp_path, image):
    labels = blobs(numbers)
    tifffile.imwrite(tmp_path / "l.tif", labels, **options)
    source = Noted(tmp_path / "l.tif")
    in_bands = objects(source, image, **IN_BANDS)
    assert len(source.heights) > 3
    assert max(source.heights) <= 16
    assert in_bands == objects(open_source(tmp_path / "l.tif"), image)
    assert len(in_bands) == len(np.unique(labels)) - 1


@pytest.mark.filterwarnings("ignore:.*separate parts")
@pytest.mark.parametrize("seed", range(6))
def test_a_black_and_white_mask_falls_into_the_same_parts(seed, tmp_path, image):
    rng = np.random.default_rng(seed)
    mask = (rng.random(SHAPE) < 0.38).astype(np.uint8) * 255
    tifffile.imwrite(tmp_path / "l.tif", mask, tile=(16, 16), compression="zlib")
    source = Noted(tmp_path / "l.tif")
    in_bands = {mask for _, mask in objects(source, image, **IN_BANDS)}
    assert len(source.heights) > 3
    assert in_bands == {mask for _, mask in objects(open_source(tmp_path / "l.tif"), image)}
    assert len(in_bands) > 1


def test_an_ome_zarr_in_bands(tmp_path, image):
    zarr = pytest.importorskip("zarr")
    labels = blobs(9, seed=3)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.attrs["multiscales"] = [{"version": "0.4", "axes": [{"name": "y"}, {"name": "x"}], "datasets": []}]
    group.create_group("labels").attrs["labels"] = ["cells"]
    cells = group["labels"].create_group("cells")
    cells.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}],
        }
    ]
    cells.attrs["image-label"] = {"version": "0.4"}
    cells.create_array("0", shape=SHAPE, chunks=(8, 32), dtype="u2")[...] = labels
    source = Noted(tmp_path / "a.zarr")
    in_bands = objects(source, image, **IN_BANDS)
    assert len(source.heights) > 3
    assert [mask for _, mask in in_bands] == [mask for _, mask in objects(ZarrLabels(tmp_path / "a.zarr"), image)]
    assert len(in_bands) == len(np.unique(labels)) - 1


def test_bands_are_whole_pieces_where_the_memory_allows_it():
    assert band_rows(1000, 256) == 4096 // 256 * 256
    assert band_rows(20_000, 512) == 512
    assert band_rows(100_000, 512) == (1 << 25) // 100_000
    assert band_rows(1 << 26, 512) == 1
