"""Frames through the workers of a Dask cluster."""

from __future__ import annotations

import importlib.util
import logging
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.files.pictures import pictures_of
from sam2_fewshot.images.display import read_channels
from sam2_fewshot.runner.tasks import Outcome, of_search, sentence_of, told
from sam2_fewshot.runner.worker import Address, Recipe, Reply, same, search_block, search_frame
from sam2_fewshot.threads import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sam2_fewshot.files.request import Plan
    from sam2_fewshot.runner.progress import Display, Watch
    from sam2_fewshot.runner.tasks import Task
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.settings import Settings
    from sam2_fewshot.tiling.blocks import Block, BlockFinds
    from sam2_fewshot.tiling.search import SearchPlan

_AHEAD = 3
"""So many tasks a worker are handed out at a time: enough that none waits, few enough that results do not pile up."""
_FOR_BLOCKS = 900_000_000
"""Memory that a worker on a CPU should have for frames, besides what it takes without."""


@contextmanager
def connected(
    scheduler: Any, settings: Settings, model: str | os.PathLike[str] = "auto"
) -> Iterator[tuple[Any, Settings]]:
    """Give a Dask client, and the settings that each worker shall use.

    Parameters
    ----------
    scheduler
        Address of a scheduler (``tcp://…``, ``tls://…``), ``local``, a number of worker processes on this machine, or a
        :class:`distributed.Client`, which is left open.
    settings
        Max Memory is shared by this program and the workers on this machine; those of other machines have it each.
    model
        The checkpoint, of which it depends how many workers there is memory for.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint.
    InputError
        If Dask is not installed, or no scheduler answers.
    SettingsError
        If `scheduler` is none of these.
    """
    if importlib.util.find_spec("distributed") is None:
        raise InputError('For --scheduler a package is missing: pip install "sam2-fewshot[dask]".')
    from importlib import import_module

    distributed: Any = import_module("distributed")  # it has no type hints that mypy could follow
    if isinstance(scheduler, distributed.Client):
        yield scheduler, settings
        return
    text = str(scheduler).strip()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if "://" in text:
        try:
            client = distributed.Client(text, timeout=20, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"No Dask scheduler answers at {text} ({type(error).__name__}); check the address, and that it runs "
                "with the same version of Dask."
            ) from None
        with client:
            yield client, settings
        return
    count, share = _local(text, settings, model)
    with (
        distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client, share


def _local(text: str, settings: Settings, model: str | os.PathLike[str] = "auto") -> tuple[int, Settings]:
    """Return the number of workers on this machine, and the settings with each one's share of the memory.

    The program that is started loads the model too, and has a share of its own.
    """
    from sam2_fewshot.backbones.sam2.device import present_devices
    from sam2_fewshot.backbones.sam2.locate import resolve
    from sam2_fewshot.backbones.sam2.memory import RESERVE, allowed_memory, extra_bytes_of_file

    total = settings.max_memory or allowed_memory() / 2e9
    if text == "local":
        cards = sum(name.startswith("cuda") for name in present_devices())
        each = RESERVE + _FOR_BLOCKS + extra_bytes_of_file(resolve(model).path.stat().st_size)
        count = cards or max(1, min(cores(), int(total * 1e9) // each - 1))
    elif text.isdecimal() and int(text):
        count = int(text)
    else:
        raise SettingsError(
            f"The scheduler is {text!r}, but it must be an address such as tcp://host:8786, local, or a number of "
            "worker processes on this machine."
        )
    return count, settings.changed({"max_memory": total / (count + 1)})


def on_cluster(
    client: Any, tasks: Sequence[Task], plan: Plan, segmenter: FewShotSegmenter, watch: Watch, shown: Display
) -> Iterator[Outcome]:
    """Yield what becomes of each frame, in the order in which they are finished.

    A frame is a task; one that is too large for a worker's memory is a task a block. Dask does the tasks of a worker
    that dies again elsewhere. Where workers offer the resource ``GPU``, each task takes one.

    Parameters
    ----------
    client
        A :class:`distributed.Client`.
    tasks
        The frames.
    plan
        Tells the images' paths, which the workers must be able to read.
    segmenter
        Has learned from the examples; it joins blocks.
    watch, shown
        Are told how it goes.
    """
    from importlib import import_module

    request = plan.request
    recipe = Recipe(
        key=uuid.uuid4().hex,
        model=os.fspath(request.model) if request.model != "auto" else segmenter.model_name,
        sha256=segmenter.model_sha256,
        device=request.device,
        settings=segmenter.settings,
        channels=None if request.channels is None else read_channels(request.channels),
        objects=segmenter.object_model,
    )
    held = client.submit(same, recipe, key=f"recipe-{recipe.key}")
    resources = _resources(client)
    ahead = _AHEAD * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    done = import_module("distributed").as_completed(loop=client.loop)
    about: dict[Any, tuple[Task, Block | None]] = {}
    large: dict[int, _Large] = {}
    waiting = iter(tasks)

    def submit(function: Any, task: Task, *arguments: Any, block: Block | None = None) -> None:
        location = task.frame.location
        path = plan.images[location.xy].path.as_posix()
        future = client.submit(
            function, held, Address(path, location), *arguments, pure=False, resources=resources, retries=0
        )
        about[future] = (task, block)
        done.add(future)

    def more() -> None:
        """Hand out tasks: blocks of frames that are begun, then further frames."""
        while len(about) < ahead:
            for each in large.values():
                if each.left:
                    block = each.left.pop(0)
                    submit(search_block, each.task, each.plan, block, block=block)
                    break
            else:
                task = next(waiting, None)
                if task is None:
                    return
                submit(search_frame, task, task.name, task.marks, task.confirmed)

    try:
        more()
        for future in done:
            task, block = about.pop(future)
            reply = _reply(future)
            future.release()
            finished: Outcome | None = None
            if reply.plan is not None:
                begun = large[id(task)] = _Large(task, reply.plan)
                shown.frame_begins(task.name)
                shown.start("blocks", len(reply.plan.blocks))
                shown.advance(len(begun.finds))
            elif block is None:
                finished = _whole(task, reply, watch, shown)
            elif id(task) in large:
                large[id(task)].add(reply)
                shown.advance()
            elif reply.finds and task.kept:  # another block of the frame has failed meanwhile
                task.kept.keep(reply.finds)
            if id(task) in large and large[id(task)].over:
                begun = large.pop(id(task))
                finished = _joined(begun, segmenter, watch, shown, request.settings.similarity_threshold)
            more()
            if finished is not None:
                shown.frame_begins(task.name)
                yield finished
    finally:
        for future in about:
            future.cancel()


class _Large:
    """A large frame of which some blocks are done."""

    def __init__(self, task: Task, plan: SearchPlan) -> None:
        self.task, self.plan = task, plan
        known = task.kept.known(plan.blocks) if task.kept else {}
        self.left = [block for block in plan.blocks if block not in known]
        self.finds: list[BlockFinds] = list(known.values())
        self.trouble = ""
        self.took = 0.0

    def add(self, reply: Reply) -> None:
        """Take what came of a block; after a failure the rest is not begun any more."""
        self.took += reply.took
        if reply.finds is None:
            self.trouble = reply.trouble
            self.left.clear()
        else:
            self.finds.append(reply.finds)
            if self.task.kept:
                self.task.kept.keep(reply.finds)

    @property
    def over(self) -> bool:
        """Whether nothing more is to be waited for."""
        return bool(self.trouble) or len(self.finds) == len(self.plan.blocks)


def _whole(task: Task, reply: Reply, watch: Watch, shown: Display) -> Outcome:
    for sentence in reply.warnings:
        watch.warn(sentence)
    for sentence in reply.notes:
        shown.say(sentence)
    return Outcome(
        task.frame,
        trouble=reply.trouble,
        detections=reply.detections,
        candidates=reply.candidates,
        seconds=reply.seconds,
        below=reply.below,
        floor=reply.floor,
        threshold=reply.threshold,
        overlay=reply.overlay,
        preview=reply.preview,
        warnings=reply.warnings,
        took=reply.took,
    )


def _joined(begun: _Large, segmenter: FewShotSegmenter, watch: Watch, shown: Display, threshold: float) -> Outcome:
    task = begun.task
    if begun.trouble:
        return Outcome(task.frame, trouble=begun.trouble, took=begun.took)
    watch.take()
    try:
        # In the order of the blocks, so that the result is the same whoever was first.
        finds = sorted(begun.finds, key=lambda each: (each.block.core[1], each.block.core[0]))
        detections = [*task.confirmed, *segmenter.join(task.frame, begun.plan, finds)]
        drawn = pictures_of(task.frame, detections, task.marks, threshold)
    except Exception as error:  # a frame that fails does not stop the others
        return Outcome(task.frame, trouble=_words(error), took=begun.took)
    stats = segmenter.last_run
    told(task.name, drawn.flat, stats, watch.warn, shown.say)
    return Outcome(
        task.frame,
        detections=detections,
        **of_search(stats),
        overlay=drawn.overlay,
        preview=drawn.preview,
        warnings=watch.take(),
        took=begun.took,
    )


def _reply(future: Any) -> Reply:
    """Return a task's answer; what stopped it, if it has none, in a sentence."""
    if future.status == "finished":
        reply: Reply = future.result()
        return reply
    error = future.exception() if future.status == "error" else RuntimeError("it was cancelled")
    return Reply(trouble=_words(error))


def _words(error: BaseException) -> str:
    from distributed.scheduler import KilledWorker

    from sam2_fewshot.errors import FewShotError

    if isinstance(error, KilledWorker):
        return (
            "the worker processes that tried it died, each time. Most often the memory is too small: lower "
            "--max-memory, or give the workers more."
        )
    if isinstance(error, FewShotError | OSError | MemoryError):
        return sentence_of(error)
    if isinstance(error, ImportError):
        return f"a worker lacks something ({error}); install the same version of sam2-fewshot on all machines."
    return f"this is a defect in sam2-fewshot, please report it: {type(error).__name__}: {error}"


def _resources(client: Any) -> dict[str, int] | None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any(worker.get("resources", {}).get("GPU") for worker in workers) else None
