"""A listener to the program that keeps what the user is warned of."""

from __future__ import annotations


class Told:
    """A Progress that remembers the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)

    @property
    def only(self) -> str:
        """The one warning that there is."""
        assert len(self.warnings) == 1, self.warnings
        return self.warnings[0]
