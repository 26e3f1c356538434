"""The whole job on one large frame that is searched in blocks; also run as a program, to be killed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scale_job import Lines
from scale_scenes import BRIGHT, memory_for, scene

from bright import BrightMaker
from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import Summary, run
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from sam2_fewshot.records import FrameReader

SETTINGS = Settings(method="grid", similarity_threshold=0.61, max_memory=memory_for(500**2), cache_size=0)


class Slide:
    """A slide with two examples, and the job on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image, self.examples = folder / "slide.png", folder / "slide_labels.png"
        self.lines: list[str] = []

    def draw(self, seed: int = 3) -> Slide:
        """Write the files."""
        grey = scene(1300, 100, seed=seed)[..., 0]
        from scipy import ndimage

        labels, _ = ndimage.label(grey > 100)
        Image.fromarray(grey).save(self.image)
        Image.fromarray(np.where(labels <= 2, labels, 0).astype(np.uint8)).save(self.examples)
        return self

    def work(
        self,
        name: str,
        scheduler: Any = None,
        settings: Settings = SETTINGS,
        display: Lines | None = None,
        *,
        stop_before: int | None = None,
        stop_joining: bool = False,
        trouble: type[BaseException] = KeyboardInterrupt,
        pause: float = 0.0,
    ) -> Summary:
        """Do the job, with some trouble before a block is searched, counted from 0, or before they are joined."""

        def on_find(number: int) -> None:
            if number - 1 == stop_before:
                raise trouble("stopped")

        def on_join(frame: FrameReader) -> None:
            if stop_joining:
                raise trouble("stopped")

        self.make = BrightMaker({**BRIGHT, "on_find": on_find, "pause": pause}, on_join=on_join)
        request = Request(images=[self.image], examples=self.examples, out=self.folder / name, settings=settings)
        display = display or Lines()
        self.lines = display.lines
        return run(request, display, self.make, scheduler)

    @property
    def searched(self) -> int:
        """How many blocks the last run has searched, here and on workers."""
        return sum(segmenter.bright.searched for segmenter in self.make.made)

    def blocks(self, name: str) -> list[Path]:
        """The files of finished blocks."""
        return sorted((self.folder / name).glob(".frames/blocks/*/*.npz"))

    def content(self, name: str) -> dict[str, bytes]:
        """All results that hold no time."""
        out = self.folder / name
        return {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file() and path.name not in ("run.json", "inputs.json", "report.html") and path.suffix != ".npz"
        }


if __name__ == "__main__":
    Slide(Path(sys.argv[1])).work(sys.argv[2], pause=float(sys.argv[3]))
