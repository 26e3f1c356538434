"""What a frame's result depends on, in a string: a frame recorded under the same one need not be done again."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import shapely

from sam2_fewshot.readers.places import remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sam2_fewshot.records import Exemplar
    from sam2_fewshot.settings import Settings

AT_A_TIME = {"batch_size", "points_per_batch", "max_memory", "cache_size", "cache_embeddings", "compile"}
"""Settings that change how much is done or kept at a time, or how fast, and not what comes out."""
_SAME_RECORD = AT_A_TIME | {"similarity_threshold"}
"""Settings that a frame's record does not depend on where the threshold is fixed: it also holds what lies below."""

_PIECES, _PIECE = 16, 4096
"""So many pieces of so many bytes of an image file are looked at, spread over it."""


def signature(path: Path) -> list[object]:
    """Return what tells whether an image is the same as before: name, bytes, time of the last change, and samples.

    Reading a terabyte again only to hash it would take longer than most runs, so a few pieces are. Of an OME-Zarr the
    names, sizes and times of all its files are taken; of one on the web the metadata, so that changed pixels go
    unnoticed there.
    """
    if remote(path) is not None:
        from sam2_fewshot.readers.ome_zarr import metadata_text

        return [remote(path), hashlib.sha256(metadata_text(path).encode()).hexdigest()]
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path.rglob("*")):
            status = file.stat()
            if not file.is_dir():
                facts = [file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns]
                digest.update(json.dumps(facts).encode())
        return [path.name, digest.hexdigest()]
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns, _sampled(path, status.st_size)]


def _sampled(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(_PIECES):
            file.seek(number * max(size - _PIECE, 0) // (_PIECES - 1))
            digest.update(file.read(_PIECE))
    return digest.hexdigest()


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


def frame_fingerprint(common: str, image: Path) -> str:
    """Return the fingerprint of the frames of one image; it begins with that of the run."""
    return f"{common}-{hashlib.sha256(json.dumps(signature(image)).encode()).hexdigest()}"


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
