"""A job in a process of its own, to be killed: ``python -m contract_server.runner URL TOKEN DATASET MODE``."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import TYPE_CHECKING

from contract_server.bench import QUICK, Bright

from sam2_fewshot.nimbus.job import Means, compute

if TYPE_CHECKING:
    from sam2_fewshot.records import Detection, FrameReader

RAW = {
    "tags": ["found"],
    "channel": 0,
    "connectTo": {"tags": ["cell"], "channel": None},
    "workerInterface": {"Training Tag": ["cell"], "Batch XY": "all"},
}


class Dawdling(Bright):
    """Takes for ever from the second frame on: asleep, or without ever looking for a signal."""

    def segment(self, image: FrameReader) -> list[Detection]:
        if image.location.xy >= 1 and MODE == "asleep":
            time.sleep(60)
        if image.location.xy >= 1 and MODE == "deaf":
            # One long step of foreign code, as a layer of a network is on a CPU.
            hashlib.pbkdf2_hmac("sha256", b"deaf", b"", 10**9)
        return super().segment(image)


URL, TOKEN, DATASET, MODE = sys.argv[1:]

if __name__ == "__main__":
    means = Means(
        make_engine=lambda request, progress: Dawdling(progress), checkpoints=lambda: ["bright.pt"], patience=QUICK
    )
    sys.exit(compute(URL, TOKEN, RAW, DATASET, means))
