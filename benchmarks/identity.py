"""Whether the program gives what it gave before: masks and scores bit for bit, on everything a change could touch.

    python benchmarks/identity.py store FILE --data DATA [--only PATTERN ...]
    python benchmarks/identity.py compare FILE --data DATA [--only PATTERN ...]

The cases are the tasks of the protocol (ten examples, one choice, two query frames) with their look-alike scenes, the
demo, a 16 Mpx mosaic searched in blocks, and a NimbusImage job of eight frames against the tests' server. `DATA` is the
folder of :mod:`benchmarks.quality`. Each object is stored as a hash of its mask and outline with its exact score.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sam2_fewshot.records import Detection

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "nimbus")]

MICRO = "sam2.1_hiera_micro.pt"
BLOCKS_SIDE, BLOCKS_MEMORY = 4096, 2.0
"""px and GB: 16 Mpx, of which about seven fit at a time."""


def of_detections(detections: Sequence[Detection]) -> list[str]:
    """Return a line for each object: its mask and outline hashed, and its numbers exactly."""
    lines = []
    for item in detections:
        digest = hashlib.sha256(repr((item.instance.box, item.instance.frame_shape)).encode())
        digest.update(item.instance.data.tobytes())
        digest.update(shapely.to_wkb(item.polygon))
        numbers = " ".join(float(value).hex() for value in (item.score, item.similarity, item.predicted_iou))
        lines.append(f"{digest.hexdigest()[:32]} {numbers}")
    return lines


def predicted(segmenter: Any, image: Any) -> list[str]:
    """Return what is found on a frame, and what lies below the threshold."""
    result = segmenter.predict(image)
    return [*of_detections(result.detections), "below", *of_detections(result.below), float(result.threshold).hex()]


def cases(data: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Yield the name of each case, and what gives its lines."""
    from benchmarks.quality.tasks import fewer_frames, generated_tasks, read_tasks

    yield "demo", _demo
    yield "nimbus", _nimbus
    for task in [*read_tasks(data), *generated_tasks()]:
        yield task.name, lambda task=task: _task(fewer_frames(task, 2))
    yield "blocks", lambda: _blocks(data)


def _task(task: Any) -> list[str]:
    from sam2_fewshot import FewShotSegmenter, Settings

    episode = task.episode(10, 0, 5 if task.family == "look-alike" else 0)
    if episode is None:
        return []
    lines = []
    for name in ("guided", "grid") if task.name in ("dev/pebbles:pebble", "look-alike/size:large") else ("guided",):
        settings = Settings(method=name, points_per_side=32, stability_gate=0.5, predicted_iou_gate=0.3)
        segmenter = FewShotSegmenter(MICRO, "cpu", settings).fit([*episode.examples, *episode.negatives])
        for query in episode.queries:
            lines += [f"{name} {query.picture.name}", *predicted(segmenter, query.picture.image)]
    return lines


def _demo() -> list[str]:
    from typer.testing import CliRunner

    from sam2_fewshot.cli import app

    with tempfile.TemporaryDirectory() as folder:
        done = CliRunner().invoke(app, ["demo", "-o", folder, "--device", "cpu"])
        if done.exit_code:
            raise SystemExit(f"The demo ended with {done.exit_code}: {done.output}")
        names = ("detections.csv", "annotations.json", "labels/nuclei.tif", "geojson/nuclei.geojson")
        return [f"{name} {hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()}" for name in names]


def _blocks(data: Path) -> list[str]:
    import numpy as np
    from benchmarks.large import EXAMPLES, Mosaic, tiles

    from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
    from sam2_fewshot.geometry.outlines import crop_to_object

    mosaic = Mosaic(tiles(data / "dev" / "dsb2018", 2), BLOCKS_SIDE)
    image = np.concatenate(list(mosaic.rows()))
    labels = mosaic.parts[0][1]
    masks = [crop_to_object(labels == number) for number in np.unique(labels) if number]
    inside = [mask for mask in masks if min(mask.box[:2]) > 0 and max(mask.box[2:]) < mosaic.size][:EXAMPLES]
    exemplars = []
    for mask in inside:
        whole = np.zeros(image.shape[:2], bool)
        mask.under(whole)[...] = mask.data
        exemplars.append(Exemplar(image=image, mask=whole))
    settings = Settings(max_memory=BLOCKS_MEMORY)
    return predicted(FewShotSegmenter(MICRO, "cpu", settings).fit(exemplars), image)


def _nimbus() -> list[str]:
    from contextlib import redirect_stdout
    from io import StringIO

    from contract_server.web import ContractServer
    from test_nimbus_whole import arguments, dataset

    from sam2_fewshot.nimbus.entry import main

    with ContractServer() as server:
        made, _ = dataset(server, (2, 2, 2))
        everything = {"Batch XY": "all", "Batch Z": "1-2", "Batch Time": "1, 2"}
        with redirect_stdout(StringIO()) as said:
            code = main(arguments(server, made, **everything))
        if code:
            raise SystemExit(f"The job ended with {code}: {said.getvalue()}")
        values = {each["annotationId"]: each["values"] for each in server.store.values}
        lines = []
        for key, each in server.store.annotations.items():
            if each["tags"] == ["nucleus"]:
                (figures,) = values[key].values()
                lines.append(
                    json.dumps([each["location"], each["channel"], each["coordinates"], figures], sort_keys=True)
                )
        return [hashlib.sha256(line.encode()).hexdigest() for line in sorted(lines)]


def main() -> int:
    """Store or compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["store", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    stored = json.loads(options.file.read_text()) if options.file.exists() else {}
    other = 0
    for name, lines_of in cases(options.data):
        if not any(fnmatch(name, pattern) for pattern in options.only):
            continue
        lines = lines_of()
        if options.verb == "store":
            stored[name] = lines
            options.file.write_text(json.dumps(stored, indent=1))
            print(f"{name}: {len(lines)} lines stored", flush=True)
        elif name not in stored:
            print(f"{name}: not stored", flush=True)
        elif lines == stored[name]:
            print(f"{name}: the same, {len(lines)} lines", flush=True)
        else:
            other += 1
            before, now = set(stored[name]), set(lines)
            print(f"{name}: OTHER, {len(before - now)} lines gone, {len(now - before)} new of {len(lines)}", flush=True)
    print("all the same" if not other else f"{other} cases differ")
    return int(other > 0)


if __name__ == "__main__":
    raise SystemExit(main())
