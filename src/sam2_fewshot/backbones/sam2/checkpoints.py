"""SAM 2's checkpoints: Meta's four and the embedded one, known by name, and where files lie on this machine."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sam2_fewshot.errors import CheckpointError
from sam2_fewshot.protocols import Gates
from sam2_fewshot.storage.files import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

META_BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
"""Where Meta publishes the SAM 2.1 checkpoints (README of facebookresearch/sam2)."""


SAM2_GATES = Gates(predicted_iou=0.8, stability=0.95)
"""The defaults of ``SAM2AutomaticMaskGenerator`` in the public ``sam2`` package."""

EMBEDDED_GATES = Gates(predicted_iou=0.6, stability=0.95)
"""Of the embedded checkpoint: it predicts the IoU well, but seldom reaches SAM 2's .8 (its model card)."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known of a checkpoint before its file is opened.

    Parameters
    ----------
    name
        File name, such as ``sam2.1_hiera_tiny.pt``.
    config
        Its configuration: a path inside the ``sam2`` package (``configs/…``), the name of a YAML file among
        the embedded weights, or the absolute path of a YAML file. None: the one that the weights themselves
        fit.
    gates
        Default gates of the proposals.
    sha256
        Published hash of the file, in hexadecimal. None where none is published.
    size
        Size of the file in bytes; None where it was never measured.
    parameters
        Number of parameters, in millions; None where it is not known beforehand.
    url
        Where to download it; None if it cannot be.
    licence
        SPDX name of its licence, or what is known of it.
    """

    name: str
    config: str | None
    gates: Gates = SAM2_GATES
    sha256: str | None = None
    size: int | None = None
    parameters: float | None = None
    url: str | None = None
    licence: str = "unknown"

    @property
    def short_name(self) -> str:
        """The name as people say it: ``tiny``, ``base_plus``; of other files, the name without its ending."""
        return self.name.removesuffix(".pt").removeprefix("sam2.1_hiera_")

    @property
    def download_size(self) -> int | None:
        """Size of the download in bytes: exact where it is known, else four bytes a parameter."""
        if self.size is not None:
            return self.size
        return None if self.parameters is None else round(self.parameters * 4e6)


def _meta(size_name: str, config: str, parameters: float, sha256: str, size: int | None = None) -> Checkpoint:
    name = f"sam2.1_hiera_{size_name}.pt"
    return Checkpoint(
        name=name,
        config=f"configs/sam2.1/sam2.1_hiera_{config}.yaml",
        sha256=sha256,
        size=size,
        parameters=parameters,
        url=f"{META_BASE_URL}/{name}",
        licence="Apache-2.0",
    )


# The hashes are those that micro-sam and nine other public repositories pin alike. The numbers of
# parameters were counted on the networks that the configurations build.
TINY = _meta("tiny", "t", 39.0, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69")
SMALL = _meta("small", "s", 46.1, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38")
BASE_PLUS = _meta(
    "base_plus", "b+", 80.9, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", 323_606_802
)
LARGE = _meta("large", "l", 224.4, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318")

MICRO = Checkpoint(
    name="sam2.1_hiera_micro.pt",
    config="sam2.1_hiera_micro.yaml",
    gates=EMBEDDED_GATES,
    licence="Apache-2.0",
)
"""The embedded checkpoint. Nothing here depends on its content: hash and input size are read from it."""

CHECKPOINTS = (BASE_PLUS, LARGE, SMALL, TINY, MICRO)
"""All known checkpoints, in the order in which ``auto`` prefers them.

base_plus is first because it is the method's documented default; the others follow by size. The device does
not enter the choice: the same command must give the same objects on a laptop and on a GPU server that hold
the same files, and a fast but different answer is asked for by name.
"""

NAMES = tuple(checkpoint.name for checkpoint in CHECKPOINTS)
"""File names of all known checkpoints."""


def find(name: str) -> Checkpoint | None:
    """Return the known checkpoint of that name, or None.

    Parameters
    ----------
    name
        File name (``sam2.1_hiera_tiny.pt``), the same without its ending, or the short name (``tiny``).
    """
    for checkpoint in CHECKPOINTS:
        if name in (checkpoint.name, checkpoint.name.removesuffix(".pt"), checkpoint.short_name):
            return checkpoint
    return None


FOLDERS_VARIABLE = "SAM2_FEWSHOT_CHECKPOINTS"
"""Environment variable: a folder with checkpoints, or several, separated as in PATH."""

BASE_URL_VARIABLE = "SAM2_FEWSHOT_BASE_URL"
"""Environment variable: where to download from instead of Meta's server, such as an institute's mirror."""

CONTAINER_FOLDER = Path("/sam2_fewshot/checkpoints")
"""Where this program's container image keeps the checkpoints that it was built with."""

