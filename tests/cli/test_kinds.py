"""The marked objects belong to the result: each object has its kind, in every file and count."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars
import pytest
import tifffile
from label_discs import DISCS, discs
from roifile import ImagejRoi

from sam2_fewshot import Settings
from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.errors import FewShotWarning
from sam2_fewshot.evaluation.files import read_pairs
from sam2_fewshot.files.request import request_again
from sam2_fewshot.files.run import run
from sam2_fewshot.geometry.outlines import crop_to_object, mask_to_polygon
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import Counts, Kind

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ["found", "found", "example", "example"]
FORMATS = ["coco", "roi", "zarr", "parquet"]


@pytest.fixture
def out(request_for, segmenters) -> Path:
    """Results of three frames; two objects of the first one are marked."""
    return run(request_for(write=FORMATS), None, segmenters).out


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "detections.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def kinds_of(out: Path) -> dict[str, list[Any]]:
    """Kinds of the objects of the first image in each file, in its order."""
    attributes = json.loads((out / "zarr" / "im1.zarr" / "labels" / "objects" / ".zattrs").read_text())
    coco = json.loads((out / "coco.json").read_text())["annotations"]
    features = json.loads((out / "geojson" / "im1.geojson").read_text())["features"]
    annotations = json.loads((out / "annotations.json").read_text())["annotations"]
    rois = sorted(ImagejRoi.fromfile(out / "rois" / "im1.zip"), key=lambda roi: roi.name)
    lines = [line for roi in rois for line in roi.props.splitlines() if line.startswith("kind")]
    return {
        "csv": [row["kind"] for row in rows(out) if row["image"] == "im1.png"],
        "parquet": polars.read_parquet(out / "detections.parquet").filter(polars.col("xy") == 1)["kind"].to_list(),
        "geojson": [feature["properties"]["kind"] for feature in features],
        "nimbus": [each["kind"] for each in annotations if each["location"]["XY"] == 0],
        "coco": [each["kind"] for each in coco if each["image_id"] == 1],
        "zarr": [each["kind"] for each in attributes["image-label"]["properties"]],
        "roi": [line.removeprefix("kind: ") for line in lines],
    }


def test_each_file_tells_the_kinds(out):
    for name, kinds in kinds_of(out).items():
        assert kinds == KINDS, name


def test_the_examples_have_their_numbers_in_the_labels(out):
    labels = tifffile.imread(out / "labels" / "im1.tif")
    numbers = [int(row["id"]) for row in rows(out) if row["kind"] == "example"]
    assert numbers == [3, 4]
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4}
    areas = {int(row["id"]): int(row["area_px"]) for row in rows(out) if row["image"] == "im1.png"}
    assert {number: int((labels == number).sum()) for number in areas} == areas


def test_examples_have_a_score_and_nothing_they_were_compared_by(out):
    for row in rows(out):
        if row["kind"] == "example":
            assert (row["score"], row["similarity"], row["predicted_iou"]) == ("1.000000", "", "")


def test_classes_are_kept(out):
    features = json.loads((out / "geojson" / "im1.geojson").read_text())["features"]
    assert [feature["properties"]["classification"]["name"] for feature in features] == ["object"] * 4


def test_counts_say_what_was_found_and_what_was_marked(cli, images, examples, tmp_path):
    outcome = cli("segment", *images, "--examples", examples, "-o", tmp_path / "new", "--method", "grid",
                  "--points-per-side", "16", "--model", "filters", "--device", "cpu")  # fmt: skip
    facts = json.loads((tmp_path / "new" / "run.json").read_text())
    sum_in_words = f"{facts['found']} found + 2 marked = {facts['found'] + 2}"
    assert f"With what you marked: {sum_in_words}." in outcome.out
    assert facts["objects"] == facts["found"] + 2
    assert [frame["marked"] for frame in facts["frames"]] == [2, 0, 0]
    page = (tmp_path / "new" / "report.html").read_text()
    assert f'<h1 id="headline">{sum_in_words} objects on 3 frames</h1>' in page


def test_they_can_be_left_out_and_put_back_without_a_search(out, request_for, segmenters):
    alone = run(request_for(write=FORMATS, settings=Settings(leave_out_examples=True)), None, segmenters)
    assert alone.counts == Counts(found=10)
    assert segmenters.calls == []  # nothing was searched
    assert {kind for kinds in kinds_of(out).values() for kind in kinds} == {"found"}
    assert [str(record.counts) for record in read_finished(out).records()] == ["2 found", "4 found", "4 found"]
    assert json.loads((out / "run.json").read_text())["objects"] == 10
    again = run(request_for(write=FORMATS), None, segmenters)
    assert again.counts == Counts(found=10, marked=2)
    assert kinds_of(out)["csv"] == KINDS
    assert segmenters.calls == []


def test_found_objects_have_the_same_numbers_without_the_examples(out, request_for, segmenters):
    before = [row for row in rows(out) if row["kind"] == "found"]
    run(request_for(settings=Settings(leave_out_examples=True)), None, segmenters)
    assert rows(out) == before


def test_leaving_out_is_a_setting_of_files_and_of_the_command_line(cli, images, examples, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("leave_out_examples: true\n")
    common = ("segment", images[0], "--examples", examples, "--method", "grid", "--points-per-side", "16",
              "--model", "filters", "--device", "cpu")  # fmt: skip
    for number, option in enumerate((("--leave-out-examples",), ("--config", config))):
        outcome = cli(*common, "-o", tmp_path / str(number), *option)
        assert outcome.code == 0, outcome.err
        assert "marked" not in outcome.out
        assert {row["kind"] for row in rows(tmp_path / str(number))} == {"found"}


def test_on_a_copy_of_their_image_the_examples_are_found_objects(cli, images, examples, tmp_path):
    copy = images[0].with_name("copy.png")
    copy.write_bytes(images[0].read_bytes())
    outcome = cli("segment", images[0], copy, "--examples", examples, "-o", tmp_path / "new", "--method", "grid",
                  "--points-per-side", "16", "--model", "filters", "--device", "cpu")  # fmt: skip
    assert outcome.code == 0, outcome.err
    frames = json.loads((tmp_path / "new" / "run.json").read_text())["frames"]
    assert [frame["marked"] for frame in frames] == [2, 0]
    assert frames[0]["objects"] == frames[1]["objects"]


def corrections(path: Path, *marks: tuple[str, int, int]) -> Path:
    """Write verdicts on discs, each with the number of its image and of its disc, as the report exports them."""
    annotations = []
    for verdict, xy, disc in marks:
        ring = mask_to_polygon(crop_to_object(discs([DISCS[disc]]) > 0)).exterior.coords[:-1]
        outline = {"shape": "polygon", "coordinates": [{"x": x, "y": y} for x, y in ring], "tags": [verdict]}
        annotations.append({**outline, "location": {"XY": xy, "Z": 0, "Time": 0}})
    path.write_text(json.dumps({"annotations": annotations, "sam2-fewshot": {"kind": "corrections", "version": 1}}))
    return path


@pytest.mark.parametrize("marked_by", ["outlines", "boxes", "points"])
def test_after_marking_on_a_copy_its_objects_have_the_kinds_of_what_was_marked_there(
    request_for, segmenters, display, images, examples, tmp_path, marked_by
):
    if marked_by != "outlines":
        place = {"location": {"XY": 0, "Z": 0, "Time": 0}, "tags": ["disc"]}
        marks = []
        for y, x in DISCS[:2]:
            corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)] if marked_by == "boxes" else [(0, 0)]
            ring = [{"x": x + 0.5 + 7.5 * i, "y": y + 0.5 + 7.5 * j} for i, j in corners]
            marks.append({"shape": "point" if len(ring) == 1 else "polygon", "coordinates": ring, **place})
        examples = tmp_path / "marks.json"
        examples.write_text(json.dumps({"annotations": marks}))
    copy = images[0].with_name("im1_copy.png")
    shutil.copy(images[0], copy)
    request = request_for(images=[images[0], copy], examples=examples, boxes=marked_by == "boxes")
    assert run(request, None, segmenters).counts == Counts(found=6, marked=2)

    wrong = replace(request, out=tmp_path / "wrong", corrections=[corrections(tmp_path / "1.json", ("wrong", 1, 3))])
    run(wrong, display, segmenters)
    counts = [record.counts for record in read_finished(wrong.out).records()]
    assert [(each.confirmed, each.marked) for each in counts] == [(0, 2), (0, 0)]

    verdicts = corrections(tmp_path / "2.json", ("right", 0, 2), ("right", 1, 3), ("right", 1, 1))
    right = replace(request, out=tmp_path / "right", corrections=[verdicts])
    run(right, display, segmenters)
    kinds = [[item.kind for item in record.detections] for record in read_finished(right.out).records()]
    assert kinds == [["confirmed", "found", "example", "example"], ["confirmed", "confirmed", "found", "found"]]


def test_an_exact_copy_is_an_image_of_its_own(request_for, segmenters, images, tmp_path):
    copy = tmp_path / "backup" / images[0].name
    copy.parent.mkdir()
    shutil.copy2(images[0], copy)  # also the time of change
    segmenters.bright["finds_examples"] = True
    for order, marked in (([images[0], copy], [2, 0]), ([copy, images[0]], [0, 2])):
        out = tmp_path / f"of{marked[0]}"
        request = request_for(images=order, examples_on=f"{tmp_path.name}/{images[0].name}", out=out)
        run(request, None, segmenters)
        frames = json.loads((out / "run.json").read_text())["frames"]
        assert [frame["marked"] for frame in frames] == marked
        assert len({frame["record"] for frame in frames}) == 2
        assert run(request, None, segmenters).resumed == 2


def test_negative_examples_are_no_objects(request_for, segmenters, examples):
    classes = examples.with_name("im1_labels_classes.json")
    classes.write_text('{"1": "cell", "2": "dirt"}')
    summary = run(request_for(negative_tag="dirt"), None, segmenters)
    assert summary.counts == Counts(found=10, marked=1)


def test_examples_that_contradict_each_other_are_not_counted(request_for, segmenters, display, tmp_path):
    ring = [{"x": x, "y": y} for x, y in ((5, 5), (20, 5), (20, 20), (5, 20))]
    other = [{"x": x, "y": y} for x, y in ((40, 8), (54, 8), (54, 22), (40, 22))]
    marks = [(ring, "cell"), (ring, "dirt"), (other, "cell"), (other, "cell")]
    documents = [
        {"shape": "polygon", "coordinates": shape, "tags": [tag], "location": {"XY": 0, "Z": 0, "Time": 0}}
        for shape, tag in marks
    ]
    path = tmp_path / "marks.json"
    path.write_text(json.dumps({"annotations": documents}))
    summary = run(request_for(examples=path, negative_tag="dirt"), display, segmenters)
    assert summary.counts.marked == 1  # the one that is marked twice counts once


def test_an_object_model_brings_no_examples(cli, images, examples, tmp_path):
    learned = tmp_path / "cells.npz"
    common = ("segment", *images, "--method", "grid", "--points-per-side", "16", "--model", "filters",
              "--device", "cpu")  # fmt: skip
    found = []
    for name, option in (("a", ("--examples", examples, "--save-model", learned)), ("b", ("--object-model", learned))):
        outcome = cli(*common, *option, "-o", tmp_path / name)
        assert outcome.code == 0, outcome.err
        facts = json.loads((tmp_path / name / "run.json").read_text())
        found.append((facts["found"], facts["objects"]))
    assert found[0][1] == found[0][0] + 2
    assert found[1] == (found[0][0], found[0][0])


def test_another_threshold_keeps_the_examples(out, segmenters):
    request = replace(request_again(out), settings=Settings(similarity_threshold=0.95))
    summary = run(request, None, segmenters)
    assert summary.counts == Counts(found=0, marked=2)
    assert {row["kind"] for row in rows(summary.out)} == {"example"}


def test_the_examples_are_not_evaluated(out, tmp_path):
    truth = tmp_path / "truth"
    truth.mkdir()
    tifffile.imwrite(truth / "im1_labels.tif", tifffile.imread(out / "labels" / "im1.tif"))
    with pytest.warns(FewShotWarning, match="only .* has them"):
        (pair,) = read_pairs(out, truth, Quiet())
    assert (len(pair.frame.predicted), len(pair.frame.truth), len(pair.frame.ignore)) == (2, 4, 4)


@pytest.mark.parametrize("name", ["a.geojson", "coco.json", "annotations.json", "a.zip", "a.zarr"])
def test_kinds_survive_conversion(out, images, tmp_path, name):
    path = tmp_path / "converted" / name
    to = {"a.zip": "roi", "a.zarr": "zarr", "coco.json": "coco", "annotations.json": "nimbus"}.get(name)
    convert(out / "geojson" / "im1.geojson", path, to, [images[0]])
    convert(path, tmp_path / "back.csv", None, [images[0]])
    with (tmp_path / "back.csv").open(newline="") as file:
        assert [row["kind"] for row in csv.DictReader(file)] == KINDS


def test_what_has_no_kind_gets_none(examples, images, tmp_path):
    convert(examples, tmp_path / "marked.csv", None, [images[0]])
    with (tmp_path / "marked.csv").open(newline="") as file:
        assert [row["kind"] for row in csv.DictReader(file)] == ["", ""]
    convert(examples, tmp_path / "marked.geojson", None, [images[0]])
    assert "kind" not in (tmp_path / "marked.geojson").read_text()


def test_counts_in_words():
    assert str(Counts(100, 0, 8)) == "100 found + 8 marked = 108"
    assert str(Counts(1200, 5, 8)) == "1,200 found + 5 confirmed + 8 marked = 1,213"
    assert str(Counts(7)) == "7 found"
    assert {kind.value for kind in Kind} == {"example", "found", "confirmed"}
