"""Nothing is left double: not by gateways that answer too early, by jobs at once, or by jobs that were killed."""

from __future__ import annotations

import threading
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from contract_server.bench import DISCS, QUICK, bright, ring
from contract_server.faults import SAVING, Scenario, Tally, carry_out, prepared, scenarios
from contract_server.web import Fault, InStep

from sam2_fewshot.nimbus.existing import Existing
from sam2_fewshot.nimbus.marks import KEY, mark_of
from sam2_fewshot.nimbus.server import Patience, Server

if TYPE_CHECKING:
    from contract_server.bench import Bench
    from contract_server.web import ContractServer

ALL = list(scenarios())


def named(chosen: list[Scenario]) -> Any:
    return pytest.mark.parametrize("scenario", chosen, ids=[scenario.name for scenario in chosen])


def clean(scenario: Scenario, scale: float) -> None:
    result = carry_out(scenario, scale)
    assert result.is_clean, (result, result.again.lines)
    assert result.after.objects == 12


@named([each for each in ALL if not (each.is_long or each.is_single)])
def test_after_a_rerun_nothing_is_lost_and_nothing_double(scenario: Scenario) -> None:
    clean(scenario, 0.05)


@pytest.mark.slow
@named([each for each in ALL if each.is_long or each.is_single])
def test_nor_after_jobs_that_were_killed_and_faults_one_by_one(scenario: Scenario) -> None:
    clean(scenario, 0.05)


@pytest.mark.slow
@named([each for each in ALL if " later, " in each.name])
def test_nor_in_the_times_of_a_real_gateway(scenario: Scenario) -> None:
    clean(scenario, 1.0)


@pytest.fixture
def wells(server: ContractServer) -> Bench:
    """The bench of the faults: each of its twelve finds is connected to a well."""
    return prepared(server, 0.02)


def none_double(bench: Bench) -> None:
    tally = Tally.of(bench)
    assert (tally.objects, tally.lost, tally.doubled) == (12, (0, 0, 0), (0, 0, 0))


def copies(bench: Bench, only: int = 10**6, **changes: Any) -> list[str]:
    """Put the finds of the first frames there once more."""
    documents = [{**deepcopy(each), **changes} for each in bench.found()[:only]]
    for document in documents:
        del document["_id"]
    return [each["_id"] for each in bench.server.store.create_annotations(documents)]


@pytest.mark.parametrize("path", SAVING.values())
def test_the_job_itself_waits_for_what_a_gateway_holds_back(wells: Bench, path: str) -> None:
    wells.server.faults = [Fault("POST", path, "later 0.1", times=2)]
    outcome = wells.run(replace(wells.means, patience=replace(QUICK, gateway=1.0)))
    assert outcome.code == 0
    assert "The server is busy (504); looking what it has done." in outcome.lines
    none_double(wells)


def test_a_gateway_costs_nothing_where_every_answer_comes(wells: Bench) -> None:
    # Whoever waited for it would wait until the test is given up.
    assert wells.run(replace(wells.means, patience=replace(QUICK, gateway=10**6))).code == 0


def test_two_jobs_in_step_leave_nothing_double_themselves(wells: Bench) -> None:
    scenario = next(each for each in ALL if each.name == "2 jobs at once, everything in step")
    result = carry_out(scenario, 0.05)
    assert result.before == result.after
    assert result.codes == [0, 0]


def test_doubles_of_earlier_jobs_are_cleaned_before_anything_else(wells: Bench) -> None:
    assert wells.run().code == 0
    kept = {each["_id"] for each in wells.found()}
    copies(wells)
    wells.server.faults = [Fault("GET", "tiles/region", 500, times=10**6)]
    assert wells.run().code == 1
    assert {each["_id"] for each in wells.found()} == kept


