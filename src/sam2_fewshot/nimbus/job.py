"""A job on one page: check, read the examples, learn, and do the frames one by one."""

from __future__ import annotations

import platform
import sys
import traceback
import warnings
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TextIO

from sam2_fewshot.errors import (
    DONE,
    FAILED,
    WRONG_INPUT,
    FewShotError,
    FewShotWarning,
    InputError,
    ServerError,
    counted,
    were,
)
from sam2_fewshot.nimbus.dataset import NimbusDataset
from sam2_fewshot.nimbus.examples import location_on, read_training
from sam2_fewshot.nimbus.form import present_checkpoints
from sam2_fewshot.nimbus.messages import JobDisplay, Messages, Stopped, in_short, stopping
from sam2_fewshot.nimbus.parameters import read_parameters
from sam2_fewshot.nimbus.planes import BLOCK, MEMORY
from sam2_fewshot.nimbus.results import DatasetSink
from sam2_fewshot.nimbus.server import PAGE, Patience, Server
from sam2_fewshot.nimbus.shelf import BLOCKS_ITEM, LARGEST, Shelf, ShelfCache
from sam2_fewshot.nimbus.uploads import MOST_ANNOTATIONS
from sam2_fewshot.resources import budget
from sam2_fewshot.runner.progress import Watch
from sam2_fewshot.runner.run import MemoryLimit, run
from sam2_fewshot.segmenter import FewShotSegmenter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sam2_fewshot.nimbus.dataset import NimbusFrame
    from sam2_fewshot.nimbus.parameters import Request
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Exemplar, FrameReader, Location
    from sam2_fewshot.settings import Settings

_STOPPED = "The job was stopped. Finished frames are kept; run the tool again for the others."
# Of the whole: reading and loading, then learning; the rest is for the frames.
_LEARN, _FRAMES = 0.02, 0.10
_PLANES = 8
"""Pixels that were fetched are cached up to this part of the memory."""


def built_for_gpu(installed: str | None = None, system: str | None = None, machine: str | None = None) -> bool:
    """Tell whether the torch that is installed comes with CUDA: PyPI's for x86-64 do, those marked ``+cpu`` do not.

    What is left out is that of this environment, as :mod:`platform` gives it; no torch is an empty version.
    """
    if installed is None:
        try:
            installed = version("torch")
        except PackageNotFoundError:
            installed = ""
    if not installed:
        return False
    kind = system or platform.system(), machine or platform.machine()
    return ("+" not in installed and kind == ("Linux", "x86_64")) or "+cu" in installed


@dataclass(frozen=True)
class Means:
    """What a job works with; tests put others in.

    Parameters
    ----------
    make
        Makes the segmenter from the checkpoint's name, the device, the settings and who is informed of progress.
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
    page
        Entries of a list asked for at a time.
    most_annotations
        Annotations sent in one request.
    largest_file
        Bytes of the largest file that is stored with the dataset.
    gpu_expected
        Tells whether a GPU is missed where there is none.
    code
        Digest of the code, on which what is stored for the next job depends; that of this program when left out.
    """

    make: Callable[[str, str, Settings, Progress], FewShotSegmenter] = FewShotSegmenter
    checkpoints: Callable[[], Sequence[str]] = present_checkpoints
    stream: TextIO | None = None
    patience: Patience = field(default_factory=Patience)
    silence: float = 15.0
    block: int = BLOCK
    memory: int = MEMORY
    page: int = PAGE
    most_annotations: int = MOST_ANNOTATIONS
    largest_file: int = LARGEST
    gpu_expected: Callable[[], bool] = built_for_gpu
    code: str | None = None


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
    request = read_parameters(raw, means.checkpoints())
    for remark in request.remarks:
        messages.warn(remark)
    display = JobDisplay(messages, _FRAMES)
    watch = Watch(display)
    with Server(api_url, token, means.patience, messages.log, means.page) as server:
        request, memory, limit = _shared_memory(request, means.memory)
        dataset = NimbusDataset(server, dataset_id, request.settings, messages.warn, means.block, memory, request.tool)
        locations = request.locations(dataset.size)
        shelf = Shelf(server, dataset_id, largest=means.largest_file)
        blocks = Shelf(server, dataset_id, BLOCKS_ITEM, means.largest_file)
        sink = DatasetSink(server, dataset, request, display, shelf, blocks, means.most_annotations, means.code)
        exemplars, outlined = read_training(server, dataset, request, messages)
        locations, exemplars = _shown(dataset, locations, exemplars, messages)
        sink.prepare(outlined)
        messages.progress(0.01, "Loading the model", request.model)
        segmenter = _segmenter(request, means, messages, watch)
        messages.stage(_LEARN, _FRAMES)
        described = f"{len(exemplars)} examples, {segmenter.model_name} on {segmenter.device_name}"
        messages.progress(_LEARN, "Learning the examples", described)
        source = _Frames([dataset.frame(location) for location in locations], exemplars)
        ended = run(source, sink, segmenter, watch, cache=ShelfCache(shelf, messages.log), code=means.code, limit=limit)
        if ended.interrupted:
            raise Stopped
        messages.log(f"{server.requests_sent} requests to the server.")
        if ended.failures:
            sentences = [f"{failure.what}: {failure.sentence}" for failure in ended.failures]
            messages.error(f"{len(sentences)} of {len(locations)} frames could not be done: {in_short(sentences)}")
            return FAILED
        messages.progress(1.0, "Done", f"{sink.summary}; {counted(len(locations), 'frame')}")
    return DONE


