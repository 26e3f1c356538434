"""Jobs that are cancelled, and jobs that are killed, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from contract_server.bench import until
from contract_server.web import Fault

if TYPE_CHECKING:
    from contract_server.bench import Bench


def start(bench: Bench, mode: str) -> subprocess.Popen[str]:
    job = ["contract_server.runner", bench.server.url, bench.server.token, bench.dataset, mode]
    return subprocess.Popen(
        [sys.executable, "-m", *job],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the folder of these tests is on it
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def complete(bench: Bench) -> None:
    outcome = bench.run()
    assert outcome.code == 0
    assert len(bench.found()) == 12
    assert set(bench.values()) == {each["_id"] for each in bench.found()}


@pytest.mark.parametrize("mode", ["asleep", "deaf"])
def test_a_cancelled_job_ends_within_seconds_and_keeps_finished_frames(bench: Bench, mode: str) -> None:
    process = start(bench, mode)
    until(lambda: len(bench.server.store.values) == 4)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    written, _ = process.communicate(timeout=10)  # then NimbusImage kills it
    assert process.returncode == 1
    last = json.loads(written.splitlines()[-1])
    assert last["error"].startswith("The job was stopped. Finished frames are kept")
    assert "Traceback" not in written
    assert bench.server.token not in written
    complete(bench)


@pytest.mark.parametrize("path", ["upenn_annotation/multiple", "annotation_property_values/multiple", "connectTo"])
def test_a_job_killed_at_any_step_of_saving_is_completed_by_the_next(bench: Bench, path: str) -> None:
    bench.job["connectTo"] = {"tags": ["cell"], "channel": None}
    process: list[subprocess.Popen[str]] = []
    bench.server.faults = [Fault("POST", path, lambda: process[0].kill())]
    process.append(start(bench, "quick"))
    process[0].communicate(timeout=60)
    assert process[0].returncode == -signal.SIGKILL
    bench.server.wait()  # what was asked for is done all the same
    complete(bench)
    children = [connection["childId"] for connection in bench.server.store.connections.values()]
    assert sorted(children) == sorted(each["_id"] for each in bench.found() if each["location"]["XY"] == 0)
