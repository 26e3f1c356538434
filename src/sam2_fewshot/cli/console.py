"""The terminal's side of a command: the progress display, and errors as one sentence with an exit code."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
import traceback
import warnings
from typing import TYPE_CHECKING, NoReturn

import typer

from sam2_fewshot.errors import FAILED, WRONG_INPUT, FewShotError, FewShotWarning, spelt, terminated_like_interrupted
from sam2_fewshot.runner.progress import Pace, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from sam2_fewshot.runner.progress import Display

_QUIET_SECONDS = 20.0
"""A program that prints nothing for longer seems to hang."""
_LINE_BREAK = re.compile(r"\s*[\r\n]\s*")


def print_line(text: str, *, err: bool = False) -> None:
    """Print a text in one line, on stderr with `err`; go on without it where it cannot be printed.

    A run of a night does not end because the disk of its log is full. Where the reader is gone, as of ``| head``, it
    does.
    """
    try:
        typer.echo(_line(text), err=err)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def _line(text: str) -> str:
    return spelt(_LINE_BREAK.sub(" ", text))


@contextlib.contextmanager
def terminal_display() -> Iterator[Display]:
    """Give the progress display that suits stderr: bars on a terminal, else lines."""
    if sys.stderr is None or not sys.stderr.isatty():  # it is None where the shell closed it
        yield PlainDisplay()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        yield BarDisplay(bars)


class PlainDisplay:
    """Lines on stderr: one a frame, and signs of life on a long one.

    Parameters
    ----------
    clock
        Gives seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pace = Pace(clock)
        self._spoke = self._clock()
        self._frame = ""
        self._stage = ""
        self._total: int | None = None
        self._steps = 0

    def say(self, sentence: str) -> None:
        """Print a line."""
        print_line(sentence, err=True)
        self._spoke = self._clock()

    def warn(self, sentence: str) -> None:
        """Print a line marked as a warning."""
        self.say(f"Warning: {sentence}")

    def start(self, stage: str, total: int | None = None) -> None:
        """Remember the stage, for the signs of life."""
        self._stage, self._total, self._steps = stage, total, 0

    def advance(self, steps: int = 1) -> None:
        """Print a sign of life if nothing was printed for long."""
        self._steps += steps
        if self._clock() - self._spoke > _QUIET_SECONDS:
            share = f" {self._steps / self._total:.0%}" if self._total else ""
            self.say(f"  {self._frame + ': ' if self._frame else ''}{self._stage}{share} ...")

    def begin(self, frames: int) -> None:
        """Start the clock."""
        self._pace.begin(frames)

    def frame_begins(self, name: str) -> None:
        """Remember the frame's name."""
        self._frame = name

    def frame_ends(self, candidates: int, kept: int, seconds: float) -> None:
        """Print the frame's line with the time that the rest will take."""
        pace = self._pace
        pace.frame_done()
        left = pace.left()
        rest = f", {duration(left)} left" if left is not None and pace.done < pace.frames else ""
        self.say(
            f"Frame {pace.done} of {pace.frames}: {self._frame}: {kept} of {candidates} candidates kept, "
            f"{duration(seconds)}{rest}"
        )

    def frame_fails(self, sentence: str) -> None:
        """Print why."""
        self._pace.frame_done()
        self.say(f"Failed: frame {self._pace.done} of {self._pace.frames}: {self._frame}: {sentence}")

    def end(self) -> None:
        """Forget the frame."""
        self._frame = ""


class BarDisplay:
    """Two bars on a terminal: the frames with their detections and the time left, and the current stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._frames: TaskID | None = None
        self._stage: TaskID | None = None
        self._name = ""
        self._total = self._finished = self._candidates = self._detections = 0

    def say(self, sentence: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(_line(sentence), markup=False, highlight=False)

    def warn(self, sentence: str) -> None:
        """Print a line above the bars, marked as a warning."""
        self.say(f"Warning: {sentence}")

    def start(self, stage: str, total: int | None = None) -> None:
        """Show the stage's bar in place of the one before."""
        if self._stage is not None:
            self._bars.remove_task(self._stage)
        name = f"  {self._name}: {stage}" if self._name else stage
        self._stage = self._bars.add_task(_line(name), total=total, counts="")

    def advance(self, steps: int = 1) -> None:
        """Move the stage's bar."""
        if self._stage is not None:
            self._bars.advance(self._stage, steps)

    def begin(self, frames: int) -> None:
        """Show the bar of the frames."""
        self._total = frames
        self._frames = self._bars.add_task("Frames", total=frames, counts="")

    def frame_begins(self, name: str) -> None:
        """Remember the frame's name."""
        self._name = name

    def frame_ends(self, candidates: int, kept: int, seconds: float) -> None:
        """Move the bar of the frames."""
        self._candidates += candidates
        self._detections += kept
        self._count()

    def frame_fails(self, sentence: str) -> None:
        """Say why, and move the bar of the frames."""
        self.say(f"Failed: {self._name}: {sentence}")
        self._count()

    def end(self) -> None:
        """Take the bars away."""
        self._name = ""
        for task in (self._stage, self._frames):
            if task is not None:
                self._bars.remove_task(task)
        self._stage = self._frames = None

    def _count(self) -> None:
        self._finished += 1
        if self._frames is not None:
            counts = f"{self._finished} of {self._total}, {self._detections} of {self._candidates} candidates kept"
            self._bars.update(self._frames, advance=1, counts=counts)


@contextlib.contextmanager
def guarded(debug: bool = False) -> Iterator[None]:
    """Turn every exception into a sentence on stderr and an exit code.

    SIGTERM counts as Ctrl-C, and what other libraries warn or log about is hidden.

    Parameters
    ----------
    debug
        Print the traceback of a defect.
    """
    try:
        with terminated_like_interrupted(), _other_libraries_quiet():
            yield
    except KeyboardInterrupt:
        _fail("Stopped.", FAILED)
    except FewShotError as error:
        _fail(str(error), WRONG_INPUT)
    except MemoryError:
        _fail(
            "There is not enough memory for this. Close other programs, or use smaller images or a smaller "
            "--batch-size and --points-per-batch.",
            FAILED,
        )
    except BrokenPipeError:  # of `| head`; see main
        raise
    except OSError as error:
        if error.filename is not None:
            _fail(f"{error.filename}: {error.strerror or error}.", WRONG_INPUT)
        if error.strerror is None:  # it does not come from the system
            _defect(error, debug)
        _fail(
            f"A disk, a file or the network has failed: {error.strerror.lower()}. Run the same command again when that "
            "is mended.",
            FAILED,
        )
    except Exception as error:
        if isinstance(error, (typer.Exit, typer.Abort)):
            raise
        _defect(error, debug)


def _fail(sentence: str, code: int) -> NoReturn:
    print_line(f"Error: {sentence}", err=True)
    raise typer.Exit(code) from None


def _defect(error: Exception, debug: bool) -> NoReturn:
    if debug:
        for line in "".join(traceback.format_exception(error)).splitlines():
            print_line(line, err=True)
    hint = "" if debug else " Run the command again with --debug to see where."
    _fail(f"This is a defect in sam2-fewshot, please report it: {type(error).__name__}: {error}.{hint}", FAILED)


@contextlib.contextmanager
def _other_libraries_quiet() -> Iterator[None]:
    """Hide third-party warnings and log lines; our own warnings become lines on stderr."""

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        print_line(f"Warning: {message}", err=True)

    silent = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(silent)  # with no handler at all, Python prints what libraries log
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", FewShotWarning)
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    finally:
        root.removeHandler(silent)