EMBEDDED_FOLDER = Path(__file__).with_name("weights")
"""Where the package keeps the checkpoint that it carries along."""


@dataclass(frozen=True, slots=True)
class LocalCheckpoint:
    """A checkpoint's file on this machine.

    Parameters
    ----------
    path
        The file.
    checkpoint
        What is known of it.
    """

    path: Path
    checkpoint: Checkpoint


def user_cache_folder() -> Path:
    """Return the folder of this user's downloaded checkpoints, which need not exist yet."""
    from platformdirs import user_cache_path

    return user_cache_path("sam2-fewshot", appauthor=False) / "checkpoints"


def download_base(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the base URL that the environment asks to download from; None for Meta's own."""
    variables = os.environ if environ is None else environ
    return variables.get(BASE_URL_VARIABLE, "").strip() or None


def search_folders(environ: Mapping[str, str] | None = None) -> list[Path]:
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
        path = expanded(entry.strip())
        if not _is(path, "dir"):
            raise CheckpointError(
                f"The environment variable {FOLDERS_VARIABLE} names {path}, which is not a folder; "
                "correct it, or unset it."
            )
        folders.append(path)
    return [*folders, CONTAINER_FOLDER, user_cache_folder(), EMBEDDED_FOLDER]


def available(folders: Sequence[Path] | None = None) -> list[LocalCheckpoint]:
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


def resolve(name: str | os.PathLike[str] = "auto", folders: Sequence[Path] | None = None) -> LocalCheckpoint:
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
    path = as_path(name, folders)
    if path is not None:
        return _from_path(path)
    name = str(name)
    places = search_folders() if folders is None else folders
    if name == "auto":
        return _best(places)
    checkpoint = find(name)
    found = _look(checkpoint.name if checkpoint else name, places)
    if found:
        return found
    if checkpoint is None:
        raise CheckpointError(
            f"There is no model called {name!r}. The models are {', '.join(NAMES)}, "
            "or auto, or the path of a SAM 2 checkpoint."
        )
    searched = ", ".join(map(str, places))
    raise CheckpointError(
        f"{checkpoint.name} is not on this machine (looked in {searched}). Download it with "
        f"`sam2-fewshot models fetch {checkpoint.short_name}`, or set {FOLDERS_VARIABLE} to the folder "
        "that has it."
    )


def as_path(name: str | os.PathLike[str], folders: Sequence[Path] | None = None) -> Path | None:
    """Return the path that a user means; None where it is a name, be it of something that is there or not.

    Parameters
    ----------
    name, folders
        As for :func:`resolve`.

    Raises
    ------
    CheckpointError
        As :func:`search_folders`.
    """
    if not isinstance(name, str) or any(mark and mark in name for mark in (os.sep, os.altsep)):
        return expanded(name)
    if name == "auto" or not _is(Path(name), "file"):
        return None
    checkpoint = find(name)
    places = search_folders() if folders is None else folders
    return None if _look(checkpoint.name if checkpoint else name, places) else Path(name)


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


def _is(path: Path, kind: Literal["file", "dir"]) -> bool:
    """Return whether a file or folder is there; one that may not be looked at, or cannot exist, is not."""
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except OSError:
        return False


def _best(places: Sequence[Path]) -> LocalCheckpoint:
    found = available(places)
    if not found:
        raise CheckpointError(
            f"There is no model on this machine; even {MICRO.name}, which comes with the program, is "
            "missing. Install sam2-fewshot again."
        )
    return found[0]


def _look(name: str, places: Sequence[Path]) -> LocalCheckpoint | None:
    for place in places:
        path = place / name
        if _is(path, "file"):
            return LocalCheckpoint(path, _describe_file(path))
    return None


def _from_path(path: Path) -> LocalCheckpoint:
    if _is(path, "dir"):
        raise CheckpointError(f"{path} is a folder; give the path of one checkpoint file in it.")
    if not _is(path, "file"):
        raise CheckpointError(f"There is no file {path}; give the path of a SAM 2 checkpoint, or a model's name.")
    return LocalCheckpoint(path, _describe_file(path))


def _describe_file(path: Path) -> Checkpoint:
    """Return what is known of a file: by the YAML file beside it, by its name, or by its content."""
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
