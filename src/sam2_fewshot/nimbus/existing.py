"""What a dataset holds already under the tags of a job, so that nothing is there twice."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from shapely import Polygon

from sam2_fewshot.annotations.nimbus import location_of, points_of, tags_of
from sam2_fewshot.nimbus.marks import content_of, is_marked, mark_of
from sam2_fewshot.nimbus.matching import StoredAnnotation, match
from sam2_fewshot.nimbus.server import PAGE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from sam2_fewshot.annotations.nimbus import Document
    from sam2_fewshot.nimbus.marks import OwnerMark
    from sam2_fewshot.nimbus.matching import Match
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.records import Location


def list_annotations(
    server: Server, dataset_id: str, tags: Sequence[str] = (), after: str | None = None
) -> Iterator[Document]:
    """Return the annotations of a dataset in the order of their ids; ServerError where the server does not tell.

    Only those that have all of the tags, of which there may be none, and those whose id is larger than `after`.
    """
    return server.pages("reading the annotations", "upenn_annotation", _query(dataset_id, tags), after)


def _query(dataset_id: str, tags: Sequence[str]) -> dict[str, str]:
    return {"datasetId": dataset_id, **({"tags": json.dumps(list(tags))} if tags else {})}


_SLACK = 2
"""Seconds by which ids of several server processes may be out of order: an id begins with the second it was made."""


class Existing:
    """The annotations with the tags and the channel of a job's results, by frame, kept up to date.

    Whatever asks the server raises ServerError if that refuses, or does not answer.

    Parameters
    ----------
    server
        The connection.
    dataset_id
        The dataset's folder.
    tags
        The tags; an annotation with all of them counts. Without any, those without tags count.
    channel
        The channel, counted from 0. Those of others are other objects, but for what this tool has made in this one and
        the user has moved.
    negative_tags
        An annotation with any of these as well is no result any more.
    training_tags
        One with any of these is learned from.
    """

    def __init__(
        self,
        server: Server,
        dataset_id: str,
        tags: Sequence[str],
        channel: int = 0,
        negative_tags: Collection[str] = (),
        training_tags: Collection[str] = (),
    ) -> None:
        self._server = server
        self._dataset_id = dataset_id
        self._tags, self._channel = list(tags), channel
        self._negative, self._training = frozenset(negative_tags), frozenset(training_tags)
        self._known: dict[Location, dict[str, StoredAnnotation]] = defaultdict(dict)
        self._places: dict[str, Location | None] = {}
        """Where each annotation is that is there; None for one that is of another channel, or cannot be drawn."""
        self._own: dict[str, StoredAnnotation | None] = {}
        self._arrived: set[str] = set()
        self._marks: dict[OwnerMark, OwnerMark] = {}
        self._newest = ""
        self._counted = 0
        self.is_disturbed = False
        """Whether anybody else has added or deleted some of these annotations since the job began."""
        self.left: set[str] = set()
        """Ids of annotations that were there before they were read again, and were not then."""

    def load(self) -> None:
        """Read what is there when the job begins."""
        self._counted = self._count()
        self._read(None)

    def update(self, force: bool = False) -> list[StoredAnnotation]:
        """Read what others have added since, and return it; one small request as long as nobody has.

        With `force`, look even if the number of annotations is as expected.
        """
        count = self._count()
        self.is_disturbed |= count != self._counted
        # Another job that takes out its doubles may have added as many as it deleted.
        if count == self._counted and not force and not self._arrived:
            return []
        self._counted = count
        new = self._read(just_before(self._newest))
        self._arrived.update(known.id for known in new)
        self.is_disturbed |= bool(new)
        return new

    def reload(self) -> None:
        """Read everything again, to see what was edited or deleted meanwhile."""
        self._counted = self._count()
        before, self._places = self._places, {}
        self._known.clear()
        new = self._read(None)
        self.left |= before.keys() - self._places.keys()
        self._arrived.update(known.id for known in new if known.id not in before and known.id not in self._own)

    def check(self) -> None:
        """Look whether the newest object that this job has made is there still; one small request if it has made any.

        Where another job has taken out as many doubles as it had added, the number of annotations is as expected.
        """
        if self._own and not self.is_disturbed:
            newest = self._server.find("looking for an annotation", f"upenn_annotation/{max(self._own)}")
            self.is_disturbed = newest is None

    def on(self, location: Location) -> list[StoredAnnotation]:
        """Return what is known to be on a frame."""
        return list(self._known[location].values())

    def has_arrived(self, annotation_id: str) -> bool:
        """Tell whether somebody else has added an annotation since the job began."""
        return annotation_id in self._arrived

    @property
    def has_company(self) -> bool:
        """Whether another job under the same tags has added an annotation since this one began that is there still."""
        return any(known.is_untouched and known.id in self._arrived for known in self.everything())

    def everything(self) -> Iterator[StoredAnnotation]:
        """Return all annotations, frame by frame."""
        for known in self._known.values():
            yield from known.values()

    def has(self, annotation_id: str) -> bool:
        """Tell whether an annotation was there when the server was asked last."""
        return annotation_id in self._places

    def by_frame(self, ids: Collection[str]) -> list[list[str]]:
        """Return those of some annotations that are there, by the frame that they lie on."""
        frames = defaultdict(list)
        for key in sorted(ids):
            if (place := self._places.get(key)) is not None:
                frames[place].append(key)
        return list(frames.values())

    def doubles(self) -> dict[str, str]:
        """Return exact copies that this tool has made and nobody has touched, with the one of each that stays.

        That is the one with the smallest id. Whoever looks chooses the same, or a still smaller one that the others
        have not seen yet, so that one is left over however many jobs look at once.
        """
        return _survivors(known for known in self.everything() if known.is_untouched)

    def unmarked_doubles(self) -> dict[str, str]:
        """Return exact copies without a mark; only those that have this tool's figures are surely no user's."""
        everything = (known for known in self.everything() if known.is_exact)
        return _survivors(known for known in everything if not known.is_marked and not known.is_negative)

    def rivals(self) -> dict[str, Match]:
        """Return own annotations of an object that another job has added before, by their ids."""
        found = {}
        for known in self._known.values():
            own = [item for item in known.values() if item.id in self._own and item.is_untouched]
            others = [item for item in known.values() if item.id in self._arrived]
            others = [item for item in others if not (item.is_negative or item.is_of_another_tool)]
            if own and others:
                outlines = [Polygon(item.points) for item in own]
                for item, other in zip(own, match(outlines, others), strict=True):
                    if other is not None and other.known.id < item.id:
                        found[item.id] = other
        return found

    def vanished(self) -> dict[str, str | None]:
        """Return own annotations that are not among the others any more, with an untouched copy where there is one."""
        missing = {key: known for key, known in self._own.items() if key not in self._places}
        if not missing:
            return {}
        there: dict[bytes, str] = {}
        for known in self.everything():
            if known.is_untouched:
                there[known.content] = min(known.id, there.get(known.content, known.id))
        return {key: there.get(known.content) if known else None for key, known in missing.items()}

    def add_own(self, annotation_id: str, document: Document) -> None:
        """Take note of an annotation that this job has made."""
        if annotation_id not in self._places:
            self._counted += 1
        self._arrived.discard(annotation_id)
        self._own[annotation_id] = self._note(annotation_id, document)
        self._newest = max(self._newest, annotation_id)

    def forget(self, ids: Collection[str]) -> int:
        """Take note that this job has deleted some annotations; return how many of them it had made."""
        deleted = {key for key in ids if key in self._places}
        self._counted -= len(deleted)
        for key in deleted:
            self._take_off(key)
            del self._places[key]
        return sum(self._own.pop(key, None) is not None for key in deleted)

    def deleted(self, ids: Collection[str]) -> set[str]:
        """Ask which of some annotations are there no more at all; their tags may merely have been changed."""
        return set(ids).difference(str(document["_id"]) for document in self._documents(ids))

    def still_untouched(self, ids: Collection[str]) -> set[str]:
        """Ask which of some untouched annotations are so still; somebody may have edited or deleted the others."""
        return {str(document["_id"]) for document in self._documents(ids) if mark_of(document) is not None}

    def look_again(self, ids: Collection[str]) -> bool:
        """Ask for some untouched annotations again; return whether somebody has edited or deleted any of them.

        What has lost the tags of the results stays among those of its frame until everything is read again, so that its
        object is not added anew.
        """
        documents = {str(document["_id"]): document for document in self._documents(ids)}
        changed = {key for key in ids if key not in documents or mark_of(documents[key]) is None}
        for key in changed:
            if key in documents:
                self._note(key, documents[key])
            else:
                self._take_off(key)
        return bool(changed)

    def _documents(self, ids: Collection[str]) -> Iterator[Document]:
        """Ask for some annotations; yield those that are there.

        A list can begin after any id, and what a job has made on a frame lies together. So each request begins with the
        first that is left, and asks for no more than are left.
        """
        left = sorted(ids)
        while left:
            before, most = f"{int(left[0], 16) - 1:024x}", min(len(left), PAGE)
            query = {"datasetId": self._dataset_id}
            found = self._server.page("looking for annotations", "upenn_annotation", query, before, most)
            yield from (document for document in found if str(document["_id"]) in ids)
            if len(found) < most:
                return
            left = left[bisect_right(left, str(found[-1]["_id"])) :]

    def _count(self) -> int:
        query = _query(self._dataset_id, self._tags)
        return int(self._server.get("counting the annotations", "upenn_annotation/count", query)["count"])

    def _read(self, after: str | None) -> list[StoredAnnotation]:
        new = []
        for document in list_annotations(self._server, self._dataset_id, self._tags, after):
            key = str(document["_id"])
            self._newest = max(self._newest, key)
            if key not in self._places and (self._tags or not tags_of(document)):
                known = self._note(key, document)
                if known is not None:
                    new.append(known)
        return new

    def _note(self, key: str, document: Document) -> StoredAnnotation | None:
        self._take_off(key)
        location, points = location_of(document), points_of(document)
        own_tags = set(tags_of(document))
        negative, example = (not tags.isdisjoint(own_tags) for tags in (self._negative, self._training))
        if location is None or not len(points) or not (negative or self._is_in_channel(document)):
            return None
        content = content_of(document)
        mark = mark_of(document, content)
        mark = mark and self._marks.setdefault(mark, mark)
        shape, is_exact = str(document.get("shape")), own_tags == set(self._tags)
        known = StoredAnnotation(key, shape, points, content, mark, is_marked(document), negative, example, is_exact)
        self._known[location][key] = known
        self._places[key] = location
        return known

    def _take_off(self, key: str) -> None:
        """Forget what an annotation is on its frame, not that it is there."""
        if (place := self._places.get(key)) is not None:
            del self._known[place][key]
        self._places[key] = None

    def _is_in_channel(self, document: Document) -> bool:
        """Tell whether an annotation is in the channel of the results, or was made there and only moved by the user."""
        return document.get("channel") == self._channel or mark_of({**document, "channel": self._channel}) is not None


def _survivors(several: Iterable[StoredAnnotation]) -> dict[str, str]:
    first: dict[bytes, str] = {}
    same: dict[bytes, list[str]] = {}
    for known in several:
        before = first.setdefault(known.content, known.id)
        if before != known.id:
            same.setdefault(known.content, [before]).append(known.id)
    return {key: min(ids) for ids in same.values() for key in ids if key != min(ids)}


def just_before(newest: str) -> str | None:
    """Return an id a little smaller than the newest one, to read from; None where there is none."""
    try:
        seconds = int(newest[:8], 16) - _SLACK
    except ValueError:
        return None
    return f"{max(seconds, 0):08x}" + "0" * 16
