"""Draw ``images/method-*.jpg``, a picture of each stage on the bundled sample: ``python docs/generate_stages.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.backbones import open_backbone
from sam2_fewshot.geometry.outlines import crop_to_object, mask_to_polygon
from sam2_fewshot.methods.base import Stopwatch
from sam2_fewshot.methods.guided.box_refinement import REFINEMENT, non_overlapping
from sam2_fewshot.methods.guided.model import GuidedModel
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.sample import sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, InstanceMask

FOLDER = Path(__file__).with_name("images")
CROP: Box = (0, 0, 320, 240)
SCALE = 2
YELLOW, GREEN, RED, BLUE = (255, 210, 0), (60, 220, 90), (240, 70, 60), (80, 160, 255)


def grey(plane: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Render a map (H, W) as RGB, black at the one value and white at the other."""
    levels = ((plane - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


class Picture:
    """A part of the sample, enlarged, with outlines on it."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        size = (SCALE * (CROP[2] - CROP[0]), SCALE * (CROP[3] - CROP[1]))
        self.image = Image.fromarray(pixels).crop(CROP).resize(size, Image.Resampling.BICUBIC)
        self.draw = ImageDraw.Draw(self.image)

    def outline(self, masks: Iterable[InstanceMask], colour: tuple[int, int, int], width: int = 2) -> Picture:
        """Draw the outlines of masks."""
        for mask in masks:
            polygon = mask_to_polygon(mask)
            points = (np.asarray(polygon.exterior.coords) - CROP[:2]) * SCALE
            self.draw.line([tuple(point) for point in points], fill=colour, width=width)
        return self

    def boxes(self, boxes: Iterable[Sequence[float]], colour: tuple[int, int, int], width: int = 1) -> Picture:
        """Draw boxes ``(x0, y0, x1, y1)``."""
        for box in boxes:
            corners = ((np.asarray(box).reshape(2, 2) - CROP[:2]) * SCALE).ravel().tolist()
            self.draw.rectangle(corners, outline=colour, width=width)
        return self

    def save(self, name: str) -> None:
        """Write it."""
        self.image.save(FOLDER / f"method-{name}.jpg", quality=88)


def main() -> None:
    """Search the sample, and draw each stage."""
    files = sample()
    pixels = np.asarray(Image.open(files.image).convert("RGB"))
    labels = np.asarray(Image.open(files.examples))
    examples = [crop_to_object(labels == number) for number in np.unique(labels) if number]
    backbone = open_backbone("micro", "cpu", Settings())
    segmenter = FewShotSegmenter(backbone).fit([Exemplar(image=pixels, mask=mask.full()) for mask in examples])
    learned = GuidedModel.from_arrays(segmenter.object_model.learned)

    found = learned.candidates(backbone, pixels, Quiet(), Stopwatch())
    grid, (masks, odds, features) = found.frame.grid, found.likely
    prompted = int((features[:, -1] == 0).sum())  # the refined masks come last
    candidates = found.proposed[: len(found.proposed) - (len(masks) - prompted)]
    first = learned.first.log_odds(features[:prompted, :-REFINEMENT])
    likely = [masks[i] for i in non_overlapping(masks[:prompted], first) if first[i] > 0]
    detections = [masks[i] for i in non_overlapping(masks, odds, examples) if odds[i] > 0]

    bright = (255 * (pixels / 255) ** 0.5).astype(np.uint8)  # the sample is dark
    step = [(x + grid.side // 16, y + grid.side // 16) for x, y, _, _ in grid.windows()]
    cores = [(x, y, x + grid.core, y + grid.core) for x, y in step]
    Picture(bright).boxes(cores, BLUE).outline(examples, YELLOW).save("1-scale")
    Picture(grey(found.frame.maps.score, -0.5, 1.5)).outline(examples, YELLOW).save("2-map")
    Picture(bright).outline(candidates, RED, 1).save("3-candidates")
    Picture(bright).outline(likely, GREEN, 1).save("4-first-look")
    Picture(bright).boxes((mask.box for mask in masks[:prompted]), BLUE).save("5-prompts")
    Picture(bright).outline(detections, GREEN).outline(examples, YELLOW).save("6-found")


if __name__ == "__main__":
    main()
