"""Files of examples, results and entries of COCO files find the image that they are named after."""

from __future__ import annotations

import csv
import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.records import Location
from sam2_fewshot.settings import Settings

LONG = "A01_2026-01-05_experiment_with_a_long_description_of_the_stain_and_objective_20x_and_the_well_and_more"
NAMES = ["image (1)", "a#b, c", "50% [x]", "con", unicodedata.normalize("NFD", "zélle"), LONG]
PLANE = np.arange(4800, dtype=np.uint16).reshape(60, 80).astype(np.uint8)


@pytest.fixture
def opened(put):
    def opened(*names):
        return open_images([put(f"images/{name}", PLANE) for name in names], Settings())

    return opened


@pytest.fixture
def run(tmp_path, frame_of):
    """Write results for images, with 2, 3, … objects on them."""

    def run(images, out="run"):
        records = [
            replace(frame_of(2 + image.xy, Location(image.xy), image.name), stem=image.stem, full_name=image.full_name)
            for image in images
        ]
        assemble(records, tmp_path / out, tags=["cell"], extra=["coco", "roi", "zarr"])
        return tmp_path / out

    return run


def places(found):
    return [item.location.xy for item in found]


def entries(path):
    return [image["file_name"] for image in json.loads(path.read_text())["images"]]


@pytest.mark.parametrize("results", ["geojson", "labels", "rois", "zarr", "coco.json"])
@pytest.mark.parametrize("name", NAMES)
def test_results_are_read_back_whatever_the_image_is_called(opened, run, told, name, results):
    images = opened("other.png", f"{name}.png")
    found = read_examples(run(images) / results, images, progress=told)
    assert places(found) == [0] * 2 + [1] * 3
    assert not [sentence for sentence in told.warnings if "left out" in sentence or "passed over" in sentence]


@pytest.mark.parametrize("name", NAMES)
def test_results_are_read_back_without_what_the_run_says(opened, run, name):
    images = opened("other.png", f"{name}.png")
    out = run(images)
    (out / "run.json").unlink()
    assert places(read_examples(out / "geojson", images)) == [0] * 2 + [1] * 3


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_written_in_either_way(put, opened, told, forms):
    image, labels = (unicodedata.normalize(form, "zélle") for form in forms)
    images = opened("other.png", f"{image}.png")
    marked = np.zeros((60, 80), np.uint8)
    marked[5:15, 5:15] = 1
    path = put(f"images/{labels}_labels.png", marked)
    assert places(read_examples(path, images, progress=told)) == [1]
    assert places(read_examples(path, images, on=f"{labels}.png")) == [1]
    assert [each.name for each in open_images([path.parent], Settings(), progress=told)] == [
        "other.png",
        f"{image}.png",
    ]


def test_names_that_differ_in_how_accents_are_written_alone_have_their_folders(opened, run, told):
    names = [f"{form}/{unicodedata.normalize(form, 'zélle')}.png" for form in ("NFC", "NFD")]
    images = opened(*names)
    assert [image.full_name for image in images] == names
    found = read_examples(run(images) / "coco.json", images, progress=told)
    assert (places(found), told.warnings) == ([0] * 2 + [1] * 3, [])


def test_a_name_that_only_looks_alike_in_results_is_of_another_image(put, opened):
    square = {"type": "Polygon", "coordinates": [[[2, 2], [9, 2], [9, 9], [2, 9], [2, 2]]]}
    path = put("marked/image [1].geojson", {"type": "Feature", "geometry": square})
    with pytest.raises(InputError, match=r"No file in the folder .* is named after an image"):
        read_examples(path.parent, opened("image (1).png", "other.png"))


