"""The output folder: what is finished already, one more frame, and the files put together at the end."""

from __future__ import annotations

import platform
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from shapely import Point

from sam2_fewshot import __version__
from sam2_fewshot.geometry.outlines import crop_to_object, mask_to_polygon
from sam2_fewshot.job.fingerprint import common_part, examples_part, frame_fingerprint, signature
from sam2_fewshot.job.inputs import changes, forget, remember
from sam2_fewshot.job.lock import only_run, refuse_second_run
from sam2_fewshot.job.picture import png_of
from sam2_fewshot.model.building import sam2_distribution
from sam2_fewshot.writers.journal import JOURNAL_FOLDER, Journal, remove_others
from sam2_fewshot.writers.names import safe_stems
from sam2_fewshot.writers.outputs import assemble
from sam2_fewshot.writers.overlay import overlay_path
from sam2_fewshot.writers.record import ExampleMark, FrameRecord
from sam2_fewshot.writers.whole import replacing, sweep, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from shapely import Polygon

    from sam2_fewshot.job.display import Display
    from sam2_fewshot.job.engine import Engine
    from sam2_fewshot.job.plan import Plan
    from sam2_fewshot.job.work import Outcome
    from sam2_fewshot.protocols import FrameReader, Progress
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
        self._folder = self._out / JOURNAL_FOLDER
        refuse_second_run(self._folder)
        self._inputs, self._common, self._journals = _journals(plan, engine, self._folder)
        self._begun = datetime.now(UTC)
        self._renamed: set[Location] = set()
        self._finished = {frame.location for frame in plan.frames if self._record(frame.location)}
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

    @contextmanager
    def opened(self, display: Display, progress: Progress) -> Iterator[None]:
        """Make the output folder, keep other runs out of it, and tell what of an earlier run is kept and why not more.

        Raises
        ------
        InputError
            If the folder cannot be made or written, or another run is at work in it.
        """
        with telling(self._out):
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with only_run(self._folder, progress):
                self._begin(display)
                yield
        finally:
            if not self._finished:
                with suppress(OSError):
                    self._folder.rmdir()  # where it is empty, nothing was there before either

    def _begin(self, display: Display) -> None:
        with replacing(self._folder / "writable") as trial:
            trial.touch()
        (self._folder / "writable").unlink(missing_ok=True)
        sweep(self._folder)
        changed = changes(self._folder, self._inputs)
        if changed:
            display.say(f"Since the last run in {self._out}: {'; '.join(changed)}.")
        if self._finished:
            kept, asked = len(self._finished), len(self._plan.frames)
            display.say(f"{kept} of {asked} frames are finished already and kept.")
        elif (self._out / "run.json").exists():
            display.say(f"{self._out} holds results of other settings or inputs; they are replaced.")
        remember(self._folder, self._inputs)

    def add(self, outcome: Outcome) -> None:
        """Record a finished frame and its overlay.

        Raises
        ------
        InputError
            If a file cannot be written.
        """
        frame = outcome.frame
        image = self._plan.images[frame.location.xy]
        record = FrameRecord(
            name=image.path.name,
            stem=self._stems[frame.location.xy],
            location=frame.location,
            frame_shape=frame.shape,
            size_z=image.size_z,
            size_t=image.size_t,
            detections=tuple(outcome.detections),
            candidates=outcome.candidates,
            seconds=dict(outcome.seconds),
            examples=tuple(self.marks(frame.location)),
            warnings=tuple(outcome.warnings),
        )
        # The record comes last: it says that all of the frame is there.
        self._write_overlay(record, outcome.overlay)
        key = _key(frame.location)
        self._journals[frame.location.xy].write(replace(record, location=key))
        self._finished.add(frame.location)

    def marks(self, location: Location) -> list[ExampleMark]:
        """Return the examples on a frame, for drawing."""
        return [_mark(item.exemplar) for item in self._plan.examples_on(location)]

    def put_together(self, seconds: Mapping[str, float], warnings: Sequence[str], failures: Sequence[str]) -> None:
        """Write all result files from the finished frames; without any, leave the folder as it was.

        Raises
        ------
        InputError
            If a file cannot be written.
        """
        if not self._finished:
            forget(self._folder)
            return
        summary = assemble(
            self._counted(),
            self._out,
            tags=self._plan.request.output_tags,
            facts=self._facts(seconds, warnings, failures),
            asked=len(self._plan.frames),
        )
        self.assembled, self.found, self.seconds = True, summary.objects, dict(summary.seconds)
        if len(self._finished) == len(self._plan.frames):
            remove_others(self._folder, self._common)

    def records(self) -> Iterator[FrameRecord]:
        """Yield the finished frames in order, one at a time in memory."""
        for frame in self._plan.frames:
            record = self._record(frame.location) if self.have(frame) else None
            if record is not None:
                # Names are given anew: another file of the same name may have joined the images since.
                yield replace(record, stem=self._stems[frame.location.xy])

    def _record(self, location: Location) -> FrameRecord | None:
        record = self._journals[location.xy].done(_key(location))
        if record is None:
            return None
        if record.stem != self._stems[location.xy]:  # the overlay under its name may be that of another image
            self._renamed.add(location)
        # The image may have had another place in the list then, and its examples another order.
        detections = tuple(replace(item, location=location) for item in record.detections)
        return replace(record, location=location, detections=detections, examples=tuple(self.marks(location)))

    def _counted(self) -> Iterator[FrameRecord]:
        """Yield the finished frames in order, and draw what overlays are missing."""
        self.candidates = 0
        for record in self.records():
            self.candidates += record.candidates
            if not overlay_path(self._out, record).exists() or record.location in self._renamed:
                frame = self._plan.images.frame(record.location)
                self._write_overlay(record, png_of(frame, record.detections, record.examples, self._threshold)[0])
                self._journals[record.location.xy].write(replace(record, location=_key(record.location)))
            yield record

    @property
    def _threshold(self) -> float:
        return self._plan.request.settings.similarity_threshold

    def _write_overlay(self, record: FrameRecord, png: bytes) -> None:
        with replacing(overlay_path(self._out, record)) as path:
            path.write_bytes(png)

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
            "model": {"name": self._engine.model_name, "sha256": self._engine.model_sha256},
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
            "seconds": dict(seconds),
            "warnings": list(warnings),
            "failures": list(failures),
        }


