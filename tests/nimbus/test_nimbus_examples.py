"""Which annotations become examples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from contract_server.bench import DISCS, ring
from contract_server.store import Image
from shapely import Point

from sam2_fewshot.geometry.outlines import polygon_to_mask

if TYPE_CHECKING:
    from contract_server.bench import Bench

SQUARE = [{"x": 8, "y": 9}, {"x": 20, "y": 9}, {"x": 20, "y": 21}, {"x": 8, "y": 21}]


def mark(bench: Bench, tags: list[str], **fields: Any) -> None:
    bench.server.store.add_annotation(bench.dataset, tags=tags, **fields)


@pytest.fixture
def empty(bench: Bench) -> Bench:
    bench.server.store.annotations.clear()
    return bench


def test_any_of_the_tags_anywhere_in_any_shape(empty: Bench) -> None:
    mark(empty, ["cell", "other"], coordinates=ring(14, 14))
    mark(empty, ["nucleus"], coordinates=SQUARE, location={"XY": 2, "Z": 0, "Time": 0})
    mark(empty, ["cell"], shape="rectangle", coordinates=SQUARE[::2], location={"XY": 1})
    mark(empty, ["cell", "nucleus"], shape="point", coordinates=[{"x": 14.5, "y": 14.5, "z": 0}])
    mark(empty, ["debris"], coordinates=ring(46, 16))
    mark(empty, ["other"], coordinates=ring(48, 48))
    outcome = empty.run(**{"Training Tag": ["cell", "nucleus"], "Negative Tag": ["debris"], "Batch XY": "2"})
    assert outcome.code == 0, outcome.lines
    exemplars = outcome.exemplars
    assert [(e.image.location.xy, e.negative) for e in exemplars] == [
        (0, False),
        (0, False),
        (0, True),
        (1, False),
        (2, False),
    ]
    assert exemplars[1].point == (14.5, 14.5)
    assert exemplars[3].polygon is not None
    assert exemplars[3].polygon.area == exemplars[4].polygon.area == 144


def test_an_outline_of_a_mask_gives_back_the_mask(empty: Bench) -> None:
    mark(empty, ["cell"], coordinates=ring(14, 14, 7.2))
    polygon = empty.run().exemplars[0].polygon
    assert polygon is not None
    inside = [[polygon.covers(Point(c + 0.5, r + 0.5)) for c in range(30)] for r in range(30)]
    assert (polygon_to_mask(polygon, (64, 64)).full()[:30, :30] == inside).all()
    assert inside[14][7]
    assert not inside[14][6]


def test_twelve_tagged_among_two_thousand_are_all_that_is_transferred(empty: Bench) -> None:
    for number in range(2000):
        mark(empty, ["cell"] if number % 167 == 3 else ["rest"], coordinates=ring(*DISCS[number % 4]))
    outcome = empty.run()
    assert outcome.code == 0
    assert len(outcome.exemplars) == 12
    assert len(empty.found()) == 12


def test_more_examples_than_a_page_holds(empty: Bench) -> None:
    for _ in range(14):
        mark(empty, ["cell"], coordinates=ring(14, 14))
    assert len(empty.run(replace(empty.means, page=7)).exemplars) == 14


def test_what_cannot_be_used_is_left_out_and_said(empty: Bench) -> None:
    mark(empty, ["cell"], coordinates=ring(14, 14))
    mark(empty, ["cell"], shape="line", coordinates=SQUARE)
    mark(empty, ["cell"], coordinates=SQUARE[:2])
    mark(empty, ["cell"], location={"XY": 99, "Z": 0, "Time": 0})
    mark(empty, ["cell", "debris"])
    outcome = empty.run(**{"Negative Tag": "debris"})
    assert outcome.code == 0
    assert len(outcome.exemplars) == 1
    warnings = outcome.texts("warning")
    assert warnings[:2] == [
        "1 annotation was left out for having both a Training Tag and a Negative Tag; take one of them off.",
        "1 annotation was left out for lying at an XY, Z or Time that this dataset does not have.",
    ]
    assert "of the shape 'line'" in warnings[2]
    assert "an outline of fewer than 3 points" in warnings[3]


def test_no_example_is_an_error_that_says_what_to_do(empty: Bench) -> None:
    mark(empty, ["rest"])
    outcome = empty.run()
    assert outcome.code == 2
    assert outcome.error.startswith("No annotation in this dataset has the Training Tag 'cell'. Outline 5 to 20")


def test_no_usable_example_says_why(empty: Bench) -> None:
    mark(empty, ["cell"], shape="line", coordinates=SQUARE)
    outcome = empty.run()
    assert outcome.code == 2
    assert "No annotation with the Training Tag 'cell' can serve as an example: of the shape" in outcome.error


def test_nothing_heavy_happens_before_the_parameters_are_checked(bench: Bench) -> None:
    outcome = bench.run(**{"Similarity Threshold": "high"})
    assert outcome.code == 2
    assert "Similarity Threshold" in outcome.error
    assert not bench.server.seen
    outcome = bench.run(**{"Batch XY": "2-9"})
    assert outcome.code == 2
    assert "9" in outcome.error
    assert not bench.server.count("GET", "region")
    bench.job["channel"] = 4
    outcome = bench.run()
    assert outcome.code == 2
    assert "channel 5" in outcome.error


def test_one_plane_without_anything_else(bench: Bench) -> None:
    from contract_server.bench import discs

    dataset = bench.server.store.add_dataset(Image({(0, 0, 0, 0): discs()}), view=False)
    bench.dataset = dataset
    mark(bench, ["cell"], coordinates=ring(14, 14), location={})
    bench.job.update(tags=None, channel=None, tile=None, connectTo=None)
    outcome = bench.run(**{"Batch XY": None})
    assert outcome.code == 0, outcome.lines
    assert "in no collection yet" in outcome.texts("warning")[0]
    own = [each for each in bench.server.store.annotations.values() if not each["tags"]]
    assert len(own) == 4
    assert all(each["location"] == {"XY": 0, "Z": 0, "Time": 0} and each["channel"] == 0 for each in own)
    assert bench.run(**{"Batch XY": ""}).messages[-1]["info"].startswith("0 added, 4 already there")
