"""The command line of the few-shot protocol."""

from __future__ import annotations

import argparse
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.provenance import provenance, write
from benchmarks.quality.methods import DEFAULT, Told, make_method
from benchmarks.quality.protocol import run, summarise, tell
from benchmarks.quality.table import text
from benchmarks.quality.tasks import (
    CHOICES,
    ONE_FRAME,
    RANDOM,
    Task,
    fewer_frames,
    generated_tasks,
    is_called,
    kinds_called,
    quick_choice,
    read_tasks,
)

from sam2_fewshot.errors import FewShotError
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

FULL_KS, QUICK_KS = [1, 5, 10, 20], [10]
FULL_SEEDS, QUICK_SEEDS = 3, 1
QUICK_FRAMES = 2
QUICK_POINTS = 32
_QUICK = (
    "k = 10, one seed, two query frames a task, a coarse grid, and one class of each kind of generated scene; "
    "with --limit-frames 1 still faster"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    options = parser().parse_args(arguments)
    # hydra, which builds the network, uses what newer Pythons warn about.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        return _main(options, list(sys.argv[1:] if arguments is None else arguments))
    except (FewShotError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    out = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Compare methods: find one class of objects from a few examples of it.",
    )
    out.add_argument("--data", type=Path, help="folder that holds dev/ and fewshot/; left out: generated scenes only")
    out.add_argument("--quick", action="store_true", help=_QUICK)
    out.add_argument(
        "--methods", nargs="+", default=list(DEFAULT), metavar="NAME[:SETTING=VALUE,...]", help="%(default)s"
    )
    out.add_argument("--groups", nargs="+", metavar="PATTERN", help="tasks whose name holds or matches one of these")
    out.add_argument("--k", type=_positive, nargs="+", help=f"examples; {FULL_KS}, or {QUICK_KS} with --quick")
    out.add_argument("--seeds", type=_positive, help=f"choices of examples; {FULL_SEEDS}, or {QUICK_SEEDS}")
    out.add_argument("--choices", nargs="+", choices=CHOICES, default=[RANDOM], help="ways of choosing; %(default)s")
    out.add_argument("--limit-frames", type=_positive, help=f"query frames a task; all, or {QUICK_FRAMES}")
    out.add_argument(
        "--points",
        type=_positive,
        help=f"points a side of grid; {Settings().points_per_side}, or {QUICK_POINTS} with --quick",
    )
    out.add_argument("--model", default="micro", help="name or path of a checkpoint")
    out.add_argument("--device", default="auto")
    out.add_argument("--precision", default="auto")
    out.add_argument("--json", type=Path, help="where to write every figure")
    out.add_argument("--commit", default="", help="what to record where there is no git")
    out.add_argument("--list", action="store_true", help="only list the tasks")
    return out


def _main(options: argparse.Namespace, arguments: list[str]) -> int:
    quick = options.quick
    ks = options.k or (QUICK_KS if quick else FULL_KS)
    seeds = range(options.seeds or (QUICK_SEEDS if quick else FULL_SEEDS))
    limit = options.limit_frames or (QUICK_FRAMES if quick else 0)
    points = options.points or (QUICK_POINTS if quick else Settings().points_per_side)
    tasks = [*(read_tasks(options.data) if options.data else []), *generated_tasks(kinds_called(options.groups))]
    tasks = [task for task in tasks if is_called(task.name, options.groups)]
    if quick:
        tasks = quick_choice(tasks)
    tasks = [fewer_frames(task, limit) for task in tasks]
    if not tasks:
        print(f"No task is called like {' or '.join(options.groups)}; --list shows them all.", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(_described(task) for task in tasks))
        return 0

    # Only now, because torch takes seconds to import.
    import torch

    from sam2_fewshot.backbones.sam2 import open_model
    from sam2_fewshot.backbones.sam2.device import describe
    from sam2_fewshot.backbones.sam2.loading import sam2_distribution

    told = Told()
    model = open_model(options.model, options.device, Settings(precision=options.precision))
    methods = [make_method(spec, model, points, told) for spec in options.methods]
    tell(f"{len(tasks)} tasks, {len(methods)} methods, k {ks}, {len(seeds)} seeds, on {describe(model.device)}")
    records, left_out = run(tasks, methods, ks, seeds, choices=options.choices)
    facts: dict[str, Any] = {
        **provenance("benchmarks.quality", arguments, options.commit),
        "device": describe(model.device),
        "precision": str(model.dtype).removeprefix("torch."),
        "model": model.name,
        "model_sha256": model.sha256,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sam2": sam2_distribution(),
        **{name: version(name) for name in ("numpy", "scipy", "scikit-image")},
        "points": points,
        "seeds": list(seeds),
        "frames": limit or "all",
        "left_out": left_out,
        "warnings": list(told.warnings),
    }
    if not records:
        print("No task has enough examples: " + " ".join(left_out), file=sys.stderr)
        return 2
    print(text(facts, records))
    write(options.json, {**facts, "summary": summarise(records), "records": records})
    return 0


def _described(task: Task) -> str:
    objects = sum(len(frame.of(task.wanted)) for frame in task.query_frames)
    frames = f"{len(task.example_frames)} example frames, {len(task.query_frames)} query frames, {objects} objects"
    return f"{task.name}: " + (f"{ONE_FRAME}, {objects} objects" if task.family == ONE_FRAME else frames)


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    raise SystemExit(main())
