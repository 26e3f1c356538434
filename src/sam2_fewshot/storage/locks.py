"""Locks: one run at a time in a folder, and one process at a time at a file."""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError
from sam2_fewshot.storage.files import telling, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from filelock import BaseFileLock

    from sam2_fewshot.protocols import Progress

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What NFS without a lock daemon, Lustre without flock, and others in user space answer to who wants to lock a file."""
_LOCK = "lock"


@contextmanager
def only_run(folder: Path, progress: Progress, lock_of: Callable[[Path], BaseFileLock] | None = None) -> Iterator[None]:
    """Keep other runs out while the block lasts.

    Parameters
    ----------
    folder
        The journal's folder. It is made; in the end it goes again, with those around it that were made, if empty.
    progress
        Is warned where the file system has no locks.
    lock_of
        Makes the lock, which waits for nobody; the one of this system when left out.

    Raises
    ------
    InputError
        If another run is at work there, or the folder cannot be made or written.
    """
    from filelock import Timeout

    path = folder / _LOCK
    note = _note(folder)
    lock = (lock_of or system_lock)(path)
    with _made(folder):
        with telling(path):
            try:
                locked = acquired(lock)
            except Timeout:  # an OSError too
                raise InputError(
                    f"Another run is at work in {folder.parent}{_holder(note)}. Wait until it has ended, or give this "
                    "one another folder with -o; two runs in one folder would mix their results."
                ) from None
        if not locked:
            progress.warn(
                f"The file system of {folder.parent} cannot lock files, so nothing keeps a second run out of it; see "
                "that only one is at work there."
            )
        try:
            with suppress(InputError):
                since = datetime.now(UTC).isoformat(timespec="seconds")
                holder = {"process": os.getpid(), "machine": socket.gethostname(), "since": since}
                write_whole(note, json.dumps(holder).encode())  # not through a link, or into a pipe, that is there
            yield
        finally:
            # While the lock is held its file is surely this run's own. On Windows filelock removes it on release;
            # elsewhere it sees, from version 3.24 on, that a file which it locked had just been removed.
            for file in (note, path):
                with suppress(OSError):
                    file.unlink()
            lock.release()


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder, and in the end remove what was made of it and is empty."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        with telling(folder.parent):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for each in missing:
            with suppress(OSError):
                each.rmdir()


def run_at_work(folder: Path, lock_of: Callable[[Path], BaseFileLock] | None = None) -> str:
    """Return words about a run that is at work in a folder, none where there is no run; nothing is written.

    Parameters
    ----------
    folder, lock_of
        As in :func:`only_run`.
    """
    from filelock import Timeout

    path = folder / _LOCK
    try:
        if path.exists():
            with (lock_of or system_lock)(path):
                pass
    except Timeout:
        return f"a run is at work in {folder.parent}{_holder(_note(folder))}"
    except OSError:  # it cannot be told
        pass
    return ""


def system_lock(path: Path) -> BaseFileLock:
    """Return a lock of the system's own, which it takes back when the process dies. It waits for nobody."""
    from filelock import FileLock

    # Otherwise the mere presence of the file is the lock where there is none, and a killed run leaves that for ever.
    return FileLock(path, timeout=0, fallback_to_soft=False)


def acquired(lock: BaseFileLock) -> bool:
    """Acquire a lock; return False where the file system has none.

    Raises
    ------
    filelock.Timeout
        If another process holds it.
    OSError
        If its file cannot be written.
    """
    try:
        lock.acquire()
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _note(folder: Path) -> Path:
    """Return the file that says who holds the lock; it is another one, as a locked one cannot be read on Windows."""
    return folder / f"{_LOCK}.json"


def _holder(note: Path) -> str:
    with suppress(OSError, ValueError, TypeError, KeyError):
        holder = json.loads(note.read_text())
        return f" (process {int(holder['process'])} on {holder['machine']}, since {holder['since']})"
    return ""
