import colorsys
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapely import Point, box

from sam2_fewshot.annotations.record import ExampleMark
from sam2_fewshot.output.finished import overlay_path
from sam2_fewshot.output.pictures import color_of, draw_overlay, drawn_of, made_from_marks, pictures_of
from sam2_fewshot.records import Detection, Frame, InstanceMask, Kind, Location

FRAME = slice(160, 560)  # where a frame of 100 px lies, enlarged fourfold, on a page of 720


def square(x0: int, y0: int, side: int, similarity: float, shape: tuple[int, int] = (100, 100)) -> Detection:
    mask = InstanceMask(np.ones((side, side), bool), x0, y0, shape)
    return Detection(mask, box(x0, y0, x0 + side, y0 + side), similarity, similarity, 0.5)


def test_small_images_are_enlarged_and_large_ones_shrunk() -> None:
    assert draw_overlay(np.zeros((1, 1, 3), np.uint8), []).shape[2] == 3
    assert draw_overlay(np.zeros((300, 200, 3), np.uint8), []).shape[0] > 1200
    large = draw_overlay(np.zeros((200, 8192, 3), np.uint8), [square(0, 0, 50, 0.5)])
    assert large.shape[1] == 4096
    tiny_objects = draw_overlay(np.zeros((1000, 1000, 3), np.uint8), [square(10, 10, 6, 0.5)])
    assert tiny_objects.shape[1] == 3000


def test_the_colours_run_from_teal_to_yellow() -> None:
    hues = [colorsys.rgb_to_hsv(*color_of(share))[0] for share in np.linspace(0, 1, 9)]
    assert hues == sorted(hues, reverse=True)
    assert color_of(1.0) == color_of(2.0) == (253, 231, 37)
    assert color_of(-1.0) == color_of(0.0)


@pytest.mark.parametrize("ground", [0, 255])
def test_lines_stand_out_on_dark_and_bright_ground(ground: int) -> None:
    pixels = np.full((100, 100, 3), ground, np.uint8)
    drawn = draw_overlay(pixels, [square(20, 20, 30, 0.9), square(60, 60, 30, 0.6)])[:400, FRAME]
    assert drawn.dtype == np.uint8
    near = drawn[20 * 4 - 4 : 20 * 4 + 5, 120:180].astype(int)
    line = np.abs(near - np.array(color_of(1.0))).sum(axis=2).min(axis=0)
    assert line.max() < 60  # the line's colour is found across every column
    if ground:
        assert near.sum(axis=2).min() < 3 * 120  # its dark halo too
    untouched = drawn[220:236, 20:60]
    assert (untouched == ground).all()
    assert (drawn[130:170, 130:170] == ground).all()  # objects are not covered


def test_the_lowest_and_the_highest_similarity_get_the_ends_of_the_scale() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    low, high = square(10, 10, 30, 0.7), square(60, 60, 30, 0.8)

    def colors(drawn: np.ndarray) -> set[tuple[int, ...]]:
        return {tuple(pixel) for pixel in drawn[:400].reshape(-1, 3).tolist()}

    assert {color_of(0.0), color_of(1.0)} <= colors(draw_overlay(pixels, [low, high]))


def test_examples_are_marked_apart_from_finds() -> None:
    pixels = np.full((100, 100, 3), 128, np.uint8)
    marks = [
        ExampleMark(box(10, 10, 40, 40)),
        ExampleMark(box(60, 60, 90, 90), negative=True),
        ExampleMark(Point(75, 25)),
    ]
    drawn = draw_overlay(pixels, [], marks)[:400, FRAME]

    def has(window: np.ndarray, color: tuple[int, int, int]) -> bool:
        return bool((np.abs(window.astype(int) - color).sum(axis=2) < 20).any())

    positive, negative, point = drawn[:200, :200], drawn[200:, 200:], drawn[:200, 200:]
    for window in (positive, point):
        assert has(window, (255, 0, 200))
        assert has(window, (255, 255, 255))
    assert not has(negative, (255, 0, 200))
    assert has(negative, (0, 0, 0))
    assert has(negative[90:110, 90:110], (255, 255, 255))  # the cross


