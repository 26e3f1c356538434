"""What tells an object that this tool has made, and that nobody has changed since, from the user's own.

The server keeps neither author nor date of an annotation. But it stores every key that is sent with a new one, and an
edit changes only the keys that the app knows: outline, tags, channel, place, colour, name. So each object is sent with
a mark, which holds a digest of these. While the digest fits, the object is as it was made. A copy that a user draws has
no mark.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam2_fewshot.annotations.nimbus import location_of, points_of, tags_of
from sam2_fewshot.annotations.values import json_number, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.annotations.nimbus import Document

KEY = "sam2_fewshot"
"""Under which the mark is stored; no key of NimbusImage's own."""
_BYTES = 8


@dataclass(frozen=True, slots=True)
class OwnerMark:
    """Whose an object is.

    Parameters
    ----------
    job
        The job that made it, a random word.
    examples
        The training tags of that job: what the object was detected as.
    smoothing
        The Smoothing of its outline; None where an earlier version has not noted it.
    """

    job: str
    examples: tuple[str, ...]
    smoothing: float | None = None

    def put_on(self, document: Document) -> Document:
        """Return an annotation that is about to be sent with this mark on it."""
        content = content_of(document).hex()
        mark = {"job": self.job, "examples": list(self.examples), "smoothing": self.smoothing, "content": content}
        return {**document, KEY: mark}

    def looks_for(self, tags: Sequence[str]) -> bool:
        """Tell whether the object was detected from examples with any of these tags."""
        return not set(tags).isdisjoint(self.examples)


def is_marked(document: Document) -> bool:
    """Tell whether an annotation was made by this tool, whatever has become of it since."""
    return KEY in document


def mark_of(document: Document, content: bytes | None = None) -> OwnerMark | None:
    """Return the mark of an annotation that is as it was made; None for one that was edited, and for the user's own.

    What :func:`content_of` gives may be passed where it is known.
    """
    mark = document.get(KEY)
    if not isinstance(mark, dict) or not isinstance(mark.get("job"), str):
        return None
    made = content_of(document) if content is None else content
    if mark.get("content") != made.hex():
        return None
    return OwnerMark(mark["job"], words(mark.get("examples")), json_number(mark.get("smoothing")))


def content_of(document: Document) -> bytes:
    """Return a digest of all that a user can change about an annotation. Exact copies, and only they, have the same."""
    place = location_of(document)
    parts = (
        document.get("shape"),
        sorted(tags_of(document)),
        document.get("channel"),
        None if place is None else (place.xy, place.z, place.time),
        document.get("color"),
        document.get("name"),
    )
    text = json.dumps(parts).encode()
    return hashlib.sha256(text + points_of(document).tobytes()).digest()[:_BYTES]
