"""What a Dask worker does: it loads the model once, and then searches frames, or blocks of large ones."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import FewShotError, InputError
from sam2_fewshot.files.pictures import pictures_of
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.rendering import held_bytes
from sam2_fewshot.runner.engine import segmenter_of
from sam2_fewshot.runner.tasks import of_search, sentence_of, told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.annotations.record import ExampleMark
    from sam2_fewshot.images.display import ChannelSetting
    from sam2_fewshot.object_model import ObjectModel
    from sam2_fewshot.records import Box, Detection, Location
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.settings import Settings
    from sam2_fewshot.tiling.blocks import Block, BlockFinds
    from sam2_fewshot.tiling.search import SearchPlan


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that a worker needs besides the frames. The checkpoint is loaded from the worker's own disk.

    Parameters
    ----------
    key
        The same for all tasks of a run; a worker keeps the model of the last one.
    model, sha256
        Name or path of the checkpoint, and the hash that it must have.
    device
        As in :class:`~sam2_fewshot.files.request.Request`.
    settings
        How to look.
    channels
        How channels are shown.
    objects
        What was learned.
    """

    key: str
    model: str
    sha256: str
    device: str
    settings: Settings
    channels: Sequence[ChannelSetting] | None
    objects: ObjectModel


@dataclass(frozen=True)
class Address:
    """Where a frame is found: the image's path and the frame's location in the dataset."""

    path: str
    location: Location


@dataclass(frozen=True, eq=False)
class Reply:
    """What a worker answers; see :class:`~sam2_fewshot.runner.tasks.Outcome`.

    Parameters
    ----------
    plan
        How to search the frame in blocks, if it is too large to be searched whole.
    finds
        What was found in a block.
    notes
        What is said of the frame without being a warning.
    """

    trouble: str = ""
    plan: SearchPlan | None = None
    finds: BlockFinds | None = None
    detections: Sequence[Detection] = ()
    candidates: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    below: Sequence[Detection] = ()
    floor: float = 0.0
    threshold: float = 0.0
    overlay: bytes = b""
    preview: bytes = b""
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    took: float = 0.0


def same(recipe: Recipe) -> Recipe:
    """Return the recipe; a task of its own, so that it travels to each worker once and survives the loss of one."""
    return recipe


def search_frame(
    recipe: Recipe, address: Address, name: str, marks: Sequence[ExampleMark], confirmed: Sequence[Detection] = ()
) -> Reply:
    """Search a frame, or say how to search it in blocks."""

    def work(segmenter: FewShotSegmenter, frame: _Placed, said: _Heard) -> Reply:
        if segmenter.is_large(frame):
            return Reply(plan=segmenter.plan(frame))
        detections = [*confirmed, *segmenter.segment(frame)]
        drawn = pictures_of(frame, detections, marks, recipe.settings.similarity_threshold)
        notes: list[str] = []
        stats = segmenter.last_run
        told(name, drawn.flat, stats, said.warn, notes.append)
        return Reply(
            detections=detections,
            **of_search(stats),
            overlay=drawn.overlay,
            preview=drawn.preview,
            notes=notes,
        )

    return _answered(recipe, address, work)


def search_block(recipe: Recipe, address: Address, plan: SearchPlan, block: Block) -> Reply:
    """Search a block of a large frame."""
    return _answered(recipe, address, lambda segmenter, frame, said: Reply(finds=segmenter.search(frame, plan, block)))


class _Heard:
    """A :class:`~sam2_fewshot.protocols.Progress` that only remembers warnings."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""

    def warn(self, sentence: str) -> None:
        """Remember the sentence."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)


@dataclass(frozen=True, eq=False)
class _Placed:
    """A frame of a file opened alone, at its place in the dataset."""

    frame: Any
    location: Location

    @property
    def name(self) -> str:
        return str(self.frame.name)

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.frame.shape
        return int(height), int(width)

    @property
    def held_bytes(self) -> int:
        return held_bytes(self.frame)

    def read(self, region: Box | None = None) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = self.frame.read(region)
        return pixels


_ONE_AT_A_TIME = threading.Lock()
"""A worker may have several threads; a second search at the same time would take the memory of one more."""
_HELD: dict[str, tuple[FewShotSegmenter, _Heard]] = {}


def _answered(recipe: Recipe, address: Address, work: Callable[[FewShotSegmenter, _Placed, _Heard], Reply]) -> Reply:
    began = time.perf_counter()
    with _ONE_AT_A_TIME:
        try:
            segmenter, said = _segmenter(recipe)
            said.sentences.clear()
            reply = work(segmenter, _frame(recipe, address), said)
        except (FewShotError, OSError, MemoryError) as error:
            return Reply(trouble=sentence_of(error), took=time.perf_counter() - began)
        return replace(reply, warnings=tuple(said.sentences), took=time.perf_counter() - began)


def _segmenter(recipe: Recipe) -> tuple[FewShotSegmenter, _Heard]:
    if recipe.key not in _HELD:
        _HELD.clear()  # at most one model a process
        said = _Heard()
        segmenter = segmenter_of(recipe.model, _own_device(recipe.device), recipe.settings, said)
        if segmenter.model_sha256 != recipe.sha256:
            raise InputError(
                f"A worker has other weights ({segmenter.model_name}, SHA-256 {segmenter.model_sha256[:12]}…) than the "
                f"program that learned from the examples (SHA-256 {recipe.sha256[:12]}…); name the checkpoint with "
                "--model, and see that all machines have the same."
            )
        _HELD[recipe.key] = segmenter.adopt(recipe.objects), said
    return _HELD[recipe.key]


def _own_device(device: str) -> str:
    """Share several GPUs of a machine among its workers, which Dask numbers."""
    from sam2_fewshot.backbones.sam2.device import present_devices

    cards = [name for name in present_devices() if name.startswith("cuda")]
    if device not in ("auto", "cuda") or len(cards) < 2:
        return device
    from distributed import get_worker

    try:
        return cards[int(str(get_worker().name).rpartition("-")[2]) % len(cards)]
    except ValueError:
        return device


_OPENED: OrderedDict[tuple[str, str], Any] = OrderedDict()
_MOST_OPENED = 4


def _frame(recipe: Recipe, address: Address) -> _Placed:
    images = _opened(address.path, recipe)
    return _Placed(images[0].frame(address.location.z, address.location.time), address.location)


def _opened(path: str, recipe: Recipe) -> Any:
    """Open an image, or take one of the last few, whose contrast is known; only one at a time holds pixels."""
    key = path, recipe.key
    if key not in _OPENED:
        _OPENED[key] = open_images([Path(path)], recipe.settings, recipe.channels, _Heard())
    _OPENED.move_to_end(key)
    while len(_OPENED) > _MOST_OPENED:
        _OPENED.popitem(last=False)
    for other, images in _OPENED.items():
        if other != key:
            images.let_go()
    return _OPENED[key]
