"""A frame that is searched in blocks: a job that dies within it is continued by the next."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contract_server.bench import Bench, bright, ring, white_layer
from contract_server.runner import work
from contract_server.store import Image
from contract_server.web import ContractServer, Fault

import sam2_fewshot
from sam2_fewshot.nimbus.messages import Stopped
from sam2_fewshot.nimbus.shelf import BLOCKS_ITEM
from sam2_fewshot.resources import BYTES_PER_PIXEL, reserve
from sam2_fewshot.storage.digests import code_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from contract_server.bench import Outcome
    from contract_server.store import Store

SIDE, STEP = 2400, 240
BLOCK = 500
"""Learning alone needs about so much memory."""
KEPT = re.compile(r"^the image: (\d+) of (\d+) blocks are finished already and kept\.$", re.MULTILINE)


def memory_for(pixels: int) -> float:
    """Max Memory in GB with which blocks of so many pixels are searched; an eighth goes to the pixels fetched last."""
    return (reserve() + (pixels + 0.5) * BYTES_PER_PIXEL) / 1e9 * 8 / 7


def large_frame() -> tuple[np.ndarray, list[tuple[int, int]]]:
    """A plane of bright discs that do not touch, many of them on the borders of blocks, and their centres."""
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[-6:7, -6:7]
    plane = np.full((SIDE, SIDE), 100, "uint16")
    centres = [
        (row + int(rng.integers(-6, 7)), column + int(rng.integers(-6, 7)))
        for row in range(STEP // 2, SIDE, STEP)
        for column in range(STEP // 2, SIDE, STEP)
    ]
    for row, column in centres:
        plane[row - 6 : row + 7, column - 6 : column + 7][rows**2 + columns**2 <= 36] = 200
    return plane, centres


PLANE, CENTRES = large_frame()


@pytest.fixture
def large(server: ContractServer) -> Bench:
    """One frame of 36 blocks; two of its discs are examples."""
    dataset = server.store.add_dataset(Image({(0, 0, 0, 0): PLANE}), [white_layer()])
    for row, column in CENTRES[:2]:
        server.store.add_annotation(dataset, tags=["cell"], coordinates=ring(row, column, 6))
    return Bench(server, dataset, form={"Training Tag": ["cell"], "Max Memory": memory_for(BLOCK**2)})


@pytest.fixture(scope="module")
def clean() -> Iterator[tuple[list[Any], int]]:
    """What a job that nothing disturbs finds, and how many searches that takes."""
    with ContractServer() as server:
        bench = large.__wrapped__(server)  # type: ignore[attr-defined]
        outcome = bench.run()
        assert outcome.code == 0
        assert not bench.server.count("GET", "download")
        assert not kept(server.store)
        yield content(bench), searched(outcome)


def kept(store: Store) -> set[str]:
    return {file["name"] for file in list(store.files.values()) if file["name"].endswith(".block")}


def content(bench: Bench) -> list[Any]:
    """All objects with their figures, without what differs between two jobs."""
    values = bench.values()
    assert set(values) == {each["_id"] for each in bench.found()}
    return sorted((str(each["coordinates"]), sorted(values[each["_id"]].items())) for each in bench.found())


def searched(outcome: Outcome) -> int:
    assert outcome.segmenter is not None
    return outcome.segmenter.bright.searched


def complete(bench: Bench, clean: tuple[list[Any], int]) -> None:
    """Every object is there once with its figures, and nothing of the blocks is left."""
    assert len(clean[0]) == len(CENTRES)
    assert content(bench) == clean[0]
    assert not kept(bench.server.store)
    assert not [file for file in bench.server.store.files.values() if file["name"].endswith(".block")]


def stop_at(bench: Bench, number: int) -> Outcome:
    """Run a job that is cancelled before its search of this number, from 1."""

    def stop(now: int) -> None:
        if now == number:
            raise Stopped

    bench.method = lambda: bright(on_find=stop)
    outcome = bench.run()
    assert outcome.code == 1
    assert outcome.error.startswith("The job was stopped.")
    bench.method = bright
    return outcome


def test_a_cancelled_job_loses_only_the_block_at_work(large: Bench, clean: tuple[list[Any], int]) -> None:
    stop_at(large, 8)
    assert len(kept(large.server.store)) == 7
    outcome = large.run()
    assert outcome.code == 0
    assert "the image: 7 of 36 blocks are finished already and kept." in outcome.lines
    assert searched(outcome) == clean[1] - 7
    complete(large, clean)


@pytest.mark.parametrize(
    ("change", "form"),
    [
        ("settings", {"Smoothing": 2}),
        ("memory", {"Max Memory": memory_for(BLOCK**2 * 2)}),
        ("contrast", {}),
        ("code", {}),
    ],
)
def test_blocks_of_something_else_are_not_used(large: Bench, change: str, form: dict[str, Any]) -> None:
    stop_at(large, 8)
    if change == "contrast":
        next(iter(large.server.store.collections.values()))["meta"]["layers"][0]["contrast"]["whitePoint"] = 190
    if change == "code":
        large.means = replace(large.means, code="another")
    outcome = large.run(**form)
    assert outcome.code == 0
    assert not any(KEPT.match(line) for line in outcome.lines)
    assert len(large.found()) == len(CENTRES)


@pytest.mark.parametrize("changes", ["nimbus/planes.py", "output/journal.py", "segmenter.py"])
def test_blocks_and_what_is_learned_depend_on_all_code(changes: str, tmp_path: Path) -> None:
    root = tmp_path / "program"
    shutil.copytree(Path(sam2_fewshot.__file__).parent, root, ignore=shutil.ignore_patterns("*.pt"))
    assert code_digest(root) == code_digest()
    changed = tmp_path / "changed"
    shutil.copytree(root, changed)
    with (changed / changes).open("a") as file:
        file.write("# another program")
    assert code_digest(changed) != code_digest()


@pytest.fixture(scope="module")
def processes() -> Iterator[Any]:
    """Makes processes from one that has imported all they need, and has no threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["contract_server.runner"])
        yield context


