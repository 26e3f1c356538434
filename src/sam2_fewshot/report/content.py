"""What the report displays, gathered from an output folder; the outlines encoded in few bytes."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from sam2_fewshot.errors import command_line
from sam2_fewshot.output.pictures import FLAT, LONGEST, color_of, made_from_marks, read_preview, smaller
from sam2_fewshot.records import Kind
from sam2_fewshot.report.advice import FrameFigures, Overview, overview
from sam2_fewshot.report.looks import looks_of
from sam2_fewshot.settings import SIMILAR_AREAS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from shapely import Point, Polygon

    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.output.finished import Finished

_COLOURS = 16
_PICTURE_BYTES = 40_000_000
"""All pictures together, so that a browser can open the page of a thousand frames."""
_SMALLEST = 256
UNITS = 4
"""Units in which outlines are encoded, to a pixel of the picture."""
_TOLERANCE = 0.2
"""px of the picture; vertices nearer to the outline than this cannot be seen, and are left out."""


@dataclass(frozen=True)
class Content:
    """What the page is made of.

    Parameters
    ----------
    overview
        The summary.
    frames
        For each frame a dict of plain values: ``name``, ``xy``, ``z``, ``time``, ``width``, ``height``, ``scale``
        (pixels of the picture for each of the image), ``kept``, ``below``, ``confirmed`` and ``marked`` (numbers of
        objects; those that are marked are not among the others), ``counts`` (the same in words), ``examples``,
        ``negatives`` and ``threshold``.
    data
        The same and all that the script needs, for JSON.
    blocks
        Texts in base 64: ``scores`` (float64, little endian), ``areas`` (uint32), ``outlines`` and ``marks``
        (:func:`encode_outlines`), frame by frame, the detections first; after the marks what was made of boxes and
        points.
    pictures
        JPEG of each frame in base 64, empty where there is none.
    """

    overview: Overview
    frames: list[dict[str, Any]]
    data: dict[str, Any]
    blocks: dict[str, str]
    pictures: list[str]


def gather(finished: Finished, picture_bytes: int = _PICTURE_BYTES, smallest: int = _SMALLEST) -> Content:
    """Read the finished frames.

    Parameters
    ----------
    finished
        The results.
    picture_bytes
        All pictures together may take so many; of more, each is shrunk.
    smallest
        px that the longer side of a shrunk picture has at least.

    Raises
    ------
    InputError
        If one is missing.
    """
    settings: dict[str, Any] = dict(finished.facts["settings"])
    is_fixed = settings.get("threshold_mode", "fixed") == "fixed"
    set_threshold = float(settings["similarity_threshold"])
    frames, figures, pictures = [], [], []
    parts: dict[str, list[bytes]] = {"scores": [], "areas": [], "outlines": [], "marks": []}
    floors, complete, example_areas, sizes = list[float](), 0.0, list[int](), list[int]()
    shrink = _shrinking(finished, picture_bytes)
    for record in finished.records():
        # The examples are displayed as what they are: neither the threshold nor a verdict applies to them.
        kept = [item for item in record.detections if item.kind != Kind.EXAMPLE]
        examples = [item for item in record.detections if item.kind == Kind.EXAMPLE]
        made = made_from_marks(examples, record.examples)
        found = (*kept, *record.below)
        scores = np.array([item.score for item in found], "<f8")
        areas = np.array([item.area for item in found], "<u4")
        confirmed, count = record.counts.confirmed, len(kept)
        scale = min(1.0, LONGEST / max(record.frame_shape))
        parts["scores"].append(scores.tobytes())
        parts["areas"].append(areas.tobytes())
        parts["outlines"].append(encode_outlines([item.polygon for item in found], scale))
        parts["marks"].append(encode_outlines([*(mark.outline for mark in record.examples), *made], scale))
        threshold = set_threshold if is_fixed else record.threshold
        frame = {**_frame(record, scale, len(made)), "threshold": threshold}
        frames.append(frame)
        # Of what a box or a point marks, the outline that was made of it; older results have the marks alone.
        outlines = [item.polygon for item in examples] or [
            mark.outline for mark in record.examples if mark.is_object and not mark.negative
        ]
        picture = finished.preview(record) if outlines else None
        figures.append(
            FrameFigures(
                name=frame["name"],
                scores=scores[confirmed:count],
                below=scores[count:],
                threshold=threshold,
                areas=areas[confirmed:count].astype(np.int64),
                examples=frame["examples"],
                negatives=frame["negatives"],
                counts=record.counts,
                candidates=record.candidates,
                flat=any(sentence.endswith(FLAT) for sentence in record.warnings),
                example_looks=looks_of(outlines, picture, scale),
                below_looks=looks_of([item.polygon for item in record.below], picture, scale),
            )
        )
        pictures.append(_picture(finished.preview(record), shrink, smallest))
        # What is shown may reach further down than it is complete.
        floors += [threshold, record.floor, *scores.tolist()]
        complete = max(complete, record.floor)
        example_areas += [item.area for item in examples] or [round(outline.area) for outline in outlines]
        sizes += [item.area for item in found if not item.is_marked]
    asked = _mark_next(finished, frames)
    lowest = min((each.threshold for each in figures), default=set_threshold)
    summary = overview(figures, len(asked))
    data = {
        "id": _run_id(finished),
        "results": str(finished.out.absolute()),
        **_address(finished.out.absolute(), Path.cwd()),
        "objectModel": bool(finished.facts.get("object_model")),
        "threshold": lowest,
        "fixed": is_fixed,
        "candidates": sum(frame["kept"] + frame["below"] for frame in frames),
        **_limits(settings, sizes),
        "range": _range(figures, lowest),
        "floor": min(floors, default=lowest),
        "complete": complete,
        "margin": summary.margin,
        "units": UNITS,
        "colours": [color_of(step / (_COLOURS - 1)) for step in range(_COLOURS)],
        "exampleAreas": [min(example_areas), max(example_areas)] if example_areas else [],
        "similarAreas": _similar(example_areas),
        "next": asked,
        "frames": frames,
    }
    blocks = {name: base64.b64encode(b"".join(pieces)).decode() for name, pieces in parts.items()}
    return Content(summary, frames, data, blocks, pictures)


def _mark_next(finished: Finished, frames: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the places to mark next that ``run.json`` lists, each as the object's number among all, from 0."""
    objects: dict[tuple[int, int, int], range] = {}
    begun = 0
    for frame in frames:
        number = frame["kept"] + frame["below"]
        objects[frame["xy"] + 1, frame["z"] + 1, frame["time"] + 1] = range(begun, begun + number)
        begun += number
    asked: list[int] = []
    for place in finished.facts.get("mark_next", ()):
        here = objects.get((place["xy"], place["z"], place["time"]), range(0))
        asked += here[place["number"] - 1 : place["number"]] if place["number"] > 0 else []
    return asked


