"""Post the form to the server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TIMEOUT = (10.0, 30.0)  # seconds to connect, seconds of silence
_PAUSES = (0.5, 2.0)  # seconds before the second and the third try
_PATIENCE = 10.0  # seconds after which there is no further try; the client itself tries to connect for 15
_PASSING = frozenset({502, 503, 504})  # what a busy server's proxy answers
_LONGEST_REASON = 200


def post_form(
    api_url: str,
    token: str,
    image: str,
    form: Mapping[str, Any],
    *,
    timeout: tuple[float, float] = _TIMEOUT,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Store the form as that of an image; it takes the place of the one before.

    Posting twice does no harm, so a request whose answer got lost is sent again.

    Parameters
    ----------
    api_url
        Address of the server's API, such as ``http://localhost:8080/api/v1``.
    token
        The user's session token.
    image
        Name of the worker's image, as the server calls it.
    form
        The fields by their names.
    timeout
        Seconds to wait for a connection, and for an answer.
    sleep
        Waits a number of seconds before another try.

    Raises
    ------
    ServerError
        If the server cannot be reached or refuses.
    """
    import nimbusimage
    import requests

    girder = nimbusimage.connect(api_url, token=token).girder
    began = time.monotonic()
    for pause in (*_PAUSES, None):
        try:
            # The client's own post() has no time limit, and would wait for a server that hangs for ever.
            girder.sendRestRequest(
                "POST", "worker_interface", parameters={"image": image}, json=dict(form), timeout=timeout
            )
            return
        except requests.exceptions.JSONDecodeError:
            reason, passing = "the answer is not that of a NimbusImage server", False
        except requests.HTTPError as error:
            reason, passing = _refusal(error)
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
        ):
            reason, passing = "this is no address of a server; one looks like http://localhost:8080/api/v1", False
        except requests.Timeout:
            reason, passing = "the server does not answer", True
        except requests.ConnectionError:
            reason, passing = "there is no connection to the server", True
        except requests.RequestException as error:
            # Its text may quote a header, and with it the token.
            reason, passing = f"the request failed ({type(error).__name__})", False
        if pause is None or not passing or time.monotonic() - began > _PATIENCE:
            break
        sleep(pause)
    raise ServerError(f"The form of {image} could not be posted to {api_url}: {reason}.")


def _refusal(error: Any) -> tuple[str, bool]:
    """Say why the server refused, and whether it may think better of it."""
    status = error.response.status_code
    if status == 401:
        return "the server does not accept the token, which may have expired; log in again and reload the worker", False
    if status == 403:
        return "the user is not allowed to do that", False
    try:
        message = str(json.loads(error.response.text)["message"])
    except (ValueError, TypeError, LookupError):  # a proxy's page, which tells nobody anything
        message = str(error.response.reason)
    return f"the server answered {status} ({message[:_LONGEST_REASON]})", status in _PASSING
