"""The whole job with a segmenter that finds bright things without torch; also run as a program, to be killed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bright import BrightMaker
from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import Summary, run
from sam2_fewshot.runner.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Sequence


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, sentence: str) -> None:
        self.lines.append(sentence)

    warn = say


class World:
    """Runs the job again and again, and tells of the last run."""

    def __init__(self, pause: float = 0.0) -> None:
        self.make = BrightMaker({"pause": pause})

    def work(self, images: Sequence[Path], examples: Path, out: Path, **more: Any) -> Summary:
        self.display = Lines()
        return run(Request(images=images, examples=examples, out=out, **more), self.display, self.make)

    @property
    def searched(self) -> int:
        """How many frames the last run has searched."""
        return sum(segmenter.bright.searched for segmenter in self.make.made[-1:])


if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    World(0.05).work([Path(path) for path in sys.argv[3:]], Path(sys.argv[1]), Path(sys.argv[2]))
