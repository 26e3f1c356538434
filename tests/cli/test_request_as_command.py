"""A request as a command line."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

from typer.testing import CliRunner

from sam2_fewshot.cli import app
from sam2_fewshot.files.request import Request, as_command
from sam2_fewshot.runner.progress import Estimate
from sam2_fewshot.settings import Settings


def test_it_names_what_differs_from_the_defaults():
    request = Request(
        images=[Path("plate 1")],
        examples=None,
        out=Path("out"),
        object_model=Path("cells.npz"),
        model="sam2.1_hiera_micro.pt",
        channels=Path("c.yaml"),
        tags=["cell", "round"],
        write=["coco", "roi"],
        settings=Settings(similarity_threshold=0.3, compile=True, size_prior="soft"),
    )
    words = shlex.split(as_command(request))
    assert words[:3] == ["sam2-fewshot", "segment", "plate 1"]
    given = dict(pairwise(words))
    assert given["--object-model"] == "cells.npz"
    assert given["--similarity-threshold"] == "0.3"
    assert given["--size-prior"] == "soft"
    assert given["--write"] == "coco,roi"
    assert given["-o"] == "out"
    assert "--compile" in words
    assert words.count("--tag") == 2
    assert "--examples" not in words
    assert "--device" not in words
    assert "--max-examples" not in words


def test_a_text_is_taken_for_a_path():
    request = Request(images=["a.png"], examples="a_labels.png", out="rq", corrections=["c.json"], channels="c.yaml")  # type: ignore[arg-type]
    assert (request.images, request.examples, request.out) == ([Path("a.png")], Path("a_labels.png"), Path("rq"))
    assert (request.corrections, request.channels, request.save_model) == ([Path("c.json")], Path("c.yaml"), None)


def test_the_command_line_takes_it(tmp_path):
    """It gets as far as looking for the object model."""
    request = Request(images=[tmp_path], examples=None, out=tmp_path / "out", object_model=tmp_path / "no.npz")
    result = CliRunner().invoke(app, shlex.split(as_command(request))[1:])
    assert result.exit_code == 2
    assert "no.npz" in result.output.replace("\n", "")


def test_the_time_that_is_left_is_estimated():
    told: list[tuple[float, float]] = []
    warned: list[str] = []
    now = [0.0]
    estimate = Estimate(lambda *values: told.append(values), warned.append, clock=lambda: now[0])
    estimate.start("learning")
    assert told[-1] == (-1.0, -1.0)
    estimate.part_begins(0, 2)
    estimate.start("encoding", 4)
    now[0] = 3.0
    estimate.advance(2)
    share, left = told[-1]
    assert 0.1 < share < 0.2
    assert left > 10
    estimate.part_begins(1, 2)
    now[0] = 10.0
    estimate.start("prompting", 10)
    estimate.advance(10)
    assert told[-1] == (1.0, 0.0)
    estimate.warn("A sentence.")
    assert warned == ["A sentence."]


def test_the_frames_of_a_run_are_parts():
    shares: list[float] = []
    estimate = Estimate(lambda share, left: shares.append(share), lambda sentence: None)
    estimate.begin(4)
    estimate.frame_begins("a")
    estimate.frame_ends(3, 2, 1.0)
    estimate.frame_begins("b")
    estimate.frame_fails("It is broken.")
    estimate.frame_begins("c")
    assert shares == [0.0, 0.25, 0.5]


def test_the_work_stops_where_it_reports():
    def stop() -> None:
        raise InterruptedError

    estimate = Estimate(lambda share, left: None, lambda sentence: None, stop)
    try:
        estimate.advance()
    except InterruptedError:
        return
    raise AssertionError("it went on")
