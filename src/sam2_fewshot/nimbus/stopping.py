"""A job that is cancelled ends within seconds, whatever it is doing."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


class Stopped(BaseException):
    """The job was cancelled. Like KeyboardInterrupt it passes through ``except Exception``."""


@contextmanager
def stopping(
    last_words: Callable[[], None], grace: float = 3.0, leave: Callable[[int], None] = os._exit
) -> Iterator[None]:
    """Raise :class:`Stopped` in the block when the process is told to end (SIGTERM, SIGINT).

    Python looks for signals between two steps of its own, and a network's layer on a CPU may be one long step.
    A thread that the system wakes at once waits for `grace` seconds; is the block not left by then, it speaks the
    last words and ends the process. NimbusImage stops a container with SIGTERM and kills it ten seconds later.

    Parameters
    ----------
    last_words
        Called before the process is ended by force.
    grace
        Seconds that the block has to end by itself.
    leave
        Ends the process with an exit code.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can signals be received
        yield
        return
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    over = threading.Event()

    def wait() -> None:
        ours.setblocking(True)
        with suppress(OSError):
            if ours.recv(1) and not over.is_set() and not over.wait(grace):
                last_words()
                leave(1)

    def stop(number: int, frame: FrameType | None) -> None:
        # Once is enough: a second signal must not break the clearing up.
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    watcher = threading.Thread(target=wait, name="stopping", daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(wakeup)
        for each, handler in before.items():
            signal.signal(each, handler)
        theirs.close()
        watcher.join(timeout=1.0)
        ours.close()
