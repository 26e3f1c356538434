"""A few small files that are stored with a dataset: what was learned, and finished blocks of large frames."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import ServerError
from sam2_fewshot.nimbus.server import ABSENT, Refused, Unanswered
from sam2_fewshot.storage.cache import warnings_in, with_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sam2_fewshot.nimbus.server import Server

ITEM = "sam2-fewshot"
"""Name of the item with what was learned."""
BLOCKS_ITEM = "sam2-fewshot-blocks"
"""Name of the item with the finished blocks of frames that are searched in several."""
LARGEST = 32 << 20
"""Bytes of the largest file; the server takes files of this size in one request."""
KEEP = 5
"""Learned models that are retained: so many sets of examples or settings can be used in turns."""
_STALE = timedelta(days=30)
"""Blocks of a frame that nobody has finished for so long are deleted."""
_MODEL, _BLOCK = ".npz", ".block"
_HARMLESS = (ServerError, OSError, KeyError, TypeError, ValueError)


class Shelf:
    """The files in one item of a dataset, which may be deleted at any time. What is there is looked up once.

    All methods raise ServerError if the server refuses.

    Parameters
    ----------
    server
        The connection.
    dataset_id
        The dataset's folder.
    name
        The item's name.
    largest
        Bytes of the largest file that is stored.
    """

    def __init__(self, server: Server, dataset_id: str, name: str = ITEM, largest: int = LARGEST) -> None:
        self._server = server
        self._dataset_id = dataset_id
        self._name = name
        self._largest = largest
        self._item: str | None = None
        self._files: list[dict[str, Any]] | None = None

    @property
    def is_listed(self) -> bool:
        """Whether it could be looked up what is there."""
        return self._files is not None

    def get(self, name: str) -> bytes | None:
        """Return a file's content, None when there is no such file, or it is too large to be one of ours."""
        for file in reversed(self._listed()):
            if file.get("name") == name and 0 < int(file.get("size") or 0) <= self._largest:
                return self._server.get_bytes("fetching a stored file", f"file/{file['_id']}/download")
        return None

    def put(self, name: str, content: bytes) -> None:
        """Store a file in the place of those of the same name; nothing happens when it is too large."""
        if len(content) > self._largest:
            return
        before = [file for file in self._listed() if file.get("name") == name]
        if self._item is None:
            made = self._server.send(
                "keeping a file",
                "POST",
                "item",
                parameters={"folderId": self._dataset_id, "name": self._name, "reuseExisting": "true"},
                repeatable=True,
            )
            self._item = str(made["_id"])
        file = self._server.send(
            "keeping a file",
            "POST",
            "file",
            parameters={"parentType": "item", "parentId": self._item, "name": name, "size": len(content)},
            data=content,
            repeatable=True,  # a file that is there twice is as good as once
        )
        self._listed().append(file)
        for each in before:
            self._remove(each)

    def remove(self, name: str) -> None:
        """Remove the files of a name."""
        self.remove_all(lambda file: file.get("name") == name)

    def prune(self, suffix: str, keep: int) -> None:
        """Retain only the newest of the files whose names end alike."""
        files = [file for file in self._listed() if str(file.get("name")).endswith(suffix)]
        files.sort(key=lambda file: str(file.get("created", "")))
        for file in files[: max(0, len(files) - keep)]:
            self._remove(file)

    def remove_all(self, unwanted: Callable[[dict[str, Any]], bool]) -> None:
        """Remove the files of which something holds, by their documents."""
        for file in [file for file in self._listed() if unwanted(file)]:
            self._remove(file)

    def look_again(self) -> None:
        """Look up what is there now: an answer that got lost, or another job, may have left more."""
        self._files = self._look_up()

    def _remove(self, file: dict[str, Any]) -> None:
        try:
            self._server.send("removing a stored file", "DELETE", f"file/{file['_id']}")
        except Refused as error:
            # Another job has removed it, or this one whose first answer got lost.
            if error.status not in ABSENT:
                raise
        self._listed().remove(file)

    def _listed(self) -> list[dict[str, Any]]:
        if self._files is None:
            self._files = self._look_up()
        return self._files

    def _look_up(self) -> list[dict[str, Any]]:
        query = {"folderId": self._dataset_id, "name": self._name, "limit": 1}
        items = self._server.get("looking for stored files", "item", query)
        self._item = str(items[0]["_id"]) if items else None
        path = f"item/{self._item}/files"
        return list(self._server.get("looking for stored files", path, {"limit": 0})) if items else []


