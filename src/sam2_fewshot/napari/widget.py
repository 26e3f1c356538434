"""The dock widget: mark, find, look, correct, go on."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from napari.utils.notifications import show_info, show_warning
from qtpy import QtWidgets as qt
from qtpy.QtCore import QTimer

from sam2_fewshot.annotations.review import CONFIRMED, EXAMPLE, FOUND, UNWANTED, Mark, Part, Results
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.request import as_command
from sam2_fewshot.napari.layers import PLACEMENT, Scene, add_found, found_colors, place_like, same_grid
from sam2_fewshot.napari.marks import Known, add_layer, add_marks, clicked_or_dragged, mark_of, marks_in, points_in
from sam2_fewshot.napari.panel import FOLDER, SLICES, VISIBLE, Panel, offer
from sam2_fewshot.napari.session import Search, Session, request_for
from sam2_fewshot.napari.work import Job
from sam2_fewshot.object_model import PERCENTILES, read_object_model
from sam2_fewshot.segmenter import FewShotSegmenter
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sam2_fewshot.files.request import Request
    from sam2_fewshot.records import Detection
    from sam2_fewshot.runner.progress import Estimate

_FINDING, _OUTLINING = "Finding", "Outlining"
_AT_ONCE = 2.0
"""Seconds; a search that takes less is repeated after each mark."""
_PAUSE = 0.25
"""Seconds at least between what is found and its display, so that the viewer has time for its user."""
_SHARE = 4
"""The pause is so many times as long as the last display took."""


class FewShotWidget(Panel):
    """Marks objects on the images of a viewer, and finds similar ones."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.marks: Any = None
        self.labels: Any = None
        self.scene: Scene | None = None
        self.results: Results | None = None
        self.segmenter: FewShotSegmenter | None = None
        self.session = Session(self.work.check)
        self._known: Known = {}
        self._parts: list[Part] = []
        self._asked: Detection | None = None
        self._passed: list[Any] = []
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(round(1000 * _PAUSE))
        self._timer.timeout.connect(self._display)
        self.work.changed.connect(self._display)
        actions = {
            "Mark": self.begin,
            "Undo": self.undo,
            "Take": self.take,
            "Find similar": self.find,
            "Cancel": self.work.cancel,
            "Next doubtful (N)": self.next_doubtful,
            "Right (R)": lambda: self.correct(CONFIRMED),
            "Wrong (W)": lambda: self.correct(UNWANTED),
            "Learn from corrections": self.find,
            "Save model …": self.save_model,
            "Load model …": self.load_model,
            "Copy command": self.copy_command,
        }
        for text, action in actions.items():
            self.buttons[text].clicked.connect(lambda _=False, action=action: self.guarded(action))
        for slider in (self.threshold, self.area):
            slider.valueChanged.connect(self.filter)
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.connect(self._on_layers)
        self._on_layers()

    def _on_layers(self, event: Any = None) -> None:
        """Offer the layers that there are, and let go of those that were removed."""
        layers = list(self.viewer.layers)
        images = [("All visible", None), *((each.name, each) for each in layers if isinstance(each, Image))]
        drawn = [each for each in layers if isinstance(each, (Shapes, Labels, Points))]
        sources = [(each.name, each) for each in drawn if each not in (self.marks, self.labels)]
        for box, offered in ((self.image, images), (self.source, sources)):
            offer(box, offered)
            for _, layer in offered:
                if layer is not None:
                    layer.events.name.connect(self._on_layers)
        if self.marks is not None and self.marks not in layers:
            self.marks = None
        needed = [] if self.scene is None else [self.scene.reference, *[self.labels][: self.labels is not None]]
        if any(each not in layers for each in needed):
            self._let_go("A layer that the search needs was removed")
            self.scene = None

    def _let_go(self, why: str) -> None:
        """Forget the results, and stop what works for them."""
        if stopped := self.work.cancel(_FINDING, _OUTLINING):
            show_warning(f"{why}, so the {'search' if _FINDING in stopped else 'outlining'} was stopped.")
        self._parts.clear()
        self.labels = self.results = None

    # --- mark --------------------------------------------------------------------------------------------------

    def look(self) -> Scene:
        """Return what is displayed now; results and marks of another image are let go of."""
        scene = Scene(self.viewer, self.image.currentData())
        if scene.left_out:
            show_warning(f"Not searched, since they lie on other pixels: {', '.join(scene.left_out)}.")
        old, is_new = self.scene, not scene.same_image(self.scene)
        if is_new:
            self._let_go(f"{scene.reference.name} is looked at now")
            self.results = Results(scene.shape, scene.axes)
            for name in PLACEMENT:
                getattr(scene.reference.events, name).connect(self._on_moved)
        self.scene = scene
        is_elsewhere = is_new and old is not None and not same_grid(scene.reference, old.reference)
        if self.marks is not None and (is_elsewhere or self.marks.ndim != len(scene.shape)):
            self.marks = None  # they stay on their image, and can be taken
        self._on_moved()
        if is_new:
            self._on_marks()
        return scene

    def _on_moved(self, event: Any = None) -> None:
        """Keep the marks and the results on the image."""
        for layer in (self.marks, self.labels):
            if layer is not None and self.scene is not None:
                place_like(layer, self.scene.reference)

    def begin(self) -> None:
        """Make the layer of the marks, and listen to clicks on it."""
        scene = self.look()
        if self.marks is None:
            self.marks = add_layer(self.viewer, scene)
            self.marks.mouse_drag_callbacks.append(self._on_mouse)
            self.marks.bind_key("Control-Z", lambda layer: self.guarded(self.undo))
            self.marks.events.data.connect(self._on_marks)
            self._on_moved()
            self._on_layers()
        self.viewer.layers.selection.active = self.marks
        self.marks.mode = "pan_zoom"
        self.marks.mouse_pan = False  # a drag is a box

    def _on_mouse(self, layer: Any, event: Any) -> Iterator[None]:
        if self.work.closed.is_set() or layer.mode != "pan_zoom" or event.button != 1:
            return
        kind = UNWANTED if "Alt" in event.modifiers or self.unwanted.isChecked() else EXAMPLE
        corners = yield from clicked_or_dragged(self.viewer, event)
        self.guarded(lambda: self.prompt(corners, kind))

    def prompt(self, corners: list[Any], kind: str = EXAMPLE) -> None:
        """Outline what is at a world position, or in the box between two."""
        scene = self.look()
        inside = [xy for position in corners if (xy := scene.xy(position)) is not None]
        if len(inside) < len(corners):
            raise InputError(f"There is nothing to mark: the mouse was outside of {scene.reference.name}.")
        self._prompt(scene, [inside], kind)

    def _prompt(self, scene: Scene, prompts: list[list[tuple[float, float]]], kind: str) -> None:
        place, plane, results = scene.place, scene.plane(scene.place), self.results
        alike = [mark for mark in self._marked(scene) if (mark.kind == UNWANTED) == (kind == UNWANTED)]
        outlined = [mark.mask for mark in alike if mark.place == place and mark.mask is not None]
        asked = plane, self.model.currentText(), self.settings()

        def take(mask: Any) -> None:
            if self.results is not results:
                return  # another image is looked at
            if mask is None:
                show_warning("SAM 2 sees no object there. Drag a box around it, or draw it with the polygon tool.")
            else:
                self._add([mark_of(mask, place, kind)], scene)
                self._find_again()

        self.work.start(Job(partial(self.session.outline, *asked, prompts, outlined), take, _OUTLINING))
        self.work.start(Job(partial(self.session.prepare, *asked, scene.region()), lambda _: None))

    def take(self) -> None:
        """Take what is in the chosen layer as marks."""
        layer, scene = self.source.currentData(), self.look()
        if layer is None:
            raise InputError("There is no layer to take marks from: add Shapes, Labels or Points, and draw in them.")
        kind = UNWANTED if self.unwanted.isChecked() else EXAMPLE
        if isinstance(layer, Points):
            points, elsewhere = points_in(layer, scene)
            if elsewhere:
                show_warning(f"{elsewhere} points of {layer.name} do not lie on the slice that is displayed.")
            if points:
                self._prompt(scene, [[point] for point in points], kind)
            return
        marks, sentences = marks_in(layer, scene)
        for sentence in sentences:
            show_warning(sentence)
        if not marks:
            raise InputError(f"{layer.name} has no objects on {scene.reference.name}.")
        self._add([mark if mark.kind != EXAMPLE else Mark(mark.place, mark.outline, kind) for mark in marks], scene)
        self._find_again()

    def _add(self, marks: list[Mark], scene: Scene) -> None:
        if self.marks is None:
            self.begin()
        with self.marks.events.data.blocker(self._on_marks):  # once is enough
            add_marks(self.marks, scene, marks)
        self._on_marks()

    def undo(self) -> None:
        """Remove the last mark."""
        if self.marks is None or not len(self.marks.data):
            raise InputError("There is no mark to undo.")
        self.marks.selected_data = {len(self.marks.data) - 1}
        self.marks.remove_selected()

    def _marked(self, scene: Scene) -> list[Mark]:
        return [] if self.marks is None else marks_in(self.marks, scene, self._known)[0]

    def _on_marks(self, event: Any = None) -> None:
        """Count the marks, and take them into the results."""
        if self.scene is not None and self.results is not None and not self.work.closed.is_set():
            marks = self._marked(self.scene)
            self.results.mark(marks)
            bad = sum(mark.kind == UNWANTED for mark in marks)
            self.counts.setText(f"{len(marks) - bad} wanted, {bad} not wanted")
            self._color()

    # --- find --------------------------------------------------------------------------------------------------

    def settings(self) -> Settings:
        """Return the settings of the form, and of the threshold's slider."""
        given = {name: value for name, value in self.form.asdict().items() if value != ""}
        if self.segmenter is not None:  # the form has no percentiles, but a model that was loaded goes with its own
            given |= {name: getattr(self.segmenter.settings, name) for name in PERCENTILES}
        return Settings(**given, similarity_threshold=round(self.threshold.value(), 4))

    def _limited(self) -> Settings:
        """Return the settings with the limits of the area's slider, which a search here leaves to the display."""
        settings, (low, high) = self.settings(), self.areas()
        limits = {"min_mask_area": max(low, settings.min_mask_area)}
        if high is not None:
            limits["max_mask_area"] = max(1, min(high, settings.max_mask_area or high))  # 0 would be no limit
        return settings.changed(limits)

    def find(self) -> None:
        """Learn from the marks, and search what is chosen."""
        scope = self.scope.currentText()
        self.find_in_folder() if scope == FOLDER else self._search(scope)

    def _search(self, scope: str) -> None:
        scene, settings, model = self.look(), self.settings(), self.model.currentText()
        marks, region = self._marked(scene), scene.region() if scope == VISIBLE else None
        loaded = self.segmenter.object_model if self.segmenter is not None and not marks else None
        if loaded is None and all(mark.kind == UNWANTED for mark in marks):
            raise InputError("There is nothing to learn from: mark 5 to 20 of the wanted objects, by a click on each.")
        places, results = scene.places() if scope == SLICES else [scene.place], self.results
        asked = Search(marks, scene.plane, places, region, model, settings, loaded)
        self._asked, self._passed = None, []

        def take(ready: Any) -> None:
            if isinstance(ready, FewShotSegmenter):
                self.segmenter = ready
            elif self.results is not results:
                return  # another image is looked at
            elif isinstance(ready, Part):
                self._parts.append(ready)
                if not self._timer.isActive():
                    self._timer.start()
            else:
                self._display()
                self.found.setText(f"{self.found.text()} {ready}")

        self.work.start(Job(partial(self.session.search, asked), take, _FINDING))

    def _find_again(self) -> None:
        """Search the visible region again where that is quick."""
        if self.scene is None or not self.again.isChecked() or self.work.busy(_FINDING):
            return
        if self.session.seconds(self.scene.region()) < _AT_ONCE:
            self._search(VISIBLE)

    def find_in_folder(self, folder: Path | None = None, model: Path | None = None) -> None:
        """Find the objects of the saved model in all images of a folder, as the copied command does."""
        folder = folder or _chosen(qt.QFileDialog.getExistingDirectory(self, "Folder of images"))
        request = None if folder is None else self._request(folder, model)
        if request is None:
            return

        def take(summary: Any) -> None:
            show_info(f"{summary.found} objects in {summary.done} of {summary.frames} images: {summary.out}")

        self.work.start(Job(partial(self.session.run, request), take, "Finding in the folder"))

    # --- look and correct --------------------------------------------------------------------------------------

    def _display(self, *_: Any) -> None:
        """Take what was found since the last time into the results, and show them."""
        self._timer.stop()
        if self._parts and self.results is not None and not self.work.closed.is_set():
            began = time.monotonic()
            self.results.add(*self._parts)
            self._parts.clear()
            self.fit_area(int(self.results.areas.max(initial=1)))
            self._paint()
            self._timer.setInterval(round(1000 * max(_PAUSE, _SHARE * (time.monotonic() - began))))

    def _paint(self) -> None:
        """Show the results, in a layer of labels that is made where there is none."""
        if self.labels is None and self.results is not None:
            actions = {
                "n": self.next_doubtful,
                "r": lambda: self.correct(CONFIRMED),
                "w": lambda: self.correct(UNWANTED),
            }
            keys = {key: partial(self.guarded, action) for key, action in actions.items()}
            self.labels = add_found(self.viewer, self.results, self.marks, keys, self._on_pick)
            self._on_moved()
            self._on_layers()
        self._color()

    def _color(self) -> None:
        """Colour the objects anew, and display those that are chosen."""
        if self.results is not None and self.labels is not None:
            self.labels.colormap = found_colors(self.results, self.results.label(self._asked))
            self.filter()

    def filter(self, *_: Any) -> None:
        """Display what reaches the threshold and is of a size in the range; nothing is searched."""
        if self.results is None or self.labels is None:
            return
        (low, high), threshold = self.areas(), self.threshold.value()
        count = self.results.show(threshold, low, np.inf if high is None else high)
        if asked := self.results.label(self._asked):
            self.results.shown[asked - 1] = True
        self.labels.features = self.results.table()
        self.labels.refresh()
        missing = f"; below {self.results.floor:.2f} some are missing" if threshold < self.results.floor else ""
        self.found.setText(f"{count} objects{missing}")

    def _found(self) -> tuple[Results, Scene]:
        if self.results is None or self.scene is None or self.labels is None:
            raise InputError("Nothing was found yet: mark some objects, and press Find similar.")
        return self.results, self.scene

    def next_doubtful(self) -> None:
        """Go to the object whose answer would teach most, of those that were not asked about yet."""
        results, scene = self._found()
        self._asked = results.to_mark_next(self.threshold.value(), self._passed)
        self._color()
        if self._asked is None:
            raise InputError("There is no object left that was not looked at.")
        self._passed.append(self._asked)
        self.viewer.layers.selection.active = self.labels
        place = results.places[results.label(self._asked) - 1]
        world = scene.world(self._asked.polygon.centroid, place)
        offset = self.viewer.dims.ndim - len(world)
        for axis in scene.others:
            self.viewer.dims.set_point(axis + offset, world[axis])
        size = scene.reference.scale[scene.axes[1]] * max(np.ptp(np.reshape(self._asked.bbox, (2, 2)), axis=0))
        self.viewer.camera.zoom = max(self.viewer.camera.zoom, 60 / size)  # canvas pixels
        self.viewer.camera.center = (0.0, *(world[axis - offset] for axis in self.viewer.dims.displayed))

    def correct(self, kind: str) -> None:
        """Mark the object that is asked about as right or wrong, and go to the next."""
        results, scene = self._found()
        asked, label = self._asked, results.label(self._asked)
        if asked is None or not label:
            raise InputError("Choose an object first: press N for the next doubtful one, or click on one.")
        self._asked = None
        self._add([Mark(results.places[label - 1], asked.polygon, kind)], scene)
        self.next_doubtful()

    def _on_pick(self, layer: Any, event: Any) -> None:
        value = layer.get_value(event.position, world=True)
        label = value[-1] if isinstance(value, tuple) else value
        if layer is self.labels and label and self.results is not None and self.results.kinds[label - 1] == FOUND:
            self._asked = self.results.items[label - 1]
            self._color()

    # --- go on -------------------------------------------------------------------------------------------------

    def save_model(self, path: Path | None = None) -> Path | None:
        """Save what was learned; return where, None if the user changed his mind."""
        if self.segmenter is None:
            raise InputError("Nothing was learned yet: mark some objects, and press Find similar.")
        path = path or _chosen(qt.QFileDialog.getSaveFileName(self, "Save model", "objects.npz", "*.npz")[0])
        if path is not None:
            self.segmenter.save(path := path.with_suffix(".npz"))
        return path

    def load_model(self, path: Path | None = None) -> None:
        """Take what was learned before, for searches without marks."""
        file = path or _chosen(qt.QFileDialog.getOpenFileName(self, "Load model", "", "*.npz")[0])
        if file is not None:
            settings, model = self.settings(), self.model.currentText()

            def job(told: Estimate) -> Iterator[Any]:
                objects = read_object_model(file)
                own = objects.settings
                alike = settings.changed({name: own[name] for name in PERCENTILES if name in own})
                objects.check_settings(alike, str(file))
                yield FewShotSegmenter(self.session.open(model, alike)[0], settings=alike).adopt(objects, str(file))

            def take(segmenter: FewShotSegmenter) -> None:
                self.segmenter = segmenter
                show_info(f"{file.name} is loaded; without marks, Find similar searches with it.")

            self.work.start(Job(job, take, "Loading"))

    def copy_command(self, folder: Path | None = None, model: Path | None = None) -> None:
        """Copy the command that finds these objects in a folder of images; the model is saved for it."""
        source = self.look().reference.source.path
        request = self._request(folder or (Path(source).parent if source else Path("IMAGES")), model)
        if request is not None:
            qt.QApplication.clipboard().setText(as_command(request))
            show_info("The command is copied; paste it into a terminal.")

    def _request(self, folder: Path, model: Path | None) -> Request | None:
        channels, path = self.look().channels(), self.save_model(model)
        if path is None:
            return None
        request, sentence = request_for(folder, path, channels, self.model.currentText(), self._limited())
        if sentence:
            show_warning(sentence)
        return request


def _chosen(path: str) -> Path | None:
    return Path(path) if path else None
