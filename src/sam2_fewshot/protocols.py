"""The seams: small protocols, each with more than one real implementation."""

from __future__ import annotations

import warnings
from typing import Protocol

from sam2_fewshot.errors import FewShotWarning


class Progress(Protocol):
    """Someone who is told how the work goes."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps; None when the number is not known."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Report that steps of the current stage are done."""
        ...

    def warn(self, sentence: str) -> None:
        """Tell the user something while the work goes on."""
        ...


class Quiet:
    """A :class:`Progress` for Python callers: silent but for Python warnings."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""

    def warn(self, sentence: str) -> None:
        """Issue a :class:`~sam2_fewshot.errors.FewShotWarning`."""
        warnings.warn(sentence, FewShotWarning, stacklevel=3)


class Staged:
    """A :class:`Progress` that says in which part of the work a stage is.

    Parameters
    ----------
    progress
        Receives everything.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.part = ""

    def start(self, stage: str, total: int | None = None) -> None:
        """Pass on, with the part before the stage."""
        self._progress.start(f"{self.part}{stage}", total)

    def advance(self, steps: int = 1) -> None:
        """Pass on."""
        self._progress.advance(steps)

    def warn(self, sentence: str) -> None:
        """Pass on."""
        self._progress.warn(sentence)
