import numpy as np
import pytest
import tifffile

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.registry import open_positions, open_source
from sam2_fewshot.images.source import MAX_PLANE_PIXELS


def planes(path, z=0, t=0):
    return list(open_source(path).planes(z, t))


def sizes(path):
    header = open_source(path).header
    return header.size_t, header.size_z, header.size_c


@pytest.fixture
def stack():
    """T, Z, C, Y, X = 2, 3, 4, 5, 6 with a different value at each place."""
    return np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)


@pytest.mark.parametrize("kwargs", [{"ome": True}, {"imagej": True}, {"ome": True, "compression": "zlib"}])
def test_hyperstacks_are_read_by_their_axes(tmp_path, stack, kwargs):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, metadata={"axes": "TZCYX"}, photometric="minisblack", **kwargs)
    assert sizes(path) == (2, 3, 4)
    for t in range(2):
        for z in range(3):
            np.testing.assert_array_equal(planes(path, z, t), stack[t, z])


@pytest.mark.parametrize("order", ["CZTYX", "ZCTYX", "TCZYX"])
def test_ome_axes_may_come_in_any_order(tmp_path, stack, order):
    path = tmp_path / "a.ome.tif"
    moved = stack.transpose(["TZCYX".index(axis) for axis in order])
    tifffile.imwrite(path, moved, metadata={"axes": order}, photometric="minisblack", compression="zlib")
    np.testing.assert_array_equal(planes(path, 2, 1), stack[1, 2])


def test_imagej_stacks_cut_to_one_page_are_read_whole(tmp_path, stack):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TZCYX"}, truncate=True)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1
    np.testing.assert_array_equal(planes(path, 1, 1), stack[1, 1])


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64", "int64", "uint64"]
)
def test_bit_depths(tmp_path, dtype):
    path = tmp_path / "a.tif"
    plane = np.arange(30).reshape(5, 6).astype(dtype)
    tifffile.imwrite(path, plane)
    assert open_source(path).header.dtype == plane.dtype
    np.testing.assert_array_equal(planes(path), [plane])


def test_big_endian_numbers_become_native(tmp_path):
    path = tmp_path / "a.tif"
    plane = np.arange(30, dtype=np.uint16).reshape(5, 6)
    tifffile.imwrite(path, plane, byteorder=">")
    (found,) = planes(path)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, plane)


def test_bilevel(tmp_path):
    path = tmp_path / "a.tif"
    plane = np.eye(9, dtype=bool)
    tifffile.imwrite(path, plane, photometric="minisblack")
    np.testing.assert_array_equal(planes(path), [plane])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("samples", [3, 4])
def test_rgb_is_a_photo_without_its_alpha(tmp_path, planar, samples):
    path = tmp_path / "a.tif"
    pixels = np.arange(5 * 6 * samples, dtype=np.uint8).reshape(5, 6, samples)
    written = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
    tifffile.imwrite(path, written, photometric="rgb", planarconfig=planar)
    assert open_source(path).header.is_photo
    (found,) = planes(path)
    np.testing.assert_array_equal(found, pixels[..., :3])


@pytest.mark.parametrize(("value", "said"), [(1, ""), (6, "a.tif is stored turned by 90° (its tag Orientation); it")])
def test_an_orientation_is_told_and_not_applied(tmp_path, value, said):
    path = tmp_path / "a.tif"
    pixels = np.arange(30, dtype=np.uint8).reshape(5, 6)
    tifffile.imwrite(path, pixels, extratags=[(274, "H", 1, value, True)])
    notes = open_source(path).header.warnings
    assert len(notes) == bool(said)
    assert said in "".join(notes)
    np.testing.assert_array_equal(planes(path), [pixels])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("more", [{}, {"compression": "zlib", "tile": (16, 16)}])
def test_grey_is_read_without_its_alpha(tmp_path, planar, more):
    path = tmp_path / "a.tif"
    pixels = np.arange(2 * 20 * 30 * 2, dtype=np.uint16).reshape(2, 20, 30, 2)
    written = pixels if planar == "contig" else np.moveaxis(pixels, -1, 1)
    alpha = {"extrasamples": ["unassalpha"]}
    tifffile.imwrite(path, written, photometric="minisblack", planarconfig=planar, **alpha, **more)
    assert sizes(path) == (1, 2, 1)
    np.testing.assert_array_equal(planes(path, 1), [pixels[1, ..., 0]])


