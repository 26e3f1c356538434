"""What precision and recall go with how well left-out examples are outlined, over many sets of images.

    python -m benchmarks.expectation FILE [FILE ...]

The files are what ``python -m benchmarks.quality --json FILE`` wrote, with any examples and choices of them. For each
step of the agreement (the mean IoU of the left-out examples with what is detected of them) of the program's own table,
the quartiles of the precision and the recall that the runs had are told. Below it, how far these medians are off, each
task with those of the other tasks, beside what the median of all runs would be off.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.methods.guided.expectation import PRECISION, RECALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FIGURES = {"precision_50": PRECISION, "recall_50": RECALL}
"""The figures of a record, and the program's table of each."""
Record = dict[str, Any]


def runs_in(files: Sequence[Path]) -> list[Record]:
    """Return the records of runs that know their agreement, each task, choice and number of examples once."""
    found: dict[tuple[object, ...], Record] = {}
    for file in files:
        for record in json.loads(file.read_text(encoding="utf-8"))["records"]:
            if record.get("agreement") is not None:
                key = tuple(record[name] for name in ("family", "task", "k", "seed", "choice", "method"))
                found[key] = record
    return list(found.values())


def steps_of(records: Sequence[Record], figure: str) -> NDArray[np.intp]:
    """Return the number of each record's step of agreement in the table of a figure, from 0."""
    steps: NDArray[np.intp] = np.digitize([record["agreement"] for record in records], starts_of(figure)) - 1
    return steps


def starts_of(figure: str) -> list[float]:
    """Return the agreement from which on each step of a figure's table counts."""
    return [least for least, _ in FIGURES[figure]]


def values_of(records: Sequence[Record], figure: str) -> NDArray[np.float64]:
    """Return a figure of each record, NaN for the precision where nothing was detected."""
    return np.array([r[figure] if r["finds"] or figure != "precision_50" else np.nan for r in records], np.float64)


def quartiles(records: Sequence[Record], figure: str) -> list[list[float]]:
    """Return the quartiles of a figure (steps, 3), NaN for a step without records."""
    steps, values = steps_of(records, figure), values_of(records, figure)
    of_steps = [values[(steps == step) & ~np.isnan(values)] for step in range(len(starts_of(figure)))]
    return [np.percentile(here, [25, 50, 75]).tolist() if len(here) else [math.nan] * 3 for here in of_steps]


def errors(records: Sequence[Record], figure: str) -> tuple[float, float]:
    """Return the mean absolute error of the medians of the other tasks: those of the step, and that of all runs.

    NaN where no step has records of two tasks.
    """
    tasks, steps = np.array([r["task"] for r in records]), steps_of(records, figure)
    values = values_of(records, figure)
    off: list[tuple[float, float]] = []
    for task, step, value in zip(tasks, steps, values, strict=True):
        others = (tasks != task) & ~np.isnan(values)
        alike = values[others & (steps == step)]
        if not np.isnan(value) and len(alike):
            off.append((abs(float(np.median(alike)) - value), abs(float(np.median(values[others])) - value)))
    by_step, by_all = zip(*off, strict=True) if off else ([math.nan], [math.nan])
    return fmean(by_step), fmean(by_all)


def table(records: Sequence[Record]) -> str:
    """Return the tables in Markdown, and the errors below each."""
    lines = []
    for figure in FIGURES:
        steps, of_steps = steps_of(records, figure), quartiles(records, figure)
        lines += [f"| {figure}: agreement from | runs | tasks | quartiles |", "|---|---|---|---|"]
        for number, least in enumerate(starts_of(figure)):
            here = [record for record, step in zip(records, steps, strict=True) if step == number]
            cells = ", ".join(f"{value:.2f}" for value in of_steps[number])
            lines.append(f"| {least:.2f} | {len(here)} | {len({r['task'] for r in here})} | {cells} |")
        by_step, by_all = errors(records, figure)
        lines += [
            "",
            f"Mean absolute error {by_step:.3f} by the agreement, {by_all:.3f} by the median of all runs.",
            "",
        ]
    return "\n".join(lines)


def main() -> int:
    """Run what the command line asks for."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("files", nargs="+", type=Path, metavar="FILE")
    records = runs_in(options.parse_args().files)
    if not records:
        print("None of the files has a record with an agreement: run benchmarks.quality with the method guided again.")
        return 1
    print(table(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
