"""Small images on disk, segmenters that find bright things without torch, and a display that listens."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from label_discs import DISCS, discs
from PIL import Image
from typer.testing import CliRunner

from bright import BrightMaker
from sam2_fewshot.cli import app
from sam2_fewshot.files.request import Request
from sam2_fewshot.runner.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Segmenters(BrightMaker):
    """Makes segmenters and keeps them.

    `troubles` maps the number of a frame that a segmenter searches, from 1, to an exception that is raised.
    """

    def __init__(self) -> None:
        super().__init__({"on_find": self._find, "finds_examples": False})
        self.troubles: dict[int, BaseException] = {}

    def _find(self, number: int) -> None:
        if trouble := self.troubles.get(number):
            raise trouble


class Listening(Silent):
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, sentence: str) -> None:
        self.lines.append(sentence)

    def warn(self, sentence: str) -> None:
        self.lines.append(f"Warning: {sentence}")

    def frame_fails(self, sentence: str) -> None:
        self.lines.append(f"Failed: {sentence}")


@pytest.fixture
def display() -> Listening:
    return Listening()


@pytest.fixture
def segmenters() -> Segmenters:
    return Segmenters()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three images of four discs each, which differ by a grey pixel."""
    paths = []
    for number in (1, 2, 10):
        path = tmp_path / f"im{number}.png"
        pixels = (discs() > 0).astype(np.uint8) * np.uint8(200) + np.uint8(number)
        pixels[31, 30 + number] += 40
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def examples(tmp_path: Path, images: list[Path]) -> Path:
    """Label image of two discs of the first image."""
    path = tmp_path / "marked" / "im1_labels.png"
    path.parent.mkdir()
    Image.fromarray(discs(DISCS[:2])).save(path)
    return path


@pytest.fixture
def request_for(images: list[Path], examples: Path, tmp_path: Path) -> Callable[..., Request]:
    def make(**changes: object) -> Request:
        return Request(**{"images": images, "examples": examples, "out": tmp_path / "out", **changes})  # type: ignore[arg-type]

    return make


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def cli() -> Callable[..., Outcome]:
    """Run the command line in this process."""

    def run(*arguments: object) -> Outcome:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Outcome(result.exit_code, plain(result.stdout), plain(result.stderr))

    return run


def plain(text: str) -> str:
    """Text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
