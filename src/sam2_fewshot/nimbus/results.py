"""Detections into the dataset, frame by frame, each once.

The dataset itself is the only record of what was done: a detection whose object is there already under the tags of the
results is not sent. So a job that died can be run again, and so can one that is complete. Where an answer gets
lost, the annotations are looked up before anything is sent again.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from shapely import Polygon

from sam2_fewshot.annotations.nimbus import location_of, points_of, polygon_document, values_of
from sam2_fewshot.errors import ServerError
from sam2_fewshot.methods.selection import AS_SET
from sam2_fewshot.nimbus.existing import IDENTICAL, Existing, match
from sam2_fewshot.nimbus.figures import Connections, Properties
from sam2_fewshot.nimbus.messages import listed
from sam2_fewshot.nimbus.parameters import quoted
from sam2_fewshot.nimbus.server import Patience, Refused, Unanswered
from sam2_fewshot.nimbus.shelf import BlockShelf
from sam2_fewshot.records import Kind, Location
from sam2_fewshot.runner.blocks import StoredBlocks
from sam2_fewshot.runner.progress import Watch
from sam2_fewshot.runner.tasks import Task
from sam2_fewshot.storage.digests import code_digest, common_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sam2_fewshot.annotations.nimbus import Document
    from sam2_fewshot.nimbus.dataset import NimbusDataset
    from sam2_fewshot.nimbus.messages import JobDisplay
    from sam2_fewshot.nimbus.parameters import Request
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.nimbus.shelf import Shelf
    from sam2_fewshot.records import Detection, FrameReader
    from sam2_fewshot.runner.tasks import Progressed, TaskResult
    from sam2_fewshot.segmenter import FewShotSegmenter

MOST_ANNOTATIONS = 1000
MOST_VERTICES = 100_000
"""In one request; 5,000 outlines of 40 vertices in one were fine on a small server."""
_SEPARATELY = frozenset({400, 413})
"""These refuse one of the annotations, or all together as too large for a proxy in between."""
_MOST_FAILURES = 3
"""So many frames in a row that cannot be done are no trouble of a single one."""
_MOST_REFUSED = 20
"""So many annotations refused one by one are no slip in a single one."""


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a frame's detections.

    Parameters
    ----------
    new
        Number that was added.
    present
        Number whose objects were there already.
    """

    new: int
    present: int


