"""One run, whatever its source and sink.

The examples are learned, or what was learned from the same ones is taken from the cache; the frames that are left are
searched; and the detections are handed over.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sam2_fewshot.errors import InputError
from sam2_fewshot.methods.base import Stopwatch
from sam2_fewshot.records import Counts, Learned, held_bytes
from sam2_fewshot.rendering.contrast import exposures_of
from sam2_fewshot.resources import rounded_up
from sam2_fewshot.runner.tasks import CannotGoOn, Failure, Progressed, in_this_process
from sam2_fewshot.settings import AFTER_LEARNING, Settings
from sam2_fewshot.storage.digests import code_digest, common_part, frame_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sam2_fewshot.records import Exemplar, FrameReader
    from sam2_fewshot.runner.progress import Watch
    from sam2_fewshot.runner.tasks import Execute, Sink, Source, Task, TaskResult
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.storage.cache import ModelCache


@dataclass(frozen=True)
class MemoryLimit:
    """How much memory the user allows a run.

    Parameters
    ----------
    allowed
        In GB, as the user has set it; 0 for what fits.
    setting
        What the user sets.
    to_set
        Gives what must be set for the segmenter to have so many GB, where the run takes some of it for itself.
    """

    allowed: float = 0
    setting: str = "--max-memory"
    to_set: Callable[[float], float] = lambda least: least

    def check(self, least: float, what: str) -> None:
        """Refuse what takes more than the user has allowed.

        Parameters
        ----------
        least
            What the segmenter needs, in GB.
        what
            What cannot be done without, as the beginning of a sentence.

        Raises
        ------
        InputError
            Saying how much must be set.
        """
        needed = self.to_set(least)
        if self.allowed and needed > self.allowed:
            raise InputError(
                f"{what} with {self.allowed:g} GB: about {rounded_up(needed):g} GB are needed at least, for the "
                f"program, the model and the smallest block. Give {self.setting} that much, or leave it out."
            )


def run(
    source: Source,
    sink: Sink,
    segmenter: FewShotSegmenter,
    watch: Watch,
    *,
    cache: ModelCache | None = None,
    code: str | None = None,
    must_learn: bool = False,
    limit: MemoryLimit | None = None,
    execute: Execute = in_this_process,
    clock: Stopwatch | None = None,
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
        As for :func:`learning_key`.
    must_learn
        Learn even if no frame is left to be searched.
    limit
        What is allowed; too little for learning or for a frame is refused before the sink is opened.
    execute
        How frames are searched.
    clock
        Has the seconds of the stages so far.

    Returns
    -------
    Progressed
        Also when some frames failed, or the user stopped the run (KeyboardInterrupt).

    Raises
    ------
    FewShotError
        If nothing can be learned, the memory is too little, or the sink is not ready.
    """
    clock = clock or Stopwatch()
    left = [frame for frame in source.frames if not sink.has(frame)]
    limit = limit or MemoryLimit()
    if left and segmenter.settings.compile:
        watch.say("Compiling SAM 2 for this device; the first image takes minutes, later ones are faster.")
    learned = None
    if left or must_learn or not source.exemplars:
        before = watch.count
        if source.exemplars:
            limit.check(segmenter.memory.least_for_learning(), "Nothing can be learned or searched")
            with clock.stage("learn examples"):
                learn(segmenter, source.exemplars, watch, cache, code)
        learned = Learned(segmenter.summary, tuple(watch.since(before)))
        # Frames of one shape take the same. That which takes most is named, so that what it takes is enough for all.
        kinds = {(frame.shape, held_bytes(frame)): frame for frame in left}
        if kinds:
            hardest = max(kinds.values(), key=segmenter.least_memory)
            limit.check(segmenter.least_memory(hardest), f"{source.name(hardest)} cannot be searched")
        sink.learned(segmenter)
        if learned.summary:
            watch.say(learned.summary)
    progressed = Progressed(
        len(source.frames), len(source.frames) - len(left), watch.take(), clock.seconds, learned=learned
    )
    try:
        with sink.opened(progressed):
            watch.begin(len(left))
            # Pictures show a frame as it is searched.
            tasks = [sink.task(segmenter.as_searched(frame), source.name(frame)) for frame in left]
            results = execute(tasks, segmenter, watch)
            _take(results, sink, watch, progressed)
    except KeyboardInterrupt:  # while the sink began or ended
        progressed.interrupted = True
    return progressed


