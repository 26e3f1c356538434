"""The figures as text to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.quality.protocol import stage_means, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.quality.protocol import Record

_COLUMNS = (
    ("precision_50", "P.5", 5),
    ("recall_50", "R.5", 5),
    ("f1_50", "F1.5", 5),
    ("f1_30", "F1.3", 5),
    ("best_f1", "best", 5),
    ("best_threshold", "at", 5),
    ("ap", "AP", 5),
    ("proposal_recall", "prop", 5),
    ("proposal_small", "S", 5),
    ("proposal_middle", "M", 5),
    ("proposal_large", "L", 5),
    ("frame_seconds", "s/frame", 8),
)

LEGEND = """\
P.5 R.5 F1.5 F1.3  precision, recall, F1 of the detections at the default threshold, matched at IoU .5 and .3
best at            largest F1 at IoU .5 over all thresholds on the score, found with the truth, and that threshold
AP                 area under the monotone precision-recall curve of all candidates of a task, IoU .5 (VOC 2010)
prop S M L         recall of the candidates before any is dropped for its score; small, middle, large third of objects
Means are over seeds, then over tasks. In "one frame" tasks the examples lie in the query frame and are not counted."""


def text(facts: dict[str, Any], records: Sequence[Record]) -> str:
    """Return the tables of a run: one for each k, the stages' seconds, and how the methods compare."""
    rows = summarise(records)
    lines = [
        f"{facts['model']} on {facts['device']}, {facts['precision']}, torch {facts['torch']}, commit "
        f"{facts['commit']}, {facts['date']}; grid with {facts['points']} points a side; seeds {facts['seeds']}; "
        f"{facts['frames']} query frames a task",
        "",
        LEGEND,
    ]
    for k in dict.fromkeys(row["k"] for row in rows):
        lines += ["", *_table(k, [row for row in rows if row["k"] == k])]
        lines += ["", *_comparison([row for row in rows if row["k"] == k])]
    lines += ["", "seconds a stage (learn: a task; the others: a frame, mean over tasks)"]
    for method, seconds in stage_means(records).items():
        lines.append(f"  {method}: " + ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items()))
    errors = dict.fromkeys(f"{r['task']} k={r['k']} {r['method']}: {r['error']}" for r in records if r["error"])
    for title, sentences in (
        ("counted as nothing found", errors),
        ("left out", facts["left_out"]),
        ("warnings", facts["warnings"]),
    ):
        if sentences:
            lines += ["", title, *(f"  {sentence}" for sentence in sentences)]
    return "\n".join(lines)


def _table(k: int, rows: Sequence[Record]) -> list[str]:
    names = list(dict.fromkeys(row["task"] for row in rows if row["level"] == "task"))
    names += list(dict.fromkeys(row["task"] for row in rows if row["level"] == "family"))
    names += list(dict.fromkeys(row["task"] for row in rows if row["level"] == "all"))
    first = max(len(f"k = {k}"), *(len(name) for name in names))
    second = max(6, *(len(row["method"]) for row in rows))
    head = f"{f'k = {k}':{first}}  {'method':{second}}" + "".join(f"{title:>{w + 1}}" for _, title, w in _COLUMNS)
    lines = [head, "-" * len(head)]
    for name in names:
        shown = name
        for row in (row for row in rows if row["task"] == name):
            cells = "".join(f"{_number(row[key]):>{width + 1}}" for key, _, width in _COLUMNS)
            lines.append(f"{shown:{first}}  {row['method']:{second}}{cells}")
            shown = ""
    return lines


def _comparison(rows: Sequence[Record]) -> list[str]:
    """Return how the means of the methods stand to one another, where both sides were run."""
    means = {row["method"]: row for row in rows if row["level"] == "all"}
    tasks = {(row["method"], row["task"]): row["f1_50"] for row in rows if row["level"] == "task"}
    lines = []
    for method, mean in means.items():
        if method == "floor" or method.startswith("oracle"):
            continue
        ratios = [("F1 / own best", mean["f1_50"], mean["best_f1"])]
        if "grid" in means:
            ratios.append(("F1 / grid's best", mean["f1_50"], means["grid"]["best_f1"]))
            ratios.append(("AP / grid's", mean["ap"], means["grid"]["ap"]))
            ratios.append(("s/frame / grid's", mean["frame_seconds"], means["grid"]["frame_seconds"]))
        if "floor" in means:
            ratios.append(("F1 / floor's", mean["f1_50"], means["floor"]["f1_50"]))
        ratios += [
            (f"prop / {other}'s", mean["proposal_recall"], means[other]["proposal_recall"])
            for other in ("oracle", "oracle_zoom")
            if other in means
        ]
        said = [f"{name} {_ratio(a, b)}" for name, a, b in ratios]
        gaps = {
            task: value - tasks["floor", task]
            for (own, task), value in tasks.items()
            if own == method and ("floor", task) in tasks
        }
        if gaps:
            worst = min(gaps, key=lambda task: gaps[task])
            said.append(f"lowest F1 - floor's {gaps[worst]:+.2f} ({worst})")
        lines.append(f"{method}: " + ", ".join(said))
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _ratio(a: float | None, b: float | None) -> str:
    return f"{a / b:.2f}" if a is not None and b else "–"
