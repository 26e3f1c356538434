"""A folder as an object store: as much of Amazon S3's interface as reading takes, signatures not checked."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLOSED = "closed"
"""Name of a bucket that nobody may read."""


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    seen: list[tuple[str, bool]]
    """Path of each request, and whether it was signed."""

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        self.seen.append((parts.path, "Authorization" in self.headers))
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if bucket == CLOSED:
            self._refuse(403, "AccessDenied", "Access Denied")
        elif not (self.root / bucket).is_dir():
            self._refuse(404, "NoSuchBucket", "The specified bucket does not exist")
        elif "list-type" in asked:
            self._list(bucket, asked.get("prefix", ""), asked.get("delimiter", ""))
        elif not key or not (self.root / bucket / key).is_file():
            self._refuse(404, "NoSuchKey", "The specified key does not exist.")
        else:
            self._give((self.root / bucket / key).read_bytes())

    def _list(self, bucket: str, prefix: str, delimiter: str) -> None:
        base = self.root / bucket
        names = sorted(path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file())
        inside, folders = [], set()
        for name in (name for name in names if name.startswith(prefix)):
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if cut:
                folders.add(prefix + head + delimiter)
            else:
                inside.append(name)
        listed = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{(base / name).stat().st_size}</Size>"
            '<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"0"</ETag></Contents>'
            for name in inside
        )
        listed += "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders))
        count = len(inside) + len(folders)
        self._give(
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{count}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>".encode()
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._give(f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode(), status)

    def _give(self, body: bytes, status: int = 200) -> None:
        asked = self.headers.get("Range")
        whole = len(body)
        if asked and status == 200:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(whole - int(last), 0)
            stop = min(int(last) + 1, whole) if first and last else whole
            body, status = body[start:stop], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{whole}")
        self.send_header("Content-Type", "application/xml" if status >= 400 else "binary/octet-stream")
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"0"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def object_store(root: Path) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Serve the folders in a folder as buckets; give the address, and the requests as they come."""
    seen: list[tuple[str, bool]] = []
    handler = type("Requests", (_Requests,), {"root": root, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
