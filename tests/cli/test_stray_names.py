"""Images whose names are not UTF-8, as in archives and shares of older systems."""

from __future__ import annotations

import csv
import json
import os
import shutil

import pytest

from sam2_fewshot.files.request import request_again

QUICK = ("--method", "grid", "--points-per-side", "16", "--model", "filters", "--device", "cpu")


@pytest.fixture
def stray(images, examples):
    """An image and its examples with a Latin-1 letter in their names."""
    named = [
        path.with_name(os.fsdecode(b"z\xe9lle") + rest)
        for path, rest in ((images[0], ".png"), (examples, "_labels.png"))
    ]
    try:
        for path, other in zip((images[0], examples), named, strict=True):
            shutil.copy(path, other)
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses such names")
    return named


def test_a_name_that_is_not_utf_8_is_spelt_one_way(cli, stray, images, tmp_path):
    image, examples = stray
    out = tmp_path / "out"
    command = ("segment", image, images[1], "--examples", examples, "-o", out, *QUICK, "--write", "coco,roi")
    command += ("--examples-on", image.name)
    outcome = cli(*command)
    assert outcome.code == 0, outcome.err
    name = "z\\udce9lle.png"
    facts = json.loads((out / "run.json").read_text("utf-8"))
    assert [frame["image"] for frame in facts["frames"]] == [name, "im2.png"]
    assert (out / "labels" / "z_lle.tif").exists()
    with (out / "detections.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["image"] == name
    again = cli(*command)
    assert "2 of 2 frames are finished already and kept." in again.err
    assert cli("report", out).code == 0
    request = request_again(out)
    assert (list(request.images), request.examples, request.examples_on) == ([image, images[1]], examples, image.name)

    ring = [{"x": 30, "y": 30}, {"x": 40, "y": 30}, {"x": 40, "y": 40}]
    mark = {"shape": "polygon", "coordinates": ring, "tags": ["wrong"], "image": name, "location": {"XY": 0}}
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps({"annotations": [mark], "sam2-fewshot": {"results": str(out)}}))
    refined = cli("refine", answers)
    assert refined.code == 0, refined.err
    assert json.loads((tmp_path / "out-refined" / "run.json").read_text("utf-8"))["corrections"] == 1
    assert (
        json.loads((tmp_path / "out-refined" / "corrections.json").read_text("utf-8"))["annotations"][0]["image"]
        == name
    )
    once_more = cli("refine", tmp_path / "out-refined", "--similarity-threshold", "0.6")  # reads its own corrections
    assert once_more.code == 0, once_more.err
    assert json.loads((tmp_path / "out-refined-2" / "run.json").read_text("utf-8"))["corrections"] == 1
