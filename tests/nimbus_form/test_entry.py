from __future__ import annotations

import json
import os
import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sam2_fewshot.errors import CheckpointError, InputError, ServerError, SettingsError
from sam2_fewshot.nimbus.entry import DONE, FAILED, WRONG_INPUT, main
from sam2_fewshot.nimbus.form import interface, present_checkpoints

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = "kR7secretTokenOfAUser"
IMAGE = "annotations/sam2_fewshot:latest"


@pytest.fixture(autouse=True)
def _no_checkpoints_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SAM2_FEWSHOT_CHECKPOINTS", raising=False)


def container_arguments(request: str, parameters: object, url: str = "http://localhost:1/api/v1") -> list[str]:
    """As the job runner gives them; --datasetId comes last and only with a job."""
    text = parameters if isinstance(parameters, str) else json.dumps(parameters)
    return ["--apiUrl", url, "--token", TOKEN, "--request", request, "--parameters", text]


class Job:
    """A job that keeps what it was called with, and ends as it is told to."""

    def __init__(self, code: int = DONE, trouble: BaseException | None = None) -> None:
        self.code, self.trouble = code, trouble
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, api_url: str, token: str, raw: Mapping[str, Any], dataset_id: str) -> int:
        self.calls.append((api_url, token, raw, dataset_id))
        if self.trouble:
            raise self.trouble
        return self.code


def error_of(capsys) -> dict[str, Any]:
    """The one line that was written: an error as the app reads it."""
    printed = capsys.readouterr()
    assert printed.err == ""
    assert TOKEN not in printed.out
    assert printed.out.endswith("}\n")
    assert printed.out.count("\n") == 1
    message: dict[str, Any] = json.loads(printed.out)
    assert message["type"] == "error"
    assert message["title"]
    assert not message.get("progress")
    return message


def test_interface_posts_the_form(listener, capsys):
    assert main(container_arguments("interface", {"image": IMAGE}, listener.url)) == DONE
    (posted,) = listener.posts
    assert posted.path == "/api/v1/worker_interface?image=annotations%2Fsam2_fewshot%3Alatest"
    assert posted.token == TOKEN
    assert posted.body == interface(present_checkpoints())
    printed = capsys.readouterr().out
    assert TOKEN not in printed
    assert json.loads(printed)["progress"] == 1


@pytest.mark.parametrize("code", [DONE, FAILED, WRONG_INPUT])
def test_compute_hands_the_job_over(job, code, capsys):
    run = Job(code)
    arguments = [*container_arguments("compute", job), "--datasetId", "fromtheargument"]
    assert main(arguments, run) == code
    assert run.calls == [("http://localhost:1/api/v1", TOKEN, job, "fromtheargument")]
    assert capsys.readouterr().out == ""


def test_a_dataset_may_be_named_in_the_parameters_alone(job):
    run = Job()
    main(container_arguments("compute", job), run)
    assert run.calls[0][3] == job["datasetId"]


def test_arguments_of_a_newer_server_do_no_harm(job):
    assert main([*container_arguments("compute", job), "--newer", "thing"], Job()) == DONE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "asked for nothing"),
        (["--request", "preview"], "asked for 'preview', but it only knows interface and compute"),
        (["--request", "x" * 500], "but it only knows"),
        (["--request", "compute"], "without --apiUrl and --token and --parameters"),
        (["--request", "interface", "--token", TOKEN, "--apiUrl", "u"], r"without --parameters\."),
        (["--request"], "argument --request: expected one argument"),
        (container_arguments("compute", '{"token": '), "not valid JSON: .* at character 11"),
        (container_arguments("compute", "[" * 100_000), "not valid JSON"),
        (container_arguments("compute", [1]), "JSON list, but must be an object"),
        (container_arguments("compute", {"a": 1}), "without --datasetId"),
        (container_arguments("compute", {"datasetId": 3}), "without --datasetId"),
        (container_arguments("interface", {}), "name no image"),
        (container_arguments("interface", {"image": ["a"]}), "name no image"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    run = Job()
    assert main(arguments, run) == WRONG_INPUT
    assert not run.calls
    message = error_of(capsys)["error"]
    assert re.search(said, message)
    assert len(message) < 200


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [
        (SettingsError("Model is empty."), WRONG_INPUT, "Model is empty."),
        (InputError("No annotation."), WRONG_INPUT, "No annotation."),
        (CheckpointError("Two\nlines."), WRONG_INPUT, "Two lines."),
        (ServerError(f"It said {TOKEN}."), FAILED, "It said <token>."),
        (MemoryError(), FAILED, "The worker's machine has not enough memory for this."),
        (KeyboardInterrupt(), FAILED, "The job was stopped."),
        (
            ModuleNotFoundError("No module named 'girder_client'", name="girder_client"),
            FAILED,
            'NimbusImage\'s client is not installed here: pip install "sam2-fewshot[nimbus]"',
        ),
        (
            ZeroDivisionError(f"by {TOKEN}"),
            FAILED,
            "This is a defect in sam2-fewshot, please report it: ZeroDivisionError: by <token>",
        ),
        (
            ImportError("no such name", name="torch"),
            FAILED,
            "This is a defect in sam2-fewshot, please report it: ImportError: no such name",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_goes_wrong_is_one_line(job, trouble, code, said, capsys):
    assert main(container_arguments("compute", job), Job(trouble=trouble)) == code
    assert error_of(capsys)["error"] == said


def test_a_defect_says_where(job, capsys):
    main(container_arguments("compute", job), Job(trouble=RuntimeError("odd")))
    assert error_of(capsys)["info"].startswith("test_entry.py, line ")


def test_being_terminated_is_said(job, capsys):
    def run(*_: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(10)
        return DONE

    before = signal.getsignal(signal.SIGTERM)
    assert main(container_arguments("compute", job), run) == FAILED
    assert error_of(capsys)["error"] == "The job was stopped."
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_also_runs_outside_of_the_main_thread(job):
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(container_arguments("compute", job), Job())))
    thread.start()
    thread.join()
    assert codes == [DONE]


def test_a_server_that_refuses(listener, capsys):
    listener.answers.append((401, b'{"message": "Token kR7secretTokenOfAUser expired", "type": "access"}'))
    assert main(container_arguments("interface", {"image": IMAGE}, listener.url)) == FAILED
    assert "Log in to NimbusImage again" in error_of(capsys)["error"]
