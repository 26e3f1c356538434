"""Annotations into the dataset, each once, whatever becomes of the requests.

Where an answer gets lost, the annotations are looked up, for as long as the request may be on its way, before anything
is sent again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sam2_fewshot.annotations.nimbus import location_of, points_of
from sam2_fewshot.errors import ServerError
from sam2_fewshot.nimbus.marks import content_of
from sam2_fewshot.nimbus.server import Refused, Unanswered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.annotations.nimbus import Document
    from sam2_fewshot.nimbus.dataset import NimbusDataset
    from sam2_fewshot.nimbus.existing import Existing
    from sam2_fewshot.nimbus.marks import OwnerMark
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.protocols import Progress

MOST_ANNOTATIONS = 1000
MOST_VERTICES = 100_000
"""In one request; 5,000 outlines of 40 vertices in one were fine on a small server."""
_SEPARATELY = frozenset({400, 413})
"""These refuse one of the annotations, or all together as too large for a proxy in between."""
_MOST_REFUSED = 20
"""So many annotations refused one by one are no slip in a single one."""


class Uploads:
    """Creates the annotations of a job.

    Parameters
    ----------
    server
        The connection.
    dataset
        Where they go.
    progress
        Is warned of what the server refuses.
    existing
        What is there; takes note of those that are created.
    mark
        That of the job, which is put on each.
    most
        So many in one request.
    """

    def __init__(
        self,
        server: Server,
        dataset: NimbusDataset,
        progress: Progress,
        existing: Existing,
        mark: OwnerMark,
        most: int,
    ) -> None:
        self._server = server
        self._dataset = dataset
        self._progress = progress
        self._existing = existing
        self._mark = mark
        self._most = most
        self.created = self.refused = 0
        """Number of annotations that the server has taken, and of those that it has refused one by one."""

    def upload(self, documents: Sequence[Document]) -> list[str | None]:
        """Create annotations and return their ids, None for one that the server refuses.

        Raises
        ------
        ServerError
            If the server takes nothing more, or refuses too many one by one.
        """
        ids: list[str | None] = []
        for chunk in _chunks([self._mark.put_on(document) for document in documents], self._most):
            ids += self._create(chunk)
        self.created += sum(key is not None for key in ids)
        return ids

    def _create(self, documents: list[Document]) -> list[str | None]:
        """Create annotations; after a lost answer, look which of them are there, and send the others."""
        ids: list[str | None] = [None] * len(documents)
        waits = self._server.patience.waits()
        while missing := [document for document, key in zip(documents, ids, strict=True) if key is None]:
            try:
                created = iter(self._send(missing))
            except Refused as error:
                if error.status not in _SEPARATELY:
                    raise
                created = iter(self._create_separately(missing, error))
            except Unanswered:
                wait = next(waits, None)
                if wait is None:
                    raise
                ids = self._look_for(documents, wait)
                continue
            return [key or next(created) for key in ids]
        return ids

    def _send(self, documents: list[Document]) -> list[str | None]:
        answer = self._server.send("saving annotations", "POST", "upenn_annotation/multiple", documents)
        if len(answer) != len(documents):
            raise ServerError(
                f"The server was sent {len(documents)} annotations and answered with {len(answer)}; it may be a "
                "version that this worker does not know."
            )
        ids = [str(document["_id"]) for document in answer]
        for key, document in zip(ids, documents, strict=True):
            self._existing.add_own(key, document)
        return [*ids]

    def _create_separately(self, documents: list[Document], error: Refused) -> list[str | None]:
        """Find which of the annotations the server refuses: a single one makes it refuse them all."""
        if len(documents) > 1:
            half = len(documents) // 2
            return self._create(documents[:half]) + self._create(documents[half:])
        self.refused += 1
        if self.refused > _MOST_REFUSED:
            raise error
        place = location_of(documents[0])
        name = self._dataset.name(place) if place else "a frame"
        points = points_of(documents[0])
        x, y = points[0] if len(points) else (0.0, 0.0)
        self._progress.warn(
            f"The server refused one object on {name}, near x {x:.0f}, y {y:.0f} ({error.reason or error}); it is left "
            "out."
        )
        return [None]

    def _look_for(self, documents: Sequence[Document], least: float) -> list[str | None]:
        """Look for annotations as long as the request that makes them may be on its way; return their ids."""
        ids: list[str | None] = [None] * len(documents)
        for wait in self._server.patience.looks(least):
            time.sleep(wait)
            self._existing.update(force=True)
            ids = self._claim(documents)
            if all(ids):
                break
        return ids

    def _claim(self, documents: Sequence[Document]) -> list[str | None]:
        """Return the ids of annotations of ours that were stored although their answer got lost."""
        places = {location for document in documents if (location := location_of(document))}
        known = [item for location in places for item in self._existing.on(location)]
        # Copies that others have made at the same time do as well, if there is none of ours.
        known.sort(key=lambda item: (item.mark != self._mark, item.id))
        there: dict[bytes, str] = {}
        for item in known:
            there.setdefault(item.content, item.id)
        ids = [there.get(content_of(document)) for document in documents]
        for key, document in zip(ids, documents, strict=True):
            if key:
                self._existing.add_own(key, document)
        return ids


def _chunks(documents: Sequence[Document], most: int) -> list[list[Document]]:
    chunks: list[list[Document]] = []
    vertices_in = MOST_VERTICES
    for document in documents:
        count = len(document["coordinates"])
        if vertices_in + count > MOST_VERTICES or len(chunks[-1]) >= most:
            chunks.append([])
            vertices_in = 0
        chunks[-1].append(document)
        vertices_in += count
    return chunks
