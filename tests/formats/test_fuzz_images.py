"""A thousand mutations for each reader of images; see fuzzing.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.fuzz]
COUNT = 1000
READERS = ("tiff", "companion", "picture", "jpeg2000", "nd2", "lif", "czi", "ome_zarr")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of time and memory are those of POSIX")
@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused_in_a_sentence(reader):
    command = [sys.executable, str(Path(__file__).with_name("fuzzing.py")), reader, "--count", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["read"] + found["refused"] == COUNT
    assert min(found.values()) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="limits of time and memory are those of POSIX")
def test_a_mutation_is_made_again_in_a_new_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    tool = str(Path(__file__).with_name("fuzzing.py"))
    command = [sys.executable, tool, "tiff", "--first", "512", "--count", "1", "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(folder.iterdir())
