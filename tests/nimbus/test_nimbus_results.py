"""What is there already, figures as property values, and connections."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contract_server.bench import DISCS, Bench, bright, ring
from contract_server.faults import SAVING
from contract_server.web import Fault
from shapely import Polygon

from sam2_fewshot.annotations.convert import read_records
from sam2_fewshot.annotations.nimbus import JOB_PROPERTY, extent_of, location_of, points_of
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.records import Location

if TYPE_CHECKING:
    from pathlib import Path

    from bright import BrightMethod


def surer() -> BrightMethod:
    """Finds the same with a higher score."""
    return bright(score=0.95, predicted_iou=0.5)


@pytest.mark.parametrize("shape", ["polygon", "point", "rectangle"])
def test_objects_that_carry_the_output_tags_already_are_left_alone(bench: Bench, shape: str) -> None:
    row, column = DISCS[3]
    coordinates = {
        "polygon": ring(row, column, 6),
        "point": ring(row, column, 2)[:1],
        "rectangle": [{"x": column - 6, "y": row - 6}, {"x": column + 7, "y": row + 7}],
    }
    store = bench.server.store
    kept = store.add_annotation(bench.dataset, tags=["found", "mine"], coordinates=coordinates[shape], shape=shape)
    # The same place with other tags, or on another frame, is another thing.
    store.add_annotation(bench.dataset, tags=["mine"], coordinates=ring(*DISCS[2]))
    outcome = bench.run()
    assert outcome.messages[-1]["info"] == "11 added, 1 already there; 3 frames"
    assert kept in {each["_id"] for each in bench.found()}
    assert len(bench.found()) == 12
    assert (kept in bench.values()) == (shape == "polygon")  # which is what the figures are of


def test_a_job_date_tag_makes_a_set_of_its_own(bench: Bench) -> None:
    bench.job["tags"] = ["found", "2026-11-22"]
    bench.run()
    bench.job["tags"] = ["found", "2026-11-23"]
    bench.run()
    assert len(bench.found()) == 24
    bench.run()
    assert len(bench.found()) == 24


def test_figures_are_of_one_property_that_the_collection_names(bench: Bench) -> None:
    bench.run()
    bench.run()
    (listed,) = bench.server.store.list_properties()
    assert listed["name"] == JOB_PROPERTY
    assert listed["shape"] == "polygon"
    assert listed["tags"] == {"tags": [], "exclusive": False}
    assert len(bench.server.store.properties) == 1


def test_an_export_of_what_was_found_has_the_figures(bench: Bench, tmp_path: Path) -> None:
    bench.method = surer
    bench.run()
    store = bench.server.store
    export = {
        "annotations": bench.found(),
        "annotationProperties": store.list_properties(),
        "annotationPropertyValues": {each["annotationId"]: each["values"] for each in store.values},
    }
    path = tmp_path / "export.json"
    path.write_text(json.dumps(export))
    found = [item for record in read_records(path) for item in record.detections]
    assert [(item.score, item.predicted_iou) for item in found] == [(0.95, 0.5)] * 12
    assert all(np.isfinite(item.similarity) for item in found)


def test_all_collections_of_the_user_name_the_property(bench: Bench) -> None:
    store = bench.server.store
    ids = [store.new_id() for _ in range(3)]
    for key, owner in zip(ids, [store.views[0]["owner"], store.views[0]["owner"], "somebody else"], strict=True):
        store.collections[key] = {"_id": key, "meta": {}}
        store.views.append({**store.views[0], "_id": store.new_id(), "configurationId": key, "owner": owner})
    bench.server.faults = [Fault("PUT", ids[0], 403)]
    assert bench.run().code == 0
    named = [collection["meta"].get("propertyIds", []) for collection in store.collections.values()]
    assert [len(each) for each in named] == [1, 0, 1, 0]
    assert named[0] == named[2]


@pytest.mark.parametrize("is_own", [True, False], ids=["of one's own", "of somebody else"])
def test_a_second_collection_gets_the_property_of_the_first(bench: Bench, is_own: bool) -> None:
    store = bench.server.store
    assert bench.run(**{"Batch XY": "1"}).code == 0
    ((first, collection),) = store.collections.items()
    second, (view,) = store.new_id(), store.views
    store.collections[second] = {"_id": second, "meta": {**collection["meta"], "propertyIds": []}}
    store.collections[second]["meta"]["tools"] = [{"id": "other"}]
    store.views.append({**view, "_id": store.new_id(), "configurationId": second})
    if not is_own:
        view["owner"] = "somebody else"
    bench.job["id"] = "other"
    bench.method = surer
    assert bench.run().code == 0
    named = [store.collections[key]["meta"]["propertyIds"] for key in (first, second)]
    assert named[0] == named[1] == list(store.properties)
    assert len(named[0]) == 1
    assert {figures["Score"] for figures in bench.values().values()} == {0.95}


def test_where_no_collection_can_be_read_the_job_says_that(bench: Bench) -> None:
    bench.server.store.collections.clear()
    outcome = bench.run()
    assert outcome.code == 0
    assert outcome.texts("warning") == [
        "The layers of this dataset cannot be read, so its channels are shown in colours of our own.",
        "Similarity and area of the objects are not saved, because none of the dataset's collections can be read. "
        "Ask their owners for access, or add the dataset to a collection of your own.",
    ]


def test_a_dataset_that_may_only_be_read_is_refused_at_once(bench: Bench) -> None:
    bench.server.store.folders[bench.dataset]["_accessLevel"] = 0
    outcome = bench.run()
    assert outcome.code == 2
    assert outcome.error.startswith("You may look at this dataset but not change it")
    assert len(bench.server.seen) == 1


def test_properties_of_others_in_the_collection_stay(bench: Bench) -> None:
    store = bench.server.store
    (collection,) = store.collections.values()
    other = store.create_property({"name": "Area", "shape": "polygon"})["_id"]
    collection["meta"]["propertyIds"] = [other]
    bench.run()
    assert collection["meta"]["propertyIds"][0] == other
    assert len(collection["meta"]["propertyIds"]) == 2


def test_figures_that_have_changed_replace_the_old_ones(bench: Bench) -> None:
    bench.run()
    store = bench.server.store
    own = next(iter(bench.values()))
    for value in store.values:
        value["values"]["f" * 24] = {"Mean": 3}  # of another property, to be left alone
    bench.method = surer
    outcome = bench.run(**{"Batch XY": "1, 2"})
    assert outcome.messages[-1]["info"] == "0 added, 8 already there; 2 frames"
    (key,) = store.collections[next(iter(store.collections))]["meta"]["propertyIds"]
    scores = {value["annotationId"]: value["values"][key]["Score"] for value in store.values}
    places = {each["_id"]: each["location"]["XY"] for each in bench.found()}
    assert {places[one]: score for one, score in scores.items()} == {0: 0.95, 1: 0.95, 2: 0.9}
    assert len(store.values) == 12
    assert all(value["values"]["f" * 24] == {"Mean": 3} for value in store.values)
    assert own in scores


@pytest.mark.parametrize("smoothing", [0, 0.3, 5])
def test_the_area_is_that_of_the_outline_that_is_saved(bench: Bench, smoothing: float) -> None:
    bench.run(Smoothing=smoothing)
    figures = bench.values()
    for each in bench.found():
        assert figures[each["_id"]]["Area"] == polygon_to_mask(Polygon(points_of(each)), (64, 64)).area
    assert sum(each["Area"] < 120 for each in figures.values()) == (12 if smoothing == 5 else 0)  # of discs of 149 px


def test_figures_change_with_the_detection_where_the_outline_is_nearly_the_same(bench: Bench) -> None:
    bench.run()
    row, column = DISCS[3]
    (image,) = bench.server.store.images.values()
    image.planes[(0, 0, 0, 0)][row, column + 7] = 100
    before = bench.values()
    bench.method = surer
    assert bench.run(**{"Batch XY": "1"}).messages[-1]["info"] == "0 added, 4 already there; 1 frame"
    places = {each["_id"]: each["location"]["XY"] for each in bench.found()}
    after = bench.values()
    assert {key: (each["Score"], each["Area"]) for key, each in after.items()} == {
        key: (0.95 if places[key] == 0 else 0.9, each["Area"]) for key, each in before.items()
    }


def test_figures_that_another_job_takes_out_are_saved_once_more(bench: Bench) -> None:
    bench.server.faults = [Fault("POST", SAVING["figures"], bench.server.store.values.clear, skip=2)]
    assert bench.run().code == 0
    assert set(bench.values()) == {each["_id"] for each in bench.found()}
    assert len(bench.found()) == 12


@pytest.mark.parametrize("moment", [("POST", "^file$"), ("DELETE", "^annotation_property_values$")])
def test_figures_that_another_tool_saves_while_they_are_replaced_stay(bench: Bench, moment: tuple[str, str]) -> None:
    bench.run()
    replacing, saved = threading.Event(), threading.Event()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(bench.run(**{"Batch XY": "1"}).code))

    def held() -> None:
        replacing.set()
        assert saved.wait(30)

    def begin(number: int) -> None:
        if number == 3:  # the last frame of the other tool
            thread.start()
            assert replacing.wait(30)

    bench.method = surer
    other = Bench(bench.server, bench.dataset, lambda: bright(on_find=begin), job={"tags": ["other"], "channel": 0})
    bench.server.faults = [Fault(*moment, held)]
    assert other.run().code == 0
    saved.set()
    thread.join(30)
    assert codes == [0]
    assert len(other.found("other")) == 12
    assert set(bench.values()) == {each["_id"] for each in [*other.found("other"), *bench.found()]}
    assert [file for file in bench.server.store.files.values() if file["name"].endswith("json")] == []


@pytest.mark.parametrize("path", ["^annotation_property_values$", "annotation_property_values/multiple"])
def test_figures_survive_a_job_that_ends_while_it_replaces_them(bench: Bench, path: str) -> None:
    bench.run()
    before = set(bench.values())
    bench.method = surer
    method = "DELETE" if path.endswith("s$") else "POST"
    bench.server.faults = [Fault(method, path, 500)]
    assert bench.run(**{"Batch XY": "1"}).code == 1
    bench.method = bright
    outcome = bench.run(**{"Batch XY": "3"})
    assert outcome.code == 0
    assert set(bench.values()) == before
    changed = 0.95 if method == "POST" else 0.9
    assert sorted(value["Score"] for value in bench.values().values()) == [0.9] * 8 + [changed] * 4
    assert [file["name"] for file in bench.server.store.files.values() if file["name"].endswith("json")] == []


@pytest.mark.parametrize(
    ("trouble", "restored"),
    [
        (Fault("POST", "annotation_property_values/multiple", 500), True),  # at the end it is tried once more
        (Fault("GET", "^file/.*/download", 403), False),
        (Fault("GET", "^item$", 500, times=5), False),
    ],
    ids=["put back", "fetch", "look up"],
)
def test_figures_that_cannot_be_put_back_at_once_are_kept(bench: Bench, trouble: Fault, restored: bool) -> None:
    bench.run()
    before = set(bench.values())
    bench.method = surer
    bench.server.faults = [Fault("POST", "annotation_property_values/multiple", 500)]
    assert bench.run(**{"Batch XY": "1"}).code == 1
    assert not bench.values(), "their only copy is the file"
    bench.method = bright
    bench.server.faults = [replace(trouble)]
    assert bench.run(**{"Batch XY": "3"}).code == 0
    assert (set(bench.values()) == before) == restored
    assert bench.run(**{"Batch XY": "3"}).code == 0
    assert set(bench.values()) == before
    assert [file["name"] for file in bench.server.store.files.values() if file["name"].endswith("json")] == []


def test_a_damaged_store_of_figures_is_thrown_away(bench: Bench) -> None:
    bench.run()
    store = bench.server.store
    (item,) = {file["itemId"] for file in store.files.values()}
    own = f'{{"property": "{next(iter(store.properties))}", "values": {{"a": %s}}}}'
    damaged = ("{", "[1]", '{"property": "other", "values": {}}', own % 1, own % '{"Score": [1]}')
    for content in (text.encode() for text in damaged):
        store.create_file({"parentId": item, "name": "figures.json", "size": str(len(content))}, content)
        assert bench.run().code == 0
        assert len(store.files) == 1
        assert len(bench.values()) == 12


def test_an_outline_that_differs_by_a_rounding_gets_its_figures_too(bench: Bench) -> None:
    bench.server.faults = [Fault("POST", "annotation_property_values/multiple", 500)]
    assert bench.run().code == 1
    assert not bench.server.store.values
    for each in bench.found():
        each["coordinates"] = [{"x": point["x"] + 0.01, "y": point["y"]} for point in each["coordinates"]]
    bench.server.faults = []
    assert bench.run().code == 0
    assert set(bench.values()) == {each["_id"] for each in bench.found()}
    bench.method = surer
    assert bench.run().code == 0
    assert [value["Score"] for value in bench.values().values()] == [0.95] * 12


@pytest.mark.parametrize("radius", [5.6, 6.75])
def test_an_outline_that_the_user_has_mended_gets_new_figures(bench: Bench, radius: float) -> None:
    bench.run()
    mended = bench.found()[0]
    row, column = np.mean([[point["y"], point["x"]] for point in mended["coordinates"]], axis=0).round() - 0.5
    bench.server.store.edit_annotation(mended["_id"], {"coordinates": ring(row, column, radius)})
    bench.method = surer
    assert bench.run().messages[-1]["info"] == "0 added, 12 already there; 3 frames"
    figures = bench.values()[mended["_id"]]
    area = polygon_to_mask(Polygon(points_of(bench.server.store.annotations[mended["_id"]])), (64, 64)).area
    assert (figures["Score"], figures["Predicted IoU"], figures["Area"]) == (0.95, 0.5, area)
    assert area < 149


def test_a_collection_that_may_not_be_changed_costs_the_figures_only(bench: Bench) -> None:
    store = bench.server.store
    put = store.put_metadata
    from contract_server.store import refuse

    def forbidden(*given: Any) -> Any:
        raise refuse(403, "Write access denied for upenn_collection.", "access")

    store.put_metadata = forbidden  # type: ignore[method-assign]
    outcome = bench.run()
    assert outcome.code == 0
    assert "Similarity and area of the objects are not saved, because the dataset's" in outcome.texts("warning")[0]
    assert len(bench.found()) == 12
    assert not store.values
    assert not store.properties, "one that no collection names is found by nobody"
    store.put_metadata = put  # type: ignore[method-assign]
    assert bench.run().code == 0
    assert len(bench.values()) == 12


@pytest.mark.parametrize("moment", [("POST", "^annotation_property$"), ("PUT", "metadata")])
def test_an_error_of_the_server_is_not_taken_for_a_lack_of_rights(bench: Bench, moment: tuple[str, str]) -> None:
    bench.server.faults = [Fault(*moment, 500)]
    outcome = bench.run()
    assert outcome.code == 0
    (warning,) = outcome.texts("warning")
    assert warning.startswith(
        "Similarity and area of the objects are not saved. NimbusImage had an error of its own while"
    )
    assert "write access" not in warning
    assert bench.run().code == 0
    assert len(bench.values()) == 12


def test_each_find_is_connected_to_the_nearest_on_its_frame_once(bench: Bench) -> None:
    store = bench.server.store
    for xy in range(3):
        place = {"XY": xy, "Z": 0, "Time": 0}
        store.add_annotation(bench.dataset, tags=["well"], coordinates=ring(30, 30), channel=0, location=place)
    bench.job["connectTo"] = {"tags": ["well"], "channel": None}
    for _ in range(2):
        assert bench.run().code == 0
        assert sorted(c["childId"] for c in store.connections.values()) == sorted(f["_id"] for f in bench.found())
    for connection in store.connections.values():
        ends = [store.annotations[connection[end]]["location"] for end in ("childId", "parentId")]
        assert ends[0] == ends[1]
    assert bench.server.count("POST", "connectTo") == 3


def test_only_what_the_tool_connects_to_counts_as_connected(bench: Bench) -> None:
    store = bench.server.store
    for xy in range(3):
        for tag, channel in (("well", 0), ("nucleus", 0), ("nucleus", 1)):
            place = {"XY": xy, "Z": 0, "Time": 0}
            store.add_annotation(bench.dataset, tags=[tag], coordinates=ring(30, 30), channel=channel, location=place)

    def connected(tag: str, channel: int) -> int:
        ends = [store.annotations[each["parentId"]] for each in store.connections.values()]
        return sum(each["tags"] == [tag] and each["channel"] == channel for each in ends)

    bench.job["connectTo"] = {"tags": ["well"], "channel": None}
    bench.run()
    track = dict(zip(("childId", "parentId"), [each["_id"] for each in bench.found()][-2:], strict=True))
    store.create_connections([{**track, "datasetId": bench.dataset, "label": "Time lapse connection", "tags": []}])
    for channel in (0, 1):
        bench.job["connectTo"] = {"tags": ["nucleus", "other"], "channel": channel}
        for _ in range(2):
            assert bench.run().code == 0
            assert connected("nucleus", channel) == len(bench.found()) == 12
    assert connected("nucleus", 0) == connected("well", 0) == 12


@pytest.mark.parametrize(
    ("tag", "channel", "what"),
    [
        ("wel", None, "the tag 'wel'"),
        ("found", None, "the tag 'found'"),  # which only the objects have that are connected
        ("cell", 1, "the tag 'cell' in channel 2"),
    ],
)
def test_nothing_to_connect_to_is_said(bench: Bench, tag: str, channel: int | None, what: str) -> None:
    bench.job["connectTo"] = {"tags": [tag], "channel": channel}
    outcome = bench.run()
    assert outcome.code == 0
    (line,) = [line for line in outcome.texts("warning") if "No object was connected" in line]
    assert f"nothing else on these frames has {what}. Check" in line


def test_what_an_earlier_job_connected_was_not_in_vain(bench: Bench) -> None:
    bench.job["connectTo"] = {"tags": ["cell"], "channel": None}  # which only the first of three frames has
    for _ in range(2):
        outcome = bench.run()
        assert outcome.code == 0
        assert not [line for line in outcome.texts("warning") if "No object was connected" in line]
    assert bench.server.store.connections


def test_a_frame_is_connected_in_one_request_although_it_is_saved_in_several(bench: Bench) -> None:
    bench.job["connectTo"] = {"tags": ["found", "cell"]}
    assert bench.run(replace(bench.means, most_annotations=1)).code == 0
    assert bench.server.count("POST", "upenn_annotation/multiple") == 12
    assert bench.server.count("POST", "connectTo") == 3
    # Only the examples of the first frame are there to connect to, not the finds themselves.
    assert len(bench.server.store.connections) == 4


def test_requests_stay_few(bench: Bench) -> None:
    bench.run()
    first = len(bench.server.seen)
    by_frame = [seen for seen in bench.server.seen if not seen.path.endswith("region")]
    beyond = len(by_frame) - 3 * 3  # a count, the annotations and the figures of each of three frames
    # Of blocks to be kept, small frames know nothing.
    assert (beyond, first) == (24, 36)
    bench.run()
    assert len(bench.server.seen) - first == 25


@pytest.mark.parametrize(
    ("document", "extent"),
    [
        ({"shape": "line", "coordinates": ring(5, 5)}, None),
        ({"shape": "polygon", "coordinates": [{"x": 1, "y": "b"}]}, None),
        ({"shape": "polygon", "coordinates": ["a"]}, None),
        ({"shape": "polygon"}, None),
        ({"shape": "polygon", "coordinates": ring(5, 5)[:2]}, None),
        (
            {"shape": "rectangle", "coordinates": [{"x": 3, "y": 4}, {"x": 1, "y": 1}]},
            Polygon([(1, 1), (3, 1), (3, 4), (1, 4)]),
        ),
    ],
)
def test_odd_annotations_have_no_extent(document: dict[str, Any], extent: Polygon | None) -> None:
    found = extent_of(document["shape"], points_of(document))
    assert (found is None) == (extent is None)
    assert extent is None or (found is not None and found.equals(extent))


def test_odd_locations() -> None:
    assert location_of({}) == Location()
    assert location_of({"location": {"Z": 2}}) == Location(0, 2, 0)
    assert location_of({"location": {"Z": 1.5}}) is None
    assert location_of({"location": "here"}) is None


def test_the_examples_are_not_posted_again(bench: Bench) -> None:
    def examples_too() -> BrightMethod:
        return bright(finds_examples=False)

    bench.method = examples_too
    before = [each for each in bench.server.store.annotations.values() if "cell" in each["tags"]]
    bench.run()
    found = bench.found()
    marked = [Polygon([(point["x"], point["y"]) for point in each["coordinates"]]) for each in before]
    assert len(found) == 12 - len(marked)
    for each in found:
        outline = Polygon([(point["x"], point["y"]) for point in each["coordinates"]])
        assert not any(
            outline.intersects(other) and each["location"] == example["location"]
            for other, example in zip(marked, before, strict=True)
        )
        assert "kind" not in each


def test_a_point_in_the_hole_of_an_outline_stands_for_the_object(bench: Bench) -> None:
    """Without smoothing an outline has holes, and an annotation has none."""
    row, column = DISCS[3]
    (image,) = bench.server.store.images.values()
    rows, columns = np.mgrid[:64, :64]
    first = next(iter(image.planes.values()))
    first[(rows - row) ** 2 + (columns - column) ** 2 <= 25] = 100
    middle = ring(row, column, 0)[:1]
    bench.server.store.add_annotation(bench.dataset, tags=["found"], coordinates=middle, shape="point")
    assert bench.run(Smoothing=0).messages[-1]["info"] == "11 added, 1 already there; 3 frames"
