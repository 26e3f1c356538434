"""Which parts of the examples' frames are learned from: all of small ones, windows of large ones.

What is learned needs the examples, what lies around them, and a sample of the rest that shows the frames' variety. It
does not need all of a large frame, whose encoding would take longer than anything else: at fourfold magnification a
frame of a megapixel is 80 tiles.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.overlap import grown, intersect, pixels_in
from sam2_fewshot.tiling.tiles import TileGrid, core_of, holds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import TrainingFrame
    from sam2_fewshot.records import Box, InstanceMask

MOST_TILES = 64
"""Frames of so many tiles in all are learned from whole. With 36, too little was seen of thin flakes away from the
examples to tell thick ones from them: F1 .38 in place of .67 on one choice of examples; with 64 it is .69."""
LEAST_SAMPLE = 12
"""So many tiles without a mark are learned from at least, however many the marks take."""
_AROUND = 0.125
"""A mark's window shows so large a part of a tile around it at least, if the frame does not end before."""
_LOOK = 8
"""A tile is looked at as a picture of so many pixels each way."""


def training_windows(
    frames: Sequence[TrainingFrame], side: int, most: int = MOST_TILES, least: int = LEAST_SAMPLE
) -> list[TrainingFrame]:
    """Return what is learned from of the examples' frames.

    Parameters
    ----------
    frames
        With their examples.
    side
        Side of a tile in pixels.
    most
        Frames of so many tiles in all are returned as they are.
    least
        Tiles without a mark that are sampled of larger ones, or as many more as `most` leaves.

    Returns
    -------
    list of TrainingFrame
        Windows around all marks, a tile wide if the marks are not wider, and a seeded sample of windows elsewhere that
        look as different as possible. Each mark is learned from on one window; what others show of it is among the
        :attr:`~sam2_fewshot.methods.base.TrainingFrame.others` there.
    """
    if sum(tile_count(frame.shape, side) for frame in frames) <= most:
        return list(frames)
    core = core_of(side)
    windows = [list(_around_marks(frame, core)) for frame in frames]
    taken = sum(tile_count((y1 - y0, x1 - x0), side) for of_frame in windows for (x0, y0, x1, y1), _ in of_frame)
    marked = [_cropped(frame, *window) for frame, of_frame in zip(frames, windows, strict=True) for window in of_frame]
    elsewhere = [
        (frame, box)
        for frame, of_frame in zip(frames, windows, strict=True)
        for box in _cells(frame.shape, core)
        if not any(_overlap(box, window) for window, _ in of_frame)
    ]
    sample = _different([_look(frame.pixels, box) for frame, box in elsewhere], max(least, most - taken))
    return marked + [_cropped(elsewhere[i][0], elsewhere[i][1], []) for i in sample]


def tile_count(shape: tuple[int, int], side: int) -> int:
    """Return how many tiles of a side cover a picture ``(height, width)``."""
    rows, columns = TileGrid(shape, side).counts
    return rows * columns


def _around_marks(frame: TrainingFrame, core: int) -> Iterator[tuple[Box, list[InstanceMask]]]:
    """Yield windows that show each mark of a frame whole, and the marks that each answers for."""
    height, width = frame.shape
    margin = int(_AROUND * core)

    def within(mask: InstanceMask, window: Box) -> bool:
        return holds(window, grown(mask.box, margin, (height, width)))

    left = sorted([*frame.positives, *frame.negatives], key=lambda mask: (mask.box[1], mask.box[0]))
    while left:
        window = _centred(left[0].box, core, margin, (height, width))
        yield window, [mask for mask in left if within(mask, window)]
        left = [mask for mask in left if not within(mask, window)]


def _centred(box: Box, core: int, margin: int, shape: tuple[int, int]) -> Box:
    """Return a window with a box in its middle, as wide as a tile's core or more, moved or cut to lie in the frame."""
    spans = []
    for low, high, length in ((box[0], box[2], shape[1]), (box[1], box[3], shape[0])):
        # One pixel more on either side than the margin, so that rounding leaves no mark without its window.
        size = min(max(core, high - low + 2 * margin + 2), length)
        begin = min(max((low + high - size) // 2, 0), length - size)
        spans.append((begin, begin + size))
    (x0, x1), (y0, y1) = spans
    return x0, y0, x1, y1


def _cells(shape: tuple[int, int], core: int) -> Iterator[Box]:
    """Yield windows of a tile's core that cover a frame, row by row, the last ones moved back into it."""
    height, width = shape
    for y in range(0, height, core):
        for x in range(0, width, core):
            y0, x0 = max(0, min(y, height - core)), max(0, min(x, width - core))
            yield x0, y0, min(x0 + core, width), min(y0 + core, height)


def _overlap(one: Box, other: Box) -> bool:
    """Tell whether two windows share more than a quarter of the smaller one."""
    common = intersect(one, other)
    return common is not None and 4 * pixels_in(common) > min(pixels_in(one), pixels_in(other))


def _look(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.float64]:
    """Return what a window looks like at low magnification: its grey levels in ascending order, and how rough it is.

    The order takes away where things lie, so that windows are compared by how much there is of what brightness.
    """
    x0, y0, x1, y1 = box
    part = pixels[y0:y1, x0:x1].astype(np.float64)
    rows, columns = (np.unique(np.linspace(0, length, _LOOK + 1).astype(int)) for length in part.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(part, rows[:-1], axis=0), columns[:-1], axis=1)
    means = sums / np.diff(rows)[:, None, None] / np.diff(columns)[:, None]
    spread = np.sort(means.reshape(-1, 3), axis=0)
    places = np.linspace(0, len(spread) - 1, _LOOK).round().astype(int)
    rough = [np.abs(np.diff(part, axis=axis)).mean() if part.shape[axis] > 1 else 0.0 for axis in (0, 1)]
    return np.concatenate([spread[places].ravel(), rough])


def _different(looks: Sequence[NDArray[np.float64]], count: int) -> list[int]:
    """Choose windows that look different, by the seeding of k-means++ (Arthur & Vassilvitskii 2007).

    Each is drawn with a chance in proportion to its squared distance from the nearest one that is drawn already: all
    that the frames show is likely to be drawn, and what there is most of is drawn most often.
    """
    if len(looks) <= count:
        return list(range(len(looks)))
    rng = np.random.default_rng(0)
    rows = np.array(looks)
    chosen = [int(rng.integers(len(rows)))]
    distance = ((rows - rows[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count:
        # Windows that look just like those that are drawn have no chance, but for when only such are left.
        chances = distance if distance.any() else np.isin(np.arange(len(rows)), chosen, invert=True).astype(float)
        chosen.append(int(rng.choice(len(rows), p=chances / chances.sum())))
        distance = np.minimum(distance, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
    return sorted(chosen)


def _cropped(frame: TrainingFrame, window: Box, marks: Sequence[InstanceMask]) -> TrainingFrame:
    """Return a window of a frame with those of its marks that are given; its other marks are not learned from there."""
    x0, y0, x1, y1 = window

    def within(masks: Sequence[InstanceMask], *, given: bool) -> list[InstanceMask]:
        parts = (mask.within(window) for mask in masks if any(mask is mark for mark in marks) is given)
        return [part for part in parts if part is not None]

    positives, negatives = within(frame.positives, given=True), within(frame.negatives, given=True)
    others = within([*frame.positives, *frame.negatives, *frame.others], given=False)
    return replace(
        frame,
        pixels=frame.pixels[y0:y1, x0:x1],
        positives=positives,
        negatives=negatives,
        corner=(frame.corner[0] + x0, frame.corner[1] + y0),
        others=others,
    )
