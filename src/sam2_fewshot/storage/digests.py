"""What a frame's result depends on, in a string: a frame recorded under the same one need not be done again."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sam2_fewshot.records import Exemplar
    from sam2_fewshot.settings import Settings

AT_A_TIME = {"batch_size", "points_per_batch", "max_memory", "cache_size", "cache_embeddings", "compile"}
"""Settings that change how much is done or kept at a time, or how fast, and not what comes out."""
_NO_PART = ("annotations", "cli", "evaluation", "files", "images", "nimbus", "report", "runner", "storage")
"""Rooms of this package that what is learned does not depend on."""
_SAME_RECORD = AT_A_TIME | {"similarity_threshold"}
"""Settings that a frame's record does not depend on where the threshold is fixed: it also holds what lies below."""


def common_part(
    version: str,
    settings: Settings,
    model: str,
    exemplars: Iterable[tuple[Exemplar, object]],
    extra: Mapping[str, object],
) -> str:
    """Return what all frames of a run depend on, as 64 hexadecimal digits.

    Parameters
    ----------
    version
        Version of this program.
    settings
        All settings; those that only concern memory are left out, and so is the threshold.
    model
        SHA-256 of the checkpoint.
    exemplars
        The examples in their order, each with what tells which frame it lies on.
    extra
        Anything else that JSON can hold.
    """
    digest = hashlib.sha256()
    same = _SAME_RECORD if settings.threshold_mode == "fixed" else AT_A_TIME
    facts = {
        "version": version,
        "settings": settings.model_dump(mode="json", exclude=same),
        "model": model,
        **extra,
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for exemplar, where in exemplars:
        digest.update(json.dumps([where, *_shape(exemplar)]).encode())
    return digest.hexdigest()


def examples_part(exemplars: Iterable[tuple[Exemplar, object]]) -> str:
    """Return what a run's examples are, as 64 hexadecimal digits; see :func:`common_part`."""
    digest = hashlib.sha256()
    for exemplar, where in exemplars:
        digest.update(json.dumps([where, *_shape(exemplar)]).encode())
    return digest.hexdigest()


def _shape(exemplar: Exemplar) -> list[object]:
    parts: list[object] = [exemplar.negative]
    if exemplar.mask is not None:
        # A mask is as large as its frame and mostly empty, so its pixels are listed only where it is.
        rows, columns = np.nonzero(exemplar.mask)
        parts += [
            "mask",
            exemplar.mask.shape,
            hashlib.sha256(np.stack([rows, columns]).tobytes()).hexdigest(),
        ]
    if exemplar.polygon is not None:
        parts += ["polygon", shapely.to_wkb(exemplar.polygon, hex=True)]
    if exemplar.point is not None:
        parts += ["point", list(exemplar.point)]
    return parts


@cache
def code_digest(whole: bool = False, root: Path = Path(__file__).parents[1]) -> str:
    """Return a hash of this package's code: what a changed program learns may be something else.

    Parameters
    ----------
    whole
        Whether also that counts which what is learned does not depend on, such as how frames are read.
    root
        Where the code is.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if whole or path.relative_to(root).parts[0] not in _NO_PART:
            digest.update(path.read_bytes())
    return digest.hexdigest()
