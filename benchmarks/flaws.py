"""What flaws of the frames that are searched cost: dirt, scale bars, padding, uneven light, blur, noise.

    python -m benchmarks.flaws --data DATA [--groups PATTERN ...] [--k 10] [--limit-frames 1] [--json FILE]

The examples lie on frames without the flaw. All frames are made grey and 16-bit, ten counts for each grey level above a
camera's offset of 500, so that a flaw can be brighter than all that the camera saw. F1 at an IoU of .5 is told, at the
default threshold and at the best one.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from benchmarks.provenance import provenance, write
from benchmarks.quality.methods import Told, make_method
from benchmarks.quality.protocol import run_one, tell
from benchmarks.quality.tasks import Query, fewer_frames, is_called, read_tasks
from scipy import ndimage

from sam2_fewshot import Exemplar, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.quality.methods import Method
    from benchmarks.quality.tasks import Episode
    from numpy.typing import NDArray

_OFFSET, _GAIN = 500, 10
_GROUPS = ("fluo_256", "fluo_260", "fluo_360", "gray", "axon", "live_dead_cells:living")


def dirt(plane: NDArray[np.float64], times: float, share: float = 0.005) -> NDArray[np.float64]:
    """Put four round specks on a share of a frame, so many times as bright as its brightest pixel."""
    rng, (height, width) = np.random.default_rng(1), plane.shape
    rows, columns = np.mgrid[:height, :width]
    dirty, radius = plane.copy(), (share * plane.size / 4 / np.pi) ** 0.5
    for _ in range(4):
        y, x = rng.integers(0, height), rng.integers(0, width)
        dirty[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = _OFFSET + times * (plane.max() - _OFFSET)
    return dirty


def scale_bar(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Burn a scale bar in, of a quarter of the width, as white as 8 bits are."""
    height, width = plane.shape
    burnt = plane.copy()
    burnt[height - 20 : height - 14, width - 10 - width // 4 : width - 10] = _OFFSET + 255 * _GAIN
    return burnt


def padded(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add a third of the width, all 0."""
    return np.pad(plane, ((0, 0), (0, plane.shape[1] // 3)))


def vignette(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let the corners have two fifths of the light of the middle."""
    across, down = (np.linspace(-1, 1, side) ** 2 for side in plane.shape[::-1])
    return _OFFSET + (plane - _OFFSET) * (1 - 0.3 * (across + down[:, None]))


def noisy(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add noise of 8 % of the frame's range."""
    return plane + np.random.default_rng(2).normal(0, 0.08 * np.ptp(plane), plane.shape)


FLAWS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "none": lambda plane: plane,
    "dirt on .5 %, three times as bright": lambda plane: dirt(plane, 3),
    "dirt on .5 %, ten times as bright": lambda plane: dirt(plane, 10),
    "a scale bar burnt in": scale_bar,
    "a third padded with 0": padded,
    "half the exposure": lambda plane: _OFFSET + (plane - _OFFSET) / 2,
    "dark corners": vignette,
    "blurred by 1.5 px": lambda plane: ndimage.gaussian_filter(plane, 1.5),
    "noise": noisy,
}


def raw(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what a camera would have counted of a picture."""
    grey = (image if image.ndim == 2 else image.mean(axis=2)).astype(np.float64)
    counts: NDArray[np.float64] = grey * _GAIN + _OFFSET
    return counts


def deep(plane: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return a plane as 16 bits hold it."""
    counts: NDArray[np.uint16] = plane.clip(0, 65535).astype(np.uint16)
    return counts


def in_counts(episode: Episode) -> Episode:
    """Return the examples of an episode on deep frames."""
    frames = {id(each.image): deep(raw(np.asarray(each.image))) for each in episode.examples}
    return replace(episode, examples=[Exemplar(frames[id(each.image)], mask=each.mask) for each in episode.examples])


def flawed(query: Query, flaw: str) -> Query:
    """Return a frame with a flaw, which may be larger, and its objects."""
    image = deep(FLAWS[flaw](raw(query.picture.image)))
    truth, ignore = (
        [replace(mask, frame_shape=image.shape) for mask in masks] for masks in (query.truth, query.ignore)
    )
    return Query(replace(query.picture, image=image), truth, ignore)


class _Learned:
    """A method that has learned already: the examples are the same, whatever flaw the frames have."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def learn(self, episode: Episode) -> None:
        """Do nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", default=list(_GROUPS), metavar="PATTERN", help="%(default)s")
    parser.add_argument("--flaws", nargs="+", default=[""], metavar="PART", help="only those whose name has a part")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--limit-frames", type=int, default=1)
    parser.add_argument("--model", default="micro", help="name or path of a checkpoint")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)
    from sam2_fewshot.backbones import open_backbone

    model: Any = open_backbone(options.model, "auto", Settings())
    method = make_method("guided", model, 32, Told())
    wanted = [flaw for flaw in FLAWS if flaw == "none" or any(part in flaw for part in options.flaws)]
    facts = provenance("benchmarks.flaws", list(sys.argv[1:] if arguments is None else arguments))
    records: list[dict[str, Any]] = []
    for task in [fewer_frames(task, options.limit_frames) for task in read_tasks(options.data)]:
        episode = task.episode(options.k, 0) if is_called(task.name, options.groups) else None
        if episode is None:
            continue
        method.learn(in_counts(episode))
        for flaw in wanted:
            queries = [flawed(query, flaw) for query in episode.queries]
            record = run_one(task, replace(episode, queries=queries), _Learned(method), options.k, 0)
            records.append({"flaw": flaw, **record})
            tell(f"{task.name}, {flaw}: {record['f1_50']:.2f}, {record['best_f1']:.2f}")
        write(options.json, {**facts, "records": records})
    print("| flaw | default | best |\n|---|---|---|")
    for flaw in wanted:
        own = [record for record in records if record["flaw"] == flaw]
        print(f"| {flaw} | {fmean(r['f1_50'] for r in own):.3f} | {fmean(r['best_f1'] or 0 for r in own):.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
