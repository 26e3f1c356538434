"""Who is told how a run goes."""

from __future__ import annotations

from typing import Protocol

from sam2_fewshot.protocols import Progress, Quiet


class Display(Progress, Protocol):
    """A :class:`~sam2_fewshot.protocols.Progress` that also follows the frames."""

    def say(self, sentence: str) -> None:
        """Tell the user something that is good to know and needs no care."""
        ...

    def begin(self, frames: int) -> None:
        """Learn how many frames there are to do, those finished earlier left out."""
        ...

    def frame_begins(self, name: str) -> None:
        """Learn which frame comes now."""
        ...

    def frame_ends(self, candidates: int, kept: int, seconds: float) -> None:
        """Learn what the frame gave: candidates looked at, objects kept, and the seconds it took."""
        ...

    def frame_fails(self, sentence: str) -> None:
        """Learn why the frame gave nothing."""
        ...

    def end(self) -> None:
        """Learn that no more frames come, whether all are done or not."""
        ...


class Silent(Quiet):
    """A :class:`Display` for Python callers: warnings are Python warnings, the rest is not shown."""

    def say(self, sentence: str) -> None:
        """Do nothing."""

    def begin(self, frames: int) -> None:
        """Do nothing."""

    def frame_begins(self, name: str) -> None:
        """Do nothing."""

    def frame_ends(self, candidates: int, kept: int, seconds: float) -> None:
        """Do nothing."""

    def frame_fails(self, sentence: str) -> None:
        """Issue the sentence as a warning."""
        self.warn(sentence)

    def end(self) -> None:
        """Do nothing."""


class Watch:
    """Passes everything on to a :class:`~sam2_fewshot.runner.progress.Display`; a sentence is warned of once.

    Parameters
    ----------
    display
        Who shows it.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._said: list[str] = []
        self._taken = 0

    def start(self, stage: str, total: int | None = None) -> None:
        """Pass on."""
        self._display.start(stage, total)

    def advance(self, steps: int = 1) -> None:
        """Pass on."""
        self._display.advance(steps)

    def warn(self, sentence: str) -> None:
        """Remember the sentence, and pass it on when it is new."""
        if sentence not in self._said:
            self._display.warn(sentence)
            self._said.append(sentence)

    @property
    def count(self) -> int:
        """Number of sentences so far."""
        return len(self._said)

    def since(self, count: int) -> list[str]:
        """Return the sentences after the first `count`."""
        return self._said[count:]

    def take(self) -> tuple[str, ...]:
        """Return the warnings since the last call."""
        fresh = tuple(self._said[self._taken :])
        self._taken = len(self._said)
        return fresh
