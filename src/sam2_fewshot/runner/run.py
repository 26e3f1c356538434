"""The main job on one page: check, learn the examples, do the frames, put the results together."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import FewShotError
from sam2_fewshot.files.folder import Results
from sam2_fewshot.files.request import Request, make_plan, save, use_saved
from sam2_fewshot.runner.engine import Engine, few_shot_segmenter
from sam2_fewshot.runner.progress import Display, Silent, Watch
from sam2_fewshot.runner.tasks import one_by_one

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.files.request import Plan
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.runner.tasks import Outcome, Task


@dataclass(frozen=True)
class Failure:
    """Something that could not be done: which frame or file, and why."""

    what: str
    sentence: str


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
    found, candidates
        Objects found and masks looked at, on all finished frames.
    seconds
        Time that each stage took on all finished frames.
    assembled
        Whether the result files were put together from the finished frames; `found`, `candidates` and the
        frames' seconds are known only then.
    failures
        What could not be done.
    interrupted
        True when the user stopped it.
    records
        Gives the finished frames one by one, with all that was found.
    """

    out: Path
    frames: int
    done: int
    resumed: int
    found: int
    candidates: int
    seconds: Mapping[str, float]
    assembled: bool = True
    failures: Sequence[Failure] = ()
    interrupted: bool = False
    records: Callable[[], Iterator[FrameRecord]] = field(default=lambda: iter(()), repr=False)

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is there."""
        return not self.failures and not self.interrupted


def run(
    request: Request,
    display: Display | None = None,
    make_engine: Callable[[Request, Progress], Engine] = few_shot_segmenter,
    scheduler: Any = None,
) -> Summary:
    """Find all objects like the examples and write the results.

    Finished frames, and blocks of large ones, are on disk at once, so a stopped or failed run loses only the frame or
    block at work, and the same request goes on from there. Frames done with other settings, examples, weights or image
    files are done anew.

    Parameters
    ----------
    request
        What is asked for.
    display
        Who is told how it goes; None for nobody.
    make_engine
        Makes what looks for the objects.
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
    shown = display or Silent()
    watch = Watch(shown)
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        plan = make_plan(request, watch)
        request = plan.request
        client = None
        if scheduler is not None:
            from sam2_fewshot.runner.cluster import connected

            client, settings = stack.enter_context(connected(scheduler, request.settings, request.model))
            request = replace(request, settings=settings)
            plan = replace(plan, request=request)
        with _timed(seconds, "load model"):
            engine = make_engine(request, watch)
        if plan.saved is not None:
            use_saved(engine, plan.saved)
        shown.say(f"Model {engine.model_name} on {engine.device_name}.")
        return _run(plan, engine, client, shown, watch, seconds)


def _run(plan: Plan, engine: Engine, client: Any, shown: Display, watch: Watch, seconds: dict[str, float]) -> Summary:
    """Learn, do the frames that are left, and put the results together."""
    request = plan.request
    results = Results(plan, engine)
    left = [frame for frame in plan.frames if not results.have(frame)]
    if left and request.settings.compile:
        shown.say("Compiling SAM 2 for this device; the first image takes minutes, later ones are faster.")
    if plan.saved is None and (left or request.save_model):
        with _timed(seconds, "learn examples"):
            _learn(engine, plan, watch, shown)
    if request.save_model is not None:
        save(engine, request.save_model)
        shown.say(f"What was learned is saved in {request.save_model}; use it with --object-model.")

    general = watch.take()
    failures: list[Failure] = []
    interrupted = False
    with results.opened(shown, watch):
        tasks = [results.task(frame, shown, watch) for frame in left]
        shown.begin(len(left))
        outcomes = _outcomes(tasks, plan, engine, client, watch, shown)
        try:
            _record(outcomes, results, shown, failures)
        except KeyboardInterrupt:
            interrupted = True
        finally:  # also after a defect, the finished frames are put together
            outcomes.close()
            shown.end()
            try:
                results.put_together(seconds, general, [f"{failure.what}: {failure.sentence}" for failure in failures])
            except FewShotError as error:
                failures.append(Failure("results", str(error)))
            except KeyboardInterrupt:  # pressed again; the frames are safe, and the files stay as they were
                interrupted = True
    return Summary(
        out=request.out,
        frames=len(plan.frames),
        done=results.done,
        resumed=len(plan.frames) - len(left),
        found=results.found,
        candidates=results.candidates,
        seconds=results.seconds,
        assembled=results.assembled,
        failures=failures,
        interrupted=interrupted,
        records=results.records,
    )


def _learn(engine: Engine, plan: Plan, watch: Watch, shown: Display) -> None:
    from sam2_fewshot.runner.learning import learn
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.storage.cache import cache_folder

    if not isinstance(engine, FewShotSegmenter):
        engine.fit([example.exemplar for example in plan.shown])
    elif learn(engine, plan.shown, watch, cache_folder()):
        shown.say("These examples were learned before; what was learned is taken from the cache.")


def _outcomes(
    tasks: Sequence[Task], plan: Plan, engine: Engine, client: Any, watch: Watch, shown: Display
) -> Generator[Outcome]:
    if client is None:
        yield from one_by_one(tasks, engine, watch, shown, plan.request.settings.similarity_threshold)
    elif tasks:
        from sam2_fewshot.runner.cluster import on_cluster
        from sam2_fewshot.segmenter import FewShotSegmenter

        assert isinstance(engine, FewShotSegmenter)
        yield from on_cluster(client, tasks, plan, engine, watch, shown)


def _record(outcomes: Iterable[Outcome], results: Results, shown: Display, failures: list[Failure]) -> None:
    """Put frames on disk as they come. The first that cannot be written ends it: the next would not be either."""
    for outcome in outcomes:
        name = results.name(outcome.frame)
        trouble = outcome.trouble
        if not trouble:
            try:
                results.add(outcome)
            except FewShotError as error:
                failures.append(Failure(name, str(error)))
                shown.frame_fails(str(error))
                return
            shown.frame_ends(outcome.candidates, len(outcome.detections), outcome.took)
        else:
            failures.append(Failure(name, trouble))
            shown.frame_fails(trouble)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
