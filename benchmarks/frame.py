"""Seconds a frame by its size, for one checkpoint on one device, learned from the eight examples of the bundled sample.

    python -m benchmarks.frame --model micro --device cpu --sides 512 1024 2048
    python -m benchmarks.frame --model base_plus --device cuda --sides 1024 --methods guided grid --points 128

The frames are the bundled sample, laid side by side to the size: nuclei of 15 to 35 px, some 300 on a
megapixel. Beside the seconds that one waits it tells those of the processor, which on a CPU stay about the same when
other programs want it as well.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from benchmarks.provenance import provenance, write
from PIL import Image

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.sample import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write the figures as JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="micro", help="name of a checkpoint")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024, 2048], help="of square frames, in pixels")
    parser.add_argument("--methods", nargs="+", default=["guided"], choices=["guided", "grid"])
    parser.add_argument("--points", type=int, default=128, help="points a side of the method grid")
    parser.add_argument(
        "--repeats", type=int, default=1, help="searches of each frame after the first; the median counts"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args(arguments)
    facts: dict[str, Any] = {
        **provenance("benchmarks.frame", sys.argv[1:] if arguments is None else arguments),
        "rows": [],
    }
    for method in given.methods:
        settings = Settings(method=method, points_per_side=given.points)
        segmenter = FewShotSegmenter(given.model, given.device, settings)
        facts |= {"model": segmenter.model_name, "device": segmenter.device_name}
        _, learning = timed(lambda each=segmenter: each.fit(examples()))
        for side in given.sides:
            frame = picture(side)
            searches = [timed(lambda each=segmenter, on=frame: each.predict(on)) for _ in range(1 + given.repeats)]
            seconds = [taken for _, taken in searches[1:] or searches]
            row = {
                "method": method,
                "side": side,
                "objects": len(searches[0][0].detections),
                "candidates": searches[0][0].candidates,
                "learning_s": learning,
                "first_s": searches[0][1],
                "frame_s": [median(each[n] for each in seconds) for n in (0, 1)],
            }
            facts["rows"].append(row)
            print(told(row), flush=True)
            write(given.out, facts)
    print(f"{facts['model']} on {facts['device']}; in brackets seconds of the processor")


def timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """Return what a piece of work gives, its seconds, and those of the processor."""
    began, busy = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - began, time.process_time() - busy)


def examples() -> list[Exemplar]:
    """Return the examples of the bundled sample."""
    image, labels = (np.asarray(Image.open(path)) for path in (sample().image, sample().examples))
    return [Exemplar(image, mask=labels == number) for number in np.unique(labels) if number]


def picture(side: int) -> NDArray[np.uint8]:
    """Return the bundled sample, laid side by side and cut to a square."""
    tile = np.asarray(Image.open(sample().image))
    counts = [-(-side // length) for length in tile.shape]
    return np.ascontiguousarray(np.tile(tile, counts)[:side, :side])


def told(row: dict[str, Any]) -> str:
    """Return a row of figures as a line."""
    learned, first, usual = (
        f"{wall:.2f} s ({busy:.2f})" for wall, busy in (row["learning_s"], row["first_s"], row["frame_s"])
    )
    return (
        f"{row['method']}, {row['side']} x {row['side']}: {row['objects']} objects of {row['candidates']} candidates; "
        f"learning {learned}, first frame {first}, another {usual}"
    )


if __name__ == "__main__":
    main()