def until(what: Callable[[], object], process: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_and_go_on(
    times: int, bench: Bench, clean: tuple[list[Any], int], processes: Any, log: Path, seed: int
) -> None:
    chance, pause = random.Random(seed), 0.05
    raw = {**bench.job, "workerInterface": bench.form}
    there: set[str] = set()
    for _ in range(times):
        log.write_text("")
        arguments = (bench.server.url, bench.server.token, bench.dataset, raw, pause, str(log))
        process = processes.Process(target=work, args=arguments)
        process.start()
        begun = "blocks are finished already" if there else '"title": "Looking for objects"'
        until(lambda begun=begun: begun in log.read_text(), process)  # type: ignore[misc]
        if there:
            (said,) = KEPT.findall(log.read_text())
            assert said == (str(len(there)), "36")
        more = len(there) + chance.randrange(3)
        until(lambda more=more: len(kept(bench.server.store)) >= more, process)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 1.5 * pause))
        process.kill()
        process.join()
        assert process.exitcode == -9
        bench.server.wait_for_the_killed()  # a request that was on its way may still be answered
        assert there <= kept(bench.server.store)
        there = kept(bench.server.store)
        assert not bench.found()
    outcome = bench.run()
    assert outcome.code == 0, outcome.lines
    assert f"the image: {len(there)} of 36 blocks are finished already and kept." in outcome.lines
    assert searched(outcome) == clean[1] - len(there)
    complete(bench, clean)


def test_a_job_killed_again_and_again_within_a_frame_is_completed_at_last(
    large: Bench, clean: tuple[list[Any], int], processes: Any, tmp_path: Path
) -> None:
    kill_and_go_on(3, large, clean, processes, tmp_path / "log", 11)


