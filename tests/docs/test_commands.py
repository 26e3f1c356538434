"""Every command and snippet of the README and the docs: its options are looked at, and under --slow it is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import typer.main
from PIL import Image

from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.cli import app
from sam2_fewshot.sample import sample

if TYPE_CHECKING:
    from told import Told

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
ELSEWHERE = re.compile(r"scripts/|python3 -m venv|\.venv/bin/|pip install|sam2-fewshot models fetch|sam2-fewshot demo")
"""Begins of commands that install, need a network, or have a test of their own."""
OPTIONAL = re.compile(r"--scheduler|--config |nimbus|https?://")
"""Commands that need a cluster or a server."""
CONNECTED = {"docs/cluster.md", "docs/nimbusimage.md"}
"""Pages whose Python needs one."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return language and text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the shell commands of a page, comments left out."""
    texts = [text.replace("\\\n", " ") for language, text in blocks(page) if language in {"", "sh", "bash", "console"}]
    lines = [line.split("  #")[0].strip() for text in texts for line in text.splitlines()]
    return [line for line in lines if re.match(r"(sam2-fewshot|cp|mkdir|echo|python|rm) ", line)]


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_understood(name):
    group = typer.main.get_command(app)
    for line in commands(ROOT / name):
        words = shlex.split(line)
        if words[0] != "sam2-fewshot" or "..." in words or any(word.startswith(("<", "[")) for word in words):
            continue
        command, arguments = group, words[1:]
        context = group.make_context("sam2-fewshot", list(arguments), resilient_parsing=True)
        while hasattr(command, "commands"):
            command, arguments = command.commands[arguments[0]], arguments[1:]
            if "--help" not in arguments:
                context = command.make_context(command.name, list(arguments), parent=context)


@pytest.mark.parametrize("name", NAMES)
def test_snippets_are_python(name):
    for language, text in blocks(ROOT / name):
        if language == "python":
            compile(text, name, "exec")


@pytest.fixture
def folder(tmp_path: Path, told: Told) -> Path:
    """What the commands of the README and the reference name: images, examples, files of other programs."""
    files = sample()
    image, marked = (Image.open(path).crop((0, 0, 320, 320)) for path in (files.image, files.examples))
    (tmp_path / "plate").mkdir()
    image.save(tmp_path / "cells.tif")
    for name in ("A01.tif", "A02.tif"):
        slices = np.stack([np.asarray(image)] * 4)
        tifffile.imwrite(tmp_path / "plate" / name, slices, imagej=True, metadata={"axes": "ZYX"})
    labels = np.asarray(marked)
    Image.fromarray(labels).save(tmp_path / "A01_labels.png")
    (tmp_path / "A01_labels_classes.json").write_text(str({str(n): "nucleus" for n in range(1, 9)}).replace("'", '"'))
    convert(tmp_path / "A01_labels.png", tmp_path / "plate" / "A01.geojson", progress=told)
    assert told.only.startswith("The numbers of the objects are left out")
    for other in ("cells.geojson", "RoiSet.zip"):
        convert(tmp_path / "plate" / "A01.geojson", tmp_path / other)
    return tmp_path


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, with this Python's program first on the path."""
    tools = folder / ".bin"
    if not tools.exists():
        tools.mkdir()
        # Not a link: through one, Python does not see the virtual environment that it belongs to.
        for name, module in (("python", ""), ("sam2-fewshot", " -m sam2_fewshot")):
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
            (tools / name).chmod(0o755)
    paths = f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    source = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": source}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900
    )


def export_corrections(results: Path, to: Path) -> None:
    """Write what the report's button does after two finds were marked as right."""
    found = json.loads((results / "annotations.json").read_text())["annotations"]
    marked = [{**each, "tags": ["right"], "image": "cells.tif"} for each in found[:2]]
    to.write_text(json.dumps({"annotations": marked, "sam2-fewshot": {"kind": "corrections", "version": 1}}))


def run_all(lines: list[str], folder: Path) -> None:
    for line in lines:
        if line.startswith("sam2-fewshot refine results corrections.json"):
            export_corrections(folder / "results", folder / "corrections.json")
        if "segment" in line or "convert" in line:  # results of one page do not stand in the way of one another
            line = line.replace("sam2-fewshot convert", "sam2-fewshot convert --overwrite")
        done = shell(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr


def runnable(page: Path) -> list[str]:
    return [line for line in commands(page) if not ELSEWHERE.search(line) and not OPTIONAL.search(line)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docs/howto.md", *(n for n in NAMES if n.startswith("docs/tutorials/"))])
def test_tutorials_run_from_an_empty_folder(name, tmp_path):
    run_all(runnable(ROOT / name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/formats.md"])
def test_commands_run(name, folder):
    if "results" not in "".join(line for line in runnable(ROOT / name) if "segment" in line):
        run_all(["sam2-fewshot segment cells.tif --examples cells.geojson --model filters -o results"], folder)
    run_all(runnable(ROOT / name), folder)


def test_conversions_run(folder):
    run_all([line for line in runnable(ROOT / "docs" / "formats.md") if " convert " in line][:2], folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:. examples tell little:sam2_fewshot.errors.FewShotWarning")
@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if name not in CONNECTED and any(kind == "python" for kind, _ in blocks(ROOT / name))],
)
def test_snippets_run(name, tmp_path, monkeypatch):
    texts = [text for language, text in blocks(ROOT / name) if language == "python"]
    from shapely import box

    monkeypatch.chdir(tmp_path)
    files = sample()
    image = np.asarray(Image.open(files.image))[:320, :320]
    marked = np.asarray(Image.open(files.examples))[:320, :320]
    first, second, third, fourth = np.unique(marked)[1:5]  # a mask, a polygon, a point and a box of four objects
    outline, boxed = (
        box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        for rows, columns in (np.nonzero(marked == number) for number in (second, fourth))
    )
    y, x = (float(places.mean()) for places in np.nonzero(marked == third))
    given = {"image": image, "mask": marked == first, "outline": outline, "x": x, "y": y}
    given |= dict(zip(("x0", "y0", "x1", "y1"), boxed.bounds, strict=True))
    given["masks"] = [marked == number for number in np.unique(marked)[1:6]]
    scope: dict[str, object] = {**given, "other_image": image}
    for text in texts:
        exec(compile(text, name, "exec"), scope)
