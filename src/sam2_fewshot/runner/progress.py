"""Where the progress of a run is reported: displays, and what remembers their warnings."""

from __future__ import annotations

from typing import Protocol

from sam2_fewshot.protocols import Progress, Quiet


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