@pytest.mark.slow
def test_twenty_kills_within_a_frame_lose_and_double_nothing(
    large: Bench, clean: tuple[list[Any], int], processes: Any, tmp_path: Path
) -> None:
    kill_and_go_on(20, large, clean, processes, tmp_path / "log", 12)


@pytest.mark.parametrize(
    ("method", "path", "skip"),
    [
        ("POST", "^file$", 5),  # while a block is sent
        ("POST", "upenn_annotation/multiple", 0),  # all blocks are there, and nothing is saved
        ("POST", "annotation_property_values/multiple", 0),
        ("DELETE", "^file/", 4),  # all is saved, and some of the blocks are still there
    ],
)
def test_a_job_killed_where_a_frame_ends_is_completed_by_the_next(
    large: Bench, clean: tuple[list[Any], int], processes: Any, tmp_path: Path, method: str, path: str, skip: int
) -> None:
    raw = {**large.job, "workerInterface": large.form}
    log = tmp_path / "log"
    arguments = (large.server.url, large.server.token, large.dataset, raw, 0.0, str(log))
    process = processes.Process(target=work, args=arguments)
    large.server.faults = [Fault(method, path, lambda: process.kill(), skip=skip)]
    process.start()
    process.join(60)
    assert process.exitcode == -9, log.read_text()
    assert kept(large.server.store)
    assert large.run().code == 0
    complete(large, clean)


ALWAYS = 10**6


@pytest.mark.parametrize(
    ("fault", "stopped", "warned"),
    [
        (Fault("GET", "^item$", 500, times=ALWAYS, skip=1), False, 1),
        (Fault("GET", "item/.*/files", 500, times=ALWAYS), True, 1),
        (Fault("GET", "file/.*/download", 500, times=ALWAYS), True, 0),
        (Fault("GET", "file/.*/download", 403, times=2), True, 0),
        (Fault("POST", "^item$", 500, times=ALWAYS, skip=1), False, 1),
        (Fault("POST", "^file$", 500, times=ALWAYS), False, 1),
        (Fault("POST", "^file$", 413, times=3), False, 1),
        (Fault("POST", "^file$", 500, skip=9), False, 1),
        (Fault("POST", "^file$", "lost", times=2, skip=3), False, 0),
        (Fault("DELETE", "^file/", "lost", times=2, skip=3), False, 0),
        (Fault("DELETE", "^file/", "drop", times=2, skip=3), False, 0),
    ],
    ids=lambda value: f"{value.method} {value.path} {value.what}" if isinstance(value, Fault) else "",
)
def test_trouble_with_what_is_kept_costs_a_warning_at_most(
    large: Bench, clean: tuple[list[Any], int], fault: Fault, stopped: bool, warned: int
) -> None:
    if stopped:
        stop_at(large, 8)
    large.server.faults = [replace(fault)]
    outcome = large.run()
    assert outcome.code == 0, outcome.lines
    assert large.server.faults[0].times < fault.times
    warnings = outcome.texts("warning")
    assert len(warnings) == warned
    assert all(each.startswith("Finished blocks of the image cannot be kept, so a stop would") for each in warnings)
    large.server.faults = []
    if fault.path == "item/.*/files":  # what is there could not be looked up at all, so the next job takes it away
        assert len(kept(large.server.store)) == 7
        assert large.run().code == 0
    complete(large, clean)


@pytest.mark.parametrize(("method", "path"), [("POST", "^file$"), ("GET", "download")])
def test_an_unanswered_request_is_not_waited_for_at_each_block(
    large: Bench, clean: tuple[list[Any], int], method: str, path: str
) -> None:
    stop_at(large, 8)
    large.server.faults = [Fault(method, path, 504, times=ALWAYS)]
    large.server.seen.clear()
    outcome = large.run()
    assert outcome.code == 0
    assert len(outcome.texts("warning")) == (method == "POST")
    assert searched(outcome) == clean[1] - (7 if method == "POST" else 0)
    tries = 1 + len(list(large.means.patience.waits()))
    asked_for_what_was_learned = tries if method == "GET" else 0
    assert large.server.count(method, path) == tries + asked_for_what_was_learned
    large.server.faults = []
    complete(large, clean)