class ShelfCache:
    """What was learned, stored with the dataset: the container that learned it is thrown away after the job.

    A :class:`~sam2_fewshot.storage.cache.ModelCache`. Jobs that run at once at worst write the same file twice.

    Parameters
    ----------
    shelf
        Where it is.
    log
        Takes what goes wrong, which does no harm.
    """

    def __init__(self, shelf: Shelf, log: Callable[[str], None]) -> None:
        self._shelf, self._log = shelf, log

    def get(self, key: str) -> tuple[bytes, Sequence[str]] | None:
        """Return an entry, None when it is not there, damaged, or cannot be fetched."""
        try:
            content = self._shelf.get(key[:32] + _MODEL)
        except _HARMLESS as error:
            self._log(f"The learned model of an earlier job is not used: {error}")
            return None
        warnings = None if content is None else warnings_in(content)
        return None if content is None or warnings is None else (content, warnings)

    def put(self, key: str, content: bytes, warnings: Sequence[str]) -> None:
        """Store an entry, and delete what is oldest."""
        try:
            self._shelf.put(key[:32] + _MODEL, with_warnings(content, warnings))
            self._shelf.prune(_MODEL, KEEP)
        except _HARMLESS as error:
            self._log(f"What was learned is not kept for the next job: {error}")


class BlockShelf:
    """The finished blocks of one frame, stored with the dataset; a :class:`~sam2_fewshot.runner.blocks.BlockFiles`.

    Parameters
    ----------
    shelf
        Where they are, with those of other frames.
    key
        Tells all that they depend on.
    log
        Takes what goes wrong when they are read or deleted, which does no harm.
    """

    def __init__(self, shelf: Shelf, key: str, log: Callable[[str], None]) -> None:
        self._shelf, self._key, self._log = shelf, key[:32], log
        self._is_used = False
        # Once a list or an answer was waited for in vain, to do so again at each block would take hours.
        self._is_readable = self._is_writable = True

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where it is not there or cannot be fetched."""
        if not self._is_used:
            self._is_used = True
            before = (datetime.now(UTC) - _STALE).isoformat()
            self._remove(lambda file: "" < str(file.get("created") or "") < before, "Blocks of an abandoned frame")
        try:
            return self._shelf.get(self._file(name)) if self._is_readable else None
        except _HARMLESS as error:
            self._is_readable = self._shelf.is_listed and not isinstance(error, Unanswered)
            self._log(f"A finished block of an earlier job is not used: {error}")
            return None

    def write(self, name: str, content: bytes) -> None:
        """Store a file.

        Raises
        ------
        ServerError
            If the server does not take it.
        """
        self._is_used = True
        try:
            if self._is_writable:
                self._shelf.put(self._file(name), content)
        except Unanswered:
            self._is_writable = False
            raise

    def drop(self) -> None:
        """Delete the frame's blocks, if there can be any."""
        if self._is_used:
            try:
                self._shelf.look_again()
            except _HARMLESS as error:
                self._log(f"What is kept of a finished frame could not be looked up: {error}")
            self._remove(lambda file: str(file.get("name")).startswith(self._key), "Blocks of a finished frame")

    def _remove(self, unwanted: Callable[[dict[str, Any]], bool], what: str) -> None:
        try:
            self._shelf.remove_all(unwanted)
        except _HARMLESS as error:
            self._log(f"{what} could not be deleted: {error}")

    def _file(self, name: str) -> str:
        return f"{self._key}_{name.removesuffix('.npz')}{_BLOCK}"
