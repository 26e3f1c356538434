"""Choose how steep mask edges are, so that SAM 2's own stability gate (.95) lets good masks through.

``python -m training.calibrate WEIGHTS --architecture YAML --data DIR`` looks at training images and made-up scenes only
and prints, for each scale of the logits, which share of good (IoU at least .75) and of bad masks (below .5) passes the
gate. `training.export` applies the chosen scale; the masks themselves do not change.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import HERE, Config, read_config
from training.data import Loader
from training.decoder import decode, encode
from training.export import load_model
from training.losses import mask_targets
from training.pictures import load_pictures
from training.pool import ScenePool
from training.prompts import draw_prompts

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
GATE = 0.95


@torch.no_grad()
def collect(model: Any, loader: Loader, config: Config, batches: int) -> tuple[Tensor, Tensor, Tensor]:
    """Click, and see how good, how sure and how stable the masks are.

    Parameters
    ----------
    model
        A ``SAM2Base``.
    loader
        Gives batches.
    config
        Its settings.
    batches
        How many.

    Returns
    -------
    tuple
        For n clicks: (n,) IoU of the mask with the best predicted IoU, (n,) that prediction, and (n, scales) stability
        as ``SAM2AutomaticMaskGenerator`` computes it.
    """
    reached, sure, steady = [], [], []
    for _ in range(batches):
        batch = loader.next()
        prompts = draw_prompts(batch.labels, batch.classes, config)
        clicks = prompts.points.flatten(0, 1)[:, None]
        decoded = decode(model, *encode(model, batch.images), clicks, torch.ones(len(clicks), 1))
        target = mask_targets(batch.labels, prompts.ids[:, : prompts.points.shape[1]]) > 0.5
        best = decoded.iou[:, 1:].argmax(1) + 1
        rows = torch.arange(len(best))
        logits = decoded.masks[rows, best][:, None]
        logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        mask = logits > 0
        both = (mask & target).sum((1, 2))
        reached.append(both / (mask | target).sum((1, 2)).clamp(min=1))
        sure.append(decoded.iou[rows, best].sigmoid())
        shares = [(logits > 1 / s).sum((1, 2)) / (logits > -1 / s).sum((1, 2)).clamp(min=1) for s in SCALES]
        steady.append(torch.stack(shares, 1))
    return torch.cat(reached), torch.cat(sure), torch.cat(steady)


def main(arguments: list[str] | None = None) -> None:
    """Calibrate from the command line.

    Parameters
    ----------
    arguments
        Command line; that of the process if left out.
    """
    parser = argparse.ArgumentParser(prog="python -m training.calibrate", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--architecture", type=Path, default=HERE / "architecture.yaml")
    parser.add_argument("--data", type=Path, required=True, help="training images")
    parser.add_argument("--batches", type=int, default=16)
    options = parser.parse_args(arguments)
    config = replace(read_config(), batch=4, workers=0, scenes_first=options.batches * 2)
    torch.manual_seed(config.seed)
    pool = ScenePool(replace(config, seed=config.seed + 1))
    pool.start(0, torch.device("cpu"))
    loader = Loader(config, load_pictures(options.data, torch.device("cpu")), pool)
    reached, sure, steady = collect(load_model(options.weights, options.architecture), loader, config, options.batches)
    good, bad = reached >= 0.75, reached < 0.5
    say = sys.stdout.write
    say(f"{len(reached)} clicks, {int(good.sum())} good, {int(bad.sum())} bad\n")
    say(f"mean error of the predicted IoU {float((sure - reached).abs().mean()):.3f}, ")
    say(f"bias {float((sure - reached).mean()):+.3f}; predicted IoU at least .8: ")
    passed = (sure >= 0.8).float()
    say(f"{float(passed[good].mean()):.2f} of good, {float(passed[bad].mean()):.2f} of bad\n")
    say("| scale | good that pass | bad that pass |\n|---|---|---|\n")
    for index, scale in enumerate(SCALES):
        passed = (steady[:, index] >= GATE).float()
        say(f"| {scale:g} | {float(passed[good].mean()):.2f} | {float(passed[bad].mean()):.2f} |\n")


if __name__ == "__main__":
    main()
