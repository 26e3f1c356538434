"""Stopped within a large frame, the same command goes on with the blocks that are left."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import distributed
import pytest
import scale_slide
from scale_job import Lines
from scale_scenes import memory_for, with_stand_in
from scale_slide import SETTINGS, Slide

from sam2_fewshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEPT = "slide.png: 4 of {} blocks are finished already and kept."


class Clean(NamedTuple):
    """A slide, and the results of a run that nothing disturbed."""

    slide: Slide
    content: dict[str, bytes]
    blocks: int


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    slide = Slide(tmp_path_factory.mktemp("clean")).draw()
    assert slide.work("clean").complete
    assert slide.searched > 9
    assert not (slide.folder / "clean" / ".frames" / "blocks").exists()
    return Clean(slide, slide.content("clean"), slide.searched)


@pytest.fixture
def slide(tmp_path: Path, undisturbed: Clean) -> Slide:
    """The slide in a folder of its own."""
    for file in (undisturbed.slide.image, undisturbed.slide.examples):
        shutil.copy2(file, tmp_path)
    return Slide(tmp_path)


@pytest.fixture
def clean(undisturbed: Clean) -> dict[str, bytes]:
    return undisturbed.content


@pytest.fixture
def count(undisturbed: Clean) -> int:
    """How many blocks the slide is searched in."""
    return undisturbed.blocks


def test_ctrl_c_within_a_slide_loses_only_the_block_at_work(slide: Slide, clean: dict[str, bytes], count: int) -> None:
    stopped = slide.work("out", stop_before=4)
    assert stopped.interrupted
    assert stopped.done == 0
    assert len(slide.blocks("out")) == 4
    summary = slide.work("out")
    assert summary.complete
    assert slide.searched == count - 4
    assert KEPT.format(count) in slide.lines
    assert slide.content("out") == clean
    assert not (slide.folder / "out" / ".frames" / "blocks").exists()


def test_a_slide_that_failed_goes_on_too(slide: Slide, clean: dict[str, bytes]) -> None:
    summary = slide.work("out", stop_before=4, trouble=InputError)
    assert [failure.sentence for failure in summary.failures] == ["stopped"]
    assert slide.work("out").complete
    assert slide.content("out") == clean


def killed_within(slide: Slide, name: str, blocks: int, moment: float) -> None:
    """Run the job as a program of its own, and kill it some time after so many blocks are on the disk."""
    program = subprocess.Popen(
        [sys.executable, scale_slide.__file__, str(slide.folder), name, "0.1"], env=with_stand_in()
    )
    with program:
        while program.poll() is None and len(slide.blocks(name)) < blocks:
            time.sleep(0.01)
        time.sleep(moment)
        os.kill(program.pid, signal.SIGKILL)


def kill_and_go_on(times: int, slide: Slide, clean: dict[str, bytes], count: int) -> None:
    chance = random.Random(4)
    for number in range(times):
        name = f"out{number}"
        killed_within(slide, name, chance.randint(1, count - 2), chance.uniform(0, 0.15))
        kept = len(slide.blocks(name))
        assert slide.work(name).complete
        assert slide.searched == count - kept
        left = {path: data for path, data in slide.content(name).items() if path.endswith(".part")}
        assert slide.content(name) == clean | left


def test_killed_within_a_slide(slide: Slide, clean: dict[str, bytes], count: int) -> None:
    kill_and_go_on(1, slide, clean, count)


@pytest.mark.slow
def test_killed_within_a_slide_at_ten_moments(slide: Slide, clean: dict[str, bytes], count: int) -> None:
    kill_and_go_on(10, slide, clean, count)


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_damaged_block_is_searched_again(damage: str, slide: Slide, clean: dict[str, bytes]) -> None:
    slide.work("out", stop_before=4)
    first, second, *_ = slide.blocks("out")
    broken = {"cut": first.read_bytes()[:150], "empty": b"", "foreign": second.read_bytes()}[damage]
    first.write_bytes(broken)
    assert slide.work("out").complete
    assert any("3 of" in line for line in slide.lines)
    assert slide.content("out") == clean


@pytest.mark.parametrize("change", ["threshold", "setting", "image", "memory"])
def test_blocks_of_something_else_are_not_taken(change: str, slide: Slide) -> None:
    slide.work("out", stop_before=4)
    settings = SETTINGS
    if change == "threshold":
        settings = settings.changed({"similarity_threshold": 0.7})
    elif change == "setting":
        settings = settings.changed({"smoothing": 1.0})
    elif change == "memory":  # other blocks
        settings = settings.changed({"max_memory": memory_for(620**2)})
    else:
        slide.draw(seed=4)
    assert slide.work("out", settings=settings).complete
    assert not any("blocks are finished" in line for line in slide.lines)
    found = slide.content("out")
    slide.work("clean", settings=settings)
    assert found == slide.content("clean")
    assert slide.blocks("out") == []


def test_what_changed_since_a_stop_within_a_slide_is_said(slide: Slide) -> None:
    slide.work("out", stop_before=2)
    slide.work("out", stop_before=1, settings=SETTINGS.changed({"smoothing": 1.0}))
    assert any("Smoothing was 0.3 and is 1.0" in line for line in slide.lines)
    assert len(slide.blocks("out")) == 3  # those of the other setting stay until a run is complete


def test_blocks_that_cannot_be_kept_stop_nothing(slide: Slide, clean: dict[str, bytes]) -> None:
    frames = slide.folder / "out" / ".frames"
    frames.mkdir(parents=True)
    (frames / "blocks").write_text("no folder")
    summary = slide.work("out")
    assert summary.complete
    (sentence,) = [line for line in slide.lines if "cannot be kept" in line]
    assert "Finished blocks of slide.png cannot be kept, so a stop would lose them." in sentence
    (frames / "blocks").unlink()
    assert {name: data for name, data in slide.content("out").items() if name.startswith("labels")} == {
        name: data for name, data in clean.items() if name.startswith("labels")
    }


@pytest.fixture
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", protocol="inproc://"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.filterwarnings("default")  # of Dask and its event loop
@pytest.mark.parametrize("kept", ["some", "all"])
def test_workers_go_on_too(kept: str, slide: Slide, clean: dict[str, bytes], count: int, client: Any) -> None:
    slide.work("out", stop_before=4 if kept == "some" else None, stop_joining=True)
    before = len(slide.blocks("out"))
    assert before == (4 if kept == "some" else count)
    summary = slide.work("out", scheduler=client)
    assert summary.complete
    assert slide.searched == count - before
    assert slide.make.made[0].bright.searched == 0  # this program joins what its workers have searched
    assert slide.content("out") == clean
    assert json.loads((slide.folder / "out" / "run.json").read_text())["objects"] == summary.counts.total


class Pressing(Lines):
    """Presses Ctrl-C once some blocks have come back."""

    count = 0

    def advance(self, steps: int = 1) -> None:
        self.count += steps
        if self.count == 5:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("default")
def test_blocks_that_workers_sent_are_kept(slide: Slide, clean: dict[str, bytes], count: int, client: Any) -> None:
    assert slide.work("out", scheduler=client, display=Pressing()).interrupted
    assert len(slide.blocks("out")) == 5
    assert slide.work("out").complete
    assert slide.searched == count - 5
    assert slide.content("out") == clean