def test_the_legend_lies_below_the_image() -> None:
    pixels = np.zeros((400, 700, 3), np.uint8)
    bare = draw_overlay(pixels, [])
    full = draw_overlay(pixels, [square(5, 5, 9, 0.5)], [ExampleMark(box(50, 50, 60, 60))], threshold=0.4)
    assert bare.shape == full.shape == (800 + 69, 1400, 3)
    legend = full[800:]
    assert (legend == 255).any()
    assert legend.std() > bare[800:].std()


def test_the_legend_does_not_call_found_what_is_confirmed() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    items = [square(10, 10, 30, 0.5), square(60, 60, 30, 1.0)]
    found, both = (
        draw_overlay(pixels, [items[0], replace(items[1], kind=kind)]) for kind in (Kind.FOUND, Kind.CONFIRMED)
    )
    assert (found[:400] == both[:400]).all()
    assert (found[400:] != both[400:]).any()


def test_a_find_without_a_figure_is_drawn_too() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    drawn = draw_overlay(pixels, [square(10, 10, 30, float("nan")), square(60, 60, 30, 0.8)])
    assert (drawn[:400, FRAME] == color_of(0.0)).all(axis=2).any()
    assert (drawn[:400, FRAME] == color_of(1.0)).all(axis=2).any()


def test_an_overlay_is_named_after_its_plane(tmp_path: Path) -> None:
    place = Location(0, 1, 2)
    assert overlay_path(tmp_path, "cells", place, is_stack=True) == tmp_path / "overlays" / "cells_Z2_T3.png"
    assert overlay_path(tmp_path, "cells", place, is_stack=False).name == "cells.png"


def test_an_overlay_is_a_png() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    found = [square(10, 10, 30, 0.7, (60, 80))]
    with Image.open(io.BytesIO(pictures_of(Frame(pixels), found, [], 0.5).overlay)) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), draw_overlay(pixels, found, threshold=0.5))


def test_an_overlay_says_what_it_is_of(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert drawn_of(path) == ""
    path.write_bytes(pictures_of(Frame(np.zeros((60, 80, 3), np.uint8)), [], [], 0.5, of="record 0.5").overlay)
    assert drawn_of(path) == "record 0.5"
    path.write_bytes(path.read_bytes()[:200])  # no pixels are read
    assert drawn_of(path) == "record 0.5"
    path.write_text("no picture")
    assert drawn_of(path) == ""


def test_what_was_made_of_a_box_or_a_point_is_drawn_beside_the_mark():
    pixels = np.full((100, 100, 3), 60, np.uint8)
    example = replace(square(14, 14, 12, 1.0), kind=Kind.EXAMPLE)
    by_box = [ExampleMark(box(10, 10, 30, 30), is_box=True)]
    alone, both = draw_overlay(pixels, [], by_box), draw_overlay(pixels, [example], by_box)
    assert made_from_marks([example], by_box) == [example.polygon]
    rows, columns = slice(4 * 12, 4 * 28), slice(160 + 4 * 12, 160 + 4 * 28)  # within the box
    assert (alone[rows, columns] == 60).all()
    assert (both[rows, columns] == (255, 0, 200)).all(axis=2).any()


def test_an_example_that_was_outlined_is_drawn_once():
    pixels = np.full((100, 100, 3), 60, np.uint8)
    example = replace(square(10, 10, 20, 1.0), kind=Kind.EXAMPLE)
    outlined = [ExampleMark(box(10, 10, 30, 30))]
    assert made_from_marks([example], outlined) == []
    assert (draw_overlay(pixels, [example], outlined) == draw_overlay(pixels, [], outlined)).all()


def test_an_outline_on_a_point_counts_as_an_outline():
    example = replace(square(10, 10, 20, 1.0), kind=Kind.EXAMPLE)
    assert made_from_marks([example], [ExampleMark(box(10, 10, 30, 30)), ExampleMark(Point(20, 20))]) == []
