"""Servers fail. Nothing is lost, nothing is doubled, and the last word is a sentence."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import shapely
from contract_server.bench import QUICK, bright, discs, squares, white_layer
from contract_server.store import Image, Problem
from contract_server.web import Fault

from sam2_fewshot.annotations.nimbus import polygon_document
from sam2_fewshot.nimbus.existing import Existing
from sam2_fewshot.nimbus.job import Means
from sam2_fewshot.nimbus.server import Server
from sam2_fewshot.records import Location

if TYPE_CHECKING:
    from collections.abc import Callable

    from contract_server.bench import Bench


def complete(bench: Bench) -> None:
    """All twelve finds are there once, each with its figures."""
    outlines = {(f["location"]["XY"], str(f["coordinates"])) for f in bench.found()}
    assert len(outlines) == len(bench.found()) == 12
    assert set(bench.values()) == {each["_id"] for each in bench.found()}


def raising(error: Exception, at: int) -> Callable[[int], None]:
    """What a method is to do before it searches: raise an error at one of the searches."""

    def on_find(number: int) -> None:
        if number == at:
            raise error

    return on_find


@pytest.mark.parametrize("what", [503, "drop", "late 503", "lost"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "folder/"),
        ("GET", "tiles/region"),
        ("GET", "upenn_annotation$"),
        ("GET", "upenn_annotation/count"),
        ("POST", "upenn_annotation/multiple"),
        ("POST", "annotation_property_values/multiple"),
        ("POST", "annotation_property$"),
        ("PUT", "metadata"),
        ("POST", "connectTo"),
        ("POST", "file"),
    ],
)
def test_what_fails_once_or_loses_its_answer_is_neither_lost_nor_doubled(
    bench: Bench, method: str, path: str, what: str | int
) -> None:
    bench.job["connectTo"] = {"tags": ["cell"], "channel": 0}
    bench.server.faults = [Fault(method, path, what, times=1 if path == "file" else 2)]
    outcome = bench.run()
    assert outcome.code == 0, outcome.lines
    assert not bench.server.faults[0].times
    complete(bench)
    children = [connection["childId"] for connection in bench.server.store.connections.values()]
    on_first = [each["_id"] for each in bench.found() if each["location"]["XY"] == 0]
    assert sorted(children) == sorted(on_first)


@pytest.mark.parametrize("status", [502, 504, 429])
def test_other_ways_to_be_busy(bench: Bench, status: int) -> None:
    bench.server.faults = [
        Fault(method, path, status)
        for method, path in [("GET", "region"), ("POST", "upenn_annotation/multiple"), ("PUT", "metadata")]
    ]
    assert bench.run().code == 0
    complete(bench)


def test_a_hiccup_while_reading_is_asked_again(bench: Bench) -> None:
    bench.server.faults = [Fault("GET", "region", 500, times=2, skip=1)]
    assert bench.run().code == 0
    complete(bench)


def test_a_proxy_that_takes_only_small_requests_gets_small_ones(bench: Bench) -> None:
    store = bench.server.store
    create = store.create_annotations

    def narrow(documents: Any) -> Any:
        if len(documents) > 3:
            raise Problem(413, "<html>Request Entity Too Large</html>", "text/html")
        return create(documents)

    store.create_annotations = narrow  # type: ignore[method-assign]
    assert bench.run().code == 0
    complete(bench)


def test_half_of_the_list_stored_before_the_server_dies_is_completed(bench: Bench) -> None:
    store = bench.server.store
    whole = store.create_annotations

    def half(documents: Any) -> Any:
        store.create_annotations = whole  # type: ignore[method-assign]
        whole(documents[:2])
        raise Problem(502, "<html>", "text/html")

    store.create_annotations = half  # type: ignore[method-assign]
    assert bench.run().code == 0
    complete(bench)


@pytest.mark.parametrize("is_lost", [False, True])
def test_an_answer_with_too_few_annotations_ends_in_a_sentence(bench: Bench, is_lost: bool) -> None:
    store = bench.server.store
    whole = store.create_annotations
    store.create_annotations = lambda documents: whole(documents)[1:]  # type: ignore[method-assign]
    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", 503)] if is_lost else []
    outcome = bench.run()
    assert outcome.code == 1
    assert outcome.error.startswith("The server was sent 4 annotations and answered with 3;")


def test_a_server_that_stays_away_is_said_and_the_next_run_completes(bench: Bench) -> None:
    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", 503, times=10**6, skip=1)]
    outcome = bench.run()
    assert outcome.code == 1
    assert "too busy or restarting (503) while saving annotations" in outcome.error
    assert len(bench.found()) == 4
    bench.server.faults = []
    assert bench.run().code == 0
    complete(bench)


def test_a_slow_server_is_waited_for_and_one_that_takes_too_long_asked_again(bench: Bench) -> None:
    bench.server.faults = [
        Fault("GET", "tiles/region", "slow 0.1"),
        Fault("POST", "upenn_annotation/multiple", "slow 0.9"),
    ]
    outcome = bench.run(replace(bench.means, patience=replace(QUICK, read=0.6, total=6.0, gateway=3.0)))
    assert outcome.code == 0
    complete(bench)


def test_a_request_that_comes_to_its_end_after_it_was_given_up_leaves_no_double(bench: Bench) -> None:
    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", "slow 0.7", skip=1)]
    outcome = bench.run(replace(bench.means, patience=replace(QUICK, first=0.01, read=0.3, total=3.0, gateway=2.0)))
    assert outcome.code == 0, outcome.lines
    complete(bench)


def test_one_that_comes_later_than_any_gateway_is_a_double_until_the_next_run(bench: Bench) -> None:
    # Both are stored at last: the one that was given up, and the one that was sent instead.
    ended = threading.Event()

    def wait() -> None:
        assert ended.wait(60)

    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", wait, skip=1)]
    outcome = bench.run(replace(bench.means, patience=replace(QUICK, first=0.01, read=1.0, total=3.0, gateway=0.02)))
    assert outcome.code == 0, outcome.lines
    ended.set()
    bench.server.wait()
    assert len(bench.found()) == 16
    assert bench.run().code == 0
    complete(bench)


def test_an_expired_session_keeps_what_is_done_and_asks_to_log_in(bench: Bench) -> None:
    store = bench.server.store
    tokens = dict(store.tokens)
    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", store.tokens.clear, skip=1)]
    outcome = bench.run()
    assert outcome.code == 1
    assert "session has ended (401 while saving annotations)" in outcome.error
    assert "Finished frames are kept; run the tool again." in outcome.error
    assert "Log in" in outcome.error
    assert len(bench.found()) == 4
    store.tokens.update(tokens)
    assert bench.run().code == 0
    complete(bench)


def test_a_dataset_deleted_half_way_ends_in_a_sentence(bench: Bench) -> None:
    store = bench.server.store

    def delete() -> None:
        store.folders.clear()
        store.items.clear()
        store.annotations.clear()

    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", delete, skip=1)]
    outcome = bench.run()
    assert outcome.code == 1
    assert "Check that the dataset still exists" in outcome.error
    assert not any("Traceback" in line for line in outcome.lines)


def test_frames_whose_pixels_fail_are_named_and_the_others_done(bench: Bench) -> None:
    bench.form["Batch XY"] = "1-3"
    bench.server.faults = [Fault("GET", "tiles/region", 500, times=3, skip=1)]
    outcome = bench.run()
    assert outcome.code == 1
    assert outcome.error.startswith("1 of 3 frames could not be done: XY 2: NimbusImage had an error of its own")
    assert {each["location"]["XY"] for each in bench.found()} == {0, 2}


def test_an_image_deleted_half_way_is_not_asked_for_a_thousand_times(bench: Bench) -> None:
    image = next(iter(bench.server.store.images.values()))
    image.planes.update({(xy, 0, 0, 0): discs() for xy in range(20)})
    bench.server.faults = [Fault("GET", "tiles/region", 400, times=100, skip=1)]
    outcome = bench.run()
    assert outcome.code == 1
    assert outcome.error.startswith("3 frames in a row could not be done")
    assert bench.server.count("GET", "tiles/region") == 4


def damaged(bench: Bench, *positions: int, slices: int = 4) -> None:
    """Give the dataset four positions with some slices each, and let the pixels of some positions be unreadable."""
    store = bench.server.store
    (image,) = store.images.values()
    image.planes = {(xy, z, 0, 0): discs(xy) for xy in range(4) for z in range(slices)}
    read, keys = image.region, list(image.planes)

    def region(query: Any) -> Any:
        if keys[int(query.get("frame", 0))][0] in positions:
            raise Problem(400, {"message": "the file is damaged", "type": "rest"})
        return read(query)

    image.region = region  # type: ignore[method-assign]
    bench.form["Batch Z"] = "all"


@pytest.mark.parametrize("positions", [(1,), (3,), (1, 2)])
def test_a_position_that_cannot_be_read_does_not_stop_the_others(bench: Bench, positions: tuple[int, ...]) -> None:
    damaged(bench, *positions)
    outcome = bench.run()
    assert outcome.code == 1
    assert outcome.error.startswith(f"{4 * len(positions)} of 16 frames could not be done: XY {positions[0] + 1}, Z 1:")
    assert {each["location"]["XY"] for each in bench.found()} == {*range(4)} - {*positions}


def test_nor_does_the_first_one(bench: Bench) -> None:
    damaged(bench, 0)
    for each in bench.server.store.annotations.values():
        each["location"]["XY"] = 1  # where the examples can be read
    outcome = bench.run()
    assert outcome.error.startswith("4 of 16 frames could not be done")
    assert {each["location"]["XY"] for each in bench.found()} == {1, 2, 3}


def test_where_all_that_was_tried_fails_the_job_gives_up_and_says_so_once(bench: Bench) -> None:
    damaged(bench, slices=10)
    bench.form["Batch XY"] = "2"
    # The pixels of the examples are read, and those of nothing else.
    bench.server.faults = [Fault("GET", "tiles/region", 500, times=10**6, skip=1)]
    outcome = bench.run()
    assert outcome.error.startswith("3 frames in a row could not be done, the last one (XY 2, Z 3) because: ")
    assert outcome.error.count("un the tool again") == 1


def test_one_refused_annotation_does_not_take_the_others_with_it(bench: Bench) -> None:
    store = bench.server.store
    create = store.create_annotations

    def picky(documents: Any) -> Any:
        for document in documents:
            if (
                document["location"]["XY"] == 1
                and document["coordinates"][0]["x"] > 30
                and document["coordinates"][0]["y"] > 30
            ):
                raise Problem(400, {"message": "data.coordinates is odd", "type": "validation"})
        return create(documents)

    store.create_annotations = picky  # type: ignore[method-assign]
    outcome = bench.run()
    assert outcome.messages[-1]["info"] == "11 added, 1 refused by the server; 3 frames"
    assert len(bench.found()) == 11
    (warning,) = outcome.texts("warning")
    assert warning.startswith("The server refused one object on XY 2, near x 5")
    assert "data.coordinates is odd" in warning


@pytest.mark.parametrize(("batch", "which"), [("2", "all 4 objects"), ("1-3", "all 12 objects")])
def test_a_job_all_of_whose_objects_are_refused_fails(bench: Bench, batch: str, which: str) -> None:
    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", 400, times=10**6)]
    outcome = bench.run(**{"Batch XY": batch})
    assert outcome.code == 1
    assert outcome.error.startswith(f"The server refused {which} that it was sent, and nothing was saved. Run the tool")
    assert bench.found() == []


def test_a_server_that_refuses_everything_is_not_asked_for_each(bench: Bench) -> None:
    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", 400, times=10**6)]
    many(bench, 100, 10)
    outcome = bench.run()
    assert outcome.code == 1
    assert "refused saving annotations (400" in outcome.error
    assert bench.server.count("POST", "upenn_annotation/multiple") < 80


def test_no_write_access_is_said_before_anything_is_computed(bench: Bench) -> None:
    bench.server.store.read_only = True
    outcome = bench.run()
    assert outcome.code == 1
    assert "(403: Write access denied" in outcome.error
    assert outcome.texts("warning")[0].startswith("Similarity and area of the objects are not saved")


def test_what_another_job_added_and_deleted_alike_is_seen(bench: Bench) -> None:
    store = bench.server.store

    def added(x: float) -> str:
        document = polygon_document(shapely.box(x, 10, x + 8, 18), Location(), ["found"])
        return str(store.create_annotations([{**document, "datasetId": bench.dataset}])[0]["_id"])

    with Server(bench.server.url, bench.server.token, QUICK) as server:
        existing = Existing(server, bench.dataset, ["found"])
        existing.load()
        first = added(10)
        assert [known.id for known in existing.update()] == [first]
        second = added(40)
        store.delete_annotations([first])
        assert [known.id for known in existing.update()] == [second]


def test_two_jobs_at_once_find_each_object_once(bench: Bench) -> None:
    both = threading.Barrier(2)

    bench.method = lambda: bright(on_find=lambda number: both.wait(10))
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(bench.run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.code for outcome in outcomes] == [0, 0], [outcome.lines for outcome in outcomes]
    assert len(bench.found()) == 12
    store = bench.server.store
    (collection,) = store.collections.values()
    assert len(collection["meta"]["propertyIds"]) == 1 == len(store.properties)
    complete(bench)


def many(bench: Bench, count: int, per_row: int) -> None:
    """Put a dataset with so many small squares in the place of the bench's; two of them are examples."""
    store = bench.server.store
    store.views.clear()
    store.collections.clear()
    bench.dataset = store.add_dataset(Image({(0, 0, 0, 0): squares(count, per_row)}), [white_layer()])
    for x in (0, 3):
        corners = [{"x": x + a, "y": b} for a, b in ((0, 0), (2, 0), (2, 2), (0, 2))]
        store.add_annotation(bench.dataset, tags=["cell"], coordinates=corners)


