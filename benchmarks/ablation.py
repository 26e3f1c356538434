"""What each part of the guided method adds: the few-shot protocol with one part changed at a time.

From the repository's root::

    python -m benchmarks.ablation --data DATA --groups fluo_360 gray axon --limit-frames 1

DATA and the options are those of :mod:`benchmarks.quality`. Parts are changed by their constants; the table gives the
mean over tasks of F1 at the default threshold and at the best one, of the recall of what was proposed, and of the
seconds a frame.
"""

from __future__ import annotations

import argparse
import importlib
import json
import warnings
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.quality.methods import Told, make_method
from benchmarks.quality.protocol import run_one, tell
from benchmarks.quality.tasks import fewer_frames, is_called, read_tasks

from sam2_fewshot.methods.guided.magnifications import NOTHING_AT_HALF
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sam2_fewshot.methods.guided.classifier import ThresholdRange
    from sam2_fewshot.methods.guided.magnifications import Found


def unrefined(
    backbone: object, pixels: object, embeddings: object, grid: object, masks: Sequence[Any], *_: object
) -> list[None]:
    """Refine no candidate by a box prompt."""
    return [None] * len(masks)


def lowest(between: ThresholdRange, *_: object) -> float:
    """Return the lower end, in the place of :func:`~sam2_fewshot.methods.guided.classifier.best_threshold`."""
    return between.low


def nothing_larger(*_: object) -> tuple[Found, Mapping[int, Any]]:
    """Find nothing, in the place of :func:`~sam2_fewshot.methods.guided.magnifications.search_at_half`."""
    return NOTHING_AT_HALF


_GUIDED = "sam2_fewshot.methods.guided."
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "all tiles encoded": {_GUIDED + "appearance._FAINTER": 0.0},
    "all candidates refined, whatever their chance": {_GUIDED + "box_refinement._UNLIKELY": -99.0},
    "other kinds not left out": {_GUIDED + "kinds._APART": 1e9},
    "no ground refined while learning but what is among the best": {_GUIDED + "box_refinement._ON_GROUND": 0},
    "what is unlike all that was learned from may be surer for it": {_GUIDED + "logistic._FAR": 1e9},
    "nothing larger looked for": {_GUIDED + "model.search_at_half": nothing_larger},
    "nothing larger or smaller looked for": {_GUIDED + "other_sizes._REFUSED": 99.0},
    "both kept of two that lie in one another": {_GUIDED + "box_refinement._HOLDS": 99.0},
    "no prompts at peaks": {_GUIDED + "model._FEWEST_PEAKS": 0, _GUIDED + "model._PEAKS_PER_TILE": 0},
    "peaks prompted also where objects are clear": {_GUIDED + "box_refinement._COVERS": 99.0},
    "no wider tiles": {"sam2_fewshot.methods.guided.box_refinement._COARSER": ()},
    "no box refinement": {
        _GUIDED + "model.refined_masks": unrefined,
        _GUIDED + "learning.refined_masks": unrefined,
    },
    "threshold where 90 % of the examples are detected": {
        _GUIDED + "classifier._ROOM": 0.0,
        _GUIDED + "classifier._BELOW": 0.0,
    },
    "lowest threshold whatever else is detected": {_GUIDED + "learning.best_threshold": lowest},
    "twice as many peaks": {_GUIDED + "model._FEWEST_PEAKS": 128, _GUIDED + "model._PEAKS_PER_TILE": 6},
    "twice as many refined": {
        _GUIDED + "box_refinement._LEAST": 384,
        _GUIDED + "box_refinement._PER_TILE": 32,
        _GUIDED + "box_refinement._PER_LIKELY": 8,
    },
    "few refined": {
        _GUIDED + "box_refinement._LEAST": 32,
        _GUIDED + "box_refinement._PER_TILE": 4,
        _GUIDED + "box_refinement._PER_LIKELY": 1,
    },
    "no splitting of touching objects": {"sam2_fewshot.methods.guided.proposals._SPLIT_EVERY": 10**6},
    "half the levels": {"sam2_fewshot.methods.guided.proposals._LEVELS": 7},
    "ridge 3 instead of 60": {"sam2_fewshot.methods.guided.logistic._RIDGE": 3.0},
    "parts and unions weigh half instead of .8": {_GUIDED + "classifier._NEAR": 0.5},
    "examples brought to 1/10 of the input": {_GUIDED + "learning._DIAMETER": 1 / 10},
    "marks never eroded": {_GUIDED + "learning._ENOUGH": 0.0},
    "marks always eroded": {_GUIDED + "learning._ENOUGH": 9.0, _GUIDED + "learning._BETTER": -9.0},
    "magnified 2.8 times at most": {_GUIDED + "learning._ZOOM": (0.25, 2.8)},
    "background not cleaned": {"sam2_fewshot.methods.guided.maps._ROUNDS": 0},
}


@contextmanager
def changed(constants: Mapping[str, Any]) -> Iterator[None]:
    """Give module constants other values for a while."""
    before = []
    for path, value in constants.items():
        module, name = path.rsplit(".", 1)
        place = importlib.import_module(module)
        before.append((place, name, getattr(place, name)))
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--groups", nargs="+")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--limit-frames", type=int, default=1)
    parser.add_argument("--model", default="micro")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    from sam2_fewshot.backbones.sam2 import open_model

    model = open_model(options.model, "auto", Settings())
    tasks = [fewer_frames(task, options.limit_frames) for task in read_tasks(options.data)]
    episodes = [
        (task, episode)
        for task in tasks
        if is_called(task.name, options.groups) and (episode := task.episode(options.k, 0, 0))
    ]
    rows = {}
    for name, constants in VARIANTS.items():
        with changed(constants):
            method = make_method("guided", model, 32, Told())
            records = [run_one(task, episode, method, options.k, 0) for task, episode in episodes]
        rows[name] = {key: fmean(float(record[key] or 0) for record in records) for key in FIGURES}
        tell(name + "".join(f"  {title} {rows[name][key]:.3f}" for key, title in FIGURES.items()))
    if options.json:
        options.json.write_text(
            json.dumps({"tasks": [task.name for task, _ in episodes], "rows": rows}, indent=1) + "\n"
        )


FIGURES = {"f1_50": "F1", "best_f1": "best F1", "proposal_recall": "recall", "frame_seconds": "s/frame"}

if __name__ == "__main__":
    main()
