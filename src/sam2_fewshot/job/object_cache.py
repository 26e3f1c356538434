"""What was learned from examples, kept on the disk so that the same examples need not be learned again.

Only this is cached. Results of frames are in the journal, and features of tiles are not worth it: a tile of the
embedded checkpoint takes 12 MB as features and .12 s to encode.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError
from sam2_fewshot.job.fingerprint import common_part
from sam2_fewshot.parts import reader_digest
from sam2_fewshot.settings import AFTER_LEARNING, Settings
from sam2_fewshot.similarity.object_model import ObjectModel
from sam2_fewshot.writers.whole import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.job.watch import Watch
    from sam2_fewshot.readers import PlacedExemplar
    from sam2_fewshot.segmenter import FewShotSegmenter

_NO_PART = ("cli", "evaluation", "job", "readers", "writers", "nimbus", "report")
"""Rooms of this package that do not either."""


@dataclass(frozen=True, slots=True)
class Cached:
    """What a cache holds.

    Parameters
    ----------
    folder
        Where it lies.
    entries, size
        How many sets of examples, and bytes in all.
    """

    folder: Path
    entries: int
    size: int


def cache_folder() -> Path:
    """Return where the cache lies on this system."""
    from platformdirs import user_cache_path

    return user_cache_path("sam2-fewshot", appauthor=False) / "objects"


def learn(segmenter: FewShotSegmenter, examples: Sequence[PlacedExemplar], watch: Watch, folder: Path) -> bool:
    """Learn from examples, or take what was learned from the same ones before.

    An entry that is damaged is dropped and made again; one that cannot be written is not, since the work goes on
    without. Entries appear whole under a name that tells their content, so that any number of programs may share the
    cache.

    Parameters
    ----------
    segmenter
        Learns.
    examples
        What to learn from.
    watch
        Is warned of what was warned of when it was learned.
    folder
        Where the cache lies.

    Returns
    -------
    bool
        Whether it was there already.

    Raises
    ------
    InputError
        As :meth:`~sam2_fewshot.segmenter.FewShotSegmenter.fit`.
    """
    exemplars = [example.exemplar for example in examples]
    room = segmenter.settings.cache_size * 1_000_000
    if not room:
        segmenter.fit(exemplars)
        return False
    name = _key(segmenter, examples)
    entry, said = folder / f"{name}.npz", folder / f"{name}.json"
    if entry.exists():
        try:
            sentences = json.loads(said.read_text("utf-8"))
            segmenter.adopt(ObjectModel.load(entry))
        except (InputError, OSError, ValueError):
            _drop(entry)
        else:
            for sentence in sentences:
                watch.warn(str(sentence))
            with suppress(OSError):
                entry.touch()  # used last; only the order of these times counts
            return True
    before = watch.count
    segmenter.fit(exemplars)
    with suppress(InputError, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(said) as path:
            path.write_text(json.dumps(watch.since(before)), "utf-8")
        segmenter.save(entry)
        _shrink(folder, room)
    return False


def cached(folder: Path) -> Cached:
    """Look at a cache."""
    files = _entries(folder)
    return Cached(folder, len(files), sum(size for _, size, _ in files))


def clear(folder: Path) -> Cached:
    """Delete what a cache holds, and return what that was."""
    held = cached(folder)
    for _, _, path in _entries(folder):
        _drop(path)
    return held


def _key(segmenter: FewShotSegmenter, examples: Sequence[PlacedExemplar]) -> str:
    digests: dict[int, str] = {}
    for example in examples:
        if id(example.frame) not in digests:
            digests[id(example.frame)] = reader_digest(example.frame)
    settings = segmenter.settings.model_dump(mode="json", exclude=set(AFTER_LEARNING))
    return common_part(
        _code(),
        Settings(),  # those that matter are listed below
        segmenter.model_sha256,
        [(example.exemplar, digests[id(example.frame)]) for example in examples],
        {"settings": settings, "device": segmenter.device_name},
    )


@cache
def _code() -> str:
    """Return a hash of this package's code: what a changed program learns may be something else."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] not in _NO_PART:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _entries(folder: Path) -> list[tuple[int, int, Path]]:
    """Return the time of the last use, the size, and the path of each entry, the longest unused first."""
    found = []
    with suppress(OSError):
        for path in folder.glob("*.npz"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
    return sorted(found)


def _shrink(folder: Path, room: int) -> None:
    """Delete what was not used for longest until the rest fits."""
    entries = _entries(folder)
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total <= room:
            return
        _drop(path)
        total -= size


def _drop(entry: Path) -> None:
    for path in (entry, entry.with_suffix(".json")):
        with suppress(OSError):
            path.unlink()
