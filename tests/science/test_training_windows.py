"""What is learned from of large frames: windows around the marks, and a sample of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.methods.base import TrainingFrame
from sam2_fewshot.methods.guided.training_windows import MOST_TILES, _look, training_windows
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.tiling.tiles import TileGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.records import Box

SIDE = 64
CORE = 56


def square(x: int, y: int, side: int, shape: tuple[int, int]) -> InstanceMask:
    return InstanceMask(np.ones((side, side), bool), x, y, shape)


def picture(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Each pixel tells where it is, so that a window can be recognised."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.stack([rows // 4, columns // 4, (rows * 7 + columns * 3) % 256], axis=-1).astype(np.uint8)


def frame(shape: tuple[int, int], wanted: Sequence[tuple[int, int, int]], number: int = 0) -> TrainingFrame:
    return TrainingFrame(picture(shape), [square(*place, shape) for place in wanted], number=number)


def tiles(frames: Sequence[TrainingFrame]) -> int:
    return sum(len(TileGrid(f.shape, SIDE).windows()) for f in frames)


def pixels_under(frames: Sequence[TrainingFrame]) -> list[bytes]:
    """Return what the marked objects look like: their pixels."""
    return sorted(
        f.pixels[y0:y1, x0:x1].tobytes() for f in frames for x0, y0, x1, y1 in (mask.box for mask in f.positives)
    )


def test_small_frames_are_learned_from_whole() -> None:
    frames = [frame((100, 200), [(5, 5, 10)]), frame((100, 100), [(20, 20, 10)], 1)]
    assert training_windows(frames, SIDE) == frames


def test_each_mark_is_whole_on_one_window_with_its_surroundings() -> None:
    places = [(3, 3, 8), (400, 30, 8), (410, 34, 8), (200, 700, 8), (992, 792, 8)]
    whole = frame((800, 1000), places)
    windows = training_windows([whole], SIDE, most=20, least=5)
    assert pixels_under(windows) == pixels_under([whole])
    for window in windows:
        height, width = window.pixels.shape[:2]
        for mask in window.positives:
            assert mask.frame_shape == (height, width)
            for near, at_border in ((mask.box[0], mask.box[2] == 11), (width - mask.box[2], mask.box[0] == width - 8)):
                assert near >= CORE // 8 or at_border or near in (3, 0)


def test_a_mark_near_the_end_of_anothers_window_has_its_own_surroundings() -> None:
    shape = (800, 1000)
    pair = [square(400, 400, 8, shape), square(420, 420, 8, shape)]
    windows = training_windows([TrainingFrame(picture(shape), pair)], SIDE, most=5, least=2)
    assert sum(len(window.positives) for window in windows) == 2
    for window in windows:
        height, width = window.pixels.shape[:2]
        for x0, y0, x1, y1 in (mask.box for mask in window.positives):
            assert min(x0, y0, width - x1, height - y1) >= CORE // 8


def test_a_window_of_a_part_tells_where_it_lies_on_the_whole_frame() -> None:
    shape = (800, 1000)
    part = TrainingFrame(picture(shape), [square(500, 300, 8, shape)], corner=(5000, 7000))
    for window in training_windows([part], SIDE, most=10):
        (x, y), (height, width) = window.corner, window.pixels.shape[:2]
        assert np.array_equal(window.pixels, part.pixels[y - 7000 : y - 7000 + height, x - 5000 : x - 5000 + width])


def test_what_lies_elsewhere_is_sampled_once_and_not_where_the_marks_are() -> None:
    """Each of a few tiles differs from the rest, and the marks fill two."""
    shape = (CORE * 8, CORE * 8)
    pixels = np.full((*shape, 3), 50, np.uint8)
    for i in range(4):
        pixels[CORE * i : CORE * (i + 1), CORE * i : CORE * (i + 1)] = 100 + 30 * i
    middle = CORE // 2 - 4
    marks = [square(CORE * column + middle, CORE * 6 + middle, 8, shape) for column in (2, 5)]
    for most in (12, 61):
        windows = training_windows([TrainingFrame(pixels, marks)], SIDE, most=most, least=1)
        assert len({window.corner for window in windows}) == len(windows)


def test_what_is_learned_from_does_not_grow_with_the_frame() -> None:
    places = [(30 + 50 * i, 40 + 30 * i, 8) for i in range(10)]
    small, large = frame((800, 1000), places), frame((1600, 2000), places)
    of_small, of_large = (tiles(training_windows([whole], SIDE)) for whole in (small, large))
    assert of_small == of_large == MOST_TILES


def test_the_rest_is_sampled_where_it_looks_different() -> None:
    """One corner of a large even frame is bright: it is seen, though the marks are far away."""
    shape = (800, 1000)
    pixels = np.full((*shape, 3), 50, np.uint8)
    pixels[600:, 800:] = 200
    whole = TrainingFrame(pixels, [square(100, 100, 8, shape)])
    sample = [window for window in training_windows([whole], SIDE, most=8) if not len(window.positives)]
    assert any(window.pixels.max() == 200 for window in sample)
    assert any(window.pixels.max() == 50 for window in sample)
    assert all(window.pixels.shape == (CORE, CORE, 3) for window in sample)


def test_the_sample_is_the_same_each_time_and_there_even_when_the_marks_take_all() -> None:
    places = [(30 + 90 * (i % 10), 40 + 100 * (i // 10), 8) for i in range(60)]
    whole = frame((800, 1000), places)
    once, again = (training_windows([whole], SIDE, most=10, least=7) for _ in range(2))
    assert [w.pixels.tobytes() for w in once] == [w.pixels.tobytes() for w in again]
    assert sum(not len(window.positives) for window in once) == 7


def test_marks_larger_than_a_tile_get_a_window_that_holds_them() -> None:
    whole = frame((800, 1000), [(300, 300, 150)])
    windows = training_windows([whole], SIDE, most=10)
    assert pixels_under(windows) == pixels_under([whole])


def test_negative_examples_and_the_frames_number_stay() -> None:
    shape = (800, 1000)
    bad = square(500, 500, 8, shape)
    frames = [
        TrainingFrame(picture(shape), [square(30, 30, 8, shape)], [bad], number=3),
        TrainingFrame(picture(shape), [], [bad], number=4),
    ]
    windows = training_windows(frames, SIDE, most=10)
    assert {window.number for window in windows} == {3, 4}
    assert sum(len(window.negatives) for window in windows) == 2


@pytest.mark.parametrize("value", [0, 90])
def test_a_frame_that_looks_the_same_everywhere_is_sampled_too(value: int) -> None:
    shape = (800, 1000)
    whole = TrainingFrame(np.full((*shape, 3), value, np.uint8), [square(30, 30, 8, shape)])
    windows = training_windows([whole], SIDE, most=10)
    assert sum(not len(window.positives) for window in windows) == 12


class Counting:
    """A backbone with embeddings of another size, which counts the tiles that it encodes."""

    def __init__(self, backbone: Backbone, embedding_bytes: int) -> None:
        self.backbone, self.embedding_bytes, self.encoded = backbone, embedding_bytes, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.backbone, name)

    def tiles(self, image: NDArray[np.uint8], windows: list[Box], *more: object) -> object:
        self.encoded += len(windows)
        return self.backbone.tiles(image, windows, *more)  # type: ignore[arg-type]


@pytest.mark.slow
def test_fewer_tiles_are_learned_from_where_their_embeddings_have_no_room(
    filters: Backbone, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = np.tile(discs[0][::3, ::3], (10, 10, 1)), np.zeros((540, 670), np.int32)
    labels[:54, :67] = discs[1][::3, ::3]
    exemplars = [Exemplar(image, mask=labels == number) for number in range(1, 7)]

    def encoded(embedding_bytes: int, max_memory: float) -> int:
        backbone = Counting(filters, embedding_bytes)
        settings = Settings(max_memory=max_memory, sizes="similar")
        FewShotSegmenter(backbone, settings=settings).fit(exemplars)  # type: ignore[arg-type]
        return backbone.encoded

    plenty = encoded(16_777_216, 8)
    assert plenty >= MOST_TILES
    assert encoded(16_777_216, 2.3) < 0.7 * plenty


def test_a_flat_window_has_one_grey_level() -> None:
    """Though a window's side is seldom a multiple of the number of its parts."""
    look = _look(np.full((300, 300, 3), 100, np.uint8), (0, 0, 140, 57))
    np.testing.assert_allclose(look, [*[100] * (len(look) - 2), 0, 0])
