import threading

import numpy as np
import pytest
import tifffile
from PIL import Image

from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.images.display import read_channels
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import FrameReader, Location
from sam2_fewshot.settings import Settings


def test_files_are_xy_positions_in_the_order_given(write, open_with, ramp):
    images = open_with(write("b.png", ramp), write("a.png", ramp[:10]))
    assert [image.stem for image in images] == ["b", "a"]
    assert [image.xy for image in images[:2]] == [0, 1]
    assert images[1].shape == (10, 30)
    assert images[1].frame().location == Location(1, 0, 0)
    assert images[1].frame().name == "a.png"
    assert images[1].header.dtype == np.uint8


def test_frames_fit_the_protocol_and_are_the_same_each_time(image):
    frame = image.frame(Location())
    assert isinstance(frame, FrameReader)
    assert frame is image.frame(Location())
    assert frame.shape == (20, 30)


def test_a_region_is_cut_from_the_whole_frames_contrast(image):
    frame = image[0].frame()
    whole = frame.read()
    assert whole.shape == (20, 30, 3)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(frame.read((3, 5, 11, 9)), whole[5:9, 3:11])


def test_what_a_caller_does_to_pixels_is_not_seen_by_the_next(image):
    frame = image[0].frame()
    first = frame.read()
    first[:] = 0
    assert frame.read().any()


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 31, 5), (0, 0, 5, 21), (5, 0, 4, 5)])
def test_a_region_outside_the_frame_is_a_mistake_of_the_caller(image, region):
    with pytest.raises(ValueError, match="not inside the frame"):
        image[0].frame().read(region)


def test_dim_8_bit_pictures_are_stretched(write, open_with, ramp):
    images = open_with(write("a.png", ramp // 10), black_percentile=0.0, white_percentile=100.0)
    assert images[0].frame().read().max() == 255


def test_percentiles_come_from_the_settings(write, open_with):
    plane = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (4, 1))
    images = open_with(write("a.png", plane), black_percentile=10, white_percentile=90)
    row = images[0].frame().read()[0, :, 0]
    assert (row == 0).sum() == 11  # the tenth part, and one that is rounded to it
    assert (row == 255).sum() == 11


def test_stacks_have_frames_by_slice_and_time(tmp_path, open_with):
    stack = np.arange(2 * 3 * 5 * 6, dtype=np.uint8).reshape(2, 3, 5, 6)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "TZYX"}, photometric="minisblack")
    images = open_with(tmp_path / "a.ome.tif")
    assert (images[0].size_z, images[0].size_t, images[0].header.size_c, images[0].stem) == (3, 2, 1, "a")
    assert images.has(Location(0, 2, 1))
    assert not images.has(Location(0, 3, 1))
    assert not images.has(Location(1, 0, 0))
    assert images.frame(Location(0, 2, 1)).read().shape == (5, 6, 3)
    with pytest.raises(IndexError, match="no slice 3 at time 0"):
        images[0].frame(3, 0)


def test_two_channels_are_green_and_magenta(tmp_path, open_with):
    planes = np.zeros((2, 5, 6), np.uint16)
    planes[0, 0, 0] = planes[1, 1, 1] = 500
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata={"axes": "CYX"}, photometric="minisblack")
    picture = open_with(tmp_path / "a.ome.tif")[0].frame().read()
    assert picture[0, 0].tolist() == [0, 255, 0]
    assert picture[1, 1].tolist() == [255, 0, 255]


def test_five_channels_all_show(tmp_path, open_with):
    planes = np.zeros((5, 5, 5), np.uint16)
    planes[range(5), range(5), range(5)] = 500
    tifffile.imwrite(tmp_path / "a.tif", planes, imagej=True, metadata={"axes": "CYX"})
    picture = open_with(tmp_path / "a.tif")[0].frame().read()
    shown = {tuple(picture[i, i].tolist()) for i in range(5)}
    assert len(shown) == 5
    assert (0, 0, 0) not in shown


def test_the_files_own_colours_are_used(tmp_path, open_with):
    planes = np.zeros((2, 5, 6), np.uint8)
    planes[0, 0, 0] = planes[1, 1, 1] = 50
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "actin"], "Color": [0x0000FFFF, -16776961]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata=metadata, photometric="minisblack")
    picture = open_with(tmp_path / "a.ome.tif")[0].frame().read()
    assert picture[0, 0].tolist() == [0, 0, 255]
    assert picture[1, 1].tolist() == [255, 0, 0]


def test_an_inverted_tiff_is_turned_upright(tmp_path, open_with):
    plane = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (4, 1))
    tifffile.imwrite(tmp_path / "a.tif", plane, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "f.tif", plane.astype(np.float32), photometric="miniswhite")
    for image in open_with(tmp_path / "a.tif", tmp_path / "f.tif"):
        row = image.frame().read()[0, :, 0]
        assert row[0] == 255
        assert row[-1] == 0


