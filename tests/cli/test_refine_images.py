"""Refine searches the images of the results, whatever lies beside them now, and knows which were replaced."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from label_discs import DISCS, discs
from PIL import Image

from bright import BrightMaker
from calls import calls_of
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.corrections import read_corrections
from sam2_fewshot.files.earlier import KnownImages, found_again
from sam2_fewshot.files.request import request_again
from sam2_fewshot.files.run import run
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.output.finished import Given, read_finished, results_in
from sam2_fewshot.settings import Settings


@pytest.fixture
def folder(images):
    """The folder with the three images, `im1.png`, `im2.png` and `im10.png`."""
    return images[0].parent


@pytest.fixture
def done(request_for, segmenters, folder):
    """Results of the last two images of the folder; the examples are on the first."""
    return run(request_for(images=[folder], batch_xy="2-3"), None, segmenters).out


def answered(out, verdict="right", only=None):
    """Return the file of places to mark next, answered."""
    content = json.loads((out / "mark_next.json").read_text())
    for each in content["annotations"]:
        if only is None or each["image"] == only:
            each["tags"] = [verdict]
    path = out.parent / f"{verdict}.json"
    path.write_text(json.dumps(content))
    return path


def searched(out):
    return [(frame["image"], frame["xy"]) for frame in json.loads((out / "run.json").read_text())["frames"]]


def confirmed(out):
    with (out / "detections.csv").open(newline="") as file:
        return [row["image"] for row in csv.DictReader(file) if row["kind"] == "confirmed"]


def add_first(folder):
    """Put an image before the others."""
    Image.fromarray(np.eye(64, dtype=np.uint8) * 90).save(folder / "im0.png")


@pytest.mark.parametrize(("mode", "readers"), [("fixed", ["make_plan", "taken_from"]), ("top", ["make_plan"])])
def test_the_results_are_read_no_more_often_than_they_are_needed(done, segmenters, display, mode, readers):
    again = replace(request_again(done), corrections=[answered(done)], settings=Settings(threshold_mode=mode))
    with calls_of(results_in) as read:
        run(again, display, segmenters)
    # The others read where there are no results yet.
    assert [each for each in read if each not in {"_earlier", "_begin"}] == readers


def test_an_image_that_joined_the_folder_is_not_searched(done, segmenters, display, folder):
    add_first(folder)
    (folder / "im11.png").write_text("half copied")
    again = request_again(done)
    other = run(replace(again, settings=Settings(min_mask_area=31)), display, segmenters).out
    assert searched(other) == searched(done) == [("im2.png", 2), ("im10.png", 3)]
    assert any("Left out of the images, because the results in" in line and "im0.png" in line for line in display.lines)
    asked = json.loads((other / "run.json").read_text())["request"]
    assert (asked["images"], asked["batch_xy"]) == ([str(folder)], "2-3")  # as it was given
    threshold = run(replace(again, settings=Settings(similarity_threshold=0.4), out=done), display, segmenters)
    assert threshold.resumed == 2


def test_corrections_stay_on_their_images_when_others_join_or_go(done, segmenters, display, folder):
    path = answered(done, only="im10.png")
    add_first(folder)
    (folder / "im2.png").unlink()
    second = run(replace(request_again(done), corrections=[path]), display, segmenters).out
    assert set(confirmed(second)) == {"im10.png"}
    assert searched(second) == [("im10.png", 2)]
    assert any("also of images that are not there any more" in line and "im2.png" in line for line in display.lines)
    assert not any("without holes" in line for line in display.lines)  # the masks are those of the old place
    third = run(replace(request_again(second), settings=Settings(min_mask_area=31)), display, segmenters).out
    assert confirmed(third) == confirmed(second)


def test_the_masks_are_those_of_the_image_s_old_place(request_for, segmenters, display, folder, images):
    Image.fromarray((discs(DISCS[:1]) > 0) * np.uint8(200)).save(images[1])  # not what the next one shows
    done = run(request_for(images=[folder], batch_xy="2-3"), None, segmenters).out
    path = answered(done, only="im10.png")
    images[1].unlink()
    second = run(replace(request_again(done), corrections=[path]), display, segmenters).out
    assert set(confirmed(second)) == {"im10.png"}
    assert not any("without holes" in line for line in display.lines)


def test_images_that_moved_are_found_in_any_order(done, segmenters, display, folder, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    paths = [shutil.move(path, moved) for path in sorted(folder.glob("im*.png"))]
    again = replace(request_again(done), images=paths, corrections=[answered(done)])
    other = run(again, display, segmenters).out
    assert searched(other) == searched(done)
    assert set(confirmed(other)) == {"im2.png", "im10.png"}


def test_without_any_of_the_images_nothing_is_searched(done, segmenters, folder, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    add_first(others)
    with pytest.raises(InputError, match=r"None of the images .* is there \(im1\.png, im2\.png, im10\.png\)"):
        run(replace(request_again(done), images=[others]), None, segmenters)


def test_marks_on_an_image_that_was_replaced_are_left_out(done, segmenters, display, folder):
    first = run(replace(request_again(done), corrections=[answered(done)]), display, segmenters).out
    count = len(confirmed(first))
    shutil.copy(folder / "im2.png", folder / "copy")
    (folder / "copy").replace(folder / "im2.png")  # with another time of change
    Image.fromarray(discs(DISCS[1:]).astype(np.uint8) * np.uint8(70)).save(folder / "im10.png")
    other = replace(request_again(first), settings=Settings(min_mask_area=31))
    second = run(other, display, segmenters).out
    assert set(confirmed(second)) == {"im2.png"}
    assert len(confirmed(second)) < count
    told = [line for line in display.lines if "replaced since" in line]
    assert len(told) == 1
    assert "marked on im10.png as it was; the file has been replaced since" in told[0]

    Image.fromarray(discs(DISCS[1:]).astype(np.uint8) * np.uint8(70)).save(folder / "im2.png")
    with pytest.raises(InputError, match=r"No correction in corrections\.json can be used: marked on im"):
        run(other, display, segmenters)


def test_results_are_what_they_were_after_a_run_that_was_killed(request_for, display, images, tmp_path):
    chosen = Settings(threshold_mode="top", top_percent=50)
    out = run(request_for(settings=chosen), display, BrightMaker({"score": None, "finds_examples": False})).out
    killed = tmp_path / "killed"

    def kill(number):
        if number == 1:
            shutil.copytree(out, killed)

    segmenters = BrightMaker({"on_find": kill, "score": None, "finds_examples": False})
    assert run(request_for(images=images[:2], settings=Settings(smoothing=2)), display, segmenters).complete
    assert all(read_finished(killed).has_searched(path) for path in images)
    fixed = chosen.changed({"threshold_mode": "fixed", "similarity_threshold": 0.3})
    again = run(replace(request_again(killed), settings=fixed), display, segmenters)
    assert (again.resumed, segmenters.calls) == (3, [])
    assert searched(again.out) == searched(killed) == [("im1.png", 1), ("im2.png", 2), ("im10.png", 3)]
    assert not any("Left out" in line for line in display.lines)


def test_what_was_left_out_by_a_chosen_threshold_comes_back_with_a_fixed_one(request_for, display, images, tmp_path):
    for path in images:  # each disc of another brightness, which is its score
        Image.fromarray(np.array(Image.open(path)) - 10 * discs().astype(np.uint8)).save(path)
    segmenters = BrightMaker({"score": None, "finds_examples": False})
    chosen = Settings(threshold_mode="top", top_percent=50, similarity_threshold=0.3)
    out = run(request_for(settings=chosen), display, segmenters).out
    before = list(read_finished(out).records())
    assert all(record.threshold > 0.3 and "the threshold is" in record.warnings[-1] for record in before)
    fixed = chosen.changed({"threshold_mode": "fixed"})
    again = run(replace(request_again(out), settings=fixed), display, segmenters)
    anew = run(request_for(out=tmp_path / "anew", settings=fixed), display, segmenters)
    assert (again.resumed, anew.resumed) == (3, 0)
    assert (again.out / "detections.csv").read_text() == (anew.out / "detections.csv").read_text()
    assert again.found > read_finished(out).facts["found"]
    assert not any("the threshold is" in text for record in again.records() for text in record.warnings)


def test_results_that_do_not_list_their_images_tell_them_by_xy(done, segmenters, display, folder):
    facts = json.loads((done / "run.json").read_text())
    del facts["images"]  # as version 0.3.0
    (done / "run.json").write_text(json.dumps(facts))
    add_first(folder)
    other = run(replace(request_again(done), settings=Settings(min_mask_area=31)), display, segmenters).out
    assert searched(other) == [("im1.png", 2), ("im2.png", 3)]


def test_refining_in_place_goes_on_where_it_was_stopped(request_for, segmenters, display, folder, images):
    ring = np.array(Image.open(images[1]))
    ring[12:17, 12:17] = 2  # a hole, which outlines of the report lack
    Image.fromarray(ring).save(images[1])
    out = run(request_for(), None, segmenters).out
    whole = out.parent / "whole"
    shutil.copytree(out, whole)
    path = answered(out, "right")

    def refined(results):
        request = replace(request_again(results, results), settings=Settings(smoothing=0.4))
        return run(replace(request, corrections=[*request.corrections, path]), display, segmenters)

    assert refined(whole).complete
    segmenters.troubles[2] = KeyboardInterrupt()
    assert refined(out).done == 1
    segmenters.troubles.clear()
    assert refined(out).resumed == 1
    assert (out / "corrections.json").read_bytes() == (whole / "corrections.json").read_bytes()
    assert "holes" in (out / "corrections.json").read_text()
    for label in (whole / "labels").iterdir():
        assert (out / "labels" / label.name).read_bytes() == label.read_bytes()
    assert refined(out).resumed == 3
    assert not any("without holes" in line for line in display.lines)


def test_a_mark_lies_on_the_image_of_its_name_and_its_xy_tells_which_where_several_have_it(images):
    before = [Given(place, "", "", searched=True) for place in ("a/im.png", "b/im.png", "b/other.png")]
    known = KnownImages(before, range(3), open_images(images, Settings()), is_told=True)
    assert [known.find("im.png", xy) for xy in range(4)] == [0, 1, None, None]
    assert [known.find("b/im.png", xy) for xy in range(4)] == [1, 1, 1, 1]
    assert [known.find("other.png", xy) for xy in range(4)] == [2, 2, 2, 2]
    assert [known.find(None, xy) for xy in range(4)] == [0, 1, 2, None]
    assert known.find("gone.png", 0) is None


def test_an_export_is_for_the_images_of_its_results(done, images, display):
    """By XY alone where it does not name them."""
    path = answered(done, "wrong")
    content = json.loads(path.read_text())
    for each in content["annotations"]:
        del each["image"]
    path.write_text(json.dumps(content))
    taken = read_corrections([path], open_images(images[1:], Settings()), display, read_finished(done))
    there = {each["location"]["XY"] - 1 for each in content["annotations"]}
    assert {each.placed.location.xy for each in taken} == there
    assert len(list(read_finished(done).records())) == 2


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (["d/a", "d/b"], ["d/0", "d/a", "d/b"], [1, 2]),
        (["d/x/a", "d/y/a"], ["e/y/a", "e/x/a"], [1, 0]),
        (["d/x/a", "d/y/a"], ["e/a", "f/a"], [0, 1]),
        (["d/a", "d/b"], ["e/f/b"], [None, 0]),
        ([], ["a"], []),
    ],
)
def test_paths_are_found_by_their_ends(before, now, found):
    assert found_again([tuple(path.split("/")) for path in before], [tuple(path.split("/")) for path in now]) == found
