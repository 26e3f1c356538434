"""Run every method on every task: the same examples, the same queries, one record each."""

from __future__ import annotations

import sys
import time
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.quality.figures import LOOSE, STRICT, MatchedFrame, counts, curve, match_frame, reach, reached
from benchmarks.quality.tasks import ONE_FRAME, RANDOM

from sam2_fewshot.errors import InputError
from sam2_fewshot.evaluation.matching import Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.quality.methods import Method, Outcome
    from benchmarks.quality.tasks import Episode, Query, Task

Record = dict[str, Any]
"""The figures of one method on one task with one choice of examples; None where a figure makes no sense."""


def tell(line: str) -> None:
    """Write a line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def run(
    tasks: Sequence[Task],
    methods: Sequence[Method],
    ks: Sequence[int],
    seeds: Iterable[int],
    tell: Callable[[str], None] = tell,
    choices: Sequence[str] = (RANDOM,),
) -> tuple[list[Record], list[str]]:
    """Run the protocol.

    Parameters
    ----------
    tasks, methods
        What to look for, and how.
    ks
        Numbers of examples.
    seeds
        Of the random choices of examples.
    tell
        Hears a line after each method and task.
    choices
        Ways of choosing the examples; of those that are not random there is one choice.

    Returns
    -------
    tuple
        The records, and a sentence for each task and k that had to be left out.
    """
    seeds = list(seeds)
    rounds = [
        (task, k, seed, choice)
        for task in tasks
        for k in ks
        for choice in choices
        for seed in (seeds if choice == RANDOM else seeds[:1])
    ]
    negatives = max((method.negatives for method in methods), default=0)
    records: list[Record] = []
    left_out: dict[str, None] = {}
    for number, (task, k, seed, choice) in enumerate(rounds, 1):
        episode = task.episode(k, seed, negatives, choice)
        if episode is None:
            left_out[f"{task.name}, k = {k}: too few examples."] = None
            continue
        for method in methods:
            start = time.perf_counter()
            record = {**run_one(task, episode, method, k, seed), "choice": choice}
            records.append(record)
            tell(
                f"[{number}/{len(rounds)}] {task.name} k={k} {choice} {seed} {method.label}: F1 {record['f1_50']:.2f}, "
                f"{time.perf_counter() - start:.1f} s"
            )
    return records, list(left_out)


def run_one(task: Task, episode: Episode, method: Method, k: int, seed: int) -> Record:
    """Return the record of one method. A method that refuses the examples has found nothing, and `error` says why."""
    error, learning = "", 0.0
    outcomes: list[tuple[Query, Outcome]] = []
    try:
        start = time.perf_counter()
        method.learn(episode)
        learning = time.perf_counter() - start
        outcomes = [(query, method.find(query)) for query in episode.queries]
    except InputError as refused:
        error, outcomes = str(refused), []
    record: Record = {
        "family": task.family,
        "group": task.group,
        "class": task.wanted,
        "task": task.name,
        "k": k,
        "seed": seed,
        "method": method.label,
        "example_frames": sorted({example.label for example in episode.examples}),
        "negatives": min(method.negatives, len(episode.negatives)),
        "queries": [query.picture.name for query in episode.queries],
        "objects": sum(len(query.truth) for query in episode.queries),
        "error": error,
        "agreement": None if error else method.agreement,
    }
    return record | _figures(outcomes, episode, loose=task.loose, scored=method.scored) | _times(outcomes, learning)


def _figures(
    outcomes: Sequence[tuple[Query, Outcome]], episode: Episode, *, loose: bool, scored: bool
) -> dict[str, Any]:
    record: dict[str, Any] = {}
    objects = sum(len(query.truth) for query in episode.queries)
    for name, iou in (("50", STRICT), ("30", LOOSE)):
        total = Scores(0, 0, 0 if outcomes else objects, 0.0)
        for query, outcome in outcomes:
            total += counts(outcome.kept, query.truth, query.ignore, iou)
        evaluated = iou == STRICT or loose
        for figure in ("precision", "recall", "f1"):
            record[f"{figure}_{name}"] = getattr(total, figure) if evaluated else None
    frames = [match_frame(outcome.everything, query.truth, query.ignore) for query, outcome in outcomes]
    if not outcomes:
        frames = [MatchedFrame([], [m.area for m in q.truth], [False] * len(q.truth)) for q in episode.queries]
    found = curve(frames)
    proposals = [
        frame if outcome.proposed is None else frame._replace(reached=reached(outcome.proposed, query.truth))
        for frame, (query, outcome) in zip(frames, outcomes, strict=False)
    ]
    overall, by_size, edges = reach(proposals or frames)
    kept = [match_frame(outcome.kept, query.truth, query.ignore) for query, outcome in outcomes]
    return record | {
        "best_f1": found.best_f1 if scored else None,
        "best_threshold": found.best_threshold if scored and found.best_f1 else None,
        "ap": found.average_precision if scored else None,
        "proposal_recall": overall,
        "proposal_recall_by_size": by_size,
        "recall_by_size": reach(kept)[1],
        "size_edges_px": edges,
        "candidates": sum(len(outcome.everything) for _, outcome in outcomes),
        "proposed": sum(len(o.everything if o.proposed is None else o.proposed) for _, o in outcomes),
        "finds": sum(len(outcome.kept) for _, outcome in outcomes),
    }


def _times(outcomes: Sequence[tuple[Query, Outcome]], learning: float) -> dict[str, Any]:
    """Return the seconds to learn and, as means over the frames, those of each stage."""
    stages = list(dict.fromkeys(stage for _, outcome in outcomes for stage in outcome.seconds))
    seconds = {stage: fmean(outcome.seconds.get(stage, 0.0) for _, outcome in outcomes) for stage in stages}
    return {"learn_seconds": learning, "stage_seconds": seconds, "frame_seconds": sum(seconds.values())}


FIGURES = (
    "precision_50",
    "recall_50",
    "f1_50",
    "f1_30",
    "best_f1",
    "best_threshold",
    "ap",
    "proposal_recall",
    "proposal_small",
    "proposal_middle",
    "proposal_large",
    "frame_seconds",
)
"""The figures of a summary, in the order of the table's columns."""


