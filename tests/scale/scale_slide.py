"""The whole job on one large frame that is searched in blocks; also run as a program, to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scale_job import Lines
from scale_scenes import BrightSegmenter, memory_for, scene

from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import Summary, run
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.tiling.search import SearchPlan

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.records import Detection, FrameReader
    from sam2_fewshot.tiling.blocks import Block, BlockFinds

SETTINGS = Settings(method="grid", similarity_threshold=0.61, max_memory=memory_for(150**2), cache_size=0)


class Stopping(BrightSegmenter):
    """Counts the blocks that it searches, and is stopped before one of them, or before they are joined."""

    stop_before = 10**6
    pause = 0.0
    searched = 0
    trouble: type[BaseException] = KeyboardInterrupt

    def search(self, frame: FrameReader, plan: SearchPlan, block: Block) -> BlockFinds:
        if self.searched == self.stop_before:
            raise self.trouble("stopped")
        self.searched += 1
        time.sleep(self.pause)
        return super().search(frame, plan, block)

    def join(self, frame: FrameReader, plan: SearchPlan, finds: Sequence[BlockFinds]) -> list[Detection]:
        if self.stop_before == len(finds):
            raise self.trouble("stopped")
        return super().join(frame, plan, finds)


class Slide:
    """A slide with two examples, and the job on it."""

    def __init__(self, folder: Path, model: Sam2Model) -> None:
        self.folder, self.model = folder, model
        self.image, self.examples = folder / "slide.png", folder / "slide_labels.png"
        self.lines: list[str] = []

    def draw(self, seed: int = 3) -> Slide:
        """Write the files."""
        grey = scene(300, 40, seed=seed)[..., 0]
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
        **ways: Any,
    ) -> Summary:
        """Do the job; `ways` are attributes of the segmenter."""
        request = Request(images=[self.image], examples=self.examples, out=self.folder / name, settings=settings)

        def make(request: Request, progress: Any) -> Stopping:
            self.segmenter = Stopping(self.model, 1, progress)
            self.segmenter.settings = request.settings
            for way, value in ways.items():
                setattr(self.segmenter, way, value)
            return self.segmenter

        display = display or Lines()
        self.lines = display.lines
        return run(request, display, make, scheduler)

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
    from sam2_fewshot.backbones.sam2 import open_model

    model = open_model("sam2.1_hiera_micro.pt", "cpu", Settings())
    Slide(Path(sys.argv[1]), model).work(sys.argv[2], pause=float(sys.argv[3]))
