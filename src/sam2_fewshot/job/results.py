"""The output folder: what is finished already, one more frame, and the files put together at the end."""

from __future__ import annotations

import platform
import shutil
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from shapely import Point

from sam2_fewshot import __version__
from sam2_fewshot.geometry.outlines import crop_to_object, mask_to_polygon
from sam2_fewshot.job.again import CORRECTIONS, as_facts
from sam2_fewshot.job.fingerprint import common_part, frame_fingerprint, signature
from sam2_fewshot.model.building import sam2_distribution
from sam2_fewshot.model.registry import CHECKPOINTS
from sam2_fewshot.readers.corrections import corrections_json
from sam2_fewshot.records import Detection
from sam2_fewshot.report import write_report
from sam2_fewshot.writers.journal import JOURNAL_FOLDER, Journal
from sam2_fewshot.writers.names import safe_stems
from sam2_fewshot.writers.outputs import assemble
from sam2_fewshot.writers.overlay import overlay_path, write_overlay
from sam2_fewshot.writers.preview import write_preview
from sam2_fewshot.writers.record import ExampleMark, FrameRecord
from sam2_fewshot.writers.whole import replacing, sweep, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from shapely import Polygon

    from sam2_fewshot.job.display import Display
    from sam2_fewshot.job.engine import Engine, FrameStats
    from sam2_fewshot.job.plan import Plan
    from sam2_fewshot.protocols import FrameReader
    from sam2_fewshot.records import Exemplar, Location

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-image", "shapely")


