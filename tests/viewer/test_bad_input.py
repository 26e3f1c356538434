"""What cannot be done is a notification; nothing breaks, and no thread is left."""

from __future__ import annotations

import numpy as np
import pytest
from desk import centres, click, idle, mouse, other_threads, wait

from sam2_fewshot.napari.work import Job


@pytest.fixture
def ready(viewer, widget, discs):
    """Three marks on the discs, not searched yet."""
    viewer.add_image(discs[0][..., 0], name="discs")
    widget.begin()
    for number in (1, 2, 3):
        click(widget, centres(discs[1])[number])
    idle(widget)
    return widget


def works(widget):
    """Tell whether a search still finds something."""
    widget.guarded(widget.find)
    idle(widget)
    return widget.labels is not None and len(widget.labels.features) > 3


@pytest.mark.parametrize(
    ("button", "sentence"),
    [
        ("Mark", "There is no visible image layer to search."),
        ("Find similar", "There is no visible image layer to search."),
        ("Take", "There is no visible image layer to search."),
        ("Undo", "There is no mark to undo."),
        ("Next doubtful (N)", "Nothing was found yet"),
        ("Right (R)", "Nothing was found yet"),
        ("Copy command", "There is no visible image layer to search."),
    ],
)
def test_without_an_image(widget, said, button, sentence):
    widget.buttons[button].click()
    assert len(said) == 1
    assert sentence in said[0]


def test_without_marks(viewer, widget, discs, said):
    viewer.add_image(discs[0][..., 0])
    widget.buttons["Find similar"].click()
    assert "There is nothing to learn from" in said[0]
    widget.buttons["Save model …"].click()
    assert "Nothing was learned yet" in said[1]


def test_only_marks_of_what_is_not_wanted(ready, said):
    ready.marks.features = {"kind": ["not this"] * 3}
    ready.buttons["Find similar"].click()
    assert "There is nothing to learn from" in said[0]


def test_a_click_outside_of_the_image(ready, said):
    mouse(ready, (-20.0, 5.0))
    assert "outside of discs" in said[0]
    assert works(ready)


def test_marks_outside_of_the_image_are_left_out(ready):
    ready.marks.add_polygons([np.array([[900, 900], [900, 950], [950, 950.0]])])
    assert ready.counts.text().startswith("3 wanted")
    assert works(ready)


def test_lines_are_no_marks(ready, viewer, said):
    viewer.add_shapes([np.array([[10, 10], [60, 60.0]])], shape_type="line", name="lines")
    ready.source.setCurrentText("lines")
    ready.buttons["Take"].click()
    assert "1 of 1 shapes of lines" in said[0]


def test_a_stack_of_rgb_slices(viewer, widget, discs):
    picture, labels = discs
    viewer.add_image(np.stack([picture, picture[::-1]]), name="rgb", rgb=True)
    viewer.dims.set_current_step(0, 0)
    widget.begin()
    for number in (1, 2, 3):
        row, column = centres(labels)[number]
        click(widget, (0, row, column))
    assert works(widget)
    assert np.asarray(widget.labels.data[0]).any()
    assert not np.asarray(widget.labels.data[1]).any()


def test_the_view_in_3d(viewer, widget, discs, said):
    viewer.add_image(np.stack([discs[0][..., 0]] * 3))
    viewer.dims.ndisplay = 3
    widget.buttons["Mark"].click()
    assert "3D" in said[0]


def test_the_layer_is_renamed_and_moved_while_it_is_searched(ready, viewer):
    ready.find()
    viewer.layers["discs"].name = "renamed"
    viewer.layers["renamed"].translate = (7, 9)
    viewer.add_image(np.zeros((5, 5)), name="other")
    viewer.layers.move(2, 0)
    idle(ready)
    assert tuple(ready.labels.translate) == (7, 9)
    assert tuple(ready.marks.translate) == (7, 9)
    assert len(ready.labels.features) > 3


@pytest.mark.parametrize("shape", [(160, 200), (3, 60, 70)])
def test_another_image_is_looked_at_while_it_is_searched(ready, viewer, said, shape):
    results = ready.results
    ready.find()
    wait(lambda: ready.work.busy("Finding"))
    viewer.add_image(np.zeros(shape, np.uint8), name="empty", translate=(1000,) * len(shape))
    ready.image.setCurrentText("empty")
    ready.begin()
    idle(ready)
    assert ready.results is not results
    assert ready.results.shape == shape
    assert not ready.results.items
    assert ready.labels is None
    assert "empty is looked at now, so the search was stopped." in said


def test_another_image_is_looked_at_before_the_outline_is_there(ready, viewer, discs, said):
    mouse(ready, centres(discs[1])[4])
    viewer.add_image(np.zeros((3, 60, 70), np.uint8), name="empty")
    ready.image.setCurrentText("empty")
    ready.begin()
    idle(ready)
    assert not len(ready.marks.data)
    assert len(viewer.layers["Marks"].data) == 3
    assert "empty is looked at now, so the outlining was stopped." in said


