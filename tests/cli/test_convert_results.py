"""Results of a run converted: the same files as the run itself writes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tifffile
from roifile import roiread

from bright import BrightMaker
from sam2_fewshot.errors import FewShotWarning
from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import run


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """Results of a stack of two slices of rings, in every format; smoothed outlines have no holes."""
    folder = tmp_path_factory.mktemp("rings")
    rows, columns = np.mgrid[:64, :64]
    stack = np.zeros((2, 64, 64), np.uint8)
    for number, (z, y, x) in enumerate([(0, 14, 14), (0, 46, 16), (0, 40, 47.3), (1, 30, 30.2)], 1):
        distance = np.hypot(rows - y, columns - x)
        stack[z][(distance <= 9 + number / 2) & (distance > 6)] = number
    size = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25}
    size["PhysicalSizeYUnit"] = "µm"
    tifffile.imwrite(folder / "im.ome.tif", (stack > 0) * np.uint8(200), metadata=size)
    marked = folder / "marked" / "im_labels.tif"
    marked.parent.mkdir()
    tifffile.imwrite(marked, stack * (stack < 3), metadata={"axes": "ZYX"})
    request = Request(
        images=[folder / "im.ome.tif", folder / "im1.tif"],
        examples=marked,
        out=folder / "out",
        tags=["ring", "open"],
        write=["coco", "parquet", "roi", "zarr"],
    )
    tifffile.imwrite(folder / "im1.tif", np.zeros((32, 40), np.uint8))
    with pytest.warns(FewShotWarning, match=r"im1\.tif is the same everywhere"):
        return run(request, None, BrightMaker({"finds_examples": False})).out


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("coco.json", "coco"),
        ("detections.csv", "csv"),
        ("detections.parquet", "parquet"),
        ("annotations.json", "nimbus"),
        ("labels", "labels"),
        ("zarr", "zarr"),
        ("rois", "roi"),
        ("geojson", "geojson"),
    ],
)
def test_converted_results_are_those_that_the_run_writes(rings, tmp_path, cli, name, to):
    outcome = cli("convert", rings, tmp_path / name, "--to", to)
    assert (outcome.code, outcome.out.split(" to ")[0]) == (0, "Wrote 4 objects on 2 frames"), outcome.err
    written, again = rings / name, tmp_path / name
    if written.is_file():
        assert again.read_bytes() == written.read_bytes()
        return
    files = [path.relative_to(written) for path in sorted(written.rglob("*")) if path.is_file()]
    assert len(files) >= 2
    for file in files:
        if to == "roi":
            assert [str(roi) for roi in roiread(again / file)] == [str(roi) for roi in roiread(written / file)]
        elif to == "labels":
            np.testing.assert_array_equal(tifffile.imread(again / file), tifffile.imread(written / file))
        else:
            assert (again / file).read_bytes() == (written / file).read_bytes()
    if to == "labels":
        assert json.loads((again / "im_classes.json").read_text())["1"] == ["ring", "open"]


def test_what_the_format_cannot_hold_is_told_of_results_too(rings, tmp_path, cli):
    outcome = cli("convert", rings, tmp_path / "labels", "--to", "labels")
    assert "The scores are left out: the format labels has no place for them." in outcome.err
    # The holes of the results' masks are those of smoothed outlines, which have none.
    assert "holes" not in cli("convert", rings, tmp_path / "a.json", "--to", "nimbus").err


def test_without_the_records_results_are_converted_from_their_outlines(rings, tmp_path, cli):
    copy = shutil.copytree(rings, tmp_path / "copy")
    outcome = cli("convert", copy, tmp_path / "a.csv", "--image", rings.parent / "im.ome.tif")
    assert outcome.code == 0
    assert "--image is passed over" in outcome.err.replace("\n", " ")
    assert (tmp_path / "a.csv").read_bytes() == (rings / "detections.csv").read_bytes()
    shutil.rmtree(copy / ".frames")
    outcome = cli("convert", copy, tmp_path / "b.csv")
    assert (outcome.code, outcome.out.split(" to ")[0]) == (0, "Wrote 4 objects on 2 frames"), outcome.err
    assert "has lost its folder .frames" in outcome.err
    facts = json.loads((copy / "run.json").read_text())
    for changes, said in (({"pixel_size_um": ["a", 1]}, "is damaged"), ({"record": "none.npz"}, "no whole record")):
        broken = {**facts, "frames": [{**facts["frames"][0], **changes}]}
        (copy / "run.json").write_text(json.dumps(broken))
        (copy / ".frames").mkdir(exist_ok=True)
        outcome = cli("convert", copy, tmp_path / "c.csv")
        assert outcome.code == 2
        assert said in outcome.err


def test_results_are_not_converted_over_their_images(rings, cli):
    images = {path: path.read_bytes() for path in rings.parent.glob("*.tif")}
    outcome = cli("convert", rings, rings.parent, "--to", "labels", "--overwrite")
    assert outcome.code == 2
    assert "im1.tif is the image itself, and would be written over" in outcome.err.replace("\n", " ")
    assert {path: path.read_bytes() for path in rings.parent.glob("*.tif")} == images
