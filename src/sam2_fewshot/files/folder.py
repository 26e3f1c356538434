"""The output folder of a run: which frames are finished, what is written for each, and the files at the end."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING

from shapely import Point, box

from sam2_fewshot.annotations.mark_next import asked_about
from sam2_fewshot.annotations.record import ExampleMark, FrameRecord
from sam2_fewshot.errors import FewShotError, InputError
from sam2_fewshot.files.corrections import CORRECTIONS, MARK_NEXT, corrections_json, mark_next_json
from sam2_fewshot.files.facts import facts_of
from sam2_fewshot.files.finish import CHOSEN, FrameFinish, drawing_of
from sam2_fewshot.files.made_from import display_text, made_from, taken_from
from sam2_fewshot.files.results import earlier_results, result_files, to_note
from sam2_fewshot.geometry.outlines import crop_to_object, largest_part, mask_to_polygon
from sam2_fewshot.methods.selection import marked
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.output.finished import lost_record, overlay_path, results_in
from sam2_fewshot.output.journal import (
    JOURNAL_FOLDER,
    BlockFolder,
    Journal,
    has_blocks,
    remove_other_blocks,
    remove_others,
)
from sam2_fewshot.output.notes import read_notes
from sam2_fewshot.output.pictures import drawn_of, pictures_of, read_preview
from sam2_fewshot.records import Kind
from sam2_fewshot.rendering.contrast import displayed_as, exposures_of
from sam2_fewshot.report.page import write_report
from sam2_fewshot.runner.blocks import StoredBlocks
from sam2_fewshot.runner.tasks import CannotGoOn, Failure, Task
from sam2_fewshot.storage.files import replacing, telling, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from shapely import Polygon

    from sam2_fewshot.annotations.mark_next import Suggestion
    from sam2_fewshot.files.plan import Plan
    from sam2_fewshot.output.assembly import Assembled
    from sam2_fewshot.records import Detection, Exemplar, FrameReader, Learned, Location
    from sam2_fewshot.rendering.contrast import Exposures
    from sam2_fewshot.runner.progress import Watch
    from sam2_fewshot.runner.tasks import Progressed, TaskResult
    from sam2_fewshot.segmenter import FewShotSegmenter

    _Read = Callable[[Journal, Location], FrameRecord | None]


class OutputFolder:
    """The results of one plan in its output folder; the :class:`~sam2_fewshot.runner.tasks.Sink` of a run on files.

    What is finished is looked up here, so whoever makes one keeps other runs out of the folder from then to the end.

    Parameters
    ----------
    plan
        What is asked for.
    segmenter
        Its model is part of what a result depends on.
    watch
        Reports what of an earlier run is taken over, and why not more.
    """

    def __init__(self, plan: Plan, segmenter: FewShotSegmenter, watch: Watch) -> None:
        self._plan = plan
        self._segmenter = segmenter
        self._watch = watch
        self._out = plan.request.out
        self._folder = self._out / JOURNAL_FOLDER
        self._inputs, self._given, self._common, prints = made_from(plan, segmenter)
        earlier = plan.request.earlier or self._out
        self._earlier = earlier / JOURNAL_FOLDER
        self._journals = [Journal(self._folder, each) for each in prints]
        others = [prints, *taken_from(plan, segmenter, earlier)]
        others = others[1:] if self._earlier == self._folder else others
        self._sources = [self._journals, *([Journal(self._earlier, each) for each in some] for some in others)]
        self._begun = datetime.now(UTC)
        self._moved: set[Location] = set()
        self._learned: Learned | None = None
        self._marks = cache(self._marked_on)  # outlines are traced once, however often a frame is looked up
        self._finished = {frame.location for frame in plan.frames if self._is_recorded(frame)}
        self.assembled: Assembled | None = None
        """What the result files are put together from, known at the end."""

    @property
    def done(self) -> int:
        """Number of finished frames."""
        return len(self._finished)

    def has(self, frame: FrameReader) -> bool:
        """Return whether a frame was finished by an earlier run with the same result."""
        return frame.location in self._finished

    def learned(self, segmenter: FewShotSegmenter) -> None:
        """Save what was learned, where that is asked for.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        path = self._plan.request.save_model
        if path is not None:
            segmenter.save(path, display_text(self._plan.request))
            self._watch.say(f"What was learned is saved in {path}; use it with --object-model.")

    def task(self, frame: FrameReader, name: str) -> Task:
        """Return the frame's task."""
        location = frame.location
        store = StoredBlocks(self._blocks(location), name, frame.shape, self._threshold, self._watch)
        draw = FrameFinish(
            name,
            self._marks(location),
            self._confirmed.get(location, ()),
            self._preview(location).stem,
            with_examples=self._plan.saved is None,
        )
        return Task(frame, name, draw, store)

    def failed(self, task: Task, result: TaskResult, in_a_row: int) -> None:
        """Go on with the other frames."""

    @contextmanager
    def opened(self, progressed: Progressed) -> Iterator[None]:
        """Note in the output folder what the run is of, and put the result files together at the end.

        Raises
        ------
        InputError
            If the folder cannot be made or written.
        """
        self._begin(progressed)
        try:
            yield
        finally:  # also after a defect
            try:
                self._put_together(progressed)
            except FewShotError as error:
                progressed.failures.append(Failure("results", str(error)))
            except KeyboardInterrupt:  # pressed again; the frames are safe, and the files stay as they were
                progressed.interrupted = True

    def _begin(self, progressed: Progressed) -> None:
        with replacing(self._folder / "writable") as trial:
            trial.touch()
        (self._folder / "writable").unlink(missing_ok=True)
        self._notes = read_notes(self._folder)
        changed = self._notes.changes(self._inputs)
        if changed:
            self._watch.say(f"Since the last run in {self._out}: {'; '.join(changed)}.")
        if progressed.learned is not None:
            self._learned = progressed.learned
        elif self._learned is not None:  # nothing was learned in this run, but what its frames were searched with
            progressed.learned = self._learned
            progressed.warnings = tuple(dict.fromkeys([*progressed.warnings, *self._learned.warnings]))
        if self._finished:
            self._watch.say(f"{self.done} of {len(self._plan.frames)} frames are finished already and kept.")
        elif (self._out / "run.json").exists():
            self._watch.say(f"{self._out} holds results of other settings or inputs; they are replaced.")
        for location in sorted(self._moved if self._earlier != self._folder else ()):
            if self._record(location, read=Journal.summary) is None:  # it lies in a folder that others may change
                self._take_over(location)
                self._moved.discard(location)
        self._before = results_in(self._out)
        self._note(to_note(self._plan, self._before, self._notes.results), self._notes.written)

    def add(self, task: Task, result: TaskResult) -> None:
        """Record a finished frame and its pictures.

        Raises
        ------
        CannotGoOn
            If a file cannot be written; the next frame's could not be either.
        """
        try:
            self._record_frame(task.frame, result)
        except FewShotError as error:
            self._watch.frame_fails(str(error))  # now, while the display knows which frame it is
            raise CannotGoOn(task.name, str(error)) from error

    def _record_frame(self, frame: FrameReader, result: TaskResult) -> None:
        found, pictures = result.found, result.extra
        image = self._plan.images[frame.location.xy]
        record = FrameRecord(
            name=image.file_name,
            position=image.position,
            stem=image.stem,
            location=frame.location,
            frame_shape=frame.shape,
            size_z=image.size_z,
            size_t=image.size_t,
            detections=tuple(found.detections),
            candidates=found.candidates,
            seconds=dict(found.seconds),
            examples=self._marks(frame.location),
            warnings=tuple(result.warnings),
            below=tuple(found.below),
            threshold=found.threshold,
            floor=found.floor,
            learned=self._learned,
        )
        # The record comes last: it says that all of the frame is there.
        try:
            self._write_pictures(record, pictures.overlay, pictures.preview)
            self._write(record)
        except BaseException:  # Ctrl-C too: without a record nothing would say that the overlay is a run's
            with suppress(OSError):
                self._overlay(record).unlink()
            raise
        self._finished.add(frame.location)
        self._blocks(frame.location).drop()

    def _put_together(self, progressed: Progressed) -> None:
        """Write all result files from the finished frames; without any, leave the folder as it was.

        Raises
        ------
        InputError
            If a file cannot be written.
        """
        # Where Ctrl-C came between a frame's record and its mention here, it is finished all the same.
        for frame in self._plan.frames:
            if not self.has(frame):
                record = self._record(frame.location, read=Journal.summary)
                if record is not None and self._at_threshold(record) is record:
                    self._finished.add(frame.location)
        if not self._finished:
            if not has_blocks(self._folder):
                with suppress(InputError):  # as on a full disk, which was told where the first frame was not written
                    self._notes.put_back()
            return
        for location in sorted(self._moved):  # not before, as the results are of these records until now
            self._take_over(location)
        self._note(*(to_note(self._plan, self._before, noted) for noted in (self._notes.results, self._notes.written)))
        files = list(result_files(self._plan))
        corrections = self._plan.corrections
        if corrections:
            # Before the results, where they were marked, are others: the same command finds their objects again, then.
            write_whole(self._out / CORRECTIONS, corrections_json(corrections).encode())
        summary = assemble(
            self._written(),
            self._out,
            tags=self._plan.request.output_tags,
            facts={**facts_of(self._plan, self._segmenter, self._begun, progressed), "images": self._given},
            asked=len(self._plan.frames),
            extra=self._plan.request.write,
            before=earlier_results(self._out, self._notes, self._before, {file.path for file in files}),
        )
        # Not before the others are gone: who is killed meanwhile leaves them to the next run.
        self._note(sorted({file.key for file in files}), [])
        asked = self._asked(summary.mark_next)
        if asked:
            write_whole(self._out / MARK_NEXT, mark_next_json(asked).encode())
        for name, is_written in ((CORRECTIONS, corrections), (MARK_NEXT, asked)):
            if not is_written:
                with telling(self._out / name):
                    (self._out / name).unlink(missing_ok=True)
        write_report(self._out)
        self.assembled = summary
        if len(self._finished) == len(self._plan.frames):
            remove_others(self._folder, self._common, [journal.fingerprint for journal in self._journals])
            remove_other_blocks(self._folder, self._common)
            for frame in self._plan.frames:  # where a run was killed between a frame's record and this
                self._blocks(frame.location).drop()

    def _note(self, results: Sequence[str], written: Sequence[str]) -> None:
        self._notes.write({**self._inputs, "results": results, "written": written})

    def _asked(self, places: Sequence[Suggestion]) -> list[tuple[Suggestion, Detection]]:
        """Return places with their objects, which are in the journal."""
        found: dict[Suggestion, Detection] = {}
        for location in {place.location for place in places}:
            record = self._record(location)
            if record is not None:  # else it was removed meanwhile
                objects = asked_about(record)
                found |= {place: objects[place.number - 1] for place in places if place.location == location}
        return [(place, found[place]) for place in places if place in found]

    def records(self) -> Iterator[FrameRecord]:
        """Yield the finished frames in order, one at a time in memory.

        Raises
        ------
        InputError
            If the record of one has become unreadable, damaged or lost.
        """
        for frame in filter(self.has, self._plan.frames):
            location = frame.location
            image = self._plan.images[location.xy]
            record = self._record(location)
            if record is None:
                # A summary does not see all that may be wrong, and the same command shall not stop here again.
                self._journals[location.xy].discard(_key(location))
                raise self._lost(self._out, location)
            # Names are given anew: another file of the same name may have joined the images since.
            yield replace(
                record,
                stem=image.stem,
                position=image.position,
                full_name=image.full_name,
                pixel_size=image.header.pixel_size,
                channel_names=image.header.channel_names,
            )

    def _lost(self, out: Path, location: Location) -> InputError:
        """Return the error for a finished frame whose record is gone: files were removed from a folder meanwhile."""
        return lost_record(out, self._plan.images[location.xy].full_name, location.z + 1, location.time + 1)

    def _blocks(self, location: Location) -> BlockFolder:
        fingerprint = self._journals[location.xy].fingerprint
        return BlockFolder(self._folder, self._common, fingerprint, _key(location), self._threshold)

    @property
    def _threshold(self) -> float:
        return self._plan.request.settings.similarity_threshold

    def _at_threshold(self, record: FrameRecord) -> FrameRecord | None:
        """Apply the threshold asked for; one that is chosen for each frame stays."""
        return record.at(self._threshold) if self._is_fixed else record

    @property
    def _is_fixed(self) -> bool:
        return self._plan.request.settings.threshold_mode == "fixed"

    def _record(
        self, location: Location, journals: Sequence[Journal] | None = None, read: _Read = Journal.done
    ) -> FrameRecord | None:
        record = read((journals or self._journals)[location.xy], _key(location))
        if record is None:
            return None
        # The image may have had another place in the list then, and its examples another order.
        return replace(record.moved(location), examples=self._marks(location))

    def _look_up(self, location: Location, read: _Read = Journal.done) -> FrameRecord | None:
        """Return a frame's record, here or in the earlier results, at the threshold asked for."""
        for journals in self._sources:
            stored = self._record(location, journals, read)
            record = stored and self._at_threshold(stored)
            if record is None:
                continue
            if journals is not self._journals and self._is_fixed:
                record = replace(record, warnings=tuple(text for text in record.warnings if CHOSEN not in text))
            if journals is not self._journals or record is not stored:
                self._moved.add(location)
            return record
        return None

    def _is_recorded(self, frame: FrameReader) -> bool:
        record = self._look_up(frame.location, Journal.summary)
        if record is not None:
            self._learned = record.learned or self._learned
        return record is not None

    def _take_over(self, location: Location) -> None:
        """Record a frame at the threshold asked for; its pictures are drawn later."""
        record = self._look_up(location)
        if record is None:
            raise self._lost(self._earlier.parent, location)
        self._write(record)

    def _marked_on(self, location: Location) -> tuple[ExampleMark, ...]:
        """Return the examples on a frame, for drawing."""
        return tuple(_mark(item.exemplar) for item in self._plan.examples_on(location))

    @cached_property
    def _confirmed(self) -> dict[Location, list[Detection]]:
        """By frame, what the user has marked as right: the search leaves it out, since it is learned from."""
        found: dict[Location, list[Detection]] = {}
        for item in self._plan.corrections:
            if item.is_right:
                here = found.setdefault(item.placed.location, [])
                here.append(marked(item.mask, self._plan.request.settings, item.placed.location, Kind.CONFIRMED))
        return found

    def _written(self) -> Iterator[FrameRecord]:
        """Yield the finished frames with the objects that are to be written, and draw what pictures are missing."""
        left_out = self._plan.request.settings.leave_out_examples
        for record in self.records():
            # The overlay of that name may be another image's, or drawn at another threshold.
            drawing = drawing_of(self._preview(record.location).stem, record.threshold)
            if drawn_of(self._overlay(record)) != drawing or not read_preview(self._preview(record.location)):
                frame = displayed_as(self._plan.images.frame(record.location), self._exposures)
                pictures = pictures_of(frame, record.detections, record.examples, record.threshold, drawing)
                self._write_pictures(record, pictures.overlay, pictures.preview)
            yield record.without_examples() if left_out else record

    @cached_property
    def _exposures(self) -> Sequence[Exposures]:
        """Those beside which frames were searched, also where nothing was learned in this run: pictures show it so."""
        if self._plan.saved is not None:
            return self._plan.saved.objects.exposures
        return list({exposures for each in self._plan.exemplars if (exposures := exposures_of(each.image))})

    def _write_pictures(self, record: FrameRecord, overlay: bytes, preview: bytes) -> None:
        write_whole(self._overlay(record), overlay)
        write_whole(self._preview(record.location), preview)

    def _overlay(self, record: FrameRecord) -> Path:
        """Return where a frame's overlay belongs."""
        return overlay_path(self._out, record.stem, record.location, is_stack=record.is_stack)

    def _preview(self, location: Location) -> Path:
        """Return where the small picture of a frame belongs."""
        return self._journals[location.xy].preview(_key(location))

    def _write(self, record: FrameRecord) -> None:
        self._journals[record.location.xy].write(replace(record, location=_key(record.location)))


def _key(location: Location) -> Location:
    """Return the location a frame is recorded under: that in its file, whatever the file's position in the list."""
    return replace(location, xy=0)


def _mark(exemplar: Exemplar) -> ExampleMark:
    outline: Polygon | Point
    if exemplar.mask is not None:
        outline = mask_to_polygon(largest_part(crop_to_object(exemplar.mask)))  # as results are
    elif exemplar.box is not None:
        outline = box(*exemplar.box)
    else:
        outline = exemplar.polygon or Point(exemplar.point or (0, 0))
    return ExampleMark(outline, exemplar.negative, exemplar.box is not None)