def _take(results: Iterator[tuple[Task, TaskResult]], sink: Sink, watch: Watch, progressed: Progressed) -> None:
    """Hand each outcome over to the sink, until there is no more, none can be taken, or the user stops the run."""
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
                    watch.frame_ends(found.candidates, Counts.of(found.detections).found, result.took)
    except CannotGoOn as error:
        progressed.failures.append(Failure(error.what, str(error)))
    except KeyboardInterrupt:
        progressed.interrupted = True
    finally:  # also after a defect, the sink puts the finished frames together
        watch.end()


def learn(
    segmenter: FewShotSegmenter,
    exemplars: Sequence[Exemplar],
    watch: Watch,
    cache: ModelCache | None = None,
    code: str | None = None,
) -> bool:
    """Learn from examples, or take what was learned from the same examples from the cache.

    An entry of the cache that cannot be used is replaced.

    Parameters
    ----------
    segmenter
        Learns.
    exemplars
        What to learn from; their images are frames.
    watch
        Takes the warnings, also those of the first time, and reports that the cache was used.
    cache
        Where it is kept; None for nowhere.
    code
        As for :func:`learning_key`.

    Returns
    -------
    bool
        Whether it was cached.

    Raises
    ------
    InputError
        As :meth:`~sam2_fewshot.segmenter.FewShotSegmenter.fit`.
    """
    if cache is None:
        segmenter.fit(exemplars)
        return False
    key = learning_key(segmenter, exemplars, code)
    if (entry := cache.get(key)) is not None:
        content, warnings = entry
        with suppress(InputError):
            segmenter.adopt_saved(content)
            for sentence in warnings:
                watch.warn(sentence)
            watch.say("These examples were learned before; what was learned is taken from the cache.")
            return True
    segmenter.memory.check_learning()  # of this run alone; who learns warns of it once
    before = watch.count
    segmenter.fit(exemplars)
    cache.put(key, segmenter.object_model.to_bytes(), watch.since(before))
    return False


def learning_key(segmenter: FewShotSegmenter, exemplars: Sequence[Exemplar], code: str | None = None) -> str:
    """Return a key, 64 hexadecimal digits, that changes with everything that what is learned depends on.

    These are the examples with the pixels of their frames and their exposures, the weights, the device, the settings,
    how many tiles and which parts of large frames the memory allows to learn from, and this program's code: a rebuilt
    program under the same version number may learn something else. What the examples and their frames are called counts
    too, since the warnings of the first time, which are issued again, have these names.

    Parameters
    ----------
    segmenter
        Learns.
    exemplars
        What to learn from; each of their frames is read, a large one in strips.
    code
        Digest of the code; that of this program when left out.
    """
    frames = {id(exemplar.image): cast("FrameReader", exemplar.image) for exemplar in exemplars}
    digests = {key: frame_digest(frame) for key, frame in frames.items()}
    memory = segmenter.memory
    parts = [memory.learning_tiles, *(memory.part_size(frame) for frame in frames.values())]
    settings = segmenter.settings.model_dump(mode="json", exclude=set(AFTER_LEARNING))
    # Frames that are displayed alike may have been exposed otherwise, which bounds the contrast of others.
    exposures = [repr(exposures_of(frame)) for frame in frames.values()]
    names = [(exemplar.label, cast("FrameReader", exemplar.image).name) for exemplar in exemplars]
    return common_part(
        code or code_digest(),
        Settings(),  # those that matter are listed below
        segmenter.model_sha256,
        [(exemplar, digests[id(exemplar.image)]) for exemplar in exemplars],
        {
            "settings": settings,
            "device": segmenter.device_name,
            "parts": parts,
            "exposures": exposures,
            "names": names,
        },
    )