def _journals(plan: Plan, engine: Engine, folder: Path) -> tuple[dict[str, object], str, list[Journal]]:
    """Return what the results are made from, that in a string, and the journal of each image."""
    marked = {item.location.xy: signature(plan.images[item.location.xy].path) for item in plan.examples}
    places = [
        (item.exemplar, [marked[item.location.xy], item.location.z, item.location.time]) for item in plan.examples
    ]
    channels = plan.request.channels
    shown = channels.read_text("utf-8") if channels else ""
    settings = plan.request.settings
    common = common_part(__version__, settings, engine.model_sha256, places, {"channels": shown})
    inputs: dict[str, object] = {
        "settings": settings.model_dump(mode="json"),
        "version": __version__,
        "model": engine.model_sha256,
        "examples": examples_part(places),
        "channels": shown,
    }
    return inputs, common, [Journal(folder, frame_fingerprint(common, image.path)) for image in plan.images]


def _key(location: Location) -> Location:
    """Return by which place a frame is kept: that in its file, whatever the file's position in the list."""
    return replace(location, xy=0)


def _mark(exemplar: Exemplar) -> ExampleMark:
    outline: Polygon | Point
    if exemplar.mask is not None:
        outline = mask_to_polygon(crop_to_object(exemplar.mask))
    else:
        outline = exemplar.polygon or Point(exemplar.point or (0, 0))
    return ExampleMark(outline, exemplar.negative)


def _versions() -> dict[str, str]:
    # Several distributions hold the package sam2, and results should tell which one made them.
    found = {"sam2": sam2_distribution()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
