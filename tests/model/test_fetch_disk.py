from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sam2_fewshot.backbones.sam2.fetch import fetch
from sam2_fewshot.errors import CheckpointError

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from sam2_fewshot.backbones.sam2.checkpoints import Checkpoint

NAME = "model.pt"
BLOCK = 65536  # what is written at a time


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the disk ---------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_replaced_aloud(get, mirror, listener, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / NAME).write_bytes(b"damaged")
    assert get().read_bytes() == mirror.content
    assert "is not the published file (its SHA-256 differs); it is downloaded again" in listener.warnings[0]


def test_a_damaged_file_stays_until_the_new_one_is_whole(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / NAME).write_bytes(b"damaged")
    mirror.script = [mirror.answering(404)]
    with pytest.raises(CheckpointError):
        get()
    assert (tmp_path / NAME).read_bytes() == b"damaged"


def test_a_folder_that_cannot_be(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot be written to .*file.*: Not a directory"):
        fetch(checkpoint, tmp_path / "file" / "folder")
    with pytest.raises(CheckpointError, match=r"cannot be written to .*file.*: File exists"):
        fetch(checkpoint, tmp_path / "file")


def test_too_small_a_disk_is_noticed_beforehand(mirror, checkpoint: Checkpoint, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mirror.script = [mirror.answering(200, Content_Length=str(10**18))]
    with pytest.raises(CheckpointError, match=r"needs 1,000,000,000,000 MB more in .* MB are free; make room"):
        fetch(replace(checkpoint, size=None), tmp_path)
    assert files(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_fills_up_keeps_the_part(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written to .*: File too large\. Make room or choose"):
            get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == [f"{NAME}.part"]
    assert get().read_bytes() == mirror.content


def test_an_interrupt_keeps_the_part_and_frees_the_lock(get, mirror, listener, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def stop(_: int = 1) -> None:
        raise KeyboardInterrupt

    (tmp_path / f"{NAME}.part").write_bytes(mirror.content[:3000])
    listener.advance, usual = stop, listener.advance
    with pytest.raises(KeyboardInterrupt):
        get()
    assert files(tmp_path) == [f"{NAME}.part"]
    listener.advance = usual
    assert get().read_bytes() == mirror.content


# --- several at once --------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from sam2_fewshot.backbones.sam2.fetch import fetch
from sam2_fewshot.backbones.sam2.checkpoints import Checkpoint
name, sha256, url, folder = sys.argv[1:]
print(fetch(Checkpoint(name, None, sha256=sha256, url=url), Path(folder)).read_bytes()[:4])
"""


@pytest.mark.filterwarnings("ignore::sam2_fewshot.errors.FewShotWarning")
def test_several_processes_download_once(checkpoint: Checkpoint, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    gate = threading.Event()

    def slowly(request: BaseHTTPRequestHandler, content: bytes) -> None:
        gate.wait(10)
        mirror.whole(request, content)

    mirror.script = [slowly]
    arguments = [NAME, str(checkpoint.sha256), str(checkpoint.url), str(tmp_path)]
    command = [sys.executable, "-W", "ignore", "-c", CHILD, *arguments]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environ}
    children = [subprocess.Popen(command, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    threading.Timer(1.5, gate.set).start()
    outputs = [child.communicate(timeout=120) for child in children]
    assert outputs == [("b'\\x00\\x01\\x02\\x03'\n", "")] * 3
    assert len(mirror.paths) == 1
    assert files(tmp_path) == [NAME]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
def test_who_waits_says_so_and_finds_the_file(get, mirror, checkpoint, listener, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import fcntl

    lock = (tmp_path / f".{NAME}.lock").open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)

    def other_finishes(_: float) -> None:
        (tmp_path / NAME).write_bytes(mirror.content)
        (tmp_path / f".{NAME}.lock").unlink()
        lock.close()

    assert get(sleep=other_finishes) == tmp_path / NAME
    assert listener.warnings == [f"Another process is downloading to {tmp_path}; waiting for it."]
    assert mirror.paths == []
    assert files(tmp_path) == [NAME]


def test_a_lock_left_by_a_dead_process_is_none(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / f".{NAME}.lock").touch()
    assert get().read_bytes() == mirror.content


def test_where_files_cannot_be_locked_it_downloads_all_the_same(  # type: ignore[no-untyped-def]
    get, mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    assert get().read_bytes() == mirror.content
