"""What a user does at a desk: click, drag and wait."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam2_fewshot.napari.widget import FewShotWidget

_PATIENCE = 300.0  # s


def wait(until: Callable[[], Any], patience: float = _PATIENCE) -> None:
    """Let Qt work until something is the case."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + patience
    while not until():
        assert time.monotonic() < end, "it did not come about"
        QApplication.processEvents()
        time.sleep(0.002)


def centres(labels: np.ndarray[Any, Any]) -> dict[int, tuple[float, float]]:
    """Return the row and column of a pixel in the middle of each object."""
    found = {}
    for label in np.unique(labels)[1:]:
        rows, columns = np.nonzero(labels == label)
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        found[int(label)] = (float(rows[nearest]), float(columns[nearest]))
    return found


def mouse(widget: FewShotWidget, *positions: tuple[float, ...], modifiers: tuple[str, ...] = ()) -> None:
    """Press the mouse at the first world position, move it over the others, and let it go."""
    callback = widget.marks.mouse_drag_callbacks[-1]
    event = SimpleNamespace(type="mouse_press", button=1, modifiers=modifiers, position=positions[0], pos=(0.0, 0.0))
    steps = callback(widget.marks, event)
    next(steps, None)
    for number, position in enumerate(positions[1:], 1):
        event.type, event.position, event.pos = "mouse_move", position, (10.0 * number, 10.0 * number)
        next(steps, None)
    event.type = "mouse_release"
    next(steps, None)


def click(widget: FewShotWidget, position: tuple[float, ...], modifiers: tuple[str, ...] = ()) -> None:
    """Click on the layer of the marks, and wait for the outline."""
    before = len(widget.marks.data)
    mouse(widget, position, modifiers=modifiers)
    wait(lambda: len(widget.marks.data) > before)


def idle(widget: FewShotWidget) -> None:
    """Wait until nothing is at work."""
    wait(lambda: not widget.work.busy())


def other_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread is not threading.main_thread()}
