"""Names, places and ranges of images."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from sam2_fewshot.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".tif",
        ".tiff",
        ".btf",
        ".tf8",
        ".lsm",
        ".bmp",
        ".gif",
        ".webp",
        ".ppm",
        ".pgm",
        ".nd2",
        ".lif",
        ".czi",
    }
)
_LABELS = re.compile(
    r"[ ._-](labels?|masks?|annotations?|annotated|examples?|rois?|roi_?sets?|objects?|instances?|cp_masks)$",
    re.IGNORECASE,
)
_DOUBLE = re.compile(r"\.(ome|lsm|cziexport)$", re.IGNORECASE)

_PIECES, _PIECE = 16, 4096
"""So many pieces of so many bytes of an image file are looked at, spread over it."""


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts ``a2`` before ``a10``."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], path.name


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix: ``a`` for ``a.png`` and for ``a.ome.tif``."""
    return _DOUBLE.sub("", path.stem) or path.stem


def example_stems(path: Path) -> tuple[str, ...]:
    """Return the image stems that a file of examples may belong to, the likeliest first.

    ``a_labels.png`` belongs to an image ``a_labels`` or, more often, ``a``; so do ``a.png``, ``a-mask.tif``,
    ``a.labels.tif`` and ``a_examples.geojson``. ``a.tif.geojson`` belongs to ``a`` too.
    """
    stem = stem_of(path)
    stems = [stem]
    for _ in range(2):
        shorter = _LABELS.sub("", stem)
        inner = shorter.rpartition(".")
        if f".{inner[2].lower()}" in IMAGE_SUFFIXES:
            shorter = inner[0]
        stem = _DOUBLE.sub("", shorter)
        if stem and stem not in stems:
            stems.append(stem)
    return tuple(stems)


def unique_stems(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return a different stem for each file, by which its results are named.

    Of ``a.png`` and ``a.tif`` the second becomes ``a_2``. Letter case does not make a difference, because some file
    systems see none.
    """
    taken: set[str] = set()
    own = {stem_of(path).casefold() for path in paths}
    stems: list[str] = []
    for path in paths:
        stem = stem_of(path)
        number = 1
        while stem.casefold() in taken or (number > 1 and stem.casefold() in own):
            number += 1
            stem = f"{stem_of(path)}_{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return tuple(stems)


_ADDRESS = re.compile(r"(https?|s3):/+(.+)")
_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


def remote(path: Path | str) -> str | None:
    """Return the address that a path stands for, None when it is a file or folder."""
    match = _ADDRESS.fullmatch(path if isinstance(path, str) else path.as_posix())
    return f"{match[1]}://{match[2]}" if match else None


def holds_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr group or array."""
    return any((path / name).is_file() for name in _ZARR_FILES)


def is_zarr(path: Path) -> bool:
    """Tell whether a path is taken for an OME-Zarr: a folder that is one, or any address."""
    if remote(path) is not None:
        return True
    try:
        return path.is_dir() and holds_zarr(path)
    except (OSError, ValueError):  # no possible name, which whoever opens it will say
        return False


_PART = re.compile(r"([0-9]+)(?:\s*[-\u2013]\s*([0-9]+))?")
_LONGEST_QUOTE = 40


def parse_range(text: str | None, count: int, field: str, blank: Sequence[int] | None = None) -> tuple[int, ...]:
    """Turn what a user typed into indices.

    Parameters
    ----------
    text
        Numbers and inclusive ranges as a user counts, from 1, with commas between: ``"1-3, 5-8"``. ``"all"``
        (in any case, alone or as one of the parts) means everything.
    count
        How many there are; the highest number allowed.
    field
        Name of the field, for messages.
    blank
        What an empty or missing text means, counted from 0; everything when left out.

    Returns
    -------
    tuple of int
        Counted from 0, sorted, each once.

    Raises
    ------
    SettingsError
        For anything else. Nothing is dropped in silence: a number that does not exist is refused too.
    """
    everything = tuple(range(count))
    if text is None or not text.strip():
        return everything if blank is None else tuple(sorted(set(blank)))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise _error(text, field, "has no number", count)
    chosen: set[int] = set()
    for part in parts:
        chosen.update(everything if part.lower() == "all" else _part(part, count, field))
    return tuple(sorted(chosen))


def _part(part: str, count: int, field: str) -> range:
    found = _PART.fullmatch(part)
    if found is None:
        raise _error(part, field, "is not a number or a range", count)
    if max(len(group or "") for group in found.groups()) > _LONGEST_QUOTE:
        raise _error(part, field, "does not exist", count)
    first = int(found[1])
    last = int(found[2]) if found[2] else first
    if first > last:
        raise SettingsError(f"{field}: {part!r} runs backwards; write '{last}-{first}'.")
    if first < 1 or last > count:
        raise _error(part, field, "does not exist", count)
    return range(first - 1, last)


def _error(part: str, field: str, problem: str, count: int) -> SettingsError:
    shown = part if len(part) <= _LONGEST_QUOTE else part[:_LONGEST_QUOTE] + "…"
    if count == 1:
        return SettingsError(f"{field}: {shown!r} {problem}; only 1 is valid here, so leave it out or give 'all'.")
    return SettingsError(f"{field}: {shown!r} {problem}; 1-{count} is valid here, for instance '1-3, 5' or 'all'.")


def frame_fingerprint(common: str, image: Path) -> str:
    """Return the fingerprint of the frames of one image; it begins with that of the run."""
    return f"{common}-{hashlib.sha256(json.dumps(signature(image)).encode()).hexdigest()}"


def signature(path: Path) -> list[object]:
    """Return what tells whether an image is the same as before: name, bytes, time of the last change, and samples.

    Reading a terabyte again only to hash it would take longer than most runs, so a few pieces are. Of an OME-Zarr the
    names, sizes and times of all its files are taken; of one on the web the metadata, so that changed pixels go
    unnoticed there.
    """
    if remote(path) is not None:
        from sam2_fewshot.images.ome_zarr import metadata_text

        return [remote(path), hashlib.sha256(metadata_text(path).encode()).hexdigest()]
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path.rglob("*")):
            status = file.stat()
            if not file.is_dir():
                facts = [file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns]
                digest.update(json.dumps(facts).encode())
        return [path.name, digest.hexdigest()]
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns, _sampled(path, status.st_size)]


def _sampled(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(_PIECES):
            file.seek(number * max(size - _PIECE, 0) // (_PIECES - 1))
            digest.update(file.read(_PIECE))
    return digest.hexdigest()
