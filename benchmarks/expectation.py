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
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.methods.guided.expectation import EXPECTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FIGURES = ("precision_50", "recall_50")
STEPS = tuple(least for least, _, _ in EXPECTED)
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


def steps_of(records: Sequence[Record]) -> NDArray[np.intp]:
    """Return the number of each record's step of agreement, from 0."""
    return np.digitize([record["agreement"] for record in records], STEPS) - 1


def values_of(records: Sequence[Record], figure: str) -> NDArray[np.float64]:
    """Return a figure of each record, NaN for the precision where nothing was detected."""
    return np.array([r[figure] if r["finds"] or figure != "precision_50" else np.nan for r in records], np.float64)


def quartiles(records: Sequence[Record], figure: str) -> list[list[float]]:
    """Return the quartiles of a figure (steps, 3)."""
    steps, values = steps_of(records), values_of(records, figure)
    return [np.nanpercentile(values[steps == step], [25, 50, 75]).tolist() for step in range(len(STEPS))]


def errors(records: Sequence[Record], figure: str) -> tuple[float, float]:
    """Return the mean absolute error of the medians of the other tasks: those of the step, and that of all runs."""
    tasks, steps, values = np.array([r["task"] for r in records]), steps_of(records), values_of(records, figure)
    off: list[tuple[float, float]] = []
    for task, step, value in zip(tasks, steps, values, strict=True):
        others = (tasks != task) & ~np.isnan(values)
        alike = values[others & (steps == step)]
        if not np.isnan(value) and len(alike):
            off.append((abs(float(np.median(alike)) - value), abs(float(np.median(values[others])) - value)))
    by_step, by_all = np.mean(off, axis=0)
    return float(by_step), float(by_all)


def table(records: Sequence[Record]) -> str:
    """Return the table in Markdown, and the errors below it."""
    steps = steps_of(records)
    lines = [
        "| agreement from | runs | tasks | precision: quartiles | recall: quartiles |",
        "|---|---|---|---|---|",
    ]
    of_figures = [quartiles(records, figure) for figure in FIGURES]
    for number, least in enumerate(STEPS):
        here = [record for record, step in zip(records, steps, strict=True) if step == number]
        cells = [", ".join(f"{value:.2f}" for value in of_figure[number]) for of_figure in of_figures]
        lines.append(f"| {least:.2f} | {len(here)} | {len({r['task'] for r in here})} | {' | '.join(cells)} |")
    lines.append("")
    for figure in FIGURES:
        by_step, by_all = errors(records, figure)
        lines.append(
            f"{figure}: mean absolute error {by_step:.3f} by the agreement, {by_all:.3f} by the median of all runs."
        )
    return "\n".join(lines)


def main() -> int:
    """Run what the command line asks for."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("files", nargs="+", type=Path, metavar="FILE")
    print(table(runs_in(options.parse_args().files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
