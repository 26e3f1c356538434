"""A job on one page: check, read the examples, learn, and do the frames one by one."""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TextIO

from sam2_fewshot.errors import FewShotError, FewShotWarning, ServerError
from sam2_fewshot.nimbus.dataset import NimbusDataset
from sam2_fewshot.nimbus.engine import Engine, FewShotEngine
from sam2_fewshot.nimbus.examples import read_training
from sam2_fewshot.nimbus.form import present_checkpoints
from sam2_fewshot.nimbus.messages import Messages, Stopped, stopping
from sam2_fewshot.nimbus.parameters import read_parameters
from sam2_fewshot.nimbus.planes import BLOCK, MEMORY
from sam2_fewshot.nimbus.results import Results
from sam2_fewshot.nimbus.server import Patience, Refused, Server
from sam2_fewshot.nimbus.shelf import Cache, Shelf, content_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sam2_fewshot.nimbus.parameters import Request
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Detection, Exemplar, Location

DONE, FAILED, WRONG_INPUT = 0, 1, 2
"""Exit codes: all done; failed or stopped part-way, finished frames are kept; wrong input, and nothing done."""

_STOPPED = "The job was stopped. Finished frames are kept; run the tool again for the others."
_MOST_FAILURES = 3
_LISTED = 5
# Of the whole: reading and loading, then learning; the rest is for the frames.
_LEARN, _FRAMES = 0.02, 0.10
_WITHIN = 0.9
_PLANES = 8
"""Pixels that were fetched are kept up to this part of the memory."""


@dataclass(frozen=True)
class Means:
    """What a job works with; tests put others in.

    Parameters
    ----------
    make_engine
        Makes what looks for the objects.
    checkpoints
        Gives the file names of the checkpoints that are present, the best first.
    stream
        Where messages go; None for the standard output.
    patience
        How long to wait for the server.
    silence
        Seconds after which the last progress is written again.
    block, memory
        As for :class:`~sam2_fewshot.nimbus.planes.Planes`.
    """

    make_engine: Callable[[Request, Progress], Engine] = FewShotEngine
    checkpoints: Callable[[], Sequence[str]] = present_checkpoints
    stream: TextIO | None = None
    patience: Patience = field(default_factory=Patience)
    silence: float = 15.0
    block: int = BLOCK
    memory: int = MEMORY


def compute(
    api_url: str, token: str, request_raw: Mapping[str, Any], dataset_id: str, means: Means | None = None
) -> int:
    """Find all objects like the tagged ones in a dataset, and add them to it.

    Parameters
    ----------
    api_url, token
        The server, and the user's token; it appears in no message.
    request_raw
        The job's parameters as the server hands them over.
    dataset_id
        The dataset's folder.
    means
        What to work with.

    Returns
    -------
    int
        The exit code; 0 only if all frames are done. The last message says why it is another.
    """
    means = means or Means()

    def hide(text: str) -> str:
        return text.replace(token, "<token>") if token else text

    with Messages(means.stream or sys.stdout, hide, means.silence) as messages:
        try:
            with stopping(lambda: messages.error(_STOPPED)):
                return _job(api_url, token, request_raw, dataset_id, means, messages)
        except Stopped:
            messages.error(_STOPPED)
        except FewShotError as error:
            messages.error(str(error))
            return FAILED if isinstance(error, ServerError) else WRONG_INPUT
        except MemoryError:
            messages.error(
                "There is not enough memory for this. Finished frames are kept; give the worker more, or choose a "
                "smaller model."
            )
        except Exception as error:
            messages.log(traceback.format_exc())
            messages.error(
                f"This is a defect of sam2-fewshot; please report it with the job's log. ({type(error).__name__}: "
                f"{error}) Finished frames are kept."
            )
    return FAILED


def _job(api_url: str, token: str, raw: Mapping[str, Any], dataset_id: str, means: Means, messages: Messages) -> int:
    messages.progress(0.0, "Reading the dataset")
    request = read_parameters(raw, dataset_id, means.checkpoints())
    for remark in request.remarks:
        messages.warn(remark)
    with Server(api_url, token, means.patience, messages.log) as server:
        request, memory = _shared_memory(request, means.memory)
        dataset = NimbusDataset(server, dataset_id, request.settings, messages.warn, means.block, memory)
        locations = request.locations(dataset.size)
        shelf = Shelf(server, dataset_id)
        results = Results(server, dataset, request, messages, means.patience, shelf)
        exemplars = read_training(server, dataset, request, messages)
        results.prepare()
        messages.progress(0.01, "Loading the model", request.model)
        engine = _engine(request, means, messages)
        messages.stage(_LEARN, _FRAMES)
        messages.progress(_LEARN, "Learning the examples", f"{len(exemplars)} examples, {engine.described}")
        _learn(Cache(shelf, messages), request, exemplars, engine, messages)
        failures = _frames(dataset, locations, engine, results, messages)
        results.finish()
        there = f", {results.present} already there" if results.present else ""
        messages.log(f"{server.requests_sent} requests to the server.")
        if failures:
            told = "; ".join(failures[:_LISTED]) + ("; …" if len(failures) > _LISTED else "")
            messages.error(f"{len(failures)} of {len(locations)} frames could not be done: {told}")
            return FAILED
        messages.progress(1.0, "Done", f"{results.new} added{there}; {_frames_in_words(len(locations))}")
    return DONE


