"""What the viewer displays is what is searched, and results lie where they belong."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
from desk import centres, click, idle
from napari.layers._source import layer_source

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.display import channels_of
from sam2_fewshot.napari.layers import Scene
from sam2_fewshot.napari.marks import marks_in, points_in
from sam2_fewshot.records import Location


@pytest.fixture
def grey(discs):
    return discs[0][..., 0]


def test_contrast_gamma_and_colormap_are_searched(viewer):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    viewer.add_image(ramp, contrast_limits=(50, 150), gamma=0.5, colormap="green")
    pixels = Scene(viewer).plane(()).read()
    expected = np.clip((ramp - 50.0) / 100, 0, 1) ** 0.5 * 255
    assert np.abs(pixels[..., 1] - expected).max() <= 1
    assert not pixels[..., [0, 2]].any()


def test_channels_are_blended_as_they_are_displayed_and_hidden_ones_are_not(viewer, grey):
    viewer.add_image(grey, colormap="magenta", name="a", contrast_limits=(0, 255))
    other = viewer.add_image(grey[::-1], name="b")
    other.colormap, other.blending, other.contrast_limits = "green", "additive", (0, 255)
    pixels = Scene(viewer).plane(()).read()
    np.testing.assert_allclose(pixels[..., 0], grey, atol=1)
    np.testing.assert_allclose(pixels[..., 1], grey[::-1], atol=1)
    other.visible = False
    assert not Scene(viewer).plane(()).read()[..., 1].any()


def test_one_layer_alone_can_be_searched(viewer, grey, widget):
    viewer.add_image(grey, name="a")
    viewer.add_image(grey[::-1], name="b")
    widget.image.setCurrentText("a")
    assert widget.look().reference.name == "a"


def test_a_layer_on_other_pixels_is_left_out(viewer, grey, widget, said):
    viewer.add_image(grey[:50, :50], name="small")
    viewer.add_image(grey, name="large")
    assert widget.look().reference.name == "large"
    assert "small" in said[0]


def test_rgb(viewer, discs):
    viewer.add_image(discs[0], rgb=True)
    np.testing.assert_array_equal(Scene(viewer).plane(()).read((10, 20, 60, 50)), discs[0][20:50, 10:60])


def test_a_region_of_a_lazy_image_reads_no_more(viewer):
    read = []

    def block(block_info):
        read.append(block_info[None]["chunk-location"])
        return np.full(block_info[None]["chunk-shape"], 7, np.uint8)

    lazy = dask.array.map_blocks(block, chunks=((1,) * 50, (512,) * 8, (512,) * 8), dtype=np.uint8, meta=np.empty(0))
    viewer.add_image(lazy, contrast_limits=(0, 255), multiscale=False)
    plane = Scene(viewer).plane((3,))
    read.clear()
    assert plane.read((512, 1024, 600, 1100)).shape == (76, 88, 3)
    assert read == [(3, 2, 1)]


def test_a_pyramid_is_searched_at_its_finest_level(viewer, widget, discs, grey):
    large = np.tile(grey, (4, 4))
    layer = viewer.add_image([large, large[::2, ::2], large[::4, ::4]], multiscale=True, contrast_limits=(0, 255))
    scene = Scene(viewer)
    assert scene.shape == large.shape
    assert scene.plane(()).read().shape[:2] == large.shape
    layer.corner_pixels = np.array([[0, 0], [39, 49]])
    widened = 2**layer.data_level
    assert scene.region() == (0, 0, 49 * widened + 1, 39 * widened + 1)


def test_slices_of_time_and_z_are_put_back_at_their_place(viewer, widget, discs, grey):
    empty = np.full_like(grey, 40)
    stack = np.stack([np.stack([empty, grey]), np.stack([grey[::-1], empty])])
    viewer.add_image(stack, name="stack", scale=(1, 2, 0.5, 0.25), translate=(0, 0, 10, 20), contrast_limits=(0, 255))
    viewer.dims.set_current_step(0, 0)
    viewer.dims.set_current_step(1, 1)
    widget.begin()
    for number in (1, 2, 3):
        row, column = centres(discs[1])[number]
        click(widget, (0, 2, 10 + row * 0.5, 20 + column * 0.25))
    np.testing.assert_array_equal(np.unique(widget.marks.data[0][:, :2], axis=0), [[0, 1]])
    assert {mark.place for mark in widget._marked(widget.scene)} == {(0, 1)}
    widget.scope.setCurrentText("All slices")
    widget.find()
    idle(widget)
    labels = widget.labels
    assert tuple(labels.scale) == (1, 2, 0.5, 0.25)
    assert tuple(labels.translate) == (0, 0, 10, 20)
    painted = np.asarray(labels.data)
    assert painted.shape == stack.shape
    assert len(np.unique(painted[0, 1])) > 5
    assert len(np.unique(painted[1, 0])) > 5
    assert not painted[0, 0].any()
    assert not painted[1, 1].any()
    table = labels.features
    assert set(zip(table["axis_0"], table["axis_1"], strict=True)) == {(0, 1), (1, 0)}
    # The next doubtful object is displayed, on its slice.
    widget.next_doubtful()
    place = widget.results.places[widget.results.label(widget._asked) - 1]
    assert tuple(viewer.dims.current_step[:2]) == place


def test_another_pair_of_axes_is_searched_as_displayed(viewer, grey):
    stack = np.stack([grey, grey // 2, grey // 3])
    viewer.add_image(stack, contrast_limits=(0, 255))
    viewer.dims.order = (1, 0, 2)
    scene = Scene(viewer)
    assert scene.axes == (0, 2)
    np.testing.assert_array_equal(scene.plane((9,)).read()[..., 0], stack[:, 9])


@pytest.mark.parametrize(
    ("labels", "place", "location"),
    [
        (None, (2, 3), Location(0, 3, 2)),
        (("z", "t", "y", "x"), (2, 3), Location(0, 2, 3)),
        (("p", "z", "y", "x"), (2, 3), Location(2, 3, 0)),
    ],
)
def test_axes_become_positions_slices_and_times(viewer, labels, place, location):
    layer = viewer.add_image(np.zeros((4, 5, 20, 20), np.uint8))
    if labels:
        layer.axis_labels = labels
    assert Scene(viewer).location(place) == location


def test_shapes_labels_and_points_are_taken(viewer, widget, discs, grey):
    viewer.add_image(grey, name="discs")
    (row, column), (row2, column2) = centres(discs[1])[1], centres(discs[1])[2]
    square = np.array([[-12, -12], [-12, 12], [12, 12], [12, -12]])
    viewer.add_shapes(
        [square + np.array(at) for at in ((row, column), (row2, column2))],
        shape_type=["rectangle", "ellipse"],
        name="drawn",
    )
    viewer.add_labels(np.where(discs[1] == 3, 7, 0), name="painted")
    viewer.add_points([centres(discs[1])[4], (500, 500)], name="clicked")
    areas = []
    for name in ("drawn", "painted", "clicked"):
        widget.source.setCurrentText(name)
        widget.buttons["Take"].click()
        idle(widget)
    areas = [mark.outline.area for mark in widget._marked(widget.scene)]
    assert areas[0] == pytest.approx(24**2, rel=0.02)
    assert areas[1] == pytest.approx(np.pi * 12**2, rel=0.02)
    assert areas[2] == pytest.approx((discs[1] == 3).sum(), rel=0.05)
    assert areas[3] == pytest.approx((discs[1] == 4).sum(), rel=0.2)


def test_labels_of_other_pixels_and_shapes_of_other_axes_are_refused(viewer, grey):
    viewer.add_image(grey, name="discs")
    scene = Scene(viewer)
    with pytest.raises(InputError, match="the image's own pixels"):
        marks_in(viewer.add_labels(np.ones((5, 5), int)), scene)
    with pytest.raises(InputError, match="3 axes"):
        marks_in(viewer.add_shapes(ndim=3, name="deep"), scene)
    assert points_in(viewer.add_points([(900, 900)]), scene) == ([], 1)


SQUARE = np.array([[20, 30], [20, 60], [50, 60], [50, 30.0]])


@pytest.mark.parametrize(
    ("image", "drawn", "bounds"),
    [
        ({"translate": (100, 300)}, {"translate": (100, 300)}, (30.5, 20.5, 60.5, 50.5)),
        ({"translate": (-5, 10)}, {}, (20.5, 25.5, 50.5, 55.5)),
        ({"scale": (0.5, 0.5)}, {}, (60.5, 40.5, 120.5, 100.5)),
        ({}, {"scale": (0.5, 2)}, (60.5, 10.5, 120.5, 25.5)),
        ({"rotate": 90}, {"rotate": 90, "translate": (0, 0)}, (30.5, 20.5, 60.5, 50.5)),
    ],
)
def test_shapes_are_taken_where_they_are_displayed(viewer, grey, image, drawn, bounds):
    viewer.add_image(grey, **image)
    (mark,), _ = marks_in(viewer.add_shapes([SQUARE], shape_type="polygon", **drawn), Scene(viewer))
    assert mark.outline.bounds == bounds


def test_labels_that_lie_elsewhere_are_refused(viewer, grey, discs):
    viewer.add_image(grey, name="discs", scale=(0.5, 0.5), translate=(100, 300))
    scene = Scene(viewer)
    with pytest.raises(InputError, match=r"painted reaches from \[.*\] to .* in the world, but discs from"):
        marks_in(viewer.add_labels(discs[1], name="painted"), scene)
    placed = viewer.add_labels(discs[1], scale=(0.5, 0.5), translate=(100, 300))
    assert len(marks_in(placed, scene)[0]) == len(np.unique(discs[1])) - 1


def test_shapes_that_did_not_change_are_not_drawn_into_pixels_again(viewer, grey):
    viewer.add_image(grey)
    scene, known = Scene(viewer), {}
    layer = viewer.add_shapes(
        [SQUARE, SQUARE + 40, SQUARE + 900], shape_type="polygon", features={"kind": ["example"] * 3}
    )
    first, _ = marks_in(layer, scene, known)
    layer.data = [SQUARE + 1, SQUARE + 40]
    layer.features = {"kind": ["example", "not this"]}
    moved, kept = marks_in(layer, scene, known)[0]
    assert kept.mask is first[1].mask
    assert kept.kind == "not this"
    assert moved.mask.box == tuple(at + 1 for at in first[0].mask.box)
    assert len(known) == 2


def layers_of_file(viewer, grey, path, names="abc"):
    """Add channels as a reader does that opens a file."""
    with layer_source(path=path):
        return [
            viewer.add_image(grey, name=name, colormap=color, blending="additive", contrast_limits=(0, 200))
            for name, color in zip(names, ("red", "green", "blue"), strict=False)
        ]


def test_channels_are_those_of_the_file(viewer, grey):
    viewer.add_image(grey, name="another file")
    first, second, _ = layers_of_file(viewer, grey, "cells.tif")
    viewer.layers["another file"].visible = first.visible = False
    channels = Scene(viewer).channels()
    assert [look is not None for look in channels] == [False, True, True]
    text, is_all = channels_of(channels)
    assert is_all
    assert text.splitlines()[:2] == [
        "- {index: 1, visible: false}",
        '- {index: 2, color: "#00FF00", mode: absolute, black: 0.0, white: 200.0}',
    ]
    assert [look is not None for look in Scene(viewer, second).channels()] == [False, True, False]


def test_channels_that_cannot_be_known(viewer, grey):
    first, *_ = layers_of_file(viewer, grey, "cells.tif")
    layers_of_file(viewer, grey, "others.tif", "d")
    assert Scene(viewer).channels() == []
    filtered = viewer.add_image(grey, name="filtered")
    assert Scene(viewer, filtered).channels() == []
    assert len(Scene(viewer, first).channels()) == 3


def test_the_command_warns_where_the_channels_are_not_known(viewer, widget, grey, discs, tmp_path, said):
    layers_of_file(viewer, grey, str(tmp_path / "cells.tif"), "a")
    widget.begin()
    for number in (1, 2, 3):
        click(widget, centres(discs[1])[number])
    widget.find()
    idle(widget)
    widget.copy_command(tmp_path, tmp_path / "cells.npz")
    assert not [sentence for sentence in said if "results may differ" in sentence]
    assert "index: 1" in (tmp_path / "cells.channels.yaml").read_text()
    layers_of_file(viewer, grey, "others.tif", "b")
    widget.copy_command(tmp_path, tmp_path / "others.npz")
    assert any("It is not known which channels" in sentence for sentence in said)
    assert not (tmp_path / "others.channels.yaml").exists()


def test_a_layer_of_which_the_slice_is_elsewhere(viewer, grey):
    viewer.add_image(np.zeros((9, 160, 200)), visible=False)
    viewer.add_image(np.stack([grey, grey]), name="short")
    viewer.dims.set_current_step(0, 7)
    with pytest.raises(InputError, match="nothing at the slice"):
        Scene(viewer)