def test_two_grey_samples_are_channels_where_none_is_alpha(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.arange(5 * 6 * 2, dtype=np.uint16).reshape(5, 6, 2)
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(planes(path), pixels.transpose(2, 0, 1))


def test_samples_that_are_no_colours_are_channels(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.arange(5 * 6 * 5, dtype=np.uint16).reshape(5, 6, 5)
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    assert sizes(path) == (1, 1, 5)
    np.testing.assert_array_equal(planes(path), pixels.transpose(2, 0, 1))


def test_rgb_in_several_channels_is_not_a_photo(tmp_path):
    path = tmp_path / "a.ome.tif"
    pixels = np.arange(2 * 5 * 6 * 3, dtype=np.uint8).reshape(2, 5, 6, 3)
    tifffile.imwrite(path, pixels, photometric="rgb", metadata={"axes": "CYXS"})
    assert sizes(path) == (1, 1, 6)
    np.testing.assert_array_equal(planes(path)[4], pixels[1, ..., 1])


def test_plain_pages_are_slices_with_a_warning(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for value in range(3):
            tif.write(np.full((5, 6), value, np.uint8), metadata=None)
    assert sizes(path) == (1, 3, 1)
    assert planes(path, 2)[0][0, 0] == 2
    (warning,) = open_source(path).header.warnings
    assert "does not say what its 3 pages are" in warning


def test_two_unnamed_axes_are_one(tmp_path):
    path = tmp_path / "a.tif"
    stack = np.arange(2 * 3 * 5 * 6, dtype=np.uint8).reshape(2, 3, 5, 6)
    tifffile.imwrite(path, stack, photometric="minisblack")
    assert sizes(path) == (1, 6, 1)
    np.testing.assert_array_equal(planes(path, 4), [stack[1, 1]])


def test_pages_of_other_sizes_are_positions_but_for_thumbnails_and_masks(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(np.full((5, 6), 1, np.uint8), metadata=None)
        tif.write(np.full((7, 8), 2, np.uint8), metadata=None)
        tif.write(np.full((2, 3), 3, np.uint8), metadata=None, subfiletype=1)
        tif.write(np.ones((4, 9), bool), metadata=None, subfiletype=4, photometric="mask")
    sources = open_positions(path)
    assert [(source.header.position, source.header.height) for source in sources] == [("P1", 5), ("P2", 7)]
    assert [next(iter(source.planes(0, 0)))[0, 0] for source in sources] == [1, 2]
    assert open_source(path).header.height == 5


def test_a_thumbnail_before_the_image_is_no_position(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(np.full((2, 3), 3, np.uint8), metadata=None, subfiletype=1)
        tif.write(np.full((5, 6), 1, np.uint8), metadata=None)
    (source,) = open_positions(path)
    assert (source.header.position, source.header.height) == ("", 5)
    (again,) = open_positions(path, source.header.number)
    assert next(iter(again.planes(0, 0)))[0, 0] == 1
    tifffile.imwrite(path, np.full((2, 3), 3, np.uint8), subfiletype=1)
    assert open_source(path).header.height == 2


@pytest.mark.parametrize("shape", [(1, 30), (1, 30, 3), (5, 1, 30), (1, 1), (30, 1)])
@pytest.mark.parametrize("more", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
def test_planes_of_one_pixels_height(tmp_path, shape, more):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    photometric = "rgb" if len(shape) == 3 and shape[2] == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, **more)
    source = open_source(tmp_path / "a.tif")
    header = source.header
    assert (header.height, header.width) == (shape[0], shape[1]) if shape[0] != 5 else (1, 30)
    for z in range(header.size_z):
        wanted = pixels[z] if shape[0] == 5 else pixels
        assert (next(iter(source.planes(z, 0))) == wanted).all()


def test_of_a_pyramid_the_full_resolution_is_read_without_a_warning(tmp_path):
    path = tmp_path / "a.ome.tif"
    plane = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    with tifffile.TiffWriter(path) as tif:
        tif.write(plane, subifds=1, tile=(16, 16))
        tif.write(plane[::2, ::2], subfiletype=1, tile=(16, 16))
    np.testing.assert_array_equal(planes(path), [plane])
    assert not open_source(path).header.warnings


def test_cmyk_is_converted_with_a_warning(tmp_path):
    path = tmp_path / "a.tif"
    ink = np.zeros((2, 2, 4), np.uint8)
    ink[0, 0] = 255, 0, 0, 0  # cyan
    ink[0, 1] = 0, 0, 0, 255  # black
    tifffile.imwrite(path, ink, photometric="separated")
    (found,) = planes(path)
    assert found[0].tolist() == [[0, 255, 255], [0, 0, 0]]
    assert found[1, 0].tolist() == [255, 255, 255]
    assert "CMYK" in open_source(path).header.warnings[0]


def test_cmyk_of_floats_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2, 2, 4), np.float32), photometric="separated")
    with pytest.raises(InputError, match=r"a\.tif is a CMYK image of an unusual kind"):
        open_source(path)


def test_colours_that_are_not_known_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2, 2, 3), np.uint8), photometric="cielab")
    with pytest.raises(InputError, match="CIELAB"):
        open_source(path)


