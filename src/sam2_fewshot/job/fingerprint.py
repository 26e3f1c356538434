"""What a frame's result depends on, in a string: a frame recorded under the same one need not be done again."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sam2_fewshot.records import Exemplar
    from sam2_fewshot.settings import Settings

_SAME_RESULT = {"batch_size", "points_per_batch", "similarity_threshold"}
"""Settings that change how much is done at a time and not what comes out; and the threshold, since a record also holds
what was found below it."""


def signature(path: Path) -> list[object]:
    """Return what tells whether an image file is the same as before: name, bytes and time of the last change.

    Reading a terabyte again only to hash it would take longer than most runs.
    """
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


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
    facts = {
        "version": version,
        "settings": settings.model_dump(mode="json", exclude=_SAME_RESULT),
        "model": model,
        **extra,
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for exemplar, where in exemplars:
        digest.update(json.dumps([where, *_shape(exemplar)]).encode())
    return digest.hexdigest()


def frame_fingerprint(common: str, image: Path) -> str:
    """Return the fingerprint of the frames of one image."""
    return hashlib.sha256(json.dumps([common, signature(image)]).encode()).hexdigest()


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