def summarise(records: Sequence[Record]) -> list[Record]:
    """Return means: over the seeds of each task, then over the tasks of each family, then over all tasks.

    Tasks whose examples lie in the query frame are their own family and stay out of the mean over all.
    """
    rows: list[Record] = []
    for k, method in dict.fromkeys((r["k"], r["method"]) for r in records):
        own = [r for r in records if (r["k"], r["method"]) == (k, method)]
        tasks = [
            {"task": name, "family": same[0]["family"], "objects": round(fmean(r["objects"] for r in same))}
            | _means([_flat(r) for r in same])
            for name in dict.fromkeys(r["task"] for r in own)
            if (same := [r for r in own if r["task"] == name])
        ]
        rows += [{"k": k, "method": method, "level": "task", **row} for row in tasks]
        for family in dict.fromkeys(row["family"] for row in tasks):
            some = [row for row in tasks if row["family"] == family]
            rows.append(
                {"k": k, "method": method, "level": "family", "task": f"mean of {len(some)}: {family}"} | _means(some)
            )
        apart = [row for row in tasks if row["family"] != ONE_FRAME]
        if apart:
            name = f"MEAN of {len(apart)} (all but {ONE_FRAME})"
            rows.append({"k": k, "method": method, "level": "all", "task": name} | _means(apart))
    return rows


def stage_means(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return the mean seconds of each stage a frame, and of learning a task, for each method."""
    out: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(r["method"] for r in records):
        own = [r for r in records if r["method"] == method and not r["error"]]
        stages = dict.fromkeys(stage for r in own for stage in r["stage_seconds"])
        if own:
            out[method] = {"learn": fmean(r["learn_seconds"] for r in own)} | {
                stage: fmean(r["stage_seconds"].get(stage, 0.0) for r in own) for stage in stages
            }
    return out


def _flat(record: Record) -> Record:
    small, middle, large = record["proposal_recall_by_size"]
    return record | {"proposal_small": small, "proposal_middle": middle, "proposal_large": large}


def _means(rows: Sequence[Record]) -> Record:
    out: Record = {}
    for figure in FIGURES:
        values = [row[figure] for row in rows if row[figure] is not None]
        out[figure] = fmean(values) if values else None
    return out
