"""The parts of a run: its source and its sink, the frames as tasks, and their results."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from sam2_fewshot.errors import FewShotError
from sam2_fewshot.records import FrameResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sam2_fewshot.records import Exemplar, FrameReader, Learned
    from sam2_fewshot.runner.progress import Watch
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.tiling.blocks import BlockStore


class Address(Protocol):
    """Where another process opens a frame; it can be pickled."""

    def open(self) -> FrameReader:
        """Return the frame; what was opened last may be held open."""
        ...


@dataclass(frozen=True, eq=False)
class TaskResult:
    """The outcome of a frame.

    Parameters
    ----------
    found
        Its result.
    trouble, cause
        Why it failed, in a sentence, and the error; empty and None when all went well.
    extra
        Whatever the sink wants besides, such as pictures.
    warnings, notes
        Sentences for the user: what needs care, and what is good to know.
    took
        Wall-clock seconds that the frame took in all.
    """

    found: FrameResult = field(default_factory=FrameResult)
    trouble: str = ""
    cause: BaseException | None = None
    extra: Any = None
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    took: float = 0.0


class Finish(Protocol):
    """A sink's step on a frame's result, in the process that searched the frame; it can be pickled."""

    def __call__(self, frame: FrameReader, found: FrameResult) -> TaskResult:
        """Return the result with what the sink adds."""
        ...


@dataclass(frozen=True, eq=False)
class Task:
    """A frame to search.

    Parameters
    ----------
    frame
        The frame.
    name
        What to call it in messages.
    finish
        The sink's step where the frame is searched; None for none.
    store
        Of the results of the frame's blocks; None where they are not stored.
    """

    frame: FrameReader
    name: str
    finish: Finish | None = None
    store: BlockStore | None = None


@dataclass(frozen=True)
class Failure:
    """Something that could not be done: which frame or file, and why."""

    what: str
    sentence: str


@dataclass
class Progressed:
    """How a run has gone so far.

    Parameters
    ----------
    frames, resumed
        How many frames were asked for, and how many of them were finished by earlier runs.
    warnings
        What the user was warned of before the first frame.
    seconds
        Of the stages before the first frame, by name.
    failures
        What could not be done.
    interrupted
        Whether the user stopped it.
    learned
        What was said when the examples were learned. None where they were not, as no frame was left: then a sink that
        has recorded it sets it, and adds its warnings to `warnings`, as it begins. Where an object model is there
        already, it is said again, whether or not a frame is left.
    """

    frames: int
    resumed: int
    warnings: Sequence[str] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    learned: Learned | None = None


class CannotGoOn(FewShotError):
    """No further frame can be done; the finished ones are kept, and the run ends with this as a failure.

    Parameters
    ----------
    what, sentence
        As of a :class:`Failure`.
    """

    def __init__(self, what: str, sentence: str) -> None:
        super().__init__(sentence)
        self.what = what


class Source(Protocol):
    """Where frames and examples come from."""

    @property
    def frames(self) -> Sequence[FrameReader]:
        """The frames to search, in order."""
        ...

    @property
    def exemplars(self) -> Sequence[Exemplar]:
        """What to learn from; none where an object model is there already. Their images are frames."""
        ...

    def name(self, frame: FrameReader) -> str:
        """Return what to call a frame in messages."""
        ...


class Sink(Protocol):
    """Where detections go."""

    def has(self, frame: FrameReader) -> bool:
        """Return whether an earlier run has finished a frame with the same result."""
        ...

    def learned(self, segmenter: FewShotSegmenter) -> None:
        """Take a segmenter that has learned."""
        ...

    def opened(self, progressed: Progressed) -> AbstractContextManager[None]:
        """Take results while the ``with`` block lasts; at its end put all together.

        Parameters
        ----------
        progressed
            How the run goes. The sink adds what fails at the end, and, as it begins, what an earlier run has learned
            and warned of where this one learns nothing.
        """
        ...

    def task(self, frame: FrameReader, name: str) -> Task:
        """Return a frame's task."""
        ...

    def add(self, task: Task, result: TaskResult) -> None:
        """Take the result of a frame.

        Raises
        ------
        CannotGoOn
            If the next one could not be taken either.
        """
        ...

    def failed(self, task: Task, result: TaskResult, in_a_row: int) -> None:
        """Take a frame that failed, with the number of failures in a row; an error that is raised ends the run."""
        ...


class Execute(Protocol):
    """How frames are searched: here, or on a cluster."""

    def __call__(
        self, tasks: Iterable[Task], segmenter: FewShotSegmenter, watch: Watch
    ) -> Iterator[tuple[Task, TaskResult]]:
        """Yield each task with its outcome, in any order; one that fails does not stop the others.

        Raises
        ------
        CannotGoOn
            If there is nothing left that could search.
        """
        ...


def in_this_process(
    tasks: Iterable[Task], segmenter: FewShotSegmenter, watch: Watch
) -> Iterator[tuple[Task, TaskResult]]:
    """Search frames one by one; an :class:`Execute`."""
    for task in tasks:
        watch.frame_begins(task.name)
        began = time.perf_counter()
        try:
            finished = finish(task.finish, task.frame, segmenter.predict(task.frame, task.store))
        except (FewShotError, OSError, MemoryError) as error:
            finished = TaskResult(trouble=sentence_of(error), cause=error)
        yield task, reported(finished, watch, time.perf_counter() - began)


def finish(step: Finish | None, frame: FrameReader, found: FrameResult) -> TaskResult:
    """Return a result with what its sink adds."""
    return step(frame, found) if step else TaskResult(found)


def report_sentences(finished: TaskResult, watch: Watch) -> None:
    """Pass on a frame's warnings and notes to the user."""
    for sentence in finished.warnings:
        watch.warn(sentence)
    for sentence in finished.notes:
        watch.say(sentence)


def reported(finished: TaskResult, watch: Watch, took: float) -> TaskResult:
    """Report a finished frame's sentences, and return its result with all warnings since the last frame."""
    report_sentences(finished, watch)
    return replace(finished, warnings=watch.take(), took=took)


def sentence_of(error: BaseException) -> str:
    """Return why a frame failed, in a sentence."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it. Lower Max Memory, so that it is searched in smaller blocks."
    return str(error)
