"""What the user marked is in the report's counts, and neither a slider nor a verdict applies to it."""

from __future__ import annotations

import numpy as np
import pytest
from shapely import box

from sam2_fewshot import Settings
from sam2_fewshot.annotations.record import ExampleMark, FrameRecord
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.output.journal import JOURNAL_FOLDER, Journal
from sam2_fewshot.records import Detection, InstanceMask, Kind, Location
from sam2_fewshot.report import write_report
from sam2_fewshot.report.content import gather

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
    journal = Journal(tmp_path / JOURNAL_FOLDER, "f")
    journal.write(record)
    facts = {"settings": Settings(min_mask_area=200).model_dump(), "seconds": {}}
    assemble(journal.records(), tmp_path, facts=facts)
    return tmp_path


def test_headline_and_title_say_the_sum(out):
    page = write_report(out).read_text("utf-8")
    assert "<h1>5 found + 1 confirmed + 2 marked = 8 objects on 1 frame</h1>" in page
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
