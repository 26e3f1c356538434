"""A display that remembers the warnings of the run and of each frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2_fewshot.job.display import Display


class Watch:
    """Passes everything on to a :class:`~sam2_fewshot.job.display.Display`; a sentence is warned of once.

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