def test_blocks_that_cannot_be_deleted_are_by_the_next_job(large: Bench, clean: tuple[list[Any], int]) -> None:
    large.server.faults = [Fault("DELETE", "^file/", 500, times=ALWAYS)]
    outcome = large.run()
    assert outcome.code == 0
    assert not outcome.texts("warning")
    assert any(line.startswith("Blocks of a finished frame could not be deleted") for line in outcome.lines)
    assert len(kept(large.server.store)) == 36
    large.server.faults = []
    again = large.run()
    assert "the image: 36 of 36 blocks are finished already and kept." in again.lines
    assert again.messages[-1]["info"] == f"0 added, {len(CENTRES)} already there; 1 frame"
    complete(large, clean)


def test_the_item_may_be_deleted_meanwhile(large: Bench, clean: tuple[list[Any], int]) -> None:
    store = large.server.store

    def delete() -> None:
        (item,) = [key for key, each in store.items.items() if each["name"] == BLOCKS_ITEM]
        del store.items[item]
        for key in [key for key, file in store.files.items() if file["itemId"] == item]:
            del store.files[key]

    large.server.faults = [Fault("POST", "^file$", delete, skip=6)]
    outcome = large.run()
    assert outcome.code == 0, outcome.lines
    assert len(outcome.texts("warning")) <= 1
    complete(large, clean)


def test_a_block_that_is_damaged_is_searched_again(large: Bench, clean: tuple[list[Any], int]) -> None:
    stop_at(large, 8)
    store = large.server.store
    keys = [key for key, file in store.files.items() if file["name"].endswith(".block")]
    for key, damage in zip(keys, (b"x" * 100, store.contents[keys[1]][:-9], store.contents[keys[3]]), strict=False):
        store.contents[key] = damage
        store.files[key]["size"] = len(damage)
    outcome = large.run()
    assert outcome.code == 0
    assert "the image: 4 of 36 blocks are finished already and kept." in outcome.lines
    complete(large, clean)


def test_what_nobody_came_back_for_goes_after_a_month(large: Bench) -> None:
    stop_at(large, 8)
    store = large.server.store
    old = sorted(kept(store))
    for file in store.files.values():
        file["created"] = file["created"].replace("2026", "2020")
    assert large.run(**{"Smoothing": 2}).code == 0
    assert not kept(store).intersection(old)
    assert [file for file in store.files.values() if file["name"].endswith(".npz")]  # what was learned stays


def test_old_blocks_that_cannot_be_deleted_do_not_hide_the_others(large: Bench, clean: tuple[list[Any], int]) -> None:
    stop_at(large, 8)
    store = large.server.store
    (item,) = [key for key, each in store.items.items() if each["name"] == BLOCKS_ITEM]
    old = store.create_file({"parentId": item, "name": "0_0.block", "size": "1"}, b"x")
    old["created"] = "2020-01-01T00:00:00+00:00"
    large.server.faults = [Fault("DELETE", "^file/", 500)]
    outcome = large.run()
    assert "the image: 7 of 36 blocks are finished already and kept." in outcome.lines
    assert outcome.code == 0


def test_two_jobs_in_one_frame_at_once(large: Bench, clean: tuple[list[Any], int]) -> None:
    both = threading.Barrier(2)

    def meet(number: int) -> None:
        if number in (1, 20):
            both.wait(20)

    large.method = lambda: bright(on_find=meet)
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(large.run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.code for outcome in outcomes] == [0, 0], [outcome.lines for outcome in outcomes]
    complete(large, clean)
