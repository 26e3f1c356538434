"""Frames and blocks through Dask, in this process but for one test; the results are those of one process."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import tracemalloc
import warnings
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import distributed
import numpy as np
import pytest
import tifffile
from PIL import Image
from scale_job import Lines
from scale_scenes import BRIGHT, as_set, memory_for, scene

from bright import BrightMaker
from sam2_fewshot import Exemplar, FewShotSegmenter, Location
from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.files.finish import FrameFinish
from sam2_fewshot.files.plan import FrameAddress, make_plan
from sam2_fewshot.files.request import Request, request_again
from sam2_fewshot.files.run import run
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.rendering.channels import as_reader
from sam2_fewshot.resources import cores
from sam2_fewshot.runner.cluster import OnCluster, connected, local_workers, reply_of, trouble_of
from sam2_fewshot.runner.progress import Heard, Watch
from sam2_fewshot.runner.tasks import CannotGoOn, Task, TaskResult
from sam2_fewshot.runner.worker import Recipe, own_device, same, search_block, search_frame
from sam2_fewshot.settings import Settings
from sam2_fewshot.tiling.blocks import Block, SearchPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import FrameReader

pytestmark = pytest.mark.filterwarnings("default")  # of Dask and its event loop, which are not ours to mend
THRESHOLD = 0.96
SMALL = Settings(method="grid", points_per_side=16, similarity_threshold=THRESHOLD)
TIMEOUT = 60


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers in this process: quick to start, and the model is shared."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", protocol="inproc://"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"im{number}.png")
        Image.fromarray(scene(900 if number == 3 else 90, 12, seed=number)).save(paths[-1])
    return paths


@pytest.fixture
def examples(tmp_path: Path, images: list[Path]) -> Path:
    labels = np.zeros((90, 90), np.uint8)
    grey = np.array(Image.open(images[0]))[..., 0]
    from scipy import ndimage

    for number, place in enumerate(ndimage.find_objects(ndimage.label(grey > 100)[0])[:2], 1):
        labels[place][grey[place] > 100] = number
    (tmp_path / "marked").mkdir()
    Image.fromarray(labels).save(tmp_path / "marked" / "im0_labels.png")
    return tmp_path / "marked"


@pytest.fixture
def maker() -> BrightMaker:
    """Makes the segmenter of the program, the first, and those of its workers."""
    return BrightMaker(BRIGHT)


@pytest.fixture
def work(maker: BrightMaker, images: list[Path], examples: Path, tmp_path: Path) -> Any:
    def work(
        name: str, scheduler: Any = None, make: BrightMaker = maker, display: Lines | None = None
    ) -> tuple[Any, list[str]]:
        settings = SMALL.changed({"max_memory": memory_for(500**2), "cache_size": 0})
        request = Request(images=images, examples=examples, out=tmp_path / name, settings=settings)
        display = display or Lines()
        return run(request, display, make, scheduler), display.lines

    return work


def files(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "inputs.json", "report.html") and path.suffix != ".npz"
    }


def test_the_results_are_the_same_to_the_last_vertex(
    client: Any, work: Any, maker: BrightMaker, tmp_path: Path
) -> None:
    alone, _ = work("alone", make=BrightMaker(BRIGHT))
    together, lines = work("together", client)
    assert together.complete
    assert together.found == alone.found > 20
    assert together.candidates == alone.candidates
    assert files(tmp_path / "alone") == files(tmp_path / "together")
    assert len(list((tmp_path / "together" / ".frames").glob("*.jpg"))) == 4
    pairs = list(zip(alone.records(), together.records(), strict=True))
    assert sum(len(one.below) for one, _ in pairs) > 10
    for one, other in pairs:
        assert as_set(one.below) == as_set(other.below)
        assert (one.threshold, one.floor) == (other.threshold, other.floor)
        assert (one.threshold, one.floor) == (THRESHOLD, pytest.approx(THRESHOLD / 10))
    program, both_workers = maker.made
    assert program.calls == []
    assert set(both_workers.calls) == {f"im{number}.png" for number in range(4)}
    assert set(together.seconds) >= {"outline", "load model", "learn examples"}
    assert not [line for line in lines if "ailed" in line]


def test_a_second_run_hands_nothing_out(client: Any, work: Any) -> None:
    work("out", client)
    second = BrightMaker(BRIGHT)
    summary, _ = work("out", client, second)
    assert summary.resumed == 4
    assert [segmenter.calls for segmenter in second.made] == [[]]


def test_a_frame_that_always_fails_is_told_and_the_others_are_done(client: Any, work: Any) -> None:
    troubles = {"im1.png": ZeroDivisionError("oops"), "im2.png": InputError("it is damaged.")}

    def fail(frame: FrameReader) -> None:
        if frame.name in troubles:
            raise troubles[frame.name]

    summary, _ = work("out", client, BrightMaker(BRIGHT, on_plan=fail))
    assert summary.done == 2
    assert {failure.what: failure.sentence for failure in summary.failures} == {
        "im1.png": "this is a defect in sam2-fewshot, please report it: ZeroDivisionError: oops",
        "im2.png": "it is damaged.",
    }


def test_a_large_frame_of_which_a_block_fails_is_told_once(client: Any, work: Any) -> None:
    class Failing(BrightMaker):
        """Its segmenters search no block of the large frame."""

        def __call__(self, *arguments: Any) -> Any:
            segmenter = super().__call__(*arguments)

            def fail(number: int) -> None:
                if segmenter.bright.shapes[-1] != (90, 90):
                    raise InputError("a part of it is missing.")

            segmenter.bright.on_find = fail
            return segmenter

    summary, _ = work("out", client, Failing(BRIGHT))
    assert [(failure.what, failure.sentence) for failure in summary.failures] == [
        ("im3.png", "a part of it is missing.")
    ]
    assert summary.done == 3


def test_a_large_frame_that_cannot_be_joined_is_told(client: Any, work: Any) -> None:
    def fail(frame: FrameReader) -> None:
        if frame.name == "im3.png":
            raise MemoryError

    summary, _ = work("out", client, BrightMaker(BRIGHT, on_join=fail))
    assert ["not enough memory" in failure.sentence for failure in summary.failures] == [True]


def test_what_workers_warn_of_is_told(client: Any, work: Any, images: list[Path]) -> None:
    Image.fromarray(np.zeros((90, 90), np.uint8)).save(images[1])
    _, lines = work("out", client)
    assert "im1.png is the same everywhere, so nothing can be found in it." in lines


class Warning_(BrightMaker):
    """Its segmenters warn of each frame, and of each block of the large one."""

    def __call__(self, model: str, device: str, settings: Settings, progress: Progress) -> Any:
        segmenter = super().__call__(model, device, settings, progress)

        def find(number: int) -> None:
            if segmenter.bright.shapes[-1] != (90, 90):
                progress.warn("A part of im3.png is dark.")

        segmenter.bright.on_find = find
        segmenter.on_plan = lambda frame: progress.warn(f"{frame.name} is blurred.")
        return segmenter


def test_warnings_of_frames_and_blocks_are_those_of_one_process(client: Any, work: Any, tmp_path: Path) -> None:
    _, alone = work("alone", make=Warning_(BRIGHT))
    _, together = work("together", client, Warning_(BRIGHT))
    expected = [[f"im{number}.png is blurred."] for number in range(4)]
    expected[3].append("A part of im3.png is dark.")
    for name, lines in (("alone", alone), ("together", together)):
        told = [line for line in lines if "blurred" in line or "dark" in line]
        assert sorted(told) == sorted(sentence for sentences in expected for sentence in sentences)
        frames = json.loads((tmp_path / name / "run.json").read_text())["frames"]
        assert [frame["warnings"] for frame in frames] == expected


class Pressing(Lines):
    """Presses Ctrl-C when the first frame is done."""

    def frame_ends(self, candidates: int, detections: int, seconds: float) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_stops_and_keeps_what_is_done(client: Any, work: Any) -> None:
    summary, _ = work("out", client, display=Pressing())
    assert summary.interrupted
    assert summary.done == 1


class Losing(Lines):
    """Loses the scheduler when the first frame is done, or when the first worker is waited for."""

    def __init__(self, client: Any, lose: Callable[[Any], object]) -> None:
        super().__init__()
        self.lose = lambda: lose(client)

    def frame_ends(self, candidates: int, detections: int, seconds: float) -> None:
        super().frame_ends(candidates, detections, seconds)
        self.lose()

    def say(self, sentence: str) -> None:
        super().say(sentence)
        if "waiting for the first one" in sentence:
            self.lose()


def break_connection(client: Any) -> None:
    """Break it as a scheduler does that is killed, and wait until the client takes notice."""
    futures = [*client.futures.values()]
    client.loop.add_callback(client.scheduler_comm.comm.abort)
    end = time.monotonic() + TIMEOUT
    while not all(future.status == "cancelled" for future in futures) and time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("workers", "lose"), [(0, distributed.Client.close), (1, distributed.Client.close), (1, break_connection)]
)
def test_a_lost_scheduler_ends_the_run_with_one_sentence(
    work: Any, workers: int, lose: Callable[[Any], object]
) -> None:
    with (
        gpu_workers(workers, threads=1) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        address = client.scheduler.address
        summary, _ = work("out", client, display=Losing(client, lose))
    assert [(failure.what, failure.sentence) for failure in summary.failures] == [
        (
            "Dask",
            f"the scheduler at {address} is gone or was restarted, and the frames at work are lost. See that it runs, "
            "and has workers.",
        )
    ]
    assert summary.done == workers
    assert not summary.interrupted
    again, _ = work("out")
    assert again.complete
    assert again.resumed == workers


def test_a_cluster_of_another_version_is_not_given_any_frame(client: Any) -> None:
    def never(*_: object) -> Any:
        raise AssertionError

    task = Task(as_reader(np.zeros((8, 8), np.uint8), SMALL), "im.png")
    segmenter: Any = None
    with pytest.raises(CannotGoOn, match=r"run sam2-fewshot \d.*, but this program is 99\.0, .* start the scheduler"):
        next(OnCluster(client, never, never, version="99.0")([task], segmenter, Watch(Lines())))


class Asking(distributed.Client):  # type: ignore[misc]
    """A client that remembers what resources its tasks ask for."""

    def submit(self, *arguments: Any, **options: Any) -> Any:
        self.asked = [*getattr(self, "asked", []), options.get("resources")]
        return super().submit(*arguments, **options)


class Sending(distributed.Client):  # type: ignore[misc]
    """A client that remembers what kinds of things its tasks are given."""

    def submit(self, function: Any, *arguments: Any, **options: Any) -> Any:
        self.sent = [*getattr(self, "sent", []), *map(type, arguments)]
        return super().submit(function, *arguments, **options)


def test_the_plan_of_a_large_frame_is_sent_once(client: Any, work: Any) -> None:
    with Sending(client.cluster, set_as_default=False) as sending:
        summary, _ = work("out", sending)
    assert summary.complete
    assert sending.sent.count(Block) > 3
    assert sending.sent.count(SearchPlan) == 1


def gpu_workers(count: int, threads: int) -> Any:
    """Return a cluster in this process whose workers offer a GPU each."""
    return distributed.LocalCluster(
        n_workers=count,
        threads_per_worker=threads,
        processes=False,
        dashboard_address="127.0.0.1:0",
        protocol="inproc://",
        resources={"GPU": 1},
    )


def test_tasks_ask_for_a_gpu_where_workers_offer_one(work: Any) -> None:
    with (
        gpu_workers(1, threads=2) as cluster,
        Asking(cluster, set_as_default=False) as client,
    ):
        summary, _ = work("out", client)
    assert summary.complete
    searches = [asked for asked in client.asked if asked is not None]
    assert len(searches) > 4
    assert searches == [{"GPU": 1}] * len(searches)
    assert len(client.asked) == len(searches) + 2  # what was learned, and the plan of the large frame


class Queued(Lines):
    """Starts a cluster's first worker when it is waited for, and five more when the first frame is done.

    It counts the tasks that were handed out by the end of each frame.
    """

    def __init__(self, client: Asking) -> None:
        super().__init__()
        self.client, self.handed_out = client, list[int]()

    def say(self, sentence: str) -> None:
        super().say(sentence)
        if "waiting for the first one" in sentence:
            self.client.cluster.scale(1)

    warn = say

    def frame_ends(self, candidates: int, detections: int, seconds: float) -> None:
        self.handed_out.append(len(self.client.asked) - 1)  # the first one is what was learned
        if len(self.handed_out) == 1:
            self.client.cluster.scale(6)
            end = time.monotonic() + TIMEOUT
            while len(self.client.scheduler_info(n_workers=-1)["workers"]) < 6 and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(1.1)  # they are counted once a second at most


def test_workers_that_come_late_are_waited_for_and_used(images: list[Path], examples: Path, tmp_path: Path) -> None:
    many = [tmp_path / f"many{number}.png" for number in range(14)]
    for path in many:
        Image.fromarray(scene(90, 8)).save(path)
    with (
        gpu_workers(0, threads=1) as cluster,
        Asking(cluster, set_as_default=False) as client,
    ):
        display = Queued(client)
        request = Request(
            images=[images[0], *many], examples=examples, out=tmp_path / "out", settings=Settings(cache_size=0)
        )
        summary = run(request, display, BrightMaker(BRIGHT), client)
    assert summary.complete
    assert "The cluster has no worker yet; waiting for the first one." in display.lines
    assert client.asked == [None] + [{"GPU": 1}] * 15
    assert display.handed_out[0] == 4  # three ahead of one worker, and one when the first was done
    assert display.handed_out[1] == 15


def test_a_worker_loads_a_model_once_and_checks_its_weights(images: list[Path]) -> None:
    picture = scene(64, 3)
    settings = SMALL.changed({"min_mask_area": 10**6})
    segmenter = FewShotSegmenter("filters", settings=settings)
    segmenter.fit([Exemplar(image=picture, mask=picture[..., 0] > 100)])
    made: list[FewShotSegmenter] = []

    def make(model: str, device: str, settings: Settings, progress: Progress) -> FewShotSegmenter:
        made.append(FewShotSegmenter(model, device, settings, progress))
        progress.warn("made")
        return made[-1]

    recipe = Recipe("once", "filters", segmenter.model_sha256, "cpu", settings, segmenter.object_model, make)
    address = FrameAddress(images[1].name, str(images[1]), Location(7, 0, 0), settings, (), "")
    drawing = FrameFinish("im1.png", (), (), "record")
    for first in (True, False):
        answer = search_frame(same(recipe), address, drawing).answer
        assert isinstance(answer, TaskResult)
        assert answer.trouble == ""
        assert answer.took > 0
        assert ("made" in answer.warnings) == first, "told with the first frame, once"
        assert all(item.location.xy == 7 for item in answer.found.detections)
        assert answer.extra.overlay[:4] == b"\x89PNG"
    assert len(made) == 1
    gone = FrameAddress("a.png", "/nowhere/a.png", Location(), settings, (), "")
    answer = search_frame(recipe, gone, None).answer
    assert isinstance(answer, TaskResult)
    assert "There is no file /nowhere/a.png" in answer.trouble
    assert "made" not in answer.warnings
    answer = search_frame(replace(recipe, key="again"), gone, None).answer
    assert isinstance(answer, TaskResult)
    assert "made" in answer.warnings, "told with the first frame, though it fails"
    assert search_block(replace(recipe, key="block"), gone, None, None).warnings == ["made"]  # type: ignore[arg-type]
    other = replace(recipe, key="other", sha256="0" * 64)
    answer = search_frame(other, address, None).answer
    assert isinstance(answer, TaskResult)
    assert "A worker has other weights" in answer.trouble
    assert len(made) == 4


def test_a_worker_knows_some_images_and_holds_the_pixels_of_one(tmp_path: Path) -> None:
    addresses = []
    for number in range(3):
        path = tmp_path / f"large{number}.png"
        pixels = np.full((1000, 1500, 3), number, np.uint8)
        pixels[100:500, 100:-100] = 255
        pixels[-2:] = 0
        Image.fromarray(pixels).save(path)
        addresses.append(FrameAddress(path.name, str(path), Location(number), Settings(), (), ""))
    size = 3 * 1000 * 1500
    tracemalloc.start()
    try:
        for number, address in enumerate(addresses):
            frame = address.open()
            assert frame.location.xy == number
            assert frame.read((0, 700, 5, 705))[0, 0, 0] == number
            assert size <= tracemalloc.get_traced_memory()[0] < 1.5 * size
            assert address.open().read((0, 0, 1, 1)).shape == (1, 1, 3)  # the same one again
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("wider", [0, 40], ids=["same size", "wider"])
def test_a_worker_that_lives_on_reads_an_image_that_was_acquired_anew(tmp_path: Path, wider: int) -> None:
    path, marks, out = tmp_path / "a.tif", tmp_path / "a_labels.tif", tmp_path / "out"
    labels = np.zeros((60, 80), np.uint8)
    labels[10:20, 10:20] = 1
    tifffile.imwrite(marks, labels)
    before = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    request = Request(images=[path], examples=marks, out=out)
    frames = []
    for pixels in (before, np.pad(before[::-1], ((0, 0), (0, wider)))):
        tifffile.imwrite(path, pixels)
        tifffile.imwrite(marks, np.pad(labels, ((0, 0), (0, pixels.shape[1] - 80))))
        plan = make_plan(request, Quiet())
        frames.append(plan.address(plan.frames[0]).open())
        np.testing.assert_array_equal(frames[-1].read(), plan.frames[0].read())
    assert frames[1].shape == (60, 80 + wider)


class Named(BrightMaker):
    """Remembers by what names models were asked for."""

    def __call__(self, model: str, device: str, settings: Settings, progress: Progress) -> Any:
        self.models = [*getattr(self, "models", []), model]
        return super().__call__(model, device, settings, progress)


def test_a_worker_in_another_folder_opens_what_the_program_was_given(
    client: Any, images: list[Path], examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for path in images:  # of other experiments, called the same
        Image.fromarray(scene(90, 5, seed=9)).save(there / path.name)
    monkeypatch.chdir(tmp_path)
    given = [path.relative_to(tmp_path) for path in images[:2]]
    settings = Settings(cache_size=0)
    request = Request(images=given, examples=examples, out=tmp_path / "out", model="models/a.pt", settings=settings)
    plan = make_plan(request, Quiet())
    address = plan.address(plan.frames[1])
    maker = Named(BRIGHT)
    assert run(request, Lines(), maker, client).complete
    assert maker.models == ["models/a.pt", str(tmp_path / "models" / "a.pt")]
    monkeypatch.chdir(there)
    np.testing.assert_array_equal(address.open().read(), as_reader(np.array(Image.open(images[1])), settings).read())


@pytest.mark.parametrize(
    ("device", "worker", "card"),
    [
        ("auto", 3, "cuda:1"),
        ("cuda:0", 3, "cuda:0"),
        ("cuda", "SLURMCluster-4", "cuda:0"),
        ("auto", "node17-1", "cuda:1"),
    ],
)
def test_each_worker_takes_a_card_of_its_own(device: str, worker: object, card: str) -> None:
    class Named:
        name = worker

    heard = Heard()
    assert own_device(device, heard, ["cuda:0", "cuda:1"], Named) == card
    assert own_device(device, heard, [], Named) == device
    assert heard.sentences == []


@pytest.mark.parametrize("worker", ["left", "tcp://host:1"])
def test_a_worker_without_a_number_takes_the_first_card_and_says_so(worker: str) -> None:
    class Named:
        name = worker

    heard = Heard()
    assert own_device("auto", heard, ["cuda:0"], Named) == "auto"
    assert heard.sentences == []
    assert own_device("auto", heard, ["cuda:0", "cuda:1"], Named) == "auto"
    (sentence,) = heard.sentences
    assert f"worker '{worker}' has no number" in sentence
    assert "--nworkers" in sentence


def test_where_it_runs_is_checked() -> None:
    with pytest.raises(SettingsError, match=r"The scheduler is 'many'.*tcp://host:8786, local, or a number"):
        connected("many", Settings()).__enter__()
    with pytest.raises(SettingsError):
        local_workers("0", Settings())
    assert local_workers("3", Settings(max_memory=8)) == (3, Settings(max_memory=2))  # and this program has a share
    count, share = local_workers("local", Settings(max_memory=6), "micro")
    assert 1 <= count <= 2
    assert share.max_memory == 6 / (count + 1)


def test_the_results_tell_what_was_asked_for_and_not_a_worker_s_share(
    images: list[Path], examples: Path, tmp_path: Path
) -> None:
    settings = SMALL.changed({"max_memory": 4, "cache_size": 0})
    request = Request(images=images[:1], examples=examples, out=tmp_path / "out", model="filters", settings=settings)
    assert run(request, Lines(), scheduler="1").complete
    assert json.loads((request.out / "run.json").read_text())["settings"]["max_memory"] == 4
    assert request_again(request.out).settings == settings


def test_a_larger_model_has_fewer_workers(tmp_path: Path) -> None:
    large = tmp_path / "sam2.1_hiera_large.pt"
    with large.open("wb") as file:
        file.truncate(900_000_000)  # takes no room
    assert local_workers("local", Settings(max_memory=20), "micro", processors=16)[0] == 8
    assert local_workers("local", Settings(max_memory=18), large, processors=16)[0] == 3
    assert local_workers("local", Settings(max_memory=1), large, processors=16)[0] == 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"sam2-fewshot\[dask\]"):
        connected("local", Settings()).__enter__()


def test_what_dask_says_becomes_a_sentence() -> None:
    from distributed.scheduler import KilledWorker

    assert "the worker processes that tried it died" in trouble_of(KilledWorker("task", None, 3))
    assert "install the same version" in trouble_of(ModuleNotFoundError("No module named 'x'"))
    assert trouble_of(OSError("gone")) == "gone"


@dataclass
class Lost:
    """A future whose answer died with its worker, and which is computed anew when it is asked for."""

    error: Exception
    status: str = "lost"

    def result(self) -> object:
        raise self.error


@dataclass
class Standing:
    """A client in some state."""

    status: str = "running"


def test_an_answer_that_is_lost_and_fails_when_computed_anew_fails_its_frame_alone() -> None:
    answer = reply_of(Lost(OSError("the image is gone")), Standing()).answer
    assert isinstance(answer, TaskResult)
    assert answer.trouble == "the image is gone"
    with pytest.raises(OSError, match="gone"):  # with its scheduler
        reply_of(Lost(OSError("gone")), Standing("closed"))
    with pytest.raises(CancelledError):
        reply_of(Lost(CancelledError()), Standing())


def test_an_address_that_nobody_answers_is_a_sentence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=r"No Dask scheduler answers at tcp://127.0.0.1:1"):
            connected("tcp://127.0.0.1:1", Settings(), patience=0.3).__enter__()


def test_an_address_with_tls_asks_for_dask_s_certificates() -> None:
    with pytest.raises(InputError, match=r"Dask has no certificates to reach tls://127.0.0.1:1 .*distributed.comm.tls"):
        connected("tls://127.0.0.1:1", Settings(), patience=0.3).__enter__()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_ctrl_c_in_a_terminal_is_for_this_process_alone() -> None:
    def is_blocked() -> bool:
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with connected("2", Settings()) as (client, _):
        assert list(client.run(is_blocked).values()) == [True, True]
        for process in client.run(os.getpid).values():
            os.kill(process, signal.SIGINT)
        assert client.submit(sum, (1, 2)).result(TIMEOUT) == 3
        assert not is_blocked()


def test_local_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit() -> str | None:
        return os.environ.get("OMP_NUM_THREADS")

    monkeypatch.setenv("OMP_NUM_THREADS", str(cores()))  # as this program is told where a container has few
    with connected("2", Settings()) as (client, _):
        assert set(client.run(limit).values()) == {str(max(1, cores() // 2))}


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(images: list[Path], examples: Path, tmp_path: Path) -> None:
    settings = Settings(cache_size=0)
    many = []
    for number in range(8):
        many.append(tmp_path / f"many{number}.png")
        Image.fromarray(scene(90, 8, seed=number)).save(many[-1])
    request = Request(
        images=[images[0], *many], examples=examples, out=tmp_path / "alone", settings=settings,
        model="sam2.1_hiera_micro.pt", device="cpu",
    )  # fmt: skip
    alone = run(request, Lines())
    with connected("2", settings) as (client, _):
        killed: list[int] = []

        def kill() -> None:
            end = time.monotonic() + TIMEOUT
            while time.monotonic() < end and not list((tmp_path / "out").glob(".frames/*.npz")):
                time.sleep(0.05)
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        summary = run(replace(request, out=tmp_path / "out"), Lines(), scheduler=client)
        killer.join()
    assert killed
    assert summary.complete
    assert summary.found == alone.found
    assert files(tmp_path / "out") == files(tmp_path / "alone")
