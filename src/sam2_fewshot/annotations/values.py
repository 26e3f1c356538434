"""Values in files of others, looked at before use: JSON of a bounded size, numbers, tags, places and figures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.source import reading
from sam2_fewshot.records import FIGURES, Kind, Location
from sam2_fewshot.storage.files import refuse_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MOST_IMAGES = 100_000
"""So many images are believed of one file."""
MAX_JSON_BYTES = 100_000_000
"""Largest JSON file that is read. 5,000 outlines of 40 points are about 10 MB."""


def load_json(path: Path, object_hook: Callable[[dict[str, Any]], object] | None = None) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path
        The file.
    object_hook
        Is given each object in it, the inner ones first, and returns what to have in its stead.

    Raises
    ------
    InputError
        If it is missing, larger than :data:`MAX_JSON_BYTES`, not text in UTF-8, not JSON, or a device or a pipe.
    """
    refuse_device(path)
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
        text = raw.decode("utf-8-sig")
        del raw  # a copy fewer while the objects come into being
        return json.loads(text, object_hook=object_hook)
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


@dataclass(frozen=True, eq=False, slots=True)
class Vertices:
    """Points that a file has as a list of ``{"x": …, "y": …}``.

    Parameters
    ----------
    points
        float64 (n, 2), ``(x, y)``.
    """

    points: NDArray[np.float64]


def compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Make arrays of an object's outlines; as lists they take ten times the memory.

    What is under ``coordinates``, ``segmentation``, ``outline`` and ``holes`` is looked at: pairs become float64
    (n, 2), numbers in a row float64 (n,), and points by name :class:`Vertices`. What is not made of numbers alone stays
    as it is, to be looked at by its reader.
    """
    for key in ("coordinates", "segmentation", "outline", "holes"):
        value = entry.get(key)
        if isinstance(value, list):
            entry[key] = _compact(value, _NESTED)
    return entry


_NESTED = 3
"""Lists around the points: those of a GeoJSON MultiPolygon."""
_FEW = 6
"""Numbers that are left in their list: a point, or less than an outline of three."""


def _compact(value: list[Any], depth: int) -> list[Any] | NDArray[np.float64] | Vertices:
    kinds = set(map(type, value))
    try:
        if kinds <= {int, float}:
            return np.array(value, np.float64) if len(value) >= _FEW else value
        if kinds == {dict}:  # NimbusImage has its points so
            points = _pairs([number for point in value for number in (point.get("x"), point.get("y"))], 2)
            return value if points is None else Vertices(points)
        if kinds == {list}:
            widths = set(map(len, value))
            pairs = _pairs(list(chain.from_iterable(value)), widths.pop()) if widths in ({2}, {3}) else None
            if pairs is not None:
                return pairs
    except OverflowError:  # a whole number too large for any float
        return value
    return [_compact(part, depth - 1) if isinstance(part, list) and depth else part for part in value]


def _pairs(numbers: list[Any], width: int) -> NDArray[np.float64] | None:
    """Return the first two of every `width` numbers (n, 2), None when one of all is no number."""
    if not set(map(type, numbers)) <= {int, float}:
        return None
    return np.array(numbers, np.float64).reshape(-1, width)[:, :2].copy()


def json_number(value: Any) -> float | None:
    """Return a JSON number as float (it may be NaN or infinite), None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def index(value: Any) -> int | None:
    """Return a JSON number that is a whole one, None for anything else."""
    found = json_number(value)
    return int(found) if found is not None and abs(found) < 2**31 and found == int(found) else None


def words(value: Any) -> tuple[str, ...]:
    """Return the strings in a JSON list, or a string as a list of itself; other things are passed over."""
    entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(dict.fromkeys(entry for entry in entries if isinstance(entry, str) and entry))


def location_at(xy: Any, z: Any, time: Any) -> Location | None:
    """Return the location of three JSON numbers, None when one of them is not a whole number."""
    xy, z, time = index(xy), index(z), index(time)
    return None if xy is None or z is None or time is None else Location(xy, z, time)


TITLES = ("Score", "Similarity", "Predicted IoU")
"""The three figures of a detection as QuPath and NimbusImage display them."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a file says about how sure the program was of an object, NaN for what it does not say, and its kind.

    Parameters
    ----------
    score, similarity, predicted_iou, kind
        As in :class:`~sam2_fewshot.records.Detection`.
    """

    score: float = math.nan
    similarity: float = math.nan
    predicted_iou: float = math.nan
    kind: Kind | None = None

    @classmethod
    def of(cls, table: Mapping[str, Any], names: Sequence[str] = FIGURES, kind: object = None) -> Figures:
        """Return what a file has under the names of the three figures; what is no number counts as not there.

        Parameters
        ----------
        table
            Of an object, by names.
        names
            Of the three.
        kind
            What the file has for its kind; what is none counts as not there.
        """
        numbers = (json_number(table.get(name)) for name in names)
        score, similarity, predicted_iou = (math.nan if number is None else number for number in numbers)
        return cls(score, similarity, predicted_iou, as_kind(kind))


def as_kind(value: object) -> Kind | None:
    """Return the kind of an object that a file names, None for anything else."""
    return Kind(value) if isinstance(value, str) and value in set(Kind) else None
