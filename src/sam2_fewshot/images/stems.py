"""What images and their results are called, no two of a run the same, and the latter so that any system can take it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from hashlib import sha256
from itertools import chain, count, takewhile
from typing import TYPE_CHECKING

from sam2_fewshot.images.addresses import composed, whole_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sam2_fewshot.images.source import Header

_LONGEST = 100
# Names that Windows keeps for devices, with any ending:
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³")}
_PLANE = re.compile(r"(.+)_z[1-9][0-9]*_t[1-9][0-9]*", re.DOTALL)


def safe_stem(text: str) -> str:
    """Return a file name without ending that any system and any web page can take.

    Letters and digits of every script stay, and so do ``-``, ``_``, ``.``, ``+`` and blanks between them;
    everything else becomes ``_``. A name that is too long is shortened and ends in a digest of the whole. A safe
    name comes back as it is.
    """
    text = composed(text)
    clean = "".join(
        letter if letter.isalnum() or letter in "-_.+ " else "_"
        for letter in text
        if not unicodedata.combining(letter) or letter.isalnum()
    )
    clean = clean.strip(" .")
    if clean.startswith("-"):  # would be taken for an option
        clean = "_" + clean[1:]
    if clean.split(".")[0].strip().lower() in _RESERVED:
        clean = "_" + clean
    if len(clean.encode()) > _LONGEST:
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        start = clean.encode()[: _LONGEST - 9].decode(errors="ignore").rstrip(" .")
        clean = f"{start}_{digest}"
    return clean or "image"


def safe_stems(texts: Sequence[str], stacks: Sequence[bool] = ()) -> tuple[str, ...]:
    """Return a safe and distinct file name for each text, in the order given.

    The second ``Cells`` becomes ``Cells_2``, or another number where that is one of the texts. Names that differ only
    in upper and lower case become distinct too, since Windows and macOS take them for one.

    Parameters
    ----------
    texts
        The stems of the images' own names.
    stacks
        Which of them have several planes; none when left out. ``Cells_Z1_T1`` is the name of a plane of such a
        ``Cells``, so an image of that name gets another.
    """
    own = {composed(text).casefold() for text in texts}
    taken: set[str] = set()
    with_planes: set[str] = set()
    like_planes: set[str] = set()
    numbers: dict[str, int] = {}
    stems: list[str] = []
    for text, is_stack in zip(texts, stacks or [False] * len(texts), strict=True):
        first = safe_stem(text)
        for number in chain((1,), count(numbers.get(first.casefold(), 2))):
            stem = first if number == 1 else safe_stem(f"{first}_{number}")
            key = stem.casefold()
            plane = _PLANE.fullmatch(key)
            is_free = key not in taken and (key not in own or stem == composed(text))
            if is_free and not (plane and plane[1] in with_planes) and not (is_stack and key in like_planes):
                break
        numbers[first.casefold()] = number + 1
        taken.add(key)
        if is_stack:
            with_planes.add(key)
        if plane:
            like_planes.add(plane[1])
        stems.append(stem)
    return tuple(stems)


def full_names_of(headers: Sequence[Header]) -> list[str]:
    """Return a name for the file of each image that tells it from the others, whatever position of it this is.

    It is the file's own, with the folders below the common one where several files have that name, however its accents
    are written: ``day1/a.tif`` and ``day2/a.tif``.
    """
    keys = [(composed(each.file_name), composed(each.position)) for each in headers]
    counts = Counter(keys)
    places = [place_of(header) if counts[key] > 1 else None for header, key in zip(headers, keys, strict=True)]
    folders = zip(*(place[:-1] for place in places if place), strict=False)
    shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    return [
        header.file_name if place is None else "/".join(place[shared:])
        for header, place in zip(headers, places, strict=True)
    ]


def place_of(header: Header) -> tuple[str, ...]:
    """Return the folders that an image's file is in, the outermost first, and what it is called."""
    path = header.path
    outer = next((each for each in path.parents if each.name == header.title), path) if header.title else path
    return (*steps_of(outer)[:-1], header.file_name)


def steps_of(path: Path) -> tuple[str, ...]:
    """Return the folders that a file is in, the outermost first, and its name."""
    path = whole_path(path)
    return path.parts[bool(path.anchor) :]
