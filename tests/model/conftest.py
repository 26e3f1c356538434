from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from sam2_fewshot.backbones.sam2.checkpoints import EMBEDDED_FOLDER, Checkpoint
from sam2_fewshot.backbones.sam2.fetch import fetch
from sam2_fewshot.protocols import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Listener(Quiet):
    """A Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.steps: list[int] = []
        self.warnings: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.stages.append((stage, total))
        self.steps.append(0)

    def advance(self, steps: int = 1) -> None:
        self.steps[-1] += steps

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


@dataclass
class Mirror:
    """A real server on loopback that answers from a script, then properly."""

    content: bytes
    url: str = ""
    script: list[Answer] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @staticmethod
    def proper(request: BaseHTTPRequestHandler, content: bytes) -> None:
        """Answer as a good server does, with ranges."""
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start:])

    @staticmethod
    def answering(status: int, body: bytes = b"", **headers: str) -> Answer:
        def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
            request.send_response(status)
            for name, value in {"Content_Length": str(len(body)), **headers}.items():
                request.send_header(name.replace("_", "-"), value)
            request.end_headers()
            request.wfile.write(body)

        return answer

    @staticmethod
    def whole(request: BaseHTTPRequestHandler, content: bytes) -> None:
        """Ignore what range was asked for."""
        Mirror.answering(200, content)(request, content)

    @staticmethod
    def breaking_after(count: int) -> Answer:
        def answer(request: BaseHTTPRequestHandler, content: bytes) -> None:
            asked = request.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            request.send_response(206 if asked else 200)
            if asked:
                request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            request.send_header("Content-Length", str(len(content) - start))
            request.end_headers()
            request.wfile.write(content[start : start + count])

        return answer

    @staticmethod
    def without_length(request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(content)

    @staticmethod
    def hanging_up(request: BaseHTTPRequestHandler, _: bytes) -> None:
        request.close_connection = True
        request.connection.close()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Mirror(content=bytes(range(256)) * 2048)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.ranges.append(self.headers.get("Range"))
            state.paths.append(self.path)
            answer = state.script.pop(0) if state.script else Mirror.proper
            answer(self, state.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Search folders of a machine of our own: one from the environment, a cache, the embedded one."""
    places = [tmp_path / "shared", tmp_path / "cache"]
    for place in places:
        place.mkdir()
    return [*places, EMBEDDED_FOLDER]


@pytest.fixture
def checkpoint(mirror: Mirror) -> Checkpoint:
    return Checkpoint(
        "model.pt",
        None,
        sha256=hashlib.sha256(mirror.content).hexdigest(),
        url=f"{mirror.url}/model.pt",
        size=len(mirror.content),
    )


@pytest.fixture
def get(checkpoint: Checkpoint, tmp_path: Path, listener: Listener, naps: list[float]) -> Callable[..., Path]:
    """Download the checkpoint to a folder, without really waiting between tries."""
    return partial(fetch, checkpoint, tmp_path, listener, sleep=naps.append)


@pytest.fixture
def naps() -> list[float]:
    return []
