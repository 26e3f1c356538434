"""The wheel that users install: built here, looked into, and tried in a folder of its own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import sam2_fewshot

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
DIST_INFO = f"sam2_fewshot-{sam2_fewshot.__version__}.dist-info"
CARRIED = [
    "py.typed",
    "backbones/sam2/weights/MODEL_CARD.md",
    "backbones/sam2/weights/sam2.1_hiera_micro.pt",
    "backbones/sam2/weights/sam2.1_hiera_micro.yaml",
    "report/assets/main.js",
    "report/assets/page.html",
    "report/assets/style.css",
    "sample/SOURCE.md",
    "sample/nuclei.png",
    "sample/nuclei_examples.png",
    "sample/nuclei_labels.png",
]


def run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the backend that is installed, since a build environment of its own would need a network."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder), cwd=ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment for :func:`program` that has the wheel and its dependencies, and not the checkout.

    An editable installation makes the checkout importable through a ``.pth`` file of ``site-packages``. Such files are
    read by the module ``site``, which ``python -S`` leaves out; ``site-packages`` is then named in ``PYTHONPATH``.
    """
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder)]
    run(*pip, str(wheel))
    places = [str(folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places)), "PYTHONSAFEPATH": "1"}


def program(bare: dict[str, str], folder: Path, *arguments: str) -> str:
    return run(sys.executable, "-S", "-m", "sam2_fewshot", *arguments, env=bare, cwd=folder)


@pytest.mark.parametrize("name", CARRIED)
def test_the_wheel_carries_what_the_program_reads(names: set[str], name: str) -> None:
    assert f"sam2_fewshot/{name}" in names


def test_the_wheel_is_the_package_and_nothing_else(names: set[str]) -> None:
    files = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    source = {name for name in files if "__pycache__" not in name and not name.endswith((".pyc", ".DS_Store"))}
    assert {name for name in names if not name.startswith(f"{DIST_INFO}/")} == source
    assert not [name for name in names if "test" in name.split("/")[0] or name.endswith(".py.orig")]


def test_the_licences_and_the_command_are_in_the_metadata(wheel: Path, names: set[str]) -> None:
    assert {f"{DIST_INFO}/licenses/LICENSE", f"{DIST_INFO}/licenses/NOTICE"} <= names
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{DIST_INFO}/METADATA").decode()
        commands = archive.read(f"{DIST_INFO}/entry_points.txt").decode()
    assert f"\nVersion: {sam2_fewshot.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "sam2-fewshot = sam2_fewshot.__main__:main" in commands


def test_the_installed_package_is_the_wheels(bare: dict[str, str], tmp_path: Path) -> None:
    code = "import sys, sam2_fewshot; print(sam2_fewshot.__file__, *sys.path, sep='\\n')"
    module, *searched = run(sys.executable, "-S", "-c", code, env=bare, cwd=tmp_path).splitlines()
    assert Path(module).parents[1] == Path(bare["PYTHONPATH"].split(os.pathsep)[0])
    assert str(SOURCE) not in searched
    assert str(ROOT) not in searched


def test_it_tells_its_version_and_its_form(bare: dict[str, str], tmp_path: Path) -> None:
    assert program(bare, tmp_path, "--version") == f"sam2-fewshot {sam2_fewshot.__version__}\n"
    assert '"Training Tag"' in program(bare, tmp_path, "interface")


def test_it_does_a_job_with_the_weights_that_it_carries(
    bare: dict[str, str], tmp_path: Path, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    Image.fromarray(image).save(tmp_path / "discs.png")
    Image.fromarray(np.where(labels <= 5, labels, 0).astype(np.uint8)).save(tmp_path / "discs_labels.png")
    job = ["segment", "discs.png", "--examples", "discs_labels.png", "-o", "out", "--device", "cpu", "--model", "micro"]
    program(bare, tmp_path, *job)
    with (tmp_path / "out" / "detections.csv").open(encoding="utf-8", newline="") as table:
        centres = [(float(row["centroid_x"]), float(row["centroid_y"])) for row in csv.DictReader(table)]
    found = {int(labels[int(y), int(x)]) for x, y in centres}
    assert found == {1, 2, 3, 4, 5, 6, 7, 8}  # five that were marked, and the others
    assert "<script" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
