"""The frames that a journal holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.output.journal import Journal
    from sam2_fewshot.records import Location


def recorded(journal: Journal, locations: Iterable[Location]) -> list[FrameRecord]:
    """Return the finished frames at some locations, in this order."""
    return [record for record in map(journal.done, locations) if record is not None]
