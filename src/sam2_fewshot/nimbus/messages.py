"""What the user reads in NimbusImage while a job runs, and how a job stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

from sam2_fewshot.errors import counted, listed, spelt
from sam2_fewshot.runner.progress import Pace, about, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

_WITHIN = 0.9
"""Of a frame's part of the progress, the segmenter's own steps take so much."""
_MOST_WARNINGS = 20
"""Each warning stays on the user's screen until it is dismissed."""


def notice(kind: Literal["error", "warning"], sentence: str, info: str | None = None) -> dict[str, Any]:
    """Return the message with which the app shows a sentence, and more about it, until it is dismissed."""
    return {kind: sentence, "title": "SAM 2 few-shot", "info": info, "type": kind}


class Messages:
    """Writes the lines; a :class:`~sam2_fewshot.protocols.Progress`, and a context manager that keeps them coming.

    Progress is written when it has grown by a hundredth, and again after a while of silence, because the app shows
    a line only when another follows.

    Parameters
    ----------
    stream
        Where the lines go.
    hide
        Takes secrets out of a text.
    silence
        Seconds after which the last progress is written again.
    """

    def __init__(self, stream: TextIO, hide: Callable[[str], str] = lambda text: text, silence: float = 15.0) -> None:
        self._hide = hide
        self._stream = stream
        self._silence = silence
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name="messages", daemon=True)
        self._fraction, self._title = 0.0, "Starting"
        self._info: str | Callable[[], str] = ""
        self._written: tuple[int, str] | None = None
        self._last = time.monotonic()
        self._low, self._high = 0.0, 0.0
        self._done, self._total = 0, 0
        self._warned: list[str] = []

    def __enter__(self) -> Self:
        self._beat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._beat.join(timeout=1.0)

    def progress(
        self, fraction: float, title: str, info: str | Callable[[], str] = "", *, always: bool = False
    ) -> None:
        """Report how far the job is.

        Parameters
        ----------
        fraction
            From 0 to 1.
        title, info
            The line in bold, and what follows it. What changes with the time is asked for whenever the line is
            written.
        always
            Write it even if it has not grown by a hundredth.
        """
        with self._lock:
            self._fraction, self._title, self._info = min(max(fraction, 0.0), 1.0), title, info
            step = (int(100 * self._fraction + 1e-9), title)
            if always or step != self._written:
                self._written = step
                self._write_progress()

    def stage(self, low: float, high: float) -> None:
        """Say which part of the whole the next :meth:`start` and :meth:`advance` stand for."""
        with self._lock:
            self._low, self._high = low, high
            self._done = self._total = 0

    def start(self, stage: str, total: int | None = None) -> None:
        """Begin a stage of the segmenter's; its steps move the progress within the part set by :meth:`stage`."""
        with self._lock:
            self._done, self._total = 0, total or 0

    def advance(self, steps: int = 1) -> None:
        """Report steps of the segmenter's current stage."""
        with self._lock:
            self._done += steps
            if self._total:
                part = min(1.0, self._done / self._total)
                # Stages of unknown number follow one another, so progress never goes back.
                fraction = max(self._fraction, self._low + part * (self._high - self._low))
                self.progress(fraction, self._title, self._info)

    def warn(self, sentence: str) -> None:
        """Show a warning, each once, and of very many the rest only in the log."""
        with self._lock:
            if sentence in self._warned:
                return
            self._warned.append(sentence)
            if len(self._warned) > _MOST_WARNINGS:
                self.log(f"Warning: {sentence}")
                return
            self._write(notice("warning", sentence))

    def error(self, sentence: str) -> None:
        """Show an error. The program's exit code, not this, makes the job fail."""
        self._write(notice("error", sentence))

    def log(self, line: str) -> None:
        """Write a line that is only seen in the full log."""
        self._put(spelt(" ".join(self._hide(line).splitlines())))

    def _write_progress(self) -> None:
        info = self._info if isinstance(self._info, str) else self._info()
        self._write({"progress": round(self._fraction, 4), "title": self._title, "info": info})

    def _write(self, message: dict[str, Any]) -> None:
        self._put(self._hide(json.dumps(message, allow_nan=False)))

    def _put(self, line: str) -> None:
        with self._lock:
            self._last = time.monotonic()
            # One write a line: what is written in pieces is read in pieces.
            self._stream.write(line + "\n")
            self._stream.flush()

    def _keep_alive(self) -> None:
        while not self._over.wait(min(1.0, self._silence / 4)):
            with self._lock:
                if time.monotonic() - self._last >= self._silence:
                    self._write_progress()


