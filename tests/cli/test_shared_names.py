"""Images that share a name are told apart by their folders, wherever they are named."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import pytest

from sam2_fewshot.errors import InputError
from sam2_fewshot.files.corrections import read_corrections
from sam2_fewshot.files.run import run
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.report.content import gather
from sam2_fewshot.settings import Settings

DAYS = ["day1/im.png", "day2/im.png"]


@pytest.fixture
def shared(tmp_path, images):
    """Return two images of one name."""
    paths = [tmp_path / day for day in DAYS]
    for path, image in zip(paths, images, strict=False):
        path.parent.mkdir()
        shutil.copy(image, path)
    return paths


@pytest.fixture
def done(request_for, segmenters, display, shared, examples):
    """Return what a run over these and another image says of itself."""
    beside = shutil.copy(examples, shared[1].with_name("im_labels.png"))
    request = request_for(examples=beside, images=[*shared, examples.parent.parent / "im10.png"], write=["parquet"])
    return run(replace(request, tags=["disc"]), display, segmenters)


def test_results_name_images_with_their_folders_where_they_share_a_name(done):
    names = {*DAYS, "im10.png"}
    with (done.out / "detections.csv").open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == names
    parquet = pytest.importorskip("pyarrow.parquet")
    assert set(parquet.read_table(done.out / "detections.parquet")["image"].to_pylist()) == names
    assert {place.frame for place in done.mark_next} == names
    asked = json.loads((done.out / "mark_next.json").read_text())["annotations"]
    assert {each["image"] for each in asked} == names
    assert [frame["name"] for frame in gather(read_finished(done.out)).frames] == [*DAYS, "im10.png"]


def test_failures_name_the_image_with_its_folder(request_for, segmenters, display, shared, examples):
    segmenters.troubles[2] = InputError("It broke.")
    summary = run(request_for(images=[*shared, *examples.parent.parent.glob("im1.png")]), display, segmenters)
    assert [failure.what for failure in summary.failures] == [DAYS[1]]


def test_a_record_has_the_name_that_the_run_has_now(done, request_for, segmenters, display, shared, examples):
    beside = shared[1].with_name("im_labels.png")
    run(request_for(images=shared[1:], examples=beside, out=done.out), display, segmenters)
    assert [record.title for record in read_finished(done.out).records()] == ["im.png"]


def answered(done):
    asked = json.loads((done.out / "mark_next.json").read_text())
    asked["annotations"] = [each for each in asked["annotations"] if each["image"] in DAYS]
    for each in asked["annotations"]:
        each["tags"] = ["right"]
    path = done.out.with_name("answers.json")
    path.write_text(json.dumps(asked))
    return path


def test_answers_stay_on_their_image(done, shared, display):
    path = answered(done)
    asked = json.loads(path.read_text())["annotations"]
    for order in (shared, shared[::-1]):
        taken = read_corrections([path], open_images(order, Settings()), display)
        assert [each.placed.frame.name for each in taken] == [each["image"] for each in asked]
        assert {each.placed.location.xy for each in taken} == {0, 1}
    with pytest.raises(InputError, match=r"marked on day1/im\.png, but the image at XY 1 is im2\.png"):
        read_corrections([path], open_images([shared[0].parents[1] / "im2.png"], Settings()), display)


def test_answers_hold_whatever_else_is_given(done, shared, display):
    path = answered(done)
    assert {
        each.placed.location.xy for each in read_corrections([path], open_images(shared[:1], Settings()), display)
    } == {0}
