"""A listener to the program that keeps what the user is warned of."""

from __future__ import annotations


class Told:
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def warn(self, sentence: str) -> None:
        self.sentences.append(sentence)
