"""How much what is found in a large frame depends on where the borders of its blocks lie.

    python benchmarks/shift.py --data DIR [--side 1536] [--images NAME ...] [--out FILE]

`DIR` holds real images in folders, each with a label image ``NAME_labels.png`` beside it. One image of each kind is
continued by its mirror images to a square, and searched in the smallest blocks that the examples' size allows: once,
and with the grid of blocks moved by one tile to the right, down, and both. An object counts as changed when the other
search has none of an IoU of .8 with it. Ten objects of the image are the examples.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sam2_fewshot import Exemplar, FewShotSegmenter, FewShotWarning, Frame, Settings
from sam2_fewshot.backbones.sam2 import open_model
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.geometry.overlap import mask_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.records import Detection

KINDS = ("fluo_520x696", "fluo_603x1272", "tissue_512x640", "hist_purple", "fluo_360x360", "torrey", "sem", "set46")
EXAMPLES = 10
SAME = 0.8
SMALLEST = 0.5
"""GB; less than the program itself takes, so that blocks are as small as they may be."""


def continued(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Continue an image by its mirror images to a square, or cut it."""
    beyond = [(0, max(0, side - length)) for length in image.shape[:2]]
    return np.pad(image, [*beyond, *[(0, 0)] * (image.ndim - 2)], mode="symmetric")[:side, :side]


def changed(found: Sequence[Detection], other: Sequence[Detection]) -> int:
    """Count objects without a like one in the other search."""
    boxes = np.array([item.instance.box for item in other]).reshape(-1, 4)
    count = 0
    for item in found:
        x0, y0, x1, y1 = item.instance.box
        near = (boxes[:, 0] < x1) & (x0 < boxes[:, 2]) & (boxes[:, 1] < y1) & (y0 < boxes[:, 3])
        count += all(mask_iou(item.instance, other[i].instance) < SAME for i in np.flatnonzero(near))
    return count


def measured(backbone: Backbone, path: Path, side: int) -> dict[str, Any]:
    """Search an image in four grids of blocks; return how many objects changed."""
    image = np.asarray(Image.open(path.with_name(path.name.replace("_labels", ""))))
    labels = np.asarray(Image.open(path))
    masks = [crop_to_object(labels == number) for number in np.unique(labels) if number]
    whole = [m for m in masks if min(m.box[:2]) > 0 and m.box[2] < labels.shape[1] and m.box[3] < labels.shape[0]]
    chosen = [whole[i] for i in np.random.default_rng(0).permutation(len(whole))[:EXAMPLES]]
    settings = Settings(min_mask_area=10)
    learner = FewShotSegmenter(backbone, settings=settings)
    learner.fit([Exemplar(image=image, mask=mask.full()) for mask in chosen])
    segmenter = FewShotSegmenter(backbone, settings=settings.changed({"max_memory": SMALLEST}))
    segmenter.adopt(learner.object_model)
    frame = Frame(continued(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2), side)[..., :3])
    results, blocks = [], 0
    for shift in ((0, 0), (1, 0), (0, 1), (1, 1)):
        plan = segmenter.plan(frame, shift)
        blocks = max(blocks, len(plan.blocks))
        result = segmenter.join(frame, plan, [segmenter.search(frame, plan, block) for block in plan.blocks])
        results.append(list(result.detections))
    objects = [len(found) for found in results]
    moved = [changed(results[0], other) + changed(other, results[0]) for other in results[1:]]
    return {
        "image": path.name.replace("_labels.png", ""),
        "blocks": blocks,
        "objects": objects,
        "changed": moved,
        "share": sum(moved) / max(1, sum(objects[0] + count for count in objects[1:])),
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--side", type=int, default=1536)
    parser.add_argument("--images", nargs="+", default=KINDS, help="how the names of the images begin; %(default)s")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FewShotWarning)  # that the blocks are larger than the memory
    backbone = open_model("micro", "cpu", Settings())
    found = sorted(arguments.data.rglob("*_labels.png"))
    rows = []
    for kind in arguments.images:
        for path in [path for path in found if path.name.startswith(kind)][:1]:
            rows.append(measured(backbone, path, arguments.side))
            print(rows[-1], flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
