"""The job: frames, resumption, failures, interruption; with a segmenter that needs no torch."""

from __future__ import annotations

import csv
import json
import os
import resource
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from bright import BrightMaker, BrightMethod, BrightSegmenter
from sam2_fewshot.backbones import open_backbone, sam2_distribution
from sam2_fewshot.cli.console import PlainDisplay
from sam2_fewshot.errors import FewShotWarning, InputError, SettingsError
from sam2_fewshot.files.folder import OutputFolder
from sam2_fewshot.files.plan import make_plan
from sam2_fewshot.files.run import run
from sam2_fewshot.output.pictures import draw_overlay
from sam2_fewshot.runner.progress import Silent, Watch
from sam2_fewshot.runner.run import MemoryLimit
from sam2_fewshot.runner.run import run as run_ends
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from sam2_fewshot.records import FrameReader


def test_results_are_complete(request_for, segmenters, display):
    summary = run(request_for(tags=["cell", "round"]), display, segmenters)
    out = summary.out
    assert summary.complete
    assert (summary.frames, summary.done, summary.resumed) == (3, 3, 0)
    assert (summary.found, summary.candidates, str(summary.counts)) == (10, 15, "10 found + 2 marked = 12")
    assert {"load model", "learn examples"} <= set(summary.seconds)
    assert segmenters.made[0].fitted == 2
    with (out / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows[::4]] == ["im1.png", "im2.png", "im10.png"]
    assert [row["xy"] for row in rows[::4]] == ["1", "2", "3"]
    annotations = json.loads((out / "annotations.json").read_text())["annotations"]
    assert len(annotations) == 12
    assert annotations[0]["tags"] == ["cell", "round"]
    assert {path.name for path in out.glob("overlays/*")} == {"im1.png", "im2.png", "im10.png"}
    assert tifffile.imread(out / "labels" / "im10.tif").max() == 4
    facts = json.loads((out / "run.json").read_text())
    assert facts["frames_done"] == facts["frames_asked"] == 3
    backbone = open_backbone("filters", "auto", Settings())
    assert facts["model"] == {"name": "filters", "sha256": backbone.sha256, "licence": "unknown"}
    assert facts["settings"]["similarity_threshold"] == 0.5
    assert facts["seconds"] == summary.seconds
    assert summary.seconds["propose"] == pytest.approx(sum(frame["seconds"]["propose"] for frame in facts["frames"]))
    assert facts["versions"]["sam2-fewshot"]
    assert facts["versions"]["sam2"] == sam2_distribution()
    assert facts["request"]["examples"] == str(request_for().examples)
    assert (facts["request"]["batch_xy"], facts["request"]["channels"]) == (None, None)
    assert f"Model filters on {backbone.device_name}." in display.lines


def test_records_give_the_detections(request_for, segmenters):
    summary = run(request_for(), Silent(), segmenters)
    records = list(summary.records())
    assert [len(record.detections) for record in records] == [4, 4, 4]
    assert [len(record.examples) for record in records] == [2, 0, 0]


def test_output_tag_is_the_training_tag(request_for):
    assert request_for(training_tag="YFP").output_tags == ["YFP"]
    assert request_for().output_tags == ["object"]
    assert request_for(tags=["a", " b", "a", ""]).output_tags == ["a", "b"]
    assert request_for(tags=[" "]).output_tags == ["object"]


def test_a_failing_frame_does_not_lose_the_others(request_for, segmenters, display):
    segmenters.troubles = {2: InputError("it is damaged.")}
    summary = run(request_for(), display, segmenters)
    assert not summary.complete
    assert (summary.done, summary.frames) == (2, 3)
    assert [(failure.what, failure.sentence) for failure in summary.failures] == [("im2.png", "it is damaged.")]
    assert "Failed: it is damaged." in display.lines
    facts = json.loads((summary.out / "run.json").read_text())
    assert (facts["frames_done"], facts["frames_asked"]) == (2, 3)
    assert facts["failures"] == ["im2.png: it is damaged."]
    segmenters.troubles = {}
    summary = run(request_for(), None, segmenters)
    assert summary.complete
    assert segmenters.calls == ["im2.png"]


