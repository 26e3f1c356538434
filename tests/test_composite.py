import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from sam2_fewshot.errors import InputError
from sam2_fewshot.rendering.channels import merge, paint, photo
from sam2_fewshot.rendering.contrast import SAMPLES, WHITE, ChannelStyle, Exposure, bounded, contrast, exposure

ABSOLUTE = ChannelStyle(mode="absolute", black=0, white=100)


def test_one_channel_is_grey_between_its_points():
    plane = np.array([[0, 50, 100, 200]], np.uint16)
    assert merge([plane], [ABSOLUTE])[0].tolist() == [[0, 0, 0], [128, 128, 128], [255, 255, 255], [255, 255, 255]]


def test_channels_are_merged_by_the_maximum_of_each_component():
    red = ChannelStyle((255, 0, 0), "absolute", 0, 100)
    yellow = ChannelStyle((255, 255, 0), "absolute", 0, 100)
    first, second = np.array([[100, 20]], np.uint8), np.array([[40, 100]], np.uint8)
    assert merge([first, second], [red, yellow])[0].tolist() == [[255, 102, 0], [255, 255, 0]]


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "uint32", "int16", "int64", "uint64", "float16", "float32", "float64"]
)
def test_every_kind_of_number_gives_the_same_picture(dtype):
    plane = np.arange(0, 120, 3).reshape(4, 10).astype(dtype)
    tint = ChannelStyle((255, 128, 0), "absolute", 10, 90)
    expected = merge([plane.astype(np.uint8)], [tint])
    np.testing.assert_array_equal(merge([plane], [tint]), expected)


def test_negative_intensities_do_not_wrap_round():
    plane = np.array([[-500, 0, 50]], np.int16)
    assert merge([plane], [ABSOLUTE])[0, :, 0].tolist() == [0, 0, 128]


def test_pixels_below_an_absolute_black_point_do_not_wrap_round():
    style = ChannelStyle(mode="absolute", black=100, white=200)
    assert merge([np.array([[99, 100, 200]], np.uint8)], [style])[0, :, 0].tolist() == [0, 0, 255]


def test_percentiles_set_the_contrast():
    plane = np.arange(1001, dtype=np.float32).reshape(1, -1)
    assert contrast(plane, ChannelStyle(black=10, white=90)) == pytest.approx((100, 900))


def test_range_is_a_share_of_lowest_to_highest_as_in_nimbusimage():
    plane = np.array([[100, 100, 100, 300]], np.uint16)
    assert contrast(plane, ChannelStyle(mode="range", black=10, white=50)) == pytest.approx((120, 200))


