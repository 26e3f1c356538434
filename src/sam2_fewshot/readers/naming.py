"""File names: natural order, names of results, and which examples belong to which image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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
