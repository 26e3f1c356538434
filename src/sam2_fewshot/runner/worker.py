"""A Dask worker's part: it loads the model once, and then searches frames, or blocks of large ones."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sam2_fewshot.errors import FewShotError, InputError
from sam2_fewshot.runner.progress import Heard
from sam2_fewshot.runner.tasks import TaskResult, finish, sentence_of
from sam2_fewshot.tiling.blocks import SearchPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sam2_fewshot.object_model import ObjectModel
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import FrameReader
    from sam2_fewshot.runner.tasks import Address, Finish
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.settings import Settings
    from sam2_fewshot.tiling.blocks import Block, BlockResult


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that a worker needs besides the frames. The checkpoint is loaded from the worker's own disk.

    Parameters
    ----------
    key
        The same for all tasks of a run; a worker holds the model of the last one.
    model, sha256
        Name of the checkpoint, or its path from the root on, and the hash that it must have.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    settings
        How to search.
    objects
        What was learned.
    make
        Makes the segmenter from model, device, settings and progress.
    """

    key: str
    model: str
    sha256: str
    device: str
    settings: Settings
    objects: ObjectModel
    make: Callable[[str, str, Settings, Progress], FewShotSegmenter]


class Reply(NamedTuple):
    """A worker's answer.

    Parameters
    ----------
    answer
        The outcome of a frame, or how to search it in blocks, or the result of a block.
    warnings
        Sentences for the user.
    took
        Wall-clock seconds.
    """

    answer: TaskResult | SearchPlan | BlockResult
    warnings: Sequence[str] = ()
    took: float = 0.0


_Sent = TypeVar("_Sent", Recipe, SearchPlan)


def same(it: _Sent) -> _Sent:
    """Return a recipe or a plan; a task of its own, which travels to a worker once and survives its loss."""
    return it


def search_frame(recipe: Recipe, address: Address, step: Finish | None) -> Reply:
    """Search a frame, or return how to search it in blocks."""

    def work(segmenter: FewShotSegmenter, frame: FrameReader) -> TaskResult | SearchPlan:
        frame = segmenter.as_searched(frame)
        plan = segmenter.plan(frame)
        if len(plan.blocks) > 1:
            return plan
        found = segmenter.join(frame, plan, [segmenter.search(frame, plan, block) for block in plan.blocks])
        return finish(step, frame, found)

    return _answered(recipe, address, work)


def search_block(recipe: Recipe, address: Address, plan: SearchPlan, block: Block) -> Reply:
    """Search a block of a large frame."""
    return _answered(recipe, address, lambda segmenter, frame: segmenter.search(frame, plan, block))


_ONE_AT_A_TIME = threading.Lock()
"""A worker may have several threads; a second search at the same time would take the memory of one more."""
_HELD: dict[str, tuple[FewShotSegmenter, Heard]] = {}


def _answered(
    recipe: Recipe,
    address: Address,
    work: Callable[[FewShotSegmenter, FrameReader], TaskResult | SearchPlan | BlockResult],
) -> Reply:
    began = time.perf_counter()
    with _ONE_AT_A_TIME:
        try:
            segmenter, heard = _segmenter(recipe)
            answer = work(segmenter, address.open())
        except (FewShotError, OSError, MemoryError) as error:
            took = time.perf_counter() - began
            # What was said when the model was made is said once, with the first frame or block, which may be this one.
            said = list(_HELD[recipe.key][1].sentences) if recipe.key in _HELD else []
            return Reply(TaskResult(trouble=sentence_of(error), warnings=said, took=took), said, took)
        took = time.perf_counter() - began
        if isinstance(answer, TaskResult):
            answer = replace(answer, warnings=[*heard.sentences, *answer.warnings], took=took)
        return Reply(answer, tuple(heard.sentences), took)


def _segmenter(recipe: Recipe) -> tuple[FewShotSegmenter, Heard]:
    """Return the segmenter and what warns of its work; the first time, of what was found when it was made as well."""
    if recipe.key in _HELD:
        _HELD[recipe.key][1].sentences.clear()
    else:
        _HELD.clear()  # at most one model a process
        heard = Heard()
        segmenter = recipe.make(recipe.model, own_device(recipe.device, heard), recipe.settings, heard)
        if segmenter.model_sha256 != recipe.sha256:
            raise InputError(
                f"A worker has other weights ({segmenter.model_name}, SHA-256 {segmenter.model_sha256[:12]}…) than the "
                f"program that learned from the examples (SHA-256 {recipe.sha256[:12]}…); name the checkpoint with "
                "--model, and see that all machines have the same."
            )
        _HELD[recipe.key] = segmenter.adopt(recipe.objects), heard
    return _HELD[recipe.key]


def own_device(
    device: str, progress: Progress, cards: Sequence[str] | None = None, worker: Callable[[], object] | None = None
) -> str:
    """Share several GPUs of a machine among its workers, which Dask numbers.

    Parameters
    ----------
    device
        As asked for.
    progress
        Is warned where there are several GPUs and the worker has no number, so that it takes the first as all such do.
    cards
        Names of the GPUs; those of this machine when left out.
    worker
        Gives the worker, whose ``name`` ends in a number; this one when left out.
    """
    if cards is None:
        from sam2_fewshot.backbones import present_devices

        cards = [name for name in present_devices() if name.startswith("cuda")]
    if device not in ("auto", "cuda") or len(cards) < 2:
        return device
    if worker is None:
        from distributed import get_worker

        worker = get_worker
    name = str(getattr(worker(), "name", ""))
    try:
        return cards[int(name.rpartition("-")[2]) % len(cards)]
    except ValueError:
        progress.warn(
            f"The Dask worker {name!r} has no number, so it computes on the first of {len(cards)} GPUs, as do all such "
            "workers of its machine unless CUDA_VISIBLE_DEVICES is in another order for each. Start workers with "
            '--nworkers and --name "$(hostname)", and each takes its own.'
        )
        return device
