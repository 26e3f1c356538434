"""How often the program calls a function of its own, which stays as it is."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def calls_of(function: Callable[..., Any]) -> Iterator[list[str]]:
    """Note each call of a function in this thread, by the caller's name."""
    code = function.__code__  # type: ignore[attr-defined]
    callers: list[str] = []
    outer = sys.getprofile()

    def note(frame: Any, event: str, argument: Any) -> None:
        if outer is not None:
            outer(frame, event, argument)
        if event == "call" and frame.f_code is code:
            callers.append(frame.f_back.f_code.co_name)

    sys.setprofile(note)
    try:
        yield callers
    finally:
        sys.setprofile(outer)