@pytest.mark.parametrize("shape", [(1, 1), (64, 64)])
def test_an_image_of_one_colour_is_told(request_for, segmenters, display, images, shape):
    Image.fromarray(np.zeros(shape, np.uint8)).save(images[1])
    summary = run(request_for(), display, segmenters)
    assert summary.complete
    assert [line for line in display.lines if "same everywhere" in line] == [
        "Warning: im2.png is the same everywhere, so nothing can be found in it."
    ]
    frames = json.loads((summary.out / "run.json").read_text())["frames"]
    assert [len(frame["warnings"]) for frame in frames] == [0, 1, 0]
    assert "Nothing was found on" not in (summary.out / "report.html").read_text("utf-8")  # which has advice then


def test_what_a_killed_run_left_half_written_goes(request_for, segmenters):
    journal = request_for().out / ".frames"
    journal.mkdir(parents=True)
    half, another = ".0123456789abcdef-xy000000_z00000_t00000.npz.part", ".fedcba9876543210-another_is_at_it.npz.part"
    for name in (half, another):
        (journal / name).write_text("half")
    os.utime(journal / half, (0, 0))
    run(request_for(), None, segmenters)
    assert [path.name for path in journal.glob(".*")] == [another]


def test_the_overlay_tells_the_threshold(request_for, segmenters, tmp_path):
    drawn = [
        np.asarray(Image.open(run(request_for(settings=settings, out=tmp_path / name), None, segmenters).out / overlay))
        for name, settings in (("a", Settings()), ("b", Settings(similarity_threshold=0.75)))
        for overlay in ("overlays/im2.png",)
    ]
    changed = np.nonzero((drawn[0] != drawn[1]).any(axis=(1, 2)))[0]
    assert changed.size
    assert changed.min() >= 64 * 4  # the legend lies below the enlarged picture


def test_the_overlay_tells_the_threshold_that_was_chosen_for_its_frame(request_for, display):
    segmenters = BrightMaker({"score": None, "finds_examples": False})
    request = request_for(settings=Settings(threshold_mode="top", top_percent=50))
    plan = make_plan(request, Watch(Silent()))
    for drawn_later in (False, True):
        summary = run(request, display, segmenters)
        for record in summary.records():
            path = summary.out / "overlays" / f"{record.stem}.png"
            pixels = plan.images.frame(record.location).read()
            drawn = draw_overlay(pixels, record.detections, record.examples, threshold=record.threshold)
            assert np.array_equal(np.asarray(Image.open(path)), drawn), drawn_later
            assert not np.array_equal(drawn, draw_overlay(pixels, record.detections, record.examples, threshold=0.5))
            path.unlink()
    assert len(segmenters.calls) == 0


@pytest.mark.parametrize("trouble", [OSError(5, "Input/output error"), MemoryError()])
def test_trouble_with_one_frame_is_a_sentence(request_for, segmenters, trouble):
    segmenters.troubles = {1: trouble}
    with pytest.warns(FewShotWarning, match="error|memory"):
        summary = run(request_for(), None, segmenters)
    assert summary.done == 2


def test_every_frame_failing_writes_no_results(request_for, segmenters, display):
    segmenters.troubles = {n: InputError("no.") for n in (1, 2, 3)}
    summary = run(request_for(), display, segmenters)
    assert (summary.done, len(summary.failures)) == (0, 3)
    assert not summary.out.exists()


def test_interruption_keeps_and_assembles_finished_frames(request_for, segmenters, display):
    segmenters.troubles = {3: KeyboardInterrupt()}
    summary = run(request_for(), display, segmenters)
    assert summary.interrupted
    assert not summary.complete
    assert (summary.done, summary.found) == (2, 6)
    assert json.loads((summary.out / "run.json").read_text())["frames_done"] == 2
    segmenters.troubles = {}
    assert run(request_for(), None, segmenters).resumed == 2


@dataclass(eq=False)
class Pressed:
    """A frame at which Ctrl-C is pressed when its record has just been written."""

    frame: FrameReader
    out: Path
    presses: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.name, self.shape, self.read = self.frame.name, self.frame.shape, self.frame.read

    @property
    def location(self):
        if not self.presses and list(self.out.glob(".frames/*.npz")):
            self.presses.append(1)
            raise KeyboardInterrupt
        return self.frame.location


def test_a_frame_whose_record_was_just_written_counts_when_ctrl_c_comes(request_for, segmenters, display):
    watch, settings = Watch(display), Settings()
    plan = make_plan(request_for(), watch)
    pressed = Pressed(plan.frames[0], plan.request.out)
    plan = replace(plan, frames=[pressed, *plan.frames[1:]])
    segmenter = segmenters("auto", "auto", settings, watch)
    folder = OutputFolder(plan, segmenter, watch)
    ended = run_ends(plan, folder, segmenter, watch)
    assert pressed.presses
    assert ended.interrupted
    assert folder.done == 1
    assert json.loads((plan.request.out / "run.json").read_text())["frames_done"] == 1


