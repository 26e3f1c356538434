"""A job in a process of its own, to be killed: ``python -m contract_server.runner URL TOKEN DATASET MODE``."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import Any

from contract_server.bench import QUICK, bright

from bright import BrightSegmenter
from sam2_fewshot.nimbus.job import Means, compute

RAW = {
    "tags": ["found"],
    "channel": 0,
    "connectTo": {"tags": ["cell"], "channel": None},
    "workerInterface": {"Training Tag": ["cell"], "Batch XY": "all"},
}


def dawdle(number: int) -> None:
    """Take for ever from the second frame on: asleep, or without ever looking for a signal."""
    if number > 1 and MODE == "asleep":
        time.sleep(60)
    if number > 1 and MODE == "deaf":
        # One long step of foreign code, as a layer of a network is on a CPU.
        hashlib.pbkdf2_hmac("sha256", b"deaf", b"", 10**9)


def work(url: str, token: str, dataset: str, raw: dict[str, Any], pause: float, log: str) -> None:
    """Run a job whose searches take some seconds more, and write its lines into a file; for multiprocessing."""
    with Path(log).open("w", encoding="utf-8") as stream:
        means = Means(
            make=lambda model, device, settings, progress: BrightSegmenter(settings, progress, bright(pause=pause)),
            checkpoints=lambda: ["bright.pt"],
            stream=stream,
            patience=QUICK,
            gpu_expected=lambda: False,
        )
        sys.exit(compute(url, token, raw, dataset, means))


if __name__ == "__main__":
    URL, TOKEN, DATASET, MODE = sys.argv[1:]
    means = Means(
        make=lambda model, device, settings, progress: BrightSegmenter(settings, progress, bright(on_find=dawdle)),
        checkpoints=lambda: ["bright.pt"],
        patience=QUICK,
        gpu_expected=lambda: False,
    )
    sys.exit(compute(URL, TOKEN, RAW, DATASET, means))