def test_what_is_found_last_is_displayed_after_a_cancel(ready):
    def take(ready_part):
        found.append(ready_part)
        taken(ready_part)
        if len(found) == 2:  # the model that has learned, and a part of the image
            ready.work.cancel()

    found = []
    ready.find()
    job = ready.work._job
    taken = job.take
    ready.work._job = job._replace(take=take)
    idle(ready)
    assert len(ready.labels.features) > 3


def test_a_file_is_searched_in_a_folder_while_the_image_is_changed(ready, viewer):
    """Only what works for the image is stopped."""
    done = []

    def job(told):
        told.start("working")
        yield 1

    ready.work.start(Job(job, done.append, "Finding in the folder"))
    viewer.add_image(np.zeros((60, 70), np.uint8), name="empty")
    ready.image.setCurrentText("empty")
    ready.begin()
    idle(ready)
    assert done == [1]


@pytest.mark.parametrize("which", ["discs", "Found"])
def test_a_layer_is_deleted_while_it_is_searched(ready, viewer, said, which):
    assert works(ready)
    ready.session.learned = (None, None)
    ready.find()
    viewer.layers.remove(which)
    idle(ready)
    assert "was removed, so the search was stopped" in said[-1]
    if which == "discs":
        ready.buttons["Find similar"].click()
        assert "no visible image layer" in said[-1]
    else:
        assert works(ready)


def test_the_marks_are_deleted_while_they_are_learned_from(ready, viewer, said):
    ready.find()
    viewer.layers.remove("Marks")
    idle(ready)
    assert len(ready.labels.features) > 3
    ready.segmenter = None
    ready.buttons["Find similar"].click()
    assert "There is nothing to learn from" in said[-1]


@pytest.mark.parametrize("reports", range(0, 40, 3))
def test_a_cancel_at_any_moment(ready, reports):
    """Cancel after so many reports of the search; it stops, and the next search is whole."""
    seen = []

    def count(*_):
        seen.append(1)
        if len(seen) == reports + 1:
            ready.work.cancel()

    ready.work.progressed.connect(count)
    ready.find()
    if not reports:
        ready.work.cancel()
    idle(ready)
    ready.work.progressed.disconnect(count)
    assert works(ready)
    assert not ready.buttons["Cancel"].isEnabled()


def test_the_viewer_is_closed_while_it_searches(make_napari_viewer, discs):
    from sam2_fewshot.napari.widget import FewShotWidget

    before = other_threads()
    viewer = make_napari_viewer()
    widget = FewShotWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.model.addItem("filters")
    widget.model.setCurrentText("filters")
    viewer.add_image(discs[0][..., 0], name="discs")
    widget.begin()
    for number in (1, 2, 3):
        click(widget, centres(discs[1])[number])
    idle(widget)
    work = widget.work
    widget.find()
    viewer.close()
    wait(work.closed.is_set)
    from qtpy.QtCore import QThreadPool

    wait(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)
    assert {thread for thread in other_threads() - before if "Dummy" not in thread.name} == set()


def test_the_widget_is_closed_while_it_searches(ready, viewer):
    work = ready.work
    ready.find()
    viewer.window.remove_dock_widget(ready)
    ready.close()
    wait(lambda: not work.busy())
    viewer.add_image(np.zeros((5, 5)))
    assert len(viewer.layers["Marks"].data) == 3


def test_two_widgets_at_once(ready, make_widget, discs, said):
    other = make_widget()
    other.begin()
    assert other.marks is not ready.marks
    for number in (4, 5, 6):
        click(other, centres(discs[1])[number])
    ready.find()
    other.find()
    idle(ready)
    idle(other)
    assert ready.labels is not other.labels
    assert min(len(ready.labels.features), len(other.labels.features)) > 3
    assert all("3 examples tell little" in sentence for sentence in said)


def test_settings_that_contradict_each_other(ready, said):
    ready.form["min_mask_area"].value = 500
    ready.form["max_mask_area"].value = 10
    ready.buttons["Find similar"].click()
    assert "Max Mask Area is 10 px" in said[0]
    ready.form["max_mask_area"].value = 0
    ready.form["predicted_iou_gate"].value = "much"
    ready.buttons["Find similar"].click()
    assert "Predicted IoU Gate" in said[1]


def test_a_damaged_object_model(ready, tmp_path, said):
    path = tmp_path / "cells.npz"
    path.write_bytes(b"nonsense")
    ready.load_model(path)
    idle(ready)
    assert "is not an object model" in said[0]
    assert works(ready)


def test_warnings_of_other_packages_in_the_thread_are_no_concern_of_the_user(ready, said):
    """Hydra, which builds SAM 2, repeats warnings with named arguments."""
    import warnings

    def job(told):
        warnings.warn("for developers", UserWarning, stacklevel=1)
        warnings.showwarning(message="again", category=UserWarning, filename="a.py", lineno=1, file=None, line=None)
        told.warn("For the user.")
        yield 1

    taken = []
    ready.work.start(Job(job, taken.append, "Trying"))
    idle(ready)
    assert taken == [1]
    assert said == ["For the user."]
