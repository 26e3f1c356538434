"""Who looks for the objects, as the job sees it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sam2_fewshot.files.request import Request
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Detection, Exemplar, FrameReader
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.settings import Settings


class FrameStats(Protocol):
    """What an engine tells of the last frame."""

    @property
    def candidates(self) -> int:
        """Number of masks that were proposed."""
        ...

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time that each stage took."""
        ...

    @property
    def below(self) -> Sequence[Detection]:
        """What was found with a score below the threshold, best first."""
        ...

    @property
    def floor(self) -> float:
        """The score down to which `below` is complete."""
        ...

    @property
    def threshold(self) -> float:
        """The score that had to be reached."""
        ...

    @property
    def reason(self) -> str:
        """How the threshold came about, in words."""
        ...


class Engine(Protocol):
    """What the job needs of a :class:`~sam2_fewshot.segmenter.FewShotSegmenter`."""

    @property
    def model_name(self) -> str:
        """The checkpoint's file name."""
        ...

    @property
    def model_sha256(self) -> str:
        """The checkpoint's SHA-256 in hexadecimal."""
        ...

    @property
    def device_name(self) -> str:
        """What the model runs on, in words."""
        ...

    @property
    def last_run(self) -> FrameStats:
        """How the last frame went."""
        ...

    def fit(self, exemplars: Sequence[Exemplar]) -> object:
        """Learn what the examples look like."""
        ...

    def segment(self, image: FrameReader) -> list[Detection]:
        """Find more of them, best first."""
        ...


def few_shot_segmenter(request: Request, progress: Progress) -> Engine:
    """Load the model that a request names.

    Raises
    ------
    FewShotError
        If the model or the device is not there, or cannot be used.
    """
    return segmenter_of(os.fspath(request.model), request.device, request.settings, progress)


def segmenter_of(model: str, device: str, settings: Settings, progress: Progress) -> FewShotSegmenter:
    """Load a checkpoint, whose embeddings of tiles are kept on the disk where that is worth it.

    Raises
    ------
    FewShotError
        As :func:`few_shot_segmenter`.
    """
    from sam2_fewshot.backbones import open_backbone
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.storage.cache import cache_folder
    from sam2_fewshot.storage.tile_cache import tile_cache

    loaded = open_backbone(model, device, settings)
    loaded.store = tile_cache(loaded, settings, cache_folder())
    return FewShotSegmenter(loaded, settings=settings, progress=progress)