def test_a_lookup_table_over_intensities_is_grey_and_a_palette_of_colours_is_a_photo(tmp_path, open_with):
    table = np.zeros((3, 256), np.uint16)
    table[1] = np.arange(256) * 257
    plane = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (4, 1))
    tifffile.imwrite(tmp_path / "green.tif", plane, photometric="palette", colormap=table)
    table[0] = table[1][::-1]
    tifffile.imwrite(tmp_path / "photo.tif", plane, photometric="palette", colormap=table)
    grey, photo = open_with(tmp_path / "green.tif", tmp_path / "photo.tif")
    assert grey.frame().read()[0, -1].tolist() == [255, 255, 255]
    assert photo.frame().read()[0, 1].tolist() == [245, 10, 0]


def test_a_lookup_table_of_several_channels_hides_none_of_them(tmp_path, open_with):
    table = np.zeros((3, 256), np.uint16)
    table[0] = np.arange(256)[::-1] * 257
    planes = np.zeros((2, 4, 5), np.uint8)
    planes[0, 0], planes[1, 1] = 200, 200
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, photometric="palette", colormap=table, metadata={"axes": "CYX"})
    (image,) = open_with(tmp_path / "a.ome.tif")
    picture = image.frame().read()
    assert [picture[row, 0].tolist() for row in range(3)] == [[0, 255, 0], [255, 0, 255], [0, 0, 0]]


def test_a_channel_file_changes_the_look(tmp_path, write, told):
    yaml = tmp_path / "channels.yaml"
    yaml.write_text("- {index: 2, visible: false}\n- {index: 1, color: red, mode: absolute, black: 0, white: 200}\n")
    planes = np.full((2, 5, 6), 100, np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata={"axes": "CYX"}, photometric="minisblack")
    images = open_images([tmp_path / "a.ome.tif"], Settings(), read_channels(yaml), told)
    assert images[0].frame().read()[0, 0].tolist() == [128, 0, 0]


def test_a_channel_file_splits_a_photo(tmp_path, write, told, ramp):
    yaml = tmp_path / "channels.yaml"
    yaml.write_text("- {name: green, color: white}\n- {name: red, visible: false}\n- {name: blue, visible: false}\n")
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., 1] = ramp
    images = open_images([write("a.png", pixels)], Settings(), read_channels(yaml), told)
    assert (np.ptp(images[0].frame().read().astype(int), axis=2) == 0).all()


def test_a_channel_that_is_not_there_is_refused(tmp_path, write, told, ramp):
    yaml = tmp_path / "channels.yaml"
    yaml.write_text("- {index: 2, color: red}\n")
    with pytest.raises(SettingsError, match=r"a\.png has no channel 2; it has 1"):
        open_images([write("a.png", ramp)], Settings(), read_channels(yaml), told)


def test_a_folder_stands_for_its_images_in_natural_order(tmp_path, write, open_with, told, ramp):
    for name in ("img10.png", "img2.png", "img2_labels.png", "b_labels.png", ".hidden.png"):
        write(f"in/{name}", ramp)
    write("in/notes.txt", b"x")
    (tmp_path / "in" / "sub").mkdir()
    images = open_with(tmp_path / "in")
    assert [image.stem for image in images] == ["b_labels", "img2", "img10"]
    assert len(told.warnings) == 2
    assert "not an image" in told.warnings[0]
    assert "notes.txt" in told.warnings[0]
    assert "img2_labels.png" in told.warnings[1]


def test_a_folder_without_images_is_refused(tmp_path, write, open_with):
    write("in/notes.txt", b"x")
    with pytest.raises(InputError, match="There is no image in the folder"):
        open_with(tmp_path / "in")


def test_folders_in_a_folder_are_not_searched_which_is_told(tmp_path, write, open_with, told, ramp):
    for name in ("in/a.png", "in/day2/b.png", "in/masks/a.png", "in/labels/a_labels.png"):
        write(name, ramp)
    write("in/notes/notes.txt", b"x")
    assert [image.name for image in open_with(tmp_path / "in")] == ["a.png"]
    assert "in has folders with images in it, which were passed over." in told.only
    assert told.only.endswith(f"give them by their names: {tmp_path / 'in' / 'day2'}.")


def test_a_folder_in_a_folder_that_is_given_as_well_is_not_told(tmp_path, write, open_with, told, ramp):
    write("in/a.png", ramp)
    write("in/day2/b.png", ramp)
    assert [image.name for image in open_with(tmp_path / "in", tmp_path / "in" / "day2")] == ["a.png", "b.png"]
    assert not told.warnings


def test_a_folder_with_images_in_its_folders_only_is_refused_with_their_names(tmp_path, write, open_with, ramp):
    write("in/day 1/a.png", ramp)
    write("in/day 2/a.png", ramp)
    with pytest.raises(InputError, match=r"in itself\. The folders in a folder .* by their names: .*day 1, .*day 2\.$"):
        open_with(tmp_path / "in")