def _shown(
    dataset: NimbusDataset, locations: Sequence[Location], exemplars: Sequence[Exemplar], messages: Messages
) -> tuple[list[Location], list[Exemplar]]:
    """Return the frames on which a layer shows anything, and the examples on such frames; warn of the others.

    On frames that are not searched, what was found there stays. Examples on them would teach what black looks like.

    Raises
    ------
    InputError
        If the layers show none of the frames, or no example of what is wanted.
    """
    why = "their channels, or the slices that they are set to, are not in this dataset"
    marked = [location_on(exemplar) for exemplar in exemplars if not exemplar.negative]
    for which, places in (("frames to search", locations), ("frames of the examples", marked)):
        if not any(map(dataset.shows, places)):
            raise InputError(
                f"The visible layers show nothing on the {which}: {why}. Switch on a layer that shows the objects, or "
                "change the channel or the slices of one, and run the tool again."
            )
    frames = sorted({*locations, *map(location_on, exemplars)})
    seen = [exemplar for exemplar in exemplars if dataset.shows(location_on(exemplar))]
    if empty := [dataset.name(place) for place in frames if not dataset.shows(place)]:
        hidden = len(exemplars) - len(seen)
        left_out = f" {were(hidden, 'example')} left out for lying there." if hidden else ""
        messages.warn(
            f"The visible layers show nothing on {len(empty)} of {counted(len(frames), 'frame')} ({in_short(empty)}): "
            f"{why}. There nothing is searched, and what was found before stays.{left_out}"
        )
    return [place for place in locations if dataset.shows(place)], seen


def _shared_memory(request: Request, most: int) -> tuple[Request, int, MemoryLimit]:
    """Take from Max Memory what the planes fetched last may keep.

    Returns
    -------
    Request
        With the rest.
    int
        Those bytes.
    MemoryLimit
        What the user has allowed for both.
    """

    def with_planes(rest: float) -> float:
        return min(rest * _PLANES / (_PLANES - 1), rest + most / 1e9)

    limit = MemoryLimit(request.settings.max_memory, "Max Memory", with_planes)
    total = budget(request.settings.max_memory)
    planes = min(most, total // _PLANES)
    rest = request.settings.changed({"max_memory": (total - planes) / 1e9})
    return replace(request, settings=rest), planes, limit


def _segmenter(request: Request, means: Means, messages: Messages, watch: Watch) -> FewShotSegmenter:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FewShotWarning)
        segmenter = means.make(request.model, "auto", request.settings, watch)
    for each in caught:
        (messages.warn if issubclass(each.category, FewShotWarning) else messages.log)(str(each.message))
    if not segmenter.is_accelerated and means.gpu_expected():
        messages.warn(
            "There is no GPU for this job, so it runs on the CPU and takes many times as long. If the server has one, "
            "ask its administrator whether it is in use or its driver is missing."
        )
    return segmenter


@dataclass(frozen=True)
class _Frames:
    """The frames of a job and its examples; a :class:`~sam2_fewshot.runner.tasks.Source`."""

    frames: Sequence[NimbusFrame]
    exemplars: Sequence[Exemplar]

    def name(self, frame: FrameReader) -> str:
        return frame.name
