"""Stopped at any moment, the same command goes on; with the whole job and a segmenter without torch."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scale_job
import tifffile
from PIL import Image
from scale_job import World
from scale_scenes import with_stand_in

from bright import BrightMaker
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import run
from sam2_fewshot.settings import Settings


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    paths = []
    for number in range(6):
        grey = np.zeros((48, 48), np.uint8)
        for _ in range(4):
            row, column = rng.integers(4, 40, 2)
            grey[row : row + 6, column : column + 6] = 200
        paths.append(folder / f"im{number}.png")
        Image.fromarray(grey).save(paths[-1])
    return paths


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    labels = np.zeros((48, 48), np.uint8)
    labels[4:10, 4:10] = 1
    (tmp_path / "marked").mkdir()
    Image.fromarray(labels).save(tmp_path / "marked" / "im0_labels.png")
    return tmp_path / "marked"


def content(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "inputs.json", "report.html") and path.suffix != ".npz"
    }


def killed_at(moment: float, images: list[Path], examples: Path, out: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, scale_job.__file__, str(examples), str(out), *map(str, images)],
        stdout=subprocess.PIPE,
        env=with_stand_in(),
    )
    with program:
        assert program.stdout is not None
        program.stdout.readline()
        time.sleep(moment)
        os.kill(program.pid, signal.SIGKILL)


def kill_and_go_on(times: int, images: list[Path], examples: Path, tmp_path: Path) -> None:
    world = World()
    clean = tmp_path / "clean"
    world.work(images, examples, clean)
    chance = random.Random(5)
    for number in range(times):
        out = tmp_path / f"out{number}"
        killed_at(chance.uniform(0, 1.6), images, examples, out)
        kept = len(list(out.glob(".frames/*.npz")))
        summary = world.work(images, examples, out)
        assert summary.complete
        assert summary.resumed == kept
        assert world.searched == len(images) - kept
        assert content(out) == content(clean) | {
            name: data for name, data in content(out).items() if name.endswith(".part")
        }
        shutil.rmtree(out)


def test_killed_at_some_moments(images: list[Path], examples: Path, tmp_path: Path) -> None:
    kill_and_go_on(3, images, examples, tmp_path)


@pytest.mark.slow
def test_killed_at_twenty_moments(images: list[Path], examples: Path, tmp_path: Path) -> None:
    kill_and_go_on(20, images, examples, tmp_path)


def test_an_image_put_between_the_others_is_the_only_one_done(
    images: list[Path], examples: Path, tmp_path: Path
) -> None:
    world, out = World(), tmp_path / "out"
    world.work([images[0], *images[2:]], examples, out)
    summary = world.work(images, examples, out)
    assert world.searched == 1
    assert [record.location.xy for record in summary.records()] == list(range(6))
    assert all(item.location == record.location for record in summary.records() for item in record.detections)
    with (out / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["image"], row["xy"]) for row in rows} == {(f"im{n}.png", str(n + 1)) for n in range(6)}


def test_images_of_one_name_keep_their_own_pictures(images: list[Path], examples: Path, tmp_path: Path) -> None:
    world, out = World(), tmp_path / "out"
    other = tmp_path / "other" / "im1.png"
    other.parent.mkdir()
    Image.fromarray(255 - np.array(Image.open(images[1]))).save(other)
    world.work(images[:2], examples, out)
    own = (out / "overlays" / "im1.png").read_bytes()
    world.work([images[0], other, images[1]], examples, out)
    assert (out / "overlays" / "im1_2.png").read_bytes() == own
    world.work(images[:2], examples, out)
    assert (out / "overlays" / "im1.png").read_bytes() == own


def test_records_of_former_settings_go_when_a_run_is_complete(
    images: list[Path], examples: Path, tmp_path: Path
) -> None:
    world, out = World(), tmp_path / "out"
    world.work(images, examples, out)
    files = len(list(out.glob(".frames/*.npz")))
    world.work(images, examples, out, settings=Settings(smoothing=1.0))
    assert any("Since the last run" in line and "Smoothing was 0.3 and is 1.0" in line for line in world.display.lines)
    assert len(list(out.glob(".frames/*.npz"))) == files  # the others went when it was complete
    world.work(images, examples, out)
    assert world.searched == len(images)


def test_a_clock_that_went_back_changes_nothing(images: list[Path], examples: Path, tmp_path: Path) -> None:
    world, out = World(), tmp_path / "out"
    world.work(images, examples, out)
    later = time.time() + 10**7
    for path in out.rglob("*"):
        os.utime(path, (later, later))
    assert world.work(images, examples, out).resumed == len(images)
    assert world.searched == 0


def test_a_second_run_is_refused_before_anything_heavy(images: list[Path], examples: Path, tmp_path: Path) -> None:
    from sam2_fewshot.protocols import Quiet
    from sam2_fewshot.storage.locks import only_run

    world, folder = World(), tmp_path / "out" / ".frames"
    folder.mkdir(parents=True)
    with only_run(folder, Quiet()), pytest.raises(InputError, match="Another run is at work"):
        world.work(images, examples, tmp_path / "out")
    assert world.searched == 0  # it was made, and has not learned either
    assert world.make.made[-1].fitted == 0


def test_a_changed_image_is_told_and_done_again(images: list[Path], examples: Path, tmp_path: Path) -> None:
    world, out = World(), tmp_path / "out"
    world.work(images, examples, out)
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(images[3])
    assert world.work(images, examples, out).resumed == len(images) - 1
    assert any("Since the last run" in line and "1 image changed (im3.png)" in line for line in world.display.lines)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="there is no file system here that nobody may write to")
def test_a_file_system_that_nobody_may_write_to_is_a_sentence(images: list[Path], examples: Path) -> None:
    world = World()
    with pytest.raises(InputError, match="permission denied"):
        world.work(images, examples, Path("/sys/kernel/results"))
    assert world.searched == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_became_read_only_is_a_sentence(images: list[Path], examples: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    with pytest.raises(InputError, match="permission denied"):
        World().work(images, examples, out)


def test_a_folder_that_refuses_files_is_a_sentence(
    images: list[Path], examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    world = World()
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="could not be written: permission denied"):
        world.work(images, examples, tmp_path / "out")


def test_an_image_that_was_cut_off_meanwhile_does_not_stop_the_others(
    images: list[Path], examples: Path, tmp_path: Path
) -> None:
    out, slide = tmp_path / "out", tmp_path / "in" / "slide.tif"
    tifffile.imwrite(slide, np.array(Image.open(images[0])).repeat(4, 0).repeat(4, 1), tile=(64, 64))

    def cut(number: int) -> None:
        """Cut the slide off while the first frame is searched, as a copy that is overwritten would be."""
        if number == 1:
            slide.write_bytes(slide.read_bytes()[:-9000])

    request = Request(images=[images[0], slide, images[1]], examples=examples, out=out)
    summary = run(request, scale_job.Lines(), BrightMaker({"on_find": cut}))
    assert summary.done == 2
    (failure,) = summary.failures
    assert failure.what == "slide.tif"
    assert "damaged, incomplete or of another format" in failure.sentence


def test_a_damaged_record_is_made_again(images: list[Path], examples: Path, tmp_path: Path) -> None:
    world, out = World(), tmp_path / "out"
    world.work(images, examples, out)
    one, two, *_ = sorted(out.glob(".frames/*.npz"))
    one.write_bytes(one.read_bytes()[:100])
    two.write_bytes(b"")
    assert world.work(images, examples, out).resumed == len(images) - 2
    assert world.searched == 2
