"""What ten corrections are worth: F1 before and after, with a simulated user.

    python -m benchmarks.refine --data DIR [--tasks PATTERN ...] [--json FILE]

For each task ten examples are shown. The user looks at the gallery of two further frames, in its own order (the
doubtful ones around the threshold first), and says of ten objects whether they are right (IoU of at least .5 with a
true object) or wrong (below .1, so nothing of the kind); a poor outline of a true object, which lies between, is passed
over. Then it is learned again from the examples and the corrections, and F1 at an IoU of .5 is told for frames that
gave neither; where a group has one frame only, for its other objects.
The threshold stays that of the settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks.quality.tasks import ONE_FRAME, Query, Task, is_called, read_tasks

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.evaluation import Scores, match
from sam2_fewshot.geometry.overlap import mask_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.records import Detection

EXAMPLES, CORRECTIONS, LOOKED_AT = 10, 10, 2


def scored(found: Sequence[tuple[Query, Sequence[Detection]]], ignore: Sequence[Exemplar] = ()) -> Scores:
    """Return the scores over frames; what was corrected counts neither way."""
    total = Scores(0, 0, 0, 0.0)
    for query, detections in found:
        shown = [e for e in ignore if e.image is query.picture.image]
        masks = [as_instance(e) for e in shown]
        truth = [t for t in query.truth if all(mask_iou(t, m) < 0.5 for m in masks)]
        total += match([d.instance for d in detections], truth, 0.5, ignore=[*query.ignore, *masks]).scores
    return total


def as_instance(exemplar: Exemplar):  # type: ignore[no-untyped-def]
    """Return an exemplar's mask, cropped."""
    from sam2_fewshot.geometry.outlines import crop_to_object

    assert exemplar.mask is not None
    return crop_to_object(exemplar.mask)


def corrected(segmenter: FewShotSegmenter, queries: Sequence[Query]) -> list[Exemplar]:
    """Return what the user says of the first objects in the gallery."""
    threshold = segmenter.settings.similarity_threshold
    cards = []
    for query in queries:
        result = segmenter.predict(query.picture.image)
        cards += [(query, item) for item in (*result.detections, *result.below)]
    cards.sort(key=lambda card: abs(card[1].score - threshold))
    said: list[Exemplar] = []
    for query, item in cards:
        if any(mask_iou(item.instance, mask) > 0.1 for mask in query.ignore):
            continue
        best = max((mask_iou(item.instance, mask) for mask in query.truth), default=0.0)
        if best >= 0.5 or best < 0.1:
            said.append(Exemplar(image=query.picture.image, mask=item.mask, negative=best < 0.1))
        if len(said) == CORRECTIONS:
            break
    return said


def run(task: Task, model: str, seed: int, most: int) -> dict[str, object] | None:
    """Return the figures of one task, None where it has too few objects."""
    episode = task.episode(EXAMPLES, seed)
    if episode is None:
        return None
    if task.family == ONE_FRAME:
        looked_at = judged = episode.queries
    else:
        looked_at, judged = episode.queries[:LOOKED_AT], episode.queries[LOOKED_AT : LOOKED_AT + most]
    if not judged:
        return None
    segmenter = FewShotSegmenter(model, settings=Settings())
    segmenter.fit(episode.examples)
    said = corrected(segmenter, looked_at)
    before = scored([(query, segmenter.segment(query.picture.image)) for query in judged], said)
    segmenter.fit([*episode.examples, *said])
    after = scored([(query, segmenter.segment(query.picture.image)) for query in judged], said)
    right = sum(not exemplar.negative for exemplar in said)
    return {
        "task": task.name,
        "seed": seed,
        "frames": len(judged),
        "right": right,
        "wrong": len(said) - right,
        **{f"{name}_{when}": round(getattr(scores, name), 4)
           for when, scores in (("before", before), ("after", after)) for name in ("precision", "recall", "f1")},
    }  # fmt: skip


def main() -> None:
    """Run the tasks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", help="only tasks whose names hold one of these")
    parser.add_argument("--model", default="sam2.1_hiera_micro.pt")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--frames", type=int, default=4, help="frames that F1 is taken on, at most")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for task in read_tasks(options.data):
        for seed in range(options.seeds) if is_called(task.name, options.tasks) else ():
            row = run(task, options.model, seed, options.frames)
            if row is None:
                print(f"{task.name}: too few objects or frames", file=sys.stderr)
                continue
            rows.append(row)
            print(
                f"{row['task']:45} seed {seed}  {row['right']:2} right {row['wrong']:2} wrong  "
                f"F1 {row['f1_before']:.3f} -> {row['f1_after']:.3f}",
                flush=True,
            )
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if rows:
        before, after = (fmean(float(str(row[f"f1_{when}"])) for row in rows) for when in ("before", "after"))
        print(f"{'MEAN':45}{'':32}F1 {before:.3f} -> {after:.3f}")


if __name__ == "__main__":
    main()
