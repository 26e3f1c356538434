"""What a server's odd answers become, and that the token is in none of them."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from contract_server.bench import QUICK, bright, discs, white_layer
from contract_server.store import Image, Problem
from contract_server.web import Fault

from sam2_fewshot.errors import ServerError
from sam2_fewshot.nimbus.server import Patience, Refused, Server, Unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contract_server.bench import Bench
    from contract_server.web import ContractServer


def test_an_address_that_is_none_is_said(bench: Bench) -> None:
    with pytest.raises(ServerError, match=r"address is 'localhost', but it must begin with http:// or https://"):
        Server("localhost", "token")


def test_no_server_at_all() -> None:
    with Server("http://127.0.0.1:9/api/v1", "token", QUICK) as server:
        with pytest.raises(Unanswered, match="could not be reached while reading, also after waiting"):
            server.get("reading", "folder")
        # Nothing can have been done, so a request that must not come twice is sent again too.
        sent = server.requests_sent
        with pytest.raises(Unanswered):
            server.send("saving", "POST", "upenn_annotation/multiple", [])
        assert server.requests_sent - sent > 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_after_an_error_of_the_server_is_an_answer(server: ContractServer, status: int) -> None:
    server.faults = [Fault("GET", "folder", 500), Fault("GET", "folder", status, times=100)]
    with Server(server.url, server.token, QUICK) as connection:
        with pytest.raises(Refused) as caught:
            connection.get("reading", "folder/1")
        assert connection.requests_sent == 2
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, "<html>Welcome</html>", "text/html", "is not what NimbusImage sends"),
        (400, "no json", "application/json", r"refused reading \(400\)"),
        (400, "[1]", "application/json", r"refused reading \(400\)"),
        (404, "<h1>Not Found</h1>", "text/html", r"refused reading \(404\)"),
        (403, '{"message": "Token SECRET\\n is bad"}', "application/json", r"\(403: Token … is bad\)"),
        (500, '{"message": "Oh", "uid": "4-2"}', "application/json", r"\(500: Oh \[4-2\]\)"),
    ],
)
def test_odd_answers(server: ContractServer, status: int, body: str, kind: str, words: str) -> None:
    def odd(*given: Any) -> Any:
        raise Problem(status, body.replace("SECRET", server.token), kind)

    server.store.one = odd  # type: ignore[method-assign]
    with Server(server.url, server.token, QUICK) as connection, pytest.raises(Refused, match=words) as caught:
        connection.get("reading", "folder/1")
    assert server.token not in str(caught.value)
    assert server.token not in caught.value.reason


def test_waiting_is_logged_without_the_token(server: ContractServer) -> None:
    lines: list[str] = []
    dataset = server.store.add_dataset(Image({(0, 0, 0, 0): discs()}))
    server.faults = [Fault("GET", "folder", 503), Fault("GET", "folder", "drop")]
    with Server(server.url, server.token, QUICK, lines.append) as connection:
        connection.get("reading", f"folder/{dataset}")
    assert lines == [
        "The server is busy (503); trying again in 0.01 s.",
        "The server does not answer; trying again in 0.02 s.",
    ]


class Scripted(BaseHTTPRequestHandler):
    """Answers as it is told, with a status and a header, then with JSON; notes the tokens that come."""

    script: ClassVar[list[tuple[int, str, str]]]
    tokens: ClassVar[list[tuple[str, str | None]]]

    def do_GET(self) -> None:
        self.tokens.append((self.headers["Host"].partition(":")[0], self.headers["Girder-Token"]))
        status, name, value = self.script.pop(0) if self.script else (200, "Content-Type", "application/json")
        self.send_response(status)
        self.send_header(name, value)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[tuple[type[Scripted], int]]:
    handler = type("Handler", (Scripted,), {"script": [], "tokens": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield handler, http.server_port
        http.shutdown()


def test_the_token_follows_no_redirection_to_another_host(scripted: tuple[type[Scripted], int]) -> None:
    handler, port = scripted
    own, other = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    handler.script = [(303, "Location", f"{each}/bucket/file") for each in (own, other, own)]
    with Server(f"{own}/api/v1", "SECRET", QUICK) as connection:
        assert connection.get_bytes("fetching a stored file", "file/1/download") == b"{}"
    hosts = ("127.0.0.1", "127.0.0.1", "localhost", "127.0.0.1")
    assert handler.tokens == list(zip(hosts, ("SECRET", "SECRET", None, None), strict=True))
    handler.script = [(301, "Location", f"{other}/api/v1/folder/1"), (401, "", "")]
    with (
        Server(f"{own}/api/v1", "SECRET", QUICK) as connection,
        pytest.raises(Refused, match=rf"sends on to {other}, .* \(401 while reading\)\. Give {other} as the server's"),
    ):
        connection.get("reading", "folder/1")
    handler.script = [(301, "Location", f"{own}/api/v1/folder/2"), (401, "", "")]  # where the token goes along
    with (
        Server(f"{own}/api/v1", "SECRET", QUICK) as connection,
        pytest.raises(Refused, match=r"The session has ended \(401 while reading\)"),
    ):
        connection.get("reading", "folder/1")


def test_a_server_that_asks_for_time_gets_it_as_far_as_patience_goes(
    scripted: tuple[type[Scripted], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, port = scripted
    naps: list[float] = []
    lines: list[str] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    patience = Patience(first=1, longest=4, total=100)
    with Server(f"http://127.0.0.1:{port}/api/v1", "token", patience, lines.append) as connection:
        asked = ["20", "later", "0", formatdate(time.time() + 30.5, usegmt=True), "9" * 400]
        handler.script = [(429, "Retry-After", each) for each in asked]
        connection.get("reading", "folder/1")
        assert naps == [20, 2, 4, pytest.approx(30, abs=2), pytest.approx(44, abs=2)]
        assert sum(naps) == pytest.approx(patience.total)
        assert lines[:2] == [f"The server is busy (429); trying again in {wait} s." for wait in (20, 2)]
        naps.clear()
        handler.script = [(503, "Retry-After", "3600")] * 3
        with pytest.raises(Unanswered, match=r"too busy or restarting \(503\) while reading"):
            connection.get("reading", "folder/1")
        assert naps == [60, 40]  # some attempts remain, however long the server asks for


def test_a_server_that_answers_with_another_number_is_not_trusted(bench: Bench) -> None:
    store = bench.server.store
    create = store.create_annotations
    store.create_annotations = lambda documents: create(documents)[:-1]  # type: ignore[method-assign]
    outcome = bench.run()
    assert outcome.code == 1
    assert "was sent 4 annotations and answered with 3" in outcome.error


@pytest.mark.parametrize("status", [400, 403])
def test_after_a_lost_answer_the_next_may_be_a_refusal(bench: Bench, status: int) -> None:
    store = bench.server.store
    create = store.create_annotations
    answers = iter([502, status])

    def failing(documents: Any) -> Any:
        found = next(answers, None)
        if found:
            raise Problem(found, {"message": "odd", "type": "validation"})
        return create(documents)

    store.create_annotations = failing  # type: ignore[method-assign]
    outcome = bench.run()
    if status == 400:
        assert outcome.code == 0
        assert len(bench.found()) == 12
    else:
        assert outcome.code == 1
        assert "does not allow saving annotations (403: odd)" in outcome.error


def test_connections_that_stay_unanswered_end_the_job_and_come_with_the_next(bench: Bench) -> None:
    bench.means = replace(bench.means, page=2)
    bench.job["connectTo"] = {"tags": ["cell"]}
    bench.server.faults = [Fault("POST", "connectTo", 504, times=10**6)]
    outcome = bench.run()
    assert outcome.code == 1
    assert "while connecting the objects" in outcome.error
    bench.server.faults = []
    assert bench.run().code == 0
    assert bench.run().code == 0
    children = [each["childId"] for each in bench.server.store.connections.values()]
    assert len(children) == len(set(children)) == 4


@pytest.mark.parametrize("path", ["upenn_collection", "^item/[^/]*$"])
def test_an_end_of_the_session_at_the_beginning_is_no_missing_layer(bench: Bench, path: str) -> None:
    bench.server.faults = [Fault("GET", path, 401)]
    outcome = bench.run()
    assert outcome.code == 1
    assert "session has ended" in outcome.error
    assert "kept" not in outcome.error  # no frame was done
    bench.server.faults = [Fault("PUT", "metadata", 401)]
    assert "session has ended" in bench.run().error


def test_a_property_taken_out_of_the_collection_meanwhile_is_put_back(bench: Bench) -> None:
    store = bench.server.store
    (collection,) = store.collections.values()

    def forget() -> None:
        collection["meta"]["propertyIds"] = []

    bench.server.faults = [
        Fault("GET", "region", forget, skip=1),
        Fault("POST", "annotation_property_values/multiple", forget, skip=2),
    ]
    assert bench.run().code == 0
    assert len(bench.values()) == 12


def test_figures_of_another_kind_are_replaced(bench: Bench) -> None:
    bench.run()
    values = bench.server.store.values
    key = next(iter(values[0]["values"]))
    values[0]["values"][key] = {"Similarity": 0.8}
    values[1]["values"][key]["Score"] = "high"
    values[2]["values"][key]["Predicted IoU"] = 0.5
    bench.run()
    assert len(bench.values()) == 12
    assert all(value["Score"] == 0.9 and len(value) == 4 for value in bench.values().values())
    assert {value["Predicted IoU"] for value in bench.values().values()} == {None}


@pytest.mark.parametrize("kept", [10**9, 10**6])
def test_too_little_max_memory_is_refused_with_what_to_set(bench: Bench, kept: int) -> None:
    bench.means = replace(bench.means, memory=kept)
    for given in (0.5, 1.3):
        outcome = bench.run(**{"Max Memory": given})
        assert outcome.code == 2
        refused = re.match(r"Nothing can be learned or searched with ([0-9.]+) GB: about ([0-9.]+) GB", outcome.error)
        assert refused
        assert float(refused[1]) == given
        assert "Give Max Memory that much, or leave it out." in outcome.error
        assert not bench.found()
    assert bench.run(**{"Max Memory": float(refused[2]) - 0.1}).code == 2
    enough = bench.run(**{"Max Memory": float(refused[2])})
    assert enough.code == 0
    assert not enough.texts("warning")
    assert bench.found()


def test_no_memory_for_learning_is_said(bench: Bench) -> None:
    def raise_it() -> None:
        raise MemoryError

    bench.method = lambda: bright(on_learn=raise_it)
    outcome = bench.run()
    assert outcome.code == 1
    assert outcome.error.startswith("There is not enough memory for this.")


def test_remarks_about_the_parameters_are_shown(bench: Bench) -> None:
    outcome = bench.run(**{"An old field": 3})
    assert outcome.code == 0
    assert "An old field" in outcome.texts("warning")[0]


def test_a_large_plane_uses_the_histogram_that_the_app_uses(bench: Bench) -> None:
    store = bench.server.store
    plane = np.zeros((8, 2100), np.uint16)
    plane[2:5, 3:9] = 4000
    percent = {"mode": "percentile", "blackPoint": 0, "whitePoint": 50}
    bench.dataset = store.add_dataset(Image({(0, 0, 0, 0): plane}), [white_layer(contrast=percent)])
    store.add_annotation(
        bench.dataset, tags=["cell"], coordinates=[{"x": 3, "y": 2}, {"x": 9, "y": 5}], shape="rectangle"
    )
    outcome = bench.run(replace(bench.means, block=1000))
    assert outcome.code == 0, outcome.lines
    assert len(bench.found()) == 1
    asked = [seen.query for seen in bench.server.seen if seen.path.endswith("histogram")]
    assert asked == [
        {"frame": "0", "bins": "4096", "width": "2048", "height": "2048", "resample": "false", "cache": "none"}
    ]
    assert json.dumps(bench.found()[0]["location"]) == '{"XY": 0, "Z": 0, "Time": 0}'
