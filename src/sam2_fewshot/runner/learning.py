"""Learning from the examples, or taking what was learned from the same ones before."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError
from sam2_fewshot.object_model import ObjectModel, frame_digest
from sam2_fewshot.settings import AFTER_LEARNING, Settings
from sam2_fewshot.storage.cache import OBJECTS, drop, shrink, used
from sam2_fewshot.storage.digests import code_digest, common_part
from sam2_fewshot.storage.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sam2_fewshot.annotations.placing import PlacedExemplar
    from sam2_fewshot.runner.progress import Watch
    from sam2_fewshot.segmenter import FewShotSegmenter


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
            digests[id(example.frame)] = frame_digest(example.frame)
    settings = segmenter.settings.model_dump(mode="json", exclude=set(AFTER_LEARNING))
    return common_part(
        code_digest(),
        Settings(),  # those that matter are listed below
        segmenter.model_sha256,
        [(example.exemplar, digests[id(example.frame)]) for example in examples],
        {"settings": settings, "device": segmenter.device_name},
    )
