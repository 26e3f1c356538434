"""Frames searched by the workers of a Dask cluster."""

from __future__ import annotations

import logging
import signal
import sys
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import sam2_fewshot
from sam2_fewshot.errors import FewShotError, InputError, SettingsError, needed
from sam2_fewshot.resources import RESERVE, budget, cores, threads_each
from sam2_fewshot.runner.tasks import CannotGoOn, TaskResult, finish, report_sentences, reported, sentence_of
from sam2_fewshot.runner.worker import Reply, same, search_block, search_frame
from sam2_fewshot.tiling.blocks import BlockResult, SearchPlan

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sam2_fewshot.records import FrameReader
    from sam2_fewshot.runner.progress import Watch
    from sam2_fewshot.runner.tasks import Address, Task
    from sam2_fewshot.runner.worker import Recipe
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.settings import Settings
    from sam2_fewshot.tiling.blocks import Block

_AHEAD = 3
"""So many tasks a worker are handed out at a time: enough that none waits, few enough that results do not pile up."""
_PATIENCE = 20.0  # s
_POLL = 0.2  # s
_FRESH = 1.0  # s
"""So old may be what is known of the workers: asking costs more with each of them, and results come fast."""
_FOR_BLOCKS = 900_000_000
"""Memory that a worker on a CPU should have for frames, besides what it takes without."""