def _shared_memory(request: Request, most: int) -> tuple[Request, int]:
    """Take from Max Memory what the planes fetched last may keep; return the request with the rest, and those bytes."""
    from sam2_fewshot.memory import allowed_memory

    total = int(request.settings.max_memory * 1e9) or allowed_memory() // 2
    planes = min(most, total // _PLANES)
    rest = request.settings.changed({"max_memory": (total - planes) / 1e9})
    return replace(request, settings=rest), planes


def _engine(request: Request, means: Means, messages: Messages) -> Engine:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FewShotWarning)
        engine = means.make_engine(request, messages)
    for each in caught:
        (messages.warn if issubclass(each.category, FewShotWarning) else messages.log)(str(each.message))
    if engine.slow:
        messages.warn(
            "There is no GPU for this job, so it runs on the CPU and takes many times as long. If the server has one, "
            "ask its administrator whether it is in use or its driver is missing."
        )
    return engine


def _learn(cache: Cache, request: Request, exemplars: Sequence[Exemplar], engine: Engine, messages: Messages) -> None:
    """Learn the examples, or take over what an earlier job has learned from the same ones."""
    key = content_key(exemplars, engine.model_sha256, request.settings)
    if cache.recall(key, engine):
        messages.log("The examples were learned by an earlier job.")
        return
    before = len(messages.warnings)
    engine.fit(exemplars)
    cache.keep(key, engine, messages.warnings[before:])


def _frames(
    dataset: NimbusDataset, locations: Sequence[Location], engine: Engine, results: Results, messages: Messages
) -> list[str]:
    """Do the frames; return why some of them could not be done."""
    began = time.monotonic()
    empty: list[str] = []
    failures: list[str] = []
    in_a_row = 0
    last = ""
    for number, location in enumerate(locations):
        name = dataset.name(location)
        low = _FRAMES + (1 - _FRAMES) * number / len(locations)
        # The engine's own steps end short of the next frame, whose line would else look like one of this.
        messages.stage(low, low + _WITHIN * (1 - _FRAMES) / len(locations))
        place = f"frame {number + 1} of {len(locations)} ({name})"
        messages.progress(low, "Looking for objects", f"{place}{_left(began, number, locations)}{last}")
        try:
            detections: Sequence[Detection] = engine.segment(dataset.frame(location))
        except (FewShotError, MemoryError) as error:
            if isinstance(error, ServerError) and (not isinstance(error, Refused) or error.status in (401, 403)):
                raise
            sentence = "there is not enough memory for it." if isinstance(error, MemoryError) else str(error)
            failures.append(f"{name}: {sentence}")
            messages.log(f"{name} failed: {sentence}")
            in_a_row += 1
            if in_a_row >= _MOST_FAILURES:
                raise ServerError(
                    f"{in_a_row} frames in a row could not be done, the last one ({name}) because: {sentence} Finished "
                    "frames are kept."
                ) from None
            continue
        in_a_row = 0
        added = results.add(location, detections)
        last = f"; last: {added.new} added of {engine.candidates} candidates"
        if not detections:
            empty.append(name)
        counts = f"{engine.candidates} candidates, {added.new} added, {added.present} already there."
        messages.log(f"{name}: {counts}{engine.cut}")
    if len(empty) == len(locations):
        messages.warn(
            "Nothing was found. Lower the Similarity Threshold, or mark further examples that look like the objects "
            "that are missing."
        )
    elif empty:
        listed = "; ".join(empty[:_LISTED]) + ("; …" if len(empty) > _LISTED else "")
        messages.warn(f"Nothing was found on {len(empty)} of {len(locations)} frames ({listed}).")
    return failures


def _left(began: float, done: int, locations: Sequence[Location]) -> str:
    if not done:
        return ""
    seconds = (time.monotonic() - began) / done * (len(locations) - done)
    shown = (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
    return f", about {shown} left"


def _frames_in_words(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"
