"""What ten corrections are worth: F1 before and after, with a simulated user.

    python -m benchmarks.refine --data DIR [--tasks PATTERN ...] [--kinds KIND ...] [--json FILE]

For each task ten examples are shown. The user looks at two further frames (at one, where a group has fewer than four),
goes through the places of a strategy, and says of ten objects whether they are right (IoU of at least .5 with a true
object) or wrong (below .1, so nothing of the kind); a poor outline of a true object, which lies between, is passed
over. Then it is learned again from the examples and the corrections, and F1 at an IoU of .5 is told for frames that
gave neither. Where a group has one frame only, it is told for its other objects: what was corrected with any of the
strategies counts neither way. The threshold stays that of the settings.

Beside it, ``best`` is F1 at the best of nine thresholds.

The strategies: ``next``, the list of what to mark next; ``random``, in random order, as the mean of several draws.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from benchmarks.provenance import provenance, write
from benchmarks.quality.tasks import ONE_FRAME, Query, Task, generated_tasks, is_called, read_tasks

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.annotations.mark_next import Asking, asked_about
from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.evaluation.figures import EvaluatedFrame
from sam2_fewshot.evaluation.matching import Scores
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.records import Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sam2_fewshot.records import Detection, InstanceMask

EXAMPLES, CORRECTIONS, LOOKED_AT = 10, 10, 2
STRATEGIES = ("next", "random")
RIGHT, WRONG = 0.5, 0.1
CUTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
Card = tuple[int, "Detection"]
"""A frame's number and an object on it."""


def cards_of(records: Sequence[FrameRecord]) -> list[Card]:
    """Return all that the gallery has of some frames."""
    return [(xy, item) for xy, record in enumerate(records) for item in asked_about(record)]


def ordered(strategy: str, records: Sequence[FrameRecord], draw: Sequence[int]) -> list[Card]:
    """Return what a user looks at, the first one first."""
    cards = cards_of(records)
    if strategy == "random":
        return [cards[i] for i in np.random.default_rng(draw).permutation(len(cards))]
    asking = Asking()
    for record in records:
        asking.add(record)
    places = asking.places(len(cards))
    return [(place.location.xy, asked_about(records[place.location.xy])[place.number - 1]) for place in places]


def answered(cards: Iterable[Card], queries: Sequence[Query]) -> list[Exemplar]:
    """Return what the user says of the first cards."""
    said: list[Exemplar] = []
    for xy, item in cards:
        query = queries[xy]
        if any(mask_iou(item.instance, mask) > WRONG for mask in query.ignore):
            continue
        best = max((mask_iou(item.instance, mask) for mask in query.truth), default=0.0)
        if best >= RIGHT or best < WRONG:
            said.append(Exemplar(image=query.picture.image, mask=item.mask, negative=best < WRONG))
        if len(said) == CORRECTIONS:
            break
    return said


def scored(found: Sequence[tuple[Query, Sequence[Detection]]], ignore: Sequence[Exemplar] = ()) -> Scores:
    """Return the scores over frames; what was corrected counts neither way."""
    total = Scores(0, 0, 0, 0.0)
    for query, detections in found:
        masks = [as_instance(e) for e in ignore if e.image is query.picture.image]
        truth = [t for t in query.truth if all(mask_iou(t, m) < RIGHT for m in masks)]
        total += (
            EvaluatedFrame("", [d.instance for d in detections], truth, ignore=[*query.ignore, *masks])
            .match(0.5)
            .scores
        )
    return total


def as_instance(exemplar: Exemplar) -> InstanceMask:
    """Return an exemplar's mask, cropped."""
    assert exemplar.mask is not None
    return crop_to_object(exemplar.mask)


