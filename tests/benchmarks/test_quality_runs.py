"""A run over tasks and methods, its table and its command."""

import json
import math

import pytest
from benchmarks.quality.__main__ import main
from benchmarks.quality.protocol import run, stage_means, summarise
from benchmarks.quality.table import text
from benchmarks.quality.tasks import (
    make_tasks,
)
from quality_world import TruthTeller, picture


@pytest.fixture
def tasks():
    several = [picture(f"p{i}", ["a"] * 8) for i in range(6)]
    (plain,) = make_tasks("dev", "dev/many", several)
    (single,) = make_tasks("dev", "dev/one", several[:1])
    (rough,) = make_tasks("fewshot", "fewshot/rough", several[:4], loose=False)
    return [plain, single, rough]


def test_every_method_gets_every_task(tasks):
    lines = []
    records, left_out = run(tasks, [TruthTeller(), TruthTeller("no", refuse=True)], [1, 5], range(2), lines.append)
    assert left_out == ["dev/one:a, k = 5: too few examples."]
    assert len(records) == len(lines) == 2 * (2 * 2 + 2 * 2 + 1 * 2)
    first, refused = records[:2]
    assert (first["f1_50"], first["best_f1"], first["ap"], first["proposal_recall"]) == (1, 1, 1, 1)
    assert first["best_threshold"] == 0.9
    assert first["proposal_recall_by_size"] == first["recall_by_size"]
    assert (first["finds"], first["candidates"], first["objects"]) == (24, 27, 24)
    assert first["stage_seconds"] == {"look": 0.5}
    assert (refused["f1_50"], refused["recall_50"], refused["proposal_recall"]) == (0, 0, 0)
    assert "can be learned" in refused["error"]
    assert (first["agreement"], refused["agreement"]) == (0.8, None)
    assert {r["f1_30"] for r in records if r["task"] == "fewshot/rough:a"} == {None}


def test_each_way_of_choosing_that_is_not_random_is_run_once(tasks):
    records, _ = run(tasks[:1], [TruthTeller()], [2], range(3), lambda line: None, ["random", "largest"])
    assert [(record["choice"], record["seed"]) for record in records] == [
        ("random", 0), ("random", 1), ("random", 2), ("largest", 0),
    ]  # fmt: skip


def test_means_leave_out_single_frames_and_figures_that_make_no_sense(tasks):
    records, _ = run(tasks, [TruthTeller()], [1], [0], lambda line: None)
    records[0] |= {"f1_50": 0.4, "f1_30": 0.4}
    rows = {row["task"]: row for row in summarise(records)}
    assert rows["mean of 1: one frame"]["f1_50"] == 1
    overall = rows["MEAN of 2 (all but one frame)"]
    assert overall["f1_50"] == pytest.approx(0.7)
    assert overall["f1_30"] == pytest.approx(0.4)
    seconds = stage_means(records)["truth"]
    assert seconds["look"] == 0.5
    assert math.isfinite(seconds["learn"])


def test_the_table_says_how_methods_compare(tasks):
    methods = [TruthTeller("guided"), TruthTeller("grid"), TruthTeller("floor"), TruthTeller("no", refuse=True)]
    records, left_out = run(tasks, methods, [1, 5], [0], lambda line: None)
    facts = {"model": "m", "device": "d", "precision": "p", "torch": "t", "commit": "c", "date": "now", "points": 32}
    said = text({**facts, "seeds": [0], "frames": 2, "left_out": left_out, "warnings": ["Beware."]}, records)
    assert "k = 1 " in said
    assert "k = 5 " in said
    assert "grid with 32 points a side" in said
    assert "guided: F1 / own best 1.00, F1 / grid's best 1.00" in said
    assert "lowest F1 - floor's +0.00 (dev/many:a)" in said
    assert "no: F1 / own best –" in said
    for part in ("counted as nothing found", "too few examples", "Beware.", "look 0.50"):
        assert part in said


def test_the_command_writes_a_table_and_json(data, tmp_path, capsys):
    out = tmp_path / "out.json"
    words = ["--data", str(data), "--quick", "--k", "2", "--limit-frames", "1", "--device", "cpu", "--json", str(out)]
    assert main([*words, "--groups", "living", "long", "--methods", "floor", "oracle"]) == 0
    printed = capsys.readouterr()
    assert "fewshot/live_dead_cells:living" in printed.out
    assert "[2/2]" in printed.err
    facts = json.loads(out.read_text())
    assert facts["command"].startswith("python -m benchmarks.quality --data")
    assert {"date", "commit", "device", "model", "model_sha256", "torch", "numpy", "sam2"} <= set(facts)
    assert len(facts["records"]) == 4
    assert [r["f1_50"] for r in facts["records"] if r["method"] == "floor"] == [1, 0.75]  # dead look like living
    assert {row["level"] for row in facts["summary"]} == {"task", "family", "all"}
    assert not list(tmp_path.glob(".*.part"))


def test_the_command_lists_tasks(data, capsys):
    assert main(["--data", str(data), "--list", "--groups", "dev", "fewshot"]) == 0
    assert "dev/cells/long:object: one frame, 8 objects\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--groups", "unicorns"], "No task is called like unicorns"),
        (["--groups", "dev", "--data", "/nowhere/at/all"], "neither dev/ nor fewshot/"),
        (["--groups", "size:large", "--methods", "psychic"], "psychic"),
        (["--groups", "size:large", "--k", "500", "--methods", "floor"], "too few examples"),
    ],
)
def test_the_command_says_what_is_wrong(words, message, capsys):
    assert main([*words, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


def test_counts_must_be_positive():
    with pytest.raises(SystemExit):
        main(["--k", "0"])
