"""Figures of the annotations, each once."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sam2_fewshot.annotations.nimbus import JOB_PROPERTY, property_document
from sam2_fewshot.errors import ServerError
from sam2_fewshot.nimbus.server import MOST_LOOKS, Refused, Unanswered, parts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sam2_fewshot.nimbus.dataset import NimbusDataset
    from sam2_fewshot.nimbus.existing import Existing
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.nimbus.shelf import Shelf
    from sam2_fewshot.protocols import Progress

_BACKUP = "figures.json"
_SAME = 1e-3
"""Figures of the same object differ by less when it is detected once more by the same means."""

Values = dict[str, float | None]


class Properties:
    """One property with several figures, registered in the collection of the user's view.

    The server keeps a value that is there, whatever is sent later, so figures that have changed are replaced at the
    end: all values of the property in this dataset are read, taken out, and put back with the new ones. The same is
    done where an annotation has got two documents, which happens when two jobs send its figures in the same moment.
    That may take out figures which another job saves just then. So each job looks at its end whether its own are there,
    and adds them to the copy that a job keeps which is replacing them just now.

    Whatever asks the server raises ServerError if that refuses, or does not answer.

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
    existing
        Which annotations are there.
    """

    def __init__(
        self,
        server: Server,
        dataset: NimbusDataset,
        progress: Progress,
        shelf: Shelf,
        existing: Existing,
    ) -> None:
        self._server = server
        self._dataset = dataset
        self._progress = progress
        self._shelf = shelf
        self._existing = existing
        self._collection, *self._others = dataset.collections or [""]
        self._id = ""
        self._made: str | None = None
        self._settled = False
        self._stored: dict[str, dict[str, Any]] | None = None
        self._sent: dict[str, Mapping[str, Any]] = {}
        self._deferred: dict[str, Values] = {}
        self._changed: dict[str, Values] = {}
        self._restored: dict[str, dict[str, Any]] = {}
        self._is_doubtful = self._doubled = False

    def prepare(self) -> None:
        """Find the property, or make and register it."""
        if not self._collection:
            why = "this dataset is in no collection yet. Open it in NimbusImage once."
            if self._dataset.is_in_collections:
                why = (
                    "none of the dataset's collections can be read. Ask their owners for access, or add the dataset to "
                    "a collection of your own."
                )
            self._progress.warn(f"Similarity and area of the objects are not saved, because {why}")
            return
        try:
            self._id = self._registered() or ""
            if not self._id:
                document = property_document(JOB_PROPERTY)
                made = self._server.send("making a property", "POST", "annotation_property", document, repeatable=True)
                self._id = self._made = str(made["_id"])
            self._register(self._id, self._collection)
        except Refused as error:
            if error.status == 401:
                raise
            self._id = ""
            if error.status >= 500:
                self._progress.warn(f"Similarity and area of the objects are not saved. {error}")
                return
            if self._made:  # no collection names it, so no later job could find it
                self._delete_made()
            self._progress.warn(
                "Similarity and area of the objects are not saved, because the dataset's collection may not be changed "
                f"({error.status}). Ask its owner for write access."
            )
            return
        self._restore()

    def add(self, new: Mapping[str, Values], present: Mapping[str, Values]) -> None:
        """Save the figures of annotations.

        Parameters
        ----------
        new
            By annotation id, of annotations that were just made.
        present
            Of annotations that were there; they replace those that have changed. Annotations of a job that runs at the
            same time are left to that job until :meth:`finish` where they have none yet.
        """
        self._settle()
        if not self._id or not (new or present):
            return
        wanted = dict(new)
        if present:
            if self._stored is None:
                self._stored = self._read()
            for key, values in present.items():
                if key in self._stored:
                    if not _alike(self._stored[key], values):
                        self._changed[key] = values
                elif self._existing.has_arrived(key):
                    self._deferred[key] = values
                else:
                    wanted[key] = values
                    self._is_doubtful = True  # another job may do the same
        self._send(wanted)
        self._sent.update(wanted)

    def of(self, ids: Collection[str]) -> set[str]:
        """Return those of some annotations that have figures."""
        return set(self._read()).intersection(ids) if self._id else set()

    def pass_on(self, replacements: Mapping[str, str]) -> None:
        """Give the figures of annotations that are to be deleted to others of the same outline that have none.

        `replacements` has the id of the annotation that stays by that of the duplicate.
        """
        # What this job has just made has its figures already.
        if not self._id or self._sent.keys() >= {*replacements.values()}:
            return
        there = {**self._read(), **self._sent}
        wanted = {new: there[old] for old, new in replacements.items() if old in there and new not in there}
        self._send(wanted)
        self._sent.update(wanted)
        self._is_doubtful |= bool(wanted)

    def finish(self, gone: Collection[str], is_disturbed: bool) -> None:
        """Replace the figures that have changed, and see that the property is still registered.

        Parameters
        ----------
        gone
            Ids of annotations that were deleted; their figures are taken out.
        is_disturbed
            Whether another job, or a lost answer, may have left an annotation without figures or with two documents.
        """
        if not self._id:
            return
        kept = self._backup() if self._sent or self._restored else {}
        if kept and kept == self._restored:  # whoever left it does nothing any more
            self._send(_without(kept, gone))
            self._drop_backup()
        elif self._sent and kept:
            self._keep({**kept, **{key: values for key, values in self._sent.items() if self._existing.has(key)}})
        if self._sent or self._changed or self._deferred or gone or is_disturbed or self._is_doubtful:
            self._settle_values(gone)
        if not (self._sent or self._changed):
            return
        self._register(self._id, self._collection)
        for other in self._others:  # in which the user has the dataset as well
            with suppress(Refused):
                self._register(self._id, other)

    def _settle_values(self, gone: Collection[str]) -> None:
        """Look, and mend what is wrong, until a look finds nothing."""
        changed = {key: values for key, values in self._changed.items() if self._existing.has(key)}
        for look in range(MOST_LOOKS):
            there = self._read()
            if look and self._doubled:
                # Jobs that mend the same in step would hinder each other.
                time.sleep(self._server.patience.gateway * random.random() / 4)
                there = self._read()
            # One that another job has deleted while its figures were replaced has got them back.
            orphans = set(there).intersection(gone)
            orphans |= self._existing.deleted(self._existing.left.intersection(there) - orphans)
            wanted = {**self._deferred, **self._sent, **changed}
            missing = {key: wanted[key] for key in wanted if key not in there and self._existing.has(key)}
            if changed or orphans or self._doubled:
                self._replace(there, {**missing, **changed}, orphans)
                self._existing.reload()
                changed = {}
            elif missing:
                self._send(missing)
            else:
                return
            self._sent.update(missing)

    def _replace(
        self,
        there: Mapping[str, Mapping[str, Any]],
        new: Mapping[str, Mapping[str, Any]],
        orphans: Collection[str],
    ) -> None:
        # Another job that is replacing them just now may have taken them out when they were read, but then it has left
        # a copy, or else they are there again at the second reading.
        values = _without({**self._backup(), **there, **self._read(), **new}, orphans)
        self._keep(values)
        # A job that sends figures from now on finds the copy at its end, and adds its own to it.
        values = {**_without(self._read(), orphans), **values}
        before = self._server.doubts
        self._server.send(
            "replacing the figures",
            "DELETE",
            "annotation_property_values",
            parameters={"propertyId": self._id, "datasetId": self._dataset.id},
        )
        self._server.wait_for_gateway(before)  # or what is sent now would be deleted by a request that comes late
        self._send(values)
        self._send(_without(self._backup(), values))
        self._drop_backup()

    def _keep(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep a copy of the figures until they are back."""
        with suppress(ServerError):
            self._shelf.put(_BACKUP, json.dumps({"property": self._id, "values": values}).encode())

    def _restore(self) -> None:
        """Put back the figures that a job was replacing when it was killed; those that are there win over them.

        The job may be at it still, and needs its copy; so :meth:`finish` removes it, if it is the same then. What
        cannot be fetched or put back now stays for then, or for the next job: nothing else has these figures.
        """
        try:
            self._restored = self._copy()
            self._send(self._restored)
        except (Refused, ValueError, TypeError) as error:
            if isinstance(error, Refused) and error.status != 400:
                return
            self._restored = {}  # it is gone, or holds what are no figures
        except ServerError:
            return
        if not self._restored:
            self._drop_backup()

    def _drop_backup(self) -> None:
        with suppress(ServerError):
            self._shelf.remove(_BACKUP)

    def _backup(self) -> dict[str, dict[str, Any]]:
        """Return the copy that a job has left which is replacing the figures, or was killed while it did."""
        with suppress(ServerError):
            self._shelf.look_again()
            return self._copy()
        return {}

    def _copy(self) -> dict[str, dict[str, Any]]:
        """Return the same as far as it is known what is there; nothing where it is damaged."""
        content = self._shelf.get(_BACKUP)
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            backup = json.loads(content) if content else {}
            if backup.get("property") == self._id:
                return dict(backup["values"])
        return {}

    def _settle(self) -> None:
        """Agree on one property with jobs that began at the same time; the list of them is replaced as a whole."""
        if self._settled or not self._id:
            return
        self._settled = True
        found = self._registered()
        if found != self._id:
            self._id = found or self._id
            self._register(self._id, self._collection)
        if self._made not in (None, self._id):
            with suppress(Refused):
                left = [entry for entry in self._ids(self._collection) if entry != self._made]
                self._replace_ids(self._collection, left)
                self._delete_made()

    def _delete_made(self) -> None:
        with suppress(ServerError):
            self._server.send("taking out a property", "DELETE", f"annotation_property/{self._made}")

    def _registered(self) -> str | None:
        """Return the property of our name in any collection of the dataset, of several the oldest.

        What another collection or another user has begun is gone on with, or each object would have figures of several
        properties of one name.
        """
        ids = {key for collection in self._dataset.readable for key in self._ids(collection)}
        if not ids:
            return None
        query = {"limit": 0}
        listed = self._server.get("reading the properties", "annotation_property", query)
        own = [
            str(entry["_id"])
            for entry in listed
            if entry.get("name") == JOB_PROPERTY and entry.get("shape") == "polygon"
        ]
        return min(ids.intersection(own), default=None)

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
        """Return the values of the property in this dataset by annotation; note those that are there twice."""
        query = {"datasetId": self._dataset.id, "limit": 0}
        listed = self._server.get("reading the figures", "annotation_property_values", query)
        own = [entry for entry in listed if isinstance((entry.get("values") or {}).get(self._id), dict)]
        self._doubled = len({entry["annotationId"] for entry in own}) < len(own)
        self._is_doubtful |= self._doubled
        return {str(entry["annotationId"]): entry["values"][self._id] for entry in own}

    def _send(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        entries = [
            {"datasetId": self._dataset.id, "annotationId": key, "values": {self._id: dict(figures)}}
            for key, figures in values.items()
        ]
        for part in parts(entries):
            self._send_some(part)

    def _send_some(self, entries: list[dict[str, Any]]) -> None:
        waits = self._server.patience.waits()
        while True:
            try:
                self._server.send("saving the figures", "POST", "annotation_property_values/multiple", entries)
                return
            except Unanswered:
                wait = next(waits, None)
                if wait is None:
                    raise
            time.sleep(wait)
            # They are stored in their order. Where they are not yet, a second request does no harm: it finds the values
            # of the first and leaves them, and if they come in the same moment, `finish` takes one of them out.
            query = {"datasetId": self._dataset.id, "annotationId": entries[-1]["annotationId"], "limit": 0}
            listed = self._server.get("reading the figures", "annotation_property_values", query)
            if any(self._id in (entry.get("values") or {}) for entry in listed):
                return


def _without(values: Mapping[str, Mapping[str, Any]], keys: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Return the figures of all annotations but some."""
    return {key: figures for key, figures in values.items() if key not in keys}


def _alike(stored: Mapping[str, Any], values: Values) -> bool:
    return stored.keys() == values.keys() and all(_is_same(stored[name], value) for name, value in values.items())


def _is_same(stored: object, value: float | None) -> bool:
    if value is None or not isinstance(stored, (int, float)):
        return stored is value
    return abs(stored - value) <= _SAME * max(1, abs(value))
