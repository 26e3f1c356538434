"""A few small files that are kept with a dataset, in one item of its folder that may be deleted at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2_fewshot.nimbus.server import Server

ITEM = "sam2-fewshot"
LARGEST = 32 << 20
"""Bytes of the largest file; the server takes files of this size in one request."""


class Shelf:
    """The files of one dataset. What is on it is looked up once.

    All methods raise ServerError if the server refuses.

    Parameters
    ----------
    server
        The connection.
    dataset_id
        The dataset's folder.
    """

    def __init__(self, server: Server, dataset_id: str) -> None:
        self._server = server
        self._dataset_id = dataset_id
        self._item: str | None = None
        self._files: list[dict[str, Any]] | None = None

    def get(self, name: str) -> bytes | None:
        """Return a file's content, None when there is no such file, or it is too large to be one of ours."""
        for file in reversed(self._listed()):
            if file.get("name") == name and 0 < int(file.get("size") or 0) <= LARGEST:
                return self._server.get_bytes("fetching a kept file", f"file/{file['_id']}/download")
        return None

    def put(self, name: str, content: bytes) -> None:
        """Keep a file in the place of those of the same name; nothing happens when it is too large."""
        if len(content) > LARGEST:
            return
        before = [file for file in self._listed() if file.get("name") == name]
        if self._item is None:
            made = self._server.send(
                "keeping a file",
                "POST",
                "item",
                parameters={"folderId": self._dataset_id, "name": ITEM, "reuseExisting": "true"},
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
        for each in before:
            self._remove(each)
        self._listed().append(file)

    def remove(self, name: str) -> None:
        """Remove the files of a name."""
        for file in [file for file in self._listed() if file.get("name") == name]:
            self._remove(file)

    def prune(self, suffix: str, keep: int) -> None:
        """Keep of the files whose names end alike only the newest."""
        files = [file for file in self._listed() if str(file.get("name")).endswith(suffix)]
        files.sort(key=lambda file: str(file.get("created", "")))
        for file in files[: max(0, len(files) - keep)]:
            self._remove(file)

    def _remove(self, file: dict[str, Any]) -> None:
        self._server.send("removing a kept file", "DELETE", f"file/{file['_id']}")
        self._listed().remove(file)

    def _listed(self) -> list[dict[str, Any]]:
        if self._files is None:
            query = {"folderId": self._dataset_id, "name": ITEM, "limit": 1}
            items = self._server.get("looking for kept files", "item", query)
            self._item = str(items[0]["_id"]) if items else None
            path = f"item/{self._item}/files"
            self._files = self._server.get("looking for kept files", path, {"limit": 0}) if items else []
        return self._files
