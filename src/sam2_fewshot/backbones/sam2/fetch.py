"""Download checkpoints: resumable, checked, and never under their name before they are whole."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from sam2_fewshot.backbones.sam2.checkpoints import (
    CHECKPOINTS,
    EMBEDDED_FOLDER,
    Checkpoint,
    download_base,
    find,
    sha256_of,
    user_cache_folder,
)
from sam2_fewshot.errors import CheckpointError
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.storage.locks import acquired, system_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import requests

    from sam2_fewshot.protocols import Progress

_TRIES = 5  # in a row without a single byte; a bad line that moves forward may break as often as it likes
TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and seconds of silence, after which a try is given up."""
_CHUNK = 1 << 16  # bytes; as many may be lost when a line breaks
_LONGEST_PAUSE = 30.0  # seconds
_SECRET = re.compile(r"(?:(?<=://)|^(?!.*://))(?:[^/?#]*|[^/?#]*:[^?#]*)(?=@)|[?#].*", re.DOTALL)
"""In a URL: a login, also one whose password has a slash, and a query."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be better next time (RFC 9110)


class _Interrupted(Exception):
    """The transfer broke off; what is there can be continued."""


class _StartOver(Exception):
    """What is there is no beginning of what the server has."""


class _Source(NamedTuple):
    """What is downloaded, from where, to which unfinished file, and how patiently."""

    checkpoint: Checkpoint
    url: str
    part: Path
    timeout: tuple[float, float]

    @property
    def address(self) -> str:
        """The URL for messages, without its login and query."""
        return _SECRET.sub("…", self.url)


def fetch(
    name: str | Checkpoint,
    folder: Path | None = None,
    progress: Progress | None = None,
    base_url: str | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
    timeout: tuple[float, float] = TIMEOUT,
) -> Path:
    """Download a checkpoint, unless it is there already.

    The bytes go to ``NAME.part``, which a later call continues; only when their SHA-256 is the published
    one is the file renamed to its name. A lock lets one process at a time work in it: others wait and then
    find the file there. Where a file system has no locks, two writers can only spoil the part, which the
    SHA-256 then shows.

    Parameters
    ----------
    name
        Name of a known checkpoint (``base_plus``), or a checkpoint with a URL and a hash.
    folder
        Where to put it; None for the user's cache, where it is found by itself.
    progress
        Reports a stage whose steps are bytes; None for silence.
    base_url
        Where to download from instead; None for what the environment says, and Meta's server otherwise.
    sleep
        Waits a number of seconds before another try.
    timeout
        As :data:`TIMEOUT`.

    Returns
    -------
    Path
        The checked file.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, the server does not give it, the file is not the published one, or
        the disk does not take it.
    """
    checkpoint = _known(name) if isinstance(name, str) else name
    if checkpoint.url is None or checkpoint.sha256 is None:
        return EMBEDDED_FOLDER / checkpoint.name
    report = progress or Quiet()
    base = base_url or download_base()
    url = f"{base.rstrip('/')}/{checkpoint.name}" if base else checkpoint.url
    place = folder or user_cache_folder()
    target = place / checkpoint.name
    if _is_published(target, checkpoint):  # looked at before anything is written: the folder may be read-only
        return target
    with _disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(f".{target.name}.lock"), report, sleep):
            if _is_published(target, checkpoint):
                return target
            if target.exists():
                report.warn(f"{target} is not the published file (its SHA-256 differs); it is downloaded again.")
            source = _Source(checkpoint, url, target.with_name(target.name + ".part"), timeout)
            _download(source, report, sleep)
            source.part.replace(target)
    return target


def _known(name: str) -> Checkpoint:
    checkpoint = find(name)
    if checkpoint is None:
        names = ", ".join(each.name for each in CHECKPOINTS if each.url)
        raise CheckpointError(f"There is no model called {name!r} to download. There are: {names}.")
    return checkpoint


def _is_published(path: Path, checkpoint: Checkpoint) -> bool:
    return path.is_file() and sha256_of(path) == checkpoint.sha256


def _download(source: _Source, report: Progress, sleep: Callable[[float], None]) -> None:
    """Fill the part until it is the published file."""
    pieced = _transfer_patiently(source, report, sleep)
    if pieced and not _is_published(source.part, source.checkpoint):
        # The pieces may be of two files: the server's has changed, or the first piece was damaged on this disk.
        report.warn(f"The pieces of {source.checkpoint.name} do not fit together; the download starts over.")
        source.part.unlink()
        _transfer_patiently(source, report, sleep)
    if not _is_published(source.part, source.checkpoint):
        size = _length(source.part)
        source.part.unlink(missing_ok=True)
        raise CheckpointError(
            f"What {source.address} gave ({size:,} bytes) is not the published {source.checkpoint.name}: its SHA-256 "
            "differs. It was deleted; try again, or ask who runs that server."
        )


def _transfer_patiently(source: _Source, report: Progress, sleep: Callable[[float], None]) -> bool:
    """Transfer, with pauses and further tries when the line breaks; tell whether it came in several pieces."""
    longest = _length(source.part)
    pieced = longest > 0
    tries = 0
    while True:
        try:
            _transfer(source, _length(source.part), report)
            return pieced
        except _StartOver:
            source.part.unlink(missing_ok=True)
            reason = "the server and the part on this disk do not agree"
        except _Interrupted as error:
            reason = str(error)
        length = _length(source.part)
        pieced = length > 0
        tries = 1 if length > longest else tries + 1
        longest = max(longest, length)
        if tries == _TRIES:
            rest = f" The first {length:,} bytes are kept, and the same command continues." if length else ""
            raise CheckpointError(
                f"{source.checkpoint.name} could not be downloaded from {source.address}: {reason}.{rest} Without a "
                "connection, copy the file here by other means and give its path."
            )
        sleep(min(2.0 ** (tries - 1), _LONGEST_PAUSE))


def _transfer(source: _Source, have: int, report: Progress) -> None:
    """Make one request for what is missing, and write what comes."""
    import requests

    headers = {"Accept-Encoding": "identity"}  # a compressed answer would make byte positions meaningless
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(source.url, headers=headers, stream=True, timeout=source.timeout) as answer:
            start, total = _agree(answer, source, have)
            if start == total:
                return
            _need_room(source, total, start)
            report.start(f"Downloading {source.checkpoint.name}", total)
            if start:
                report.advance(start)
            with source.part.open("r+b" if start else "wb") as file:
                file.seek(start)
                for chunk in answer.iter_content(_CHUNK):
                    file.write(chunk)
                    report.advance(len(chunk))
                file.flush()
                os.fsync(file.fileno())
    except requests.exceptions.InvalidProxyURL:
        raise CheckpointError(
            "The address of this network's proxy, in the variable http_proxy or https_proxy, is malformed; mend it."
        ) from None
    except (
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidSchema,
        requests.exceptions.InvalidURL,
    ):
        raise CheckpointError(
            f"{source.address} is not an address to download from; one begins with https:// or http:// and the name "
            "of a server."
        ) from None
    except requests.Timeout:
        raise _Interrupted("the server stopped answering") from None
    except requests.RequestException as error:
        raise _Interrupted(_plain(error, source.url)) from None
    if total is not None and _length(source.part) < total:
        raise _Interrupted("the server closed the connection too early")


def _agree(answer: requests.Response, source: _Source, have: int) -> tuple[int, int | None]:
    """Tell from which byte on the answer's body counts, and how long the file is; None when it is not said."""
    status = answer.status_code
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
    total = int(span[2]) if span and span[2] != "*" else None
    if status == 416 and have:
        if total != have:
            raise _StartOver
        return have, have
    if status in _PASSING:
        raise _Interrupted(f"the server answered {status} {answer.reason}")
    if status not in (200, 206):
        raise CheckpointError(
            f"{source.address} cannot be downloaded: the server answered {status} {answer.reason}. Check the address "
            "and the network's rules."
        )
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise CheckpointError(
            f"{source.address} gave a web page instead of a checkpoint; perhaps this network wants a login first."
        )
    start = 0
    if status == 206:
        start = have
        if not span or span[1] != str(have):
            raise _StartOver
    else:
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
    expected = source.checkpoint.size
    if total is not None and expected is not None and total != expected:
        raise CheckpointError(
            f"{source.address} offers {total:,} bytes, but {source.checkpoint.name} has {expected:,}; it is another "
            "file."
        )
    return start, total


