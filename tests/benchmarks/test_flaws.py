"""Flaws that frames are given, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from quality_world import picture

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("flaw", "least", "most"),
    [("dirt on .5 %, ten times as bright", 0.002, 0.006), ("a scale bar burnt in", 0.005, 0.03), ("noise", 0.9, 1)],
)
def test_a_flaw_changes_a_share_of_the_frame(flaw: str, least: float, most: float) -> None:
    from benchmarks.flaws import FLAWS, raw

    plane = raw(picture("frame", ["x"] * 8, shape=(160, 400)).image)
    assert plane.min() >= 500
    kept = plane.copy()
    changed = FLAWS[flaw](plane)
    assert np.array_equal(plane, kept)
    assert least <= (changed != plane).mean() <= most


def test_objects_of_a_padded_frame_stay_where_they_are() -> None:
    from benchmarks.flaws import flawed
    from benchmarks.quality.tasks import Query

    shown = picture("frame", ["x", "y"] * 4, shape=(160, 400))
    query = flawed(Query(shown, shown.of("x"), shown.of("y")), "a third padded with 0")
    assert query.picture.image.shape == (160, 533)
    assert query.picture.image.dtype == np.uint16
    assert [mask.box for mask in query.truth] == [mask.box for mask in shown.of("x")]
    assert {mask.frame_shape for mask in (*query.truth, *query.ignore)} == {(160, 533)}


def test_every_flaw_is_told_beside_none(data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from benchmarks.flaws import main

    words = ["--groups", "long", "--k", "3", "--flaws", "bar", "padded", "--json", str(tmp_path / "out.json")]
    assert main(["--data", str(data), "--model", "filters", *words]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| none", "| a scale bar burnt in", "| a third padded with 0"]
    assert (tmp_path / "out.json").exists()
