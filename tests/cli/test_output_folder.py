"""The output folder as the sink of a run, by what every sink does."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bright import BrightMethod
from calls import calls_of
from sam2_fewshot.annotations.placing import PlacedExemplar
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.folder import OutputFolder
from sam2_fewshot.files.plan import Plan, make_plan
from sam2_fewshot.files.run import run
from sam2_fewshot.object_model import ObjectModel
from sam2_fewshot.runner.progress import Watch
from sam2_fewshot.runner.run import learn
from sam2_fewshot.runner.tasks import CannotGoOn, Progressed, TaskResult, in_this_process
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.packing import unpack_detections


@pytest.fixture
def watch(display):
    return Watch(display)


@pytest.fixture
def ready(request_for, segmenters, watch):
    """Return a plan, a segmenter that has learned, and the folder."""

    def make(**changes):
        request = request_for(**changes)
        plan = make_plan(request, watch)
        segmenter = segmenters(request.model, request.device, request.settings, watch)
        learn(segmenter, plan.exemplars, watch)
        return plan, segmenter, OutputFolder(plan, segmenter, watch)

    return make


def searched(plan, segmenter, folder, watch):
    tasks = [folder.task(frame, plan.name(frame)) for frame in plan.frames]
    return list(in_this_process(tasks, segmenter, watch))


def test_it_takes_frames_and_puts_the_files_together(ready, watch):
    plan, segmenter, folder = ready()
    progressed = Progressed(3, 0)
    assert not any(folder.has(frame) for frame in plan.frames)
    with folder.opened(progressed):
        for task, result in searched(plan, segmenter, folder, watch):
            assert not folder.has(task.frame)
            folder.add(task, result)
            assert folder.has(task.frame)
        assert not (plan.request.out / "run.json").exists()
    assert not progressed.failures
    assert folder.assembled is not None
    assert (folder.done, folder.assembled.counts.found, folder.assembled.candidates) == (3, 10, 15)
    assert json.loads((plan.request.out / "run.json").read_text())["frames_done"] == 3
    assert [record.name for record in folder.records()] == ["im1.png", "im2.png", "im10.png"]
    assert [len(record.detections) for record in folder.records()] == [4, 4, 4]


def test_warnings_of_a_frame_that_fails_are_not_those_of_the_next(ready, watch):
    plan, segmenter, folder = ready()

    def warn(frame):
        watch.warn(f"{frame.name} is blurred.")
        if frame.name == "im2.png":
            raise InputError("it is damaged.")

    segmenter.on_plan = warn
    results = [result for _, result in searched(plan, segmenter, folder, watch)]
    assert [result.trouble for result in results] == ["", "it is damaged.", ""]
    assert [list(result.warnings) for result in results] == [
        [f"{name} is blurred."] for name in ("im1.png", "im2.png", "im10.png")
    ]


def test_what_it_has_is_what_the_same_plan_would_give(ready, watch):
    plan, segmenter, folder = ready()
    with folder.opened(Progressed(3, 0)):
        (task, result), *_ = searched(plan, segmenter, folder, watch)
        folder.add(task, result)
    plan, _, again = ready()
    assert [again.has(frame) for frame in plan.frames] == [True, False, False]
    plan, _, lower = ready(settings=Settings(similarity_threshold=0.4))
    assert [lower.has(frame) for frame in plan.frames] == [True, False, False]
    plan, _, other = ready(settings=Settings(min_mask_area=31))
    assert not any(other.has(frame) for frame in plan.frames)


def test_pictures_are_drawn_where_a_frame_is_searched(ready):
    plan, segmenter, folder = ready()
    frame = plan.frames[0]
    task = folder.task(frame, "im1.png")
    draw = pickle.loads(pickle.dumps(task.finish))
    finished = draw(frame, segmenter.predict(frame))
    assert finished.extra.overlay.startswith(b"\x89PNG")
    assert finished.extra.preview.startswith(b"\xff\xd8")
    assert (list(finished.warnings), list(finished.notes)) == ([], [])
    assert len(draw.marks) == 2
    assert folder.task(plan.frames[1], "im2.png").finish.marks == ()


@pytest.mark.parametrize(
    ("is_there", "sentence"),
    [(True, r"\.npz cannot be read: "), (False, r"no whole record of im2\.png \(Z 1, Time 1\)")],
)
def test_results_stay_where_the_record_of_a_finished_frame_fails(ready, watch, is_there, sentence):
    plan, segmenter, folder = ready()
    with folder.opened(Progressed(3, 0)):
        for task, result in searched(plan, segmenter, folder, watch):
            folder.add(task, result)
    out = plan.request.out
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.parent.name != ".frames"}
    assert out / "labels" / "im2.tif" in before
    name = json.loads((out / "run.json").read_text())["frames"][1]["record"]
    progressed = Progressed(3, 0)
    _, _, again = ready()
    with again.opened(progressed):
        (out / ".frames" / name).unlink()
        if is_there:
            (out / ".frames" / name).symlink_to(name)  # the system opens no such circle
    (failure,) = progressed.failures
    assert re.search(sentence, failure.sentence)
    assert {path: path.read_bytes() for path in before} == before


def test_a_failed_frame_is_not_there(ready, watch):
    plan, segmenter, folder = ready()
    with folder.opened(Progressed(3, 0)):
        for number, (task, result) in enumerate(searched(plan, segmenter, folder, watch)):
            if number == 1:
                folder.failed(task, TaskResult(trouble="it is damaged."), 1)
            else:
                folder.add(task, result)
    assert [folder.has(frame) for frame in plan.frames] == [True, False, True]
    assert json.loads((plan.request.out / "run.json").read_text())["frames_done"] == 2


def test_a_frame_that_cannot_be_written_ends_the_run(ready, watch, display):
    plan, segmenter, folder = ready()
    plan.request.out.mkdir()
    (plan.request.out / "overlays").write_text("no folder")
    progressed = Progressed(3, 0)
    task, result = searched(plan, segmenter, folder, watch)[0]
    with folder.opened(progressed), pytest.raises(CannotGoOn, match="could not be written") as caught:
        folder.add(task, result)
    assert caught.value.what == "im1.png"
    assert f"Failed: {caught.value}" in display.lines
    assert progressed.failures == []  # the run adds it
    assert folder.done == 0
    assert not (plan.request.out / "run.json").exists()


@pytest.mark.parametrize("is_first", [True, False])
def test_notes_that_cannot_be_put_back_are_no_failure(is_first, request_for, segmenters, ready):
    if not is_first:
        run(request_for(), None, segmenters)
    *_, folder = ready(settings=Settings(smoothing=2))
    progressed = Progressed(3, 0)
    with folder.opened(progressed):
        notes = request_for().out / ".frames" / "inputs.json"
        notes.unlink()
        (notes / "taken").mkdir(parents=True)
    assert progressed.failures == []


@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_a_finished_frame_whose_record_is_removed_meanwhile_is_missed(ready, watch, threshold):
    plan, segmenter, folder = ready()
    with folder.opened(Progressed(3, 0)):
        for task, result in searched(plan, segmenter, folder, watch):
            folder.add(task, result)
    name = json.loads((plan.request.out / "run.json").read_text())["frames"][1]["record"]
    _, _, again = ready(settings=Settings(similarity_threshold=threshold))
    (plan.request.out / ".frames" / name).unlink()
    progressed = Progressed(3, 3)
    with again.opened(progressed):
        pass
    assert "no whole record of im2.png (Z 1, Time 1)" in progressed.failures[0].sentence


def test_what_was_learned_is_saved_where_that_is_asked_for(ready, tmp_path, display):
    path = tmp_path / "models" / "cells.npz"
    _, segmenter, folder = ready(save_model=path)
    folder.learned(segmenter)
    saved = ObjectModel.from_bytes(path.read_bytes(), learned=BrightMethod.layouts)
    assert saved.to_bytes() == replace(segmenter.object_model, channels="").to_bytes()
    assert display.lines[-1] == f"What was learned is saved in {path}; use it with --object-model."
    _, segmenter, folder = ready()
    folder.learned(segmenter)
    assert [path.name for path in path.parent.iterdir()] == ["cells.npz"]


def test_a_defect_passes_through_when_the_files_are_together(ready, watch):
    plan, segmenter, folder = ready()

    def fail():
        with folder.opened(Progressed(3, 0)):
            (task, result), *_ = searched(plan, segmenter, folder, watch)
            folder.add(task, result)
            raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError):
        fail()
    assert json.loads((plan.request.out / "run.json").read_text())["frames_done"] == 1


def test_the_confirmed_are_part_of_the_results(ready, request_for, tmp_path):
    ring = [{"x": x, "y": y} for x, y in ((30, 30), (40, 30), (40, 40), (30, 40))]
    location = {"XY": 0, "Z": 0, "Time": 0}
    mark = {"shape": "polygon", "coordinates": ring, "tags": ["right"], "location": location, "image": "im1.png"}
    path = tmp_path / "corrections.json"
    path.write_text(json.dumps({"annotations": [mark]}))
    plan, segmenter, folder = ready(corrections=[path])
    frame = plan.frames[0]
    found = segmenter.predict(frame)
    finished = folder.task(frame, "im1.png").finish(frame, found)
    everything = [*found.detections, *(item for item in found.examples if item.area != 100)]
    assert [item.area for item in finished.found.detections] == [100, *(item.area for item in everything)]
    assert [item.kind for item in finished.found.detections] == ["confirmed", *["found"] * 2, *["example"] * 2]
    assert finished.found.candidates == found.candidates


def test_the_marks_on_a_frame_are_made_once(ready, watch):
    plan, segmenter, folder = ready()
    with calls_of(Plan.examples_on) as callers:
        with folder.opened(Progressed(3, 0)):
            for task, result in searched(plan, segmenter, folder, watch):
                folder.add(task, result)
        assert [len(record.examples) for record in folder.records()] == [2, 0, 0]
    assert len(callers) == 3


def test_the_marks_of_all_frames_are_gone_through_once(ready):
    plan, _, _ = ready()
    with calls_of(PlacedExemplar.location.fget) as callers:
        for frame in plan.frames * 3:
            assert len(plan.examples_on(frame.location)) == 2 * (frame.location.xy == 0)
    assert len(callers) <= 2


def test_records_are_unpacked_only_for_what_is_written(ready, watch):
    plan, segmenter, folder = ready(settings=Settings(similarity_threshold=0.6))
    with folder.opened(Progressed(3, 0)):
        for task, result in searched(plan, segmenter, folder, watch):
            folder.add(task, result)
    with calls_of(unpack_detections) as unpacked:
        again = OutputFolder(plan, segmenter, watch)
        assert (again.done, unpacked) == (3, [])
        with again.opened(Progressed(3, 3)):
            pass
    places = again.assembled.mark_next
    frames = {place.location for place in places}
    assert len(places) > len(frames) > 0
    assert len(unpacked) == 3 + 3 + len(frames)  # result files, report, places to mark next


def test_what_another_run_finished_meanwhile_is_left_to_the_next(ready, watch, tmp_path):
    plan, segmenter, first = ready()
    done = searched(plan, segmenter, first, watch)
    with first.opened(Progressed(3, 0)):
        for task, result in done[:2]:
            first.add(task, result)
    _, _, second = ready(out=tmp_path / "second", earlier=plan.request.out)
    progressed = Progressed(3, 0)
    with second.opened(progressed):
        _, _, again = ready()
        with again.opened(Progressed(3, 0)):
            again.add(*done[2])
    assert (progressed.failures, second.done) == ([], 2)
    assert (tmp_path / "second" / "run.json").exists()


def test_an_example_in_parts_stays_an_example(ready, tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    labels[4:24, 4:24] = 1
    labels[5:23, 5:23] = 0  # a ring of 76 pixels, within an outline of 400
    labels[40:50, 40:50] = 1
    labels[40:48, 4:12] = 2
    Image.fromarray(labels).save(tmp_path / "im1_labels.png")
    plan, segmenter, folder = ready(examples=tmp_path / "im1_labels.png")
    frame = plan.frames[0]
    finished = folder.task(frame, "im1.png").finish(frame, segmenter.predict(frame))
    assert [item.area for item in finished.found.detections if item.kind == "example"] == [100, 64]


def test_overlays_show_a_frame_as_it_was_searched(request_for, segmenters, images):
    for path in images:
        deep = np.asarray(Image.open(path)).astype(np.uint16) * 100
        if path == images[-1]:
            deep[2:5, 2:5] = 60_000  # a speck of dirt, three times as bright as the discs
        Image.fromarray(deep).save(path)
    out = run(request_for(), None, segmenters).out
    place = np.s_[30:250, 260:480]  # of the frame, without the speck
    alone, dirty = (np.asarray(Image.open(out / "overlays" / f"{name}.png"))[place] for name in ("im2", "im10"))
    assert (np.abs(dirty.astype(int) - alone) > 2).mean() < 0.01  # the pixel by which the images differ
    assert np.percentile(dirty, 99) > 200
    # Drawn anew at another threshold, when nothing is searched.
    run(request_for(settings=Settings(similarity_threshold=0.95)), None, segmenters)
    again = np.asarray(Image.open(out / "overlays" / "im10.png"))[place]
    assert segmenters.calls == []
    assert np.median(np.abs(again.astype(int) - dirty)) == 0
    assert (again == 255).all(axis=2).sum() > 1000
