"""Neither the order of objects in a file, of images and of corrections, nor names decide what is found."""

from __future__ import annotations

import csv
import json
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from label_discs import discs
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from conftest import Outcome

CENTRES = [(18 + 34 * (i // 6), 16 + 32 * (i % 6)) for i in range(24)]
MARKED = {"a": [0, 7, 14, 19, 21], "b": [3, 8, 12, 17, 22]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of discs of several brightnesses."""
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        levels = np.append(0, rng.uniform(50, 150, len(CENTRES)))
        grey = levels[discs(CENTRES, 208)[:140]] + rng.normal(60, 12, (140, 208))
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def outlines(name: str) -> list[dict[str, object]]:
    """Return GeoJSON features of the marked discs of an image."""
    found = []
    for row, column in (CENTRES[i] for i in MARKED[name]):
        turn = np.linspace(0, 2 * np.pi, 25)
        ring = np.stack([column + 0.5 + 7.4 * np.cos(turn), row + 0.5 + 7.4 * np.sin(turn)], axis=1)
        geometry = {"type": "Polygon", "coordinates": [ring.tolist()]}
        found.append({"type": "Feature", "geometry": geometry, "properties": {}})
    return found


def write(folder: Path, features: Iterable[tuple[str, list[dict[str, object]]]]) -> Path:
    folder.mkdir()
    for name, each in features:
        (folder / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": each}))
    return folder


def objects(out: Path) -> list[tuple[str, ...]]:
    """Return what was found, whatever the images are called."""
    columns = ("kind", "score", "area_px", "x0", "y0", "x1", "y1")
    with (out / "detections.csv").open(newline="") as file:
        return sorted(tuple(row[column] for column in columns) for row in csv.DictReader(file))


def test_what_is_found_follows_neither_the_order_of_examples_and_images_nor_names(
    cli: Callable[..., Outcome], folder: Path
) -> None:
    marks = write(folder / "marks", [(name, outlines(name)) for name in "ab"])
    names = {"z": "a", "b": "b"}
    shuffled = write(folder / "shuffled", [(n, random.Random(n).sample(outlines(names[n]), 5)) for n in names])
    a, b, z = (folder / f"{name}.png" for name in "abz")
    z.write_bytes(a.read_bytes())
    runs = [([a, b], marks), ([b, z], shuffled)]
    found = []
    for number, (images, examples) in enumerate(runs):
        out = folder / f"out{number}"
        assert not cli("segment", *images, "--examples", examples, "-o", out, "--model", "filters").code
        found.append(objects(out))
    assert {each[0] for each in found[0]} == {"example", "found"}
    assert found[1] == found[0]


def test_what_is_found_does_not_follow_the_order_of_correction_files(cli: Callable[..., Outcome], folder: Path) -> None:
    marks = write(folder / "marks", [("a", outlines("a"))])
    assert not cli("segment", folder / "a.png", "--examples", marks, "-o", folder / "out", "--model", "filters").code
    corrections = []
    for verdict, place in (("right", 2), ("wrong", 11), ("right", 23)):
        row, column = CENTRES[place]
        square = [{"x": column + x, "y": row + y} for x, y in ((-6, -6), (6, -6), (6, 6), (-6, 6))]
        mark = {"shape": "polygon", "coordinates": square, "tags": [verdict], "image": "a.png"}
        mark["location"] = {"XY": 0, "Z": 0, "Time": 0}
        corrections.append(folder / f"{place}.json")
        about = {"kind": "corrections", "version": 1}
        corrections[-1].write_text(json.dumps({"annotations": [mark], "sam2-fewshot": about}))
    found = []
    for name, files in (("one", corrections), ("other", corrections[::-1])):
        assert not cli("refine", folder / "out", *files, "-o", folder / name).code
        found.append(objects(folder / name))
    assert found[0] == found[1] != objects(folder / "out")