def test_of_some_images_of_a_run_each_gets_its_own_results(opened, run, told):
    out = run(opened("image (1).png", "image [1].png", "a.png", "a.bmp"))
    assert [path.name for path in sorted((out / "geojson").iterdir())] == [
        "a.geojson",
        "a_2.geojson",
        "image _1_.geojson",
        "image _1__2.geojson",
    ]
    found = read_examples(out / "geojson", opened("a.bmp", "image [1].png"), progress=told)
    assert places(found) == [0] * 5 + [1] * 3
    assert "2 files were passed over" in told.warnings[0]


@pytest.mark.parametrize("inside", [".", "below"])
def test_results_that_are_given_without_their_folder_go_to_the_images_that_the_run_says(
    opened, run, tmp_path, monkeypatch, inside
):
    results = run(opened("one/a.png", "two/a.png")) / "geojson"
    images = opened("two/a.png", "one/a.png")
    (results / "below").mkdir()
    monkeypatch.chdir(results / inside)
    here = Path() if inside == "." else Path("..")
    assert [item.frame.name for item in read_examples(here / "a_2.geojson", images)] == ["two/a.png"] * 3
    assert places(read_examples(here, images)) == [0] * 3 + [1] * 2
    convert(here, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        rows = [(row["image"], row["xy"]) for row in csv.DictReader(file)]
    assert rows == [("one/a.png", "1")] * 2 + [("two/a.png", "2")] * 3


def test_results_of_one_run_go_to_the_images_saved_anew(opened, run):
    out = run(opened("a.png", "image (1).png"))
    assert places(read_examples(out / "geojson", opened("image (1).bmp", "a.bmp"))) == [0] * 3 + [1] * 2


def test_results_for_another_image_than_the_only_one_are_refused(opened, run):
    out = run(opened("image (1).png"))
    with pytest.raises(InputError, match=r"image _1_\.geojson is named after image \(1\)\.png, but only b\.png"):
        read_examples(out / "geojson" / "image _1_.geojson", opened("b.png"))


@pytest.mark.parametrize("names", [("day1/img.png", "day2/img.png"), ("img.png", "day2/img.png"), ("a.png", "a.bmp")])
def test_images_that_share_a_name_keep_their_objects_in_coco(tmp_path, opened, run, names):
    images = opened(*names)
    out = run(images)
    assert entries(out / "coco.json") == list(names)
    for given, expected in ((names, [0] * 2 + [1] * 3), (names[::-1], [0] * 3 + [1] * 2)):
        assert places(read_examples(out / "coco.json", opened(*given))) == expected
    done = convert(out / "coco.json", tmp_path / "again.coco.json", "coco", [image.path for image in images])
    assert done.objects == 5
    assert entries(tmp_path / "again.coco.json") == list(names)
    assert places(read_examples(tmp_path / "again.coco.json", images)) == [0] * 2 + [1] * 3


def test_results_of_images_that_share_a_name_go_by_their_folders(opened, run, told):
    out = run(opened("day1/img.png", "day2/img.png"))
    assert places(read_examples(out / "geojson", opened("day2/img.png", "day1/img.png"))) == [0] * 3 + [1] * 2
    assert places(read_examples(out / "geojson", opened("day2/img.png"), progress=told)) == [0] * 3


def test_a_coco_file_goes_by_folders_then_names_then_stems(put, opened, told):
    images = opened("day1/img.png", "day2/img.png", "x.png", "x.bmp", "y.png")
    names = ["C:\\data\\day2\\img.png", "img.png", "x.bmp", "x.jpg", "train/y.jpg"]
    data = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"image_id": n, "bbox": [5, 5, 10, 10]} for n in range(len(names))],
    }
    found = read_examples(put("x.json", data), images, progress=told)
    assert places(found) == [1, 3, 4]
    left_out = [sentence for sentence in told.warnings if "could be several of those given" in sentence]
    assert len(left_out) == 2
    assert "object 2 was left out: on an image that could be several of those given (img.png)" in left_out[0]
    assert "object 4 was left out: on an image that could be several of those given (x.jpg)" in left_out[1]


