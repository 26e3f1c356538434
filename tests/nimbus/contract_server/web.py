"""The store behind real HTTP on loopback, with faults on request."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from contract_server.store import Problem, Store, page, pickled, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = "/api/v1/"
HTML = "<h2>404 Not Found</h2>\n<p>Nothing matches the given URI</p>"


@dataclass
class Fault:
    """What goes wrong with some requests.

    `what` is a status (500), ``drop`` (the connection breaks before anything is done), ``lost`` (it breaks after all is
    done), ``late 503`` (all is done, and a proxy answers 503), ``slow 0.5`` (seconds), ``later 3`` (a gateway answers
    504 at once, and the request is done 3 seconds later), ``later 3 drop`` (the same, but the connection breaks), or a
    function that is called before the request is done. It befalls requests whose method and path match, after `skip` of
    them, `times` times.
    """

    method: str
    path: str
    what: str | int | Callable[[], None]
    times: int = 1
    skip: int = 0

    def befalls(self, method: str, path: str) -> bool:
        if not self.times or method != self.method or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    query: dict[str, str]


class _Quiet(ThreadingHTTPServer):
    """Says nothing of clients that are gone: jobs are killed here. It counts the connections that are open."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.open = 0
        self.lock = threading.Lock()

    def _note(self, more: int) -> None:
        with self.lock:
            self.open += more

    def process_request(self, request: Any, client_address: Any) -> None:
        self._note(1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._note(-1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class ContractServer:
    """Serves a store until it is closed; a context manager."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store()
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.under_way = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._http = _Quiet(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}{ROOT[:-1]}"

    @property
    def token(self) -> str:
        return next(iter(self.store.tokens), "expired")

    def __enter__(self) -> ContractServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def wait(self, longest: float = 30.0) -> None:
        """Wait until all requests are done, also those that come late."""
        deadline = time.monotonic() + longest
        while self.under_way:
            assert time.monotonic() < deadline, "a request is not done"
            time.sleep(0.005)

    def wait_for_the_killed(self, longest: float = 30.0) -> None:
        """Wait until all is done that clients have asked for, none of whom is alive."""
        with socket.create_connection(self._http.server_address[:2]) as last:  # its turn is after theirs
            last.shutdown(socket.SHUT_WR)
            last.recv(1)
        deadline = time.monotonic() + longest
        while self._http.open:
            assert time.monotonic() < deadline, "a connection is open"
            time.sleep(0.005)

    def later(self, seconds: float, do: Callable[[], Any]) -> None:
        """Do a request that nobody waits for any more."""

        def wait() -> None:
            time.sleep(seconds)
            try:
                do()
            except Problem:
                pass
            finally:
                self.note(-1)

        self.note(1)
        threading.Thread(target=wait, daemon=True).start()

    def note(self, more: int) -> None:
        with self.lock:
            self.under_way += more

    def count(self, method: str, path: str) -> int:
        return sum(seen.method == method and re.search(path, seen.path) is not None for seen in self.seen)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, user: str | None) -> Any:
        store, parts = self.store, path.split("/")
        writing = method != "GET"
        if user is None:
            raise refuse(
                401, "You must be logged in." if writing else _denied("Read", path, query, store, None), "access"
            )
        if user in store.outsiders or (writing and store.read_only):
            raise refuse(403, _denied("Write" if writing else "Read", path, query, store, user), "access")
        for verb, pattern, do in ROUTES:
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                return do(store, query, _Body(body), user, *found.groups())
        if parts[0] in {pattern.split("/")[0] for _, pattern, _ in ROUTES}:
            raise refuse(400, f'No matching route for "{method} {"/".join(parts[1:])}"', "rest")
        raise Problem(404, HTML, "text/html")


class InStep:
    """Holds each request until as many have come as there are jobs; after some seconds it goes on alone.

    After some `rounds` nothing is held any more.
    """

    def __init__(self, jobs: int, longest: float = 0.5, rounds: int = 10**6) -> None:
        self._jobs, self._longest, self._rounds = jobs, longest, rounds
        self._here = threading.Condition()
        self._waiting = self._round = 0

    def __call__(self) -> None:
        with self._here:
            this = self._round
            if this >= self._rounds:
                return
            self._waiting += 1
            if self._waiting == self._jobs:
                self._waiting = 0
                self._round += 1
                self._here.notify_all()
            elif not self._here.wait_for(lambda: self._round != this, self._longest):
                self._waiting -= 1


class _Body:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.raw)
        except ValueError:
            raise refuse(400, "Invalid JSON passed in request body.", "rest") from None


class _Listed(list[Any]):
    """A page of a longer list."""

    total = 0


def _paged(entries: list[Any], query: dict[str, str]) -> _Listed:
    listed = _Listed(page(entries, query))
    listed.total = len(entries)
    return listed


def _denied(what: str, path: str, query: dict[str, str], store: Store, user: str | None) -> str:
    item = store.items.get(path.split("/")[1]) if path.startswith("item/") else None
    folder = query.get("datasetId") or (item or {}).get("folderId") or next(iter(store.folders), "")
    return f"{what} access denied for folder {folder} (user {user})."


def _region(s: Store, q: dict[str, str], b: _Body, u: str, item: str) -> Any:
    if q.get("encoding") != "pickle:5":
        raise refuse(400, f'Value Error: Invalid encoding "{q.get("encoding")}"', "rest")
    found = s.image(item).region(q)
    return found if isinstance(found, bytes) else pickled(found)


def _form(s: Store, q: dict[str, str], b: _Body, u: str) -> Any:
    s.interfaces[q["image"]] = dict(sorted(b.json.items()))
    return {"_id": s.new_id(), "image": q["image"], "interface": s.interfaces[q["image"]]}


def _get_form(s: Store, q: dict[str, str], b: _Body, u: str) -> Any:
    if "image" not in q:
        raise refuse(400, "Missing 'image' parameter", "rest")
    return s.interfaces.get(q["image"])


ID = "([^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "upenn_annotation", lambda s, q, b, u: _paged(s.list_annotations(q), q)),
    ("GET", "upenn_annotation/count", lambda s, q, b, u: {"count": len(s.list_annotations(q))}),
    ("GET", f"upenn_annotation/{ID}", lambda s, q, b, u, i: s.one("upenn_annotation", s.annotations, i)),
    ("POST", "upenn_annotation/multiple", lambda s, q, b, u: s.create_annotations(b.json)),
    ("DELETE", "upenn_annotation/multiple", lambda s, q, b, u: s.delete_annotations(b.json)),
    ("PUT", f"upenn_annotation/{ID}", lambda s, q, b, u, i: s.edit_annotation(i, b.json)),
    ("GET", "annotation_connection/count", lambda s, q, b, u: {"count": len(s.list_connections(q))}),
    ("POST", "annotation_connection/multiple", lambda s, q, b, u: s.create_connections(b.json)),
    ("DELETE", "annotation_connection/multiple", lambda s, q, b, u: s.delete_connections(b.json)),
    ("GET", "annotation_connection", lambda s, q, b, u: _paged(s.list_connections(q), q)),
    ("POST", "annotation_connection/connectTo", lambda s, q, b, u: s.connect(b.json)),
    ("GET", "annotation_property", lambda s, q, b, u: _paged(s.list_properties(), q)),
    ("POST", "annotation_property", lambda s, q, b, u: s.create_property(b.json)),
    ("DELETE", f"annotation_property/{ID}", lambda s, q, b, u, i: s.properties.pop(i) and None),
    ("GET", "annotation_property_values", lambda s, q, b, u: _paged(s.list_values(q), q)),
    ("POST", "annotation_property_values/multiple", lambda s, q, b, u: s.post_values(b.json)),
    ("DELETE", "annotation_property_values", lambda s, q, b, u: s.delete_values(q)),
    ("GET", "dataset_view", lambda s, q, b, u: _paged(s.list_views(q, u), q)),
    ("GET", f"upenn_collection/{ID}", lambda s, q, b, u, i: s.one("upenn_collection", s.collections, i)),
    ("PUT", f"upenn_collection/{ID}/metadata", lambda s, q, b, u, i: s.put_metadata(i, b.json)),
    ("GET", f"folder/{ID}", lambda s, q, b, u, i: s.one("folder", s.folders, i)),
    ("GET", "item", lambda s, q, b, u: _paged(s.list_items(q), q)),
    ("POST", "item", lambda s, q, b, u: s.create_item(q)),
    ("GET", f"item/{ID}", lambda s, q, b, u, i: s.one("item", s.items, i)),
    ("GET", f"item/{ID}/files", lambda s, q, b, u, i: [f for f in s.files.values() if f["itemId"] == i]),
    ("GET", f"item/{ID}/tiles", lambda s, q, b, u, i: s.image(i).header()),
    ("GET", f"item/{ID}/tiles/region", _region),
    ("GET", f"item/{ID}/tiles/histogram", lambda s, q, b, u, i: s.histogram(i, q)),
    ("POST", "file", lambda s, q, b, u: s.create_file(q, b.raw)),
    ("GET", f"file/{ID}/download", lambda s, q, b, u, i: s.contents[i]),
    ("DELETE", f"file/{ID}", lambda s, q, b, u, i: s.delete_file(i)),
    ("GET", "worker_interface", _get_form),
    ("POST", "worker_interface", _form),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: ContractServer
    disable_nagle_algorithm = True  # headers and body go in two packets

    def _serve(self) -> None:
        self.server_of.note(1)
        try:
            self._do()
        finally:
            self.server_of.note(-1)

    def _do(self) -> None:
        server = self.server_of
        split = urlsplit(self.path)
        path = unquote(split.path).removeprefix(ROOT).strip("/")
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "file" and self.headers.get("Content-Type") != "application/octet-stream":
            body = b""  # bytes without a type are read as a form, and are gone
        server.seen.append(Seen(self.command, path, query))
        with server.lock:
            fault = next((each.what for each in server.faults if each.befalls(self.command, path)), None)
        if callable(fault):
            fault()
        elif fault == "drop":
            return self._hang_up()
        elif isinstance(fault, str) and fault.startswith("slow"):
            time.sleep(float(fault.split()[1]))
        elif isinstance(fault, int):
            return self._answer(fault, {"message": "An unexpected error occurred on the server.", "type": "internal"})
        user = server.store.tokens.get(self.headers.get("Girder-Token") or "")
        if isinstance(fault, str) and fault.startswith("later"):
            _, seconds, *how = fault.split()
            command = self.command  # of this request: the same handler serves the next one of its connection
            server.later(float(seconds), lambda: server.answer(command, path, query, body, user))
            return self._hang_up() if how else self._answer(504, "<html>gateway time-out</html>", "text/html")
        try:
            found = server.answer(self.command, path, query, body, user)
        except Problem as problem:
            return self._answer(problem.status, problem.body, problem.content_type)
        if fault == "lost":
            return self._hang_up()
        if fault == "late 503":
            return self._answer(503, "<html>busy</html>", "text/html")
        return self._answer(200, found, "image/jpeg" if path.endswith("region") else "application/json")

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _answer(self, status: int, body: Any, content_type: str = "application/json") -> None:
        raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(raw)))
            if isinstance(body, _Listed):
                self.send_header("Girder-Total-Count", str(body.total))
            self.end_headers()
            self.wfile.write(raw)
        except OSError:  # the client is gone
            self.close_connection = True

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        pass
