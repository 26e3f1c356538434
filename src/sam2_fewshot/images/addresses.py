"""Names of image files and addresses on the web, and ranges of numbers as a user types them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sam2_fewshot.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DOUBLE_SUFFIX = re.compile(r"\.(ome|lsm|cziexport)$", re.IGNORECASE)
"""What stands before the suffix and is not a part of the name, as in ``a.ome.tif``."""
_ADDRESS = re.compile(r"(https?|s3):/+(.+)")
_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_RANGE = re.compile(r"([0-9]+)(?:\s*[-\u2013]\s*([0-9]+))?")
_LONGEST_QUOTE = 40


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts ``a2`` before ``a10``."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], path.name


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix: ``a`` for ``a.png`` and for ``a.ome.tif``."""
    return DOUBLE_SUFFIX.sub("", path.stem) or path.stem


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
    except (OSError, ValueError):  # not a possible name; opening it gives the message
        return False


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
    found = _RANGE.fullmatch(part)
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
    quoted = part if len(part) <= _LONGEST_QUOTE else part[:_LONGEST_QUOTE] + "…"
    if count == 1:
        return SettingsError(f"{field}: {quoted!r} {problem}; only 1 is valid here, so leave it out or give 'all'.")
    return SettingsError(f"{field}: {quoted!r} {problem}; 1-{count} is valid here, for instance '1-3, 5' or 'all'.")
