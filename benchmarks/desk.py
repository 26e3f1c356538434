"""How long the napari plugin lets a user wait: ``xvfb-run -a python benchmarks/desk.py [--threads 1]``.

On the bundled image, with the embedded checkpoint on the CPU: the first click (with and without loading the model), a
second click, ten marks to labels, the same with two more marks, the threshold's slider at 5,000 objects, and a cancel
at several moments until the thread is idle. Each in seconds of wall-clock time, and of processor time of the thread
that computes and of Qt's, without the display. With one thread for torch the two add up to the most that an idle
machine of two cores needs.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE, GAP = 6, 10
OBJECTS = 5000


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    os.environ["OMP_NUM_THREADS"] = str(threads)

    import napari
    import torch
    from PIL import Image
    from qtpy.QtWidgets import QApplication

    from sam2_fewshot.annotations.arrays import masks_of
    from sam2_fewshot.annotations.review import Part
    from sam2_fewshot.napari.files import nuclei
    from sam2_fewshot.napari.widget import FewShotWidget
    from sam2_fewshot.sample import sample

    torch.set_num_threads(threads)
    viewer = napari.Viewer(show=True)
    image, options, _ = nuclei()[0]
    viewer.add_image(image, **options)
    widget = FewShotWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.again.setChecked(False)
    widget.begin()

    def wait(until: Callable[[], Any]) -> None:
        while not until():
            QApplication.processEvents()
            time.sleep(0.001)

    computed: list[float] = []
    taken: list[float] = []
    run, take = widget.work._run, widget.work._take

    def timed_run(job: Any) -> Any:
        steps, began = run(job), time.thread_time()
        for ready in steps:
            computed.append(time.thread_time() - began)
            yield ready
            began = time.thread_time()
        computed.append(time.thread_time() - began)

    def timed_take(ready: Any) -> None:
        began = time.thread_time()
        take(ready)
        taken.append(time.thread_time() - began)

    widget.work._run, widget.work._take = timed_run, timed_take

    def measured(what: str, action: Callable[[], Any], until: Callable[[], Any]) -> None:
        computed.clear()
        taken.clear()
        wall = time.perf_counter()
        began = time.thread_time()
        action()
        acted = time.thread_time() - began
        wait(until)
        wall = time.perf_counter() - wall
        print(f"| {what} | {wall:.3f} | {sum(computed):.3f} | {acted + sum(taken):.3f} |", flush=True)

    truth = [*dict(masks_of(np.asarray(Image.open(sample().truth)))).values()]
    truth.sort(key=lambda mask: mask.area)
    chosen = [truth[int((part + 0.5) * len(truth) / 12)] for part in range(12)]  # of all sizes
    # The middle of each one's box lies on it.
    points = [(mask.y0 + mask.data.shape[0] / 2, mask.x0 + mask.data.shape[1] / 2) for mask in chosen]

    def click(point: tuple[float, float]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        count = len(widget.marks.data)
        return lambda: widget.prompt([point]), lambda: len(widget.marks.data) > count

    print(f"| with {threads} threads | wall s | computing s | Qt s |\n|---|---|---|---|")
    measured("first click, the model not loaded yet", *click(points[0]))
    wait(lambda: not widget.work.busy())
    widget.session.opened[2]._held.clear()  # as if nothing was encoded
    measured("first click on the image", *click(points[1]))
    measured("second click, beside the first", *click(points[1]))
    wait(lambda: not widget.work.busy())
    for point in points[2:10]:
        measured("further click, after the windows were encoded ahead", *click(point))
        wait(lambda: not widget.work.busy())
    widget.undo()  # one object was clicked on twice
    measured("ten marks to labels", widget.find, lambda: not widget.work.busy())
    print("  ", widget.found.text())
    for point in points[10:]:
        act, until = click(point)
        act()
        wait(until)
        wait(lambda: not widget.work.busy())
    measured("two more marks to labels", widget.find, lambda: not widget.work.busy())
    print("  ", widget.found.text())
    for seconds in (0.5, 2.0, 4.0, 7.0):
        widget.session.learned = (None, None)
        widget.find()
        end = time.monotonic() + seconds
        wait(lambda end=end: time.monotonic() > end)
        measured(f"cancel after {seconds} s to idle", widget.work.cancel, lambda: not widget.work.busy())

    # As many objects as there are in a large image.
    base = next(item for item in widget.results.items if hasattr(item, "score"))
    many = squares(base)
    viewer.layers.remove(widget.labels)
    viewer.layers.remove(widget.marks)
    side = GAP * int(np.ceil(OBJECTS**0.5))
    viewer.layers.clear()
    viewer.add_image(np.zeros((side, side), np.uint8), contrast_limits=(0, 255))
    widget.look()
    widget.results.add(Part((), (0, 0, side, side), many, 0.05))
    widget._paint()
    values = np.linspace(0.1, 0.9, 21)
    for value in values[:2]:
        widget.threshold.setValue(float(value))
    wall = time.perf_counter()
    for value in values:
        widget.threshold.setValue(float(value))
        QApplication.processEvents()
    print(f"| slider at {OBJECTS} objects, each step, drawn | {(time.perf_counter() - wall) / len(values):.3f} | | |")
    process = time.thread_time()
    for value in values:
        widget.threshold.setValue(float(value))
    print(f"| the same, not drawn | | | {(time.thread_time() - process) / len(values):.3f} |")
    viewer.close()


def squares(base: Any) -> list[Any]:
    """Return as many squares as objects are asked for, of all scores, in place of a detection."""
    from dataclasses import replace

    from shapely import box

    from sam2_fewshot.geometry.outlines import polygon_to_mask

    across = int(np.ceil(OBJECTS**0.5))
    scores = np.random.default_rng(0).random(OBJECTS)
    many = []
    for number, score in enumerate(scores):
        x, y = number % across * GAP, number // across * GAP
        outline = box(x, y, x + SIDE, y + SIDE)
        mask = polygon_to_mask(outline, (across * GAP, across * GAP))
        many.append(replace(base, instance=mask, polygon=outline, score=float(score)))
    return many


if __name__ == "__main__":
    main()
