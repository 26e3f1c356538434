"""Learning from the examples, or taking what was learned from the same examples from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sam2_fewshot.errors import InputError
from sam2_fewshot.object_model import ObjectModel, frame_digest
from sam2_fewshot.settings import AFTER_LEARNING, Settings
from sam2_fewshot.storage.digests import code_digest, common_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.records import Exemplar, FrameReader
    from sam2_fewshot.runner.progress import Watch
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.storage.cache import ModelCache


def learn(
    segmenter: FewShotSegmenter,
    exemplars: Sequence[Exemplar],
    watch: Watch,
    cache: ModelCache | None = None,
    code: str | None = None,
) -> bool:
    """Learn from examples, or take what was learned from the same examples from the cache.

    An entry of the cache that cannot be used is replaced.

    Parameters
    ----------
    segmenter
        Learns.
    exemplars
        What to learn from; their images are frames.
    watch
        Takes the warnings, also those of the first time, and reports that the cache was used.
    cache
        Where it is kept; None for nowhere.
    code
        As for :func:`learning_key`.

    Returns
    -------
    bool
        Whether it was cached.

    Raises
    ------
    InputError
        As :meth:`~sam2_fewshot.segmenter.FewShotSegmenter.fit`.
    """
    if cache is None:
        segmenter.fit(exemplars)
        return False
    key = learning_key(segmenter, exemplars, code)
    if (entry := cache.get(key)) is not None:
        content, warnings = entry
        try:
            segmenter.adopt(ObjectModel.from_bytes(content))
        except InputError:
            cache.drop(key)
        else:
            for sentence in warnings:
                watch.warn(sentence)
            watch.say("These examples were learned before; what was learned is taken from the cache.")
            return True
    before = watch.count
    segmenter.fit(exemplars)
    cache.put(key, segmenter.object_model.to_bytes(), watch.since(before))
    return False


def learning_key(segmenter: FewShotSegmenter, exemplars: Sequence[Exemplar], code: str | None = None) -> str:
    """Return a key, 64 hexadecimal digits, that changes with everything that what is learned depends on.

    These are the examples with the pixels of their frames, the weights, the device, the settings, and this program's
    code: a rebuilt program under the same version number may learn something else.

    Parameters
    ----------
    segmenter
        Learns.
    exemplars
        What to learn from; each of their frames is read, a large one in strips.
    code
        Digest of the code; that of this program when left out.
    """
    digests: dict[int, str] = {}
    for exemplar in exemplars:
        if id(exemplar.image) not in digests:
            digests[id(exemplar.image)] = frame_digest(cast("FrameReader", exemplar.image))
    settings = segmenter.settings.model_dump(mode="json", exclude=set(AFTER_LEARNING))
    return common_part(
        code or code_digest(),
        Settings(),  # those that matter are listed below
        segmenter.model_sha256,
        [(exemplar, digests[id(exemplar.image)]) for exemplar in exemplars],
        {"settings": settings, "device": segmenter.device_name},
    )