class Impatient(OutputFolder):
    """An output folder that the user does not wait for: Ctrl-C while the results are put together."""

    def records(self):
        yield next(super().records())
        raise KeyboardInterrupt


def test_pressing_ctrl_c_again_leaves_whole_files(request_for, segmenters, display):
    out = run(request_for(batch_xy="1"), None, segmenters).out
    before = (out / "detections.csv").read_bytes()
    watch = Watch(display)
    plan = make_plan(request_for(), watch)
    segmenter = segmenters("auto", "auto", Settings(), watch)
    folder = Impatient(plan, segmenter, watch)
    ended = run_ends(plan, folder, segmenter, watch)
    assert ended.interrupted
    assert not folder.assembled
    assert folder.done == 3
    assert (out / "detections.csv").read_bytes() == before
    assert not list(out.rglob("*.part"))
    assert run(request_for(), None, segmenters).resumed == 3


def test_a_defect_is_raised_after_assembly(request_for, segmenters, display):
    segmenters.troubles = {2: ZeroDivisionError("oops")}
    with pytest.raises(ZeroDivisionError):
        run(request_for(), display, segmenters)
    assert json.loads((request_for().out / "run.json").read_text())["frames_done"] == 1


@pytest.fixture
def small_files_only():
    """Let no file grow beyond a limit, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


NOTES = 4000
"""Bytes in which what a run notes down at first has room, and an overlay has none."""


def test_full_disk_stops_the_run_with_a_sentence(request_for, segmenters, display, small_files_only):
    segmenters.troubles = {}
    first = run(request_for(batch_xy="1"), None, segmenters)
    kept = (first.out / "detections.csv").read_bytes()
    small_files_only(NOTES)
    summary = run(request_for(), display, segmenters)
    small_files_only(resource.RLIM_INFINITY if resource.getrlimit(resource.RLIMIT_FSIZE)[1] < 0 else 1 << 40)
    assert len(segmenters.calls) == 1  # the next frame is not tried
    assert "could not be written" in summary.failures[0].sentence
    assert "disk is full" in summary.failures[0].sentence
    assert (first.out / "detections.csv").read_bytes() == kept
    assert not list(first.out.rglob("*.part"))
    assert run(request_for(), None, segmenters).complete


def test_where_not_even_the_notes_can_be_written_nothing_is_searched(request_for, segmenters, small_files_only):
    small_files_only(200)
    with pytest.raises(InputError, match=r"The disk is full: .*inputs\.json could not be written"):
        run(request_for(), None, segmenters)
    assert not segmenters.calls


def test_on_a_full_disk_the_frame_is_named(request_for, segmenters, small_files_only, capsys):
    segmenters.troubles = {}
    small_files_only(NOTES)
    run(request_for(), PlainDisplay(), segmenters)
    assert "Failed: frame 1 of 3: im1.png: The disk is full" in capsys.readouterr().err


def test_ranges_choose_frames_in_order(request_for, segmenters, tmp_path, examples):
    path = tmp_path / "stack.ome.tif"
    stack = np.zeros((3, 2, 64, 64), np.uint8)
    tifffile.imwrite(path, stack + np.arange(64, dtype=np.uint8), metadata={"axes": "TZYX"}, ome=True)
    request = request_for(images=[path], examples=examples.rename(examples.with_name("stack_labels.png")))
    names: list[str] = []

    class Names(Silent):
        def frame_begins(self, name: str) -> None:
            names.append(name)

        def warn(self, sentence: str) -> None:
            assert "is taken for the first frame" in sentence

    run(request, Names(), segmenters)
    assert names == [f"stack.ome.tif Z {z} Time {t}" for z in (1, 2) for t in (1, 2, 3)]
    names.clear()
    chosen = type(request)(**{**vars(request), "batch_time": "2-3", "batch_z": "2", "out": tmp_path / "o2"})
    summary = run(chosen, Names(), segmenters)
    assert names == ["stack.ome.tif Z 2 Time 2", "stack.ome.tif Z 2 Time 3"]
    assert {path.name for path in (summary.out / "overlays").iterdir()} == {"stack_Z2_T2.png", "stack_Z2_T3.png"}


def test_images_may_differ_in_slices(request_for, segmenters, tmp_path, images, examples):
    deep = tmp_path / "deep.tif"
    tifffile.imwrite(deep, np.stack([np.eye(64, dtype=np.uint8)] * 2), metadata={"axes": "ZYX"}, imagej=True)
    summary = run(request_for(images=[images[0], deep], batch_z="2"), None, segmenters)
    assert summary.frames == 1
    with pytest.raises(InputError, match="No image has a frame"):
        run(request_for(images=[images[0], _times(tmp_path), deep], batch_z="2", batch_time="2"), None, segmenters)


def _times(tmp_path: Path) -> Path:
    path = tmp_path / "times.tif"
    tifffile.imwrite(path, np.zeros((2, 64, 64), np.uint8), metadata={"axes": "TYX"}, imagej=True)
    return path


@pytest.mark.parametrize("field", ["batch_xy", "batch_z", "batch_time"])
def test_wrong_range_is_refused_before_anything_is_written(request_for, segmenters, field):
    with pytest.raises(SettingsError, match=field.split("_")[1].upper() if field == "batch_xy" else "Batch"):
        run(request_for(**{field: "9"}), None, segmenters)
    assert not request_for().out.exists()
    assert segmenters.made == []


def test_label_image_caught_by_a_pattern_is_left_out(request_for, segmenters, display, images):
    beside = images[0].with_name("im1_labels.png")
    Image.open(request_for().examples).save(beside)
    summary = run(request_for(images=[*images, beside], examples=beside), display, segmenters)
    assert summary.frames == 3
    assert any("Left out of the images" in line and "im1_labels.png" in line for line in display.lines)
    summary = run(request_for(images=[*images, beside], examples=beside.parent), display, segmenters)
    assert summary.frames == 3


def test_output_folder_that_cannot_be(request_for, segmenters, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    for out in (file, file / "below"):
        with pytest.raises(InputError, match="is a file"):
            run(request_for(out=out), None, segmenters)
    special = tmp_path / "pipe"
    os.mkfifo(special)
    with pytest.raises(InputError, match="is not a folder"):
        run(request_for(out=special), None, segmenters)
    assert segmenters.made == []


def test_a_label_image_alone_is_an_image(request_for, segmenters, images, examples):
    with pytest.raises(InputError, match="both as examples and as an image"):
        run(request_for(images=[examples]), None, segmenters)


def test_output_folder_is_made_with_its_parents(request_for, segmenters, tmp_path):
    assert run(request_for(out=tmp_path / "a" / "b"), None, segmenters).complete


def test_warnings_are_shown_once_and_recorded(request_for, display):
    def make(model, device, settings, progress):
        return BrightSegmenter(settings, progress, BrightMethod(on_find=lambda number: progress.warn("blurred")))

    summary = run(request_for(), display, make)
    assert display.lines.count("Warning: blurred") == 1
    frames = json.loads((summary.out / "run.json").read_text())["frames"]
    assert [frame["warnings"] for frame in frames] == [["blurred"], [], []]


def test_settings_without_effect_are_told(request_for, segmenters, display):
    summary = run(request_for(settings=Settings(points_per_side=64)), display, segmenters)
    said = "Points per side was set to 64, which has no effect with Method guided; it counts only with grid."
    assert display.lines.count(f"Warning: {said}") == 1
    assert said in json.loads((summary.out / "run.json").read_text())["warnings"]


def test_compiling_is_said_once_and_changes_no_result(request_for, segmenters, display):
    compiling = request_for(settings=Settings(compile=True))
    run(compiling, display, segmenters)
    said = "Compiling SAM 2 for this device; the first image takes minutes, later ones are faster."
    assert display.lines.count(said) == 1
    assert run(request_for(), display, segmenters).resumed == 3
    assert run(compiling, display, segmenters).resumed == 3
    assert display.lines.count(said) == 1


def test_too_little_memory_is_refused_with_the_least_that_works(request_for, segmenters, display):
    request = request_for(settings=Settings(max_memory=0.5))
    with pytest.raises(InputError, match=r"learned or searched with 0\.5 GB: about [0-9.]+ GB are needed") as error:
        run(request, display, segmenters)
    assert not request.out.exists()
    with pytest.raises(InputError, match=r"im1\.png cannot be searched with 1 GB: about 1\.2 GB"):
        MemoryLimit(1).check(1.14, "im1.png cannot be searched")
    least = float(str(error.value).split("about ")[1].split(" GB")[0])
    assert run(request_for(settings=Settings(max_memory=least)), display, segmenters).complete
