"""What an embedding of a tile costs to make, to keep and to read again.

    python benchmarks/tile_cache.py [--model tiny] [--tiles 3]

The weights are random, which changes neither time nor size. Reading is from the system's file cache, as it is in a run
that comes back to its tiles; from a disk it takes as long as so many bytes do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from sam2_fewshot.backbones.sam2.loading import random_network
from sam2_fewshot.backbones.sam2.network import Sam2Model
from sam2_fewshot.protocols import Gates
from sam2_fewshot.storage.tile_cache import TileCache


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--tiles", type=int, default=3)
    arguments = parser.parse_args()
    network = random_network(arguments.model)
    model = Sam2Model(network, name="random", sha256="0" * 64, gates=Gates(0.0, 0.0), device=torch.device("cpu"))
    picture = np.random.default_rng(0).integers(0, 255, (400, 400 * arguments.tiles, 3), np.uint8)
    windows = [(x, 0, x + 400, 400) for x in range(0, picture.shape[1], 400)]

    def seconds() -> float:
        began = time.perf_counter()
        for _ in model.tiles(picture, windows):
            pass
        return (time.perf_counter() - began) / len(windows)

    seconds()
    told: dict[str, object] = {"model": arguments.model, "threads": torch.get_num_threads(), "made": seconds()}
    with tempfile.TemporaryDirectory() as folder:
        model.store = TileCache(Path(folder), 10**12)
        told["made and kept"] = seconds()
        told["read"] = seconds()
        told["MB"] = sum(path.stat().st_size for path in Path(folder).rglob("*.npz")) / len(windows) / 1e6
    print({name: round(value, 2) if isinstance(value, float) else value for name, value in told.items()})


if __name__ == "__main__":
    main()
