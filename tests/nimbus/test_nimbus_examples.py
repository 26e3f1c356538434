"""Which annotations become examples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from contract_server.bench import DISCS, ring
from contract_server.store import Image
from shapely import Point

from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.nimbus.examples import place_of

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
    assert exemplars[3].box == (8, 9, 20, 21)
    assert exemplars[4].polygon is not None
    assert exemplars[4].polygon.area == 144


@pytest.mark.parametrize("coordinates", [SQUARE, SQUARE[::-2], [*SQUARE, SQUARE[0]]])
def test_what_the_rectangle_tool_has_drawn_is_a_box(empty: Bench, coordinates: list[dict[str, float]]) -> None:
    mark(empty, ["cell"], shape="rectangle", coordinates=coordinates)
    mark(empty, ["debris"], shape="rectangle", coordinates=[{**each, "y": each["y"] + 30} for each in coordinates])
    exemplars = empty.run(**{"Negative Tag": ["debris"]}).exemplars
    assert [(each.box, each.negative) for each in exemplars] == [((8, 9, 20, 21), False), ((8, 39, 20, 51), True)]


def test_a_rectangle_that_is_turned_is_an_outline(empty: Bench) -> None:
    turned = [{"x": 14, "y": 6}, {"x": 22, "y": 14}, {"x": 14, "y": 22}, {"x": 6, "y": 14}]
    mark(empty, ["cell"], shape="rectangle", coordinates=turned)
    (exemplar,) = empty.run().exemplars
    assert exemplar.polygon is not None
    assert exemplar.polygon.area == 128


@pytest.mark.parametrize("coordinates", [SQUARE[:1], [SQUARE[0], SQUARE[0]], [SQUARE[0], SQUARE[1]]])
def test_a_rectangle_without_area_is_left_out(empty: Bench, coordinates: list[dict[str, float]]) -> None:
    mark(empty, ["cell"], coordinates=ring(14, 14))
    mark(empty, ["cell"], shape="rectangle", coordinates=coordinates)
    outcome = empty.run()
    assert len(outcome.exemplars) == 1
    assert "was left out: " in outcome.texts("warning")[0]


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
    assert len(empty.found()) == 8  # on two frames; the four objects of the third are marked thrice each


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
        "1 annotation was left out for having both a Training Tag and a Negative Tag (XY 1, Z 1, Time 1, x 5, y 5); "
        "take one of them off.",
        "1 annotation was left out for lying at an XY, Z or Time that this dataset does not have (XY 100, Z 1, Time 1, "
        "x 5, y 5).",
    ]
    assert warnings[2].startswith("Examples: object at XY 1, Z 1, Time 1, x 14, y 15 was left out: of the shape 'line'")
    assert warnings[3].startswith("Examples: object at XY 1, Z 1, Time 1, x 14, y 9 was left out: an outline of fewer")


def test_an_example_is_called_by_where_it_is_in_the_app(empty: Bench) -> None:
    mark(empty, ["cell"], coordinates=SQUARE, location={"XY": 2, "Z": 0, "Time": 0})
    mark(empty, ["cell"], shape="point", coordinates=[{"x": 14.5, "y": 40.6, "z": 0}])
    mark(empty, ["cell"], shape="line", coordinates=SQUARE, location={"XY": 1})
    mark(empty, ["cell"], shape="line", coordinates=SQUARE)
    outcome = empty.run()
    assert [exemplar.label for exemplar in outcome.exemplars] == [
        "Example at XY 1, Z 1, Time 1, x 14, y 41",
        "Example at XY 3, Z 1, Time 1, x 14, y 15",
    ]
    assert outcome.texts("warning")[0].startswith(
        "Examples: 2 of 4 objects were left out (objects at XY 2, Z 1, Time 1, x 14, y 15; at XY 1, Z 1, Time 1, x 14, "
        "y 15): of the shape 'line'; "
    )


def test_of_many_the_first_places_are_listed(empty: Bench) -> None:
    mark(empty, ["cell"], coordinates=ring(14, 14))
    for _ in range(9):
        mark(empty, ["cell"], location={"XY": 3})
    (warning, *_) = empty.run().texts("warning")
    assert warning.startswith("9 annotations were left out for lying at an XY, Z or Time that this dataset does not")
    assert warning.count("XY 4, Z 1, Time 1, x 5, y 5") == 5
    assert warning.endswith("; …).")


def test_a_place_that_is_none() -> None:
    assert place_of({"location": {"XY": "left"}}) == "no valid XY, Z and Time"
    assert place_of({"location": {"Time": 3}, "coordinates": "none"}) == "XY 1, Z 1, Time 4"


def test_a_tag_may_have_a_comma_and_anything_else_in_its_name(empty: Bench) -> None:
    wanted, unwanted, result = 'cells, big (not "small")', "debris; dust, 2 % = ok: &?#", "found, übrig\\ #2"
    mark(empty, [wanted], coordinates=ring(14, 14))
    mark(empty, [unwanted], coordinates=ring(46, 16))
    mark(empty, ["cells"], coordinates=ring(48, 48))
    empty.job |= {"tags": [result], "connectTo": {"tags": [wanted], "channel": None}}
    outcome = empty.run(**{"Training Tag": [wanted], "Negative Tag": [unwanted]})
    assert outcome.code == 0, outcome.lines
    assert [exemplar.negative for exemplar in outcome.exemplars] == [False, True]
    assert len(empty.found(result)) == 11  # not the unwanted one
    again = empty.run(**{"Training Tag": [wanted], "Negative Tag": [unwanted]})
    assert again.messages[-1]["info"].startswith("0 added, 11 already there")
    assert len(empty.server.store.connections) > 0


def test_several_tags_in_one_text_are_no_tag_that_is_there(empty: Bench) -> None:
    mark(empty, ["cell"], coordinates=ring(14, 14))
    outcome = empty.run(**{"Training Tag": "cell, nucleus"})
    assert outcome.code == 2
    assert outcome.error.startswith("No annotation in this dataset has the Training Tag 'cell, nucleus'.")
    assert outcome.error.endswith("Several tags are given one by one, not with commas between.")


def test_each_chosen_tag_that_no_annotation_has_is_named(empty: Bench) -> None:
    mark(empty, ["cell"], coordinates=ring(14, 14))
    mark(empty, ["debris"], coordinates=ring(46, 16))
    form = {"Training Tag": ["cell", "nuclei"], "Negative Tag": ["wrnog, dust", "debris"]}
    outcome = empty.run(**form)
    assert outcome.code == 0
    assert outcome.texts("warning")[:2] == [
        "No annotation in this dataset has the Training Tag 'nuclei', so it has no effect. Check its spelling, or take "
        "it out of the field.",
        "No annotation in this dataset has the Negative Tag 'wrnog, dust', so it has no effect. Check its spelling, or "
        "take it out of the field. Several tags are given one by one, not with commas between.",
    ]
    assert len(outcome.texts("warning")) == 2 + len(empty.run().texts("warning"))


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
