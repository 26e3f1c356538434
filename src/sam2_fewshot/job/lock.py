"""One run at a time in an output folder.

The lock is held by the operating system on an open file, so it goes with the process however that ends; the file itself
may stay behind and means nothing. Over NFS it is the file server's lock (NFS 4, or version 3 with its lock service),
and containers that share a folder of one machine share its locks.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError
from sam2_fewshot.writers.whole import telling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sam2_fewshot.protocols import Progress

_NAME = "lock"


@contextmanager
def only_run(folder: Path, progress: Progress) -> Iterator[None]:
    """Keep other runs out while the block lasts.

    Parameters
    ----------
    folder
        The journal's folder; it must be there.
    progress
        Is warned where the file system has no locks.

    Raises
    ------
    InputError
        If another run is at work there.
    """
    from filelock import FileLock, Timeout

    path = folder / _NAME
    # Both names are kept apart, because a locked file cannot be read on Windows.
    note = folder / f"{_NAME}.json"
    lock = FileLock(path, timeout=0)
    try:
        with telling(path):
            try:
                lock.acquire()
            except Timeout:  # an OSError too
                raise InputError(_busy(folder.parent, note)) from None
    except NotImplementedError:
        progress.warn(
            f"The file system of {folder.parent} cannot lock files, so nothing keeps a second run out of it; see that "
            "only one is at work there."
        )
        yield
        return
    try:
        with suppress(OSError):
            since = datetime.now(UTC).isoformat(timespec="seconds")
            note.write_text(json.dumps({"process": os.getpid(), "machine": socket.gethostname(), "since": since}))
        yield
    finally:
        for file in (note, path):  # on Windows the lock's own file can only go once it is released
            with suppress(OSError):
                file.unlink()
        lock.release()
        with suppress(OSError):
            path.unlink()


def refuse_second_run(folder: Path) -> None:
    """Refuse a folder in which a run is at work, before anything heavy is begun; nothing is written.

    Raises
    ------
    InputError
        If another run is at work there.
    """
    from filelock import FileLock, Timeout

    path = folder / _NAME
    if not path.exists():
        return
    try:
        with FileLock(path, timeout=0):
            return
    except Timeout:
        raise InputError(_busy(folder.parent, folder / f"{_NAME}.json")) from None
    except (OSError, NotImplementedError):
        return  # whether it can be written is found out, and said, when it is


def _busy(out: Path, note: Path) -> str:
    who = ""
    with suppress(OSError, ValueError, TypeError, KeyError):
        told = json.loads(note.read_text())
        who = f" (process {int(told['process'])} on {told['machine']}, since {told['since']})"
    return (
        f"Another run is at work in {out}{who}. Wait until it has ended, or give this one another folder with -o; two "
        "runs in one folder would mix their results."
    )
