"""The contract server against what a live server was recorded to answer (ids changed, long outlines cut)."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import requests
from contract_server.store import AXES, Image, Store, page
from contract_server.web import ContractServer, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = json.loads(Path(__file__).with_name("recorded.json").read_text("utf-8"))
BY_NAME = {call["name"]: call for call in CALLS}
VALUES = [call["name"] for call in CALLS if call["name"].startswith("property_values")]
# What the worker never looks at, and this server does without.
UNUSED = {
    "_accessLevel",
    "_modelType",
    "baseParentId",
    "baseParentType",
    "channelCount",
    "created",
    "creatorId",
    "description",
    "folderId",
    "lastLocation",
    "name",
    "parentCollection",
    "parentId",
    "public",
    "sampled",
    "size",
    "uid",
    "updated",
}


def answer_of(name: str) -> Any:
    return json.loads(json.dumps(BY_NAME[name]["answer"]))


@pytest.fixture
def recorded() -> Iterator[ContractServer]:
    """A server that holds what the recorded one did."""
    store = Store()
    folder, item, collection = answer_of("dataset_folder"), answer_of("item"), answer_of("collection")
    store.folders[folder["_id"]] = {"_id": folder["_id"], "meta": folder["meta"]}
    store.items[item["_id"]] = {
        "_id": item["_id"],
        "folderId": folder["_id"],
        "largeImage": item["largeImage"],
        "meta": {},
    }
    (bare,) = re.findall(r"item/(\w+)/", BY_NAME["400 item without tiles"]["path"])
    store.items[bare] = {"_id": bare, "folderId": folder["_id"], "meta": {}}
    frames = answer_of("tiles_metadata_2c_2xy_2z_2t")["frames"]
    keys = [tuple(frame[axis] for axis in AXES) for frame in frames]
    store.images[item["_id"]] = Image({key: np.zeros((256, 256), np.uint16) for key in keys}, ["DAPI", "GFP"])
    store.collections[collection["_id"]] = {"_id": collection["_id"], "meta": collection["meta"]}
    user = next(iter(store.tokens.values()))
    store.views = [{**view, "owner": user} for view in answer_of("dataset_views_of_dataset")]
    store.annotations = {each["_id"]: each for each in answer_of("annotation_list")}
    store.properties = {each["_id"]: each for each in answer_of("property_list")}
    mine = {entry["_id"] for entry in answer_of("property_values 0")}
    store.values = [value for value in answer_of("property_values 5") if value["_id"] not in mine]
    store.interfaces["annotations/sam2_fewshot:latest"] = answer_of("worker_interface_get")
    (outsider,) = {found for call in CALLS for found in re.findall(r"\(user (\w{24})\)", json.dumps(call["answer"]))}
    store.tokens["outsider"] = outsider
    store.outsiders.add(outsider)
    with ContractServer(store) as server:
        yield server


def replay(server: ContractServer, name: str) -> None:
    call = BY_NAME[name]
    if name == "property_list":
        collection = next(iter(server.store.collections.values()))
        collection["meta"]["propertyIds"] = list(server.store.properties)
    token = "outsider" if "other user" in name else "wrong" if "invalid" in name.split(" or ")[0] else server.token
    if name == "400 invalid JSON":
        token = server.token
    split = urlsplit(call["path"])
    raw = isinstance(call["body"], str)
    answer = requests.request(
        call["method"],
        f"{server.url}/{split.path}",
        params=parse_qsl(split.query),
        headers={"Girder-Token": token} if call["token"] else {},
        data=call["body"] if raw else None,
        json=None if raw else call["body"],
        timeout=10,
    )
    assert answer.status_code == call["status"], answer.text
    assert answer.headers["Content-Type"] == call["type"]
    if "total" in call:
        assert int(answer.headers["Girder-Total-Count"]) == call["total"]
    if isinstance(call["answer"], str) and "bytes>" in call["answer"]:
        if call["status"] == 200:
            size = int(call["answer"].split()[1])
            assert pickle.loads(answer.content).shape[2] == 1
            assert abs(len(answer.content) - size) < 60
    elif call["type"] == "text/html":
        assert answer.text == call["answer"]
    else:
        made_here = call["method"] == "POST" or name in VALUES
        alike(call["answer"], answer.json(), {"_id"} if made_here else set())


def alike(recorded: Any, answer: Any, free: set[str]) -> None:
    if isinstance(recorded, dict):
        assert set(answer) <= set(recorded) | {"owner"} | free, set(answer) - set(recorded)
        assert set(recorded) - set(answer) <= UNUSED
        for key in set(recorded) & set(answer) - free:
            alike(recorded[key], answer[key], free)
    elif isinstance(recorded, list):
        assert len(recorded) == len(answer)
        for one, other in zip(recorded, answer, strict=True):
            alike(one, other, free)
    else:
        assert recorded == answer


@pytest.mark.parametrize("name", [call["name"] for call in CALLS if call["name"] not in VALUES])
def test_recorded_answers_come_again(recorded: ContractServer, name: str) -> None:
    replay(recorded, name)


def test_recorded_property_values_come_again_in_their_order(recorded: ContractServer) -> None:
    for name in VALUES:
        replay(recorded, name)
    assert len(recorded.store.values) == 6


def test_form_keys_come_back_sorted(recorded: ContractServer) -> None:
    replay(recorded, "worker_interface_post")
    (form,) = recorded.store.interfaces.values()
    assert list(form) == sorted(form)


def test_lists_end_after_fifty_unless_told_otherwise() -> None:
    entries = [{"_id": f"{i:03}"} for i in range(60)]
    assert len(page(entries, {})) == 50
    assert len(page(entries, {"limit": "0"})) == 60
    assert page(entries, {"limit": "2", "offset": "3"}) == entries[3:5]
    assert page(entries, {"limit": "2", "sort": "_id", "sortdir": "-1"}) == entries[:-3:-1]
    assert page(entries, {"limit": "2", "sort": "_id", "afterId": "040", "offset": "9"}) == entries[41:43]


def test_an_image_of_one_plane_has_no_index() -> None:
    header = Image({(0, 0, 0, 0): np.zeros((4, 5), np.uint16)}).header()
    assert (header["sizeX"], header["sizeY"]) == (5, 4)
    assert not {"IndexRange", "frames", "channels"} & set(header)


def test_faults_befall_what_they_are_for() -> None:
    with ContractServer() as server:
        server.store.add_dataset(Image({(0, 0, 0, 0): np.zeros((4, 5), np.uint16)}))
        server.faults = [Fault("GET", "folder", 502, skip=1), Fault("GET", "item", "drop")]
        folder = f"{server.url}/folder/{next(iter(server.store.folders))}"
        headers = {"Girder-Token": server.token}
        assert [requests.get(folder, headers=headers, timeout=5).status_code for _ in range(3)] == [200, 502, 200]
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{server.url}/item", headers=headers, timeout=5)
        assert server.count("GET", "folder") == 3
