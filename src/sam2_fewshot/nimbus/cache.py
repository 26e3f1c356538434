"""What was learned, kept with the dataset: the container that learned it is thrown away after the job.

Each file is named after what its content depends on: the examples, their pixels, the weights, the settings and the
version of this program. A file that is missing, damaged or of something else is as if it were not there, and jobs that
run at once at worst write the same file twice.
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
from sam2_fewshot.parts import reader_digest
from sam2_fewshot.settings import AFTER_LEARNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.nimbus.engine import Engine
    from sam2_fewshot.nimbus.messages import Messages
    from sam2_fewshot.nimbus.shelf import Shelf
    from sam2_fewshot.protocols import FrameReader
    from sam2_fewshot.records import Exemplar
    from sam2_fewshot.settings import Settings

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
            pixels[id(image)] = reader_digest(image)
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
