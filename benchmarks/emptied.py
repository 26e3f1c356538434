"""How much is found where there is nothing: frames whose objects were painted over with the ground beside them.

    python -m benchmarks.emptied --data DATA [--groups PATTERN ...] [--k 10] [--limit-frames 1] [--json FILE]

A well without cells, or a field with three, is part of every experiment, and all that is found there is wrong. Of each
task's query frames every object of every class is taken away; frames without enough ground to cover them are left out.
What is found on the frame as it was is counted as well: where little is found anyway, little is found on the ground.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from benchmarks.provenance import provenance, write
from benchmarks.quality.tasks import fewer_frames, generated_tasks, is_called, read_tasks
from scipy import ndimage

from sam2_fewshot import FewShotSegmenter, FewShotWarning, Settings
from sam2_fewshot.geometry.overlap import grown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.quality.tasks import Picture, Task
    from numpy.typing import NDArray

    from sam2_fewshot.records import InstanceMask

_MARGIN = 0.25
"""What lies so many diameters around an object is taken away with it: its halo, its shadow, its blurred border."""
_NEAREST = 50
"""The ground is taken from a place among the nearest 1/50 of those that are free, so that it is as bright."""


def emptied(picture: Picture) -> NDArray[np.uint8] | None:
    """Return a frame's image without its objects; None where the ground is too little to cover them.

    The smallest are covered first, so that what is free grows while larger ones are left.
    """
    objects = [mask for mask, _ in picture.objects]
    image = picture.image.astype(np.float32)
    margin = max(2, round(_MARGIN * float(np.median([mask.area for mask in objects])) ** 0.5))
    taken = ndimage.binary_dilation(picture.labels > 0, iterations=margin)
    left = sorted(objects, key=lambda mask: np.prod(mask.data.shape))
    while left:
        free = np.pad(taken.astype(np.int32), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        rest = [mask for mask in left if not _covered(image, mask, margin, free)]
        if len(rest) == len(left):
            return None
        taken = np.zeros_like(taken)
        for mask in rest:
            taken |= mask.full()
        taken, left = ndimage.binary_dilation(taken, iterations=margin), rest
    return image.clip(0, 255).astype(np.uint8)


def _covered(image: NDArray[np.float32], mask: InstanceMask, margin: int, taken: NDArray[np.int64]) -> bool:
    """Paint over an object with free ground; tell whether there is any. `taken` is summed over rows and columns."""
    x0, y0, x1, y1 = window = grown(mask.box, 2 * margin, mask.frame_shape)
    down, across = y1 - y0, x1 - x0
    inside = taken[down:, across:] - taken[:-down, across:] - taken[down:, :-across] + taken[:-down, :-across]
    rows, columns = np.nonzero(inside == 0)
    if not len(rows):
        return False
    nearest = np.argsort((rows - y0) ** 2 + (columns - x0) ** 2, kind="stable")
    chosen = nearest[(len(nearest) - 1) // _NEAREST]
    row, column = rows[chosen], columns[chosen]
    own = mask.window(window)
    # All of the object and half of the margin is covered, the rest fades.
    away = ndimage.distance_transform_edt(~own)
    share = np.clip((1.5 * margin - away) / margin, 0, 1).astype(np.float32)
    share = share if image.ndim == 2 else share[..., None]
    here = image[y0:y1, x0:x1]
    here += share * (image[row : row + down, column : column + across] - here)
    return True


def run(task: Task, segmenter: FewShotSegmenter, k: int, seed: int) -> dict[str, Any] | None:
    """Return what is found on a task's query frames as they are and emptied; None with too few objects or ground."""
    episode = task.episode(k, seed)
    if episode is None:
        return None
    frames = [(query, image) for query in episode.queries if (image := emptied(query.picture)) is not None]
    if not frames:
        return None
    segmenter.fit(episode.examples)
    found = {"found": 0, "found_emptied": 0}
    for query, image in frames:
        for name, pixels in (("found", query.picture.image), ("found_emptied", image)):
            found[name] += len(segmenter.predict(pixels).detections)
    return {
        "task": task.name,
        "seed": seed,
        "frames": len(frames),
        "objects": sum(len(query.truth) for query, _ in frames),
        **found,
    }


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Return the mean share in words."""
    shares = [row["found_emptied"] / max(row["objects"], 1) for row in rows]
    nothing = sum(not row["found_emptied"] for row in rows)
    return (
        f"{len(rows)} tasks: on emptied frames {np.mean(shares):.3f} are found for each object that was there, "
        f"{np.max(shares):.2f} at most; none on {nothing} tasks"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="folder that holds dev/ and fewshot/; left out: generated scenes only"
    )
    parser.add_argument("--groups", nargs="+", help="tasks whose name holds or matches one of these")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit-frames", type=int, default=1, help="query frames a task; 0 for all")
    parser.add_argument("--model", default="sam2.1_hiera_micro.pt")
    parser.add_argument("--commit", default="", help="what to record where there is no git")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", FewShotWarning)
    segmenter = FewShotSegmenter(options.model, settings=Settings())
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {
        **provenance("benchmarks.emptied", sys.argv[1:] if arguments is None else arguments, options.commit),
        "device": segmenter.device_name,
        "model": segmenter.model_name,
        "model_sha256": segmenter.model_sha256,
        "rows": rows,
    }
    tasks = [*(read_tasks(options.data) if options.data else []), *generated_tasks()]
    for task in (fewer_frames(task, options.limit_frames) for task in tasks if is_called(task.name, options.groups)):
        for seed in range(options.seeds):
            row = run(task, segmenter, options.k, seed)
            if row is None:
                print(f"{task.name}: too few objects, or too little ground to cover them", file=sys.stderr)
                continue
            rows.append(row)
            print(
                f"{row['task']:42} objects {row['objects']:5} found {row['found']:5}, emptied {row['found_emptied']:5}",
                flush=True,
            )
            write(options.json, {**facts, "summary": summary(rows)})
    if rows:
        print(summary(rows))


if __name__ == "__main__":
    main()
