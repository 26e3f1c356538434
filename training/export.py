"""Write the averaged weights as a checkpoint that the public SAM 2 code loads, and check that it does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

HERE = Path(__file__).parent


def build(architecture: Path, image_size: int | None = None) -> Any:
    """Make a ``SAM2Base`` with random weights.

    Parameters
    ----------
    architecture
        The YAML configuration.
    image_size
        Another side of the input, for tests.

    Returns
    -------
    SAM2Base
        The model.
    """
    config = OmegaConf.load(architecture)
    if image_size is not None:
        config.model.image_size = image_size
    OmegaConf.resolve(config)
    return instantiate(config.model)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read ``{"model": state_dict}`` as 32-bit weights.

    Parameters
    ----------
    path
        A checkpoint.

    Returns
    -------
    dict
        The weights.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value.float() for name, value in stored.get("model", stored).items()}


def load_model(weights: Path, architecture: Path, image_size: int | None = None) -> Any:
    """Build a model and load its weights strictly, as every user does.

    Parameters
    ----------
    weights
        A checkpoint.
    architecture
        The YAML configuration.
    image_size
        Another side of the input, for tests.

    Returns
    -------
    SAM2Base
        The model, ready for prediction.
    """
    model = build(architecture, image_size)
    model.load_state_dict(read_weights(weights), strict=True)
    return model.eval()


def write_weights(weights: dict[str, Tensor], path: Path, logit_scale: float = 1.0) -> None:
    """Write 16-bit weights; the file is complete or absent.

    Parameters
    ----------
    weights
        The state dict.
    path
        The file.
    logit_scale
        Mask logits are multiplied by this. The masks stay the same; their edges get steeper, as SAM 2's own
        stability gate expects them.
    """
    out = {name: value.detach().cpu().clone() for name, value in weights.items()}
    last = {name.rsplit(".", 2)[0] for name in out if "output_hypernetworks_mlps" in name}
    for head in last:
        depth = max(int(name.split(".")[-2]) for name in out if name.startswith(head + "."))
        for kind in ("weight", "bias"):
            out[f"{head}.{depth}.{kind}"] *= logit_scale
    part = path.with_suffix(".part")
    torch.save({"model": {name: value.half() for name, value in out.items()}}, part)
    part.rename(path)


def main(arguments: list[str] | None = None) -> None:
    """Export from the command line.

    Parameters
    ----------
    arguments
        Command line; that of the process if left out.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="state.pt of a training run, or a checkpoint")
    parser.add_argument("out", type=Path, help="checkpoint to write")
    parser.add_argument("--architecture", type=Path, default=HERE / "architecture.yaml")
    parser.add_argument("--logit-scale", type=float, default=1.0)
    parser.add_argument("--average-with", type=Path, help="write the mean with this checkpoint of the same network")
    options = parser.parse_args(arguments)
    stored = torch.load(options.state, map_location="cpu", weights_only=True)
    weights = stored["ema"] if "ema" in stored else read_weights(options.state)
    if options.average_with:
        other = read_weights(options.average_with)
        weights = {name: (value.float() + other[name]) / 2 for name, value in weights.items()}
    write_weights(weights, options.out, options.logit_scale)
    load_model(options.out, options.architecture)
    sys.stdout.write(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, loads strictly\n")


if __name__ == "__main__":
    main()