def test_entries_of_one_name_do_not_share_an_image(put, opened, told):
    data = {
        "images": [{"id": n, "file_name": f"day{n}/img.png"} for n in (1, 2)],
        "annotations": [{"image_id": n, "bbox": [5, 5, 10, 10]} for n in (1, 2)],
    }
    path = put("x.json", data)
    assert len(read_examples(path, opened("day2/img.png", "other.png"), progress=told)) == 1
    with pytest.raises(InputError, match="could be several of those given"):
        read_examples(path, opened("img.png", "other.png"))


def test_names_in_coco_lead_nowhere(put, tmp_path, told):
    data = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(("../../a/x.png", "/etc/x.png"))],
        "annotations": [{"image_id": n, "bbox": [5, 5, 10, 10]} for n in (0, 1)],
    }
    convert(put("in/x.json", data), tmp_path / "out", "geojson", progress=told)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x.geojson", "x_2.geojson"]


def test_no_overlay_is_that_of_another_image(tmp_path, opened):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.ones((2, 60, 80), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    plane = opened("a_Z1_T1.png")[0].path
    images = open_images([tmp_path / "a.tif", plane], Settings())
    assert [image.stem for image in images] == ["a", "a_Z1_T1_2"]


def test_a_plane_that_was_marked_alone_keeps_its_name_in_conversions(put, tmp_path):
    square = {"type": "Polygon", "coordinates": [[[2, 2], [9, 2], [9, 9], [2, 9], [2, 2]]]}
    for name in ("a", "a_Z1_T1"):
        put(f"in/{name}.geojson", {"type": "Feature", "geometry": square})
    done = convert(tmp_path / "in", tmp_path / "out", "roi")
    assert [path.name for path in done.files] == ["a.zip", "a_Z1_T1.zip"]


@pytest.mark.parametrize("part", ["geojson", "labels", "rois"])
def test_results_that_are_converted_keep_names_and_positions(tmp_path, opened, run, part):
    images = opened("c.png", "b.png", "a.png", "image (1).png")
    out = run(images[:1] + images[2:])  # b.png was not searched
    convert(out / part, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = [(row["image"], row["xy"]) for row in csv.DictReader(file)]
    assert rows == [("c.png", "1")] * 2 + [("a.png", "3")] * 4 + [("image (1).png", "4")] * 5
    convert(out / part, tmp_path / "all.json", "nimbus")
    places, before = (
        [(each["id"], each["location"]) for each in json.loads(path.read_text())["annotations"]]
        for path in (tmp_path / "all.json", out / "annotations.json")
    )
    assert places == before
    done = convert(out / part, tmp_path / "again", "roi")
    assert [path.name for path in done.files] == ["c.zip", "a.zip", "image _1_.zip"]


def test_files_that_lie_among_results_come_after_the_images_of_the_run(tmp_path, put, opened, run):
    out = run(opened("c.png", "b.png"))
    square = {"type": "Polygon", "coordinates": [[[2, 2], [9, 2], [9, 9], [2, 9], [2, 2]]]}
    put("run/geojson/a.geojson", {"type": "Feature", "geometry": square})
    convert(out / "geojson", tmp_path / "all.json", "nimbus")
    found = json.loads((tmp_path / "all.json").read_text())["annotations"]
    assert [each["location"]["XY"] for each in found] == [0] * 2 + [1] * 3 + [2]


@pytest.mark.parametrize("beside", ["{}_classes.json", "{}.json"])
def test_files_of_classes_are_no_images(tmp_path, put, beside):
    marked = np.zeros((60, 80), np.uint8)
    marked[5:15, 5:15] = 1
    for name in "abc":
        put(f"labels/{name}.png", marked)
        put(f"labels/{beside.format(name)}", {"1": "living"})
    convert(tmp_path / "labels", tmp_path / "all.json", "nimbus")
    found = json.loads((tmp_path / "all.json").read_text())["annotations"]
    assert [(each["location"]["XY"], each["tags"]) for each in found] == [(xy, ["living"]) for xy in range(3)]