@contextmanager
def connected(
    scheduler: Any, settings: Settings, model: str | os.PathLike[str] = "auto", patience: float = _PATIENCE
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
    patience
        Seconds within which a scheduler must answer.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint.
    InputError
        If Dask is not installed, has no certificates for an address that needs them, or no scheduler answers.
    SettingsError
        If `scheduler` is none of these.
    """
    distributed = needed("--scheduler", "distributed", "dask")
    if isinstance(scheduler, distributed.Client):
        yield scheduler, settings
        return
    text = str(scheduler).strip()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if "://" in text:
        try:
            if text.startswith("tls://") and not _have_certificates(distributed):
                raise InputError(
                    f"Dask has no certificates to reach {text} with; name them in its configuration "
                    "(distributed.comm.tls: ca-file, client.key and client.cert), or give the address of a scheduler "
                    "without TLS (tcp://…)."
                )
            client = distributed.Client(text, timeout=patience, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"No Dask scheduler answers at {text} ({type(error).__name__}); check the address, and that it runs "
                "with the same version of Dask."
            ) from None
        with client:
            yield client, settings
        return
    count, share = local_workers(text, settings, model)
    with _without_ctrl_c():
        cluster = distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=None,
            env={"OMP_NUM_THREADS": str(threads_each(count))},  # of PyTorch, which takes one core for each task
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client, share


def _have_certificates(distributed: Any) -> bool:
    """Return whether Dask is configured for TLS; a client that finds out by itself takes 40 s to end."""
    return distributed.Security().get_connection_args("client")["ssl_context"] is not None


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Start threads and processes that Ctrl-C in the terminal does not reach; this thread has it when the block ends.

    A terminal sends it to all of them, and each worker would print a traceback. This process ends them.
    """
    if sys.platform == "win32":  # it has no such signals
        yield
        return
    resource_tracker.ensure_running()  # the first process that starts it would get the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def local_workers(
    text: str, settings: Settings, model: str | os.PathLike[str] = "auto", processors: int | None = None
) -> tuple[int, Settings]:
    """Return the number of workers on this machine, and the settings with each one's share of the memory.

    The program that is started loads the model too, and has a share of its own.

    Parameters
    ----------
    text
        ``local``, or how many there shall be.
    settings, model
        As in :func:`connected`.
    processors
        Number of cores; those that this process may use when left out.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint.
    SettingsError
        If `text` is neither.
    """
    from sam2_fewshot.backbones import expected_bytes, present_devices

    total = budget(settings.max_memory)
    if text == "local":
        cards = sum(name.startswith("cuda") for name in present_devices())
        each = RESERVE + _FOR_BLOCKS + expected_bytes(model)
        count = cards or max(1, min(processors or cores(), total // each - 1))
    elif text.isdecimal() and int(text):
        count = int(text)
    else:
        raise SettingsError(
            f"The scheduler is {text!r}, but it must be an address such as tcp://host:8786, local, or a number of "
            "worker processes on this machine."
        )
    return count, settings.changed({"max_memory": total / 1e9 / (count + 1)})


class OnCluster:
    """Searches frames on a Dask cluster; an :class:`~sam2_fewshot.runner.tasks.Execute`.

    A frame is a task; one that is too large for a worker's memory is a task a block. Dask does the tasks of a worker
    that dies again elsewhere. Where workers offer the resource ``GPU``, each task takes one. Workers may come and go at
    any time; the first one is waited for, since it is not known before what workers offer.

    Parameters
    ----------
    client
        A :class:`distributed.Client`.
    recipe
        Gives all that a worker needs, from a segmenter that has learned; it joins blocks.
    address
        Gives the address of a frame; the workers must be able to read it.
    version
        Of this program, which the scheduler and the workers must have.
    """

    def __init__(
        self,
        client: Any,
        recipe: Callable[[FewShotSegmenter], Recipe],
        address: Callable[[FrameReader], Address],
        version: str = sam2_fewshot.__version__,
    ) -> None:
        self._client, self._recipe, self._address, self._version = client, recipe, address, version
        self._scheduler = getattr(client.scheduler, "address", "an unknown address")  # a closed client has none

    def __call__(
        self, tasks: Iterable[Task], segmenter: FewShotSegmenter, watch: Watch
    ) -> Iterator[tuple[Task, TaskResult]]:
        """Yield the outcome of each frame, in the order in which they are finished.

        Raises
        ------
        CannotGoOn
            If the scheduler is gone, or no longer knows of the tasks; or if the cluster runs another version.
        """
        try:
            yield from self._outcomes(tasks, segmenter, watch)
        except Exception as error:
            # A client that has lost its scheduler cancels all tasks, and raises whatever is asked of it in many ways.
            if self._client.status == "running" and not isinstance(error, CancelledError):
                raise
            raise CannotGoOn(
                "Dask",
                f"the scheduler at {self._scheduler} is gone or was restarted, and the frames at work are lost. "
                "See that it runs, and has workers.",
            ) from error

    def _outcomes(
        self, tasks: Iterable[Task], segmenter: FewShotSegmenter, watch: Watch
    ) -> Iterator[tuple[Task, TaskResult]]:
        tasks = list(tasks)
        if not tasks:
            return
        from importlib import import_module

        client = self._client
        workers = _Workers(client)
        if not workers.count:
            watch.say("The cluster has no worker yet; waiting for the first one.")
            workers.wait()
        self._check_version()
        recipe = self._recipe(segmenter)
        held = client.submit(same, recipe, key=f"recipe-{recipe.key}")
        done = import_module("distributed").as_completed(loop=client.loop)
        about: dict[Any, tuple[Task, Block | None]] = {}
        large: dict[int, _Large] = {}
        waiting = iter(tasks)

        def submit(function: Any, task: Task, *arguments: Any, block: Block | None = None) -> None:
            address = self._address(task.frame)
            future = client.submit(
                function, held, address, *arguments, pure=False, resources=workers.resources, retries=0
            )
            about[future] = (task, block)
            done.add(future)

        def more() -> None:
            """Hand out tasks: blocks of frames that are begun, then further frames."""
            workers.look()
            while len(about) < _AHEAD * workers.count:
                for each in large.values():
                    if each.left:
                        block = each.left.pop(0)
                        submit(search_block, each.task, each.held, block, block=block)
                        break
                else:
                    task = next(waiting, None)
                    if task is None:
                        return
                    submit(search_frame, task, task.finish)

        try:
            more()
            for future in done:
                task, block = about.pop(future)
                reply = reply_of(future, client)
                future.release()
                finished: TaskResult | None = None
                if isinstance(reply.answer, SearchPlan):
                    begun = large[id(task)] = _Large(task, reply.answer, reply.warnings)
                    begun.held = client.submit(same, begun.plan, pure=False)
                    watch.frame_begins(task.name)
                    watch.start("blocks", len(reply.answer.blocks))
                    watch.advance(len(begun.results))
                elif block is None and isinstance(reply.answer, TaskResult):
                    report_sentences(reply.answer, watch)
                    finished = reply.answer
                elif id(task) in large:
                    large[id(task)].add(reply)
                    watch.advance()
                elif isinstance(reply.answer, BlockResult) and task.store:  # another block has failed meanwhile
                    task.store.save(reply.answer)
                if id(task) in large and large[id(task)].over:
                    finished = _joined(large.pop(id(task)), segmenter, watch)
                more()
                if finished is not None:
                    watch.frame_begins(task.name)
                    yield task, finished
        finally:
            with suppress(Exception):  # there is nothing to cancel where the scheduler is gone
                client.cancel([*about])

    def _check_version(self) -> None:
        """Refuse a cluster that was started before an update: it displays and searches images as it did then."""
        ask = attrgetter("__version__"), sam2_fewshot  # the module travels by its name
        found = list(self._client.run(*ask, on_error="return").values())
        with suppress(Exception):  # it may be forbidden to ask the scheduler
            found.append(self._client.run_on_scheduler(*ask))
        # What a worker lacks is told with the frames that it searches.
        others = sorted({each for each in found if isinstance(each, str)} - {self._version})
        if others:
            raise CannotGoOn(
                "Dask",
                f"the scheduler at {self._scheduler} or its workers run sam2-fewshot {', '.join(others)}, but this "
                f"program is {self._version}, and other versions may find something else. Install this version on all "
                "machines, and start the scheduler and the workers again.",
            )


class _Large:
    """A large frame of which some blocks are done."""

    def __init__(self, task: Task, plan: SearchPlan, warnings: Sequence[str]) -> None:
        self.task, self.plan, self.warnings = task, plan, list(warnings)
        stored = task.store.load(plan.blocks) if task.store else {}
        self.left = [block for block in plan.blocks if block not in stored]
        self.results: list[BlockResult] = list(stored.values())
        self.held: Any = None
        """The plan on the cluster: with thousands of marks it is too much to travel with each block."""
        self.trouble = ""
        self.took = 0.0

    def add(self, reply: Reply) -> None:
        """Take the outcome of a block; after a failure the remaining blocks are not begun."""
        self.took += reply.took
        self.warnings += reply.warnings
        if isinstance(reply.answer, BlockResult):
            self.results.append(reply.answer)
            if self.task.store:
                self.task.store.save(reply.answer)
        elif isinstance(reply.answer, TaskResult):
            self.trouble = reply.answer.trouble
            self.left.clear()

    @property
    def over(self) -> bool:
        """Whether nothing more is to be waited for."""
        return bool(self.trouble) or len(self.results) == len(self.plan.blocks)


def _joined(begun: _Large, segmenter: FewShotSegmenter, watch: Watch) -> TaskResult:
    task = begun.task
    watch.take()
    for sentence in begun.warnings:
        watch.warn(sentence)
    if begun.trouble:
        return TaskResult(trouble=begun.trouble, took=begun.took)
    try:
        # In the order of the blocks, so that the result is the same whoever was first.
        results = sorted(begun.results, key=lambda each: (each.block.core[1], each.block.core[0]))
        finished = finish(task.finish, task.frame, segmenter.join(task.frame, begun.plan, results))
    except Exception as error:  # a frame that fails does not stop the others
        return TaskResult(trouble=trouble_of(error), cause=error, took=begun.took)
    return reported(finished, watch, begun.took)


def reply_of(future: Any, client: Any) -> Reply:
    """Return a task's answer; what stopped it, if it has none, in a sentence.

    A cancelled task raises CancelledError, and any error is raised where the scheduler is gone. Otherwise it is of the
    task: where a worker died with an answer, it is computed anew, which may fail.
    """
    if future.status == "error":
        return Reply(TaskResult(trouble=trouble_of(future.exception())))
    try:
        reply: Reply = future.result()
    except CancelledError:
        raise
    except Exception as error:
        if client.status != "running":
            raise
        return Reply(TaskResult(trouble=trouble_of(error)))
    return reply


def trouble_of(error: BaseException) -> str:
    """Return in a sentence why a task has no answer, be it an error of the frame, of Dask, or a defect."""
    from distributed.scheduler import KilledWorker

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


class _Workers:
    """What is known of a cluster's workers: their number, and what a task must ask for."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._looked = 0.0
        self.count = 0
        self.resources: dict[str, int] | None = None
        self.look()

    def look(self) -> None:
        """Ask the scheduler, unless it was asked just now. Where all workers are gone, others like them may come."""
        if self._client.status != "running":  # it would answer with what it knew last
            raise ConnectionError
        now = time.monotonic()
        if self.count and now - self._looked < _FRESH:
            return
        self._looked = now
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        if workers:
            self.count = len(workers)
            self.resources = {"GPU": 1} if any(each.get("resources", {}).get("GPU") for each in workers) else None

    def wait(self) -> None:
        """Wait until there is a worker, however long that takes: those of a queue come when it is their turn."""
        while not self.count:
            time.sleep(_POLL)
            self.look()
