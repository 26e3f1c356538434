"""The table of what is to be expected, from the records of runs."""

import json
import math
from pathlib import Path

import pytest
from benchmarks.expectation import FIGURES, errors, main, quartiles, runs_in, starts_of, table


def record(task, agreement, precision, recall=0.5, finds=10, choice="random"):
    return {
        "family": "dev", "task": task, "k": 10, "seed": 0, "choice": choice, "method": "guided",
        "agreement": agreement, "precision_50": precision, "recall_50": recall, "finds": finds,
    }  # fmt: skip


@pytest.fixture
def records():
    steps = starts_of("precision_50")
    low, *_, high = [least + 0.01 for least in steps]
    return [
        *(record(f"low {i}", low, i / 10) for i in range(5)),
        *(record(f"middle {i}", steps[1], 0.6) for i in range(2)),
        *(record(f"high {i}", high, 1 - i / 10) for i in range(5)),
    ]


def test_each_run_counts_for_its_step(records):
    of_steps = quartiles(records, "precision_50")
    assert of_steps[0] == pytest.approx([0.1, 0.2, 0.3])
    assert of_steps[1] == pytest.approx([0.6, 0.6, 0.6])
    assert of_steps[-1] == pytest.approx([0.7, 0.8, 0.9])


def test_where_nothing_is_detected_there_is_no_precision(records):
    nothing = [record("low 5", 0.0, 0.0, recall=0.0, finds=0)] * 9
    assert quartiles([*records, *nothing], "precision_50") == quartiles(records, "precision_50")
    assert quartiles([*records, *nothing], "recall_50")[0] == [0, 0, 0.5]


def test_a_task_does_not_tell_what_is_expected_of_itself():
    records = [record("a", 0.9, 1.0), record("a", 0.9, 1.0, choice="largest"), record("b", 0.9, 0.5)]
    assert errors(records, "precision_50") == pytest.approx((0.5, 0.5))
    several = [*records, record("c", 0.1, 0.0), record("d", 0.1, 0.0), record("e", 0.1, 0.0)]
    by_step, by_all = errors(several, "precision_50")
    assert by_step == pytest.approx(1.5 / 6)
    assert by_all > by_step


def test_the_command_reads_what_the_benchmark_wrote(records, tmp_path, capsys, monkeypatch):
    unknown = {**record("floor", None, 0.1), "method": "floor"}
    for name, some in (("a.json", records), ("b.json", [records[0], unknown])):
        (tmp_path / name).write_text(json.dumps({"records": some}), encoding="utf-8")
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    assert len(runs_in(files)) == len(records)
    monkeypatch.setattr("sys.argv", ["expectation", *map(str, files)])
    assert main() == 0
    assert table(records) in capsys.readouterr().out
    assert "| 0.00 | 5 | 5 | 0.10, 0.20, 0.30 |" in table(records)


def test_the_program_tells_what_was_measured():
    file = Path(__file__).parents[2] / "benchmarks/results/2026-11-30-cpu-micro-expectation.json"
    runs = runs_in([file])
    for figure, steps in FIGURES.items():
        for measured, (_, said) in zip(quartiles(runs, figure), steps, strict=True):
            assert [*said] == pytest.approx(measured, abs=0.006)


def test_a_file_that_tells_too_little_ends_in_words(tmp_path, capsys, monkeypatch):
    one = [record("a", 0.9, 1.0), record("a", 0.9, 0.5, choice="largest")]
    assert all(map(math.isnan, errors(one, "precision_50")))
    assert "| 0.00 | 0 | 0 | nan, nan, nan |" in table(one)
    (tmp_path / "earlier.json").write_text(json.dumps({"records": [{"task": "a"}]}), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["expectation", str(tmp_path / "earlier.json")])
    assert main() == 1
    assert "None of the files" in capsys.readouterr().out
