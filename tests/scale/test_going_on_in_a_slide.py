"""Stopped within a large frame, the same command goes on with the blocks that are left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import distributed
import pytest
import scale_slide
from scale_job import Lines
from scale_scenes import memory_for
from scale_slide import SETTINGS, Slide

from sam2_fewshot.errors import InputError
from sam2_fewshot.runner import worker as worker_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sam2_fewshot.backbones.sam2.network import Sam2Model

KEPT = "slide.png: 4 of {} blocks are finished already and kept."


@pytest.fixture
def slide(micro: Sam2Model, tmp_path: Path) -> Slide:
    return Slide(tmp_path, micro).draw()


@pytest.fixture
def clean(slide: Slide) -> dict[str, bytes]:
    """The results of a run that nothing disturbs."""
    assert slide.work("clean").complete
    slide.count = slide.segmenter.searched  # type: ignore[attr-defined]
    assert slide.count > 9  # type: ignore[attr-defined]
    assert not (slide.folder / "clean" / ".frames" / "blocks").exists()
    return slide.content("clean")


def test_ctrl_c_within_a_slide_loses_only_the_block_at_work(slide: Slide, clean: dict[str, bytes]) -> None:
    count = slide.segmenter.searched
    stopped = slide.work("out", stop_before=4)
    assert stopped.interrupted
    assert stopped.done == 0
    assert len(slide.blocks("out")) == 4
    summary = slide.work("out")
    assert summary.complete
    assert slide.segmenter.searched == count - 4
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
    program = subprocess.Popen([sys.executable, scale_slide.__file__, str(slide.folder), name, "0.1"])
    with program:
        while program.poll() is None and len(slide.blocks(name)) < blocks:
            time.sleep(0.01)
        time.sleep(moment)
        os.kill(program.pid, signal.SIGKILL)


def kill_and_go_on(times: int, slide: Slide, clean: dict[str, bytes]) -> None:
    count, chance = slide.segmenter.searched, random.Random(4)
    for number in range(times):
        name = f"out{number}"
        killed_within(slide, name, chance.randint(1, count - 2), chance.uniform(0, 0.15))
        kept = len(slide.blocks(name))
        assert slide.work(name).complete
        assert slide.segmenter.searched == count - kept
        left = {path: data for path, data in slide.content(name).items() if path.endswith(".part")}
        assert slide.content(name) == clean | left


def test_killed_within_a_slide(slide: Slide, clean: dict[str, bytes]) -> None:
    kill_and_go_on(1, slide, clean)


@pytest.mark.slow
def test_killed_within_a_slide_at_ten_moments(slide: Slide, clean: dict[str, bytes]) -> None:
    kill_and_go_on(10, slide, clean)


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
        settings = settings.changed({"max_memory": memory_for(200**2)})
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
def searched(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let workers search with the method for tests; gives the segmenters that they made."""
    made: list[Any] = []

    def make(recipe: Any) -> tuple[Any, Any]:
        if recipe.key not in worker_module._HELD:
            said = worker_module._Heard()
            segmenter = scale_slide.Stopping(slide.model, 1, said)
            segmenter.settings = recipe.settings
            made.append(segmenter)
            worker_module._HELD[recipe.key] = segmenter.adopt(recipe.objects), said
        return worker_module._HELD[recipe.key]

    monkeypatch.setattr(worker_module, "_segmenter", make)
    return made


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
def test_workers_go_on_too(kept: str, slide: Slide, clean: dict[str, bytes], client: Any, searched: list[Any]) -> None:
    count = slide.segmenter.searched
    slide.work("out", stop_before=4 if kept == "some" else count)
    before = len(slide.blocks("out"))
    assert before == (4 if kept == "some" else count)
    summary = slide.work("out", scheduler=client)
    assert summary.complete
    assert sum(each.searched for each in searched) == count - before
    assert slide.content("out") == clean
    assert json.loads((slide.folder / "out" / "run.json").read_text())["objects"] == summary.found


class Pressing(Lines):
    """Presses Ctrl-C once some blocks have come back."""

    count = 0

    def advance(self, steps: int = 1) -> None:
        self.count += steps
        if self.count == 5:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("default")
def test_blocks_that_workers_sent_are_kept(
    slide: Slide, clean: dict[str, bytes], client: Any, searched: list[Any]
) -> None:
    count = slide.segmenter.searched
    assert slide.work("out", scheduler=client, display=Pressing()).interrupted
    assert len(slide.blocks("out")) == 5
    assert slide.work("out").complete
    assert slide.segmenter.searched == count - 5
    assert slide.content("out") == clean