def _address(out: Path, here: Path) -> dict[str, str]:
    """Return the folder as it is typed in a command, ``folder``, and the folder ``where`` the command is to be run.

    Below the folder in which the run was started the name is enough, as the user gave it; elsewhere it is whole.
    """
    if out != here and out.is_relative_to(here):
        return {"folder": command_line([str(out.relative_to(here))]), "where": str(here)}
    return {"folder": command_line([str(out)]), "where": ""}


def _limits(settings: Mapping[str, Any], sizes: Sequence[int]) -> dict[str, int]:
    """Return the smallest and the largest area of the run in pixels, a largest of 0 for no limit.

    A run goes beyond the settings where they would exclude an example, and the page begins with all sizes that were
    found, also below the threshold.
    """
    low, high = int(settings["min_mask_area"]), int(settings["max_mask_area"])
    return {"minArea": min([low, *sizes]), "maxArea": max([high, *sizes]) if high else 0}


def _similar(example_areas: Sequence[int]) -> list[int]:
    """Return the smallest and the largest area in pixels that are like the examples'; nothing without examples."""
    if not example_areas:
        return []
    least, most = SIMILAR_AREAS
    return [math.floor(least * min(example_areas)), math.ceil(most * max(example_areas))]


def _frame(record: FrameRecord, scale: float, made: int = 0) -> dict[str, Any]:
    counts = record.counts
    height, width = record.frame_shape
    return {
        "name": record.frame_title,
        "image": record.title,
        "xy": record.location.xy,
        "z": record.location.z,
        "time": record.location.time,
        "width": width,
        "height": height,
        "scale": scale,
        "kept": counts.total - counts.marked,
        "below": len(record.below),
        "confirmed": counts.confirmed,
        "marked": counts.marked,
        "counts": str(counts),
        "marks": [*(mark.negative for mark in record.examples), *[False] * made],
        "made": made,
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


def _shrinking(finished: Finished, picture_bytes: int) -> float:
    """Return by how much the sides of all pictures are to be shrunk."""
    total = sum(path.stat().st_size for path in finished.previews if path.is_file())
    return min(1.0, math.sqrt(picture_bytes / total)) if total else 1.0


def _picture(path: Path, shrink: float, smallest: int) -> str:
    data = read_preview(path)  # without one the outlines are shown on an empty ground
    return base64.b64encode(smaller(data, shrink, smallest) if data and shrink < 1.0 else data).decode()


def _run_id(finished: Finished) -> str:
    facts = finished.facts
    named = f"{facts.get('begun')}/{facts.get('ended')}/{facts.get('objects')}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def encode_outlines(shapes: Sequence[Polygon | Point], scale: float) -> bytes:
    """Return outer rings, or points, as bytes.

    Parameters
    ----------
    shapes
        In image pixels ``(x, y)``. The vertex that closes a ring is not written.
    scale
        Pixels of the picture for each pixel of the image.
    """
    if not shapes:
        return b""
    rings = np.array([shape.exterior if hasattr(shape, "exterior") else shape for shape in shapes], object)
    simple = shapely.simplify(rings, _TOLERANCE / scale, preserve_topology=True)
    points, owner = shapely.get_coordinates(simple, return_index=True)
    ends = np.append(owner[1:] != owner[:-1], True)
    starts = np.append(True, ends[:-1])
    written = ~ends | starts  # a point is start and end at once
    points, starts = points[written], starts[written]
    counts = np.bincount(owner[written], minlength=len(shapes))
    whole = np.round(points * (scale * UNITS)).astype(np.int64)
    steps = np.diff(whole, axis=0, prepend=np.zeros((1, 2), np.int64))
    steps[starts] = whole[starts]
    zigzag = (steps << 1) ^ (steps >> 63)
    return _varints(np.insert(zigzag.ravel(), 2 * np.flatnonzero(starts), counts))


def _varints(values: NDArray[np.int64]) -> bytes:
    """Return numbers of at least 0, seven bits a byte, the lowest first."""
    lengths = 1 + np.sum([values >> bits > 0 for bits in range(7, 63, 7)], axis=0)
    starts = np.cumsum(lengths) - lengths
    out = np.zeros(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max())):
        more = lengths > place
        out[starts[more] + place] = (values[more] >> 7 * place & 127) | np.where(lengths[more] > place + 1, 128, 0)
    return out.tobytes()