def test_big_planes_are_sampled_evenly():
    plane = np.tile(np.arange(2000, dtype=np.uint16), (2 * SAMPLES // 2000 + 1, 1))
    low, high = contrast(plane, ChannelStyle(black=10, white=90))
    assert (low, high) == pytest.approx((200, 1800), abs=3)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_constant_plane_is_black(value, dtype):
    assert not merge([np.full((5, 5), value, dtype)], [ChannelStyle()]).any()


def test_few_bright_spots_on_an_even_background_are_seen():
    plane = np.zeros((100, 100), np.uint16)
    plane[50, 50] = 900  # 0.01 % of the pixels: the 99.9th percentile is 0
    picture = merge([plane], [ChannelStyle()])
    assert picture[50, 50].tolist() == [255, 255, 255]
    assert np.count_nonzero(picture) == 3


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_few_dark_objects_on_an_even_background_are_seen(dtype):
    plane = np.full((100, 100), 255, dtype)
    plane[50, 50] = 60  # 0.01 % of the pixels: the 0.1st percentile is 255
    picture = merge([plane], [ChannelStyle()])
    assert picture[50, 50].tolist() == [0, 0, 0]
    assert picture.min(axis=2).sum() == 255 * (plane.size - 1)


def test_few_dark_and_few_bright_objects_are_seen_together():
    plane = np.full((100, 100), 100, np.uint16)
    plane[20, 20], plane[50, 50] = 50, 200
    picture = merge([plane], [ChannelStyle()])[..., 0]
    assert picture[20, 20] < picture[0, 0] < picture[50, 50]


@pytest.mark.parametrize(("dead", "object_", "limits"), [(0, 110, (100, 110)), (200, 90, (90, 100))])
def test_a_dead_pixel_does_not_hide_few_objects(dead, object_, limits):
    plane = np.full((200, 200), 100, np.uint16)
    plane[50:55, 50:55], plane[3, 3] = object_, dead
    assert contrast(plane, ChannelStyle()) == limits


def test_few_dark_objects_on_an_even_photo_are_seen():
    pixels = np.full((100, 100, 3), 65_535, np.uint16)
    pixels[50, 50] = 20_000, 30_000, 40_000
    picture = photo(pixels)
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[50, 50, 0] == 0 < picture[50, 50, 1] < picture[50, 50, 2] < 255


@pytest.mark.parametrize("ground", [(200, 150, 180), (5, 5, 20)], ids=["light", "dark"])
@pytest.mark.parametrize("change", [(0, -5, 0), (0, 60, 0), (40, 40, 40)])
def test_few_objects_on_an_even_colour_that_is_not_grey_are_seen(ground, change):
    pixels = np.full((100, 100, 3), ground, np.uint8)
    pixels[40:43, 50:53] = np.add(ground, change)  # 0.09 % of the pixels
    picture = photo(pixels)
    low, high = pixels.min(), pixels.max()
    np.testing.assert_allclose(picture, (pixels - float(low)) / (high - low) * 255, atol=0.51)


def test_an_even_component_asks_for_no_extremes():
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[..., 0] = np.arange(100) * 2  # red alone, as of a fluorescent dye
    assert contrast(picture, ChannelStyle(), ends=lambda: pytest.fail("reads the frame again")) == (0, 198)


def camera(side: int = 200) -> np.ndarray:
    """A frame of a camera with an offset: noise about 300, and objects of 300 to 900."""
    rng = np.random.default_rng(0)
    plane = rng.normal(300, 10, (side, side))
    for row, column in rng.integers(10, side - 10, (20, 2)):
        plane[row - 5 : row + 5, column - 5 : column + 5] += rng.uniform(100, 600)
    return plane.astype(np.uint16)


def padded_frames(plane: np.ndarray, value: int) -> list[np.ndarray]:
    """A frame shifted, turned with interpolated borders, and one of two overlapping fields that were stitched."""
    shifted = np.pad(plane, ((12, 0), (0, 3)), constant_values=value)
    turned = ndimage.rotate(plane.astype(float), 20, order=1, cval=value).astype(plane.dtype)
    stitched = np.full((300, 300), value, plane.dtype)
    stitched[:200, :200] = plane
    stitched[100:, 100:] = plane
    return [shifted, turned, stitched]


@pytest.mark.parametrize("value", [0, 65535])
@pytest.mark.parametrize("kind", range(3))
def test_what_a_frame_is_padded_with_decides_no_contrast(value, kind):
    plane = camera()
    low, high = contrast(plane, ChannelStyle())
    frame = padded_frames(plane, value)[kind]
    # Turning smooths the noise.
    assert contrast(frame, ChannelStyle()) == pytest.approx((low, high), abs=0.03 * (high - low))
    photo = np.stack([frame, frame, frame // 2 if value == 0 else frame], axis=2)
    darkest = low / 2 if value == 0 else low
    assert contrast(photo, ChannelStyle()) == pytest.approx((darkest, high), abs=0.05 * (high - low))


def test_even_ground_and_saturated_objects_are_no_padding():
    rng = np.random.default_rng(0)
    objects = np.zeros((200, 200), np.uint16)
    for row, column in ((0, 0), (50, 120), (150, 40)):  # one at the border
        objects[row : row + 30, column : column + 30] = rng.integers(500, 1000, (30, 30))
    assert contrast(objects, ChannelStyle())[0] == 0
    saturated = camera()
    for row, column in ((0, 0), (50, 120), (150, 40)):
        saturated[row : row + 30, column : column + 30] = 4095
    assert contrast(saturated, ChannelStyle())[1] == 4095
    alone = np.zeros((200, 200), np.uint16)  # one object on even ground
    alone[70:130, 60:150] = rng.integers(500, 1000, (60, 90))
    assert contrast(alone, ChannelStyle())[0] == 0
    # All of the ground is clipped at 0, and what is left of it is one piece.
    clipped = (camera().astype(int) - 310).clip(0).astype(np.uint16)
    assert contrast(clipped, ChannelStyle())[0] == 0
    mask = np.zeros((200, 200), np.uint8)
    mask[:100] = 255
    assert contrast(mask, ChannelStyle()) == (0, 255)


def test_the_exposure_of_a_plane_and_of_a_photo():
    plane = np.arange(10_001, dtype=np.uint16).reshape(73, 137)
    found = exposure(plane, ChannelStyle(black=0, white=100))
    assert found == pytest.approx((0, 10_000, 100, 9_900, 5_000, 5_000))
    photo = np.stack([plane, plane + 100, plane + 50], axis=2)
    assert exposure(photo, ChannelStyle(black=0, white=100)) == pytest.approx((0, 10_100, 100, 10_000, 5_000, 5_100))
    assert exposure(plane, ChannelStyle(mode="absolute", black=3, white=70))[:2] == (3, 70)
    assert np.isnan(exposure(plane, ChannelStyle(mode="range", black=0, white=100))[2:]).all()
    assert exposure(np.full((3, 3), np.nan), ChannelStyle()) is None


EXAMPLE = Exposure(100, 1100, 110, 900, 200, 200)


@pytest.mark.parametrize(
    ("frame", "limits"),
    [
        (EXAMPLE, (100, 1100)),
        (Exposure(90, 9000, 110, 800, 210, 210), (100, 1100)),  # specks of dirt, and dark ones
        (Exposure(90, 9000, 95, 2000, 210, 210), (95, 2000)),  # much of it is brighter and darker
        (Exposure(120, 700, 130, 600, 210, 210), (120, 700)),  # dim objects are brightened as ever
        (Exposure(90, 9000, 110, 800, 320, 320), (90, 9000)),  # another exposure
        (Exposure(90, 9000, 110, 800, 210, 320), (90, 9000)),  # another colour
        (Exposure(90, 9000), (90, 9000)),  # by no percentiles
        (
            Exposure(0, 100, 100, 100, 100, 100),
            (0, 100),
        ),  # few dark objects on even ground
    ],
)
def test_few_odd_pixels_do_not_decide_the_contrast_beside_the_examples_frames(frame, limits):
    assert bounded((frame,), [(EXAMPLE,)]) == (limits,)
    assert bounded((frame, None, EXAMPLE), [(EXAMPLE, EXAMPLE, None)]) == (limits, None, (100, 1100))
    assert bounded((frame,), [(EXAMPLE, EXAMPLE), (None,)]) == (frame[:2],)  # nothing to compare it with


def test_the_brightest_of_several_examples_frames_is_the_bound():
    other = Exposure(50, 3000, 110, 900, 200, 200)
    assert bounded((Exposure(10, 9000, 60, 800, 200, 200),), [(EXAMPLE,), (other,)]) == ((50, 3000),)
    assert bounded((EXAMPLE,), [(EXAMPLE,), (other,)]) == ((100, 1100),)  # an example's frame stays as it is


def test_nan_is_black_and_infinity_does_not_spoil_the_percentiles():
    plane = np.linspace(0, 100, 101, dtype=np.float32).reshape(1, -1).copy()
    plane[0, :3] = np.nan, np.inf, -np.inf
    picture = merge([plane], [ChannelStyle(black=0, white=100)])[0, :, 0]
    assert picture[:3].tolist() == [0, 255, 0]
    assert picture[100] == 255
    assert 120 < picture[51] < 130


def test_nan_at_every_sampled_pixel_is_looked_beyond():
    side = 1500  # more than SAMPLES pixels, so every second one is sampled
    plane = np.full((side, side), np.nan, np.float32)
    plane[1::2, 1::2] = 5
    plane[1, 1] = 1
    assert contrast(plane, ChannelStyle(black=0, white=100)) == (1, 5)


def test_a_plane_without_a_finite_value_is_refused_by_name():
    with pytest.raises(InputError, match=r"a\.tif has no finite value"):
        merge([np.full((3, 3), np.nan)], [ChannelStyle()], "a.tif")
    with pytest.raises(InputError, match="no finite value"):
        merge([np.full((3, 3), np.inf)], [ChannelStyle(mode="range")])
    with pytest.raises(InputError, match=r"no finite value.* Leave it out, or export it again\."):
        photo(np.full((3, 3, 3), np.nan, np.float32))


def test_one_channel_of_nan_does_not_lose_the_others():
    planes = [np.full((3, 3), np.nan), np.arange(9.0).reshape(3, 3)]
    assert merge(planes, [ChannelStyle(), ChannelStyle()]).max() == 255


def test_invisible_channels_are_left_out():
    plane = np.arange(9, dtype=np.uint8).reshape(3, 3)
    assert not merge([plane], [ChannelStyle(visible=False)]).any()


def test_no_plane_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="at least one"):
        merge([], [])


def test_planes_of_a_large_image_are_painted_in_strips():
    plane = np.random.default_rng(0).random((50, 40))
    painted = np.zeros((50, 40, 3), np.uint8)
    paint(painted, plane, contrast(plane, ChannelStyle()), WHITE, at_a_time=100)
    np.testing.assert_array_equal(painted, merge([plane], [ChannelStyle()]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_grey_photo_is_displayed_as_a_plane_is(dtype):
    plane = np.random.default_rng(0).gamma(2, 9, (60, 50)).astype(dtype)
    np.testing.assert_array_equal(photo(np.dstack([plane] * 3)), merge([plane], [ChannelStyle()]))


def test_a_displayed_picture_is_displayed_as_it_is():
    rng = np.random.default_rng(0)
    planes = [rng.gamma(2, 900, (60, 50)).astype(np.uint16) for _ in range(2)]
    picture = merge(planes, [ChannelStyle(color=(255, 0, 0)), ChannelStyle(color=(0, 0, 255))])
    np.testing.assert_array_equal(photo(picture), picture)
    colours = photo(rng.integers(30, 90, (60, 50, 3)).astype(np.uint8))
    np.testing.assert_array_equal(photo(colours), colours)


def test_a_dim_photo_is_displayed_as_a_bright_one():
    bright = np.random.default_rng(0).integers(20, 120, (60, 50, 3)).astype(np.uint8) * np.uint8(2)
    np.testing.assert_array_equal(photo(bright // 2), photo(bright))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_photos_keep_their_hues(dtype):
    pixels = np.zeros((4, 4, 3), dtype)
    pixels[..., 0], pixels[..., 1] = 200, 100
    picture = photo(pixels, 0, 100)
    assert picture[0, 0].tolist() == [255, 128, 0]


@pytest.mark.parametrize("side", [1100, 1500, 1800, 2100])
def test_the_contrast_of_a_large_photo_is_that_of_all_components(side):
    pixels = np.zeros((side, side, 3), np.uint16)
    pixels[..., 0] = 100
    pixels[..., 1] = np.linspace(1000, 40_000, side)
    assert contrast(pixels, ChannelStyle(black=10, white=99.9)) == pytest.approx((0, 40_000), rel=0.01)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32, np.int64, np.uint64, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    ),
    st.sampled_from(["percentile", "range"]),
)
def test_any_plane_becomes_a_picture_or_a_sentence(plane, mode):
    try:
        picture = merge([plane], [ChannelStyle(mode=mode)])
    except InputError:
        assert not np.isfinite(plane).any()
        return
    assert picture.shape == (*plane.shape, 3)
    assert picture.dtype == np.uint8
