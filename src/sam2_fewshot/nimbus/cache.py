"""What was learned, kept with the dataset: the container that learned it is thrown away after the job.

An item in the dataset's folder holds a few files, each named after what its content depends on: the examples, their
pixels, the weights, the settings and the version of this program. A file that is missing, damaged or of something else
is as if it were not there. So the item may be deleted at any time, and jobs that run at once at worst write the same
file twice.
"""

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
from sam2_fewshot.similarity.object_model import frame_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.nimbus.engine import Engine
    from sam2_fewshot.nimbus.messages import Messages
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.protocols import FrameReader
    from sam2_fewshot.records import Exemplar
    from sam2_fewshot.settings import Settings

ITEM = "sam2-fewshot learned models"
KEEP = 5
"""Files that are kept: so many sets of examples or settings can be used in turns."""
LARGEST = 32 << 20
"""Bytes of the largest file that is kept; the server takes files of this size in one request."""
_WARNINGS = "warnings.json"
_NOT_LEARNED = {"similarity_threshold", "smoothing", "batch_size", "points_per_batch"}
"""Settings that what is learned does not depend on."""


def content_key(exemplars: Sequence[Exemplar], model_sha256: str, settings: Settings) -> str:
    """Return 64 hexadecimal digits that change with anything that is learned from.

    Parameters
    ----------
    exemplars
        The examples; each frame they lie on is read.
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
            pixels[id(image)] = frame_digest(image.read())
        shape = list(exemplar.point or ()) if exemplar.polygon is None else shapely.to_wkb(exemplar.polygon, hex=True)
        place = location_on(exemplar)
        marks.append([exemplar.negative, pixels[id(image)], [place.xy, place.z, place.time], shape])
    facts = {
        "version": __version__,
        "model": model_sha256,
        "settings": settings.model_dump(mode="json", exclude=_NOT_LEARNED),
        "examples": marks,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Cache:
    """The learned models that are kept with a dataset. What goes wrong with it is logged and does no harm.

    Parameters
    ----------
    server
        The connection.
    dataset_id
        The dataset's folder.
    messages
        Its log takes what goes wrong.
    """

    def __init__(self, server: Server, dataset_id: str, messages: Messages) -> None:
        self._server = server
        self._dataset_id = dataset_id
        self._messages = messages
        self._files: list[dict[str, Any]] = []

    def recall(self, key: str, engine: Engine) -> bool:
        """Let the engine take over what an earlier job learned; return whether there was anything."""
        name = _name(key)
        try:
            item = self._item()
            self._files = [] if item is None else self._server.get("looking for a learned model", f"item/{item}/files")
            found = [file for file in self._files if file.get("name") == name and 0 < file.get("size", 0) <= LARGEST]
            if not found:
                return False
            content = self._server.get_bytes("fetching a learned model", f"file/{found[-1]['_id']}/download")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                path.write_bytes(content)
                with ZipFile(path) as archive:
                    warnings = json.loads(archive.read(_WARNINGS))
                engine.load(path)
        except (ServerError, InputError, OSError, KeyError, TypeError, ValueError, BadZipFile) as error:
            self._messages.log(f"The learned model of an earlier job is not used: {error}")
            return False
        for sentence in warnings:
            self._messages.warn(str(sentence))
        return True

    def keep(self, key: str, engine: Engine, warnings: Sequence[str]) -> None:
        """Keep what the engine has learned, with its warnings about examples, and let go of what is oldest."""
        name = _name(key)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                engine.save(path)
                with ZipFile(path, "a") as archive:
                    archive.writestr(_WARNINGS, json.dumps(list(warnings)))
                content = path.read_bytes()
            if len(content) > LARGEST:
                return
            item = self._item() or self._make()
            for file in [each for each in self._files if each.get("name") == name]:  # a damaged one
                self._remove(file)
            self._server.send(
                "keeping the learned model",
                "POST",
                "file",
                parameters={
                    "parentType": "item",
                    "parentId": item,
                    "name": name,
                    "size": len(content),
                    "mimeType": "application/octet-stream",
                },
                data=content,
                repeatable=True,
            )
            others = [file for file in self._files if file.get("name") != name]
            others.sort(key=lambda file: str(file.get("created", "")))
            for file in others[: max(0, len(others) + 1 - KEEP)]:
                self._remove(file)
        except (ServerError, InputError, OSError, KeyError, TypeError, BadZipFile) as error:
            self._messages.log(f"What was learned is not kept for the next job: {error}")

    def _item(self) -> str | None:
        query = {"folderId": self._dataset_id, "name": ITEM, "limit": 1}
        items = self._server.get("looking for a learned model", "item", query)
        return str(items[0]["_id"]) if items else None

    def _make(self) -> str:
        made = self._server.send(
            "keeping the learned model",
            "POST",
            "item",
            parameters={"folderId": self._dataset_id, "name": ITEM, "reuseExisting": "true"},
            repeatable=True,
        )
        return str(made["_id"])

    def _remove(self, file: dict[str, Any]) -> None:
        self._server.send("letting go of a learned model", "DELETE", f"file/{file['_id']}")


def _name(key: str) -> str:
    return f"{key[:32]}.npz"
