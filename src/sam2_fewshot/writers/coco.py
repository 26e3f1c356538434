"""``coco.json``: all objects with their exact masks and scores, for training and evaluation programs.

Masks are compressed run-length codes (https://cocodataset.org/#format-data), boxes ``x, y, width, height``, and the
first tag is the category. Three things are added that other programs pass over: an object's ``outline`` (``x, y, x, y,
…``, as in the other files), all its ``tags`` where it has several, and ``z`` and ``time`` (from 0) of an image that is
one plane of a file.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.rle import compress, encode
from sam2_fewshot.writers.names import printable
from sam2_fewshot.writers.whole import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sam2_fewshot.records import Detection
    from sam2_fewshot.writers.record import Add, FrameRecord

_NO_TAG = "object"


@contextmanager
def coco_file(path: Path, tags: Sequence[str]) -> Iterator[Add]:
    """Write one COCO file for all frames; each frame is an image of it.

    Objects marked by a point are left out, since COCO has no place for them.

    Parameters
    ----------
    path
        The file to write.
    tags
        Tags of every object, where the record does not have its own.

    Yields
    ------
    Add
        Takes the frames.
    """
    images: list[dict[str, object]] = []
    categories: dict[str, int] = {}
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"info": {"description": "Objects found or converted by sam2-fewshot"},\n"annotations": [')

        def add(record: FrameRecord) -> None:
            nonlocal count
            images.append(_image(record, len(images) + 1))
            with telling(path):
                for number, item in enumerate(record.detections, start=1):
                    own = [printable(tag) for tag in record.tags_of(number, tags)] or [_NO_TAG]
                    category = categories.setdefault(own[0], len(categories) + 1)
                    count += 1
                    entry = {"id": count, "image_id": len(images), "category_id": category, **_annotation(item)}
                    if len(own) > 1:
                        entry["tags"] = own
                    file.write(",\n" if count > 1 else "\n")
                    file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False))

        yield add
        listed = [{"id": key, "name": name} for name, key in categories.items()]
        file.write(f'],\n"images": {json.dumps(images, ensure_ascii=False)},\n')
        file.write(f'"categories": {json.dumps(listed, ensure_ascii=False)}}}\n')


def _image(record: FrameRecord, key: int) -> dict[str, object]:
    height, width = record.frame_shape
    image: dict[str, object] = {"id": key, "file_name": printable(record.name), "width": width, "height": height}
    if record.size_z * record.size_t > 1:
        image |= {"z": int(record.location.z), "time": int(record.location.time)}
    return image


def _annotation(item: Detection) -> dict[str, object]:
    x0, y0, x1, y1 = (int(n) for n in item.bbox)
    figures = {"score": item.score, "similarity": item.similarity, "predicted_iou": item.predicted_iou}
    return {
        "segmentation": {"size": list(item.instance.frame_shape), "counts": compress(encode(item.instance))},
        "area": item.area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
        **{name: float(value) for name, value in figures.items() if np.isfinite(value)},
        "outline": np.asarray(item.polygon.exterior.coords)[:-1, :2].ravel().tolist(),
    }
