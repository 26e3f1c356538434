"""What was learned from examples, kept on the disk so that the same examples need not be learned again."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError
from sam2_fewshot.job.caches import OBJECTS, drop, shrink, used
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


def learn(segmenter: FewShotSegmenter, examples: Sequence[PlacedExemplar], watch: Watch, root: Path) -> bool:
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
    root
        Where the caches lie.

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
    folder, name = root / OBJECTS, _key(segmenter, examples)
    entry, said = folder / f"{name}.npz", folder / f"{name}.json"
    if entry.exists():
        try:
            sentences = json.loads(said.read_text("utf-8"))
            segmenter.adopt(ObjectModel.load(entry))
        except (InputError, OSError, ValueError):
            drop(entry)
        else:
            for sentence in sentences:
                watch.warn(str(sentence))
            used(entry)
            return True
    before = watch.count
    segmenter.fit(exemplars)
    with suppress(InputError, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(said) as path:
            path.write_text(json.dumps(watch.since(before)), "utf-8")
        segmenter.save(entry)
        shrink(root, room)
    return False


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
