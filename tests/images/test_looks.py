"""Layers as a viewer displays them, and the file of channels that says the same."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from sam2_fewshot.images.display import channels_of, parse_channels, read_channels
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.records import Location
from sam2_fewshot.rendering.viewer import BlendedPlane, Look, blend
from sam2_fewshot.settings import Settings

RAMP = np.linspace(0, 1, 256)[:, None] * np.ones(4)
RAMP[:, 3] = 1
GREEN, RED = RAMP * (0, 1, 0, 1), RAMP * (1, 0, 0, 1)
PLANE = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_limits_gamma_and_colours():
    pixels = blend([PLANE], [Look((50, 150), GREEN, gamma=2.0)])
    expected = np.clip((PLANE - 50.0) / 100, 0, 1) ** 2 * 255
    assert np.abs(pixels[..., 1] - expected).max() <= 1
    assert not pixels[..., [0, 2]].any()


@pytest.mark.parametrize(
    ("blending", "expected"),
    [
        ("translucent", 0.5 * 100 + 0.5 * 200),
        ("additive", 100 + 0.5 * 200),
        ("opaque", 200),
        ("minimum", 100),
        ("multiplicative", 100 * 200 / 255),
    ],
)
def test_blending(blending, expected):
    below, above = np.full((2, 2), 100, np.uint8), np.full((2, 2), 200, np.uint8)
    looks = [Look((0, 255), RAMP), Look((0, 255), RAMP, blending=blending, opacity=0.5)]
    assert np.abs(blend([below, above], looks).astype(float) - expected).max() <= 1.5


def test_the_sum_of_channels_does_not_exceed_white():
    looks = [Look((0, 255), RAMP), Look((0, 255), RAMP, blending="additive")]
    assert blend([np.full((2, 2), 200, np.uint8)] * 2, looks).max() == 255


@pytest.mark.parametrize(("dtype", "limits"), [(np.uint8, (0, 255)), (np.uint16, (0, 65535)), (np.float32, (0, 1))])
def test_rgb_of_any_type(dtype, limits):
    pixels = np.stack([PLANE, PLANE.T, PLANE[::-1]], axis=-1)
    scaled = (pixels / 255 * limits[1]).astype(dtype)
    assert np.abs(blend([scaled], [Look(limits)]).astype(int) - pixels).max() <= 1


def test_rgb_with_an_alpha_channel():
    pixels = np.full((2, 2, 4), 255, np.uint8)
    pixels[..., 3] = 51
    assert (blend([pixels], [Look((0, 255))]) == 51).all()


def test_nan_is_black_and_no_layers_are_refused():
    assert not blend([np.full((2, 2), np.nan)], [Look((0, 1), RAMP)]).any()
    with pytest.raises(ValueError, match="at least one"):
        blend([], [])


def test_a_region_of_a_plane():
    stack = np.stack([PLANE, PLANE[::-1]])
    plane = BlendedPlane([stack], [Look((0, 255), RAMP)], (1, slice(None), slice(None)), (16, 16), "a", Location(), "x")
    np.testing.assert_array_equal(plane.read((2, 3, 10, 9))[..., 0], PLANE[::-1][3:9, 2:10])
    assert plane.read().shape == (16, 16, 3)


def test_channels_are_written_as_they_are_read(tmp_path):
    text, is_all = channels_of([Look((5, 500), GREEN), None, Look((1.5, 2), RED, blending="additive")])
    assert is_all
    path = tmp_path / "channels.yaml"
    path.write_text(text)
    first, hidden, second = read_channels(path)
    assert (first.index, first.color, first.mode, first.black, first.white) == (1, "#00FF00", "absolute", 5, 500)
    assert (hidden.index, hidden.visible) == (2, False)
    assert (second.index, second.color, second.visible) == (3, "#FF0000", True)


@pytest.mark.parametrize(
    "looks",
    [
        [Look((0, 1), GREEN, gamma=0.5)],
        [Look((0, 1), GREEN[::-1])],
        [Look((0, 1), GREEN, opacity=0.5)],
        [Look((0, 1), GREEN), Look((0, 1), RED)],
        [Look((0, 1), GREEN), Look((0, 1), RED, blending="opaque")],
        [Look((0, 1), GREEN), None, Look((0, 1), RAMP, blending="additive")],
        [Look((0, 255)), Look((0, 1), GREEN, blending="additive")],
    ],
    ids=["gamma", "colours", "opacity", "covered", "opaque", "mixed", "over RGB"],
)
def test_what_the_file_cannot_say_is_told(looks):
    assert not channels_of(looks)[1]


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65_535), (np.float32, 1)])
@pytest.mark.parametrize("hidden", [[], [None]])
def test_rgb_is_displayed_in_a_folder_as_in_the_viewer(tmp_path, dtype, full, hidden):
    colors = (np.random.default_rng(0).uniform(0.2, 0.6, (20, 30, 3)) * full).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", colors, photometric="rgb")
    look = Look((0.0, float(full)))
    text, is_all = channels_of([*hidden, look])
    assert is_all
    (image,) = open_images([tmp_path / "a.tif"], Settings(), parse_channels(text, "channels.yaml"))
    np.testing.assert_allclose(image.frame().read(), blend([colors], [look]), atol=1)


def test_a_gamma_of_rgb_is_told():
    assert not channels_of([Look((0, 255), gamma=0.5)])[1]
    assert channels_of([Look((0, 255)), Look((0, 1), GREEN, blending="additive")])[0].startswith("- {index: 2, ")


def test_a_stamp_stands_for_the_pixels_of_a_region() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)

    def stamp(white: float = 255) -> bytes:
        plane = BlendedPlane([pixels], [Look((0, white), RAMP)], (slice(None), slice(None)), (16, 16), "a", Location())
        return plane.stamp((2, 3, 9, 9))

    first = stamp()
    assert stamp(200) != first
    pixels[12, 12] = 0  # elsewhere
    assert stamp() == first
    pixels[4, 4] = 0
    assert stamp() != first