@pytest.mark.slow
def test_five_thousand_finds_in_one_frame(bench: Bench) -> None:
    many(bench, 5000, 75)
    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", "lost", skip=2)]
    outcome = bench.run()
    assert outcome.code == 0
    assert len(bench.found()) == 5000 == len(bench.values())
    assert bench.server.count("POST", "upenn_annotation/multiple") == 5
    assert bench.run().messages[-1]["info"] == "0 added, 5000 already there; 1 frame"
    assert len(bench.found()) == 5000


def test_a_full_disk_costs_the_cache_and_nothing_else(bench: Bench) -> None:
    def full(*given: Any) -> Any:
        raise Problem(500, {"message": "No space left on device", "type": "internal"})

    bench.server.store.create_file = full  # type: ignore[method-assign]
    outcome = bench.run()
    assert outcome.code == 0
    assert any("not kept for the next job" in line and "No space left" in line for line in outcome.lines)
    complete(bench)


def test_a_full_disk_of_the_server_ends_in_a_sentence(bench: Bench) -> None:
    bench.server.faults = [Fault("POST", "upenn_annotation/multiple", 500, times=10**6, skip=1)]
    outcome = bench.run()
    assert outcome.code == 1
    assert "error of its own while saving annotations (500" in outcome.error
    assert len(bench.found()) == 4


def test_a_defect_is_called_one_and_does_not_end_in_a_traceback(bench: Bench) -> None:
    bench.method = lambda: bright(on_find=raising(ZeroDivisionError(f"with {bench.server.token}"), 1))
    outcome = bench.run()
    assert outcome.code == 1
    assert "defect of sam2-fewshot" in outcome.error
    assert "ZeroDivisionError" in outcome.error
    assert "<token>" in outcome.error


def test_no_memory_for_one_frame_leaves_the_others(bench: Bench) -> None:
    bench.method = lambda: bright(on_find=raising(MemoryError(), 2))
    outcome = bench.run()
    assert outcome.code == 1
    assert outcome.error == (
        "1 of 3 frames could not be done: XY 2: there is not enough memory for it. Lower Max Memory, so that it is "
        "searched in smaller blocks."
    )
    assert len(bench.found()) == 8


def test_a_server_that_is_not_there_is_said(bench: Bench) -> None:
    bench.server.faults = [Fault("GET", "folder", "drop", times=10**6)]
    outcome = bench.run()
    assert outcome.code == 1
    assert "broke off or did not answer while reading the dataset" in outcome.error


def test_means_have_sensible_defaults() -> None:
    assert sum(Means().patience.waits()) > 240
