"""Connections of the objects that a job adds to the nearest ones with given tags, each once."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sam2_fewshot.nimbus.existing import just_before, list_annotations
from sam2_fewshot.nimbus.server import MOST_LOOKS, Refused, Unanswered, parts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sam2_fewshot.nimbus.existing import Existing
    from sam2_fewshot.nimbus.parameters import ConnectTo
    from sam2_fewshot.nimbus.server import Server

_AUTOMATIC = "automatic"
"""The server calls what it connects by itself "A Connection -- automatic"."""
Link = dict[str, Any]
"""A connection as the server has it: an object is its child, what it is connected to its parent."""


class Connections:
    """Connects annotations; nothing happens where nothing was asked for.

    The server looks for the nearest annotation on the same frame that is not in the request itself, so all objects
    of a frame go in one request. It connects again what is connected already.

    Whatever asks the server raises ServerError if that refuses, or does not answer.

    Parameters
    ----------
    server
        The connection to the server.
    dataset_id
        The dataset's folder.
    connect_to
        What to connect to; None for nothing.
    existing
        Which objects are there.
    """

    def __init__(self, server: Server, dataset_id: str, connect_to: ConnectTo | None, existing: Existing) -> None:
        self._server = server
        self._dataset_id = dataset_id
        self._to = connect_to
        self._existing = existing
        self._before: set[str] | None = None
        self._links: dict[str, Link] = {}
        self._is_target: dict[str, bool] = {}
        self._expected: int | None = None
        self._deferred: set[str] = set()
        self._passed_on: set[tuple[str, str]] = set()
        self._asked = self._linked = 0

    @property
    def in_vain(self) -> bool:
        """Whether connections were asked for, and the server found nothing to connect to, in this job or before."""
        return self._asked > 0 and not self._linked

    def begin(self) -> None:
        """Take note how many there are, before the first objects are added that another job might connect as well."""
        if self._to is not None and self._expected is None:
            self._expected = self._count()

    def connect(self, created: Sequence[str], present: Sequence[str]) -> None:
        """Connect annotations of one frame.

        Parameters
        ----------
        created
            Ids of annotations that are new.
        present
            Ids of those of an earlier run, which may have died before it connected them. Those of a job that runs at
            the same time are left to that job until :meth:`settle`.
        """
        if self._to is None:
            return
        left = list(created)
        self._deferred.update(key for key in present if self._existing.has_arrived(key))
        if present:
            if self._before is None:
                links = self._list()
                self._delete(self._doubles(links))
                self._before = self._connected(links)
            self._linked += len(self._before.intersection(present))
            left += [key for key in present if key not in self._before and key not in self._deferred]
        self._connect(left)

    def pass_on(self, leaving: Mapping[str, str | None]) -> set[str]:
        """Give the connections of annotations that are about to be deleted to those that stay, and delete the others.

        The server leaves connections of annotations that are deleted together.

        Parameters
        ----------
        leaving
            The annotation that takes the place of each, None where none does.

        Returns
        -------
        set of str
            Of those without a successor, the ones that somebody has connected by hand, which keep their connections.
        """
        # Where nothing takes their place, what somebody has connected or labelled by hand meanwhile must be known.
        links = self._list() if None in leaving.values() else self._list_new()
        touching = [link for link in links if not {link["childId"], link["parentId"]}.isdisjoint(leaving)]
        by_hand = {str(link[end]) for link in touching if not _is_automatic(link) for end in ("childId", "parentId")}
        kept = {key for key in by_hand if key in leaving and leaving[key] is None}
        pairs = {(link["childId"], link["parentId"]) for link in links}
        connected = {link["childId"] for link in links if _is_automatic(link)}
        made, dropped = [], []
        for link in touching:
            ends = link["childId"], link["parentId"]
            child, parent = (key if key in kept else leaving.get(key, key) for key in ends)
            if (child, parent) == ends:
                continue
            dropped.append(str(link["_id"]))
            if child is None or parent is None or child == parent or (child, parent) in pairs:
                continue
            if _is_automatic(link) and child != ends[0] and child in connected:
                continue
            pairs.add((child, parent))
            connected.add(child)
            made.append({key: value for key, value in link.items() if key in ("label", "tags")})
            made[-1].update(childId=child, parentId=parent, datasetId=self._dataset_id)
        self._create(made)
        self._delete(dropped)
        return kept

    def settle(self, wanted: Iterable[str], gone: Collection[str], is_disturbed: bool) -> None:
        """At the end, see that every object is connected once; one small request where nobody has interfered.

        Parameters
        ----------
        wanted
            Ids of further annotations that have to be connected, if they are not.
        gone
            Ids of annotations that were deleted; what is connected to them is taken out.
        is_disturbed
            Whether to look even if the number of connections is as expected.
        """
        if self._to is None and not gone:
            return
        left = self._deferred.union(wanted) if self._to else set()
        if not (left or gone or is_disturbed or self._is_unexpected()):
            return
        for _ in range(MOST_LOOKS):
            links = self._list()
            dangling = [str(each["_id"]) for each in links if not {each["childId"], each["parentId"]}.isdisjoint(gone)]
            wrong = list(dict.fromkeys([*self._doubles(links), *dangling]))
            self._delete(wrong)
            missing = self._existing.by_frame(left - self._connected(links))
            for ids in missing:
                self._connect(ids)
            if not (wrong or missing):
                return
            left = set()  # what nothing is near enough to is not asked for again

    def _connect(self, ids: Sequence[str]) -> None:
        left = list(ids)
        if not left or self._to is None:
            return
        self._asked += len(left)
        waits = self._server.patience.waits()
        while left:
            try:
                answer = self._server.send(
                    "connecting the objects",
                    "POST",
                    "annotation_connection/connectTo",
                    {
                        "annotationsIds": left,
                        "tags": list(self._to.tags),
                        "channelId": self._to.channel,
                        "datasetId": self._dataset_id,
                    },
                )
            except Unanswered:
                wait = next(waits, None)
                if wait is None:
                    raise
                left = self._look_for(left, wait)
            else:
                # The connections that were made; a server that does not tell may have made all.
                made = len(answer if isinstance(answer, list) else left)
                self._linked += made
                self._expect(made)
                return

    def _look_for(self, ids: list[str], least: float) -> list[str]:
        """After a lost answer, look as long as the request may be on its way; return what is not connected by then."""
        left = ids
        for wait in self._server.patience.looks(least):
            time.sleep(wait)
            done = self._connected(self._list())
            left = [key for key in ids if key not in done]
            if not left:
                break
        self._linked += len(ids) - len(left)
        return left

    def _connected(self, links: Collection[Link]) -> set[str]:
        """Return the annotations that are connected to one of those that the job connects to.

        In a connection they are the child. One to something else, as in a track, or from a time when the tool connected
        to other tags, does not count.
        """
        if self._to is None:
            return set()
        new = {str(link["parentId"]) for link in links} - self._is_target.keys()
        if new:  # a look at thousands of annotations, which is not repeated while one waits for an answer
            targets = {
                str(document["_id"])
                for tag in self._to.tags
                for document in list_annotations(self._server, self._dataset_id, [tag])
                if self._to.channel in (None, document.get("channel"))
            }
            self._is_target.update({parent: parent in targets for parent in new})
        return {str(link["childId"]) for link in links if self._is_target[str(link["parentId"])]}

    def _doubles(self, links: Iterable[Link]) -> list[str]:
        """Return the ids of all connections but the oldest that the server has made of an object to the same parent."""
        same: dict[tuple[str, str], list[str]] = defaultdict(list)
        for link in links:
            pair = str(link["childId"]), str(link["parentId"])
            if (_is_automatic(link) and self._existing.has(pair[0])) or pair in self._passed_on:
                same[pair].append(str(link["_id"]))
        return [key for ids in same.values() for key in sorted(ids)[1:]]

    def _create(self, links: Sequence[Link]) -> None:
        self._passed_on.update((link["childId"], link["parentId"]) for link in links)
        for part in parts(links):
            self._expect(self._create_some(part))

    def _create_some(self, links: Sequence[Link]) -> int:
        """Create connections, and return how many: a single one of an annotation that is gone has them all refused."""
        path = "annotation_connection/multiple"
        try:
            # One that is there twice is taken out by `settle`.
            self._server.send("passing on connections", "POST", path, links, repeatable=True)
        except Refused as error:
            if error.status != 400:
                raise
            half = len(links) // 2
            return self._create_some(links[:half]) + self._create_some(links[half:]) if half else 0
        return len(links)

    def _delete(self, ids: Sequence[str]) -> None:
        for part in parts(ids):
            self._server.send("taking out connections", "DELETE", "annotation_connection/multiple", part)
            for key in part:
                self._links.pop(key, None)
        self._expect(-len(ids))

    def _expect(self, more: int) -> None:
        if self._expected is not None:
            self._expected += more

    def _is_unexpected(self) -> bool:
        """Tell whether there are more or fewer connections than this job knows of."""
        return self._expected is not None and self._count() != self._expected

    def _count(self) -> int:
        """Return the number of connections, -1 where the server does not tell."""
        query = {"datasetId": self._dataset_id}
        answer = self._server.find("counting the connections", "annotation_connection/count", query)
        return -1 if answer is None else int(answer["count"])

    def _list(self) -> list[Link]:
        """Return the connections of the dataset, the oldest first."""
        self._links = self._read(None)
        self._expected = len(self._links)
        return list(self._links.values())

    def _list_new(self) -> list[Link]:
        """Return the same, but read only the newest anew where there are as many as this job knows of."""
        if not self._links or self._is_unexpected():
            return self._list()
        self._links.update(self._read(just_before(max(self._links))))
        return list(self._links.values())

    def _read(self, after: str | None) -> dict[str, Link]:
        query = {"datasetId": self._dataset_id}
        pages = self._server.pages("reading the connections", "annotation_connection", query, after)
        return {str(link["_id"]): link for link in pages}


def _is_automatic(link: Link) -> bool:
    """Tell whether the server made a connection by itself; one that a user made or edited has tags or another label."""
    return not link.get("tags") and _AUTOMATIC in str(link.get("label"))
