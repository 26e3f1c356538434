"""A segmenter from the name of a checkpoint, with the tile cache on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.settings import Settings


def open_segmenter(model: str, device: str, settings: Settings, progress: Progress) -> FewShotSegmenter:
    """Load a checkpoint, whose embeddings of tiles are cached on the disk where that is worth it.

    Raises
    ------
    FewShotError
        If the model or the device is not there, or cannot be used.
    """
    from sam2_fewshot.backbones import open_backbone
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.storage.cache import cache_folder
    from sam2_fewshot.storage.tile_cache import tile_cache

    backbone = open_backbone(model, device, settings)
    backbone.store = tile_cache(backbone, settings, cache_folder())
    return FewShotSegmenter(backbone, settings=settings, progress=progress)
