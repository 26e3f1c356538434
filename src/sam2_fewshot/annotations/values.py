"""Values from outside, looked at before use: JSON of a bounded size, and texts made safe for names, cells and JSON."""

from __future__ import annotations

import json
import math
import unicodedata
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.source import reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_JSON_BYTES = 100_000_000
"""Largest JSON file that is read. 5,000 outlines of 40 points are about 10 MB."""


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        If it is missing, larger than :data:`MAX_JSON_BYTES`, not text in UTF-8, or not JSON.
    """
    with reading(path):
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise InputError(
                f"{path.name} is {size // 10**6} MB; examples of up to {MAX_JSON_BYTES // 10**6} MB are read. "
                "Export only the objects that serve as examples."
            )
        if not size:
            raise InputError(f"{path.name} is empty (0 bytes); export it again.")
        raw = path.read_bytes()
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not a text file in UTF-8; export it again as JSON or GeoJSON.") from None
    except RecursionError:
        raise InputError(f"{path.name} is nested too deeply for a file of annotations.") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path.name} is not whole, valid JSON: {error.msg} in line {error.lineno}. Export it again."
        ) from None
    except ValueError:
        raise InputError(f"{path.name} has a number of thousands of digits; export it again.") from None


def as_number(value: Any) -> float | None:
    """Return a JSON number as float (it may be NaN or infinite), None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def index(value: Any) -> int | None:
    """Return a JSON number that is a whole one, None for anything else."""
    found = as_number(value)
    return int(found) if found is not None and abs(found) < 2**31 and found == int(found) else None


def words(value: Any) -> tuple[str, ...]:
    """Return the strings in a JSON list, or a string as a list of itself; other things are passed over."""
    entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(dict.fromkeys(entry for entry in entries if isinstance(entry, str) and entry))


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
