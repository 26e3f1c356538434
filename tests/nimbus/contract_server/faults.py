"""Faults of a server and of jobs, each on a small dataset of its own: nothing may be lost, and nothing left double.

``python -m benchmarks.faults`` runs them all and prints a table; the tests run the same with shorter times.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract_server import runner
from contract_server.bench import DISCS, Bench, bright, discs, ring, white_layer
from contract_server.store import Image
from contract_server.web import ContractServer, Fault, InStep

from sam2_fewshot.nimbus.marks import content_of
from sam2_fewshot.nimbus.server import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from contract_server.bench import Outcome

FRAMES = 3
OBJECTS = FRAMES * len(DISCS)
SAVING = {
    "objects": "upenn_annotation/multiple",
    "links": "annotation_connection/connectTo",
    "figures": "annotation_property_values/multiple",
}
ALL = "|".join(SAVING.values())
FOR_EVER = 10**6


def patience(scale: float) -> Patience:
    """What a job waits for a server, shorter by a factor."""
    usual = Patience()
    return Patience(
        first=usual.first * scale,
        longest=usual.longest * scale,
        total=60 * scale,
        connect=5.0,
        read=max(1.0, 20 * scale),
        gateway=usual.gateway * scale,
    )


def prepared(server: ContractServer, scale: float) -> Bench:
    """Three frames with four objects and a well each; two of the objects are examples, and all are to be linked."""
    store = server.store
    dataset = store.add_dataset(Image({(xy, 0, 0, 0): discs(xy) for xy in range(FRAMES)}), [white_layer()])
    for row, column in DISCS[:2]:
        store.add_annotation(dataset, tags=["cell"], coordinates=ring(row, column))
    for xy in range(FRAMES):
        place = {"XY": xy, "Z": 0, "Time": 0}
        store.add_annotation(dataset, tags=["well"], coordinates=ring(30, 30, 3), location=place)
    bench = Bench(server, dataset)
    bench.job["connectTo"] = {"tags": ["well"], "channel": None}
    bench.means = replace(bench.means, patience=patience(scale))
    return bench


@dataclass(frozen=True)
class Tally:
    """What is in the dataset.

    Parameters
    ----------
    objects
        Number of different ones.
    lost
        Of the objects that there are, those that are missing, have no link, or have no figures.
    doubled
        Objects, links and documents of figures that are there once more, or belong to nothing.
    """

    objects: int
    lost: tuple[int, int, int]
    doubled: tuple[int, int, int]

    @classmethod
    def of(cls, bench: Bench) -> Tally:
        store = bench.server.store
        found = {each["_id"]: each for each in bench.found()}
        contents = Counter(content_of(each) for each in found.values())
        links = [each["childId"] for each in store.connections.values()]
        documents = [each["annotationId"] for each in store.values]
        # With doubles about, one of them with a link is as good as all.
        having = [{content_of(found[key]) for key in ids if key in found} for ids in (links, documents)]
        lost = [len(set(contents) - each) for each in having]
        doubled = [len(ids) - len(set(ids) & set(found)) for ids in (links, documents)]
        return cls(len(contents), (OBJECTS - len(contents), lost[0], lost[1]), (len(found) - len(contents), *doubled))


@dataclass(frozen=True)
class Scenario:
    """A fault.

    Parameters
    ----------
    name
        What goes wrong.
    run
        Runs what it befalls, at a scale of all times, and returns the exit codes.
    is_long
        Whether it takes seconds at any scale, since it needs processes of its own.
    is_single
        Whether one job meets with one quick fault, as in the tests of each of these.
    """

    name: str
    run: Callable[[Bench, float], list[int | None]]
    is_long: bool = False
    is_single: bool = False


@dataclass(frozen=True)
class Result:
    """What became of it: exit codes of the jobs, seconds, and the dataset before and after a further run."""

    codes: list[int | None]
    again: Outcome
    seconds: float
    before: Tally
    after: Tally

    @property
    def is_clean(self) -> bool:
        """Whether after the further run nothing is lost and nothing double."""
        return self.again.code == 0 and not any((*self.after.lost, *self.after.doubled))


def carry_out(scenario: Scenario, scale: float) -> Result:
    """Run a scenario on a server of its own, and the job once more when all is done."""
    with ContractServer() as server:
        bench = prepared(server, scale)
        began = time.perf_counter()
        codes = scenario.run(bench, scale)
        seconds = time.perf_counter() - began
        server.wait()
        before = Tally.of(bench)
        server.faults, server.store.between = [], lambda: None
        again = bench.run()
        return Result(codes, again, seconds, before, Tally.of(bench))


def one(bench: Bench, scale: float, *faults: Fault) -> list[int | None]:
    """Run one job."""
    bench.server.faults = list(faults)
    return [bench.run().code]


def late(bench: Bench, scale: float, path: str, seconds: float, times: int, how: str = "") -> list[int | None]:
    """Run one job, some of whose requests are answered by a gateway, and done later."""
    return one(bench, scale, Fault("POST", path, f"later {seconds * scale:.4f} {how}", times=times))


def several(bench: Bench, scale: float, jobs: int, *faults: Fault, apart: float = 0.0) -> list[int | None]:
    """Run jobs at once, which begin some seconds apart."""
    codes: list[int | None] = []
    bench.server.faults = list(faults)
    threads = [threading.Thread(target=lambda: codes.append(bench.run().code)) for _ in range(jobs)]
    for number, thread in enumerate(threads):
        time.sleep(apart if number else 0.0)
        thread.start()
    for thread in threads:
        thread.join()
    return codes


def in_step(bench: Bench, scale: float, jobs: int, path: str, method: str = "POST") -> list[int | None]:
    """Run jobs at once; those of their requests that match go on together."""
    return several(bench, scale, jobs, Fault(method, path, InStep(jobs), times=FOR_EVER))


def figures_in_step(bench: Bench, scale: float, jobs: int) -> list[int | None]:
    """Run jobs at once on objects that have no figures yet, so that all send them in the same moment."""
    bench.server.faults = [Fault("POST", SAVING["figures"], 500)]
    bench.run()
    bench.server.faults = []
    bench.run()
    bench.server.store.values.clear()
    bench.server.store.between = InStep(jobs, rounds=FRAMES)
    return several(bench, scale, jobs)


def crossed(bench: Bench, scale: float) -> list[int | None]:
    """Run a job that begins, and cleans, while another one is between saving an object and its figures and links."""
    server, codes = bench.server, []

    def other() -> None:
        # The same objects once more, from a job that was killed; the job that begins now finds them there twice.
        store = server.store
        store.create_annotations([{k: v for k, v in each.items() if k != "_id"} for each in bench.found()])
        codes.append(bench.run().code)

    server.faults = [Fault("POST", SAVING["figures"], other)]
    codes.append(bench.run().code)
    return [*codes]


def clean_in_step(bench: Bench, scale: float, jobs: int) -> list[int | None]:
    """Run jobs at once on a dataset in which everything is there twice."""
    bench.run()
    store = bench.server.store
    store.create_annotations([{k: v for k, v in each.items() if k != "_id"} for each in bench.found()])
    store.connections.update({(key := store.new_id()): {**each, "_id": key} for each in [*store.connections.values()]})
    store.values += [{**each, "values": dict(each["values"]), "_id": store.new_id()} for each in store.values]
    return in_step(bench, scale, jobs, "multiple|property_values", "DELETE")


def killed(bench: Bench, scale: float, jobs: int, path: str, seconds: float, at_once: bool = False) -> list[int | None]:
    """Kill jobs when all of them have a request under way, which is done some seconds later.

    The next job may begin `at_once`, and is at work when it is done.
    """
    server, step = bench.server, InStep(jobs, longest=20.0)
    context = multiprocessing.get_context("spawn")
    processes: list[Any] = []

    def kill() -> None:
        step()
        for process in processes:
            process.kill()
        time.sleep(seconds * scale)

    server.faults = [Fault("POST", path, kill, times=jobs)]
    with tempfile.TemporaryDirectory() as folder:
        raw = {**bench.job, "workerInterface": bench.form}
        for number in range(jobs):
            given = server.url, server.token, bench.dataset, raw, 0.0, str(Path(folder, f"{number}.log"))
            processes.append(context.Process(target=runner.work, args=given))
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    codes = [process.exitcode for process in processes]
    if at_once:
        bench.method, usual = partial(bright, pause=seconds * scale / 2), bench.method
        codes.append(bench.run().code)
        bench.method = usual
    return codes


def ended(bench: Bench, scale: float) -> list[int | None]:
    """Let the user's session end."""
    store = bench.server.store
    tokens = dict(store.tokens)
    codes = one(bench, scale, Fault("POST", SAVING["objects"], store.tokens.clear, skip=1))
    store.tokens.update(tokens)
    return codes


