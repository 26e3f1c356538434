"""Train the embedded checkpoint: ``python -m training.train --data DIR --out DIR --minutes N``.

One GPU is enough; without one, everything runs on the CPU, slowly. A run can be cut into several calls: give
``--until`` the share of the whole schedule that this call ends at, and ``--resume`` to go on.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path

# one thread for each worker: they share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from training.config import Config, read_config
from training.data import Loader
from training.export import write_weights
from training.pictures import load_pictures
from training.pool import ScenePool
from training.trainer import PARTS, Trainer


def run(options: argparse.Namespace, config: Config) -> Trainer:
    """Train for the given time or number of steps.

    Parameters
    ----------
    options
        The command line.
    config
        The settings.

    Returns
    -------
    Trainer
        The trained model.

    Raises
    ------
    RuntimeError
        If the loss is no longer a number.
    """
    began = time.monotonic()
    say = sys.stdout.write
    options.out.mkdir(parents=True, exist_ok=True)
    pool = ScenePool(config)  # before the GPU is touched: its workers are forks
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    trainer = Trainer(config, device, compiled=options.compile)
    if options.init:
        trainer.start_from(options.init)
    progress, made = 0.0, 0
    file = options.out / "state.pt"
    stored = torch.load(file, map_location=device, weights_only=True) if options.resume else None
    if stored:
        progress, made = float(stored["progress"]), int(stored["made"])
    loader = Loader(config, load_pictures(options.data, device), pool)
    pool.start(made, device)
    if stored:
        trainer.restore(stored)
    elif options.open_top_down:
        trainer.open_top_down(loader.next().images)

    def save() -> None:
        write_weights(trainer.averaged(), options.out / "weights.pt")
        part = file.with_suffix(".part")
        torch.save({**trainer.state(), "progress": progress, "made": pool.made}, part)
        part.rename(file)

    say(f"ready after {time.monotonic() - began:.1f} s, {len(loader.pictures.groups)} images, {len(pool)} scenes\n")
    first, shown, saved = 0.0, time.monotonic(), time.monotonic()
    at, waited, count = progress, 0.0, trainer.step
    total = torch.zeros(len(PARTS), device=device)
    while progress < options.until:
        parts = trainer.train_step(loader.next(), progress)
        total += parts
        waiting = time.monotonic()
        pool.add(config.scenes_per_step)
        now = time.monotonic()
        waited += now - waiting
        if not first:  # the first step compiles: the schedule starts after it
            first = now
            say(f"first step after {now - began:.1f} s\n")
        if options.steps:
            progress = trainer.step / options.steps
        else:
            end = began + 60 * options.minutes
            progress = at + (options.until - at) * min(1.0, (now - first) / max(1e-6, end - first))
        if trainer.step - count >= options.log_every or progress >= options.until:
            values = (total / (trainer.step - count)).tolist()
            speed = config.batch * (trainer.step - count) / (time.monotonic() - shown)
            text = " ".join(f"{name} {value:.3f}" for name, value in zip(PARTS, values, strict=True))
            say(f"step {trainer.step} {now - began:.0f} s done {progress:.3f} {text} {speed:.0f}/s wait {waited:.1f}\n")
            sys.stdout.flush()
            if not all(map(math.isfinite, values)):
                raise RuntimeError("The loss is no longer a number; the last saved state is still good.")
            total.zero_()
            shown, count, waited = time.monotonic(), trainer.step, 0.0
        if time.monotonic() - saved > 60 * options.save_minutes:
            save()
            saved = time.monotonic()
    save()
    pool.close()
    return trainer


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Parameters
    ----------
    arguments
        Command line; that of the process if left out.

    Returns
    -------
    Namespace
        The options.
    """
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder for each data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for state.pt and weights.pt")
    parser.add_argument("--minutes", type=float, default=30.0, help="time of this call, its start included")
    parser.add_argument("--until", type=float, default=1.0, help="share of the schedule that this call ends at")
    parser.add_argument("--steps", type=int, default=0, help="length of the schedule in steps instead of minutes")
    parser.add_argument("--init", type=Path, help="checkpoint to start from")
    parser.add_argument(
        "--open-top-down", action="store_true", help="the checkpoint was trained with fpn_top_down_levels [2, 3]"
    )
    parser.add_argument("--resume", action="store_true", help="go on from state.pt in the output folder")
    parser.add_argument("--config", type=Path, help="settings; training/config.yaml if left out")
    parser.add_argument("--device", help="cuda or cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--save-minutes", type=float, default=2.0)
    parser.add_argument("--log-every", type=int, default=100)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    chosen = parse()
    run(chosen, read_config(chosen.config))
