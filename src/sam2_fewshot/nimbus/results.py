"""Detections into the dataset, frame by frame, each once.

The dataset itself is the only record of what was done: a detection whose object is there already under the tags and in
the channel of the results is not sent. So a job that died can be run again, and so can one that is complete.
"""

from __future__ import annotations

import hashlib
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely import Polygon

from sam2_fewshot.annotations.nimbus import areas_of, polygon_document, values_of
from sam2_fewshot.errors import ServerError
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.geometry.overlap import touching
from sam2_fewshot.methods.base import is_known
from sam2_fewshot.methods.selection import AS_SET, to_find_more
from sam2_fewshot.nimbus.cleaning import Cleaner
from sam2_fewshot.nimbus.connections import Connections
from sam2_fewshot.nimbus.examples import location_on
from sam2_fewshot.nimbus.existing import Existing
from sam2_fewshot.nimbus.figures import Properties
from sam2_fewshot.nimbus.marks import OwnerMark
from sam2_fewshot.nimbus.matching import IDENTICAL, match
from sam2_fewshot.nimbus.messages import in_short
from sam2_fewshot.nimbus.server import Refused
from sam2_fewshot.nimbus.shelf import BlockShelf
from sam2_fewshot.nimbus.uploads import Uploads
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.runner.blocks import StoredBlocks
from sam2_fewshot.runner.progress import Watch
from sam2_fewshot.runner.tasks import Task
from sam2_fewshot.settings import quoted
from sam2_fewshot.storage.digests import code_digest, common_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sam2_fewshot.nimbus.dataset import NimbusDataset
    from sam2_fewshot.nimbus.matching import Match, StoredAnnotation
    from sam2_fewshot.nimbus.messages import JobDisplay
    from sam2_fewshot.nimbus.parameters import Request
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.nimbus.shelf import Shelf
    from sam2_fewshot.records import Detection, Exemplar, FrameReader, Location
    from sam2_fewshot.runner.tasks import Progressed, TaskResult
    from sam2_fewshot.segmenter import FewShotSegmenter

_MOST_FAILURES = 3
"""So many frames in a row that cannot be done, on as many XY positions, are no trouble of a single file."""


