"""Where checkpoints lie on this machine. The only module of the package that reads the environment."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sam2_fewshot.backbones.sam2.checkpoints import CHECKPOINTS, MICRO, NAMES, Checkpoint, find
from sam2_fewshot.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDERS_VARIABLE = "SAM2_FEWSHOT_CHECKPOINTS"
"""Environment variable: a folder with checkpoints, or several, separated as in PATH."""

BASE_URL_VARIABLE = "SAM2_FEWSHOT_BASE_URL"
"""Environment variable: where to download from instead of Meta's server, such as an institute's mirror."""

CONTAINER_FOLDER = Path("/sam2_fewshot/checkpoints")
"""Where this program's container image keeps the checkpoints that it was built with."""

EMBEDDED_FOLDER = Path(__file__).with_name("weights")
"""Where the package keeps the checkpoint that it carries along."""

Origin = Literal["path", "environment", "container", "cache", "embedded"]

_ORIGIN_TEXT: dict[Origin, str] = {
    "path": "given by its path",
    "environment": f"from {FOLDERS_VARIABLE}",
    "container": "from the container's folder",
    "cache": "from the user's cache",
    "embedded": "embedded in the program",
}


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is searched for checkpoints, and why."""

    path: Path
    origin: Origin


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint's file on this machine.

    Parameters
    ----------
    path
        The file.
    checkpoint
        What is known of it.
    origin
        Which step of the search found it.
    """

    path: Path
    checkpoint: Checkpoint
    origin: Origin

    def describe(self) -> str:
        """Say in a few words which checkpoint this is and where it comes from."""
        return f"{self.checkpoint.name} ({_ORIGIN_TEXT[self.origin]}: {self.path})"

    def sha256(self) -> str:
        """Compute the file's SHA-256 in hexadecimal.

        Raises
        ------
        CheckpointError
            If the file cannot be read.
        """
        return sha256_of(self.path)


def user_cache_folder() -> Path:
    """Return the folder of this user's downloaded checkpoints, which need not exist yet."""
    from platformdirs import user_cache_path

    return user_cache_path("sam2-fewshot", appauthor=False) / "checkpoints"


def download_base(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the base URL that the environment asks to download from; None for Meta's own."""
    variables = os.environ if environ is None else environ
    return variables.get(BASE_URL_VARIABLE, "").strip() or None


def search_folders(environ: Mapping[str, str] | None = None) -> list[Folder]:
    """Return the folders that are searched, in order.

    Parameters
    ----------
    environ
        Environment variables; None for those of this process.

    Raises
    ------
    CheckpointError
        If the environment names a folder that does not exist. Passing over it would end in another model
        than the one that somebody has put there.
    """
    variables = os.environ if environ is None else environ
    folders = []
    for entry in variables.get(FOLDERS_VARIABLE, "").split(os.pathsep):
        if not entry.strip():
            continue
        path = _expanded(entry.strip())
        if not _is(path, "dir"):
            raise CheckpointError(
                f"The environment variable {FOLDERS_VARIABLE} names {path}, which is not a folder; "
                "correct it, or unset it."
            )
        folders.append(Folder(path, "environment"))
    return [
        *folders,
        Folder(CONTAINER_FOLDER, "container"),
        Folder(user_cache_folder(), "cache"),
        Folder(EMBEDDED_FOLDER, "embedded"),
    ]


def available(folders: Sequence[Folder] | None = None) -> list[Found]:
    """Return the known checkpoints that are on this machine, the best first.

    Parameters
    ----------
    folders
        Where to look, in order; None for :func:`search_folders`. Of two files of the same name, the one in
        the earlier folder counts.

    Raises
    ------
    CheckpointError
        As :func:`search_folders`.
    """
    places = search_folders() if folders is None else folders
    found = (_look(checkpoint.name, places) for checkpoint in CHECKPOINTS)
    return [each for each in found if each is not None]


def resolve(name: str | os.PathLike[str] = "auto", folders: Sequence[Folder] | None = None) -> Found:
    """Find the checkpoint that a user means.

    Parameters
    ----------
    name
        ``auto`` for the best one that is present; a file name, with or without its ending; a short name
        such as ``tiny``; or a path. What contains a separator, or is a path object, is only ever a path. A
        bare name is sought in the folders first and in the working directory last.
    folders
        Where to look, in order; None for :func:`search_folders`.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it is known but not on this machine; the sentence says how to get
        it.
    """
    if not isinstance(name, str) or any(mark and mark in name for mark in (os.sep, os.altsep)):
        return _from_path(_expanded(name))
    places = search_folders() if folders is None else folders
    if name == "auto":
        return _best(places)
    checkpoint = find(name)
    found = _look(checkpoint.name if checkpoint else name, places)
    if found:
        return found
    if _is(Path(name), "file"):
        return _from_path(Path(name))
    if checkpoint is None:
        raise CheckpointError(
            f"There is no model called {name!r}. The models are {', '.join(NAMES)}, "
            "or auto, or the path of a SAM 2 checkpoint."
        )
    searched = ", ".join(str(place.path) for place in places)
    raise CheckpointError(
        f"{checkpoint.name} is not on this machine (looked in {searched}). Download it with "
        f"`sam2-fewshot models fetch {checkpoint.short_name}`, or set {FOLDERS_VARIABLE} to the folder "
        "that has it."
    )


def sha256_of(path: Path) -> str:
    """Compute a file's SHA-256 in hexadecimal.

    Raises
    ------
    CheckpointError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None


def _expanded(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a "~name" of nobody
        return Path(path)


def _is(path: Path, kind: Literal["file", "dir"]) -> bool:
    """Tell whether a file or folder is there; one that may not be looked at, or cannot exist, is not."""
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except OSError:
        return False


def _best(places: Sequence[Folder]) -> Found:
    found = available(places)
    if not found:
        raise CheckpointError(
            f"There is no model on this machine; even {MICRO.name}, which comes with the program, is "
            "missing. Install sam2-fewshot again."
        )
    return found[0]


def _look(name: str, places: Sequence[Folder]) -> Found | None:
    for place in places:
        path = place.path / name
        if _is(path, "file"):
            return Found(path, _describe_file(path), place.origin)
    return None


def _from_path(path: Path) -> Found:
    if _is(path, "dir"):
        raise CheckpointError(f"{path} is a folder; give the path of one checkpoint file in it.")
    if not _is(path, "file"):
        raise CheckpointError(f"There is no file {path}; give the path of a SAM 2 checkpoint, or a model's name.")
    return Found(path, _describe_file(path), "path")


def _describe_file(path: Path) -> Checkpoint:
    """Tell what is known of a file: by the YAML file beside it, by its name, or by its content."""
    known = next((each for each in CHECKPOINTS if each.name == path.name), None)
    config = path.absolute().with_suffix(".yaml")
    if _is(config, "file") and path.parent != EMBEDDED_FOLDER:
        if known is None:
            return Checkpoint(path.name, str(config))
        return Checkpoint(path.name, str(config), gates=known.gates, licence=known.licence)
    return known or _same_content(path) or Checkpoint(path.name, None)


def _same_content(path: Path) -> Checkpoint | None:
    """Return the known checkpoint of which a file is a renamed copy, so that it keeps its gates."""
    digest = sha256_of(path)
    for checkpoint in CHECKPOINTS:
        if digest == (_embedded_sha256() if checkpoint is MICRO else checkpoint.sha256):
            return checkpoint
    return None


@lru_cache(maxsize=1)
def _embedded_sha256() -> str | None:
    path = EMBEDDED_FOLDER / MICRO.name
    return sha256_of(path) if path.is_file() else None
