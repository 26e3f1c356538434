"""One thing after another in a thread of napari's, with progress and a cancel."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal

from sam2_fewshot.errors import FewShotError
from sam2_fewshot.runner.progress import Estimate
from sam2_fewshot.runner.tasks import sentence_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Cancelled(KeyboardInterrupt):
    """The user has cancelled; a run on files takes it for an interruption, and keeps what is finished."""


class Job(NamedTuple):
    """Something to do.

    Parameters
    ----------
    run
        Does it in the thread, and yields what is ready. It is given where to report the progress.
    take
        Takes in Qt's thread what is yielded.
    what
        What to call it; empty for what goes on unseen, and gives way to everything else.
    """

    run: Callable[[Estimate], Iterator[Any]]
    take: Callable[[Any], None]
    what: str = ""


class Work(QObject):  # type: ignore[misc]
    """Does jobs one after another.

    ``progressed`` tells what is done, its share and the seconds that are left, below 0 where they are not known;
    ``told`` a sentence for the user and whether it is an ``error`` or a ``warning``; ``changed`` whether anything that
    the user sees is at work.
    """

    progressed = Signal(str, float, float)
    told = Signal(str, str)
    changed = Signal(bool)

    def __init__(self) -> None:
        super().__init__()  # without a parent, since it outlives the window while a thread uses it
        self.closed, self._stopped = threading.Event(), threading.Event()
        self._waiting: deque[Job] = deque()
        self._job: Job | None = None
        self._worker: Any = None

    def busy(self, what: str | None = None) -> bool:
        """Whether a job, or one of that name, is at work or waits."""
        return bool(self._names()) if what is None else what in self._names()

    def _names(self) -> list[str]:
        return [job.what for job in (self._job, *self._waiting) if job is not None]

    def start(self, job: Job) -> None:
        """Do a job when those before it are done; what goes on unseen gives way."""
        self._waiting = deque(each for each in self._waiting if each.what)
        if self._job is not None and not self._job.what:
            self._stopped.set()
        self._waiting.append(job)
        if job.what:
            self.changed.emit(True)
        self._next()

    def cancel(self, *names: str) -> list[str]:
        """Stop what is at work and forget what waits, of these names only where there are any; return what that was."""
        stopped = [name for name in self._names() if name in names or not names]
        self._waiting = deque(each for each in self._waiting if each.what not in stopped)
        if self._job is not None and self._job.what in stopped:
            self._stopped.set()
        return stopped

    def check(self) -> None:
        """Raise :class:`Cancelled` when the job shall stop."""
        if self._stopped.is_set() or self.closed.is_set():
            raise Cancelled

    def _next(self) -> None:
        if self._job is None and self._waiting and not self.closed.is_set():
            self._job = self._waiting.popleft()
            self._worker = create_worker(self._run, self._job, _start_thread=False)
            self._worker.yielded.connect(self._take)
            self._worker.finished.connect(self._end)
            self._worker.start()

    def _run(self, job: Job) -> Iterator[Any]:
        def tell(*progress: float) -> None:
            self._emit("progressed", job.what, *progress)

        def warn(sentence: str) -> None:
            self._emit("told", sentence, "warning")

        # superqt would display all packages' warnings, by a function that Hydra, which names arguments, cannot call.
        warnings.showwarning = lambda *_, **__: None
        try:
            for ready in job.run(Estimate(tell, warn, self.check)):
                self.check()
                yield ready
        except Cancelled:
            pass
        except (FewShotError, OSError, MemoryError) as error:
            yield error

    def _take(self, ready: Any) -> None:
        if self.closed.is_set():
            return
        if isinstance(ready, Exception):
            self._waiting.clear()
            self._emit("told", sentence_of(ready), "error")
        elif self._job is not None and not self._stopped.is_set():
            self._job.take(ready)

    def _end(self) -> None:
        self._job = self._worker = None
        self._stopped.clear()
        self._next()
        if not self.closed.is_set() and not any(self._names()):
            self._emit("changed", False)

    def _emit(self, signal: str, *values: Any) -> None:
        try:
            getattr(self, signal).emit(*values)
        except RuntimeError:  # the viewer was closed, and Qt's half of this object is gone
            self.closed.set()
