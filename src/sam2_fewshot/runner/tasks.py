"""Frames through a segmenter, one by one, in this process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import FewShotError, InputError
from sam2_fewshot.files.pictures import pictures_of
from sam2_fewshot.methods.selection import AS_SET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sam2_fewshot.annotations.record import ExampleMark
    from sam2_fewshot.files.block_journal import BlockJournal
    from sam2_fewshot.records import Detection, FrameReader
    from sam2_fewshot.runner.engine import Engine, FrameStats
    from sam2_fewshot.runner.progress import Display, Watch
    from sam2_fewshot.tiling.blocks import Block, BlockFinds


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a frame.

    Parameters
    ----------
    frame
        The frame.
    trouble
        Why nothing came of it, in a sentence; empty when all went well.
    detections
        The objects: those that the user confirmed, then those found, best first.
    candidates
        How many masks were looked at.
    seconds
        Time that each stage took.
    below, floor
        What was found with a score below the threshold, best first, and the score down to which that is complete.
    threshold
        The score that had to be reached.
    overlay, preview
        Content of the frame's pictures, see :class:`~sam2_fewshot.files.pictures.Pictures`.
    warnings
        What the user was told about the frame.
    took
        Seconds that the frame took in all.
    """

    frame: FrameReader
    trouble: str = ""
    detections: Sequence[Detection] = ()
    candidates: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    below: Sequence[Detection] = ()
    floor: float = 0.0
    threshold: float = 0.0
    overlay: bytes = b""
    preview: bytes = b""
    warnings: Sequence[str] = ()
    took: float = 0.0


@dataclass(frozen=True, eq=False)
class Task:
    """What a frame's results and messages need besides the frame.

    Parameters
    ----------
    frame
        The frame to search.
    name
        What to call it in messages.
    marks
        The examples on it.
    confirmed
        Objects on it that the user marked as right in earlier results: part of the results, and learned from, so that
        they are not found again.
    kept
        Its finished blocks, if it is searched in blocks.
    """

    frame: FrameReader
    name: str
    marks: Sequence[ExampleMark] = ()
    confirmed: Sequence[Detection] = ()
    kept: BlocksOnDisk | None = None


def one_by_one(
    tasks: Sequence[Task], engine: Engine, watch: Watch, shown: Display, threshold: float
) -> Iterator[Outcome]:
    """Yield what becomes of each frame; one that fails does not stop the others."""
    for task in tasks:
        shown.frame_begins(task.name)
        began = time.perf_counter()
        try:
            detections = [*task.confirmed, *_segment(engine, task)]
            drawn = pictures_of(task.frame, detections, task.marks, threshold)
        except (FewShotError, OSError, MemoryError) as error:
            yield Outcome(task.frame, trouble=sentence_of(error), took=time.perf_counter() - began)
            continue
        told(task.name, drawn.flat, engine.last_run, watch.warn, shown.say)
        yield Outcome(
            task.frame,
            detections=detections,
            **of_search(engine.last_run),
            overlay=drawn.overlay,
            preview=drawn.preview,
            warnings=watch.take(),
            took=time.perf_counter() - began,
        )


def _segment(engine: Engine, task: Task) -> Sequence[Detection]:
    from sam2_fewshot.segmenter import FewShotSegmenter

    if isinstance(engine, FewShotSegmenter):
        return engine.segment(task.frame, task.kept)
    return engine.segment(task.frame)


def of_search(stats: FrameStats) -> dict[str, Any]:
    """Return what an outcome, or a worker's reply, tells of how a frame's search went."""
    return {
        "candidates": stats.candidates,
        "seconds": dict(stats.seconds),
        "below": stats.below,
        "floor": stats.floor,
        "threshold": stats.threshold,
    }


def told(name: str, flat: bool, stats: Any, warn: Callable[[str], None], say: Callable[[str], None]) -> None:
    """Tell what is to be said of a finished frame.

    Parameters
    ----------
    name
        What to call it.
    flat
        Whether it is the same everywhere.
    stats
        How its search went; ``blocks`` and ``blank`` are told where it has them.
    warn, say
        Take the sentences.
    """
    if stats.reason not in ("", AS_SET):
        warn(f"{name}: the score is cut at {stats.threshold:.3f}: {stats.reason}.")
    if flat:
        warn(f"{name} is the same everywhere, so nothing can be found in it.")
    blank = getattr(stats, "blank", 0)
    if blank and not flat:
        say(f"{name}: {blank} of {stats.blocks} blocks show nothing but even background and were passed over.")


def sentence_of(error: BaseException) -> str:
    """Return why a frame failed, in a sentence."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it. Lower --max-memory, so that it is searched in smaller blocks."
    return str(error)


@dataclass(eq=False, slots=True)
class BlocksOnDisk:
    """A :class:`~sam2_fewshot.tiling.search.KeptBlocks` in the output folder.

    Parameters
    ----------
    journal
        Where they are.
    name
        What to call the frame.
    frame_shape
        Its ``(height, width)`` in pixels.
    say, warn
        Take sentences for the user.
    """

    journal: BlockJournal
    name: str
    frame_shape: tuple[int, int]
    say: Callable[[str], None]
    warn: Callable[[str], None]
    _is_told: bool = False

    def known(self, blocks: Sequence[Block]) -> dict[Block, BlockFinds]:
        """Return what earlier runs have found, and say how much that is."""
        read = ((block, self.journal.read(block, self.frame_shape)) for block in blocks)
        known = {block: finds for block, finds in read if finds is not None}
        if known:
            self.say(f"{self.name}: {len(known)} of {len(blocks)} blocks are finished already and kept.")
        return known

    def keep(self, finds: BlockFinds) -> None:
        """Keep what was found in a block. Where that cannot be, it is said once, and the search goes on without."""
        try:
            self.journal.write(finds)
        except InputError as error:
            if self._is_told:
                return
            self._is_told = True
            self.warn(f"Finished blocks of {self.name} cannot be kept, so a stop would lose them. {error}")