def parted(task: Task, queries: Sequence[Query], most: int) -> tuple[Sequence[Query], Sequence[Query]]:
    """Return the frames that the user looks at, and those that F1 is taken on, spread evenly over the rest."""
    if task.family == ONE_FRAME:
        return queries, queries
    looked_at = min(LOOKED_AT, len(queries) // 2)
    rest = queries[looked_at:]
    chosen = np.linspace(0, len(rest) - 1, min(most, len(rest))).round().astype(int)
    return queries[:looked_at], [rest[i] for i in chosen]


def run(task: Task, segmenter: FewShotSegmenter, seed: int, most: int, draws: int) -> dict[str, Any] | None:
    """Return the figures of one task, None where it has too few objects."""
    episode = task.episode(EXAMPLES, seed)
    if episode is None:
        return None
    looked_at, judged = parted(task, episode.queries, most)
    if not judged:
        return None
    segmenter.fit(episode.examples)
    threshold = segmenter.settings.similarity_threshold
    records = []
    for xy, query in enumerate(looked_at):
        found = segmenter.predict(query.picture.image)
        records.append(
            FrameRecord(
                *(query.picture.name, str(xy), Location(xy), query.picture.labels.shape),
                detections=tuple(found.detections),
                below=tuple(found.below),
                threshold=threshold,
            )
        )
    said = {
        f"{strategy}{number}": answered(ordered(strategy, records, (seed, number)), looked_at)
        for strategy in STRATEGIES
        for number in range(draws if strategy == "random" else 1)
    }
    everything = [exemplar for exemplars in said.values() for exemplar in exemplars]
    row: dict[str, Any] = {"task": task.name, "seed": seed, "frames": len(judged), "cards": len(cards_of(records))}

    def judge() -> dict[str, float]:
        found = [(query, segmenter.predict(query.picture.image)) for query in judged]
        scores = scored([(query, result.detections) for query, result in found], everything)
        figures = {name: getattr(scores, name) for name in ("precision", "recall", "f1")}
        all_of = [(query, [*result.detections, *result.below]) for query, result in found]
        best = max(
            scored([(q, [d for d in every if d.score >= cut]) for q, every in all_of], everything).f1 for cut in CUTS
        )
        return {name: round(value, 4) for name, value in {**figures, "best": best}.items()}

    row["none"] = judge()
    for strategy in STRATEGIES:
        figures = []
        for exemplars in (each for name, each in said.items() if name.startswith(strategy)):
            right = sum(not exemplar.negative for exemplar in exemplars)
            if exemplars:
                segmenter.fit([*episode.examples, *exemplars])
            outcome = judge() if exemplars else row["none"]
            figures.append({"right": right, "wrong": len(exemplars) - right, **outcome})
        row[strategy] = {name: round(fmean(each[name] for each in figures), 4) for name in figures[0]}
        row[strategy]["each"] = [each["f1"] for each in figures]
    return row


def told(row: dict[str, Any]) -> str:
    """Return a row of figures as a line."""
    parts = [f"{row['task']:42} seed {row['seed']}  none {row['none']['f1']:.3f}"]
    for strategy in STRATEGIES:
        at = row[strategy]
        parts.append(f"{strategy} {at['f1']:.3f} ({at['right']:.3g} right {at['wrong']:.3g} wrong)")
    return "  ".join(parts)


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the means as lines, and on how many of the tasks one strategy is better than others."""
    mean = {name: fmean(row[name]["f1"] for row in rows) for name in ("none", *STRATEGIES)}
    tasks = {row["task"] for row in rows}
    best = {name: fmean(row[name]["best"] for row in rows) for name in mean}
    lines = [
        f"mean of F1{where}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        for where, values in (("", mean), (" at the best threshold", best))
    ]
    lines.append("divided by none: " + ", ".join(f"{name} {mean[name] / mean['none']:.3f}" for name in STRATEGIES))

    def of(task: str, strategy: str) -> float:
        return fmean(row[strategy]["f1"] for row in rows if row["task"] == task)

    for other in ("random", "none"):
        better = sum(of(task, "next") > of(task, other) for task in tasks)
        same = sum(of(task, "next") == of(task, other) for task in tasks)
        lines.append(f"next better than {other} on {better} of {len(tasks)} tasks, the same on {same}")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", help="only tasks whose names hold one of these")
    parser.add_argument("--kinds", nargs="*", default=[], help="kinds of generated look-alike scenes to add")
    parser.add_argument("--side", type=int, default=512, help="px, of the generated scenes")
    parser.add_argument("--model", default="sam2.1_hiera_micro.pt")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--draws", type=int, default=2, help="of the random strategy")
    parser.add_argument("--frames", type=int, default=4, help="frames that F1 is taken on, at most")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    segmenter = FewShotSegmenter(options.model, settings=Settings())
    facts: dict[str, Any] = {
        **provenance("benchmarks.refine", sys.argv[1:] if arguments is None else arguments),
        "device": segmenter.device_name,
        "model": segmenter.model_name,
        "model_sha256": segmenter.model_sha256,
        "rows": [],
    }
    rows: list[dict[str, Any]] = facts["rows"]
    for task in [*read_tasks(options.data), *generated_tasks(options.kinds, options.side)]:
        for seed in range(options.seeds) if is_called(task.name, options.tasks) else ():
            row = run(task, segmenter, seed, options.frames, options.draws)
            if row is None:
                print(f"{task.name}: too few objects or frames", file=sys.stderr)
                continue
            rows.append(row)
            print(told(row), flush=True)
            write(options.json, {**facts, "summary": summary(rows)})
    if rows:
        print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
