"""From clicks on an image to corrected labels, in a real viewer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from desk import centres, click, idle, mouse, wait
from PIL import Image
from qtpy.QtWidgets import QApplication

from sam2_fewshot.annotations.arrays import masks_of
from sam2_fewshot.evaluation.figures import EvaluatedFrame
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.napari.files import nuclei
from sam2_fewshot.object_model import read_object_model
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.sample import sample
from sam2_fewshot.settings import Settings


def test_from_clicks_to_corrected_labels_with_the_embedded_checkpoint(viewer, make_widget, said):
    widget = make_widget("sam2.1_hiera_micro.pt")
    image, options, _ = nuclei()[0]
    viewer.add_image(image, **options)
    labels = np.asarray(Image.open(sample().examples))
    truth = np.asarray(Image.open(sample().truth))
    widget.buttons["Mark"].click()
    for position in centres(labels).values():
        click(widget, position)
    marked = [polygon_to_mask(mark.outline, image.shape) for mark in widget._marked(widget.scene)]
    true = [*dict(masks_of(labels)).values()]
    assert np.mean([max(mask_iou(mask, other) for other in true) for mask in marked]) > 0.7

    widget.scope.setCurrentText("This slice")
    widget.buttons["Find similar"].click()
    assert widget.buttons["Cancel"].isEnabled()
    wait(lambda: widget.labels is not None)
    idle(widget)
    found = np.asarray(widget.labels.data)
    assert found.shape == image.shape
    scores = EvaluatedFrame("", [*dict(masks_of(found)).values()], [*dict(masks_of(truth)).values()]).match(0.5).scores
    assert scores.recall > 0.6
    assert scores.precision > 0.8
    table = widget.labels.features
    assert set(table["index"]) == set(np.unique(found)[1:])
    assert list(table["kind"]).count("example") == 8

    # Correct two of them, by the keys.
    widget.buttons["Next doubtful (N)"].click()
    asked = widget._asked
    assert asked is not None
    assert viewer.layers.selection.active is widget.labels
    widget.buttons["Right (R)"].click()
    assert "confirmed" in set(widget.labels.features["kind"])
    wrong = widget._asked
    widget.buttons["Wrong (W)"].click()
    (column, row) = (int(at) for at in wrong.polygon.representative_point().coords[0])
    assert np.asarray(widget.labels.data)[row, column] == 0
    widget.buttons["Learn from corrections"].click()
    idle(widget)
    after = np.asarray(widget.labels.data)
    assert after[row, column] == 0
    assert list(widget.labels.features["kind"]).count("confirmed") == 1
    assert not [sentence for sentence in said if "Traceback" in sentence]


@pytest.fixture
def marked(viewer, widget, discs):
    """A viewer in which three of the discs are marked."""
    picture, labels = discs
    viewer.add_image(picture[..., 0], name="discs")
    widget.begin()
    for number in (1, 2, 3):
        click(widget, centres(labels)[number])
    return widget


def test_a_click_outlines_what_is_under_it(marked, discs):
    _, labels = discs
    marks = marked._marked(marked.scene)
    assert [mark.kind for mark in marks] == ["example"] * 3
    for number, mark in enumerate(marks, 1):
        (true,) = [*dict(masks_of(np.where(labels == number, 1, 0))).values()]
        assert mask_iou(polygon_to_mask(mark.outline, labels.shape), true) > 0.8
    assert marked.counts.text().startswith("3 wanted, 0 not wanted")


def test_alt_marks_what_is_not_wanted_and_a_drag_is_a_box(marked, discs):
    row, column = centres(discs[1])[4]
    click(marked, (row, column), modifiers=("Alt",))
    assert list(marked.marks.features["kind"]) == ["example"] * 3 + ["not this"]
    row, column = centres(discs[1])[5]
    mouse(marked, (row - 16, column - 16), (row, column), (row + 16, column + 16))
    wait(lambda: len(marked.marks.data) == 5)
    last = marked._marked(marked.scene)[-1]
    assert last.outline.contains(last.outline.centroid)
    assert abs(last.outline.centroid.y - row) < 2


def test_a_mark_can_be_undone_moved_and_deleted(marked):
    marked.buttons["Undo"].click()
    assert len(marked.marks.data) == 2
    marked.marks.data = [marked.marks.data[0] + 3, marked.marks.data[1]]
    moved = marked._marked(marked.scene)[0]
    assert moved.outline.centroid.x == pytest.approx(marked.marks.data[0][:, 1].mean() + 0.5, abs=1)
    marked.marks.selected_data = {0}
    marked.marks.remove_selected()
    assert marked.counts.text().startswith("1 wanted")


def test_many_labels_are_taken_at_once(viewer, widget):
    labels = np.zeros((600, 600), np.int32)
    for number in range(225):
        row, column = 40 * (number // 15), 40 * (number % 15)
        labels[row + 5 : row + 17, column + 5 : column + 20] = number + 1
    viewer.add_image((labels > 0).astype(np.uint8) * 200, name="squares")
    viewer.add_labels(labels, name="painted")
    widget.source.setCurrentText("painted")
    changes = []
    widget.begin()
    widget.marks.events.data.connect(changes.append)
    widget.take()
    assert len(changes) <= 2, "before and after all of them"
    assert widget.counts.text().startswith("225 wanted")
    assert max(len(vertices) for vertices in widget.marks.data) == 8, "only the corners"
    assert {mark.mask.area for mark in widget._marked(widget.scene)} == {12 * 15}


def test_threshold_and_area_filter_without_a_search(marked, said):
    marked.find()
    idle(marked)
    everything = set(np.unique(marked.labels.data)) - {0}
    assert len(everything) >= 6
    marked.threshold.setValue(1.0)
    assert set(np.unique(marked.labels.data)) - {0} == {1, 2, 3}
    assert not marked.work.busy()
    marked.threshold.setValue(0.5)
    areas = marked.labels.features.set_index("index")["area"]
    marked.area.setValue((int(areas.max()), marked.area.maximum()))
    left = marked.labels.features
    assert all(left[left["kind"] == "found"]["area"] >= areas.max())
    assert all("3 examples tell little" in sentence for sentence in said)


def test_the_area_holds_in_the_folder_too(viewer, widget, discs, tmp_path):
    picture, labels = discs
    viewer.add_image(picture[..., 0], name="discs")
    viewer.add_labels(np.where(np.isin(labels, (3, 6, 7)), 0, labels), name="larger")
    widget.source.setCurrentText("larger")
    widget.take()
    widget.find()
    idle(widget)
    (tmp_path / "plate").mkdir()
    Image.fromarray(picture[..., 0]).save(tmp_path / "plate" / "a.png")
    to_folder = tmp_path / "plate", tmp_path / "cells.npz"
    widget.copy_command(*to_folder)
    assert "mask-area" not in QApplication.clipboard().text()
    everything = len(widget.labels.features)

    widget.area.setValue((450, 612))
    widget.copy_command(*to_folder)
    assert "--min-mask-area 450 --max-mask-area 612" in QApplication.clipboard().text()
    widget.area.setValue((450, widget.area.maximum()))
    assert 0 < len(widget.labels.features) < everything
    assert (widget.settings().min_mask_area, widget.settings().max_mask_area) == (30, 0), "nothing is searched anew"
    widget.copy_command(*to_folder)
    assert "--min-mask-area 450" in QApplication.clipboard().text()
    assert "--max-mask-area" not in QApplication.clipboard().text()
    widget.find_in_folder(*to_folder)
    idle(widget)
    (record,) = read_finished(tmp_path / "plate-results").records()
    assert record.detections
    assert min(item.area for item in record.detections) >= 450


def test_the_form_has_no_field_for_what_the_viewer_has_itself(widget):
    fields = {field.name for field in widget.form}
    own = {"similarity_threshold", "threshold_mode", "top_percent", "black_percentile", "white_percentile"}
    assert set(Settings.model_fields) - fields == {*own, "leave_out_examples"}


def test_the_visible_region_is_searched_alone_and_again_after_a_mark(viewer, widget, discs):
    widget.again.setChecked(True)
    layer = viewer.add_image(np.tile(discs[0][..., 0], (4, 4)), name="discs")
    widget.begin()
    for number in (1, 2, 3):
        click(widget, centres(discs[1])[number])
    layer.corner_pixels = np.array([[0, 0], [159, 199]])
    widget.scope.setCurrentText("Visible region")
    widget.find()
    idle(widget)
    found = widget.labels.features
    assert len(found) > 5
    assert found["x"].max() < 600
    widget.session.costs[:] = [0.0, 0.0]  # as if it had taken no time
    click(widget, centres(discs[1])[5])
    wait(lambda: len(widget.session.learned[0][0]) == 4)
    idle(widget)
    assert list(widget.labels.features["kind"]).count("example") == 4
    assert len(widget.labels.features) >= len(found)


def test_an_object_model_is_saved_loaded_and_becomes_a_command(marked, tmp_path, said, discs):
    marked.find()
    idle(marked)
    folder = tmp_path / "plate 1"
    folder.mkdir()
    Image.fromarray(discs[0][..., 0]).save(folder / "a.png")
    marked.copy_command(folder, tmp_path / "cells.npz")
    command = QApplication.clipboard().text()
    assert command.startswith("sam2-fewshot segment ")
    assert str(tmp_path / "cells.npz") in command
    assert "--channels" in command

    marked.find_in_folder(folder, tmp_path / "cells.npz")
    idle(marked)
    assert (tmp_path / "plate 1-results" / "report.html").exists()
    assert any("1 of 1 images" in sentence for sentence in said)

    marked.load_model(tmp_path / "cells.npz")
    idle(marked)
    while len(marked.marks.data):
        marked.undo()
    marked.find()
    idle(marked)
    assert set(marked.labels.features["kind"]) == {"found"}

    # The viewer has a contrast of its own; the percentiles of the model go on to the command.
    objects = read_object_model(tmp_path / "cells.npz")
    bright = replace(objects, compared={**objects.compared, "white_percentile": 95.0})
    (tmp_path / "bright.npz").write_bytes(bright.to_bytes())
    marked.load_model(tmp_path / "bright.npz")
    idle(marked)
    marked.find()
    idle(marked)
    assert set(marked.labels.features["kind"]) == {"found"}
    marked.copy_command(folder, tmp_path / "again.npz")
    assert "--white-percentile 95.0" in QApplication.clipboard().text()
