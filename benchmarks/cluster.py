"""What Dask costs and gains: the same frames without it, on one worker, on two, and with a worker killed in the middle.

    OMP_NUM_THREADS=1 python benchmarks/cluster.py --data DIR [--frames 64] [--images NAME] [--out FILE]

`DIR` holds real images in folders, each with a label image ``NAME_labels.png`` beside it. The embedded checkpoint is
used on the CPU; Dask's workers have one thread, and so should the run without them. Learning from the examples and
loading the model are not counted; starting workers is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import run
from sam2_fewshot.runner.cluster import connected
from sam2_fewshot.runner.progress import Silent
from sam2_fewshot.settings import Settings


class Timed(Silent):
    """Notes when the first frame was begun and the last was done."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.first = 0.0

    def begin(self, frames: int) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def frame_ends(self, candidates: int, kept: int, seconds: float) -> None:
        """Stop it, so far."""
        self.ended = time.perf_counter()
        self.first = self.first or self.ended - self.began

    def warn(self, sentence: str) -> None:
        """Say nothing."""


def frames_of(folder: Path, name: str, count: int, to: Path) -> tuple[list[Path], Path]:
    """Copy so many images under new names, and the labels of the first as examples."""
    found = sorted(folder.rglob(f"{name}*_labels.png"))
    images = []
    for number in range(count):
        labels = found[number % len(found)]
        source = labels.with_name(labels.name.replace("_labels", ""))
        images.append(to / f"frame{number:03d}.png")
        Image.open(source).convert("RGB").save(images[-1])
    examples = to / "marked"
    examples.mkdir()
    (examples / "frame000_labels.png").write_bytes(found[0].read_bytes())
    return images, examples


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--images", default="", help="how the names of the images begin; any")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    settings = Settings()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        images, examples = frames_of(arguments.data, arguments.images, arguments.frames, base)
        request = Request(
            images, examples, base / "none", model="sam2.1_hiera_micro.pt", device="cpu", settings=settings
        )

        def measure(name: str, workers: int, kill: bool = False) -> None:
            shown, started, cpu = Timed(), time.perf_counter(), cpu_seconds()
            asked = replace(request, out=base / name.replace(" ", "_"))
            if not workers:
                start_up = 0.0
                summary = run(asked, shown)
            else:
                with connected(str(workers), settings) as (client, _):
                    start_up = time.perf_counter() - started
                    if kill:
                        threading.Thread(target=kill_one, args=(client, asked.out, arguments.frames // 2)).start()
                    summary = run(asked, shown, scheduler=client)
            rows.append(
                {
                    "how": name,
                    "frames": summary.done,
                    "objects": summary.found,
                    "seconds": shown.ended - shown.began,
                    "first_frame": shown.first,
                    "start_workers": start_up,
                    "cpu_seconds": cpu_seconds() - cpu,  # all processes, starting and learning included
                    "load_average": os.getloadavg()[0],
                    "failures": [failure.sentence for failure in summary.failures],
                }
            )
            print({key: round(v, 2) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(rows, indent=1))

        measure("without", 0)
        measure("one worker", 1)
        measure("two workers", 2)
        measure("two workers one killed", 2, kill=True)


def cpu_seconds() -> float:
    """Return the processor time of this process and of all that it started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def kill_one(client: Any, out: Path, after: int) -> None:
    """Kill a worker once so many frames are done."""
    while len(list(out.glob(".frames/*.npz"))) < after:
        time.sleep(0.1)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)


if __name__ == "__main__":
    main()
