"""A napari viewer with the widget in it, offscreen; `scripts/test --napari` runs these tests."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sam2_fewshot.napari.widget import FewShotWidget

collect_ignore_glob = [] if find_spec("napari") else ["test_*.py"]

if sys.platform.startswith("linux"):
    # Pictures are drawn by GL, for which a display must be there all the same, such as that of Xvfb.
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "viewer" in item.path.parts:
            item.add_marker("napari")


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Give the sentences of the notifications."""
    from napari.utils.notifications import notification_manager

    sentences: list[str] = []

    def note(event: Any) -> None:
        sentences.append(str(event.message))

    notification_manager.notification_ready.connect(note)
    yield sentences
    notification_manager.notification_ready.disconnect(note)


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    """An empty viewer; at its end napari's own fixture sees to it that no thread and no window is left."""
    return make_napari_viewer()


@pytest.fixture
def make_widget(viewer: Any) -> Callable[..., FewShotWidget]:
    """Dock a widget that uses the backbone without a network."""
    from sam2_fewshot.napari.widget import FewShotWidget

    numbers = count()

    def make(model: str = "filters") -> FewShotWidget:
        widget = FewShotWidget(viewer)
        viewer.window.add_dock_widget(widget, name=f"Find similar objects {next(numbers)}")
        widget.model.addItem("filters")
        widget.model.setCurrentText(model)
        widget.again.setChecked(False)
        return widget

    return make


@pytest.fixture
def widget(make_widget: Callable[..., FewShotWidget]) -> FewShotWidget:
    return make_widget()