def test_complex_numbers_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 4), np.complex64))
    with pytest.raises(InputError, match=r"a\.tif are complex numbers"):
        open_source(path)


def test_ome_names_and_colours_are_used(tmp_path):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "actin"], "Color": [0x0000FFFF, -16776961]}}
    tifffile.imwrite(path, np.zeros((2, 5, 6), np.uint8), metadata=metadata, photometric="minisblack")
    header = open_source(path).header
    assert header.channel_names == ("DAPI", "actin")
    assert header.channel_colors == ((0, 0, 255), (255, 0, 0))


def test_imagej_lookup_tables_give_colours(tmp_path):
    path = tmp_path / "a.tif"
    tables = [np.zeros((3, 256), np.uint8) for _ in range(2)]
    tables[0][1] = tables[1][2] = np.arange(256)
    tifffile.imwrite(path, np.zeros((2, 5, 6), np.uint8), imagej=True, metadata={"axes": "CYX", "LUTs": tables})
    assert open_source(path).header.channel_colors == ((0, 255, 0), (0, 0, 255))


def test_inverted_lookup_tables_have_their_brightest_colour(tmp_path):
    path = tmp_path / "a.tif"
    tables = [np.zeros((3, 256), np.uint8) for _ in range(2)]
    tables[0][1], tables[1][:] = np.arange(256), np.arange(255, -1, -1)
    tifffile.imwrite(path, np.zeros((2, 5, 6), np.uint8), imagej=True, metadata={"axes": "CYX", "LUTs": tables})
    assert open_source(path).header.channel_colors == ((0, 255, 0), (255, 255, 255))


def test_senseless_ome_colours_are_passed_over(tmp_path):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "CYX", "Channel": {"Color": [1234567, 7654321]}}
    tifffile.imwrite(path, np.zeros((2, 5, 6), np.uint8), metadata=metadata, photometric="minisblack")
    path.write_bytes(path.read_bytes().replace(b"1234567", b"magenta"))
    assert open_source(path).header.channel_colors == (None, None)


def test_ome_without_some_planes_says_so(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.ones((1, 5, 6), np.uint8), metadata={"axes": "ZYX"}, photometric="minisblack")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'SizeZ="1"', b'SizeZ="3"'))
    header = open_source(path).header
    assert header.size_z == 3
    assert "lacks some of the planes" in header.warnings[0]
    assert planes(path, 0)[0].all()
    assert not planes(path, 2)[0].any()


@pytest.mark.parametrize("kwargs", [{}, {"compression": "zlib"}, {"ome": True}, {"imagej": True}])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9, 0.999])
def test_cut_off_files_are_refused_when_opened(tmp_path, kwargs, keep):
    path = tmp_path / "a.tif"
    stack = np.random.default_rng(0).integers(0, 9999, (6, 40, 40), np.uint16)
    tifffile.imwrite(path, stack, photometric="minisblack", **kwargs)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    try:
        found = [planes(path, z)[0] for z in range(6)]
    except InputError as error:
        assert str(error).startswith("a.tif cannot be read as an image")  # noqa: PT017 - either outcome is right
    else:  # only descriptions were lost, no pixels
        np.testing.assert_array_equal(found, stack)
        assert keep > 0.99


