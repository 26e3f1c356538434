"""Whole jobs with a quick segmenter: what comes out, once, whatever happens on the way."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from contract_server.bench import bright, ring, white_layer
from shapely import Polygon

from sam2_fewshot.nimbus.examples import location_on
from sam2_fewshot.nimbus.job import built_for_gpu

if TYPE_CHECKING:
    from contract_server.bench import Bench


def test_every_find_is_in_the_dataset_once_with_its_figures(bench: Bench) -> None:
    outcome = bench.run()
    assert outcome.code == 0, outcome.lines
    found = bench.found()
    assert len(found) == 12
    assert {(f["location"]["XY"], f["location"]["Z"], f["location"]["Time"]) for f in found} == {
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
    }
    for each in found:
        outline = Polygon([(point["x"], point["y"]) for point in each["coordinates"]])
        assert outline.is_valid
        assert each["coordinates"][0] != each["coordinates"][-1]
        assert each["shape"] == "polygon"
        assert each["channel"] == 0
        assert abs(outline.area - 149) < 10
        values = bench.values()[each["_id"]]
        assert values == {"Similarity": 0.8, "Score": 0.9, "Predicted IoU": None, "Area": 149}
    assert outcome.messages[-1] == {
        "progress": 1.0,
        "title": "Done",
        "info": "12 added; 3 frames",
    }


def test_outlines_lie_on_pixel_borders_not_half_a_pixel_off(bench: Bench) -> None:
    bench.run()
    middles = sorted(
        tuple(np.round(np.mean([[p["x"], p["y"]] for p in each["coordinates"]], axis=0), 1).tolist())
        for each in bench.found()
        if each["location"]["XY"] == 0
    )
    assert middles == [(14.5, 14.5), (16.5, 46.5), (48.5, 14.5), (48.5, 48.5)]


def test_layers_that_show_nothing_are_refused(bench: Bench) -> None:
    (collection,) = bench.server.store.collections.values()
    collection["meta"]["layers"] = [white_layer(channel=1), white_layer(channel=0, visible=False)]
    outcome = bench.run()
    assert outcome.code == 2
    assert outcome.error == (
        "The visible layers show nothing on the frames to search: their channels, or the slices that they are set to, "
        "are not in this dataset. Switch on a layer that shows the objects, or change the channel or the slices of "
        "one, and run the tool again."
    )
    assert not outcome.texts("warning")
    assert not bench.server.count("GET", "region")
    collection["meta"]["layers"][1]["visible"] = True
    assert bench.run().messages[-1]["info"] == "12 added; 3 frames"


@pytest.mark.parametrize(
    ("offset", "empty", "left_out", "learned"),
    [(-1, "XY 1", " 2 examples were left out for lying there.", {1}), (1, "XY 3", "", {0, 1})],
)
def test_frames_on_which_the_layers_show_nothing_are_told_once(
    bench: Bench, offset: int, empty: str, left_out: str, learned: set[int]
) -> None:
    (collection,) = bench.server.store.collections.values()
    collection["meta"]["layers"] = [white_layer(xy={"type": "offset", "value": offset})]
    store = bench.server.store
    store.add_annotation(bench.dataset, tags=["cell"], coordinates=ring(14, 14), location={"XY": 1, "Z": 0, "Time": 0})
    said = (
        f"The visible layers show nothing on 1 of 3 frames ({empty}): their channels, or the slices that they are set "
        f"to, are not in this dataset. There nothing is searched, and what was found before stays.{left_out}"
    )
    outcome = bench.run()
    assert outcome.code == 0
    assert outcome.texts("warning") == [said]
    assert outcome.messages[-1]["info"].endswith("; 2 frames")
    assert {location_on(each).xy for each in outcome.exemplars} == learned
    alone = bench.run(**{"Batch XY": empty[-1]})
    assert alone.code == 2
    assert "nothing on the frames to search" in alone.error


def test_frames_on_which_the_layers_show_nothing_any_more_keep_their_results(bench: Bench) -> None:
    bench.run()
    before = {each["_id"] for each in bench.found()}
    (collection,) = bench.server.store.collections.values()
    collection["meta"]["layers"] = [white_layer(xy={"type": "offset", "value": 1})]
    store = bench.server.store
    store.add_annotation(bench.dataset, tags=["cell"], coordinates=ring(14, 14), location={"XY": 1, "Z": 0, "Time": 0})
    bench.method = partial(bright, level=255)
    assert bench.run().messages[-1]["info"] == "0 added, 8 removed; 2 frames"
    assert {each["_id"] for each in bench.found()} < before
    assert {each["location"]["XY"] for each in bench.found()} == {2}


def test_examples_that_no_layer_shows_are_refused(bench: Bench) -> None:
    (collection,) = bench.server.store.collections.values()
    collection["meta"]["layers"] = [white_layer(xy={"type": "offset", "value": -1})]
    outcome = bench.run()
    assert outcome.code == 2
    assert outcome.error.startswith("The visible layers show nothing on the frames of the examples: their channels")


def test_of_examples_that_no_layer_shows_those_of_what_is_not_wanted_are_not_enough(bench: Bench) -> None:
    (collection,) = bench.server.store.collections.values()
    collection["meta"]["layers"] = [white_layer(xy={"type": "offset", "value": -1})]
    store = bench.server.store
    store.add_annotation(bench.dataset, tags=["dirt"], coordinates=ring(14, 14), location={"XY": 1, "Z": 0, "Time": 0})
    outcome = bench.run(**{"Negative Tag": ["dirt"]})
    assert outcome.code == 2
    assert outcome.error.startswith("The visible layers show nothing on the frames of the examples: their channels")


def test_examples_that_no_layer_shows_are_added_nowhere(bench: Bench) -> None:
    (collection,) = bench.server.store.collections.values()
    collection["meta"]["layers"] = [white_layer(xy={"type": "offset", "value": -2})]
    store = bench.server.store
    store.add_annotation(bench.dataset, tags=["cell"], coordinates=ring(14, 14), location={"XY": 2, "Z": 0, "Time": 0})
    assert bench.run().code == 0
    assert {each["location"]["XY"] for each in bench.found()} == {2}


def test_a_second_run_adds_nothing_and_says_so(bench: Bench) -> None:
    bench.run()
    before = {each["_id"] for each in bench.found()}
    outcome = bench.run()
    assert outcome.code == 0
    assert {each["_id"] for each in bench.found()} == before
    assert len(bench.values()) == 12
    assert outcome.messages[-1]["info"] == "0 added, 12 already there; 3 frames"


def test_the_model_and_the_device_are_named(bench: Bench) -> None:
    learning = [message for message in bench.run().messages if message.get("title") == "Learning the examples"]
    assert learning[0]["info"] == "2 examples, filters on CPU"


def test_where_the_threshold_lies_is_told_if_it_was_chosen(bench: Bench) -> None:
    (line,) = [line for line in bench.run(**{"Batch XY": "1"}).lines if line.startswith("XY 1: ")]
    assert line == "XY 1: 5 candidates, 4 added, 0 already there."
    bench.method = lambda: bright(score=None)
    planes = next(iter(bench.server.store.images.values())).planes
    planes[(1, 0, 0, 0)][30:] -= planes[(1, 0, 0, 0)][30:] // 10
    outcome = bench.run(**{"Batch XY": "2", "Threshold Mode": "top", "Top Percent": 50})
    (line,) = [line for line in outcome.lines if line.startswith("XY 2: ")]
    assert line.startswith("XY 2: 5 candidates, 2 added, 0 already there. The threshold is 1.000: ")
    assert "the best 50 %" in line


@pytest.mark.parametrize(
    ("version", "system", "machine", "expected"),
    [
        ("2.9.0", "Linux", "x86_64", True),
        ("2.9.0+cu126", "Linux", "aarch64", True),
        ("2.9.0+cpu", "Linux", "x86_64", False),
        ("2.9.0", "Linux", "aarch64", False),
        ("2.9.0", "Darwin", "arm64", False),
        ("", "Linux", "x86_64", False),
    ],
)
def test_a_gpu_is_missed_only_where_torch_could_use_one(
    version: str, system: str, machine: str, expected: bool
) -> None:
    assert built_for_gpu(version, system, machine) is expected
    assert isinstance(built_for_gpu(), bool)
