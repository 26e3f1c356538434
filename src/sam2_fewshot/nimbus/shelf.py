"""A few small files that are kept with a dataset, and what was learned among them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import shapely

from sam2_fewshot import __version__
from sam2_fewshot.errors import InputError, ServerError
from sam2_fewshot.nimbus.examples import location_on
from sam2_fewshot.object_model import frame_digest
from sam2_fewshot.settings import AFTER_LEARNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.nimbus.engine import Engine
    from sam2_fewshot.nimbus.messages import Messages
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.records import Exemplar, FrameReader
    from sam2_fewshot.settings import Settings

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


KEEP = 5
"""Files that are kept: so many sets of examples or settings can be used in turns."""
_SUFFIX = ".npz"
_WARNINGS = "warnings.json"
_HARMLESS = (ServerError, InputError, OSError, KeyError, TypeError, ValueError, BadZipFile)


def content_key(exemplars: Sequence[Exemplar], model_sha256: str, settings: Settings) -> str:
    """Return 64 hexadecimal digits that change with anything that is learned from.

    Parameters
    ----------
    exemplars
        The examples; each frame they lie on is read, a large one in strips.
    model_sha256
        SHA-256 of the checkpoint.
    settings
        How to look.
    """
    pixels: dict[int, str] = {}
    marks: list[Any] = []
    for exemplar in exemplars:
        image: FrameReader = exemplar.image  # type: ignore[assignment]
        if id(image) not in pixels:
            pixels[id(image)] = frame_digest(image)
        shape = list(exemplar.point or ()) if exemplar.polygon is None else shapely.to_wkb(exemplar.polygon, hex=True)
        place = location_on(exemplar)
        marks.append([exemplar.negative, pixels[id(image)], [place.xy, place.z, place.time], shape])
    facts = {
        "version": __version__,
        "model": model_sha256,
        "settings": settings.model_dump(mode="json", exclude=set(AFTER_LEARNING)),
        "examples": marks,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Cache:
    """The learned models that are kept with a dataset. What goes wrong with it is logged and does no harm.

    Parameters
    ----------
    shelf
        Where they are.
    messages
        Its log takes what goes wrong.
    """

    def __init__(self, shelf: Shelf, messages: Messages) -> None:
        self._shelf = shelf
        self._messages = messages

    def recall(self, key: str, engine: Engine) -> bool:
        """Let the engine take over what an earlier job learned; return whether there was anything."""
        try:
            content = self._shelf.get(_name(key))
            if content is None:
                return False
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / _name(key)
                path.write_bytes(content)
                with ZipFile(path) as archive:
                    warnings = json.loads(archive.read(_WARNINGS))
                engine.load(path)
        except _HARMLESS as error:
            self._messages.log(f"The learned model of an earlier job is not used: {error}")
            return False
        for sentence in warnings:
            self._messages.warn(str(sentence))
        return True

    def keep(self, key: str, engine: Engine, warnings: Sequence[str]) -> None:
        """Keep what the engine has learned, with its warnings about examples, and let go of what is oldest."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / _name(key)
                engine.save(path)
                with ZipFile(path, "a") as archive:
                    archive.writestr(_WARNINGS, json.dumps(list(warnings)))
                content = path.read_bytes()
            self._shelf.put(_name(key), content)
            self._shelf.prune(_SUFFIX, KEEP)
        except _HARMLESS as error:
            self._messages.log(f"What was learned is not kept for the next job: {error}")


def _name(key: str) -> str:
    return key[:32] + _SUFFIX