def test_damage_within_the_pixels_is_one_sentence(tmp_path):
    path = tmp_path / "a.tif"
    rng = np.random.default_rng(0)
    tifffile.imwrite(path, rng.integers(0, 9999, (90, 90), np.uint16), compression="zlib")
    raw = bytearray(path.read_bytes())
    raw[2000:2400] = bytes(400)
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.tif cannot be read as an image"):
        planes(path)


def test_a_header_that_claims_a_billion_pixels_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(60_000)
        tif.pages[0].tags["ImageLength"].overwrite(60_000)
    with pytest.raises(InputError, match=r"60,000 × 60,000 px; planes of up to 500,000,000") as error:
        open_source(path)
    assert "smaller images" in str(error.value)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8), metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(20_000)
        tif.pages[0].tags["ImageLength"].overwrite(MAX_PLANE_PIXELS // 20_000)
    with pytest.raises(InputError, match="cannot be read as an image"):
        planes(path)


def test_a_size_that_the_strips_do_not_fill_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8), metadata=None, compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageLength"].overwrite(MAX_PLANE_PIXELS // 4)
    with pytest.raises(InputError, match="fewer pixels than it says"):
        open_source(path)


@pytest.mark.parametrize("level", [0, 1])
def test_a_tile_that_is_far_larger_than_its_page_is_refused_before_memory_is_taken(tmp_path, level):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for side, more in ((64, {"subifds": 1}), (32, {"subfiletype": 1})):
            tif.write(np.zeros((side, side), np.uint8), tile=(64, 64), compression="zlib", metadata=None, **more)
    with tifffile.TiffFile(path, mode="r+") as tif:
        for tag in ("TileWidth", "TileLength"):
            tif.series[0].levels[level].keyframe.tags[tag].overwrite(54_768)
    source = open_source(path)
    with pytest.raises(InputError, match=r"its tiles unpack to 2,999 MB each, which is more than its pixels"):
        list(source.reduced(0, 0, 100) if level else source.planes(0, 0))


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("pages", [1, 3, 150])
def test_pages_that_go_round_in_a_circle_are_refused(tmp_path, bigtiff, pages):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tif:
        for _ in range(pages):
            tif.write(np.zeros((4, 4), np.uint8), metadata=None)
    with tifffile.TiffFile(path) as tif:
        first, last = tif.pages[0].offset, tif.pages[-1].offset
        tags = len(tif.pages[-1].tags)
    raw = bytearray(path.read_bytes())
    at = last + (8 + 20 * tags if bigtiff else 2 + 12 * tags)
    assert not any(raw[at : at + 4])
    raw[at : at + 4] = first.to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(InputError, match="go round in a circle"):
        open_source(path)


@pytest.mark.parametrize("start", [b"II*\0", b"MM\0*", b"II+\0"])
def test_bytes_that_only_begin_like_tiff_are_refused(tmp_path, start):
    path = tmp_path / "a.tif"
    path.write_bytes(start + bytes(range(64)) * 4)
    with pytest.raises(InputError, match=r"a\.tif cannot be read as an image"):
        open_source(path)


def test_tifffile_says_nothing_of_its_own(tmp_path, caplog):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + b"\xff" * 200)
    with pytest.raises(InputError):
        open_source(path)
    assert not caplog.records


@pytest.mark.parametrize("more", [{}, {"compression": "zlib"}])
def test_ycbcr_without_jpeg_is_refused(tmp_path, more):
    path = tmp_path / "a.tif"
    extra = [(530, "H", 2, (1, 1), True)]
    tifffile.imwrite(path, np.full((8, 8, 3), 128, np.uint8), photometric="ycbcr", extratags=extra, **more)
    with pytest.raises(InputError, match=r"a\.tif has colours of the kind YCBCR.*; save it as RGB"):
        open_source(path)


def test_ycbcr_in_jpeg_is_a_photo(tmp_path):
    path = tmp_path / "a.tif"
    grey = np.full((16, 16, 3), 41, np.uint8)
    tifffile.imwrite(path, grey, photometric="rgb", compression="jpeg", subsampling=(1, 1))
    assert open_source(path).header.is_photo
    assert abs(planes(path)[0].astype(int) - 41).max() <= 2
