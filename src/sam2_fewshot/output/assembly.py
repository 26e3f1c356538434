"""All output files, assembled from the journal in one pass, and ``run.json``."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.mark_next import Asking
from sam2_fewshot.annotations.record import printable
from sam2_fewshot.annotations.registry import FORMATS
from sam2_fewshot.images.stems import safe_stem
from sam2_fewshot.output.finished import OVERLAYS, Finished, formats, overlay_path
from sam2_fewshot.records import Counts
from sam2_fewshot.storage.files import remove, sweep, telling, write_whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sam2_fewshot.annotations.mark_next import Suggestion
    from sam2_fewshot.annotations.record import FrameRecord


@dataclass(frozen=True, slots=True)
class Assembled:
    """What was assembled.

    Parameters
    ----------
    seconds
        Sum over the frames for each stage.
    counts
        Number of objects by kind.
    candidates
        Number of masks that were proposed.
    mark_next
        The places whose answer, right or wrong, would teach most.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    candidates: int = 0
    mark_next: Sequence[Suggestion] = ()


def assemble(
    records: Iterable[FrameRecord],
    out: Path,
    *,
    tags: Sequence[str] = ("object",),
    facts: Mapping[str, object] | None = None,
    asked: int | None = None,
    extra: Collection[str] = (),
    before: Iterable[Path] = (),
) -> Assembled:
    """Write the formats that every run has, those that are asked for, and ``run.json``.

    What earlier runs wrote there for other images is removed once the new files are in place, so that the folder
    holds results of one run. Each file appears under its name when it is whole, and ``run.json`` comes last. Where
    something fails, files that are not finished stay as they were before.

    Parameters
    ----------
    records
        The finished frames in order of location, no two images with the same stem; one is in memory at a time.
    out
        The output folder; it is made when it is missing.
    tags
        Tags of every object; the first is its class in QuPath.
    facts
        What to put first in ``run.json``: settings, model, versions and so on.
    asked
        How many frames the user asked for; as many as there are records when left out.
    extra
        Names of further formats to write, of :data:`~sam2_fewshot.annotations.registry.ON_REQUEST`.
    before
        Where files of earlier runs are, or may be.

    Returns
    -------
    Assembled
        Counts and times.

    Raises
    ------
    InputError
        If a file cannot be written (disk full, no permission).
    """
    frames: list[dict[str, object]] = []
    facts = facts or {}
    outside = facts.get("seconds", {})  # loading, learning
    seconds: dict[str, float] = defaultdict(float, outside if isinstance(outside, Mapping) else {})
    counts, candidates, asking = Counts(), 0, Asking()
    with ExitStack() as stack:
        writers = [stack.enter_context(form.begin(partial(form.path, out), tags)) for form in formats(extra)]
        for record in records:
            record = replace(record, stem=safe_stem(record.stem))  # one that leads elsewhere must not
            for add in writers:
                add(record)
            asking.add(record)
            counts += record.counts
            candidates += record.candidates
            for stage, time in record.seconds.items():
                seconds[stage] += time
            frames.append(_line(record))
    summary = Assembled(dict(seconds), counts, candidates, asking.places())
    counted = {
        "frames_done": len(frames),
        "frames_asked": len(frames) if asked is None else asked,
        **_counted(counts),
        "seconds": summary.seconds,
        "tags": list(tags),
        "written": sorted(extra),
        "mark_next": [place.facts() for place in summary.mark_next],
        "frames": frames,
    }
    write_whole(out / "run.json", run_content({**facts, **counted}))
    _discard(before, {file.path for file in Finished(out, counted).files()})
    # A format that a killed run wrote may not be asked for now.
    for folder in {out / OVERLAYS, *(form.path(out, "").parent for form in FORMATS.values())}:
        sweep(folder)
        with suppress(OSError):  # something is in it
            folder.rmdir()
    return summary


def _line(record: FrameRecord) -> dict[str, object]:
    """Return what ``run.json`` says about a frame; its place counts from 1, as in the CSV file."""
    size = record.pixel_size
    return {
        "image": record.name,
        "file": record.full_name,
        "position": record.position,
        "stem": record.stem,
        "overlay": overlay_path(Path(), record.stem, record.location, is_stack=record.is_stack).as_posix(),
        "xy": record.location.xy + 1,
        "z": record.location.z + 1,
        "time": record.location.time + 1,
        "height": record.frame_shape[0],
        "width": record.frame_shape[1],
        "pixel_size_um": None
        if size is None
        else [length for length in (size.x, size.y, size.z) if length is not None],
        "channels": list(record.channel_names),
        "candidates": record.candidates,
        **_counted(record.counts),
        "examples": len(record.examples),
        "seconds": dict(record.seconds),
        "warnings": list(record.warnings),
        "record": record.file,
    }


def _counted(counts: Counts) -> dict[str, object]:
    """Return the number of objects, and of those of each kind."""
    return {
        "objects": counts.total,
        "found": counts.found,
        "confirmed": counts.confirmed,
        "marked": counts.marked,
    }


def _discard(before: Iterable[Path], now: Iterable[Path]) -> None:
    """Delete results of images and formats that are no longer asked for."""
    present = {str(path).casefold(): path for path in now}
    for path in before:
        same = present.get(str(path).casefold())
        with telling(path), suppress(FileNotFoundError):
            # On Windows and macOS A.tif is a.tif; on other systems it is of an image that was called so before.
            if path != same and not (same and path.samefile(same)):
                remove(path)


def run_content(facts: Mapping[str, object]) -> bytes:
    """Return facts as JSON.

    Figures that are not finite become null, paths and dates become text, arrays and sets become lists.
    """
    text = json.dumps(plain(facts), ensure_ascii=False, allow_nan=False, indent=2)
    return f"{text}\n".encode()


def plain(value: Any) -> Any:
    """Return a value made of what JSON knows."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {printable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    return printable(str(value))
