"""The range syntax of ``--batch-xy``, ``--batch-z`` and ``--batch-time``: ``1-3, 5-8`` or ``all``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sam2_fewshot.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PART = re.compile(r"([0-9]+)(?:\s*[-\u2013]\s*([0-9]+))?")
_LONGEST_QUOTE = 40


def parse_range(text: str | None, count: int, field: str, blank: Sequence[int] | None = None) -> tuple[int, ...]:
    """Turn what a user typed into indices.

    Parameters
    ----------
    text
        Numbers and inclusive ranges as a user counts, from 1, with commas between: ``"1-3, 5-8"``. ``"all"``
        (in any case, alone or as one of the parts) means everything.
    count
        How many there are; the highest number allowed.
    field
        Name of the field, for messages.
    blank
        What an empty or missing text means, counted from 0; everything when left out.

    Returns
    -------
    tuple of int
        Counted from 0, sorted, each once.

    Raises
    ------
    SettingsError
        For anything else. Nothing is dropped in silence: a number that does not exist is refused too.
    """
    everything = tuple(range(count))
    if text is None or not text.strip():
        return everything if blank is None else tuple(sorted(set(blank)))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise _error(text, field, "has no number", count)
    chosen: set[int] = set()
    for part in parts:
        chosen.update(everything if part.lower() == "all" else _part(part, count, field))
    return tuple(sorted(chosen))


def _part(part: str, count: int, field: str) -> range:
    found = _PART.fullmatch(part)
    if found is None:
        raise _error(part, field, "is not a number or a range", count)
    if max(len(group or "") for group in found.groups()) > _LONGEST_QUOTE:
        raise _error(part, field, "does not exist", count)
    first = int(found[1])
    last = int(found[2]) if found[2] else first
    if first > last:
        raise SettingsError(f"{field}: {part!r} runs backwards; write '{last}-{first}'.")
    if first < 1 or last > count:
        raise _error(part, field, "does not exist", count)
    return range(first - 1, last)


def _error(part: str, field: str, problem: str, count: int) -> SettingsError:
    shown = part if len(part) <= _LONGEST_QUOTE else part[:_LONGEST_QUOTE] + "…"
    if count == 1:
        return SettingsError(f"{field}: {shown!r} {problem}; only 1 is valid here, so leave it out or give 'all'.")
    return SettingsError(f"{field}: {shown!r} {problem}; 1-{count} is valid here, for instance '1-3, 5' or 'all'.")
