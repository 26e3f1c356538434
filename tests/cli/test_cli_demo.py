"""The demo and its sample."""

from __future__ import annotations

import json
import re
from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image

from sam2_fewshot.annotations.arrays import masks_of
from sam2_fewshot.sample import Sample, sample


def labels(path):
    return np.asarray(Image.open(path))


def test_sample_is_large_enough_and_whole():
    files = sample()
    image, truth, examples = labels(files.image), labels(files.truth), labels(files.examples)
    assert image.shape == truth.shape == examples.shape
    assert min(image.shape) >= 256
    assert len(np.unique(truth)) - 1 >= 20
    assert len(np.unique(examples)) - 1 == 8
    assert (examples[examples > 0] == truth[examples > 0]).all()
    assert "CC0" in files.image.with_name("SOURCE.md").read_text("utf-8")


def test_examples_are_chosen_by_the_rule():
    files = sample()
    truth = labels(files.truth)
    values = np.unique(truth)[1:]
    ranks = np.argsort([mask.area for mask in [*dict(masks_of(truth)).values()]], kind="stable")
    chosen = values[[ranks[int((part + 0.5) * len(ranks) / 8)] for part in range(8)]]
    assert (np.where(np.isin(truth, chosen), truth, 0) == labels(files.examples)).all()


@pytest.fixture(params=["part", pytest.param("whole", marks=pytest.mark.slow)])
def shown(request, tmp_path, monkeypatch):
    """The sample, or a part of it with five of the examples."""
    files = sample()
    if request.param == "part":
        part = Sample(*(tmp_path / path.name for path in astuple(sample())))
        for whole, corner in zip(astuple(sample()), astuple(part), strict=True):
            Image.open(whole).crop((160, 20, 420, 500)).save(corner)
        monkeypatch.setattr("sam2_fewshot.sample.sample", lambda: part)
        files = part
    return files


def test_demo_runs_the_main_job(cli, tmp_path, shown):
    out = tmp_path / "out"
    outcome = cli("demo", "-o", out, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert "default settings" in outcome.err
    assert re.search(r"Precision (0\.|1\.0)", outcome.out)
    assert "F1 0." in outcome.out
    assert "compare" in outcome.out
    # The whole path, with no full stop that would be copied with it.
    assert outcome.out.endswith(f"Look at {out.resolve() / 'overlays' / 'nuclei.png'}\n")
    assert (out / "overlays" / "nuclei.png").exists()
    figures = tmp_path / "figures.json"
    assert cli("evaluate", out, shown.truth, "--json", figures).code == 0
    evaluated = json.loads(figures.read_text())
    (counts,) = evaluated["by_iou"]
    examples = len(np.unique(labels(shown.examples))) - 1
    total = len(np.unique(labels(shown.truth))) - 1 - examples
    assert (counts["tp"] + counts["fn"], evaluated["not_judged"]) == (total, examples)
    assert f"F1 {counts['f1']:.2f}: of {total} nuclei that were not among the {examples} examples" in outcome.out
    assert f"{counts['tp']} were found, and {counts['fp']} of the detections are wrong" in outcome.out


def test_demo_into_a_file(cli, tmp_path):
    (tmp_path / "file").touch()
    outcome = cli("demo", "-o", tmp_path / "file")
    assert outcome.code == 2
    assert "is a file" in outcome.err