def test_nothing_is_refused(open_with):
    with pytest.raises(InputError, match="No image was given"):
        open_with()


def test_the_same_file_twice_is_taken_once(tmp_path, write, open_with, told, ramp):
    path = write("a.png", ramp)
    images = open_with(path, tmp_path / "." / "a.png", tmp_path)
    assert len(images) == 1
    assert all("given twice" in warning for warning in told.warnings)


def test_the_first_bad_file_stops_before_any_pixel_is_read(write, open_with, ramp):
    with pytest.raises(InputError, match=r"bad\.png"):
        open_with(write("a.png", ramp), write("bad.png", b"\x89PNG"))


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 1), np.uint8), np.zeros((9, 9), np.uint8), np.full((9, 9), 7, np.uint16)]
)
def test_tiny_and_black_images_are_read_as_black(write, open_with, pixels):
    picture = open_with(write("a.png", pixels))[0].frame().read()
    assert picture.shape == (*pixels.shape, 3)
    assert not picture.any()


def test_an_image_of_nan_is_refused_when_read_with_its_frame(tmp_path, open_with):
    stack = np.zeros((2, 5, 6), np.float32)
    stack[1] = np.nan
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "ZYX"}, photometric="minisblack")
    images = open_with(tmp_path / "a.ome.tif")
    assert not images[0].frame(0).read().any()
    with pytest.raises(InputError, match=r"a\.ome\.tif \(Z 2, time 1\) has no finite value"):
        images[0].frame(1).read()
    assert not images[0].frame(0).read().any()


def test_warnings_of_formats_are_passed_on(tmp_path, open_with, told):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 5, 6), np.uint8), photometric="minisblack")
    open_with(tmp_path / "a.tif")
    assert "3 pages" in told.only


def test_without_a_progress_warnings_are_pythons(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 5, 6), np.uint8), photometric="minisblack")
    with pytest.warns(UserWarning, match="3 pages"):
        open_images([tmp_path / "a.tif"], Settings())


def test_memory_that_does_not_suffice_is_one_sentence(tmp_path, open_with, ramp, write):
    image = open_with(write("a.png", ramp))[0]

    class Hungry:
        header = image.header

        def planes(self, z, t):
            raise MemoryError

    image.source = Hungry()
    with pytest.raises(InputError, match=r"a\.png does not fit into the memory"):
        image.frame().read()


@pytest.mark.parametrize(
    "kind", ["a.ome.tif", "j.tif", "z.tif", "t.tif", "p.png", "c.png", "c.jpg", "c.gif", "c.bmp", "c.webp"]
)
def test_any_damage_gives_a_picture_or_a_sentence(tmp_path, open_with, kind):
    rng = np.random.default_rng(7)
    stack = rng.integers(0, 999, (2, 3, 16, 20), np.uint16)
    path = tmp_path / kind
    if kind.endswith("tif"):
        how = {"a": {"ome": True}, "j": {"imagej": True}, "z": {"compression": "zlib"}, "t": {"tile": (16, 16)}}[
            kind[0]
        ]
        tifffile.imwrite(path, stack, metadata={"axes": "ZCYX"}, photometric="minisblack", **how)
    else:
        Image.fromarray(stack[0, 0] if kind[0] == "p" else (stack[0] % 256).astype(np.uint8).transpose(1, 2, 0)).save(
            path
        )
    whole = path.read_bytes()
    for _ in range(40):
        raw = bytearray(whole)
        for at in rng.integers(0, min(len(raw), rng.choice([300, len(raw)])), 3):
            raw[at] = rng.integers(256)
        path.write_bytes(raw)
        try:
            pixels = open_with(path)[0].frame().read()
        except InputError as error:
            assert kind in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert pixels.dtype == np.uint8


def test_several_threads_read_their_own_frames(write, open_with, ramp):
    images = open_with(*(write(f"{i}.png", np.roll(ramp, i, axis=1)) for i in range(4)))
    expected = [image.frame().read() for image in images]
    wrong = []

    def work(i):
        for _ in range(20):
            if not np.array_equal(images[i].frame().read(), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class Shown(Quiet):
    """Notes stages with their steps."""

    def __init__(self):
        self.stages = []

    def start(self, stage, total=None):
        self.stages.append([stage, total, 0])

    def advance(self, steps=1):
        self.stages[-1][2] += steps


def test_the_opening_of_many_files_is_shown(write, ramp):
    paths, shown = [write(f"{i}.png", ramp) for i in range(30)], Shown()
    open_images(paths[:3], Settings(), progress=shown)
    assert shown.stages == []
    assert len(open_images(paths, Settings(), progress=shown)) == 30
    assert shown.stages == [["opening images", 30, 30]]


def test_a_single_path_is_one_image(write, ramp):
    path = write("a.png", ramp)
    for given in (path, str(path)):
        assert [image.name for image in open_images(given, Settings())] == ["a.png"]
