"""A run on the user's own files: check the request, load the model, search the frames, and summarize."""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sam2_fewshot.backbones import lasting_name
from sam2_fewshot.files.folder import OutputFolder
from sam2_fewshot.files.plan import make_plan
from sam2_fewshot.methods.base import Stopwatch
from sam2_fewshot.output.assembly import Assembled
from sam2_fewshot.output.journal import JOURNAL_FOLDER
from sam2_fewshot.records import Counts
from sam2_fewshot.runner.progress import Silent, Watch
from sam2_fewshot.runner.run import MemoryLimit
from sam2_fewshot.runner.run import run as run_ends
from sam2_fewshot.runner.tasks import in_this_process
from sam2_fewshot.runner.worker import Recipe
from sam2_fewshot.segmenter import FewShotSegmenter
from sam2_fewshot.settings import without_effect
from sam2_fewshot.storage.cache import FolderCache, cache_folder
from sam2_fewshot.storage.locks import only_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sam2_fewshot.annotations.mark_next import Suggestion
    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.files.request import Request
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.runner.progress import Display
    from sam2_fewshot.runner.tasks import Execute, Failure
    from sam2_fewshot.settings import Settings


@dataclass(frozen=True)
class Summary:
    """How a job ended.

    Parameters
    ----------
    out
        Where the results are.
    frames
        Number of frames asked for.
    done
        How many of them are finished, those of earlier runs included.
    resumed
        How many were finished by earlier runs.
    candidates
        Number of candidates on all finished frames.
    seconds
        Time that each stage took on all finished frames.
    assembled
        Whether the result files were put together from the finished frames; `candidates`, `counts`, `mark_next` and
        the frames' seconds are known only then.
    failures
        What could not be done.
    interrupted
        True when the user stopped it.
    records
        Yields the records of the finished frames.
    counts
        Numbers of the objects in the results by kind.
    mark_next
        The places whose answer, right or wrong, would teach most.
    """

    out: Path
    frames: int
    done: int
    resumed: int
    candidates: int
    seconds: Mapping[str, float]
    assembled: bool = True
    failures: Sequence[Failure] = ()
    interrupted: bool = False
    records: Callable[[], Iterator[FrameRecord]] = field(default=lambda: iter(()), repr=False)
    counts: Counts = field(default_factory=Counts)
    mark_next: Sequence[Suggestion] = ()

    @property
    def found(self) -> int:
        """Number of objects that were found on all finished frames."""
        return self.counts.found

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is there."""
        return not self.failures and not self.interrupted


def run(
    request: Request,
    display: Display | None = None,
    make: Callable[[str, str, Settings, Progress], FewShotSegmenter] = FewShotSegmenter,
    scheduler: Any = None,
) -> Summary:
    """Detect all objects like the examples and write the results.

    Finished frames, and blocks of large ones, are on disk at once, so a stopped or failed run loses only the frame or
    block at work, and the same request goes on from there. Frames done with other settings, examples, weights or image
    files are done anew.

    Parameters
    ----------
    request
        What is asked for.
    display
        Shows the progress; None for no display.
    make
        Makes the segmenter from the checkpoint's name, the device, the settings and the progress.
    scheduler
        A Dask cluster that does the frames: a :class:`distributed.Client`, or what
        :func:`~sam2_fewshot.runner.cluster.connected` takes; None for this process alone.

    Returns
    -------
    Summary
        Also when something failed after the first frame was begun, or the user stopped it (KeyboardInterrupt).

    Raises
    ------
    FewShotError
        If something is wrong with the request. Nothing has been written then.
    """
    watch = Watch(display or Silent())
    clock = Stopwatch()
    with ExitStack() as stack:
        plan = make_plan(request, watch)
        request, settings = plan.request, plan.request.settings
        for sentence in without_effect(settings):
            watch.warn(sentence)
        execute: Execute = in_this_process
        limit = MemoryLimit(settings.max_memory if scheduler is None else 0)
        if scheduler is not None:
            from sam2_fewshot.runner.cluster import OnCluster, connected

            # Each worker's share of the memory is not what the user asked for, so it stays out of the request.
            client, settings = stack.enter_context(connected(scheduler, settings, request.model))

            def recipe(segmenter: FewShotSegmenter) -> Recipe:
                return Recipe(
                    key=uuid.uuid4().hex,
                    model=segmenter.model_name if request.model == "auto" else lasting_name(request.model),
                    sha256=segmenter.model_sha256,
                    device=request.device,
                    settings=segmenter.settings,
                    objects=segmenter.object_model,
                    make=make,
                )

            execute = OnCluster(client, recipe, plan.address)
        with clock.stage("load model"):
            segmenter = make(os.fspath(request.model), request.device, settings, watch)
        if plan.saved is not None:
            segmenter.adopt(plan.saved.objects, str(plan.saved.path))
        watch.say(f"Model {segmenter.model_name} on {segmenter.device_name}.")
        stack.enter_context(only_run(request.out / JOURNAL_FOLDER, watch))
        folder = OutputFolder(plan, segmenter, watch)
        room = settings.cache_size * 1_000_000
        ended = run_ends(
            plan,
            folder,
            segmenter,
            watch,
            cache=FolderCache(cache_folder(), room) if room else None,
            must_learn=request.save_model is not None,
            limit=limit,
            execute=execute,
            clock=clock,
        )
    assembled = folder.assembled or Assembled()
    return Summary(
        out=request.out,
        frames=ended.frames,
        done=folder.done,
        resumed=ended.resumed,
        candidates=assembled.candidates,
        seconds=assembled.seconds,
        assembled=folder.assembled is not None,
        failures=ended.failures,
        interrupted=ended.interrupted,
        records=folder.records,
        counts=assembled.counts,
        mark_next=assembled.mark_next,
    )
