"""Commands that are killed or stopped while they write, and what the next one makes of what is left."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import tifffile
from label_discs import discs
from PIL import Image

from sam2_fewshot.errors import InputError
from sam2_fewshot.files.folder import OutputFolder
from sam2_fewshot.files.run import run
from sam2_fewshot.output.finished import Finished, read_finished
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.report import page as page_module
from sam2_fewshot.report.page import write_report
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage import files as files_module
from sam2_fewshot.storage.locks import only_run


class Killed(BaseException):
    """What a process that is killed does not survive."""


@pytest.fixture
def killed(monkeypatch):
    """Do something until its n-th file gets its name or goes, and nothing more in the file system; tell if it was."""

    def until(number, work):
        calls = count(1)

        def counted(call, path, *rest, **options):
            at = Path(path)
            is_lock = at.name.startswith("lock")  # the system takes it back
            if not is_lock and ".zarr" not in str(at.parent) and next(calls) >= number:
                raise Killed
            return call(path, *rest, **options)

        with monkeypatch.context() as patch:
            for name in ("replace", "unlink", "rmdir"):
                patch.setattr(os, name, partial(counted, getattr(os, name)))
            try:
                work()
            except Killed:
                return True
        return False

    return until


@pytest.fixture
def requests(request_for, images, tmp_path):
    """A run of three images, one of them a stack, in all formats, and one of the first image alone."""
    plane = np.asarray(Image.open(images[1]))
    tifffile.imwrite(tmp_path / "s.tif", np.stack([plane, plane]), metadata={"axes": "ZYX"})
    formats = ["coco", "roi", *(["zarr"] if pytest.importorskip("zarr") else [])]
    return request_for(images=[images[0], tmp_path / "s.tif"], write=formats), request_for(images=images[:1])


def listing(out):
    """Files but those of the journal, and folders that are empty."""
    shown = [path for path in out.rglob("*") if not any(part.startswith(".") for part in path.relative_to(out).parts)]
    return sorted(str(path.relative_to(out)) for path in shown if path.is_file() or not any(path.iterdir()))


@pytest.mark.parametrize("which", ["first", "second"])
def test_the_next_run_removes_what_a_killed_one_left(which, killed, requests, segmenters, images, tmp_path):
    more, fewer = requests
    out = more.out
    run(fewer, None, segmenters)
    clean = listing(out)
    shutil.rmtree(out)
    picture = images[0].read_bytes()  # also one that is called as an overlay
    users = {"labels/mine.tif": b"mine", "overlays/s_Z9_T1.png": picture, "notes.txt": b"mine"}

    def prepare():
        shutil.rmtree(out, ignore_errors=True)
        for name, content in users.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)

    prepare()
    run(more, None, segmenters)
    shutil.copytree(out, tmp_path / "before")
    points = 0
    for number in count(1, 7):
        prepare()
        if which == "second":
            shutil.copytree(tmp_path / "before", out, dirs_exist_ok=True)
        if not killed(number, lambda: run(more if which == "first" else fewer, None, segmenters)):
            break
        points += 1
        assert run(fewer, None, segmenters).complete
        assert listing(out) == sorted([*clean, *users]), number
        assert {name: (out / name).read_bytes() for name in users} == users
        noted = json.loads((out / ".frames" / "inputs.json").read_text())["results"]
        assert not [key for key in noted if key.startswith(("rois", "labels/s", "overlays/s"))]
    assert points > 3


def test_what_a_run_that_was_killed_while_it_searched_only_planned_is_the_users(
    requests, segmenters, images, monkeypatch
):
    more, fewer = requests
    out = more.out

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "add", killed)
        patch.setattr(OutputFolder, "_put_together", killed)
        with pytest.raises(Killed):
            run(more, None, segmenters)
    users = {"coco.json": "mine", "labels/s.tif": "mine", "zarr/s.zarr/notes.txt": "mine"}
    for name, content in users.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(content)
    for _ in range(2):
        assert run(fewer, None, segmenters).complete
        assert {name: (out / name).read_text() for name in users} == users


def test_names_in_the_notes_lead_to_nothing_else(request_for, segmenters, tmp_path):
    out = run(request_for(), None, segmenters).out
    users = [tmp_path / "precious.tif", out / "labels" / "mine.tif", out / "overlays" / "mine.png"]
    for path in users:
        path.write_text("mine")
    inputs = out / ".frames" / "inputs.json"
    facts = json.loads(inputs.read_text())
    names = ["../precious.tif", "labels/../../precious.tif", "labels", "overlays/mine", ".frames"]
    facts |= {"results": [*facts["results"], *names], "written": names}
    inputs.write_text(json.dumps(facts))
    assert run(request_for(), None, segmenters).complete
    assert [path.read_text() for path in users] == ["mine"] * 3
    assert len(read_finished(out).facts["frames"]) == 3


def test_a_file_that_was_removed_is_no_runs_own_any_more(request_for, segmenters, images):
    out = run(request_for(), None, segmenters).out
    run(request_for(images=images[:2]), None, segmenters)
    users = out / "labels" / "im10.tif"
    users.write_text("mine")
    with pytest.raises(InputError, match=r"im10\.tif is there already, but not from an earlier run"):
        run(request_for(), None, segmenters)
    assert run(request_for(images=images[:2]), None, segmenters).complete
    assert users.read_text() == "mine"


def test_a_run_that_is_stopped_as_it_begins_to_write_keeps_what_is_finished(
    cli, images, examples, monkeypatch, tmp_path
):
    out = tmp_path / "out"
    quick = ("--method", "grid", "--points-per-side", "16", "--model", "filters", "--device", "cpu")
    assert cli("segment", *images[:2], "--examples", examples, "-o", out, *quick).code == 0
    refined = ("refine", out, "-o", out, "--similarity-threshold", "0.8")
    takes_over = OutputFolder._take_over

    def stopped(self, location):
        takes_over(self, location)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "_take_over", stopped)
        outcome = cli(*refined)
    assert outcome.code == 1
    last = "Stopped: 2 of 2 frames are finished and kept; the same command goes on from there."
    assert outcome.err.splitlines()[-1] == last
    assert cli(*refined).code == 0
    assert read_finished(out).facts["settings"]["similarity_threshold"] == 0.8


def test_results_can_be_read_until_those_of_another_threshold_take_their_place(
    cli, request_for, segmenters, images, monkeypatch, tmp_path
):
    out = run(request_for(images=images[:2]), None, segmenters).out
    higher = request_for(settings=Settings(similarity_threshold=0.8))
    codes = []

    def killed(folder, task, result):
        codes.append(cli("report", out).code)
        raise Killed

    def put_together(folder, progressed):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "add", killed)
        patch.setattr(OutputFolder, "_put_together", put_together)
        with pytest.raises(Killed):
            run(higher, None, segmenters)
    assert codes == [0]  # while it is at work
    assert cli("convert", out, tmp_path / "all.json", "--to", "coco").code == 0
    assert run(higher, None, segmenters).resumed == 2


def test_frames_are_taken_over_from_another_folder_before_the_search(request_for, segmenters, monkeypatch, tmp_path):
    earlier = run(request_for(), None, segmenters).out
    next((earlier / ".frames").glob("*.npz")).unlink()
    add = OutputFolder.add

    def removed_meanwhile(folder, task, result):
        add(folder, task, result)
        shutil.rmtree(earlier)

    monkeypatch.setattr(OutputFolder, "add", removed_meanwhile)
    summary = run(request_for(out=tmp_path / "more", earlier=earlier), None, segmenters)
    assert (summary.complete, summary.resumed, summary.done) == (True, 2, 3)


def test_results_that_a_run_is_changing_say_so(cli, request_for, segmenters):
    out = run(request_for(), None, segmenters).out
    next((out / ".frames").glob("*.npz")).unlink()
    with only_run(out / ".frames", Quiet()):
        busy = cli("report", out)
    assert busy.code == 2
    assert re.search(r"cannot be read now, because a run is at work in .*\. Wait until it has ended\.", busy.err)
    assert "Run the command that was stopped again; what is finished is kept." in cli("report", out).err


def test_a_report_is_that_of_the_run_that_ended_last(cli, request_for, segmenters, monkeypatch):
    out = run(request_for(), None, segmenters).out
    gather, thresholds = page_module.gather, [0.7, 0.8]

    def meanwhile(finished):
        content = gather(finished)
        if thresholds:
            monkeypatch.setattr(page_module, "gather", gather)
            run(request_for(settings=Settings(similarity_threshold=thresholds.pop(0))), None, segmenters)
            monkeypatch.setattr(page_module, "gather", meanwhile)
        return content

    monkeypatch.setattr(page_module, "gather", meanwhile)
    assert cli("report", out).code == 0
    assert read_finished(out).facts["settings"]["similarity_threshold"] == 0.8
    (out / "again.html").write_bytes((out / "report.html").read_bytes())
    write_report(out)
    assert (out / "again.html").read_bytes() == (out / "report.html").read_bytes()


@pytest.fixture
def several(request_for, segmenters):
    """Results of three images."""
    return run(request_for(), None, segmenters).out


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("to", ["roi", "zarr", "labels"])
def test_a_conversion_writes_all_or_nothing(to, is_there, several, killed, cli, tmp_path):
    pytest.importorskip("zarr")
    out = tmp_path / "converted"

    def prepare():
        shutil.rmtree(out, ignore_errors=True)
        if is_there:
            out.mkdir()
            (out / "notes.txt").write_text("mine")

    def shown():
        return sorted(path.name for path in out.glob("[!.]*"))

    command = ("convert", several, out, "--to", to)
    prepare()
    before = shown()
    assert cli(*command).code == 0
    clean = shown()
    assert len(clean) >= len(before) + 3
    stops = 0
    for number in count(1):
        prepare()
        if not killed(number, lambda: cli(*command)):
            break
        stops += 1
        if not is_there or shown() == before:
            assert shown() == before
            assert cli(*command).code == 0
        else:  # between the files that came into a folder which was there
            assert "is there already; give another name, or --overwrite" in cli(*command).err
            assert cli(*command, "--overwrite").code == 0
        assert shown() == clean
    assert stops > 3


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_conversion_that_fails_leaves_nothing(error, is_there, several, cli, tmp_path, monkeypatch):
    out = tmp_path / "converted"
    if is_there:
        out.mkdir()
    before = sorted(tmp_path.rglob("*"))
    replace = os.replace

    def failing(path, target):
        if Path(target) == out / "im2.zip" if is_there else Path(path).name.endswith("im10.zip.part"):
            raise error
        replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        outcome = cli("convert", several, out, "--to", "roi")
    if isinstance(error, OSError):
        name = "im2.zip" if is_there else "im10.zip"
        sentence = "could not be written. Free some space and run the same command again."
        assert (outcome.code, outcome.err) == (2, f"Error: The disk is full: {out / name} {sentence}\n")
    else:
        assert (outcome.code, outcome.err) == (1, "Error: Stopped.\n")
    assert sorted(tmp_path.rglob("*")) == before
    assert cli("convert", several, out, "--to", "roi").code == 0


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("to", ["roi", "zarr"])
def test_a_conversion_takes_nothing_away_that_came_meanwhile(
    to, overwrite, several, cli, request_for, segmenters, images, tmp_path, monkeypatch
):
    pytest.importorskip("zarr")
    one = run(request_for(images=images[:1], out=tmp_path / "one"), None, segmenters).out
    out = tmp_path / "converted"
    read, passes = Finished.records, count(1)

    def meanwhile(finished):
        yield from read(finished)
        if finished.out == several and next(passes) == 2:  # the first is before it is looked what is there
            assert cli("convert", one, out, "--to", to).code == 0
            (out / "notes.txt").write_text("mine")

    monkeypatch.setattr(Finished, "records", meanwhile)
    outcome = cli("convert", several, out, "--to", to, *["--overwrite"] * overwrite)
    assert (out / "notes.txt").read_text() == "mine"
    ending = {"roi": "zip"}.get(to, to)
    first = out / f"im1.{ending}"
    assert first.exists()
    if overwrite:
        assert outcome.code == 0
        assert (out / f"im10.{ending}").exists()
    else:
        assert outcome.code == 2
        assert outcome.err.startswith(f"Error: {first} is there already")
        assert not (out / f"im10.{ending}").exists()
    assert not list(tmp_path.glob(".*")) + list(out.glob(".*"))


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), None])
def test_an_evaluation_that_fails_leaves_nothing(error, is_there, cli, tmp_path, monkeypatch):
    for folder in ("found", "truth"):
        (tmp_path / folder).mkdir()
        for stem in ("im1", "im10"):
            Image.fromarray(discs()).save(tmp_path / folder / f"{stem}_labels.png")
    drawn, figures = tmp_path / "drawn", tmp_path / "figures.json"
    if is_there:
        drawn.mkdir()
        (drawn / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    command = ("evaluate", tmp_path / "found", tmp_path / "truth", "--pictures", drawn, "--json")
    flush = files_module._flush

    def failing(path):
        if "im10" in path.name:
            raise error
        flush(path)

    if error is None:  # no folder can be made for the figures
        assert cli(*command, tmp_path / "found" / "im1_labels.png" / "figures.json").code == 2
    else:
        with monkeypatch.context() as patch:
            patch.setattr(files_module, "_flush", failing)
            assert cli(*command, figures).code == (2 if isinstance(error, OSError) else 1)
    assert sorted(tmp_path.rglob("*")) == before
    assert cli(*command, figures).code == 0
    assert len(list(drawn.glob("*.png"))) == 2


def test_the_file_that_cannot_be_written_is_named(several, cli, tmp_path, monkeypatch):
    mkdir = Path.mkdir

    def forbidden(path, *rest, **options):
        if path.name.endswith("-together.part"):
            raise PermissionError(errno.EACCES, "Permission denied")
        mkdir(path, *rest, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "mkdir", forbidden)
    outcome = cli("convert", several, "all.json", "--to", "coco")
    assert outcome.err.startswith("Error: all.json could not be written: permission denied.")


def test_only_an_ome_zarr_of_this_program_is_replaced(several, cli, tmp_path):
    pytest.importorskip("zarr")
    out = tmp_path / "converted"
    command = ("convert", several, out, "--to", "zarr", "--overwrite")
    assert cli(*command).code == cli(*command).code == 0
    (out / "im2.zarr" / "0").mkdir()  # an image was put into it
    outcome = cli(*command)
    assert outcome.code == 2
    assert f"{out / 'im2.zarr'} is there already and is a folder; give another name" in outcome.err
    (out / "im2.zarr" / "0").rmdir()
    (out / "im2.zarr" / ".zattrs").unlink()
    assert cli(*command).code == 2
