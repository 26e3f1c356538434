"""Figures and connections of the annotations, each once."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sam2_fewshot.annotations.nimbus import property_document
from sam2_fewshot.errors import ServerError
from sam2_fewshot.nimbus.server import Refused, Unanswered

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sam2_fewshot.nimbus.dataset import NimbusDataset
    from sam2_fewshot.nimbus.parameters import ConnectTo
    from sam2_fewshot.nimbus.server import Patience, Server
    from sam2_fewshot.nimbus.shelf import Shelf
    from sam2_fewshot.protocols import Progress

NAME = "SAM2 few-shot"
_BACKUP = "figures.json"
_CHUNK = 1000
_SAME = 1e-3
"""Figures of the same object differ by less when it is detected once more by the same means."""

Values = dict[str, float | None]


class Properties:
    """One property with several figures, registered in the collection of the user's view.

    The server keeps a value that is there, whatever is sent later, so figures that have changed are replaced at the
    end: all values of the property in this dataset are read, taken out, and put back with the new ones.

    Parameters
    ----------
    server
        The connection.
    dataset
        The dataset.
    progress
        Is warned when there can be no values.
    shelf
        Keeps the figures while they are replaced, for the case that the job is killed just then.
    """

    def __init__(self, server: Server, dataset: NimbusDataset, progress: Progress, shelf: Shelf) -> None:
        self._server = server
        self._dataset = dataset
        self._progress = progress
        self._shelf = shelf
        self._collection, *self._others = dataset.collections or [""]
        self._id: str | None = None
        self._made: str | None = None
        self._settled = False
        self._stored: dict[str, dict[str, Any]] | None = None
        self._sent: dict[str, Values] = {}
        self._changed: dict[str, Values] = {}

    def prepare(self) -> None:
        """Find the property, or make and register it.

        Raises
        ------
        ServerError
            If the server does not answer.
        """
        if not self._collection:
            self._progress.warn(
                "Similarity and area of the objects are not saved, because this dataset is in no collection yet. Open "
                "it in NimbusImage once."
            )
            return
        try:
            self._id = self._registered() or self._make()
        except Refused as error:
            self._give_up(error)
            return
        self._restore()

    def add(self, new: Mapping[str, Values], present: Mapping[str, Values], identical: Collection[str]) -> None:
        """Save the figures of annotations.

        Parameters
        ----------
        new
            By annotation id, of annotations that were just made.
        present
            Of annotations that an earlier run has made; those that have none yet get them.
        identical
            Those of them whose outline is exactly that of the detection, so that changed figures are replaced.

        Raises
        ------
        ServerError
            If the server takes nothing more.
        """
        self._settle()
        if self._id is None or not (new or present):
            return
        wanted = dict(new)
        if present:
            if self._stored is None:
                self._stored = self._read()
            for key, values in present.items():
                if key not in self._stored:
                    wanted[key] = values
                elif key in identical and not _alike(self._stored[key], values):
                    self._changed[key] = values
        self._send(self._id, wanted)
        self._sent.update(wanted)

    def pass_on(self, replacements: Mapping[str, str]) -> None:
        """Give the figures of annotations that are about to be deleted to others of the same outline.

        Parameters
        ----------
        replacements
            Id of the annotation that stays by that of the duplicate.

        Raises
        ------
        ServerError
            If the server takes nothing more.
        """
        if self._id is not None:
            self._send(self._id, {new: self._sent[old] for old, new in replacements.items() if old in self._sent})

    def finish(self) -> None:
        """Replace the figures that have changed, and see that the property is still registered.

        Raises
        ------
        ServerError
            If the server takes nothing more.
        """
        if self._id is None or not (self._sent or self._changed):
            return
        if self._changed:
            self._replace(self._id, {**self._read(), **self._changed})
        self._register(self._id, self._collection)
        for other in self._others:  # in which the user has the dataset as well
            with suppress(Refused):
                self._register(self._id, other)

    def _replace(self, property_id: str, values: Mapping[str, Mapping[str, Any]]) -> None:
        with suppress(ServerError):
            self._shelf.put(_BACKUP, json.dumps({"property": property_id, "values": values}).encode())
        self._server.send(
            "replacing the figures",
            "DELETE",
            "annotation_property_values",
            parameters={"propertyId": property_id, "datasetId": self._dataset.id},
        )
        self._send(property_id, values)
        with suppress(ServerError):
            self._shelf.remove(_BACKUP)

    def _restore(self) -> None:
        """Put back the figures that a job was replacing when it was killed; those that are there win over them."""
        with suppress(ServerError, ValueError, TypeError, KeyError, AttributeError):
            content = self._shelf.get(_BACKUP)
            backup = json.loads(content) if content else {}
            if backup.get("property") == self._id:
                self._send(str(self._id), dict(backup["values"]))
        with suppress(ServerError):
            self._shelf.remove(_BACKUP)

    def _settle(self) -> None:
        """Agree on one property with jobs that began at the same time; the list of them is replaced as a whole."""
        if self._settled or self._id is None:
            return
        self._settled = True
        found = self._registered()
        if found is None:
            self._register(self._id, self._collection)
            return
        self._id = found
        if self._made not in (None, found):
            with suppress(Refused):
                left = [entry for entry in self._ids(self._collection) if entry != self._made]
                self._replace_ids(self._collection, left)
                self._server.send("taking out a property", "DELETE", f"annotation_property/{self._made}")

    def _registered(self) -> str | None:
        """Return the property of our name in the collection, of several the oldest."""
        ids = set(self._ids(self._collection))
        if not ids:
            return None
        query = {"limit": 0}
        listed = self._server.get("reading the properties", "annotation_property", query)
        own = [str(entry["_id"]) for entry in listed if entry.get("name") == NAME and entry.get("shape") == "polygon"]
        return min(ids.intersection(own), default=None)

    def _make(self) -> str:
        document = property_document(NAME)
        made = self._server.send("making a property", "POST", "annotation_property", document, repeatable=True)
        self._made = str(made["_id"])
        self._register(self._made, self._collection)
        return self._made

    def _register(self, property_id: str, collection: str) -> None:
        ids = self._ids(collection)
        if property_id not in ids:
            self._replace_ids(collection, [*ids, property_id])

    def _replace_ids(self, collection: str, ids: list[str]) -> None:
        path = f"upenn_collection/{collection}/metadata"
        self._server.send("registering the property", "PUT", path, {"propertyIds": ids})

    def _ids(self, collection: str) -> list[str]:
        found = self._server.get("reading the collection", f"upenn_collection/{collection}")
        return [str(entry) for entry in (found.get("meta") or {}).get("propertyIds") or []]

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return the values of the property in this dataset by annotation."""
        query = {"datasetId": self._dataset.id, "limit": 0}
        listed = self._server.get("reading the figures", "annotation_property_values", query)
        return {
            str(entry["annotationId"]): entry["values"][self._id]
            for entry in listed
            if isinstance((entry.get("values") or {}).get(self._id), dict)
        }

    def _send(self, property_id: str, values: Mapping[str, Mapping[str, Any]]) -> None:
        entries = [
            {"datasetId": self._dataset.id, "annotationId": key, "values": {property_id: dict(figures)}}
            for key, figures in values.items()
        ]
        for start in range(0, len(entries), _CHUNK):
            # A second request finds the values of the first and leaves them.
            self._server.send(
                "saving the figures",
                "POST",
                "annotation_property_values/multiple",
                entries[start : start + _CHUNK],
                repeatable=True,
            )

    def _give_up(self, error: Refused) -> None:
        if error.status == 401:
            raise error
        self._id = None
        self._progress.warn(
            "Similarity and area of the objects are not saved, because the dataset's collection may not be changed "
            f"({error.status}). Ask its owner for write access."
        )


