"""Objects that are marked as examples: where they are added to the results, and where they are there already."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from contract_server.bench import DISCS, Bench, bright, discs, ring, white_layer
from contract_server.store import Image

if TYPE_CHECKING:
    from contract_server.web import ContractServer

SECOND = {"XY": 0, "Z": 1, "Time": 0}
THIRD = {"XY": 0, "Z": 2, "Time": 0}
EVERYWHERE = {"Batch Z": "all"}


@pytest.fixture(params=["max-merge", "constant"])
def slices(server: ContractServer, request: pytest.FixtureRequest) -> Bench:
    """Three slices that all show the four discs of the second, two of which are examples there."""
    image = Image({(0, z, 0, 0): discs() if z == 1 else np.full((64, 64), 100, "uint16") for z in range(3)})
    dataset = server.store.add_dataset(image, [white_layer(z={"type": request.param, "value": 1})])
    for row, column in DISCS[:2]:
        server.store.add_annotation(dataset, tags=["cell"], coordinates=ring(row, column), location=SECOND)
    return Bench(server, dataset, method=partial(bright, finds_examples=False))


def places(bench: Bench, **where: int) -> list[tuple[int, int]]:
    """Return the discs on which results lie in a slice, by their centres."""
    found = [each for each in bench.found() if each["location"] == {"XY": 0, "Time": 0, **where}]
    middles = [np.mean([[point["y"], point["x"]] for point in each["coordinates"]], axis=0) for each in found]
    return sorted(min(DISCS, key=lambda disc: float(np.abs(middle - disc).sum())) for middle in middles)


def by_slice(bench: Bench) -> dict[int, int]:
    return dict(Counter(each["location"]["Z"] for each in bench.found()))


def test_examples_are_results_where_another_slice_shows_them(slices: Bench) -> None:
    outcome = slices.run(**EVERYWHERE)
    assert outcome.messages[-1]["info"] == "10 added; 3 frames"
    assert [places(slices, Z=z) for z in range(3)] == [sorted(DISCS), sorted(DISCS[2:]), sorted(DISCS)]
    logged = [line for line in outcome.lines if "already there." in line]
    assert logged[1].endswith("2 added, 0 already there.")
    assert logged[2].endswith(
        "4 added, 0 already there. Of these objects 2 are examples, which no annotation outlines here."
    )
    assert not outcome.texts("warning")


def test_they_have_figures_and_connections_and_stay_on_a_rerun(slices: Bench) -> None:
    store = slices.server.store
    slices.job["connectTo"] = {"tags": ["well"], "channel": None}
    for z in range(3):
        store.add_annotation(slices.dataset, tags=["well"], location={"XY": 0, "Z": z, "Time": 0})
    slices.run(**EVERYWHERE)
    before = {each["_id"] for each in slices.found()}
    assert set(slices.values()) == before
    figures = [(each["Similarity"], each["Score"]) for each in slices.values().values()]
    assert Counter(figures) == {(None, 1.0): 4, (0.8, 0.9): 6}
    assert {each["childId"] for each in store.connections.values()} == before
    again = slices.run(**EVERYWHERE)
    assert again.messages[-1]["info"] == "0 added, 10 already there; 3 frames"
    assert {each["_id"] for each in slices.found()} == before
    assert len(store.connections) == len(slices.values()) == 10


def test_a_slice_on_which_nothing_else_is_found_is_not_called_empty(slices: Bench) -> None:
    for row, column in DISCS[2:]:
        slices.server.store.add_annotation(
            slices.dataset, tags=["cell"], coordinates=ring(row, column), location=SECOND
        )
    outcome = slices.run(**EVERYWHERE)
    assert by_slice(slices) == {0: 4, 2: 4}
    assert outcome.texts("warning") == []


def test_a_single_example_is_told_in_the_singular(slices: Bench) -> None:
    store = slices.server.store
    store.delete_annotations([next(key for key, each in store.annotations.items() if "cell" in each["tags"])])
    outcome = slices.run(**{"Batch Z": "1"})
    assert any(line.endswith(" 1 is an example, which no annotation outlines here.") for line in outcome.lines)


def test_what_is_marked_on_several_slices_is_added_on_the_others_only(slices: Bench) -> None:
    for row, column in DISCS[1:3]:
        slices.server.store.add_annotation(
            slices.dataset, tags=["cell"], coordinates=ring(row, column, 6), location=THIRD
        )
    assert slices.run(**EVERYWHERE).code == 0
    assert [places(slices, Z=z) for z in range(3)] == [
        sorted(DISCS),
        sorted(DISCS[2:]),
        sorted([DISCS[0], DISCS[3]]),
    ]


def test_a_mark_takes_the_place_of_the_result(slices: Bench) -> None:
    slices.run(**EVERYWHERE)
    slices.server.store.add_annotation(slices.dataset, tags=["cell"], coordinates=ring(*DISCS[0]), location=THIRD)
    assert slices.run(**EVERYWHERE).messages[-1]["info"] == "0 added, 9 already there, 1 removed; 3 frames"
    assert by_slice(slices) == {0: 4, 1: 2, 2: 3}


def test_unwanted_examples_are_results_nowhere(slices: Bench) -> None:
    slices.server.store.add_annotation(slices.dataset, tags=["wrong"], coordinates=ring(*DISCS[2]), location=SECOND)
    assert slices.run(**EVERYWHERE, **{"Negative Tag": ["wrong"]}).code == 0
    assert by_slice(slices) == {0: 3, 1: 1, 2: 3}


@pytest.fixture
def points(server: ContractServer) -> Bench:
    """Two positions that look the same; of the first, one disc is outlined and two are marked by points."""
    dataset = server.store.add_dataset(Image({(xy, 0, 0, 0): discs() for xy in range(2)}), [white_layer()])
    server.store.add_annotation(dataset, tags=["cell"], coordinates=ring(*DISCS[0]))
    for row, column in DISCS[1:3]:
        server.store.add_annotation(
            dataset, tags=["cell"], shape="point", coordinates=[{"x": column + 0.5, "y": row + 0.5}]
        )
    return Bench(server, dataset, method=partial(bright, finds_examples=False))


def by_position(bench: Bench, tag: str) -> dict[int, int]:
    return dict(Counter(each["location"]["XY"] for each in bench.found(tag) if each["shape"] == "polygon"))


def test_what_a_point_marks_is_outlined(points: Bench) -> None:
    outcome = points.run()
    assert outcome.messages[-1]["info"] == "7 added; 2 frames"
    assert places(points, XY=0, Z=0) == sorted(DISCS[1:])
    assert places(points, XY=1, Z=0) == sorted(DISCS)
    assert not outcome.texts("warning")
    assert points.run().messages[-1]["info"] == "0 added, 7 already there; 2 frames"


@pytest.mark.parametrize("tags", [["cell"], ["found", "cell"]])
def test_a_point_with_a_tag_of_the_results_stays_a_point(points: Bench, tags: list[str]) -> None:
    points.job["tags"] = tags
    outcome = points.run()
    assert outcome.messages[-1]["info"] == "5 added; 2 frames"
    assert by_position(points, "cell") == {0: 2, 1: 4}
    assert outcome.texts("warning")[1:] == [
        "Points stay points where the results get their tag 'cell' too, so that no object is counted twice (2 of the "
        "examples); to get outlines of them, give the tool another tag for its results."
    ]


def test_points_of_what_is_not_wanted_are_not_spoken_of(points: Bench) -> None:
    store = points.server.store
    coordinates = [{"x": DISCS[3][1] + 0.5, "y": DISCS[3][0] + 0.5}]
    store.add_annotation(points.dataset, tags=["wrong"], shape="point", coordinates=coordinates)
    points.job["tags"] = ["wrong"]
    outcome = points.run(**{"Negative Tag": ["wrong"]})
    assert by_position(points, "wrong") == {0: 2, 1: 3}
    assert not [text for text in outcome.texts("warning") if "Points" in text]


def boxed(bench: Bench) -> None:
    """Make rectangles around the discs of the points."""
    for each in bench.server.store.annotations.values():
        if each["shape"] == "point":
            x, y = (each["coordinates"][0][axis] for axis in "xy")
            each |= {"shape": "rectangle", "coordinates": [{"x": x - 8, "y": y - 8}, {"x": x + 8, "y": y + 8}]}


def test_what_a_rectangle_marks_is_outlined(points: Bench) -> None:
    boxed(points)
    outcome = points.run()
    assert outcome.messages[-1]["info"] == "7 added; 2 frames"
    assert places(points, XY=0, Z=0) == sorted(DISCS[1:])
    assert not outcome.texts("warning")
    assert points.run().messages[-1]["info"] == "0 added, 7 already there; 2 frames"


def test_a_rectangle_with_a_tag_of_the_results_stays_one(points: Bench) -> None:
    boxed(points)
    points.job["tags"] = ["found", "cell"]
    outcome = points.run()
    assert outcome.messages[-1]["info"] == "5 added; 2 frames"
    assert by_position(points, "found") == {0: 1, 1: 4}
    assert outcome.texts("warning")[1:] == [
        "Rectangles stay rectangles where the results get their tag 'cell' too, so that no object is counted twice (2 "
        "of the examples); to get outlines of them, give the tool another tag for its results."
    ]
