from __future__ import annotations

import pytest

from sam2_fewshot.errors import ServerError
from sam2_fewshot.nimbus.entry import post_form
from sam2_fewshot.nimbus.server import Patience

FORM = {"Model": {"type": "select", "items": ["a"]}}
STORED = (200, b'{"_id": "1"}')
SOON = Patience(first=0.001, longest=0.001, total=0.0025, connect=1.0, read=1.0)  # three attempts


def post(url: str, token: str = "token") -> None:
    post_form(url, token, "lab/tool:1", FORM, SOON)


@pytest.mark.parametrize("trouble", [(503, b"{}"), None], ids=["busy", "cut"])
def test_what_passes_is_tried_again(listener, trouble):
    listener.answers.extend([trouble, trouble, STORED])
    post(listener.url)
    assert [posted.body for posted in listener.posts] == [FORM] * 3


@pytest.mark.parametrize("trouble", [(503, b"<html>busy</html>"), None], ids=["busy", "cut"])
def test_not_for_ever(listener, trouble):
    listener.answers.extend([trouble] * 5)
    with pytest.raises(ServerError, match="while storing the form of lab/tool:1"):
        post(listener.url)
    assert len(listener.posts) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_a_refusal_is_final(listener, status):
    listener.answers.append((status, b'{"message": "no", "type": "rest"}'))
    with pytest.raises(ServerError, match=rf"{status}.*storing the form|storing the form.*{status}") as caught:
        post(listener.url)
    assert "frames" not in str(caught.value)  # there was no job
    assert len(listener.posts) == 1


def test_another_server(listener):
    listener.answers.append((200, b"<html>welcome</html>"))
    with pytest.raises(ServerError, match="not what NimbusImage sends"):
        post(listener.url)


@pytest.mark.parametrize("url", ["localhost:8080/api/v1", "ftp://localhost/api", "http://[/api"])
def test_what_is_no_address(url):
    with pytest.raises(ServerError):
        post(url)


def test_what_cannot_be_sent_quotes_no_token():
    with pytest.raises(ServerError) as caught:
        post("http://127.0.0.1:1/api/v1", "se\ncret")
    assert "cret" not in str(caught.value)
