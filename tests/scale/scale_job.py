"""The whole job with an engine that finds bright things without torch; also run as a program, to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import ndimage

from sam2_fewshot.evaluation import label_image_to_instances
from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import Summary, run
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.records import Detection
from sam2_fewshot.runner.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.records import Exemplar, FrameReader


class Stats:
    candidates = 3
    seconds = {"propose": 0.1}  # noqa: RUF012
    below: tuple[Detection, ...] = ()
    floor = 0.0
    threshold = 0.5
    reason = ""


class Engine:
    model_name, model_sha256, device_name, last_run = "bright.pt", "0" * 64, "nothing", Stats()

    def __init__(self, pause: float = 0.0) -> None:
        self.pause, self.searched = pause, 0

    def fit(self, exemplars: Sequence[Exemplar]) -> None: ...

    def segment(self, frame: FrameReader) -> list[Detection]:
        time.sleep(self.pause)
        self.searched += 1
        labels = ndimage.label(frame.read()[..., 0] > 127)[0]
        return [
            Detection(item, mask_to_polygon(item), 0.9, 0.9, 0.8, frame.location)
            for item in label_image_to_instances(labels)
        ]


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, sentence: str) -> None:
        self.lines.append(sentence)

    warn = say


class World:
    """Runs the job again and again, and tells of the last run."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def work(self, images: Sequence[Path], examples: Path, out: Path, **more: Any) -> Summary:
        self.engine, self.display = Engine(self.pause), Lines()
        request = Request(images=images, examples=examples, out=out, **more)
        return run(request, self.display, lambda request, progress: self.engine)


if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    World(0.05).work([Path(path) for path in sys.argv[3:]], Path(sys.argv[1]), Path(sys.argv[2]))
