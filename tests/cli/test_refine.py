"""Refine: the same job again with corrections or other settings."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from label_discs import DISCS, discs
from PIL import Image

from bright import BrightMaker
from calls import calls_of
from sam2_fewshot.annotations.mark_next import asked_about
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.corrections import read_corrections, results_folder
from sam2_fewshot.files.request import next_folder, request_again
from sam2_fewshot.files.run import run
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.object_model import read_object_model
from sam2_fewshot.output.finished import Given, read_finished
from sam2_fewshot.output.pictures import LONGEST
from sam2_fewshot.report.content import UNITS
from sam2_fewshot.settings import Settings


def square(x: float, y: float, side: float = 10) -> list[dict[str, float]]:
    return [{"x": x, "y": y}, {"x": x + side, "y": y}, {"x": x + side, "y": y + side}, {"x": x, "y": y + side}]


def mark(verdict, x, y, xy=0, image="im1.png", **changes):
    location = {"XY": xy, "Z": 0, "Time": 0}
    base = {"shape": "polygon", "coordinates": square(x, y), "tags": [verdict], "location": location, "image": image}
    return {**base, **changes}


@pytest.fixture
def export(tmp_path):
    """Write what the report exports."""

    def write(*marks, name="corrections.json", results=None):
        about = {"kind": "corrections", "version": 1, **({"results": str(results)} if results else {})}
        path = tmp_path / name
        path.write_text(json.dumps({"annotations": list(marks), "sam2-fewshot": about}))
        return path

    return write


def rows(out):
    with (out / "detections.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_corrections_are_learned_from(request_for, segmenters, display, export):
    first = run(request_for(tags=["disc"], settings=Settings(smoothing=0)), display, segmenters)
    path = export(mark("right", 30, 30), mark("wrong", 2, 50), mark("wrong", 5, 5, 1, "im2.png"))
    request = request_again(first.out)
    assert request.out == first.out.parent / "out-refined"
    assert (request.tags, request.settings.smoothing) == (["disc"], 0)
    second = run(replace(request, corrections=[*request.corrections, path]), display, segmenters)
    assert second.complete
    assert segmenters.made[-1].fitted == 5
    assert second.resumed == 0
    facts = json.loads((second.out / "run.json").read_text())
    assert (facts["examples"], facts["corrections"]) == (2, 3)
    assert [frame["examples"] for frame in facts["frames"]] == [4, 1, 0]
    best = rows(second.out)[0]  # what was marked right is part of the results
    assert (best["score"], best["similarity"], best["area_px"]) == ("1.000000", "", "100")
    assert len(rows(second.out)) == len(rows(first.out)) + 1
    assert (second.out / "report.html").exists()

    third = request_again(second.out)
    assert third.out.name == "out-refined-2"
    assert third.corrections == [second.out / "corrections.json"]
    more = export(mark("wrong", 31, 31), name="more.json")  # on second thoughts
    last = run(replace(third, corrections=[*third.corrections, more]), display, segmenters)
    assert segmenters.made[-1].fitted == 5
    assert len(rows(last.out)) == len(rows(first.out))


def test_a_file_whose_corrections_are_all_known_is_told(request_for, segmenters, display, export):
    path = export(mark("right", 30, 30), mark("wrong", 2, 50))
    first = run(request_for(corrections=[path]), display, segmenters)
    assert not any("known already" in line for line in display.lines)
    again = request_again(first.out)
    for changed in (mark("wrong", 30, 30), mark("right", 31, 30), mark("wrong", 50, 2)):
        more = export(changed, mark("wrong", 2, 50), name="more.json")
        run(replace(again, corrections=[*again.corrections, more]), display, segmenters)
    assert not any("known already" in line for line in display.lines)
    run(replace(again, corrections=[*again.corrections, path]), display, segmenters)
    (told,) = [line for line in display.lines if "known already" in line]
    assert "Nothing new is learned from corrections.json: all of its corrections are known already." in told


def rings(width=64):
    """Label image of four rings, two on each side."""
    rows, columns = np.mgrid[:64, :width]
    labels = np.zeros((64, width), np.uint8)
    for value, (y, x) in enumerate([(14, 14), (46, 16), (14.4, width - 16), (48, width - 17.3)], 1):
        distance = np.hypot(rows - y, columns - x)
        labels[(distance <= 9 + value / 2) & (distance > 6)] = value
    return labels


def exported(record, number, verdict):
    """Return a verdict as the report exports it: to a fraction of a pixel of its picture, without holes."""
    step = max(1, max(record.frame_shape) / LONGEST) / UNITS
    corners = np.asarray(asked_about(record)[number - 1].polygon.exterior.coords)[:-1]
    coordinates = [{"x": x, "y": y} for x, y in (np.round(corners / step) * step).tolist()]
    place = {"XY": record.location.xy, "Z": 0, "Time": 0}
    changes = {"coordinates": coordinates, "location": place, "number": number}
    return mark(verdict, 0, 0, image=record.title, **changes)


@pytest.mark.parametrize("width", [64, 9600])
@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_what_is_confirmed_stays_as_it_was_found(
    request_for, segmenters, display, images, examples, export, width, smoothing
):
    labels = rings(width)
    Image.fromarray((labels > 0) * np.uint8(200)).save(images[0])
    Image.fromarray(labels * (labels < 3)).save(examples)
    first = run(request_for(images=images[:1], settings=Settings(smoothing=smoothing)), display, segmenters)
    (record,) = read_finished(first.out).records()
    number = len(record.detections) - record.counts.marked
    object_, path = asked_about(record)[number - 1], export(exported(record, number, "right"))
    again = request_again(first.out)
    second = run(replace(again, corrections=[path]), display, segmenters)
    # What was confirmed before is read from the results, and may be confirmed again by the first export.
    third = run(request_again(second.out), display, segmenters)
    fourth = run(replace(request_again(third.out), corrections=[path]), display, segmenters)
    for summary in (second, third, fourth):
        (record,) = read_finished(summary.out).records()
        confirmed = record.detections[0]
        assert (confirmed.kind, confirmed.area, confirmed.bbox) == ("confirmed", object_.area, object_.bbox)
        np.testing.assert_array_equal(confirmed.instance.data, object_.instance.data)
    assert not confirmed.instance.data[confirmed.instance.data.shape[0] // 2].all()
    assert not any("outline" in line for line in display.lines)
    taken = read_corrections([third.out / "corrections.json"], open_images(images[:1], Settings(), None), display)
    np.testing.assert_array_equal(taken[0].mask.full(), object_.mask)


def test_corrections_of_results_in_their_place_are_stored_before_the_results_are_others(
    request_for, segmenters, display, images, examples, export
):
    labels = rings()
    Image.fromarray((labels > 0) * np.uint8(200)).save(images[0])
    Image.fromarray(labels * (labels < 3)).save(examples)
    out = run(request_for(images=images[:1]), display, segmenters).out
    (record,) = read_finished(out).records()
    number = next(number for number, item in enumerate(asked_about(record), 1) if item.kind == "found")
    object_, path = asked_about(record)[number - 1], export(exported(record, number, "wrong"))
    again = replace(request_again(out, out), corrections=[path])
    (out / "corrections.json").mkdir()  # as where the disk is full when their turn comes
    assert not run(again, display, segmenters).complete
    (out / "corrections.json").rmdir()
    assert run(again, display, segmenters).complete
    assert not [line for line in display.lines if "without holes" in line]  # as it would without their object
    taken = read_corrections([out / "corrections.json"], open_images(images[:1], Settings(), None), display)
    np.testing.assert_array_equal(taken[0].mask.full(), object_.mask)


def test_an_outline_of_the_users_own_counts_as_drawn(request_for, segmenters, display, images, export):
    out = run(request_for(), display, segmenters).out
    record = next(read_finished(out).records())
    moved = exported(record, 1, "right")
    for corner in moved["coordinates"]:
        corner["x"] += 2
    opened = open_images(images, Settings(), None)
    path = export(moved, mark("wrong", 30, 30))
    (drawn, own) = read_corrections([path], opened, display, read_finished(out))
    (x0, y0, x1, y1), found = drawn.mask.box, asked_about(record)[0].bbox
    assert (x0 - 2, y0, x1 - 2, y1) == found
    assert own.mask.area == 100
    without = [line for line in display.lines if "without holes: the results have no such object" in line]
    assert len(without) == 1
    assert "corrections.json: object 1 was drawn from its outline" in without[0]
    assert read_corrections([path], opened, display)[0].mask.box == drawn.mask.box  # no results


def test_another_threshold_takes_over_what_is_finished(request_for, segmenters, display):
    first = run(request_for(), display, segmenters)
    request = replace(request_again(first.out), settings=Settings(similarity_threshold=0.95))
    second = run(request, display, segmenters)
    assert segmenters.calls == []  # nothing was searched
    assert (second.resumed, second.found) == (3, 0)
    assert {path.name for path in (second.out / ".frames").glob("*.jpg")} == {
        path.name for path in (first.out / ".frames").glob("*.jpg")
    }
    record = next(read_finished(second.out).records())
    assert (str(record.counts), len(record.below), record.threshold) == ("0 found + 2 marked = 2", 2, 0.95)
    back = run(replace(request, settings=Settings(similarity_threshold=0.2)), display, segmenters)
    assert (back.resumed, back.found) == (3, 10)
    assert (first.out / "overlays" / "im1.png").read_bytes() != b""


def test_below_the_floor_it_is_searched_again(request_for, segmenters, display):
    summary = run(request_for(), display, segmenters)
    assert [record.floor for record in summary.records()] == [pytest.approx(0.05)] * 3
    run(request_for(settings=Settings(similarity_threshold=0.06)), display, segmenters)
    assert segmenters.calls == []
    run(request_for(settings=Settings(similarity_threshold=0.04)), display, segmenters)
    assert len(segmenters.calls) == 3


@pytest.mark.parametrize("mode", ["top", "otsu", "auto"])
def test_a_fixed_threshold_after_a_chosen_one_takes_over_what_is_finished(request_for, display, mode):
    segmenters = BrightMaker({"score": None, "finds_examples": False})
    chosen = Settings(threshold_mode=mode, top_percent=50)
    first = run(request_for(settings=chosen), display, segmenters)
    for out in (first.out.parent / "fixed", first.out):  # the first results stay, or are replaced
        settings = chosen.changed({"threshold_mode": "fixed", "similarity_threshold": 0.3})
        earlier = None if out == first.out else first.out
        second = run(request_for(settings=settings, earlier=earlier, out=out), display, segmenters)
        assert (segmenters.calls, second.resumed, second.found) == ([], 3, 10)
        finished = read_finished(out)
        assert {record.threshold for record in finished.records()} == {0.3}
    run(request_for(settings=chosen), display, segmenters)  # these are chosen when a frame is searched
    assert len(segmenters.calls) == 3


@pytest.mark.parametrize("results", ["none", "of another threshold", "of other examples"])
def test_a_fixed_threshold_takes_over_what_a_killed_run_with_a_chosen_one_has_finished(
    request_for, display, examples, results
):
    segmenters = BrightMaker({"score": None, "finds_examples": False})
    chosen = Settings(threshold_mode="top", top_percent=50)
    fixed = chosen.changed({"threshold_mode": "fixed", "similarity_threshold": 0.3})
    out = request_for().out
    if results == "of another threshold":
        run(request_for(settings=Settings(smoothing=2)), display, segmenters)
    elif results == "of other examples":
        label = examples.read_bytes()
        Image.fromarray(discs(DISCS[:1])).save(examples)
        run(request_for(settings=chosen.changed({"threshold_mode": "otsu"})), display, segmenters)
        examples.write_bytes(label)
    before = (out / "run.json").read_bytes() if results != "none" else b""
    run(request_for(settings=chosen), display, segmenters)
    (out / "run.json").unlink()  # as where that run was killed
    if before:
        (out / "run.json").write_bytes(before)
    second = run(request_for(settings=fixed), display, segmenters)
    assert (segmenters.calls, second.resumed) == ([], 3)
    assert {record.threshold for record in read_finished(out).records()} == {0.3}


def test_overlays_follow_the_threshold(request_for, segmenters, display):
    out = run(request_for(), display, segmenters).out
    before = (out / "overlays" / "im1.png").read_bytes()
    run(request_for(settings=Settings(similarity_threshold=0.95)), display, segmenters)
    assert (out / "overlays" / "im1.png").read_bytes() != before
    run(request_for(), display, segmenters)
    assert (out / "overlays" / "im1.png").read_bytes() == before


def test_corrections_of_an_earlier_run_do_not_linger(request_for, segmenters, display, export):
    request = request_for(corrections=[export(mark("wrong", 2, 50))])
    out = run(request, display, segmenters).out
    assert (out / "corrections.json").exists()
    run(request_for(), display, segmenters)
    assert not (out / "corrections.json").exists()


@pytest.mark.parametrize(
    ("name", "following"),
    [("a", "a-refined"), ("a-refined", "a-refined-2"), ("a-refined-2", "a-refined-3"), ("2026-11", "2026-11-refined")],
)
def test_the_next_folder(tmp_path, name, following):
    assert next_folder(tmp_path / name) == tmp_path / following


@pytest.mark.parametrize("given", ["..", "../overlays/.."])
def test_the_next_folder_is_beside_the_results_from_within_as_well(tmp_path, monkeypatch, given):
    (tmp_path / "results" / "overlays").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "results" / "overlays")
    assert next_folder(Path(given)) == tmp_path / "results-refined"


def test_a_setting_that_is_gone_does_not_spoil_older_results(request_for, segmenters, display):
    out = run(request_for(), display, segmenters).out
    facts = json.loads((out / "run.json").read_text())
    facts["settings"]["cache_embeddings"] = "on"
    (out / "run.json").write_text(json.dumps(facts))
    assert request_again(out).settings == request_for().settings


def test_the_path_of_a_model_holds_in_any_folder(request_for, segmenters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.pt").write_text("weights")
    out = run(request_for(model="own.pt"), None, segmenters).out
    monkeypatch.chdir("/")
    assert request_again(out).model == str(tmp_path / "own.pt")


def test_results_of_another_program_are_refused(tmp_path, request_for, segmenters, display):
    out = run(request_for(), display, segmenters).out
    facts = json.loads((out / "run.json").read_text())
    del facts["request"]
    (out / "run.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="does not say which images"):
        request_again(out)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows takes it for missing")
def test_a_name_that_no_system_takes_is_no_defect(tmp_path, request_for, segmenters, display):
    out = run(request_for(), display, segmenters).out
    facts = json.loads((out / "run.json").read_text())
    facts["request"]["images"][0] = "x" * 5000
    (out / "run.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="xxx cannot be read: File name too long"):
        request_again(out)


def test_marks_that_cannot_be_used_are_told(images, export, display):
    opened = open_images(images, Settings(), None, display)
    path = export(
        mark("wrong", 0, 0),
        mark("wrong", 0, 0, xy=1, image="other.png"),
        mark("wrong", 0, 0, xy=9, image=None),
        mark("wrong", 40, 0, xy=9),  # its image is where the name says
        mark("wrong", 0, 0, location=None, tags=["right"]),
        mark("both", 0, 0, tags=["right", "wrong"]),
        mark("wrong", 0, 0, shape="circle"),
        mark("wrong", 0, 0, shape="point"),
        mark("wrong", 40, 40, coordinates=[{"x": float("nan"), "y": 1}]),
    )
    named, kept = read_corrections([path], opened, display)
    assert (named.placed.location.xy, named.is_right) == (0, False)
    assert kept.is_right  # the later verdict on the same object
    told = " ".join(display.lines)
    assert "marked on other.png, but the image at XY 2 is im2.png" in told
    assert "on an image that was not given" in told
    assert "corrections.json: 3 annotations were passed over, because they are no outline with one of the tags" in told


def test_answers_that_somebody_has_typed_are_understood_or_told(images, export, display):
    typed = ["Right", "WRONG ", "wrnog", "unanswered", "Unanswered"]
    path = export(
        *(mark("", 12 * n, 0, tags=[tag]) for n, tag in enumerate(typed)), mark("", 60, 0, tags=["unanswered", "right"])
    )
    read = read_corrections([path], open_images(images, Settings(), None, display), display)
    assert [item.is_right for item in read] == [True, False, True]
    told = [line for line in display.lines if "passed over" in line]
    assert told == [
        "Warning: corrections.json: 1 annotation was passed over, because it is no outline with one of the tags "
        "'right' and 'wrong'."
    ]


def test_marks_are_compared_with_those_on_their_frame_alone(images, export, display):
    opened = open_images(images, Settings(), None, display)
    marks = [mark("wrong", 12 * (n % 5), 12 * (n // 5), xy, images[xy].name) for n in range(25) for xy in range(3)]
    path = export(*marks, mark("right", 0, 0))
    with calls_of(mask_iou) as compared, calls_of(Given.is_called) as asked:
        read = read_corrections([path], opened, display)
    assert [item.placed.location.xy for item in read] == [1, 2] + [0, 1, 2] * 24 + [0]  # in the order of the marks
    assert (len(read), read[-1].is_right) == (75, True)
    assert len(compared) == 3 * sum(range(25)) + 25
    assert len(asked) == 3


@pytest.mark.parametrize("content", ["[]", "{}", '{"annotations": []}', '{"annotations": [1, {"tags": 5}]}', "3"])
def test_what_is_no_export_is_refused(tmp_path, images, display, content):
    path = tmp_path / "c.json"
    path.write_text(content)
    opened = open_images(images, Settings(), None, display)
    with pytest.raises(InputError, match="holds no corrections"):
        read_corrections([path], opened, display)
    assert results_folder(path) is None


def test_an_export_of_nothing_usable_is_refused(images, export, display):
    opened = open_images(images, Settings(), None, display)
    with pytest.raises(InputError, match=r"No correction in corrections\.json can be used: on an image"):
        read_corrections([export(mark("wrong", 0, 0, xy=9, image=None))], opened, display)


def listed(out):
    return json.loads((out / "run.json").read_text())["mark_next"]


def test_places_to_mark_next_are_answered_in_their_file(request_for, segmenters, display):
    first = run(request_for(tags=["disc"], settings=Settings(similarity_threshold=0.6)), display, segmenters)
    content = json.loads((first.out / "mark_next.json").read_text())
    assert [place["number"] for place in listed(first.out)] == [each["number"] for each in content["annotations"]]
    assert [place.facts() for place in first.mark_next] == listed(first.out)
    assert str(first.out) not in json.dumps(content), "results are the same wherever they lie"
    assert all(each["tags"] == ["unanswered"] for each in content["annotations"])
    answered = first.out.parent / "answered.json"
    for each, verdict in zip(content["annotations"], ("right", "wrong"), strict=False):
        each["tags"] = [verdict]
    answered.write_text(json.dumps(content))
    assert results_folder(answered) is None
    request = request_again(first.out)
    second = run(replace(request, corrections=[answered]), display, segmenters)
    facts = json.loads((second.out / "run.json").read_text())
    assert facts["corrections"] == 2  # what is not answered is passed over
    right = content["annotations"][0]
    confirmed = [row for row in rows(second.out) if row["kind"] == "confirmed"]
    assert [row["image"] for row in confirmed] == [right["image"]]
    asked = [(place["xy"], place["number"]) for place in listed(second.out)]
    assert (right["location"]["XY"] + 1, 1) not in asked  # it is the first on its frame now


def test_the_same_places_are_listed_everywhere(request_for, segmenters, display):
    from sam2_fewshot.report.content import gather

    for threshold in (0.6, 0.95):  # the second time, frames are taken over
        out = run(request_for(settings=Settings(similarity_threshold=threshold)), display, segmenters).out
        content = json.loads((out / "mark_next.json").read_text())["annotations"]
        finished = read_finished(out)
        objects = [(record, item) for record in finished.records() for item in asked_about(record)]
        shown = [objects[i] for i in gather(finished).data["next"]]
        assert [record.location.xy + 1 for record, _ in shown] == [place["xy"] for place in listed(out)]
        assert [round(item.score, 6) for _, item in shown] == [place["score"] for place in listed(out)]
        for (_, item), each, place in zip(shown, content, listed(out), strict=True):
            xs = [point["x"] for point in each["coordinates"]]
            assert (min(xs), max(xs)) == (item.polygon.bounds[0], item.polygon.bounds[2])
            assert min(xs) < place["x"] < max(xs)


def test_places_without_an_answer_are_refused_in_a_sentence(request_for, segmenters, display, images):
    out = run(request_for(), display, segmenters).out
    opened = open_images(images, Settings(), None, display)
    with pytest.raises(InputError, match=r"None of the \d+ places in mark_next\.json is answered\. Put 'right' or"):
        read_corrections([out / "mark_next.json"], opened, display)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_file_of_corrections(tmp_path, display):
    path = tmp_path / "p.json"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"p\.json is not a file"):
        read_corrections([path], [], display)


def test_no_file_of_places_where_nothing_is_found(request_for, segmenters, display, images):
    out = run(request_for(), display, segmenters).out
    assert (out / "mark_next.json").exists()
    for more, path in enumerate(images):  # none of them is a copy of another
        blue = np.zeros((64, 64 + more, 3), np.uint8)  # the stand-in looks at red
        blue[..., 2] = np.arange(64 + more)
        Image.fromarray(blue).save(path)
    summary = run(request_for(), display, segmenters)
    assert summary.mark_next == []
    assert not (out / "mark_next.json").exists()


QUICK = ("--method", "grid", "--points-per-side", "16", "--model", "filters", "--device", "cpu")


def test_one_command(cli, images, examples, tmp_path, export):
    out = tmp_path / "out"
    assert cli("segment", images[0], "--examples", examples, "-o", out, *QUICK).code == 0
    path = export(mark("wrong", 2, 2), results=out)
    outcome = cli("refine", path, "--similarity-threshold", "0.6")
    assert outcome.code == 0, outcome.err
    assert f"Results go to {out}-refined." in outcome.err
    facts = json.loads((tmp_path / "out-refined" / "run.json").read_text())
    assert facts["settings"]["similarity_threshold"] == 0.6
    assert facts["settings"]["points_per_side"] == 16
    assert facts["corrections"] == 1
    assert "report.html" in outcome.out
    first = facts["mark_next"][0]
    place = f"im1.png (x {first['x']:.0f}, y {first['y']:.0f})"
    assert f"To improve, mark as right or wrong what lies at: {place}" in outcome.out
    moved = tmp_path / "moved" / "im1.png"
    moved.parent.mkdir()
    images[0].rename(moved)
    outcome = cli("refine", out, "-o", tmp_path / "o2", "--similarity-threshold", "0.6")
    assert outcome.code == 2
    assert "im1.png" in outcome.err
    outcome = cli("refine", out, "-o", tmp_path / "o2", "--images", moved, "--similarity-threshold", "0.6")
    assert outcome.code == 0, outcome.err
    outcome = cli("report", tmp_path / "o2")
    assert (outcome.code, outcome.out.strip()) == (0, str(tmp_path / "o2" / "report.html"))


def test_what_was_learned_from_corrections_is_kept_for_other_images(cli, images, examples, tmp_path, export):
    def found(out):
        names = ("image", "score", "x0", "y0", "x1", "y1", "area_px")
        return [[row[name] for name in names] for row in rows(out) if row["kind"] == "found"]

    out, model = tmp_path / "out", tmp_path / "models" / "cells.npz"
    assert cli("segment", *images[:2], "--examples", examples, "-o", out, *QUICK).code == 0
    (record, _) = read_finished(out).records()
    path = export(exported(record, 1, "right"), mark("wrong", 2, 2))
    outcome = cli("refine", out, path, "--save-model", model)
    assert outcome.code == 0, outcome.err
    assert f"saved in {model}; use it with --object-model" in outcome.err
    assert sorted(known.wanted for known in read_object_model(model).known) == [False, True, True, True]
    outcome = cli("segment", *images[:2], "--object-model", model, "-o", tmp_path / "again", "--points-per-side", "16")
    assert outcome.code == 0, outcome.err
    assert found(tmp_path / "again") == found(tmp_path / "out-refined") != found(out)

    late = tmp_path / "late.npz"  # of results that are corrected already
    outcome = cli("refine", tmp_path / "out-refined", "--save-model", late)
    assert outcome.code == 0, outcome.err
    assert "2 of 2 frames are finished already" in outcome.err
    assert late.read_bytes() == model.read_bytes()


@pytest.mark.filterwarnings("default")  # of Dask and its event loop
def test_workers_find_the_same(cli, images, examples, tmp_path, export):
    import distributed

    out, alone, shared = (tmp_path / name for name in ("out", "alone", "shared"))
    assert cli("segment", *images[:2], "--examples", examples, "-o", out, *QUICK).code == 0
    (record, _) = read_finished(out).records()
    command = ("refine", out, export(exported(record, 1, "right"), mark("wrong", 2, 2)))
    assert cli(*command, "-o", alone).code == 0
    outcome = cli(*command, "-o", shared, "--scheduler", "many")
    assert outcome.code == 2
    assert "The scheduler is 'many', but it must be an address" in outcome.err
    assert not shared.exists()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", protocol="inproc://"
    ) as cluster:
        outcome = cli(*command, "-o", shared, "--scheduler", cluster.scheduler_address)
        assert cluster.scheduler.transition_counter > 0  # of its tasks
    assert outcome.code == 0, outcome.err
    assert rows(shared) == rows(alone) != rows(out)
    assert (shared / "annotations.json").read_bytes() == (alone / "annotations.json").read_bytes()


def test_there_is_nothing_to_save_of_results_of_an_object_model(cli, images, examples, tmp_path):
    model = tmp_path / "cells.npz"
    command = ("segment", images[0], "--examples", examples, "-o", tmp_path / "first", *QUICK, "--save-model", model)
    assert cli(*command).code == 0
    command = ("segment", images[0], "--object-model", model, "-o", tmp_path / "out", "--points-per-side", "16")
    assert cli(*command).code == 0
    again = ("refine", tmp_path / "out", "--similarity-threshold", "0.6", "--save-model", tmp_path / "other.npz")
    outcome = cli(*again)
    assert outcome.code == 2
    assert f"--save-model has nothing to save: with an object model nothing is learned, and {model}" in outcome.err
    assert not (tmp_path / "out-refined").exists()
    assert cli(*again, "--examples", examples).code == 0
    assert (tmp_path / "other.npz").exists()


def test_examples_of_another_name_may_be_given(cli, images, examples, tmp_path):
    out = tmp_path / "out"
    assert cli("segment", images[0], "--examples", examples, "-o", out, *QUICK).code == 0
    other = examples.rename(examples.with_name("old_labels.png"))
    command = ("refine", out, "-o", tmp_path / "o2", "--examples", other, "--similarity-threshold", "0.6")
    outcome = cli(*command)
    assert outcome.code == 2
    assert f"say so with --examples-on {images[0].name}" in outcome.err
    outcome = cli(*command, "--examples-on", images[0].name)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("with_folder", [False, True])
def test_corrections_that_are_saved_beside_the_report_are_read_once(
    cli, images, examples, tmp_path, export, with_folder
):
    out = tmp_path / "out"
    assert cli("segment", images[0], "--examples", examples, "-o", out, *QUICK).code == 0
    path = export(mark("right", 30, 30), results=out).replace(out / "corrections.json")
    outcome = cli("refine", *([out] if with_folder else []), path)
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "out-refined" / "run.json").read_text())["corrections"] == 1
    assert "known already" not in outcome.err


def test_wrong_use_is_a_sentence(cli, tmp_path, export):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for arguments, said in (
        ([tmp_path / "none"], "There is no file or folder"),
        ([tmp_path / "a", tmp_path / "b"], "Nothing would change"),
        ([tmp_path / "a", tmp_path / "b", "--smoothing", "1"], "are both folders"),
        ([tmp_path / "a", "--smoothing", "1"], "there is no run.json in it"),
        ([export()], "which results corrections.json is for; give"),
        ([export(results=tmp_path / "gone", name="c2.json")], "gone is not there"),
    ):
        outcome = cli("refine", *arguments)
        assert outcome.code == 2
        assert said in outcome.err.replace("\n", " ")
    assert cli("report", tmp_path / "a").code == 2


def test_white_previews_are_small(tmp_path):
    from sam2_fewshot.output.pictures import LONGEST, preview_jpeg
    from sam2_fewshot.storage.files import write_whole

    write_whole(tmp_path / "p.jpg", preview_jpeg(np.full((400, 4000, 3), 255, np.uint8)))
    with Image.open(tmp_path / "p.jpg") as picture:
        assert picture.size == (LONGEST, 160)
        assert picture.mode == "L"
