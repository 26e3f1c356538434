"""Pieces of work side by side."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from sam2_fewshot.resources import cores, mapped, share_cores, threads, threads_each

COUNTS = pytest.mark.parametrize("count", [1, 3])


@COUNTS
def test_results_come_in_order_whichever_is_done_first(count: int) -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number % 5 == 0 else 0)
        return number**2

    assert list(mapped(slow_at_first, range(40), count)) == [number**2 for number in range(40)]
    assert list(mapped(slow_at_first, [], count)) == []


@COUNTS
def test_few_results_are_held_at_a_time(count: int) -> None:
    left = iter(range(1000))
    assert next(mapped(lambda number: number, left, count)) == 0
    assert next(left) <= 4 * count


@COUNTS
def test_a_mistake_in_a_piece_of_work_is_raised_and_no_more_is_begun(count: int) -> None:
    begun = []

    def fails(number: int) -> int:
        begun.append(number)
        raise ValueError(f"piece {number}")

    with pytest.raises(ValueError, match="piece 0"):
        list(mapped(fails, range(1000), count))
    assert len(begun) < 100


def test_several_threads_work_at_a_time() -> None:
    both = threading.Barrier(2)
    # Alone, the first would wait for the second in vain.
    assert list(mapped(lambda _: both.wait(timeout=30) >= 0, range(2), 2)) == [True, True]


def test_the_limit_that_torch_follows_holds_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads() == 1
    for unlimited in ("", "64", "4,2"):
        monkeypatch.setenv("OMP_NUM_THREADS", unlimited)
        assert 1 <= threads() <= 4


def test_processes_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    if cores() == 16:  # unless the tests themselves run in a container with less time
        assert [threads_each(count) for count in (1, 3, 16, 40)] == [16, 5, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_each(1) == 1


def test_threads_that_wait_for_one_another_do_not_keep_cores_from_other_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "7"  # what the user has set
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("door", ["sam2_fewshot.cli", "sam2_fewshot.nimbus.entry"])
def test_it_is_told_before_pytorch_is_there(door: str) -> None:
    """OpenMP reads it when PyTorch is loaded."""
    code = (
        f"import os, sys\nfrom {door} import main\nsys.argv = ['x', '--help']\nbefore = 'torch' in sys.modules\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint(before, os.environ['GOMP_SPINCOUNT'])"
    )
    hidden = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.splitlines()[-1] == "False 10000"