class DatasetSink:
    """Adds detections to one dataset; the :class:`~sam2_fewshot.runner.tasks.Sink` of a job.

    Whatever asks the server raises ServerError if that refuses, or does not answer. What it has taken stays.

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
    shelf
        Keeps figures while they are replaced.
    blocks
        Keeps the finished blocks of large frames.
    most_annotations
        In one request.
    code
        Digest of the code, on which blocks depend; None for that of this program.
    """

    def __init__(
        self,
        server: Server,
        dataset: NimbusDataset,
        request: Request,
        display: JobDisplay,
        shelf: Shelf,
        blocks: Shelf,
        most_annotations: int,
        code: str | None,
    ) -> None:
        self._server = server
        self._dataset = dataset
        self._request = request
        self._display = display
        self._watch = Watch(display)
        self._blocks = blocks
        self._code = code or code_digest()
        self._channel = request.result_channel(dataset.size)
        examples = request.training_tags
        self._mark = OwnerMark(secrets.token_hex(4), examples, request.settings.smoothing)
        tags = request.output_tags
        self._existing = Existing(server, dataset.id, tags, self._channel, request.negative_tags, examples)
        self._properties = Properties(server, dataset, display, shelf, self._existing)
        self._connections = Connections(server, dataset.id, request.connect_to, self._existing)
        self._cleaner = Cleaner(server, self._existing, self._properties, self._connections, examples)
        self._uploads = Uploads(server, dataset, display, self._existing, self._mark, most_annotations)
        self._common = ""
        self._stored: dict[Location, BlockShelf] = {}
        self._outlined: Sequence[Exemplar] = ()
        self._empty: list[str] = []
        self._only_examples: list[str] = []
        self._positions: set[int] = set()
        self._failing: set[int] = set()
        self._is_some_done = False
        self._new = self._present = 0

    def prepare(self, outlined: Sequence[Exemplar]) -> None:
        """Read what is there, delete what is there twice, and make the property.

        Before the heavy work, so that what is forbidden is known early.

        Parameters
        ----------
        outlined
            Examples whose objects are not added on their own frame.
        """
        self._outlined = outlined
        self._existing.load()
        self._properties.prepare()
        self._cleaner.begin()

    def has(self, frame: FrameReader) -> bool:
        """Return False: what is in the dataset already is found out when it is about to be sent."""
        return False

    def learned(self, segmenter: FewShotSegmenter) -> None:
        """Take note of all that the blocks of a frame depend on."""
        objects = hashlib.sha256(segmenter.object_model.to_bytes()).hexdigest()
        self._common = common_part(self._code, segmenter.settings, segmenter.model_sha256, [], {"objects": objects})

    @contextmanager
    def opened(self, progressed: Progressed) -> Iterator[None]:
        """Take frames; at the end, delete what is out of date, and what two jobs or a lost request have left double."""
        try:
            yield
        except BaseException:
            if left := self._cleaner.waiting:
                self._display.warn(
                    f"Earlier results that are not detected any more ({left} on the finished frames) are still there, "
                    "because this job did not come to its end. The next job on these frames takes them out."
                )
            raise
        refused = self._uploads.refused
        if refused and not self._uploads.created:
            objects = "the one object that it was sent" if refused == 1 else f"all {refused} objects that it was sent"
            raise ServerError(
                f"The server refused {objects}, and nothing was saved. Run the tool again; if it "
                "happens again, show the job's log to the server's administrator."
            )
        empty = self._empty
        lower = to_find_more(self._request.settings, "Similarity Threshold", "Threshold Mode")
        if len(self._only_examples) == progressed.frames > 0:
            self._display.warn(
                f"Nothing was found besides the examples. If objects are missing, {lower}, or mark some of them as "
                "well."
            )
        elif len(empty) + len(self._only_examples) == progressed.frames:
            self._display.warn(
                f"Nothing was found. If objects are missing, {lower}, or mark further examples that look like them."
            )
        elif empty:
            self._display.warn(f"Nothing was found on {len(empty)} of {progressed.frames} frames ({in_short(empty)}).")
        if self._connections.in_vain and self._request.connect_to:
            to = self._request.connect_to
            tags = ", ".join(map(quoted, to.tags))
            where = "" if to.channel is None else f" in channel {to.channel + 1}"
            self._display.warn(
                f"No object was connected: nothing else on these frames has the tag {tags}{where}. Check the spelling "
                "and the channel that the tool connects to."
            )
        self._cleaner.finish()
        self._new -= self._cleaner.own
        if self._existing.has_company:
            self._display.warn(
                "Another job has added objects with the same tags meanwhile, and they stay as they are. If its "
                "settings were others, run the tool again when both are done."
            )
        if self._cleaner.doubles:
            self._display.say(f"{self._cleaner.doubles} objects that were there twice were taken out.")

    @property
    def summary(self) -> str:
        """What the job has done to the dataset so far, in words."""
        others = (
            (self._present, "already there"),
            (self._cleaner.outdated, "removed"),
            (self._uploads.refused, "refused by the server"),
        )
        return ", ".join([f"{self._new} added", *(f"{count} {what}" for count, what in others if count)])

    def task(self, frame: FrameReader, name: str) -> Task:
        """Return what is to be done for a frame."""
        key = hashlib.sha256(f"{self._common} {self._dataset.fingerprint(frame.location)}".encode()).hexdigest()
        shelf = self._stored[frame.location] = BlockShelf(self._blocks, key, self._display.say)
        self._positions.add(frame.location.xy)
        threshold = self._request.settings.similarity_threshold
        return Task(frame, name, store=StoredBlocks(shelf, name, frame.shape, threshold, self._watch))

    def failed(self, task: Task, result: TaskResult, in_a_row: int) -> None:
        """Go on with the other frames, unless the server is gone or no frame can be done.

        A position is often a file of its own. One that is damaged fails with all its slices and time points, which
        follow one another.

        Raises
        ------
        ServerError
            If it ends the job.
        """
        error = result.cause
        if isinstance(error, ServerError) and (not isinstance(error, Refused) or error.status in (401, 403)):
            raise error
        self._failing.add(task.frame.location.xy)
        is_hopeless = not self._is_some_done and self._failing == self._positions
        if in_a_row >= _MOST_FAILURES and (is_hopeless or len(self._failing) >= _MOST_FAILURES):
            again = "" if self._server.again in result.trouble else f" {self._server.again}."
            raise ServerError(
                f"{in_a_row} frames in a row could not be done, the last one ({task.name}) because: {result.trouble}"
                f"{again}"
            )

    def add(self, task: Task, result: TaskResult) -> None:
        """Add a frame's detections with their values and connections."""
        found = result.found
        marked = self._not_outlined(task.frame, found.examples)
        new, present = self._add(task.frame.location, [*found.detections, *marked])
        self._stored.pop(task.frame.location).drop()
        self._is_some_done = True
        self._failing.clear()
        self._server.again = "Finished frames are kept; run the tool again"
        self._display.last = f"; last: {new} added of {found.candidates + len(marked)} candidates"
        if not (found.detections or marked):
            (self._only_examples if found.examples else self._empty).append(task.name)
        counts = f"{found.candidates} candidates, {new} added, {present} already there."
        if marked:
            are = "1 is an example" if len(marked) == 1 else f"{len(marked)} are examples"
            counts += f" Of these objects {are}, which no annotation outlines here."
        if found.reason not in ("", AS_SET):
            counts += f" The threshold is {found.threshold:.3f}: {found.reason}."
        self._display.say(f"{task.name}: {counts}")

    def _not_outlined(self, frame: FrameReader, examples: Sequence[Detection]) -> list[Detection]:
        """Return the examples that no annotation outlines on a frame, although it shows them.

        Some are marked by points. Others lie on another frame that displays the same, such as one of the same
        projection: examples are known by the pixels.
        """
        here = [_mask_of(each, frame) for each in self._outlined if location_on(each) == frame.location]
        masks = [item.instance for item in examples]
        there = {i for i, k in touching(masks, here) if is_known(masks[i], [here[k]])}
        return [item for i, item in enumerate(examples) if i not in there]

    def _add(self, location: Location, detections: Sequence[Detection]) -> tuple[int, int]:
        """Return how many detections were added, and of how many the objects were there already."""
        self._existing.update()
        pairs = self._matched(location, [item for item in detections if _can_be_sent(item)])
        known = self._existing.on(location)
        self._warn_of_others(known)
        fresh = [(item, there) for item, there in pairs if there is None or self._is_better(there)]
        if fresh:
            self._connections.begin()
        tags = self._request.output_tags
        documents = [
            {**polygon_document(each.polygon, location, tags, self._channel), "datasetId": self._dataset.id}
            for each, _ in fresh
        ]
        ids = self._uploads.upload(documents)
        added = [(key, item, there) for key, (item, there) in zip(ids, fresh, strict=True) if key]
        areas = areas_of([item.polygon for _, item, _ in added], self._dataset.shape)
        values = {key: values_of(item, area) for (key, item, _), area in zip(added, areas, strict=True)}
        present = [(item, there) for item, there in pairs if there and not self._is_better(there)]
        self._properties.add(values, self._figures_of(present))
        # The same outline may be from a run that died before its connections were there.
        same = [there.known for _, there in present if there.same_outline and not there.known.is_of_another_tool]
        self._connections.connect(list(values), [known.id for known in same])
        successors = {there.known.id: key for key, _, there in added if there}
        claimed = {there.known.id for _, there in pairs if there} - successors.keys()
        self._cleaner.replace(known, claimed, successors)
        self._new += len(values)
        self._present += len(present)
        return len(values), len(present)

    def _figures_of(self, present: Sequence[tuple[Detection, Match]]) -> dict[str, dict[str, float | None]]:
        """Return the figures of annotations that are there, by id: those of their detections, with the own area.

        A piece of a detection, or several in one, has only its area: it is not what the scores are of.
        """
        alike = {there.known.id: item for item, there in present if there.is_alike}
        several = {known.id: known for _, there in present for known in (there.known, *there.pieces)}
        own = [
            known
            for known in several.values()
            if known.shape == "polygon" and not (known.is_negative or known.is_of_another_tool)
        ]
        areas = areas_of([Polygon(known.points) for known in own], self._dataset.shape)
        return {known.id: values_of(alike.get(known.id), area) for known, area in zip(own, areas, strict=True)}

    def _warn_of_others(self, known: Sequence[StoredAnnotation]) -> None:
        """Warn of results with just the tags of this job that were detected from quite other examples."""
        marks = [item.mark for item in known if item.mark and item.is_untouched]
        tags = sorted({tag for mark in marks if not mark.looks_for(self._mark.examples) for tag in mark.examples})
        if tags:
            self._display.warn(
                f"There are results with just the tags of this tool's, found from examples with the tag "
                f"{', '.join(map(quoted, tags))}. An object that both find is saved once, and the tool that saved it "
                "removes it for both. Give each tool a tag of its own for its results."
            )

    def _matched(self, location: Location, detections: Sequence[Detection]) -> list[tuple[Detection, Match | None]]:
        """Return detections with what is there of the same objects, without those that are not wanted.

        What is about to be replaced is looked at again first: somebody may have edited it while the job ran.
        """
        # An annotation has no holes, so an outline is compared without its own.
        outlines = [Polygon(item.polygon.exterior) for item in detections]
        while True:
            matched = match(outlines, self._existing.on(location))
            if not self._existing.look_again({at.known.id for at in matched if at and self._is_better(at)}):
                pairs = zip(detections, matched, strict=True)
                return [(item, there) for item, there in pairs if there is None or not there.known.is_negative]

    def _is_better(self, there: Match) -> bool:
        """Tell whether a detection takes the place of what an earlier job has made of the same object."""
        mark = there.known.mark
        if there.likeness == IDENTICAL or mark is None:
            return False
        is_smoothed_alike = mark.smoothing in (None, self._mark.smoothing)
        return not (there.same_outline and is_smoothed_alike) and self._cleaner.may_replace(there.known)


def _mask_of(exemplar: Exemplar, frame: FrameReader) -> InstanceMask:
    """Return the pixels that an example marks on its frame: of a box all in it, of a point a single one."""
    outline = shapely.box(*exemplar.box) if exemplar.box is not None else exemplar.polygon
    if outline is not None:
        return polygon_to_mask(outline, frame.shape)
    assert exemplar.point is not None
    x, y = exemplar.point
    return InstanceMask(np.ones((1, 1), bool), int(x), int(y), frame.shape)


def _can_be_sent(item: Detection) -> bool:
    """Tell whether an outline can be drawn: the server takes two points for a polygon, the app does not."""
    coordinates = np.asarray(item.polygon.exterior.coords)
    return len(coordinates) >= 4 and bool(np.isfinite(coordinates).all()) and item.polygon.area > 0
