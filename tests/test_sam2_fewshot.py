"""The worker as NimbusImage's job runner starts it: ``entrypoint.py`` with its arguments, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import sam2_fewshot

ROOT = Path(__file__).parents[1]
TOKEN = "kR7secretTokenOfAUser"
IMAGE = "annotations/sam2_fewshot:latest"


def run(*arguments: str, program: tuple[str, ...] = ("entrypoint.py",)) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(sam2_fewshot.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )


def test_interface_posts_the_form_without_torch():
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    answering = threading.Thread(target=server.handle_request)
    answering.start()
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_path('entrypoint.py', run_name='__main__')\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)"
    )
    url = f"http://127.0.0.1:{server.server_address[1]}/api/v1"
    parameters = json.dumps({"image": IMAGE})
    done = run(
        *("--apiUrl", url, "--token", TOKEN, "--request", "interface", "--parameters", parameters),
        program=("-c", code),
    )
    answering.join(timeout=10)
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert not {"torch", "torchvision", "sam2", "skimage", "scipy"} & set(done.stderr.split())
    (body,) = bodies
    form = json.loads(body)
    assert form["Training Tag"]["type"] == "tags"
    assert form["Model"]["default"] in form["Model"]["items"]
    assert "sam2.1_hiera_micro.pt" in form["Model"]["items"]
    assert TOKEN not in done.stdout


def test_anything_else_is_an_error_with_exit_code_2():
    done = run("--apiUrl", "http://localhost:1", "--token", TOKEN, "--request", "preview", "--parameters", "{}")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"].startswith("This worker was asked for 'preview'")
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
