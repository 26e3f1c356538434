"""Texts that came from outside, made safe for file names, CSV cells and JSON."""

from __future__ import annotations

import math
import unicodedata
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST = 100
# Names that Windows keeps for devices, with any ending:
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³")}


def safe_stem(text: str) -> str:
    """Return a file name without ending that any system and any web page can take.

    Letters and digits of every script stay, and so do ``-``, ``_``, ``.``, ``+`` and blanks between them;
    everything else becomes ``_``. A name that is too long is cut and ends in a digest of the whole. A safe
    name comes back as it is.
    """
    clean = "".join(
        letter if letter.isalnum() or letter in "-_.+ " else "_"
        for letter in unicodedata.normalize("NFC", text)
        if not unicodedata.combining(letter) or letter.isalnum()
    )
    clean = clean.strip(" .")
    if clean.startswith("-"):  # would be taken for an option
        clean = "_" + clean[1:]
    if clean.split(".")[0].strip().lower() in _RESERVED:
        clean = "_" + clean
    if len(clean.encode()) > _LONGEST:
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        kept = clean.encode()[: _LONGEST - 9].decode(errors="ignore").rstrip(" .")
        clean = f"{kept}_{digest}"
    return clean or "image"


def safe_stems(texts: Sequence[str]) -> list[str]:
    """Return a safe and distinct file name for each text, in the order given.

    Names that differ only in upper and lower case are told apart too, as they meet on Windows and macOS: the
    second ``Cells`` becomes ``Cells_2``.
    """
    taken: set[str] = set()
    return [distinct_stem(text, taken) for text in texts]


def distinct_stem(text: str, taken: set[str]) -> str:
    """Return a safe file name that is not among those `taken` (in any case), and add it to them."""
    stem = first = safe_stem(text)
    number = 2
    while stem.casefold() in taken:
        stem = f"{first}_{number}"
        number += 1
    taken.add(stem.casefold())
    return stem


def printable(text: str) -> str:
    r"""Return a text that UTF-8 can hold: stray bytes of a file name become ``\udcff`` and so on."""
    return text.encode("utf-8", "backslashreplace").decode()


def figure(value: float, digits: int = 6) -> float | None:
    """Round a figure for a file, None (JSON's null) for one that is not finite."""
    return round(float(value), digits) if math.isfinite(value) else None


def hexadecimal_id(*parts: object) -> str:
    """Return 24 hexadecimal digits, the form of MongoDB's ids, always the same for the same parts."""
    return sha256("/".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:24]
