"""File patterns that the shell left as they are."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError
from sam2_fewshot.readers.naming import natural_key
from sam2_fewshot.readers.places import remote

if TYPE_CHECKING:
    from collections.abc import Iterable


def expand(arguments: Iterable[str]) -> list[Path]:
    """Return the files that the arguments name, patterns like ``*.tif`` replaced by what they match.

    The order of the arguments is kept, and the matches of one pattern are in natural order (img2 before img10).
    A file whose name has brackets in it is taken as it is where it exists.

    Raises
    ------
    InputError
        If nothing fits a pattern.
    """
    paths: list[Path] = []
    for argument in arguments:
        path = Path(argument).expanduser()
        if remote(argument) or path.exists() or not glob.has_magic(argument):
            paths.append(path)
            continue
        # Path.glob wants a folder without patterns to start from, and the pattern may be absolute.
        found = sorted(glob.glob(str(path), recursive=True), key=_natural)  # noqa: PTH207
        if not found:
            raise InputError(f"No file fits {argument!r}; check the folder and the ending.")
        paths += map(Path, found)
    return paths


def _natural(path: str) -> list[object]:
    return [natural_key(Path(part)) for part in Path(path).parts]
