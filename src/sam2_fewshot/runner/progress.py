"""Where the progress of a run is reported: displays, the time that is left, and what remembers their warnings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from sam2_fewshot.protocols import Progress, Quiet

if TYPE_CHECKING:
    from collections.abc import Callable

_LATEST = 20
"""Frames that the pace is taken from: a slow first one, or emptier images, soon count no more."""


class Display(Progress, Protocol):
    """A :class:`~sam2_fewshot.protocols.Progress` that also follows the frames."""

    def say(self, sentence: str) -> None:
        """Take a sentence that the user should know but need not act on."""
        ...

    def begin(self, frames: int) -> None:
        """Take the number of frames to search, those finished earlier left out."""
        ...

    def frame_begins(self, name: str) -> None:
        """Take the name of the frame that begins."""
        ...

    def frame_ends(self, candidates: int, detections: int, seconds: float) -> None:
        """Take the numbers of the frame's candidates and detections, and the seconds that it took."""
        ...

    def frame_fails(self, sentence: str) -> None:
        """Take the reason why the frame failed."""
        ...

    def end(self) -> None:
        """Take notice that no more frames come, whether all are done or not."""
        ...


class Silent(Quiet):
    """A :class:`Display` for Python callers: warnings are Python warnings, the rest is not displayed."""

    def say(self, sentence: str) -> None:
        """Do nothing."""

    def begin(self, frames: int) -> None:
        """Do nothing."""

    def frame_begins(self, name: str) -> None:
        """Do nothing."""

    def frame_ends(self, candidates: int, detections: int, seconds: float) -> None:
        """Do nothing."""

    def frame_fails(self, sentence: str) -> None:
        """Issue the sentence as a warning."""
        self.warn(sentence)

    def end(self) -> None:
        """Do nothing."""


class Pace:
    """How long the rest of a run will take, from how long its latest frames have taken.

    Frames may be searched side by side: what counts is how soon after one another they end.

    Parameters
    ----------
    clock
        Gives seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: tuple[float, ...] = ()
        self.begin(0)

    def begin(self, frames: int) -> None:
        """Start the clock for so many frames."""
        self.frames, self.done = frames, 0
        self._began = self._clock()
        self._ends = (self._began,)

    def frame_done(self) -> None:
        """Count a frame, whether it ended or failed."""
        self._ends = (*self._ends, self._clock())[-_LATEST - 1 :]
        self.done += 1

    @property
    def taken(self) -> float:
        """Seconds from the beginning to the end of the latest frame."""
        return self._ends[-1] - self._began

    def left(self) -> float | None:
        """Return the seconds that the frames which are left will take; None before the first one has ended.

        Between two frames it falls with the time, and a frame that takes longer than those before it slows the pace.
        """
        ends = self._ends  # another thread may ask while this one counts
        if len(ends) == 1:
            return None
        now, left = self._clock(), self.frames - self.done
        pace = (ends[-1] - ends[0]) / (len(ends) - 1)
        slower = (now - ends[0]) / len(ends)  # as if the frame at hand ended now
        return max(pace * left - (now - ends[-1]), slower * (left - 1), 0.0)


def duration(seconds: float) -> str:
    """Return a time span as a person would say it, like ``4.2 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def about(seconds: float) -> str:
    """Return a time span that is not known exactly, like ``about 40 s``, ``about 12 min`` or ``about 1.5 h``."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 90:
        return f"about {seconds if seconds < 20 else 5 * round(seconds / 5):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


class Watch:
    """A :class:`Display` that passes everything on to another, each warning once, and remembers the warnings."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.start, self.advance, self.say, self.begin = display.start, display.advance, display.say, display.begin
        self.frame_begins, self.frame_ends = display.frame_begins, display.frame_ends
        self.frame_fails, self.end = display.frame_fails, display.end
        self._warned: list[str] = []
        self._taken = 0

    def warn(self, sentence: str) -> None:
        """Remember the sentence, and pass it on when it is new."""
        if sentence not in self._warned:
            self.display.warn(sentence)
            self._warned.append(sentence)

    @property
    def count(self) -> int:
        """Number of warnings so far."""
        return len(self._warned)

    def since(self, count: int) -> list[str]:
        """Return the warnings after the first `count`."""
        return self._warned[count:]

    def take(self) -> tuple[str, ...]:
        """Return the warnings since the last call."""
        fresh = tuple(self._warned[self._taken :])
        self._taken = len(self._warned)
        return fresh


class Heard(Quiet):
    """A :class:`~sam2_fewshot.protocols.Progress` that only remembers warnings."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def warn(self, sentence: str) -> None:
        """Remember the sentence."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)
