from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sam2_fewshot.backbones.sam2.checkpoints import EMBEDDED_FOLDER, MICRO, Checkpoint, user_cache_folder
from sam2_fewshot.backbones.sam2.fetch import fetch
from sam2_fewshot.errors import CheckpointError

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

NAME = "model.pt"
BLOCK = 65536  # what is written at a time


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the good way -----------------------------------------------------------------------------------------------


def test_a_download_ends_whole_and_leaves_nothing_else(get, mirror, listener, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = get()
    assert path == tmp_path / NAME
    assert path.read_bytes() == mirror.content
    assert files(tmp_path) == [NAME]
    assert listener.stages == [(f"Downloading {NAME}", len(mirror.content))]
    assert listener.steps == [len(mirror.content)]
    assert listener.warnings == []


def test_what_is_there_is_not_downloaded_again(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    get()
    assert get() == tmp_path / NAME
    assert len(mirror.paths) == 1


def test_folders_are_made(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert fetch(checkpoint, tmp_path / "a" / "b").parent == tmp_path / "a" / "b"


def test_the_default_folder_is_where_the_search_looks(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert fetch(checkpoint).parent == user_cache_folder()
    assert user_cache_folder().is_relative_to(tmp_path)


def test_another_address_may_be_named(checkpoint: Checkpoint, mirror, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    nowhere = replace(checkpoint, url="http://127.0.0.1:9/never")
    fetch(nowhere, tmp_path / "a", base_url=f"{mirror.url}/given/")
    monkeypatch.setenv("SAM2_FEWSHOT_BASE_URL", f"{mirror.url}/environment")
    fetch(nowhere, tmp_path / "b")
    assert mirror.paths == [f"/given/{NAME}", f"/environment/{NAME}"]


def test_a_server_that_does_not_say_the_length(get, mirror) -> None:  # type: ignore[no-untyped-def]
    mirror.script = [mirror.without_length]
    assert get().read_bytes() == mirror.content


def test_the_embedded_checkpoint_is_there_already() -> None:
    assert fetch("micro") == EMBEDDED_FOLDER / MICRO.name


def test_an_unknown_name() -> None:
    with pytest.raises(
        CheckpointError, match=r"no model called 'huge' to download.*sam2\.1_hiera_large\.pt, .*tiny\.pt\.$"
    ):
        fetch("huge")


# --- continuing -------------------------------------------------------------------------------------------------


def test_an_earlier_part_is_continued(get, mirror, listener, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / f"{NAME}.part").write_bytes(mirror.content[:3000])
    assert get().read_bytes() == mirror.content
    assert mirror.ranges == ["bytes=3000-"]
    assert listener.steps == [len(mirror.content)]
    assert files(tmp_path) == [NAME]


def test_a_server_that_ignores_ranges(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / f"{NAME}.part").write_bytes(mirror.content[:3000])
    mirror.script = [mirror.whole]
    assert get().read_bytes() == mirror.content


def test_a_complete_part_is_only_renamed(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / f"{NAME}.part").write_bytes(mirror.content)
    assert get().read_bytes() == mirror.content
    assert mirror.ranges == [f"bytes={len(mirror.content)}-"]


def test_a_part_that_is_too_long_is_thrown_away(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / f"{NAME}.part").write_bytes(mirror.content + b"more")
    assert get().read_bytes() == mirror.content
    assert mirror.ranges[-1] is None


def test_a_part_of_another_file_is_thrown_away(get, mirror, listener, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 3000)
    assert get().read_bytes() == mirror.content
    assert mirror.ranges == ["bytes=3000-", None]
    assert listener.warnings == [f"The pieces of {NAME} do not fit together; the download starts over."]


@pytest.mark.parametrize("span", ["bytes 0-524287/524288", "bytes 2999-524287/524288", "nonsense", ""])
def test_a_range_that_was_not_asked_for_is_not_used(span: str, get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / f"{NAME}.part").write_bytes(mirror.content[:3000])
    mirror.script = [mirror.answering(206, mirror.content[2999:], Content_Range=span)]
    assert get().read_bytes() == mirror.content
    assert mirror.ranges == ["bytes=3000-", None]


def test_the_file_on_the_server_changes_halfway(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    new = mirror.content
    mirror.content = b"old." * (len(new) // 4)
    assert len(mirror.content) == len(new)

    def replaced(request: BaseHTTPRequestHandler, content: bytes) -> None:
        mirror.breaking_after(BLOCK)(request, content)
        mirror.content = new

    mirror.script = [replaced]
    assert get().read_bytes() == new
    assert mirror.ranges == [None, f"bytes={BLOCK}-", None]
    assert files(tmp_path) == [NAME]


# --- bad lines --------------------------------------------------------------------------------------------------


def test_a_line_that_breaks_is_taken_up_again(get, mirror, naps) -> None:  # type: ignore[no-untyped-def]
    mirror.script = [mirror.breaking_after(BLOCK)] * 7
    assert get().read_bytes() == mirror.content
    assert mirror.ranges == [None, *(f"bytes={BLOCK * count}-" for count in range(1, 8))]
    assert naps == [1.0] * 7


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(status: int, get, mirror, naps) -> None:  # type: ignore[no-untyped-def]
    mirror.script = [mirror.answering(status)] * 3
    assert get().read_bytes() == mirror.content
    assert naps == [1.0, 2.0, 4.0]


def test_what_came_before_giving_up_is_kept(get, mirror, naps, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mirror.script = [mirror.breaking_after(BLOCK), *[mirror.hanging_up] * 4]
    with pytest.raises(
        CheckpointError, match=r"broke\. The first 65,536 bytes are kept, and the same command continues"
    ):
        get()
    assert files(tmp_path) == [f"{NAME}.part"]
    assert get().read_bytes() == mirror.content
    assert mirror.ranges[-1] == f"bytes={BLOCK}-"


def test_a_server_that_never_agrees_ends_the_tries(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mirror.script = [mirror.breaking_after(BLOCK), mirror.answering(416, Content_Range="bytes */7")] * 20
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        get()
    assert len(mirror.paths) < 12


def test_nobody_listens(checkpoint: Checkpoint, tmp_path: Path, naps: list[float]) -> None:
    closed = replace(checkpoint, url="http://127.0.0.1:9/model.pt")
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1 refused the connection\. Without a connection, copy the"):
        fetch(closed, tmp_path, sleep=naps.append)
    assert naps == [1.0, 2.0, 4.0, 8.0]
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "variable", "sentence"),
    [
        ("https://127.0.0.1:{port}/model.pt", "NO_PROXY", "the secure connection to 127.0.0.1 failed"),
        ("http://far.example/model.pt", "http_proxy", "this network's proxy did not let it through to far.example"),
    ],
)
def test_what_stands_in_between_is_named(  # type: ignore[no-untyped-def]
    url: str, variable: str, sentence: str, checkpoint: Checkpoint, mirror, tmp_path: Path, naps, monkeypatch
) -> None:
    monkeypatch.setenv(variable, "127.0.0.1:9" if variable == "http_proxy" else "*")
    there = replace(checkpoint, url=url.format(port=mirror.url.rsplit(":")[-1]))
    with pytest.raises(CheckpointError, match=sentence):
        fetch(there, tmp_path, sleep=naps.append)


def test_a_malformed_proxy_is_told(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http:///proxy")
    with pytest.raises(CheckpointError, match=r"address of this network's proxy, .*, is malformed; mend it\.$"):
        fetch(replace(checkpoint, url="http://far.example/model.pt"), tmp_path)


def test_a_silent_server(get, mirror) -> None:  # type: ignore[no-untyped-def]
    gate = threading.Event()
    mirror.script = [lambda request, content: gate.wait(5)] * 5
    with pytest.raises(CheckpointError, match=r"the server stopped answering\. Without a connection"):
        get(timeout=(1, 0.05))
    gate.set()


def test_a_host_that_does_not_exist(checkpoint: Checkpoint, tmp_path: Path, naps: list[float], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("NO_PROXY", "*")
    unknown = replace(checkpoint, url="http://no-such-host.invalid/model.pt")
    with pytest.raises(CheckpointError, match=r"the name no-such-host\.invalid is not known to this network"):
        fetch(unknown, tmp_path, sleep=naps.append)


# --- answers that will not get better ---------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "reason"), [(403, "Forbidden"), (404, "Not Found"), (410, "Gone"), (204, "No C")])
def test_a_refusal_is_passed_on_at_once(status: int, reason: str, get, mirror, naps) -> None:  # type: ignore[no-untyped-def]
    mirror.script = [mirror.answering(status)]
    with pytest.raises(CheckpointError, match=f"the server answered {status} {reason}"):
        get()
    assert naps == []


def test_a_login_page_is_no_checkpoint(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mirror.script = [mirror.answering(200, b"<html>", Content_Type="text/html; charset=utf-8")]
    with pytest.raises(CheckpointError, match="a web page instead of a checkpoint"):
        get()
    assert files(tmp_path) == []


def test_another_size_is_another_file(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mirror.script = [mirror.answering(200, b"short")]
    with pytest.raises(CheckpointError, match=rf"offers 5 bytes, but {NAME} has 524,288; it is another file"):
        get()
    assert files(tmp_path) == []


def test_a_wrong_file_is_deleted(get, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mirror.content = bytes(len(mirror.content))
    with pytest.raises(CheckpointError, match=r"\(524,288 bytes\) is not the published model\.pt: its SHA-256 differs"):
        get()
    assert files(tmp_path) == []
    assert len(mirror.paths) == 1


@pytest.mark.parametrize("status", [403, 503, 200])
def test_no_message_has_the_login_or_query_of_an_address(  # type: ignore[no-untyped-def]
    status: int, checkpoint: Checkpoint, mirror, tmp_path: Path, naps: list[float], monkeypatch
) -> None:
    mirror.script = [mirror.answering(status, b"another")] * 5
    host = mirror.url.removeprefix("http://")
    monkeypatch.setenv("SAM2_FEWSHOT_BASE_URL", f"http://me:S3CRET@{host}/mirror?key=S3CRET@x")
    with pytest.raises(CheckpointError, match=rf"http://…@{host}/mirror…") as caught:
        fetch(checkpoint, tmp_path, sleep=naps.append)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("base", "shown"),
    [
        ("me:S3CRET@mirror.example", "…@mirror.example/model.pt"),
        ("ftp://me:S3CRET@mirror.example", "ftp://…@mirror.example/model.pt"),
        ("https://me:S3CRET/S3CRET@mirror.example", "https://…@mirror.example/model.pt"),
        ("ftp://mirror.example/models@v2", "ftp://mirror.example/models@v2/model.pt"),
    ],
)
def test_nor_has_that_of_a_bad_address(base: str, shown: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=f"^{shown} is not an address to download from; one begins with"
    ) as caught:
        fetch(checkpoint, tmp_path, base_url=base)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "mirror/path", "ftp://host/", "http://", "http://[::1", "http://a b/"])
def test_a_bad_address(url: str, checkpoint: Checkpoint, tmp_path: Path, naps: list[float]) -> None:
    with pytest.raises(CheckpointError, match=f"{NAME}"):
        fetch(replace(checkpoint, url=f"{url}/{NAME}"), tmp_path, sleep=naps.append)