def _alike(stored: Mapping[str, Any], values: Values) -> bool:
    if set(stored) != set(values):
        return False
    for name, value in values.items():
        there = stored[name]
        if (there is None) != (value is None):
            return False
        if value is not None and not (
            isinstance(there, (int, float)) and abs(there - value) <= _SAME * max(1, abs(value))
        ):
            return False
    return True


class Connections:
    """Connects annotations; nothing happens where nothing was asked for.

    The server looks for the nearest annotation on the same frame that is not in the request itself, so all objects
    of a frame go in one request.

    Parameters
    ----------
    server
        The connection to the server.
    dataset_id
        The dataset's folder.
    connect_to
        What to connect to; None for nothing.
    patience
        How long to look for what an unanswered request has done.
    """

    def __init__(self, server: Server, dataset_id: str, connect_to: ConnectTo | None, patience: Patience) -> None:
        self._server = server
        self._dataset_id = dataset_id
        self._to = connect_to
        self._patience = patience
        self._before: set[str] | None = None
        self._asked = self._made = 0

    @property
    def in_vain(self) -> bool:
        """Whether connections were asked for, and the server found nothing to connect to."""
        return self._asked > 0 and not self._made

    def connect(self, created: Sequence[str], present: Sequence[str]) -> None:
        """Connect annotations of one frame.

        Parameters
        ----------
        created
            Ids of annotations that are new.
        present
            Ids of those of an earlier run, which may have died before it connected them.

        Raises
        ------
        ServerError
            If the server refuses.
        """
        if self._to is None:
            return
        left = list(created)
        if present:
            if self._before is None:
                self._before = self._connected()
            left += [key for key in present if key not in self._before]
        self._asked += len(left)
        waits = self._patience.waits()
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
                time.sleep(wait)
                done = self._connected()
                self._made += len(done.intersection(left))
                left = [key for key in left if key not in done]
            else:
                # The connections that were made; a server that does not tell may have made all.
                self._made += len(answer if isinstance(answer, list) else left)
                return

    def _connected(self) -> set[str]:
        """Return the annotations that have been connected: in a connection they are the child."""
        query = {"datasetId": self._dataset_id}
        listed = self._server.pages("reading the connections", "annotation_connection", query)
        return {str(connection["childId"]) for connection in listed}
