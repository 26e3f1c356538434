"""Outlines of single objects with kept embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sam2_fewshot.annotations.arrays import masks_of
from sam2_fewshot.examples.outliner import Outliner
from sam2_fewshot.examples.points import masks_at_points, masks_in_boxes
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.records import Frame


class Counting:
    """A backbone that counts how many windows it encodes."""

    def __init__(self, backbone: Any) -> None:
        self._backbone, self.windows = backbone, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def embed(self, image: Any) -> Any:
        self.windows += 1
        return self._backbone.embed(image)


@pytest.fixture
def counting(filters):
    return Counting(filters)


def middle(mask):
    return mask.x0 + mask.data.shape[1] / 2, mask.y0 + mask.data.shape[0] / 2


def test_a_point_gives_the_object_under_it(counting, discs):
    picture, labels = discs
    outliner, frame = Outliner(counting), Frame(picture)
    for true in [*dict(masks_of(labels)).values()][:6]:
        found = outliner.at_point(frame, middle(true))
        assert found is not None
        assert found.frame_shape == labels.shape
        assert mask_iou(found, true) > 0.8


def test_a_second_point_in_the_same_windows_encodes_nothing(counting, discs):
    picture = discs[0].copy()
    outliner, frame = Outliner(counting), Frame(picture)
    outliner.at_point(frame, (40.5, 30.5))
    once = counting.windows
    assert once > 0
    outliner.at_point(frame, (41.5, 31.5))
    assert counting.windows == once
    picture[10:20, 10:20] ^= 255  # in place
    outliner.at_point(frame, (41.5, 31.5))
    assert counting.windows == 2 * once


def test_a_window_is_read_once(counting, discs):
    read = []

    class Watched(Frame):
        def read(self, region=None):
            read.append(region)
            return super().read(region)

    Outliner(counting).at_point(Watched(discs[0]), (40.5, 30.5))
    assert counting.windows == len(read)


def test_only_so_many_embeddings_are_kept(counting, discs):
    outliner, frame, other = Outliner(counting, kept=2), Frame(discs[0]), Frame(255 - discs[0])
    for _ in range(2):
        outliner.at_point(frame, (40.5, 30.5))
        outliner.at_point(other, (40.5, 30.5))
    assert counting.windows > 4


def test_one_embedding_is_enough(counting, discs):
    picture = np.tile(discs[0], (5, 5, *(1,) * (discs[0].ndim - 2)))  # larger than the windows
    at = middle(next(iter(dict(masks_of(discs[1])).values())))
    found = Outliner(counting, kept=1).at_point(Frame(picture), at)
    assert counting.windows > 1
    assert found is not None
    same = Outliner(counting).at_point(Frame(picture), at)
    assert same is not None
    assert mask_iou(found, same) == 1


def test_what_is_prepared_is_not_encoded_again(counting, discs):
    outliner, frame = Outliner(counting), Frame(discs[0])
    steps = list(outliner.prepare(frame, (0, 0, 200, 160)))
    assert len(steps) == counting.windows
    outliner.at_point(frame, (120.5, 34.5))
    assert counting.windows == len(steps)


def test_a_box_gives_the_object_in_it(counting, discs):
    true = [*dict(masks_of(discs[1])).values()][1]
    x0, y0, x1, y1 = true.box
    found = Outliner(counting).in_box(Frame(discs[0]), (x0 - 2.0, y0 - 2.0, x1 + 2.0, y1 + 2.0))
    assert found is not None
    assert mask_iou(found, true) > 0.7


def test_a_box_is_prompted_and_judged_as_where_it_is_an_example(counting, discs, monkeypatch):
    boxes = []
    prompted = type(counting._backbone).prompt_boxes

    def recorded(self, embedding, given):
        boxes.append(given * embedding.frame_shape[::-1][0] / self.input_size)
        return prompted(self, embedding, given)

    monkeypatch.setattr(type(counting._backbone), "prompt_boxes", recorded)
    picture = np.full((64, 64, 3), 40, np.uint8)
    picture[22:43, 22:43] = 200
    box = (22.0, 22.0, 43.0, 43.0)
    outlined = Outliner(counting).in_box(Frame(picture), box)
    (offers,) = masks_in_boxes(counting, picture, [box])
    assert outlined is not None
    assert [item.mask.box for item in offers] == [outlined.box] == [(22, 22, 43, 43)]
    assert np.array_equal(*boxes)
    # On the ground beside it there is nothing that fits.
    assert Outliner(counting).in_box(Frame(picture), (2.0, 2.0, 8.0, 8.0)) is None
    assert masks_in_boxes(counting, picture, [(2.0, 2.0, 8.0, 8.0)]) == [[]]


def test_of_a_long_object_no_piece_is_taken_that_ends_where_a_window_does(filters):
    picture = np.full((300, 600, 3), 40, np.uint8)
    picture[140:156, 20:580] = 200
    (offers,) = masks_at_points(filters, picture, [(300.0, 148.0)])
    assert offers
    assert all(item.mask.box[2] - item.mask.box[0] > 550 for item in offers)
    # A single window that does not show all of it gives what there is.
    piece = Outliner(filters).at_point(Frame(picture), (300.0, 148.0))
    assert piece is not None


def test_a_box_outside_of_the_frame_gives_nothing(counting, discs):
    assert Outliner(counting).in_box(Frame(discs[0]), (-50.0, -50.0, -10.0, -10.0)) is None


def test_of_the_masks_of_a_point_that_is_taken_which_agrees_with_those_before(filters):
    """In a dim disc lies a bright core: after outlines of discs the disc is meant, after those of cores the core."""
    rows, columns = np.mgrid[:160, :200]
    grey = np.full((160, 200), 20.0)
    centres = [(40, 40), (40, 120), (120, 60), (120, 150)]
    for row, column in centres:
        distance = np.hypot(rows - row, columns - column)
        grey[distance <= 16] = 140
        grey[distance <= 7] = 250
    frame = Frame(np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2))

    def discs_of(radius: float) -> list[Any]:
        return [
            next(iter(dict(masks_of((np.hypot(rows - row, columns - column) <= radius).astype(int))).values()))
            for row, column in centres[:3]
        ]

    areas = []
    for radius in (16, 7):
        found = Outliner(filters).at_point(frame, (150.5, 120.5), discs_of(radius))
        assert found is not None
        areas.append(found.area)
    assert areas[0] > 2 * areas[1]
