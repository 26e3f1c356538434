"""The dock widget's fields and buttons, and the progress of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_origin

from magicgui.widgets import Container, create_widget
from napari.utils import progress
from napari.utils.notifications import show_error, show_warning
from qtpy import QtWidgets as qt
from qtpy.QtCore import Qt
from superqt import QCollapsible, QLabeledDoubleSlider, QLabeledRangeSlider

from sam2_fewshot.backbones import MICRO, available
from sam2_fewshot.errors import FewShotError
from sam2_fewshot.napari.work import Work
from sam2_fewshot.settings import FILES_ONLY, Settings, bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_OWN = ("similarity_threshold", "threshold_mode", "top_percent", "black_percentile", "white_percentile")
"""Settings that the viewer has itself: the threshold is its slider's, and the contrast its layers'."""
VISIBLE, SLICE, SLICES, FOLDER = "Visible region", "This slice", "All slices", "Folder …"


class Panel(qt.QWidget):  # type: ignore[misc]
    """What the dock widget shows. Its buttons are by their texts in `buttons`, and do nothing by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()
        self._bar: Any = None
        self._build()
        self.work.progressed.connect(self._on_progress)
        self.work.told.connect(self._on_told)
        self.work.changed.connect(self._on_busy)
        self.destroyed.connect(self.work.closed.set)
        self._on_busy(False)

    def _build(self) -> None:
        self.image, self.model, self.source, self.scope = (qt.QComboBox() for _ in range(4))
        self.model.addItems(list(dict.fromkeys([*(found.checkpoint.name for found in available()), MICRO.name])))
        self.scope.addItems([VISIBLE, SLICE, SLICES, FOLDER])
        self.scope.setCurrentText(SLICE)
        self.unwanted, self.again = qt.QCheckBox("not this (Alt)"), qt.QCheckBox("after each mark, if within 2 s")
        self.again.setChecked(True)
        self.counts, self.stage, self.found = qt.QLabel("No marks"), qt.QLabel(), qt.QLabel("Nothing found yet")
        for text in (self.counts, self.stage, self.found):
            text.setWordWrap(True)
        self.bar, self.buttons = qt.QProgressBar(), dict[str, Any]()
        self.threshold, self.area = QLabeledDoubleSlider(Qt.Horizontal), QLabeledRangeSlider(Qt.Horizontal)
        self.threshold.setRange(0.0, 1.0)
        self.threshold.setValue(Settings().similarity_threshold)
        self.fit_area(1)

        def button(text: str, tip: str) -> Any:
            made = self.buttons[text] = qt.QPushButton(text)
            made.setToolTip(f"<p>{tip}</p>")  # rich text is wrapped
            return made

        mark = button("Mark", "Click on an object, or drag a box around it. Alt: what is not wanted.")
        undo = button("Undo", "Remove the last mark (Ctrl+Z).")
        take = button("Take", "Take what is in a layer of Shapes, Labels or Points as marks.")
        find = button("Find similar", "Learn from the marks, and search.")
        stop = button("Cancel", "Stop; what is finished stays.")
        doubt = button("Next doubtful (N)", "Go to the object whose answer, right or wrong, teaches most.")
        right = button("Right (R)", "This object is of the wanted kind.")
        wrong = button("Wrong (W)", "It is not; it is learned from as well.")
        learn = button("Learn from corrections", "Find again, with what was marked right and wrong.")
        save = button("Save model …", "Save what was learned, as .npz.")
        load = button("Load model …", "Search with what was learned before, without marks.")
        copy = button("Copy command", "Copy the command that does this to a folder of images.")
        self.form = _settings_form()
        folded = QCollapsible("Settings")
        folded.addWidget(self.form.native)
        rows = {"Image": [[self.image]], "Model": [[self.model]]}
        rows["Mark"] = [[mark, self.unwanted, undo], [self.source, take], [self.counts]]
        rows["Find"] = [[self.scope, find, stop], [self.again], [self.bar], [self.stage]]
        rows |= {"Threshold": [[self.threshold]], "Area (px)": [[self.area], [self.found]]}
        rows |= {"Correct": [[doubt, right, wrong], [learn]], "Go on": [[save, load, copy]]}
        content, scroll, outer = qt.QWidget(), qt.QScrollArea(), qt.QVBoxLayout(self)
        column = qt.QVBoxLayout(content)
        for title, lines in rows.items():
            for number, widgets in enumerate(lines):
                line, label = qt.QHBoxLayout(), qt.QLabel("" if number else title)
                label.setFixedWidth(70)
                for widget in (label, *widgets):
                    line.addWidget(widget, 0 if widget is label else 1)
                column.addLayout(line)
        column.addWidget(folded)
        column.addStretch()
        scroll.setWidget(content)
        scroll.setWidgetResizable(True)
        outer.addWidget(scroll)

    def guarded(self, action: Callable[[], Any]) -> None:
        """Do what a button or a key asks for; what is wrong becomes a notification."""
        try:
            action()
        except FewShotError as error:
            show_error(str(error))

    def _on_told(self, sentence: str, kind: str) -> None:
        (show_error if kind == "error" else show_warning)(sentence)

    def _on_busy(self, busy: bool) -> None:
        self.buttons["Cancel"].setEnabled(busy)
        self.bar.setRange(0, 100)
        self.bar.setValue(0)
        self.stage.setText("Starting …" if busy else "")
        if self._bar is not None:
            self._bar.close()
        self._bar = progress(total=100, desc="sam2-fewshot") if busy else None

    def _on_progress(self, what: str, share: float, left: float) -> None:
        if what:
            self.bar.setRange(0, 0 if share < 0 else 100)
            self.bar.setValue(round(100 * max(share, 0)))
            self.stage.setText(what + (f", about {left:.0f} s left" if left >= 0 else " …"))
            if self._bar is not None:
                self._bar.update(max(0, round(100 * share) - self._bar.n))

    def fit_area(self, largest: int) -> None:
        """Let the slider of areas reach up to the largest object; a limit that was at its end stays there."""
        (low, high), most = self.area.value(), self.area.maximum()
        self.area.setRange(0, largest)
        self.area.setValue((min(low, largest), largest if high >= most else min(high, largest)))

    def areas(self) -> tuple[int, int | None]:
        """Return the smallest and the largest area of the slider in pixels, no largest where it is at its end."""
        low, high = self.area.value()
        return int(low), int(high) if high < self.area.maximum() else None


def offer(box: Any, offered: Sequence[tuple[str, Any]]) -> None:
    """Let a box offer names with what they stand for; what was chosen stays so where it is offered."""
    chosen = box.currentData()
    box.clear()
    for name, each in offered:
        box.addItem(name, each)
    box.setCurrentIndex(next((i for i, (_, each) in enumerate(offered) if each is chosen), 0))


def _settings_form() -> Container[Any]:
    """Return a field for each setting that has one here."""
    fields = []
    for name, field in Settings.model_fields.items():
        if name in FILES_ONLY or name in _OWN:
            continue
        annotation, value, (low, high) = field.annotation, field.default, bounds(field)
        options: dict[str, Any] = {"tooltip": field.description}
        if value is None:  # an empty text leaves it to the checkpoint
            annotation, value = str, ""
        elif get_origin(annotation) is not None:
            options["choices"] = get_args(annotation)
        elif low is not None:
            options |= {"min": low, "max": min(high or 1e9, 1e9), "step": 1 if annotation is int else 0.05}
        fields.append(create_widget(value, annotation, name=name, label=field.title, options=options))
    return Container(widgets=fields)