class Results:
    """The results of one plan in its output folder.

    Parameters
    ----------
    plan
        What is asked for.
    engine
        Who looks for the objects; its model is part of what a result depends on.
    """

    def __init__(self, plan: Plan, engine: Engine) -> None:
        self._plan = plan
        self._engine = engine
        self._out = plan.request.out
        self._stems = safe_stems([image.stem for image in plan.images])
        self._journals = _journals(plan, engine, self._out / JOURNAL_FOLDER)
        self._begun = datetime.now(UTC)
        earlier = plan.request.earlier
        self._earlier = _journals(plan, engine, earlier / JOURNAL_FOLDER) if earlier else self._journals
        self._moved: set[Location] = set()
        self._finished = {frame.location for frame in plan.frames if self._look_up(frame.location)}
        self.found = self.candidates = 0
        self.assembled = False
        self.seconds: dict[str, float] = {}

    @property
    def done(self) -> int:
        """Number of finished frames."""
        return len(self._finished)

    def name(self, frame: FrameReader) -> str:
        """Return what to call a frame in messages: the file's name, with Z and Time where there are several."""
        image = self._plan.images[frame.location.xy]
        z = f" Z {frame.location.z + 1}" if image.size_z > 1 else ""
        time = f" Time {frame.location.time + 1}" if image.size_t > 1 else ""
        return image.path.name + z + time

    def have(self, frame: FrameReader) -> bool:
        """Tell whether a frame was finished by an earlier run that would give the same."""
        return frame.location in self._finished

    def open(self, display: Display) -> None:
        """Make the output folder, and tell what of an earlier run is kept.

        Raises
        ------
        InputError
            If the folder cannot be made or written.
        """
        with telling(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
        with replacing(self._out / JOURNAL_FOLDER / "writable") as trial:
            trial.touch()
        (self._out / JOURNAL_FOLDER / "writable").unlink(missing_ok=True)
        sweep(self._out / JOURNAL_FOLDER)
        for location in sorted(self._moved):
            self._take_over(location)
        if self._finished:
            kept, asked = len(self._finished), len(self._plan.frames)
            display.say(f"{kept} of {asked} frames are finished already and kept.")
        elif (self._out / "run.json").exists():
            display.say(f"{self._out} holds results of other settings or inputs; they are replaced.")

    def add(
        self,
        frame: FrameReader,
        pixels: NDArray[np.uint8],
        detections: Sequence[Detection],
        stats: FrameStats,
        warnings: Sequence[str],
    ) -> None:
        """Draw a finished frame's overlay and record the frame.

        Raises
        ------
        InputError
            If a file cannot be written.
        """
        image = self._plan.images[frame.location.xy]
        record = FrameRecord(
            name=image.path.name,
            stem=self._stems[frame.location.xy],
            location=frame.location,
            frame_shape=frame.shape,
            size_z=image.size_z,
            size_t=image.size_t,
            detections=(*self._confirmed(frame.location), *detections),
            candidates=stats.candidates,
            seconds=dict(stats.seconds),
            examples=tuple(_mark(item.exemplar) for item in self._plan.examples_on(frame.location)),
            warnings=tuple(warnings),
            below=tuple(stats.below),
            threshold=self._threshold,
            floor=stats.floor,
        )
        # The record comes last: it says that all of the frame is there.
        self._draw(record, pixels)
        self._journals[frame.location.xy].write(record)
        self._finished.add(frame.location)

    def put_together(self, seconds: Mapping[str, float], warnings: Sequence[str], failures: Sequence[str]) -> None:
        """Write all result files from the finished frames; without any, leave the folder as it was.

        Raises
        ------
        InputError
            If a file cannot be written.
        """
        if not self._finished:
            with suppress(OSError):
                (self._out / JOURNAL_FOLDER).rmdir()  # where it is empty, nothing was there before either
            return
        summary = assemble(
            self._counted(),
            self._out,
            tags=self._plan.request.output_tags,
            facts=self._facts(seconds, warnings, failures),
            asked=len(self._plan.frames),
        )
        if self._plan.corrections:
            with replacing(self._out / CORRECTIONS) as temporary:
                temporary.write_text(corrections_json(self._plan.corrections), "utf-8", newline="\n")
        else:
            with telling(self._out / CORRECTIONS):
                (self._out / CORRECTIONS).unlink(missing_ok=True)
        write_report(self._out)
        self.assembled, self.found, self.seconds = True, summary.objects, dict(summary.seconds)

    def records(self) -> Iterator[FrameRecord]:
        """Yield the finished frames in order, one at a time in memory."""
        for frame in self._plan.frames:
            record = self._record(frame.location) if self.have(frame) else None
            if record is not None:
                # Names are given anew: another file of the same name may have joined the images since.
                yield replace(record, stem=self._stems[frame.location.xy])

    @property
    def _threshold(self) -> float:
        return self._plan.request.settings.similarity_threshold

    def _record(self, location: Location) -> FrameRecord | None:
        return self._journals[location.xy].done(location)

    def _look_up(self, location: Location) -> FrameRecord | None:
        """Return what is known of a frame, here or in the earlier results, at the threshold asked for."""
        own = self._record(location)
        stored = own or self._earlier[location.xy].done(location)
        record = stored and stored.at(self._threshold)
        if record is not None and record is not own:
            self._moved.add(location)
        return record

    def _take_over(self, location: Location) -> None:
        """Record a frame anew at the threshold asked for; its overlay is drawn again later."""
        record = self._look_up(location)
        if record is None:  # somebody has removed it since
            self._finished.discard(location)
            return
        journal, source = self._journals[location.xy], self._earlier[location.xy].preview(location)
        if source != journal.preview(location) and source.exists():
            with replacing(journal.preview(location)) as temporary:
                shutil.copyfile(source, temporary)
        journal.write(record)
        stem = self._stems[location.xy]
        overlay_path(self._out, replace(record, stem=stem)).unlink(missing_ok=True)

    def _confirmed(self, location: Location) -> list[Detection]:
        """Return what the user has marked as right: it is learned from, so it is not found again."""
        return [
            Detection(
                instance=item.mask,
                polygon=mask_to_polygon(item.mask, self._plan.request.settings.smoothing),
                score=1.0,
                similarity=float("nan"),
                predicted_iou=float("nan"),
                location=location,
            )
            for item in self._plan.corrections
            if item.is_right and item.placed.location == location
        ]

    def _counted(self) -> Iterator[FrameRecord]:
        """Yield the finished frames in order, and draw what overlays are missing."""
        self.candidates = 0
        for record in self.records():
            self.candidates += record.candidates
            preview = self._journals[record.location.xy].preview(record.location)
            if not (overlay_path(self._out, record).exists() and preview.exists()):
                frame = self._plan.images.frame(record.location)
                self._draw(record, frame.read())
            yield record

    def _draw(self, record: FrameRecord, pixels: NDArray[np.uint8]) -> None:
        write_overlay(self._out, record, pixels, threshold=self._threshold)
        write_preview(self._journals[record.location.xy].preview(record.location), pixels)

    def _facts(
        self, seconds: Mapping[str, float], warnings: Sequence[str], failures: Sequence[str]
    ) -> dict[str, object]:
        request = self._plan.request
        return {
            "program": "sam2-fewshot",
            "versions": {"sam2-fewshot": __version__, "python": platform.python_version(), **_versions()},
            "platform": platform.platform(),
            "begun": self._begun.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": {
                "name": self._engine.model_name,
                "sha256": self._engine.model_sha256,
                "licence": _licence(self._engine.model_name),
            },
            "device": self._engine.device_name,
            "settings": request.settings.model_dump(mode="json"),
            "examples_path": request.examples,
            "channels_path": request.channels,
            "batch_xy": request.batch_xy,
            "batch_z": request.batch_z,
            "batch_time": request.batch_time,
            "training_tag": request.training_tag,
            "negative_tag": request.negative_tag,
            "examples": len(self._plan.examples),
            "corrections": len(self._plan.corrections),
            "request": as_facts(request, self._engine.model_name),
            "fingerprints": [journal.fingerprint for journal in self._journals],
            "seconds": dict(seconds),
            "warnings": list(warnings),
            "failures": list(failures),
        }


def _journals(plan: Plan, engine: Engine, folder: Path) -> list[Journal]:
    """Return the journal of each image: its frames depend on what all share, and on its file."""
    places = [
        (item.exemplar, [signature(plan.images[item.location.xy].path), item.location.z, item.location.time])
        for item in plan.shown
    ]
    channels = plan.request.channels
    shown = channels.read_text("utf-8") if channels else ""
    common = common_part(__version__, plan.request.settings, engine.model_sha256, places, {"channels": shown})
    return [Journal(folder, frame_fingerprint(common, image.path)) for image in plan.images]


def _mark(exemplar: Exemplar) -> ExampleMark:
    outline: Polygon | Point
    if exemplar.mask is not None:
        outline = mask_to_polygon(crop_to_object(exemplar.mask))
    else:
        outline = exemplar.polygon or Point(exemplar.point or (0, 0))
    return ExampleMark(outline, exemplar.negative)


def _licence(model: str) -> str:
    return next((known.licence for known in CHECKPOINTS if known.name == model), "unknown")


def _versions() -> dict[str, str]:
    # Several distributions hold the package sam2, and results should tell which one made them.
    found = {"sam2": sam2_distribution()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