@pytest.mark.parametrize(
    "changes",
    [
        {KEY: None},
        {"tags": ["found", "good"]},
        {"coordinates": ring(*DISCS[0], 6.5)},
        {"color": "#FF0000"},
        {"name": "mine"},
        {"channel": 1},
        {"location": {"XY": 1, "Z": 0, "Time": 0}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_the_user_has_drawn_or_changed_is_no_double(wells: Bench, changes: dict[str, Any]) -> None:
    assert wells.run().code == 0
    (theirs,) = copies(wells, only=1)
    wells.server.store.annotations[theirs].update(changes)
    before = deepcopy(wells.server.store.annotations[theirs])
    for _ in range(2):
        assert wells.run().code == 0
        assert wells.server.store.annotations[theirs] == before


def test_objects_of_earlier_versions_are_doubles_if_they_have_figures(wells: Bench) -> None:
    assert wells.run().code == 0
    store = wells.server.store
    for each in wells.found():
        del each[KEY]
    drawn = copies(wells, only=1)  # as the user may have copied one: it has no figures
    assert wells.run().code == 0
    assert drawn[0] in store.annotations
    store.values += [{**value, "_id": store.new_id(), "annotationId": drawn[0]} for value in store.values[:1]]
    assert wells.run().code == 0
    none_double(wells)


def test_connections_of_a_double_go_to_the_one_that_stays(wells: Bench) -> None:
    assert wells.run().code == 0
    store = wells.server.store
    stays = [each["_id"] for each in wells.found()]
    goes = copies(wells)
    mine = {"datasetId": wells.dataset, "label": "mine", "tags": ["track"]}
    store.create_connections(
        [
            {**mine, "childId": goes[0], "parentId": goes[1]},
            {**mine, "childId": stays[2], "parentId": goes[3]},
            {**mine, "childId": goes[4], "parentId": stays[4]},
        ]
    )
    store.connect({"annotationsIds": goes, "tags": ["well"], "channelId": None})
    store.values += [{**each, "_id": store.new_id(), "annotationId": goes[0]} for each in store.values[:1]]
    assert wells.run().code == 0
    by_hand = [each for each in store.connections.values() if each["label"] == "mine"]
    assert {(each["childId"], each["parentId"]) for each in by_hand} == {(stays[2], stays[3]), (stays[0], stays[1])}
    assert len(by_hand) == 2
    assert all(each["tags"] == ["track"] for each in by_hand)
    for each in by_hand:
        del store.connections[each["_id"]]
    none_double(wells)


def test_connections_that_a_user_has_made_are_no_doubles(wells: Bench) -> None:
    assert wells.run().code == 0
    store = wells.server.store
    first = next(iter(store.connections.values()))
    mine = [{**first, "_id": store.new_id(), **changes} for changes in ({"label": "mine"}, {"tags": ["mine"]})]
    automatic = {**first, "_id": store.new_id()}
    store.connections.update({each["_id"]: each for each in [*mine, automatic]})
    assert wells.run().code == 0
    assert {each["_id"] for each in mine} <= set(store.connections)
    assert automatic["_id"] not in store.connections


def test_a_job_that_lost_its_objects_to_another_one_cleans_up_after_itself(wells: Bench) -> None:
    server = wells.server

    def other() -> None:
        # Copies with smaller ids, and the job's own objects taken out as the doubles, before it has given them figures.
        # There are as many as before.
        store = server.store
        for each in wells.found():
            key = "0" * 8 + each["_id"][8:]
            store.annotations[key] = {**deepcopy(each), "_id": key}
            del store.annotations[each["_id"]]

    server.faults = [Fault("POST", SAVING["figures"], other)]
    assert wells.run(**{"Batch XY": "1"}).code == 0
    assert len(wells.found()) == 4 == len(wells.server.store.connections)
    assert set(wells.values()) == {each["_id"] for each in wells.found()}
    assert all(each["_id"].startswith("0" * 8) for each in wells.found())


def test_figures_that_late_requests_and_other_jobs_replace_are_not_lost(wells: Bench) -> None:
    assert wells.run().code == 0
    store = wells.server.store
    store.values += [{**deepcopy(each), "_id": store.new_id()} for each in store.values]
    # The figures are deleted once more by the time that a request which the gateway gave up is done.
    wells.server.faults = [
        Fault("DELETE", "annotation_property_values", "later 0.1"),
        Fault("POST", SAVING["figures"], InStep(2, longest=0.05), times=3),
    ]
    assert wells.run(replace(wells.means, patience=replace(QUICK, gateway=0.5))).code == 0
    wells.server.wait()
    none_double(wells)


def test_figures_are_not_lost_where_a_job_is_killed_while_another_begins(wells: Bench) -> None:
    assert wells.run().code == 0
    begun, ended = threading.Event(), threading.Event()
    codes: list[int] = []

    def wait(number: int) -> None:
        begun.set()
        assert ended.wait(30)

    other = replace(wells, method=lambda: bright(on_find=wait))
    thread = threading.Thread(target=lambda: codes.append(other.run(**{"Batch XY": "3"}).code))

    def begin() -> None:
        thread.start()
        assert begun.wait(30)

    wells.method = partial(bright, score=0.95)
    wells.server.faults = [
        Fault("DELETE", "annotation_property_values", begin),
        Fault("POST", SAVING["figures"], 500, skip=1),  # the first is the other job's
    ]
    assert wells.run(**{"Batch XY": "1"}).code == 1
    assert not wells.server.store.values
    ended.set()
    thread.join(30)
    assert codes == [0]
    none_double(wells)
    assert not [file for file in wells.server.store.files.values() if file["name"].endswith("json")]


def test_figures_that_come_back_to_what_another_job_has_deleted_are_taken_out(wells: Bench) -> None:
    assert wells.run().code == 0
    store = wells.server.store
    store.values += [{**deepcopy(each), "_id": store.new_id()} for each in store.values]
    first = wells.found()[0]["_id"]
    delete = partial(store.delete_annotations, [first])
    wells.server.faults = [Fault("DELETE", "annotation_property_values", delete)]
    assert wells.run().code == 0
    assert set(wells.values()) == {each["_id"] for each in wells.found()}
    assert first not in wells.values()


def test_what_the_user_deletes_meanwhile_gets_no_new_figures(wells: Bench) -> None:
    assert wells.run().code == 0
    first = wells.found()[0]["_id"]
    delete = partial(wells.server.store.delete_annotations, [first])
    wells.method = partial(bright, score=0.95)
    wells.server.faults = [Fault("GET", "upenn_annotation/count", delete, skip=4)]  # the last look
    assert wells.run().code == 0
    assert not wells.server.faults[0].times
    assert len(wells.found()) == 11
    assert set(wells.values()) == {each["_id"] for each in wells.found()}
    assert {each["Score"] for each in wells.values().values()} == {0.95}


def test_a_mark_tells_what_is_untouched(wells: Bench) -> None:
    assert wells.run().code == 0
    for each in wells.found():
        mark = mark_of(each)
        assert mark is not None
        assert mark.examples == ("cell",)
    odd: list[Any] = [None, "x", {}, {"job": 1, "content": "x"}, {"job": "x"}]
    assert [mark_of({**wells.found()[0], KEY: mark}) for mark in odd] == [None] * 5


def test_of_those_that_vanished_only_the_deleted_are_gone(wells: Bench) -> None:
    assert wells.run().code == 0
    first, second, *_ = wells.found()
    with Server(wells.server.url, wells.server.token, QUICK) as server:
        existing = Existing(server, wells.dataset, ["found"])
        existing.load()
        for each in (first, second):
            existing.add_own(each["_id"], each)
        wells.server.store.delete_annotations([first["_id"]])
        wells.server.store.edit_annotation(second["_id"], {"tags": ["other"]})
        existing.reload()
        vanished = existing.vanished()
        assert vanished == {first["_id"]: None, second["_id"]: None}
        assert existing.deleted(vanished) == {first["_id"]}


def test_looks_come_often_at_first_and_last_as_long_as_a_gateway_may_take() -> None:
    looks = list(Patience().looks())
    assert looks == sorted(looks[:-1]) + looks[-1:]
    assert sum(looks) == Patience().gateway >= 8
    assert sum(Patience(first=3, gateway=1).looks(least=2)) == 2
