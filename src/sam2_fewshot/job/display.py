"""Who is told how the job goes."""

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
