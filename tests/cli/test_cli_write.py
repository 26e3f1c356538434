"""Results in further formats, and examples from files of other programs, through the command line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.files.run import run


def test_further_formats_are_written_and_go_again(request_for, segmenters):
    out = run(request_for(write=["coco", "roi", "zarr", "parquet"]), None, segmenters).out
    assert {path.name for path in (out / "rois").iterdir()} == {"im1.zip", "im2.zip", "im10.zip"}
    assert len(json.loads((out / "coco.json").read_text())["annotations"]) == 12
    assert (out / "zarr" / "im1.zarr" / "labels" / "objects" / ".zattrs").is_file()
    assert (out / "detections.parquet").is_file()
    run(request_for(), None, segmenters)
    assert not (out / "coco.json").exists()
    assert not (out / "rois").exists()


@pytest.mark.parametrize("name", ["im1.geojson", "im1_rois.zip", "coco.json", "im1.zarr"])
def test_examples_of_any_format_give_the_same(request_for, segmenters, examples, tmp_path, images, name):
    converted = tmp_path / "other" / name
    to = {".json": "coco", ".zip": "roi"}.get(converted.suffix)
    convert(examples, converted, to, [images[0]])
    assert run(request_for(examples=converted), None, segmenters).found == 10
    assert segmenters.made[0].fitted == 2


def test_unknown_formats_are_refused_before_any_work(cli, images, examples, tmp_path):
    outcome = cli("segment", images[0], "--examples", examples, "-o", tmp_path / "out", "--write", "coco, svg")
    assert outcome.code == 2
    assert (
        outcome.err
        == "Error: There is no result format 'svg'; --write takes coco, parquet, roi, zarr, separated by commas.\n"
    )
    assert not (tmp_path / "out").exists()


def test_pixel_sizes_reach_the_results(request_for, segmenters, examples, images, tmp_path):
    path = tmp_path / "ome" / "im1.ome.tif"
    path.parent.mkdir()
    told = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Channel": {"Name": ["DAPI"]}}
    tifffile.imwrite(path, np.asarray(Image.open(images[0])), ome=True, metadata=told)
    out = run(request_for(images=[path]), None, segmenters).out
    with (out / "detections.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["area_um2"]) == float(row["area_px"]) * 0.25
    frame = json.loads((out / "run.json").read_text())["frames"][0]
    assert (frame["pixel_size_um"], frame["channels"]) == ([0.5, 0.5], ["DAPI"])
