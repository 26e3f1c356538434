"""Frames and blocks through Dask, in this process but for one test; the results are those of one process."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import distributed
import numpy as np
import pytest
from PIL import Image
from scale_job import Lines
from scale_scenes import BrightSegmenter, as_set, memory_for, scene

from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import run
from sam2_fewshot.runner import worker as worker_module
from sam2_fewshot.runner.cluster import _local, _words, connected
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sam2_fewshot.backbones.sam2.network import Sam2Model

pytestmark = pytest.mark.filterwarnings("default")  # of Dask and its event loop, which are not ours to mend
THRESHOLD = 0.61
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
        Image.fromarray(scene(300 if number == 3 else 90, 12, seed=number)).save(paths[-1])
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
def segmenters(micro: Sam2Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the workers search with the method for tests; gives the numbers of segmenters they made."""
    made: list[int] = []

    def make(recipe: Any) -> tuple[BrightSegmenter, Any]:
        if recipe.key not in worker_module._HELD:
            said = worker_module._Heard()
            segmenter = BrightSegmenter(micro, 1, said)
            segmenter.settings = recipe.settings
            made.append(1)
            worker_module._HELD[recipe.key] = segmenter.adopt(recipe.objects), said
        return worker_module._HELD[recipe.key]

    monkeypatch.setattr(worker_module, "_segmenter", make)
    return made


@pytest.fixture
def work(micro: Sam2Model, images: list[Path], examples: Path, tmp_path: Path) -> Any:
    def work(name: str, scheduler: Any = None, **more: Any) -> tuple[Any, list[str]]:
        settings = SMALL.changed({"max_memory": memory_for(150**2), "cache_size": 0})
        request = Request(images=more.pop("images", images), examples=examples, out=tmp_path / name, settings=settings)

        def make(request: Request, progress: Any) -> BrightSegmenter:
            segmenter = BrightSegmenter(micro, 1, progress)
            segmenter.settings = request.settings
            return segmenter

        display = Lines()
        return run(request, display, make, scheduler), display.lines

    return work


def files(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "inputs.json", "report.html") and path.suffix != ".npz"
    }


def test_the_results_are_the_same_to_the_last_vertex(
    client: Any, work: Any, segmenters: list[int], tmp_path: Path
) -> None:
    alone, _ = work("alone")
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
    assert len(segmenters) == 1
    assert set(together.seconds) >= {"outline", "load model", "learn examples"}
    assert not [line for line in lines if "ailed" in line]


def test_a_second_run_hands_nothing_out(client: Any, work: Any, segmenters: list[int]) -> None:
    work("out", client)
    summary, _ = work("out", client)
    assert summary.resumed == 4
    assert len(segmenters) == 1


