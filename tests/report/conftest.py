"""Output folders made of discs on noise, and a page of the report in Chromium."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from shapely import Point

from recorded import recorded
from sam2_fewshot.annotations.record import ExampleMark, FrameRecord
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.output.journal import JOURNAL_FOLDER, Journal
from sam2_fewshot.output.pictures import preview_jpeg
from sam2_fewshot.records import Detection, InstanceMask, Location
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser, Page

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
SCORES = (0.95, 0.9, 0.8, 0.62, 0.55, 0.5)
BELOW = (0.45, 0.3, 0.1)


def disc(x: int, y: int, radius: int, shape: tuple[int, int]) -> InstanceMask:
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return InstanceMask(rows**2 + columns**2 <= radius**2, x - radius, y - radius, shape)


def make_frame(xy: int, name: str, scores: Sequence[float], below: Sequence[float], threshold: float) -> FrameRecord:
    """Objects in a row, each a little larger than the one before; one example, one negative, one point."""
    shape = (120, 400)
    place = Location(xy)

    def find(k: int, score: float) -> Detection:
        mask = disc(20 + 36 * k, 40, 6 + k, shape)
        return Detection(mask, mask_to_polygon(mask), score, score, float("nan"), place)

    marks = [
        ExampleMark(mask_to_polygon(disc(40, 100, 9, shape))),
        ExampleMark(mask_to_polygon(disc(90, 100, 7, shape)), negative=True),
        ExampleMark(Point(140.5, 100.5)),
    ]
    return FrameRecord(
        name=name,
        stem=f"frame{xy}",
        location=place,
        frame_shape=shape,
        detections=tuple(find(k, score) for k, score in enumerate(scores)),
        candidates=40,
        seconds={"encode": 1.5 + xy, "propose": 0.25},
        examples=tuple(marks),
        below=tuple(find(len(scores) + k, score) for k, score in enumerate(below)),
        threshold=threshold,
        floor=0.05,
    )


@pytest.fixture
def make_out(tmp_path: Path) -> Callable[..., Path]:
    """Write an output folder as a run does, less the report; each frame has a threshold of .5, or its own."""

    def make(
        names: Sequence[str] = ("a.tif", "b.tif"),
        scores: Sequence[float] = SCORES,
        below: Sequence[float] = BELOW,
        facts: dict[str, Any] | None = None,
        folder: str = "out",
        thresholds: Sequence[float] = (),
    ) -> Path:
        out = tmp_path / folder
        journal = Journal(out / JOURNAL_FOLDER, "f")
        records = [
            make_frame(
                xy,
                name,
                [score for score in (*scores, *below) if score >= threshold],
                [score for score in (*scores, *below) if score < threshold],
                threshold,
            )
            for xy, (name, threshold) in enumerate(zip(names, thresholds or [0.5] * len(names), strict=True))
        ]
        rng = np.random.default_rng(1)
        for record in records:
            journal.write(record)
            pixels = rng.integers(0, 60, (*record.frame_shape, 1), np.uint8).repeat(3, axis=2)
            write_whole(journal.preview(record.location), preview_jpeg(pixels))
        about = {
            "begun": "2026-01-01",
            "ended": "2026-01-02T00:00:00+00:00",
            "model": {"name": "m.pt", "sha256": "ab" * 32, "licence": "Apache-2.0"},
            "device": "CPU",
            "versions": {"sam2-fewshot": "0.1.0"},
            "settings": Settings(points_per_side=64).model_dump(),
            "seconds": {"learn examples": 3.0},
            "examples": 3,
            "warnings": [],
            "failures": [],
        }
        assemble(
            recorded(journal, [record.location for record in records]),
            out,
            tags=["cell"],
            facts={**about, **(facts or {})},
        )
        return out

    return make


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser; tests that need it are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    named = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in named if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs Chromium (apt-get install chromium, or the environment variable CHROMIUM)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def open_report(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open a report; anything that the console hears, and any request, fails the test at its end."""
    heard: list[str] = []
    contexts = []

    def open_page(path: Path, width: int = 1200, height: int = 900, **options: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
        known = ("file:", "data:", "blob:")
        page.on("request", lambda request: None if request.url.startswith(known) else heard.append(request.url))
        page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []
