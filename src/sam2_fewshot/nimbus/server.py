"""The connection to a NimbusImage server: it waits, repeats requests, and reports in sentences what went wrong.

The official client authenticates and knows the routes; this module gives it a session with time-outs and patience.
Requests that change nothing when they come twice are repeated. A request that does is not, when nobody knows
whether the first one arrived: :class:`Unanswered` leaves it to the caller to look.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import requests

from sam2_fewshot.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

_Item = TypeVar("_Item")

PAGE = 5000
"""Entries of a list asked for at a time: a few megabytes."""
_PART = 1000
"""Entries of a list sent at a time."""
_BUSY = frozenset({429, 502, 503, 504})
_DOUBTFUL = _BUSY - {429}
"""Answers of a gateway whose server may have done, or may yet do, what was asked."""
ABSENT = frozenset({400, 404})
"""What the server answers that has no such document: for an unknown id mostly 400."""
_MOST_ERRORS = 2
"""So many times a reading request that ended in a 500 is sent again; a database may have hiccups."""
_LONGEST_REASON = 300
MOST_LOOKS = 5
"""So often a job looks at its end whether all is as it should be: other jobs that do the same may interfere."""


class Refused(ServerError):
    """The server answered, and said no.

    Parameters
    ----------
    sentence
        What to tell the user.
    status
        The HTTP status.
    reason
        The server's own words.
    """

    def __init__(self, sentence: str, status: int, reason: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason


class Unanswered(ServerError):
    """The server did not answer for as long as we wait; what was asked may have been done or not."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server that is busy, restarting or gone.

    Parameters
    ----------
    first, longest
        Seconds between the first two attempts, and at most; each wait is twice the one before.
    asked
        Seconds that are waited at most where the server asks for a time, so that some attempts remain.
    total
        Seconds of waiting in all before giving up. Five minutes outlast a server's restart.
    connect, read
        Seconds that one attempt may take to connect, and to answer. A server that draws a large region or connects
        thousands of annotations takes minutes.
    gateway
        Seconds that a request may still be on its way to the server after a gateway has answered in the server's
        place, or the connection broke. Up to 8 were seen.
    """

    first: float = 0.5
    longest: float = 30.0
    asked: float = 60.0
    total: float = 300.0
    connect: float = 15.0
    read: float = 300.0
    gateway: float = 10.0

    def waits(self, asked: Callable[[], float] = lambda: 0.0) -> Iterator[float]:
        """Yield the seconds to wait before each further attempt: more where more are asked for, within the total."""
        waited, wait = 0.0, self.first
        while waited + wait <= self.total:
            now = max(wait, min(asked(), self.asked, self.total - waited))
            yield now
            waited += now
            wait = min(2 * wait, self.longest)

    def looks(self, least: float = 0.0) -> Iterator[float]:
        """Yield the seconds to wait before each look for what a doubtful request has done, often at first.

        They go on for `least` seconds although :attr:`gateway` may be less.
        """
        left, wait = max(self.gateway, least), self.first
        while left > 0:
            wait = min(wait, left)
            yield wait
            left -= wait
            wait *= 2


class _PatientSession(requests.Session):
    """Repeats what may be repeated; the official client sends everything through it."""

    def __init__(self, patience: Patience, log: Callable[[str], None]) -> None:
        super().__init__()
        self._patience = patience
        self._log = log
        self.repeat_posts = False
        self.count = 0
        self.doubts = 0
        self.doubted = 0.0

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        kwargs.setdefault("timeout", (self._patience.connect, self._patience.read))
        is_reading = method.upper() == "GET"
        repeatable = method.upper() != "POST" or self.repeat_posts
        outcome: requests.Response | requests.RequestException
        waits = self._patience.waits(lambda: _asked_wait(outcome))
        errors = 0
        while True:
            self.count += 1
            try:
                outcome = super().request(method, url, *args, **kwargs)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                outcome = error
                is_lost = not _never_arrived(error)
                again = (repeatable or not is_lost) and not isinstance(error, requests.exceptions.SSLError)
                trouble = "does not answer"
            else:
                status = outcome.status_code
                is_lost = status in _DOUBTFUL
                errors += status == 500
                defect = status == 500 and is_reading and errors <= _MOST_ERRORS
                again = status == 429 or (repeatable and (status in _BUSY or defect))
                trouble = f"is busy ({status})"
            if is_lost and not is_reading:
                self.doubts += 1
                self.doubted = time.monotonic()
            wait = next(waits, None) if again else None
            if wait is None:
                if is_lost and not repeatable:
                    self._log(f"The server {trouble}; looking what it has done.")
                if isinstance(outcome, requests.RequestException):
                    raise outcome
                return outcome
            self._log(f"The server {trouble}; trying again in {wait:.3g} s.")
            time.sleep(wait)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        # A file may lie in a store that belongs to others; of itself requests takes away its own header only.
        if self.should_strip_auth(response.request.url, prepared_request.url):  # type: ignore[no-untyped-call]
            prepared_request.headers.pop("Girder-Token", None)
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]


class Server:
    """A logged-in connection to one server; a context manager.

    Parameters
    ----------
    api_url
        Address of the server's API, such as ``https://example.org/api/v1``.
    token
        The user's token. It is sent in a header and appears in no message.
    patience
        How long to wait.
    log
        Takes a line when something has to be waited for.
    page
        Entries of a list asked for at a time.
    """

    def __init__(
        self,
        api_url: str,
        token: str,
        patience: Patience | None = None,
        log: Callable[[str], None] = lambda line: None,
        page: int = PAGE,
    ) -> None:
        import nimbusimage

        if not api_url.startswith(("http://", "https://")):
            raise ServerError(f"The server's address is {api_url!r}, but it must begin with http:// or https://.")
        self._token = token
        self._page = page
        self._client = nimbusimage.connect(api_url, token=token).girder
        self.patience = patience or Patience()
        self._session = _PatientSession(self.patience, log)
        self._stack = ExitStack()
        self.again = "Run the tool again"
        """What the user can do after an error; without the full stop."""

    def __enter__(self) -> Self:
        self._stack.enter_context(self._client.session(self._session))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def requests_sent(self) -> int:
        """Number of HTTP requests so far, repeated ones included."""
        return self._session.count

    @property
    def doubts(self) -> int:
        """Number of requests to change something of which nobody knows whether, or when, they were done."""
        return self._session.doubts

    def wait_for_gateway(self, since: int = 0) -> None:
        """Wait until nothing can be on its way any more; not at all if there was no doubt after the first `since`."""
        if self._session.doubts > since:
            time.sleep(max(0.0, self._session.doubted + self.patience.gateway - time.monotonic()))

    def get(self, doing: str, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """GET a JSON document.

        Parameters
        ----------
        doing
            What it is for, to say in an error: "reading the annotations".
        path
            Route below the API's address.
        parameters
            The query.

        Raises
        ------
        Refused, Unanswered
            If there is no document.
        """
        with self._telling(doing):
            return self._client.get(path, parameters=dict(parameters or {}))

    def find(
        self, doing: str, path: str, parameters: Mapping[str, Any] | None = None, absent: Collection[int] = ABSENT
    ) -> Any:
        """GET a JSON document; None where the server's answer is one of `absent`. Otherwise as :meth:`get`."""
        try:
            return self.get(doing, path, parameters)
        except Refused as error:
            if error.status not in absent:
                raise
            return None

    def pages(
        self, doing: str, path: str, parameters: Mapping[str, Any], after: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """GET the entries of a list in the order of their ids, page by page; otherwise as :meth:`get`.

        Only those whose id is larger than `after`.
        """
        while True:
            page = self.page(doing, path, parameters, after, self._page)
            yield from page
            if len(page) < self._page:
                return
            after = str(page[-1]["_id"])

    def page(
        self, doing: str, path: str, parameters: Mapping[str, Any], after: str | None, most: int
    ) -> list[dict[str, Any]]:
        """GET the first `most` of the entries that :meth:`pages` gives, in one request."""
        query = {**parameters, "limit": most, "sort": "_id", "sortdir": 1}
        if after:
            query["afterId"] = after
        return list(self.get(doing, path, query))

    def get_bytes(self, doing: str, path: str, parameters: Mapping[str, Any] | None = None) -> bytes:
        """GET anything that is not JSON; otherwise as :meth:`get`."""
        with self._telling(doing):
            response = self._client.get(path, parameters=dict(parameters or {}), jsonResp=False)
            return bytes(response.content)

    def send(
        self,
        doing: str,
        method: str,
        path: str,
        body: object = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        data: bytes | None = None,
        repeatable: bool = False,
    ) -> Any:
        """POST, PUT or DELETE, and return the JSON that comes back.

        Parameters
        ----------
        doing, path, parameters
            As for :meth:`get`.
        method
            The HTTP method.
        body
            What to send as JSON.
        data
            Or else the bytes to send.
        repeatable
            Whether a second POST does no harm either; of the other methods none does.

        Raises
        ------
        Refused
            If the server says no.
        Unanswered
            If nobody knows.
        """
        self._session.repeat_posts = repeatable
        try:
            with self._telling(doing):
                return self._client.sendRestRequest(
                    method,
                    path,
                    parameters=dict(parameters or {}),
                    json=body,
                    data=data,
                    # Without it the server takes bytes for a form.
                    headers=None if data is None else {"Content-Type": "application/octet-stream"},
                )
        finally:
            self._session.repeat_posts = False

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Turn what the client raises into sentences that say what was being done."""
        try:
            yield
        except requests.exceptions.JSONDecodeError:
            raise Refused(
                f"The answer of the server while {doing} is not what NimbusImage sends; is the address right, and is "
                "there a proxy in between?",
                200,
            ) from None
        except requests.HTTPError as error:
            raise self._sentence(error, doing) from None
        except requests.RequestException as error:
            kind = "could not be reached" if _never_arrived(error) else "broke off or did not answer"
            raise Unanswered(
                f"The NimbusImage server {kind} while {doing}, also after waiting. {self.again} when the server is "
                "back."
            ) from None

    def _sentence(self, error: requests.HTTPError, doing: str) -> ServerError:
        status = error.response.status_code if error.response is not None else 0
        reason = _reason(error.response)
        if self._token:
            reason = reason.replace(self._token, "…")
        quoted = f": {reason}" if reason else ""
        if status in _BUSY:
            return Unanswered(
                f"The NimbusImage server is too busy or restarting ({status}) while {doing}, also after waiting. "
                f"{self.again} later."
            )
        moved = _moved_to(error.response)
        if status == 401 and moved:
            sentence = (
                f"The server sends on to {moved}, and the login is sent to no other server than the one that was given "
                f"(401 while {doing}). Give {moved} as the server's address."
            )
        elif status == 401:
            sentence = f"The session has ended (401 while {doing}). Log in to NimbusImage again. {self.again}."
        elif status == 403:
            sentence = (
                f"NimbusImage does not allow {doing} (403{quoted}). Check that the dataset still exists, and ask its "
                "owner for write access."
            )
        elif status >= 500:
            sentence = (
                f"NimbusImage had an error of its own while {doing} ({status}{quoted}). {self.again}, and if it "
                "happens again, show this message to the administrator."
            )
        else:
            sentence = (
                f"NimbusImage refused {doing} ({status}{quoted}). Check that the dataset and its image still exist."
            )
        return Refused(sentence, status, reason)


def parts(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Cut a list into what goes into one request."""
    for start in range(0, len(items), _PART):
        yield list(items[start : start + _PART])


def _asked_wait(outcome: requests.Response | requests.RequestException) -> float:
    """Return the seconds that a server asks to wait (Retry-After, which may be a date), 0 where it does not."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    if isinstance(outcome, requests.RequestException):
        return 0.0
    try:
        return Retry().parse_retry_after(outcome.headers["Retry-After"])
    except (LookupError, ValueError, ArithmeticError, InvalidHeader):
        return 0.0


def _moved_to(response: requests.Response | None) -> str:
    """Return the address of a server that was sent on to, without the token; an empty text where none was."""
    if response is None or not response.history or "Girder-Token" in response.request.headers:
        return ""
    address = urlsplit(response.url)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"


def _never_arrived(error: requests.RequestException) -> bool:
    """Tell whether no connection was made, so that the server cannot have done anything."""
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)


def _reason(response: requests.Response | None) -> str:
    """Return the server's own words, without an HTML page or the like."""
    if response is None or "json" not in response.headers.get("Content-Type", ""):
        return ""
    try:
        body = response.json()
    except requests.exceptions.JSONDecodeError:
        return ""
    if not isinstance(body, dict):
        return ""
    words = " ".join(str(body.get("message", "")).split())[:_LONGEST_REASON]
    return f"{words} [{body['uid']}]" if body.get("uid") else words
