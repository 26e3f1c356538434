"""How fast the model room is against the public SAM 2 code: same weights, same image, same run, in turns.

Two comparisons, each the median of several alternating repeats, with the ratio of each pair:

* ``encode``: 64 crops in batches against 64 calls of ``SAM2ImagePredictor.set_image``;
* ``grid``: the grid of prompts against ``SAM2AutomaticMaskGenerator``, with the number of masks, their smallest IoU
  with one another, and the peak memory of both.

Run it from the repository::

    python benchmarks/speed.py --model micro --device cpu --points 32 64 --repeats 3
    python benchmarks/speed.py --model base_plus --device cuda --precision bfloat16 --points 32 64 --json out.json

A model that is not on this machine runs with random weights, which cost the same time; its gates are then set so that
one mask in five passes.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.sam2_image_predictor import SAM2ImagePredictor

from sam2_fewshot.backbones.sam2 import open_model
from sam2_fewshot.backbones.sam2.checkpoints import find
from sam2_fewshot.backbones.sam2.cpu import OneDnnLinear
from sam2_fewshot.backbones.sam2.device import choose_device, choose_dtype, describe
from sam2_fewshot.backbones.sam2.loading import build, sam2_distribution
from sam2_fewshot.backbones.sam2.network import Sam2Model
from sam2_fewshot.errors import CheckpointError
from sam2_fewshot.methods.base import Place
from sam2_fewshot.methods.grid import points_in, propose
from sam2_fewshot.protocols import Gates, Quiet
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SAMPLE = Path(__file__).parents[1] / "src" / "sam2_fewshot" / "sample"
WHOLE = Place((0, 0, 1, 1), (1, 1))
CROPS = 64


def main() -> None:
    """Measure, print a table, and write the figures as JSON if asked."""
    arguments = parser().parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    image = picture(arguments.size)
    model = load(arguments.model, arguments.device, arguments.precision, image)
    if arguments.memory_of:
        grid_once(model, image, arguments.points[0], arguments.memory_of)
        print(peak(model))
        return
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": arguments.commit or commit(),
        "command": "python benchmarks/speed.py " + " ".join(sys.argv[1:]),
        "device": describe(model.device),
        "precision": str(model.dtype).removeprefix("torch."),
        "model": arguments.model + (" (random weights)" if not model.sha256 else ""),
        "torch": torch.__version__,
        "sam2": sam2_distribution(),
        "image": list(image.shape),
        "encode": compare_encoding(model, image, arguments.repeats),
        "grid": [],
    }
    save(facts, arguments.json)
    for points in arguments.points:
        facts["grid"].append(compare_grid(model, image, points, arguments))
        save(facts, arguments.json)
    print(table(facts))


def save(facts: dict[str, Any], path: Path | None) -> None:
    """Write what has been measured so far: the large model's grids take minutes, and may be cut short."""
    if path:
        path.write_text(json.dumps(facts, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    out = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    out.add_argument("--model", default="micro", help="name of a checkpoint")
    out.add_argument("--device", default="auto")
    out.add_argument("--precision", default="auto", help="of both sides; the public code runs under autocast")
    out.add_argument("--points", type=int, nargs="+", default=[32, 64], help="points a side")
    out.add_argument("--size", type=int, default=1024, help="side of the square image in pixels")
    out.add_argument("--repeats", type=int, default=3)
    out.add_argument("--commit", default="", help="what to record where there is no git")
    out.add_argument("--json", type=Path)
    out.add_argument("--memory-of", choices=["ours", "public"], help=argparse.SUPPRESS)
    return out


def picture(size: int) -> NDArray[np.uint8]:
    """Return the bundled sample, tiled to the size: real texture, and many objects."""
    path = SAMPLE / "nuclei.png"
    tile = np.asarray(Image.open(path).convert("RGB"))
    counts = -(-size // tile.shape[0]), -(-size // tile.shape[1]), 1
    return np.ascontiguousarray(np.tile(tile, counts)[:size, :size])


def load(name: str, device: str, precision: str, image: NDArray[np.uint8]) -> Sam2Model:
    """Return a checkpoint's model, or one of its configuration with random weights."""
    settings = Settings(precision=precision)
    try:
        return open_model(name, device, settings)
    except CheckpointError:
        checkpoint = find(name)
        if checkpoint is None:
            raise
    network: Any = build(checkpoint.config).eval().requires_grad_(False)
    for mlp in network.sam_mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight.mul_(300)  # logits of random weights are all near 0, and no mask would be stable
    chosen = choose_device(device)
    model = Sam2Model(
        network,
        name=name,
        sha256="",
        gates=Gates(0.0, 0.0),
        device=chosen,
        dtype=choose_dtype(chosen, precision),
    )
    few = (points_in(WHOLE, 8) * model.input_size).astype(np.float32)
    predicted = model.prompt(model.embed(image), few, iou_gate=-1.0, stability_gate=0.0).predicted_iou
    model.gates = Gates(float(np.quantile(predicted, 0.8)), 0.5)
    return model


def compare_encoding(model: Sam2Model, image: NDArray[np.uint8], repeats: int) -> dict[str, Any]:
    """Time 64 crops of 100 to 200 px, in batches and one by one."""
    rng = np.random.default_rng(0)
    corners, sides = rng.integers(0, min(image.shape[:2]) - 200, (CROPS, 2)), rng.integers(100, 200, CROPS)
    windows = [(x, y, x + s, y + s) for (y, x), s in zip(corners.tolist(), sides.tolist(), strict=True)]
    predictor = public_predictor(model)

    def one_by_one() -> NDArray[np.float32]:
        features = []
        with torch.inference_mode(), autocast(model):
            for x0, y0, x1, y1 in windows:
                predictor.set_image(np.ascontiguousarray(image[y0:y1, x0:x1]))
                features.append(predictor._features["image_embed"].float().cpu().numpy())
        return np.concatenate(features)

    def in_batches() -> NDArray[np.float32]:
        tiles = model.tiles(image, windows)
        return np.concatenate([tile.embedding.image_embed.float().cpu().numpy() for tile in tiles])

    times = alternate(model, in_batches, one_by_one, repeats)
    difference = np.abs(in_batches() - one_by_one()).max()
    return {"crops": CROPS, **times, "largest_difference": float(difference)}


def compare_grid(
    model: Sam2Model, image: NDArray[np.uint8], points: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Time the grid of prompts, check that the masks are equal, and measure the peak memory of both."""
    times = alternate(
        model,
        lambda: grid_once(model, image, points, "ours"),
        lambda: grid_once(model, image, points, "public"),
        arguments.repeats,
    )
    ours = [candidate.mask.full() for candidate in grid_once(model, image, points, "ours")]
    public = [mask["segmentation"] for mask in grid_once(model, image, points, "public")]
    ious = [max((np.sum(a & b) / np.sum(a | b) for b in public), default=0.0) for a in ours]
    memory = {side: measure_memory(side, points, arguments) for side in ("ours", "public")}
    return {
        "points_per_side": points,
        **times,
        "masks": [len(ours), len(public)],
        "smallest_iou": float(min(ious, default=1.0)),
        "masks_below_iou_99": int(np.sum(np.array(ious) < 0.99)),
        "peak_memory_mb": memory,
    }


def grid_once(model: Sam2Model, image: NDArray[np.uint8], points: int, side: str) -> list[Any]:
    """Return the masks of a grid of prompts, by this package's code or by the public one."""
    if side == "ours":
        settings = Settings(min_mask_area=0)
        return list(propose(model, model.embed(image), settings, Quiet(), points_in(WHOLE, points)))
    generator = SAM2AutomaticMaskGenerator(
        public_network(model),
        points_per_side=points,
        pred_iou_thresh=model.gates.predicted_iou,
        stability_score_thresh=model.gates.stability,
    )
    generator.predictor = public_predictor(model)
    with torch.inference_mode(), autocast(model):
        masks: list[Any] = generator.generate(image)
    return masks


def public_predictor(model: Sam2Model) -> Any:
    """Return a ``SAM2ImagePredictor`` of the same weights."""
    predictor = SAM2ImagePredictor(public_network(model), disable_torch_jit=True)
    side = model.input_size
    predictor._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
    return predictor


@cache
def public_network(model: Sam2Model) -> Any:
    """Return a copy of the network with the linear layers of PyTorch, as the public code has it."""
    network: Any = copy.deepcopy(model.network)
    for module in network.modules():
        if type(module) is OneDnnLinear:
            module.__class__ = torch.nn.Linear
    return network


def autocast(model: Sam2Model) -> Any:
    """Return the precision of the model as a context for the public code."""
    return nullcontext() if model.dtype == torch.float32 else torch.autocast(model.device.type, model.dtype)


def alternate(
    model: Sam2Model, ours: Callable[[], object], public: Callable[[], object], repeats: int
) -> dict[str, Any]:
    """Run both once to warm up, then in turns; return medians in seconds and the ratio of each pair."""
    pairs = [(seconds(model, ours), seconds(model, public)) for _ in range(repeats + 1)][1:]
    ratios = [b / a for a, b in pairs]
    return {
        "ours_s": statistics.median(a for a, _ in pairs),
        "public_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def seconds(model: Sam2Model, work: Callable[[], object]) -> float:
    """Return the wall-clock seconds of a call, the device's work included."""
    synchronize(model)
    start = time.perf_counter()
    work()
    synchronize(model)
    return time.perf_counter() - start


def synchronize(model: Sam2Model) -> None:
    """Wait for the device."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def measure_memory(side: str, points: int, arguments: argparse.Namespace) -> float:
    """Run one side alone in a process of its own and return its peak memory in MB."""
    command = [sys.executable, __file__, "--memory-of", side, "--points", str(points), "--size", str(arguments.size)]
    command += ["--model", arguments.model, "--device", arguments.device, "--precision", arguments.precision]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak(model: Sam2Model) -> float:
    """Return the peak memory in MB: on a GPU what torch allocated, on a CPU the process's resident set."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 1e6
    # What getrusage tells begins with the parent's peak; Linux' VmHWM begins anew with the program.
    status = Path("/proc/self/status")
    if status.exists():
        return (
            float(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1e3
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def commit() -> str:
    """Return the commit that is checked out."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def table(facts: dict[str, Any]) -> str:
    """Return the figures as a table of Markdown."""
    encode = facts["encode"]
    lines = [
        f"{facts['model']}, {facts['precision']}, {facts['device']}, torch {facts['torch']}, commit {facts['commit']}",
        "",
        "| what | ours | public | ratio | masks ours / public | smallest IoU | peak MB ours / public |",
        "|---|---|---|---|---|---|---|",
        f"| encode {encode['crops']} crops | {encode['ours_s']:.3f} s | {encode['public_s']:.3f} s "
        f"| {encode['ratio']:.2f} | | | |",
    ]
    for row in facts["grid"]:
        memory = row["peak_memory_mb"]
        lines.append(
            f"| grid {row['points_per_side']}² | {row['ours_s']:.3f} s | {row['public_s']:.3f} s | {row['ratio']:.2f} "
            f"| {row['masks'][0]} / {row['masks'][1]} | {row['smallest_iou']:.4f} "
            f"| {memory['ours']:.0f} / {memory['public']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
