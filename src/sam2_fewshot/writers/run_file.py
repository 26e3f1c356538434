"""``run.json``: what was done, with what, and how long it took."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.writers.names import printable
from sam2_fewshot.writers.whole import replacing

if TYPE_CHECKING:
    from pathlib import Path


def write_run(path: Path, facts: Mapping[str, object]) -> None:
    """Write facts as JSON, whole or not at all.

    Figures that are not finite become null, paths and dates become text, arrays and sets become lists.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        json.dump(plain(facts), file, ensure_ascii=False, allow_nan=False, indent=2)
        file.write("\n")


def plain(value: Any) -> Any:
    """Return a value made of what JSON knows."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {printable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    return printable(str(value))
