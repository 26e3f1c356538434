from __future__ import annotations

import socket

import pytest

from sam2_fewshot.errors import ServerError
from sam2_fewshot.nimbus.posting import post_form

FORM = {"Model": {"type": "select", "items": ["a"]}}
STORED = (200, b'{"_id": "1"}')


def post(listener, pauses: list[float] | None = None) -> None:
    post_form(listener.url, "token", "lab/tool:1", FORM, sleep=(pauses if pauses is not None else []).append)


@pytest.mark.parametrize(
    "trouble", [(502, b"<html>"), (503, b"{}"), (504, b"[]"), None], ids=["502", "503", "504", "cut"]
)
def test_what_passes_is_tried_again(listener, trouble):
    listener.answers.extend([trouble, trouble, STORED])
    pauses: list[float] = []
    post(listener, pauses)
    assert [posted.body for posted in listener.posts] == [FORM] * 3
    assert pauses == [0.5, 2.0]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [((503, b"<html>busy</html>"), r"answered 503 \(Service Unavailable\)"), (None, "no connection to the server")],
)
def test_not_for_ever(listener, trouble, said):
    listener.answers.extend([trouble] * 3)
    with pytest.raises(ServerError, match=rf"^The form of lab/tool:1 could not be posted to http.*{said}"):
        post(listener)
    assert len(listener.posts) == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((400, b'{"message": "Invalid JSON", "type": "rest"}'), r"answered 400 \(Invalid JSON\)"),
        ((401, b'{"message": "You must be logged in."}'), "log in again"),
        ((403, b'{"message": "no"}'), "not allowed"),
        ((404, b"<html>nobody home</html>"), r"answered 404 \(Not Found\)"),
        ((500, b'{"message": "' + b"x" * 5000 + b'"}'), r"answered 500 \(xxx"),
        ((200, b"<html>welcome</html>"), "not that of a NimbusImage server"),
    ],
)
def test_a_refusal_is_final(listener, answer, said):
    listener.answers.append(answer)
    with pytest.raises(ServerError, match=said) as caught:
        post(listener)
    assert len(listener.posts) == 1
    assert len(str(caught.value)) < 350


@pytest.mark.parametrize("url", ["localhost:8080/api/v1", "ftp://localhost/api", "http://[/api"])
def test_what_is_no_address(url):
    with pytest.raises(ServerError, match="no address"):
        post_form(url, "token", "lab/tool:1", FORM)


def test_a_server_that_hangs():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api/v1"
        with pytest.raises(ServerError, match="the server does not answer"):
            post_form(url, "token", "lab/tool:1", FORM, timeout=(1.0, 0.02), sleep=lambda seconds: None)


def test_what_cannot_be_sent_quotes_no_token():
    with pytest.raises(ServerError, match="the request failed") as caught:
        post_form("http://127.0.0.1:1/api/v1", "se\ncret", "lab/tool:1", FORM)
    assert "cret" not in str(caught.value)