class DatasetSink:
    """Adds detections to one dataset; the :class:`~sam2_fewshot.runner.tasks.Sink` of a job.

    Parameters
    ----------
    server
        The connection.
    dataset
        Where they go.
    request
        Their tags, and what they are connected to.
    display
        Shows what the server refuses, and what became of each frame.
    patience
        How long to look for what an unanswered request has done.
    shelf
        Keeps figures while they are replaced.
    blocks
        Keeps the finished blocks of large frames.
    most_annotations
        In one request.
    code
        Digest of the code, on which blocks depend; that of this program when left out.
    """

    def __init__(
        self,
        server: Server,
        dataset: NimbusDataset,
        request: Request,
        display: JobDisplay,
        patience: Patience,
        shelf: Shelf,
        blocks: Shelf,
        most_annotations: int = MOST_ANNOTATIONS,
        code: str | None = None,
    ) -> None:
        self._server = server
        self._dataset = dataset
        self._request = request
        self._display = display
        self._watch = Watch(display)
        self._blocks = blocks
        self._patience = patience
        self._most_annotations = most_annotations
        self._code = code or code_digest(whole=True)
        self._channel = request.result_channel(dataset.size)
        self._existing = Existing(server, dataset.id, request.output_tags)
        self._properties = Properties(server, dataset, display, shelf)
        self._connections = Connections(server, dataset.id, request.connect_to, patience)
        self._refused = 0
        self._lost = False
        self._frame_keys = ""
        self._stored: dict[Location, BlockShelf] = {}
        self._empty: list[str] = []
        self.new = self.present = 0

    def prepare(self) -> None:
        """Read what is there, and make the property. Before the heavy work, so that what is forbidden is known early.

        Raises
        ------
        ServerError
            If the server does not tell.
        """
        self._existing.load()
        self._properties.prepare()

    def has(self, frame: FrameReader) -> bool:
        """Return False: what is in the dataset already is found out when it is about to be sent."""
        return False

    def learned(self, segmenter: FewShotSegmenter) -> None:
        """Take note of all that the blocks of a frame depend on."""
        self._frame_keys = learned_key(segmenter, self._code)

    @contextmanager
    def opened(self, progressed: Progressed) -> Iterator[None]:
        """Take frames; at the end, settle what two jobs, or a request sent twice, have added at the same time.

        Raises
        ------
        ServerError
            If the server does not tell. What it has taken stays.
        """
        yield
        empty = self._empty
        if len(empty) == progressed.frames:
            self._display.warn(
                "Nothing was found. Lower the Similarity Threshold, or mark further examples that look like the "
                "objects that are missing."
            )
        elif empty:
            self._display.warn(f"Nothing was found on {len(empty)} of {progressed.frames} frames ({listed(empty)}).")
        if self._connections.in_vain and self._request.connect_to:
            tags = ", ".join(quoted(tag) for tag in self._request.connect_to.tags)
            self._display.warn(
                f"No object was connected: nothing on these frames has the tag {tags}. Check the spelling and the "
                "channel that the tool connects to."
            )
        if self.new:
            self._existing.update(force=self._lost)
            self._remove_duplicates()
        self._properties.finish()

    def task(self, frame: FrameReader, name: str) -> Task:
        """Return what is to be done for a frame."""
        key = common_key(self._frame_keys, self._dataset.fingerprint(frame.location))
        shelf = self._stored[frame.location] = BlockShelf(self._blocks, key, self._display.messages.log)
        threshold = self._request.settings.similarity_threshold
        return Task(frame, name, store=StoredBlocks(shelf, name, frame.shape, threshold, self._watch))

    def failed(self, task: Task, result: TaskResult, in_a_row: int) -> None:
        """Go on with the other frames, unless the server is gone or no frame can be done.

        Raises
        ------
        ServerError
            If it ends the job.
        """
        error = result.cause
        if isinstance(error, ServerError) and (not isinstance(error, Refused) or error.status in (401, 403)):
            raise error
        if in_a_row >= _MOST_FAILURES:
            raise ServerError(
                f"{in_a_row} frames in a row could not be done, the last one ({task.name}) because: {result.trouble} "
                f"{self._server.again}."
            )

    def add(self, task: Task, result: TaskResult) -> None:
        """Add a frame's detections with their values and connections.

        Raises
        ------
        ServerError
            If the server takes nothing more. What it has taken stays.
        """
        found = result.found
        added = self._add(task.frame.location, found.detections)
        self._stored.pop(task.frame.location).drop()
        self._server.again = "Finished frames are kept; run the tool again"
        self._display.last = f"; last: {added.new} added of {found.candidates} candidates"
        if not found.detections:
            self._empty.append(task.name)
        counts = f"{found.candidates} candidates, {added.new} added, {added.present} already there."
        if found.reason not in ("", AS_SET):
            counts += f" The threshold is {found.threshold:.3f}: {found.reason}."
        self._display.messages.log(f"{task.name}: {counts}")

    def _add(self, location: Location, detections: Sequence[Detection]) -> Added:
        self._existing.update()
        # The examples are in the dataset: they were read from it.
        sendable = [item for item in detections if item.kind != Kind.EXAMPLE and _can_be_sent(item)]
        # An annotation has no holes, so an outline is compared without its own.
        outlines = [Polygon(item.polygon.exterior) for item in sendable]
        found = match(outlines, self._existing.on(location))
        fresh = [item for item, there in zip(sendable, found, strict=True) if there is None]
        ids = self._upload([self._document(item, location) for item in fresh])
        values = {key: values_of(item) for key, item in zip(ids, fresh, strict=True) if key}
        created = list(values)
        # The same outline may be from a run that died before its values or connections were there.
        same = [(item, there) for item, there in zip(sendable, found, strict=True) if there and there.same_outline]
        self._properties.add(
            values,
            {there.known.id: values_of(item) for item, there in same},
            {there.known.id for _, there in same if there.likeness == IDENTICAL},
        )
        self._connections.connect(created, [there.known.id for _, there in same])
        present = len(sendable) - len(fresh)
        self.new += len(created)
        self.present += present
        return Added(len(created), present)

    def _document(self, item: Detection, location: Location) -> Document:
        return polygon_document(item.polygon, location, self._request.output_tags, self._channel, self._dataset.id)

    def _upload(self, documents: Sequence[Document]) -> list[str | None]:
        """Create annotations and return their ids, None for one that the server refuses."""
        ids: list[str | None] = []
        for chunk in _chunks(documents, self._most_annotations):
            ids += self._create(chunk)
        return ids

    def _create(self, documents: list[Document]) -> list[str | None]:
        try:
            answer = self._server.send("saving annotations", "POST", "upenn_annotation/multiple", documents)
        except Refused as error:
            if error.status not in _SEPARATELY:
                raise
            return self._create_separately(documents, error)
        except Unanswered as error:
            return self._create_missing(documents, error)
        ids = [str(document["_id"]) for document in answer]
        if len(ids) != len(documents):
            raise ServerError(
                f"The server was sent {len(documents)} annotations and answered with {len(ids)}; it may be a version "
                "that this worker does not know."
            )
        for key, document in zip(ids, documents, strict=True):
            self._existing.add_own(key, document)
        return [*ids]

    def _create_separately(self, documents: list[Document], error: Refused) -> list[str | None]:
        """Find which of the annotations the server refuses: a single one makes it refuse them all."""
        if len(documents) > 1:
            half = len(documents) // 2
            return self._create(documents[:half]) + self._create(documents[half:])
        self._refused += 1
        if self._refused > _MOST_REFUSED:
            raise error
        place = location_of(documents[0])
        name = self._dataset.name(place) if place else "a frame"
        points = points_of(documents[0])
        x, y = points[0] if len(points) else (0.0, 0.0)
        self._display.warn(
            f"The server refused one object on {name}, near x {x:.0f}, y {y:.0f} ({error.reason or error}); the others "
            "are saved."
        )
        return [None]

    def _create_missing(self, documents: list[Document], error: Unanswered) -> list[str | None]:
        """After a lost answer, look which of the annotations are there, and send the others."""
        self._lost = True
        for wait in self._patience.waits():
            time.sleep(wait)
            self._existing.update(force=True)
            ids = self._claim(documents)
            missing = [document for document, key in zip(documents, ids, strict=True) if key is None]
            if not missing:
                return [*ids]
            try:
                answer = self._server.send("saving annotations", "POST", "upenn_annotation/multiple", missing)
            except Unanswered:
                continue
            except Refused as refused:
                if refused.status not in _SEPARATELY:
                    raise
                sent = iter(self._create_separately(missing, refused))
            else:
                sent = iter([str(document["_id"]) for document in answer])
            complete: list[str | None] = []
            for key, document in zip(ids, documents, strict=True):
                now = key or next(sent)
                if now:
                    self._existing.add_own(now, document)
                complete.append(now)
            return complete
        raise error

    def _claim(self, documents: Sequence[Document]) -> list[str | None]:
        """Return the ids of annotations of ours that were stored although their answer got lost."""
        places = {location for document in documents if (location := location_of(document))}
        there = {
            (location, known.points.tobytes()): known.id for location in places for known in self._existing.on(location)
        }
        ids = [
            there.get((location_of(document) or Location(), points_of(document).tobytes())) for document in documents
        ]
        for key, document in zip(ids, documents, strict=True):
            if key:
                self._existing.add_own(key, document)
        return ids

    def _remove_duplicates(self) -> None:
        """Of two annotations of one object that were made at the same time, keep the one with the smaller id.

        Both jobs see the same two ids, so both decide alike. A duplicate of which no job has an id is one of ours that
        a lost request made after all.
        """
        duplicates, replacements = [], {}
        for own, other in list(self._existing.rivals()):
            same = np.array_equal(own.points, other.points)
            if other.id < own.id:
                duplicates.append(own.id)
                self.new -= 1
                if same:
                    replacements[own.id] = other.id
            elif same and self._lost:
                duplicates.append(other.id)
        if not duplicates:
            return
        self._properties.pass_on(replacements)
        self._server.send("taking out doubles", "DELETE", "upenn_annotation/multiple", duplicates)
        for key in duplicates:
            self._existing.forget(key)


def learned_key(segmenter: FewShotSegmenter, code: str) -> str:
    """Return what tells all that the result of a frame depends on, but for the frame."""
    objects = hashlib.sha256(segmenter.object_model.to_bytes()).hexdigest()
    return common_part(code, segmenter.settings, segmenter.model_sha256, [], {"objects": objects})


def common_key(common: str, fingerprint: str) -> str:
    """Return what tells all that the result of one frame depends on, as 64 hexadecimal digits."""
    return hashlib.sha256(f"{common} {fingerprint}".encode()).hexdigest()


def _can_be_sent(item: Detection) -> bool:
    """Tell whether an outline can be drawn: the server takes two points for a polygon, the app does not."""
    coordinates = np.asarray(item.polygon.exterior.coords)
    return len(coordinates) >= 4 and bool(np.isfinite(coordinates).all()) and item.polygon.area > 0


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
