"""Seconds a frame: that the benchmark runs, and says what it has measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_seconds_a_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.frame import main

    out = tmp_path / "frames.json"
    words = ["--model", "filters", "--device", "cpu", "--sides", "64", "150", "--methods", "grid", "--points", "16"]
    main([*words, "--out", str(out)])
    facts = json.loads(out.read_text())
    assert facts["command"].startswith("python -m benchmarks.frame --model filters ")
    assert (facts["model"], facts["device"]) == ("filters", "CPU")
    assert [(row["method"], row["side"]) for row in facts["rows"]] == [("grid", 64), ("grid", 150)]
    assert all(min(*row["learning_s"], *row["first_s"], *row["frame_s"]) > 0 for row in facts["rows"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("grid, 150 x 150: ")
    assert lines[-1] == "filters on CPU; in brackets seconds of the processor"
