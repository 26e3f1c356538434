"""Where the progress of a run is reported: displays, the time that is left, and what remembers their warnings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from sam2_fewshot.protocols import Progress, Quiet

if TYPE_CHECKING:
    from collections.abc import Callable

_LATEST = 20
"""Frames that the pace is taken from: a slow first one, or emptier images, soon count no more."""
_STAGES = {"encod": (0.0, 0.6), "propos": (0.0, 0.6), "prompt": (0.6, 1.0), "compar": (0.6, 1.0)}
"""About where in the search of a block its stages begin and end, by how they are called."""
_SOON = 0.05
"""Before this share is done, nothing can be said about the time that is left."""


class Display(Progress, Protocol):
    """A :class:`~sam2_fewshot.protocols.Progress` that also follows the frames."""

    def say(self, sentence: str) -> None:
        """Take a sentence that the user should know but need not act on."""
        return

    def begin(self, frames: int) -> None:
        """Take the number of frames to search, those finished earlier left out."""
        return

    def frame_begins(self, name: str) -> None:
        """Take the name of the frame that begins."""
        return

    def frame_ends(self, candidates: int, detections: int, seconds: float) -> None:
        """Take the numbers of the frame's candidates and detections, and the seconds that it took."""
        return

    def frame_fails(self, sentence: str) -> None:
        """Take the reason why the frame failed."""
        ...

    def end(self) -> None:
        """Take notice that no more frames come, whether all are done or not."""
        return


class Silent(Quiet, Display):
    """A :class:`Display` for Python callers: warnings are Python warnings, the rest is not displayed."""

    def frame_fails(self, sentence: str) -> None:
        """Issue the sentence as a warning."""
        self.warn(sentence)


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


class Estimate(Silent):
    """A :class:`Display` that works out which share of the work is done, and how many seconds are left.

    Parameters
    ----------
    tell
        Takes the share, in [0, 1], and the seconds; below 0 where they are not known.
    warned
        Takes warnings, and why a frame failed.
    check
        Called with each report; an exception that it raises stops the work.
    clock
        Tells the time in seconds.
    """

    def __init__(
        self,
        tell: Callable[[float, float], None],
        warned: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._warned, self._check, self._clock = tell, warned, check, clock
        self._began: float | None = None
        self._parts, self._stage, self._steps = (0, 1), (0.0, 0.0), (0, 0)

    def part_begins(self, done: int, total: int) -> None:
        """Take how many parts of the work, such as blocks or frames, are finished, and of how many."""
        self._began = self._clock() if self._began is None else self._began
        self._parts, self._stage = (done, max(1, total)), (0.0, 0.0)
        self._report()

    def start(self, stage: str, total: int | None = None) -> None:
        """Take the stage of the part."""
        self._stage = next((share for name, share in _STAGES.items() if name in stage), (0.0, 0.0))
        self._steps = 0, total or 0
        self._report()

    def advance(self, steps: int = 1) -> None:
        """Take steps of the stage."""
        self._steps = self._steps[0] + steps, self._steps[1]
        self._report()

    def warn(self, sentence: str) -> None:
        """Pass on."""
        self._warned(sentence)

    def begin(self, frames: int) -> None:
        """Take the number of frames."""
        self._parts = 0, max(1, frames)

    def frame_begins(self, name: str) -> None:
        """Begin a part."""
        self.part_begins(*self._parts)

    def frame_ends(self, candidates: int, detections: int, seconds: float) -> None:
        """Count the part."""
        self._parts = self._parts[0] + 1, self._parts[1]

    def frame_fails(self, sentence: str) -> None:
        """Count the part, and pass the reason on."""
        self._parts = self._parts[0] + 1, self._parts[1]
        self._warned(sentence)

    def _report(self) -> None:
        self._check()
        if self._began is None:
            self._tell(-1.0, -1.0)
            return
        within = min(1.0, self._steps[0] / self._steps[1]) if self._steps[1] else 0.0
        share = (self._parts[0] + self._stage[0] + (self._stage[1] - self._stage[0]) * within) / self._parts[1]
        self._tell(share, (self._clock() - self._began) * (1 / share - 1) if share > _SOON else -1.0)