class JobDisplay:
    """Shows a run in NimbusImage; a :class:`~sam2_fewshot.runner.progress.Display`.

    Parameters
    ----------
    messages
        Takes the lines.
    begins
        Part of the whole, from 0 to 1, at which the frames begin.
    clock
        Gives the time in seconds.
    """

    def __init__(self, messages: Messages, begins: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._messages = messages
        self.last = ""
        """What came of the last frame, for the line of the next."""
        self.start, self.advance, self.warn, self.say = messages.start, messages.advance, messages.warn, messages.log
        self._begins, self._pace = begins, Pace(clock)
        self._name = ""

    def begin(self, frames: int) -> None:
        """Learn how many frames there are to do."""
        self._pace.begin(frames)

    def frame_begins(self, name: str) -> None:
        """Say which frame comes now, and how long the rest will take."""
        self._name = name
        done, frames = self._pace.done, self._pace.frames
        low, share = self._begins + (1 - self._begins) * done / frames, (1 - self._begins) / frames
        # The segmenter's own steps end short of the next frame, whose line would else look like one of this.
        self._messages.stage(low, low + _WITHIN * share)
        place, last = f"frame {done + 1} of {frames} ({name})", self.last
        # Of very many frames the second is no hundredth farther, but now the time is known.
        self._messages.progress(low, "Looking for objects", lambda: f"{place}{self._left()}{last}", always=done == 1)

    def frame_ends(self, candidates: int, detections: int, seconds: float) -> None:
        """Count the frame, and log how long the others will take after the first."""
        self._pace.frame_done()
        left = self._pace.frames - self._pace.done
        if self._pace.done == 1 and left:
            others = "the other one takes" if left == 1 else f"the other {left} take"
            took, rest = duration(self._pace.taken), about(self._pace.left() or 0.0)
            self._messages.log(f"The first frame took {took}; if they are alike, {others} {rest}.")

    def frame_fails(self, sentence: str) -> None:
        """Log why the frame gave nothing."""
        self._messages.log(f"{self._name} failed: {sentence}")
        self._pace.frame_done()

    def end(self) -> None:
        """Log how long the frames took."""
        if done := self._pace.done:
            taken = self._pace.taken
            self._messages.log(f"{counted(done, 'frame')} in {duration(taken)}, {duration(taken / done)} a frame.")

    def _left(self) -> str:
        left = self._pace.left()
        return "" if left is None else f", {about(left)} left"


def in_short(parts: Sequence[str]) -> str:
    """Return parts of a sentence in a row, the first few of many."""
    return listed(parts, 5, "; ")


class Stopped(BaseException):
    """The job was cancelled. Like KeyboardInterrupt it passes through ``except Exception``."""


@contextmanager
def stopping(
    last_words: Callable[[], None], grace: float = 3.0, leave: Callable[[int], None] = os._exit
) -> Iterator[None]:
    """Raise :class:`Stopped` in the block when the process is told to end (SIGTERM, SIGINT).

    Python looks for signals between two steps of its own, and a network's layer on a CPU may be one long step.
    A thread that the system wakes at once waits for `grace` seconds; is the block not left by then, it speaks the
    last words and ends the process. NimbusImage stops a container with SIGTERM and kills it ten seconds later.

    Parameters
    ----------
    last_words
        Called before the process is ended by force.
    grace
        Seconds that the block has to end by itself.
    leave
        Ends the process with an exit code.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can signals be received
        yield
        return
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    over = threading.Event()

    def wait() -> None:
        ours.setblocking(True)
        with suppress(OSError):
            if ours.recv(1) and not over.is_set() and not over.wait(grace):
                last_words()
                leave(1)

    def stop(number: int, frame: FrameType | None) -> None:
        # Once is enough: a second signal must not break the clearing up.
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    watcher = threading.Thread(target=wait, name="stopping", daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(wakeup)
        for each, handler in before.items():
            signal.signal(each, handler)
        theirs.close()
        watcher.join(timeout=1.0)
        ours.close()
