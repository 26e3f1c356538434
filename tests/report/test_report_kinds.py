"""Pages of frames made object by object: what the user marked, which neither slider nor verdict concerns, and many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from report_pages import slide, until
from shapely import box

from recorded import recorded
from sam2_fewshot import Settings
from sam2_fewshot.annotations.record import ExampleMark, FrameRecord
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.output.journal import JOURNAL_FOLDER, Journal
from sam2_fewshot.records import Detection, InstanceMask, Kind, Location
from sam2_fewshot.report.content import gather
from sam2_fewshot.report.page import write_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

SHAPE = (120, 400)


def disc(x: int, y: int, radius: int, score: float, kind: Kind) -> Detection:
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    mask = InstanceMask(rows**2 + columns**2 <= radius**2, x - radius, y - radius, SHAPE)
    return Detection(mask, mask_to_polygon(mask), score, np.nan, np.nan, Location(), kind)


@pytest.fixture
def out(tmp_path):
    """A frame with five objects found, one confirmed, and two examples, the second one marked by a box."""
    confirmed = disc(20, 40, 6, 1.0, Kind.CONFIRMED)
    found = [disc(56 + 36 * k, 40, 7 + k, score, Kind.FOUND) for k, score in enumerate((0.9, 0.8, 0.62, 0.55, 0.5))]
    examples = [disc(40, 100, 9, 1.0, Kind.EXAMPLE), disc(200, 100, 3, 1.0, Kind.EXAMPLE)]
    marks = (
        ExampleMark(examples[0].polygon),
        ExampleMark(disc(90, 100, 7, 1.0, Kind.FOUND).polygon, negative=True),
        ExampleMark(box(196, 96, 205, 105), is_box=True),
    )
    record = FrameRecord(
        *("a.tif", "a", Location(), SHAPE),
        detections=(confirmed, *found, *examples),
        examples=marks,
        below=(disc(300, 40, 8, 0.3, Kind.FOUND),),
        threshold=0.5,
        floor=0.05,
    )
    return written(record, tmp_path)


def written(record: FrameRecord, out: Path) -> Path:
    journal = Journal(out / JOURNAL_FOLDER, "f")
    journal.write(record)
    facts = {"settings": Settings(min_mask_area=200).model_dump(), "seconds": {}}
    assemble(recorded(journal, [record.location]), out, facts=facts)
    return out


def test_headline_and_title_say_the_sum(out):
    page = write_report(out).read_text("utf-8")
    assert '<h1 id="headline">5 found + 1 confirmed + 2 marked = 8 objects on 1 frame</h1>' in page
    assert "<title>5 found + 1 confirmed + 2 marked = 8" in page


def test_examples_are_no_objects_of_the_sliders(out):
    content = gather(read_finished(out))
    (frame,) = content.frames
    assert (frame["kept"], frame["below"], frame["confirmed"], frame["marked"]) == (6, 1, 1, 2)
    assert content.overview.found == 5
    assert content.overview.clear + content.overview.doubtful == 5
    assert content.data["exampleAreas"] == [29, 253]
    # The marks, and what was made of the box.
    assert (frame["marks"], frame["made"]) == ([False, True, False, False], 1)


def test_the_page_begins_with_all_that_the_run_has_found(out):
    smallest = min(item.area for record in read_finished(out).records() for item in record.detections[1:6])
    assert smallest < 200  # Min Mask Area; the examples are smaller
    assert gather(read_finished(out)).data["minArea"] == smallest


def test_no_size_hides_what_lies_below_the_threshold(tmp_path: Path) -> None:
    record = FrameRecord(
        *("a.tif", "a", Location(), SHAPE),
        detections=(disc(20, 40, 7, 0.9, Kind.FOUND), disc(200, 100, 3, 1.0, Kind.EXAMPLE)),
        below=(disc(60, 40, 4, 0.3, Kind.FOUND), disc(120, 40, 3, 0.2, Kind.FOUND)),
        threshold=0.5,
        floor=0.05,
    )
    data = gather(read_finished(written(record, tmp_path))).data
    assert data["minArea"] == record.below[1].area  # smaller than Min Mask Area, as the example is


@pytest.mark.parametrize(("radius", "is_larger"), [(3, False), (5, True)])
def test_what_a_box_marks_is_as_large_as_what_was_made_of_it(tmp_path: Path, radius: int, is_larger: bool) -> None:
    # The candidates are of a radius of 4, and the box is larger than they are.
    record = FrameRecord(
        *("a.tif", "a", Location(), SHAPE),
        detections=(disc(200, 100, radius, 1.0, Kind.EXAMPLE),),
        examples=(ExampleMark(box(190, 90, 211, 111), is_box=True),),
        below=tuple(disc(20 + 36 * k, 40, 4, 0.3, Kind.FOUND) for k in range(6)),
        threshold=0.5,
        floor=0.05,
    )
    advice = " ".join(gather(read_finished(written(record, tmp_path))).overview.advice)
    assert ("examples are larger" in advice) is is_larger


def test_the_sum_follows_the_choice(out: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(write_report(out))
    headline, counter = page.locator("#headline"), page.locator(".counter")
    assert headline.inner_text() == "5 found + 1 confirmed + 2 marked = 8 objects on 1 frame"
    assert counter.inner_text() == "6 of 7 shown"
    slide(page, "threshold", 0.7)
    assert headline.inner_text() == "2 found + 1 confirmed + 2 marked = 5 objects on 1 frame; 8 in this run"
    assert counter.inner_text() == "3 of 7 shown"
    assert [page.locator(f"#{name}-count").inner_text() for name in ("clear", "doubtful")] == ["2", "0"]
    assert page.locator("#median-score").inner_text() == "0.85"
    page.locator("#min-area-number").fill("5000")
    until(page, "document.getElementById('shown-count').textContent === '1'")
    assert headline.inner_text() == "0 found + 1 confirmed + 2 marked = 3 objects on 1 frame; 8 in this run"
    page.locator("#reset").click()
    until(page, "document.getElementById('shown-count').textContent === '6'")
    assert headline.inner_text() == "5 found + 1 confirmed + 2 marked = 8 objects on 1 frame"


PATHS = """() => {
    const outlines = new Map();
    const strokes = [];
    const close = Path2D.prototype.closePath;
    Path2D.prototype.closePath = function () {
        outlines.set(this, (outlines.get(this) ?? 0) + 1);
        close.call(this);
    };
    const stroke = CanvasRenderingContext2D.prototype.stroke;
    CanvasRenderingContext2D.prototype.stroke = function (path) {
        // cards are drawn whenever they come into view
        if (!this.canvas.closest('#cards')) strokes.push(outlines.get(path));
        stroke.call(this, path);
    };
    document.getElementById('show-outlines').dispatchEvent(new Event('change'));
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    return frame().then(frame).then(() => strokes);
}"""


def test_many_objects_are_drawn_in_short_paths(tmp_path: Path, open_report: Callable[..., Page]) -> None:
    """Stroking one path takes longer than in proportion to its length: seconds for 20,000 objects."""
    places = [(x, y) for y in range(4, 116, 8) for x in range(4, 396, 8)]
    found = tuple(disc(x, y, 2, 0.9, Kind.FOUND) for x, y in places)
    record = FrameRecord(*("a.tif", "a", Location(), SHAPE), detections=found, threshold=0.5, floor=0.05)
    page = open_report(write_report(written(record, tmp_path)))
    drawn = page.evaluate(PATHS)
    assert sum(drawn) == 2 * len(found) == 1372  # in their colour, on a dark ground
    assert max(drawn) < 300
