"""The container's door: arguments in, messages and an exit code out."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sam2_fewshot.errors import (
    DONE,
    FAILED,
    WRONG_INPUT,
    FewShotError,
    ServerError,
    SettingsError,
    terminated_like_interrupted,
)
from sam2_fewshot.nimbus.messages import notice
from sam2_fewshot.resources import share_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sam2_fewshot.nimbus.server import Patience

    Compute = Callable[[str, str, Mapping[str, Any], str], int]

_CLIENT = frozenset({"nimbusimage", "girder_client"})
"""Top-level modules of the extra ``nimbus``."""


def main(arguments: Sequence[str] | None = None, compute: Compute | None = None) -> int:
    """Do what NimbusImage's job runner asks for.

    Parameters
    ----------
    arguments
        ``--apiUrl URL --token TOKEN --request interface|compute --parameters JSON [--datasetId ID]``; None for
        those of this process.
    compute
        Runs a job: called with the API's address, the token, the parameters and the dataset's id, it returns
        the exit code. None for :func:`sam2_fewshot.nimbus.job.compute`.

    Returns
    -------
    int
        The exit code. Whatever goes wrong is reported in one line that the browser shows as an error, and the token
        is in none of them.
    """
    share_cores()
    given = sys.argv[1:] if arguments is None else list(arguments)
    token = ""
    try:
        with terminated_like_interrupted():
            options = _parse(given)
            token = options.token
            return _dispatch(options, compute)
    except KeyboardInterrupt:
        _error("The job was stopped.", token)
        return FAILED
    except FewShotError as error:
        _error(str(error), token)
        return FAILED if isinstance(error, ServerError) else WRONG_INPUT
    except MemoryError:
        _error("The worker's machine has not enough memory for this.", token)
        return FAILED
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _CLIENT:
            return _defect(error, token)
        _error('NimbusImage\'s client is not installed here: pip install "sam2-fewshot[nimbus]"', token)
        return FAILED
    except Exception as error:
        return _defect(error, token)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"The worker was started with wrong arguments: {message}.")


def _parse(given: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="entrypoint.py",
        description="The NimbusImage worker. NimbusImage's job runner starts it with these arguments.",
        allow_abbrev=False,
    )
    parser.add_argument("--apiUrl", default="", metavar="URL", help="address of the server's API")
    parser.add_argument("--token", default="", help="session token of the user")
    parser.add_argument("--request", default="", metavar="NAME", help="interface: post the form; compute: run a job")
    parser.add_argument("--parameters", default="", metavar="JSON", help="the image's name, or the job's parameters")
    parser.add_argument("--datasetId", default="", metavar="ID", help="the dataset of a job")
    # A newer server may give more arguments than these; what they could mean is not known here.
    return parser.parse_known_args(given)[0]


def _dispatch(options: argparse.Namespace, compute: Compute | None) -> int:
    if options.request not in ("interface", "compute"):
        request = repr(options.request[:40]) if options.request else "nothing"
        raise SettingsError(f"This worker was asked for {request}, but it only knows interface and compute.")
    missing = [f"--{name}" for name in ("apiUrl", "token", "parameters") if not getattr(options, name)]
    if missing:
        raise SettingsError(f"The worker was started without {' and '.join(missing)}.")
    parameters = _parameters(options.parameters)
    if options.request == "interface":
        return _post_interface(options.apiUrl, options.token, parameters)
    dataset_id = options.datasetId or parameters.get("datasetId")
    if not isinstance(dataset_id, str) or not dataset_id:
        raise SettingsError("The worker was started without --datasetId, so there is no dataset to work on.")
    if compute is not None:
        return compute(options.apiUrl, options.token, parameters, dataset_id)
    from sam2_fewshot.nimbus import job  # it costs the import of torch, which the form must not pay for

    return job.compute(options.apiUrl, options.token, parameters, dataset_id)


def _parameters(text: str) -> dict[str, Any]:
    try:
        parameters = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f": {error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        raise SettingsError(f"The worker's parameters are not valid JSON{where}.") from None
    if not isinstance(parameters, dict):
        raise SettingsError(f"The worker's parameters are a JSON {type(parameters).__name__}, but must be an object.")
    return parameters


def _post_interface(api_url: str, token: str, parameters: Mapping[str, Any]) -> int:
    from sam2_fewshot.nimbus.form import interface, present_checkpoints

    image = parameters.get("image")
    if not isinstance(image, str) or not image:
        raise SettingsError("The parameters name no image, so the form cannot be posted for one.")
    checkpoints = present_checkpoints()
    form = interface(checkpoints)
    post_form(api_url, token, image, form)
    _say({"progress": 1, "title": "Form posted", "info": f"{len(form)} fields; models: {', '.join(checkpoints)}"})
    return DONE


def post_form(api_url: str, token: str, image: str, form: Mapping[str, Any], patience: Patience | None = None) -> None:
    """Store the form as that of an image; it takes the place of the one before.

    Posting twice does no harm, so a request whose answer got lost is sent again. Without a `patience`, a server that is
    busy or gone is waited for some seconds only, since the user waits in front of an empty dialog, and can ask for the
    form again at any time.

    Raises
    ------
    ServerError
        If the server cannot be reached or refuses.
    """
    from sam2_fewshot.nimbus.server import Patience, Server

    patience = patience or Patience(longest=4.0, total=10.0, connect=10.0, read=30.0)
    with Server(api_url, token, patience) as server:
        server.again = "Ask for the form again"
        doing = f"storing the form of {image}"
        server.send(doing, "POST", "worker_interface", dict(form), parameters={"image": image}, repeatable=True)


def _error(sentence: str, token: str, info: str | None = None) -> None:
    clean = " ".join(sentence.split())
    if token:
        clean = clean.replace(token, "<token>")
    _say(notice("error", clean, info))


def _defect(error: Exception, token: str) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else None
    _error(f"This is a defect in sam2-fewshot, please report it: {type(error).__name__}: {error}", token, where)
    return FAILED


def _say(message: Mapping[str, Any]) -> None:
    """Write a message for the browser: one JSON object on a line, in one write."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
