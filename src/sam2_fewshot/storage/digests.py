"""Digests by which frames are known again, and of what results depend on: one under the same digest is taken over."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from sam2_fewshot.geometry.overlap import bands
from sam2_fewshot.settings import FILES_ONLY, MACHINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from sam2_fewshot.records import Exemplar, FrameReader
    from sam2_fewshot.settings import Settings

_SAME_SEARCH = {*MACHINE, *FILES_ONLY}
"""Settings that a frame's record does not depend on: it holds the examples in any case."""
_SAME_RECORD = _SAME_SEARCH | {"similarity_threshold"}
"""The same where the threshold is fixed: the record also holds what lies below."""
_STRIP = 1 << 24
"""Pixels that are read at a time."""


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
        All settings; those that only concern memory or what is written are left out, and so is the threshold.
    model
        SHA-256 of the checkpoint.
    exemplars
        The examples in their order, each with something that identifies its frame.
    extra
        Anything else that JSON can hold.
    """
    same = _SAME_RECORD if settings.threshold_mode == "fixed" else _SAME_SEARCH
    facts = {
        "version": version,
        "settings": settings.model_dump(mode="json", exclude=same),
        "model": model,
        **extra,
    }
    return examples_part(exemplars, json.dumps(facts, sort_keys=True))


def examples_part(exemplars: Iterable[tuple[Exemplar, object]], first: str = "") -> str:
    """Return what a run's examples are, after another text, as 64 hexadecimal digits; see :func:`common_part`."""
    digest = hashlib.sha256(first.encode())
    for exemplar, where in exemplars:
        digest.update(json.dumps([where, *_shape(exemplar)]).encode())
    return digest.hexdigest()


def _shape(exemplar: Exemplar) -> list[object]:
    parts: list[object] = [exemplar.negative]
    if exemplar.mask is not None:
        # A mask is as large as its frame and mostly empty, so the places of its pixels are hashed.
        pixels = np.stack(np.nonzero(exemplar.mask))
        parts += ["mask", exemplar.mask.shape, hashlib.sha256(pixels.tobytes()).hexdigest()]
    if exemplar.polygon is not None:
        parts += ["polygon", shapely.to_wkb(exemplar.polygon, hex=True)]
    if exemplar.box is not None:
        parts += ["box", list(exemplar.box)]
    if exemplar.point is not None:
        parts += ["point", list(exemplar.point)]
    return parts


def frame_digest(frame: FrameReader, strip: int = _STRIP) -> str:
    """Return a short hash of a frame's size and pixels, by which it is known again.

    Parameters
    ----------
    frame
        A large one is read in strips. One whose reader has an attribute ``digest`` is not read.
    strip
        As many pixels are read at a time.
    """
    own = getattr(frame, "digest", None)
    if own is not None:
        return str(own)
    height, width = frame.shape
    digest = hashlib.blake2b(repr((height, width, 3)).encode(), digest_size=16)
    rows = max(1, strip // max(1, width))
    for region in bands((0, 0, width, height), rows):
        digest.update(np.ascontiguousarray(frame.read(region)).data)
    return digest.hexdigest()


def pixels_digest(pixels: NDArray[np.uint8]) -> bytes:
    """Return a hash of pixels, by which they are known again in the same program; their shape is no part of it."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data).digest()


@cache
def code_digest(root: Path = Path(__file__).parents[1]) -> str:
    """Return a hash of all of this package's code: what a changed program learns or finds may be something else.

    Some of it cannot change that, but learning anew after an update takes less than an error in a list of it.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
