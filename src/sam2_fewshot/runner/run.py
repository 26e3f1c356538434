"""One run, whatever its source and sink: learn the examples, search the remaining frames, hand over the detections."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from sam2_fewshot.runner.learning import learn
from sam2_fewshot.runner.tasks import Failure, Progressed, in_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sam2_fewshot.runner.progress import Watch
    from sam2_fewshot.runner.tasks import Execute, Sink, Source
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.storage.cache import ModelCache


def run(
    source: Source,
    sink: Sink,
    segmenter: FewShotSegmenter,
    watch: Watch,
    *,
    cache: ModelCache | None = None,
    code: str | None = None,
    must_learn: bool = False,
    execute: Execute = in_this_process,
    seconds: dict[str, float] | None = None,
) -> Progressed:
    """Detect all objects like the examples of a source, and hand them to a sink.

    Parameters
    ----------
    source, sink
        Where frames and examples come from, and where detections go.
    segmenter
        Learns and searches. Where the source has no examples, it has learned already.
    watch
        Reports the progress.
    cache
        Has, and takes, what was learned from the same examples; None for none.
    code
        As for :func:`~sam2_fewshot.runner.learning.learning_key`.
    must_learn
        Learn even if no frame is left to be searched.
    execute
        How frames are searched.
    seconds
        Of the stages so far, by name.

    Returns
    -------
    Progressed
        Also when some frames failed, or the user stopped the run (KeyboardInterrupt).

    Raises
    ------
    FewShotError
        If nothing can be learned, or the sink is not ready.
    """
    seconds = {} if seconds is None else seconds
    left = [frame for frame in source.frames if not sink.has(frame)]
    if left and segmenter.settings.compile:
        watch.say("Compiling SAM 2 for this device; the first image takes minutes, later ones are faster.")
    if source.exemplars and (left or must_learn):
        with timed(seconds, "learn examples"):
            learn(segmenter, source.exemplars, watch, cache, code)
    if source.exemplars or left:
        sink.learned(segmenter)
    progressed = Progressed(len(source.frames), len(source.frames) - len(left), watch.take(), seconds)
    with sink.opened(progressed):
        watch.begin(len(left))
        results = execute([sink.task(frame, source.name(frame)) for frame in left], segmenter, watch)
        try:
            with closing(results):  # type: ignore[type-var]
                in_a_row = 0
                for task, result in results:
                    in_a_row = in_a_row + 1 if result.trouble else 0
                    if result.trouble:
                        progressed.failures.append(Failure(task.name, result.trouble))
                        watch.frame_fails(result.trouble)
                        sink.failed(task, result, in_a_row)
                    else:
                        sink.add(task, result)
                        found = result.found
                        watch.frame_ends(found.candidates, len(found.detections), result.took)
        except KeyboardInterrupt:
            progressed.interrupted = True
        finally:  # also after a defect, the sink puts the finished frames together
            watch.end()
    return progressed


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Measure the wall-clock seconds that the ``with`` block takes."""
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