def _need_room(source: _Source, total: int | None, have: int) -> None:
    free = shutil.disk_usage(source.part.parent).free
    if total is not None and total - have > free:
        raise CheckpointError(
            f"{source.checkpoint.name} needs {(total - have) / 1e6:,.0f} MB more in {source.part.parent}, where "
            f"{free / 1e6:,.0f} MB are free; make room, or choose another folder."
        )


def _plain(error: requests.RequestException, url: str) -> str:
    """Say what broke without the stack of wrapped exceptions that requests puts into its messages."""
    import requests

    text = str(error)
    host = urlsplit(url).hostname
    if isinstance(error, requests.exceptions.SSLError):
        return f"the secure connection to {host} failed (its certificate is not trusted here, or expired)"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"this network's proxy did not let it through to {host}"
    if "resolve" in text or "getaddrinfo" in text:
        return f"the name {host} is not known to this network"
    if "refused" in text:
        return f"{host} refused the connection"
    return f"the connection to {host} broke"


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the file system says into a sentence."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint cannot be written to {folder}: {error.strerror or error}. Make room or choose another "
            "folder; a part that is there already is kept, and the same command continues it."
        ) from None


@contextmanager
def _lock(path: Path, report: Progress, sleep: Callable[[float], None]) -> Iterator[None]:
    """Hold a lock that the system takes back when the process dies; nothing where the file system has none."""
    from filelock import Timeout

    lock = system_lock(path)
    waiting = False
    while True:
        try:
            acquired(lock)
            break
        except Timeout:
            if not waiting:
                report.warn(f"Another process is downloading to {path.parent}; waiting for it.")
            waiting = True
            sleep(0.2)
    try:
        yield
    finally:
        if sys.platform != "win32":  # Windows removes no open file; there it stays, empty
            path.unlink(missing_ok=True)
        lock.release()
