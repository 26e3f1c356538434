"""What the report shows, gathered from an output folder in one pass."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.report.advice import FrameFigures, Overview, overview
from sam2_fewshot.report.outlines import UNITS, encode_outlines
from sam2_fewshot.writers.names import printable
from sam2_fewshot.writers.overlay import color_of
from sam2_fewshot.writers.preview import LONGEST, smaller

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sam2_fewshot.writers.finished import Finished
    from sam2_fewshot.writers.record import FrameRecord

_COLOURS = 16
_PICTURE_BYTES = 40_000_000
"""All pictures together; of more, each is shrunk, so that a browser can open the page of a thousand frames."""
_SMALLEST = 256


@dataclass(frozen=True)
class Content:
    """What the page is made of.

    Parameters
    ----------
    overview
        The summary.
    frames
        For each frame a dict of plain values: ``name``, ``xy``, ``z``, ``time``, ``width``, ``height``, ``scale``
        (pixels of the picture for each of the image), ``kept`` and ``below`` (numbers of objects), ``examples`` and
        ``negatives``.
    data
        The same and all that the script needs, for JSON.
    blocks
        Texts in base 64: ``scores`` (float64, little endian), ``areas`` (uint32), ``outlines`` and ``marks``
        (:func:`~sam2_fewshot.report.outlines.encode_outlines`), frame by frame, the kept ones first.
    pictures
        JPEG of each frame in base 64, empty where there is none.
    """

    overview: Overview
    frames: list[dict[str, Any]]
    data: dict[str, Any]
    blocks: dict[str, str]
    pictures: list[str]


def _threshold(finished: Finished, settings: Mapping[str, Any]) -> float:
    """Return the threshold that was set, or the lowest of those that were chosen for the frames."""
    if settings.get("threshold_mode", "fixed") == "fixed":
        return float(settings["similarity_threshold"])
    return min((record.threshold for record in finished.records()), default=float(settings["similarity_threshold"]))


def gather(finished: Finished) -> Content:
    """Read the finished frames.

    Raises
    ------
    InputError
        If one is missing.
    """
    settings: dict[str, Any] = dict(finished.facts["settings"])
    threshold = _threshold(finished, settings)
    frames, figures, pictures = [], [], []
    parts: dict[str, list[bytes]] = {"scores": [], "areas": [], "outlines": [], "marks": []}
    floor, example_areas = threshold, list[int]()
    shrink = _shrinking(finished)
    for record in finished.records():
        found = (*record.detections, *record.below)
        scores = np.array([item.score for item in found], "<f8")
        areas = np.array([item.area for item in found], "<u4")
        kept = len(record.detections)
        scale = min(1.0, LONGEST / max(record.frame_shape))
        parts["scores"].append(scores.tobytes())
        parts["areas"].append(areas.tobytes())
        parts["outlines"].append(encode_outlines([item.polygon for item in found], scale))
        parts["marks"].append(encode_outlines([mark.outline for mark in record.examples], scale))
        frame = _frame(record, scale)
        frames.append(frame)
        figures.append(
            FrameFigures(
                name=frame["name"],
                scores=scores[:kept],
                below=scores[kept:],
                areas=areas[:kept].astype(np.int64),
                examples=frame["examples"],
                negatives=frame["negatives"],
            )
        )
        pictures.append(_picture(finished.preview(record), shrink))
        # What is shown may reach further down than it is complete.
        floor = min(floor, record.floor, *scores.tolist())
        shown = [mark.outline.area for mark in record.examples if not mark.negative]
        example_areas += [round(area) for area in shown if area]
    summary = overview(figures, threshold)
    data = {
        "id": _run_id(finished),
        "results": str(finished.out.absolute()),
        "threshold": threshold,
        "minArea": int(settings["min_mask_area"]),
        "maxArea": int(settings["max_mask_area"]),
        "range": _range(figures, threshold),
        "floor": floor,
        "margin": summary.margin,
        "units": UNITS,
        "colours": [color_of(step / (_COLOURS - 1)) for step in range(_COLOURS)],
        "exampleAreas": [min(example_areas), max(example_areas)] if example_areas else [],
        "frames": frames,
    }
    blocks = {name: base64.b64encode(b"".join(pieces)).decode() for name, pieces in parts.items()}
    return Content(summary, frames, data, blocks, pictures)


def _frame(record: FrameRecord, scale: float) -> dict[str, Any]:
    height, width = record.frame_shape
    name = printable(record.name)
    if record.size_z > 1:
        name += f" Z {record.location.z + 1}"
    if record.size_t > 1:
        name += f" Time {record.location.time + 1}"
    return {
        "name": name,
        "image": printable(record.name),
        "xy": record.location.xy,
        "z": record.location.z,
        "time": record.location.time,
        "width": width,
        "height": height,
        "scale": scale,
        "kept": len(record.detections),
        "below": len(record.below),
        "marks": [mark.negative for mark in record.examples],
        "examples": sum(not mark.negative for mark in record.examples),
        "negatives": sum(mark.negative for mark in record.examples),
    }


def _range(frames: list[FrameFigures], threshold: float) -> tuple[float, float]:
    """Return the scores between which the slider moves, with the threshold between them."""
    scores = np.concatenate(
        [np.array([threshold]), *(part for frame in frames for part in (frame.scores, frame.below))]
    )
    low, high = float(scores.min()), float(scores.max())
    step = 0.01 if high - low > 0.3 else 0.001
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    return round(float(low), 3), round(float(max(high, low + step)), 3)


def _shrinking(finished: Finished) -> float:
    """Return by how much the sides of all pictures are to be shrunk."""
    total = sum(path.stat().st_size for path in finished.previews if path.is_file())
    return min(1.0, math.sqrt(_PICTURE_BYTES / total)) if total else 1.0


def _picture(path: Path, shrink: float) -> str:
    try:
        data = path.read_bytes()
    except OSError:
        return ""  # the outlines are shown on an empty ground
    return base64.b64encode(data if shrink == 1.0 else smaller(data, shrink, _SMALLEST)).decode()


def _run_id(finished: Finished) -> str:
    facts = finished.facts
    named = f"{facts.get('begun')}/{facts.get('ended')}/{facts.get('objects')}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]
