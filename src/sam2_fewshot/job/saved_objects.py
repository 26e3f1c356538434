"""Object models in files: what was learned in one run, to be used in others without the examples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError
from sam2_fewshot.segmenter import FewShotSegmenter
from sam2_fewshot.similarity.object_model import ObjectModel
from sam2_fewshot.writers.whole import telling

if TYPE_CHECKING:
    from pathlib import Path

    from sam2_fewshot.job.engine import Engine

_ENDING = ".npz"


@dataclass(frozen=True, eq=False)
class SavedObjects:
    """An object model's file.

    Parameters
    ----------
    path
        Where it lies.
    sha256
        SHA-256 of the file, in hexadecimal.
    objects
        What is in it.
    """

    path: Path
    sha256: str
    objects: ObjectModel


def read_saved(path: Path) -> SavedObjects:
    """Read an object model.

    Raises
    ------
    InputError
        If there is none, or it is damaged.
    """
    objects = ObjectModel.load(path)
    with telling(path):
        return SavedObjects(path, hashlib.sha256(path.read_bytes()).hexdigest(), objects)


def use_saved(engine: Engine, saved: SavedObjects) -> None:
    """Let an engine look for what an object model describes.

    Raises
    ------
    InputError
        If the engine cannot, or its weights are not those that it was learned with.
    """
    _segmenter(engine).adopt(saved.objects, str(saved.path))


def check_target(path: Path) -> None:
    """Refuse a name under which an object model had better not be saved.

    Raises
    ------
    InputError
        If it is a folder's, or does not end in ``.npz``; it may then be that of an image.
    """
    if path.suffix.lower() != _ENDING or path.is_dir():
        raise InputError(
            f"The object model cannot be saved as {path}: give --save-model the name of a file that ends in {_ENDING}."
        )


def save(engine: Engine, path: Path) -> None:
    """Save what an engine has learned; the folder is made when it is missing.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _segmenter(engine).save(path)


def _segmenter(engine: Engine) -> FewShotSegmenter:
    if not isinstance(engine, FewShotSegmenter):
        raise InputError(f"{engine.model_name} has no object models.")
    return engine
