"""The main job on one page: check, learn the examples, do the frames one by one, put the results together."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sam2_fewshot.errors import FewShotError
from sam2_fewshot.job.display import Display, Silent
from sam2_fewshot.job.engine import Engine, few_shot_segmenter
from sam2_fewshot.job.plan import Request, make_plan
from sam2_fewshot.job.results import Results
from sam2_fewshot.job.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sam2_fewshot.protocols import FrameReader, Progress
    from sam2_fewshot.writers.record import FrameRecord


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
) -> Summary:
    """Find all objects like the examples and write the results.

    Finished frames are on disk at once, so a stopped or failed run loses only the frame at work, and the same
    request goes on from there. Frames done with other settings, examples, weights or image files are done anew.

    Parameters
    ----------
    request
        What is asked for.
    display
        Who is told how it goes; None for nobody.
    make_engine
        Makes what looks for the objects.

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
    plan = make_plan(request, watch)
    with _timed(seconds, "load model"):
        engine = make_engine(request, watch)
    shown.say(f"Model {engine.model_name} on {engine.device_name}.")
    results = Results(plan, engine)
    left = [frame for frame in plan.frames if not results.have(frame)]
    if left:
        with _timed(seconds, "learn examples"):
            engine.fit([example.exemplar for example in plan.shown])
    results.open(shown)

    general = watch.take()
    failures: list[Failure] = []
    interrupted = False
    try:
        _do(left, engine, results, watch, shown, failures)
    except KeyboardInterrupt:
        interrupted = True
    finally:  # also after a defect, the finished frames are put together
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


def _do(
    frames: Sequence[FrameReader],
    engine: Engine,
    results: Results,
    watch: Watch,
    shown: Display,
    failures: list[Failure],
) -> None:
    """Do the frames. One that fails does not stop the others, unless its result could not be written."""
    shown.begin(len(frames))
    for frame in frames:
        name = results.name(frame)
        shown.frame_begins(name)
        began = time.perf_counter()
        try:
            detections = engine.segment(frame)
            pixels = frame.read()
        except (FewShotError, OSError, MemoryError) as error:
            sentence = "there is not enough memory for it." if isinstance(error, MemoryError) else str(error)
            failures.append(Failure(name, sentence))
            shown.frame_fails(sentence)
            continue
        if (pixels == pixels[:1, :1]).all():
            watch.warn(f"{name} is the same everywhere, so nothing can be found in it.")
        try:
            results.add(frame, pixels, detections, engine.last_run, watch.take())
        except FewShotError as error:  # the next frame would meet the same full disk
            failures.append(Failure(name, str(error)))
            shown.frame_fails(str(error))
            return
        shown.frame_ends(engine.last_run.candidates, len(detections), time.perf_counter() - began)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