def test_a_frame_that_always_fails_is_told_and_the_others_are_done(
    client: Any, work: Any, segmenters: list[int], images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = BrightSegmenter.segment

    def segment(self: BrightSegmenter, image: Any) -> Any:
        if image.name == "im1.png":
            raise ZeroDivisionError("oops")
        if image.name == "im2.png":
            raise InputError("it is damaged.")
        return plain(self, image)

    monkeypatch.setattr(BrightSegmenter, "segment", segment)
    summary, _ = work("out", client)
    assert summary.done == 2
    assert {failure.what: failure.sentence for failure in summary.failures} == {
        "im1.png": "this is a defect in sam2-fewshot, please report it: ZeroDivisionError: oops",
        "im2.png": "it is damaged.",
    }


def test_a_large_frame_of_which_a_block_fails_is_told_once(
    client: Any, work: Any, segmenters: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def search(self: BrightSegmenter, frame: Any, plan: Any, block: Any) -> Any:
        calls.append(block)
        raise InputError("a part of it is missing.")

    monkeypatch.setattr(BrightSegmenter, "search", search)
    summary, _ = work("out", client)
    assert [(failure.what, failure.sentence) for failure in summary.failures] == [
        ("im3.png", "a part of it is missing.")
    ]
    assert summary.done == 3


def test_a_large_frame_that_cannot_be_joined_is_told(
    client: Any, work: Any, segmenters: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def join(self: BrightSegmenter, frame: Any, plan: Any, finds: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(BrightSegmenter, "join", join)
    summary, _ = work("out", client)
    assert ["not enough memory" in failure.sentence for failure in summary.failures] == [True]


def test_what_workers_warn_of_is_told(client: Any, work: Any, segmenters: list[int], images: list[Path]) -> None:
    Image.fromarray(np.zeros((90, 90), np.uint8)).save(images[1])
    _, lines = work("out", client)
    assert "im1.png is the same everywhere, so nothing can be found in it." in lines


def test_ctrl_c_stops_and_keeps_what_is_done(
    client: Any, work: Any, segmenters: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def frame_ends(self: Lines, *_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lines, "frame_ends", frame_ends)
    summary, _ = work("out", client)
    assert summary.interrupted
    assert summary.done == 1


def test_tasks_ask_for_a_gpu_where_workers_offer_one(work: Any, segmenters: list[int]) -> None:
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            dashboard_address="127.0.0.1:0",
            protocol="inproc://",
            resources={"GPU": 1},
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        asked: list[Any] = []
        plain = client.submit

        def submit(*arguments: Any, **options: Any) -> Any:
            asked.append(options.get("resources"))
            return plain(*arguments, **options)

        client.submit = submit
        summary, _ = work("out", client)
    assert summary.complete
    assert asked[0] is None
    assert asked[1:] == [{"GPU": 1}] * (len(asked) - 1)


def test_the_real_worker_loads_a_model_once_and_checks_its_weights(
    micro: Sam2Model, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam2_fewshot import Exemplar, FewShotSegmenter, Location

    picture = scene(64, 3)
    settings = SMALL.changed({"min_mask_area": 10**6})  # nothing is looked at closely, which takes its time
    segmenter = FewShotSegmenter(micro, settings=settings)
    segmenter.fit([Exemplar(image=picture, mask=picture[..., 0] > 100)])
    worker_module._OPENED.clear()
    recipe = worker_module.Recipe(
        "k1", "sam2.1_hiera_micro.pt", micro.sha256, "cpu", settings, None, segmenter.object_model
    )
    address = worker_module.Address(str(images[1]), Location(7, 0, 0))
    reply = worker_module.search_frame(worker_module.same(recipe), address, "im1.png", ())
    assert reply.trouble == ""
    assert all(item.location.xy == 7 for item in reply.detections)
    assert reply.overlay[:4] == b"\x89PNG"
    held = worker_module._HELD["k1"][0]
    assert worker_module.search_frame(recipe, address, "im1.png", ()).trouble == ""
    assert worker_module._HELD["k1"][0] is held
    gone = worker_module.Address("/nowhere/a.png", Location())
    assert "There is no file /nowhere/a.png" in worker_module.search_frame(recipe, gone, "a.png", ()).trouble
    from dataclasses import replace

    # A worker knows the last few images, but only one of them keeps its pixels.
    for number in (0, 2):
        place = worker_module.Address(str(images[number]), Location())
        assert worker_module.search_frame(recipe, place, f"im{number}.png", ()).trouble == ""
    kept = [each[0]._cache._pixels is not None for each in worker_module._OPENED.values()]
    assert kept == [False, False, True]
    other = replace(recipe, key="k2", sha256="0" * 64)
    assert "A worker has other weights" in worker_module.search_frame(other, address, "im1.png", ()).trouble
    worker_module._HELD.clear()
    worker_module._OPENED.clear()


def test_each_worker_takes_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from sam2_fewshot.backbones.sam2 import device

    monkeypatch.setattr(device, "present_devices", lambda: ["cuda:0", "cuda:1", "cpu"])

    class Named:
        name: object = 3

    monkeypatch.setattr(distributed, "get_worker", Named)
    assert worker_module._own_device("auto") == "cuda:1"
    assert worker_module._own_device("cuda:0") == "cuda:0"
    Named.name = "SLURMCluster-4"
    assert worker_module._own_device("cuda") == "cuda:0"
    Named.name = "tcp://host:1"
    monkeypatch.setattr(Named, "name", "left")
    assert worker_module._own_device("auto") == "auto"
    monkeypatch.setattr(device, "present_devices", lambda: ["cpu"])
    assert worker_module._own_device("auto") == "auto"


def test_where_it_runs_is_checked() -> None:
    with pytest.raises(SettingsError, match=r"The scheduler is 'many'.*tcp://host:8786, local, or a number"):
        connected("many", Settings()).__enter__()
    with pytest.raises(SettingsError):
        _local("0", Settings())
    assert _local("3", Settings(max_memory=8)) == (3, Settings(max_memory=2))  # and this program has a share
    count, share = _local("local", Settings(max_memory=6), "micro")
    assert 1 <= count <= 2
    assert share.max_memory == 6 / (count + 1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the number of cores cannot be given")
def test_a_larger_model_has_fewer_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    large = tmp_path / "sam2.1_hiera_large.pt"
    with large.open("wb") as file:
        file.truncate(900_000_000)  # takes no room
    assert _local("local", Settings(max_memory=18), "micro")[0] == 8
    assert _local("local", Settings(max_memory=18), large)[0] == 2
    assert _local("local", Settings(max_memory=1), large)[0] == 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"sam2-fewshot\[dask\]"):
        connected("local", Settings()).__enter__()


def test_what_dask_says_becomes_a_sentence() -> None:
    from distributed.scheduler import KilledWorker

    assert "the worker processes that tried it died" in _words(KilledWorker("task", None, 3))
    assert "install the same version" in _words(ModuleNotFoundError("No module named 'x'"))
    assert _words(OSError("gone")) == "gone"


def test_an_address_that_nobody_answers_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = distributed.Client

    class Impatient(plain):  # type: ignore[misc,valid-type]
        def __init__(self, address: str, timeout: float, **options: Any) -> None:
            super().__init__(address, timeout=0.3, **options)

    monkeypatch.setattr(distributed, "Client", Impatient)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=r"No Dask scheduler answers at tcp://127.0.0.1:1"):
            connected("tcp://127.0.0.1:1", Settings()).__enter__()


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
        from dataclasses import replace

        summary = run(replace(request, out=tmp_path / "out"), Lines(), scheduler=client)
        killer.join()
    assert killed
    assert summary.complete
    assert summary.found == alone.found
    assert files(tmp_path / "out") == files(tmp_path / "alone")