def scenarios() -> Iterator[Scenario]:
    """Yield everything that may go wrong, the longest last."""
    yield Scenario("nothing", one)
    for path in ("folder/", "tiles/region", "upenn_annotation$", "upenn_annotation/count", "annotation_connection"):
        for what in (503, "drop"):
            yield Scenario(
                f"GET {path.strip('$/')}: {what}, twice", partial(_one, "GET", path, what, 2), is_single=True
            )
    for name, path in SAVING.items():
        for what, said in ((429, "429"), (503, "503, not done"), ("drop", "connection broken, not done")):
            yield Scenario(f"{name}: {said}, twice", partial(_one, "POST", path, what, 2), is_single=True)
        for what, said in (("late 503", "503, done"), ("lost", "connection broken, done")):
            yield Scenario(f"{name}: {said}, each time", partial(_one, "POST", path, what, FOR_EVER), is_single=True)
        yield Scenario(f"{name}: 500, once", partial(_one, "POST", path, 500, 1), is_single=True)
    yield Scenario("the session ends", ended)
    for jobs in (2, 3):
        yield Scenario(f"{jobs} jobs at once, one after another", partial(several, jobs=jobs, apart=0.03))
        for name, path in (*SAVING.items(), ("everything", ALL)):
            yield Scenario(f"{jobs} jobs at once, {name} in step", partial(in_step, jobs=jobs, path=path))
        yield Scenario(f"{jobs} jobs at once, the same figures in one moment", partial(figures_in_step, jobs=jobs))
        yield Scenario(f"{jobs} jobs clean the same doubles in step", partial(clean_in_step, jobs=jobs))
    yield Scenario("a job cleans what another one is saving", crossed)
    for seconds in (0.7, 3, 8):
        for name, path in SAVING.items():
            for times, said in ((1, "once"), (FOR_EVER, "each time")):
                if times == 1 or seconds == 3:
                    run = partial(late, path=path, seconds=seconds, times=times)
                    yield Scenario(f"{name}: 504, done {seconds} s later, {said}", run)
        run = partial(late, path=ALL, seconds=seconds, times=3)
        yield Scenario(f"everything: 504, done {seconds} s later, 3 times", run)
    run = partial(late, path=ALL, seconds=3, times=3, how="drop")
    yield Scenario("everything: connection broken, done 3 s later, 3 times", run)
    for jobs in (2, 3):
        yield Scenario(f"{jobs} jobs at once, 504 and done 3 s later, 4 times", partial(_late_several, jobs=jobs))
    for jobs in (1, 2, 3):
        for name, path in SAVING.items():
            run = partial(killed, jobs=jobs, path=path, seconds=3)
            yield Scenario(f"{jobs} killed, {name} under way for 3 s", run, is_long=True)
    for name, path in SAVING.items():
        run = partial(killed, jobs=2, path=path, seconds=3, at_once=True)
        yield Scenario(f"2 killed, {name} under way for 3 s, and run again at once", run, is_long=True)


def _one(method: str, path: str, what: str | int, times: int, bench: Bench, scale: float) -> list[int | None]:
    return one(bench, scale, Fault(method, path, what, times=times))


def _late_several(bench: Bench, scale: float, jobs: int) -> list[int | None]:
    held = Fault("POST", ALL, InStep(jobs), times=FOR_EVER)
    return several(bench, scale, jobs, Fault("POST", ALL, f"later {3 * scale:.4f}", times=4), held)


def head() -> str:
    """Return the head of a table of results."""
    return (
        "| fault | exit codes | s | objects | doubled | after a rerun: objects | lost | doubled |\n"
        "|---|---|---|---|---|---|---|---|"
    )


def row(scenario: Scenario, result: Result) -> str:
    """Return a line of it."""
    codes = ", ".join("killed" if code not in (0, 1, 2) else str(code) for code in sorted(result.codes, key=str))
    before, after = result.before, result.after
    return (
        f"| {scenario.name} | {codes} | {result.seconds:.1f} | {before.objects} | {_three(before.doubled)} | "
        f"{after.objects} | {_three(after.lost)} | {_three(after.doubled)} |"
    )


def _three(numbers: tuple[int, int, int]) -> str:
    return " + ".join(map(str, numbers))
