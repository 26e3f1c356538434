"""A server on loopback that keeps what is posted to it, and a job's parameters as the browser posts them."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Posted:
    path: str
    token: str | None
    body: Any


@dataclass
class Listener:
    """A server that answers what it is told to; `answers` are (status, body) or None to hang up."""

    url: str
    answers: deque[tuple[int, bytes] | None] = field(default_factory=deque)
    posts: list[Posted] = field(default_factory=list)


@pytest.fixture
def listener() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.posts.append(Posted(self.path, self.headers.get("Girder-Token"), json.loads(body)))
            answer = seen.answers.popleft() if seen.answers else (200, b'{"_id": "6b02c433f8a237bc22a335bc"}')
            if answer is None:
                self.connection.close()
                return
            status, content = answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = Listener(f"http://127.0.0.1:{server.server_address[1]}/api/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def job() -> dict[str, Any]:
    """A job's parameters as the browser posts them."""
    return {
        "datasetId": "6b02c3b8f8a237bc22a33566",
        "type": "segmentation",
        "id": "0b6c5b53-7c9b-4c2a-9a5e-3f5b64a8c111",
        "name": "SAM2 few-shot",
        "image": "annotations/sam2_fewshot:latest",
        "channel": 1,
        "assignment": {"XY": 1, "Z": 0, "Time": 2},
        "tags": ["found"],
        "tile": {"XY": 1, "Z": 0, "Time": 2},
        "connectTo": {"tags": [], "channel": None},
        "workerInterface": {
            "How it works": "",
            "Training Tag": ["cell"],
            "Batch XY": "1-2",
            "Batch Z": "",
            "Batch Time": "all",
            "Model": "sam2.1_hiera_tiny.pt",
            "Similarity Threshold": "0.55",
            "Max Mask Area": 0,
        },
        "scales": {},
    }
