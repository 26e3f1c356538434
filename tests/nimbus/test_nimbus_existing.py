"""What a job asks and does to know what is there grows with what it asks about, not with the dataset."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from contract_server.bench import QUICK, ring
from contract_server.store import Image

from sam2_fewshot.nimbus.existing import Existing
from sam2_fewshot.nimbus.marks import OwnerMark
from sam2_fewshot.nimbus.server import Server
from sam2_fewshot.records import Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contract_server.web import ContractServer

MAY, JUNE = 0x60000000, 0x60200000


def document(dataset: str, time: int, radius: float) -> dict[str, Any]:
    """A result as a job sends it."""
    place = {"XY": 0, "Z": 0, "Time": time}
    fields = {"shape": "polygon", "tags": ["found"], "channel": 0, "location": place, "datasetId": dataset}
    return OwnerMark("job", ("cell",)).put_on({**fields, "coordinates": ring(20, 20, radius)})


def fill(server: ContractServer, frames: int) -> str:
    """Make a dataset with 30 results of one job on each frame, and 5 of a later one."""
    dataset = server.store.add_dataset(Image({}))
    for began, count in ((MAY, 30), (JUNE, 5)):
        for time in range(frames):
            for number in range(count):
                key = f"{began + time:08x}{time:08x}{number:08x}"
                made = document(dataset, time, 1 + number / 8 + (began == JUNE) / 16)
                server.store.annotations[key] = {**made, "_id": key}
    return dataset


@pytest.fixture
def connection(server: ContractServer) -> Iterator[Server]:
    with Server(server.url, server.token, QUICK) as connection:
        yield connection


def test_a_frame_of_two_jobs_costs_what_it_has(server: ContractServer, connection: Server) -> None:
    existing = Existing(connection, fill(server, 12), ["found"])
    existing.load()
    before = len(server.seen)
    for time in range(12):
        ids = {known.id for known in existing.on(Location(0, 0, time))}
        assert len(ids) == 35
        assert not existing.look_again(ids)
        assert existing.still_untouched(ids) == ids
    asked = server.seen[before:]
    assert len(asked) == 12 * 2 * 2
    assert sum(int(seen.query["limit"]) for seen in asked) == 12 * 2 * (35 + 5)


def test_what_is_gone_or_edited_is_known_wherever_it_lies(server: ContractServer, connection: Server) -> None:
    existing = Existing(connection, fill(server, 5), ["found"])
    existing.load()
    ids = sorted(server.store.annotations)
    gone = {ids[0], *ids[40:80:3], ids[-1]}
    edited = {*ids[10:60:7], ids[-2]} - gone
    server.store.delete_annotations([*gone])
    for key in edited:
        server.store.edit_annotation(key, {"name": "mine"})
    for asked in (set(ids), set(ids[::9]), gone, {ids[-1]}, set[str]()):
        assert existing.deleted(asked) == asked & gone
        assert existing.still_untouched(asked) == asked - gone - edited
    assert existing.look_again(set(ids))
    there = {known.id: known.is_untouched for known in existing.everything()}
    assert there == {key: key not in edited for key in ids if key not in gone}


def test_a_frame_is_mended_without_a_look_at_the_others(server: ContractServer, connection: Server) -> None:
    steps = []
    for frames in (2, 40):
        existing = Existing(connection, fill(server, frames), ["found"])
        existing.load()
        ids = [known.id for known in existing.on(Location(0, 0, 1))]
        count = 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += 1

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            existing.look_again(set())
            existing.by_frame(ids)
            existing.forget(ids[:3])
        finally:
            sys.setprofile(before)
        assert existing.by_frame(ids) == [sorted(ids[3:])]
        assert [known.id for known in existing.on(Location(0, 0, 1))] == ids[3:]
        assert len(existing.on(Location(0, 0, 0))) == 35
        steps.append(count)
        server.store.annotations.clear()
    assert steps[0] == steps[1] > 0
