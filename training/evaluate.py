"""Measure a checkpoint: ``python -m training.evaluate WEIGHTS --architecture YAML --data DIR``.

Prints the tables of the model card.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from training.export import HERE, load_model
from training.figures import Pair, click_and_box, discrimination, everything, large_objects, seconds
from training.pictures import read_pairs

if TYPE_CHECKING:
    from collections.abc import Callable


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure from the command line.

    Parameters
    ----------
    arguments
        Command line; that of the process if left out.

    Returns
    -------
    dict
        All figures.
    """
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--architecture", type=Path, default=HERE / "architecture.yaml")
    parser.add_argument("--data", type=Path, help="development images; left out: only made-up scenes")
    parser.add_argument("--every", type=int, default=1, help="use each N-th image of a group only")
    parser.add_argument("--everything-every", type=int, default=1, help="the same for the automatic mask generator")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--only", nargs="*", help="parts: images, everything, discrimination, large, seconds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    model = load_model(options.weights, options.architecture)
    pairs = read_pairs(options.data) if options.data else []

    def thin(step: int) -> list[Pair]:
        seen: dict[str, int] = defaultdict(int)
        kept = []
        for pair in pairs:
            if seen[pair[0]] % step == 0:
                kept.append(pair)
            seen[pair[0]] += 1
        return kept

    parts: dict[str, Callable[[], Any]] = {
        "seconds": lambda: seconds(model),
        "discrimination": lambda: discrimination(model, options.scenes),
        "large": lambda: large_objects(model, options.scenes),
    }
    if pairs:
        parts["images"] = lambda: click_and_box(model, thin(options.every))
        parts["everything"] = lambda: everything(model, thin(options.everything_every))
    figures = {}
    for name, measure in parts.items():
        if not options.only or name in options.only:
            figures[name] = measure()
            sys.stdout.write(f"{name}\n{_table(figures[name])}\n")
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _table(figures: dict[str, Any]) -> str:
    nested = figures if any(isinstance(value, dict) for value in figures.values()) else {"all": figures}
    lines: list[str] = []
    for name, row in nested.items():
        if not lines:
            lines += ["| | " + " | ".join(row) + " |", "|---" * (len(row) + 1) + "|"]
        cells = " | ".join(str(value) if isinstance(value, int) else f"{value:.3f}" for value in row.values())
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
