"""The command line from end to end, with the embedded checkpoint on small images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

SOURCE = Path(__file__).parents[2] / "src"
QUICK = ("--method", "grid", "--points-per-side", "16", "--model", "filters", "--device", "cpu")


def test_images_in_results_out_and_on_again(cli, images, examples, tmp_path):
    out = tmp_path / "out"
    command = ("segment", tmp_path / "im?.png", "--examples", examples, "-o", out, *QUICK, "--tag", "disc")
    first = cli(*command)
    assert first.code == 0, first.err
    assert "Model filters on CPU" in first.err
    assert "Frame 2 of 2: im2.png" in first.err
    assert first.out.startswith("Found ")
    assert f"Results: {out}" in first.out
    assert "propose" in first.out
    facts = json.loads((out / "run.json").read_text())
    assert facts["tags"] == ["disc"]
    assert facts["settings"]["points_per_side"] == 16
    labels = tifffile.imread(out / "labels" / "im2.tif")
    assert labels.shape == (64, 64)
    assert labels.max() > 0
    again = cli(*command)
    assert again.code == 0
    assert "2 of 2 frames are finished already and kept." in again.err
    assert "Frame 1" not in again.err
    assert again.out.splitlines()[0] == first.out.splitlines()[0]
    stricter = cli(*command, "--similarity-threshold", "1.0", "--batch-xy", "1")
    assert stricter.code == 0
    assert "1 of 1 frames are finished already and kept." in stricter.err
    assert "Frame 1" not in stricter.err
    assert "Nothing beyond the marked objects was found. Lower --similarity-threshold" in stricter.out
    stricter = cli(*command, "--similarity-threshold", "1.0", "--batch-xy", "2")  # nothing is marked there
    assert "Nothing resembles the examples enough. Lower --similarity-threshold" in stricter.out
    chosen = cli(*command, "--threshold-mode", "auto", "--batch-xy", "2")
    assert "enough. Choose --threshold-mode fixed and a low --similarity-threshold, and see in overlays/" in chosen.out


def test_settings_file_and_channels(cli, images, examples, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("method: grid\npoints_per_side: 16\nmin_mask_area: 100000\n")
    channels = tmp_path / "channels.yaml"
    channels.write_text("- index: 1\n  color: green\n")
    out = tmp_path / "out"
    outcome = cli(
        "segment", images[0], "--examples", examples, "-o", out, "--config", config, "--channels", channels,
        "--model", "filters",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "Nothing was even proposed" in outcome.out
    assert json.loads((out / "run.json").read_text())["settings"]["min_mask_area"] == 100000


def bad_image(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.png"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no image")
    elif kind == "truncated":
        whole = folder / "whole.bin"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(whole, "PNG")
        path.write_bytes(whole.read_bytes()[:2000])
    elif kind == "complex":
        path = path.with_suffix(".tif")
        tifffile.imwrite(path, np.zeros((64, 64), np.complex64))
    elif kind == "folder":
        path = folder / "nothing"
        path.mkdir()
    elif kind == "pattern":
        path = folder / "*.czi"
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "complex", "folder", "pattern"])
def test_bad_images_are_refused_in_a_sentence(cli, images, examples, tmp_path, kind):
    bad = bad_image(kind, tmp_path)
    refused(cli, tmp_path, images[0], bad, "--examples", examples, naming=bad.name)


def bad_examples(kind: str, folder: Path) -> Path:
    path = folder / "im1_labels.png"
    if kind == "none":
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    elif kind == "size":
        Image.fromarray(np.ones((32, 64), np.uint8)).save(path)
    elif kind == "json":
        path = folder / "im1.geojson"
        path.write_text("[" * 10_000)
    elif kind == "other json":
        path = folder / "im1.json"
        path.write_text('{"a": 1}')
    elif kind == "outside":
        path = folder / "im1.geojson"
        ring = [[900, 900], [950, 900], [950, 950], [900, 900]]
        feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


@pytest.mark.parametrize("kind", ["missing", "none", "size", "json", "other json", "outside"])
def test_bad_examples_are_refused_in_a_sentence(cli, images, tmp_path, kind):
    folder = tmp_path / "examples"
    folder.mkdir()
    bad = bad_examples(kind, folder)
    refused(cli, tmp_path, images[0], "--examples", bad, naming=bad.name)


@pytest.mark.parametrize(
    ("options", "naming"),
    [
        (("--training-tag", "cell"), "tag"),
        (("--batch-xy", "2"), "Batch XY"),
        (("--batch-z", "a"), "Batch Z"),
        (("--batch-time", "3-1"), "Batch Time"),
        (("--model", "sam3"), "no model called 'sam3'"),
        (("--model", "./none.pt"), "none.pt"),
        (("--model", "sam2.1_hiera_micro.pt", "--device", "cuda:99"), "cuda:99"),
        (("--model", "sam2.1_hiera_micro.pt", "--device", "abacus"), "abacus"),
        (("--config", "none.yaml"), "none.yaml"),
        (("--channels", "none.yaml"), "none.yaml"),
        (("--config", os.devnull), f"{os.devnull} is not a file"),
        (("--channels", os.devnull), f"{os.devnull} is not a file"),
        (("--method", "magic"), "Method"),
        (("--min-mask-area", "9", "--max-mask-area", "5"), "Max Mask Area"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(cli, images, examples, tmp_path, options, naming):
    refused(cli, tmp_path, images[0], "--examples", examples, *options, naming=naming)


def refused(cli, tmp_path, *arguments, naming: str) -> None:
    """Check that a command ends with one sentence, exit code 2 and nothing written."""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    outcome = cli("segment", *arguments, "-o", tmp_path / "new" / "out")
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    last = outcome.err.splitlines()[-1]
    assert last.startswith("Error: ")
    assert last.endswith(".")
    assert naming in last
    assert "Traceback" not in outcome.err
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment",),
        ("segment", "a.png", "--examples", "b.png"),
        ("segment", "a.png", "--examples", "b.png", "-o", "out", "--nonsense"),
        ("nonsense",),
        ("models", "fetch"),
    ],
)
def test_wrong_usage(cli, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert "Usage: " in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["https://me:hunter2@host/b.zarr", "https://host/b.zarr?X-Signature=hunter2"])
def test_no_secret_of_an_address_is_printed(address, cli, images, examples, tmp_path):
    outcome = cli("segment", address, address, images[0], "--examples", examples, "-o", tmp_path / "out")
    assert outcome.code == 2
    assert "https://host/b.zarr" in outcome.err
    assert "hunter2" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file(cli, images, examples, tmp_path):
    out = tmp_path / "out"
    out.write_text("mine")
    outcome = cli("segment", images[0], "--examples", examples, "-o", out)
    assert outcome.code == 2
    assert "is a file" in outcome.err
    assert out.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_output_that_is_not_writable(cli, images, examples, tmp_path):  # pragma: no cover
    tmp_path.joinpath("locked").mkdir(mode=0o500)
    outcome = cli("segment", images[0], "--examples", examples, "-o", tmp_path / "locked" / "out")
    assert outcome.code == 2
    assert "permission denied" in outcome.err


def test_a_frame_that_cannot_be_read_does_not_lose_the_others(cli, images, examples, tmp_path):
    bad = tmp_path / "nan.tif"
    tifffile.imwrite(bad, np.full((64, 64), np.nan, np.float32))
    out = tmp_path / "out"
    outcome = cli("segment", bad, images[0], "--examples", examples, "-o", out, *QUICK)
    assert outcome.code == 1
    assert "Failed: frame 1 of 2: nan.tif" in outcome.err
    assert "1 of 2 frames are finished and kept; the same command goes on from there." in outcome.err
    assert (out / "labels" / "im1.tif").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_keeps_finished_frames(examples, tmp_path):
    for index in range(3, 40):  # more than are finished before the signal comes
        Image.fromarray(np.full((64, 64), index, np.uint8)).save(tmp_path / f"im{index}.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sam2_fewshot", "segment", str(tmp_path / "im*.png"), "--examples"]
    process = subprocess.Popen(
        [*command, str(examples), "-o", str(out), *QUICK],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, children are born deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while not list(out.glob(".frames/*.npz")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert "Traceback" not in stderr
    assert "Stopped: " in stderr.splitlines()[-1]
    done = len(list(out.glob(".frames/*.npz")))
    assert done >= 1
    assert json.loads((out / "run.json").read_text())["frames_done"] == done
    assert f"on {done} frame" in stdout
    assert not list(out.rglob("*.part"))
