"""Large CZI, ND2 and LIF files are read by region, and a region is what it is in the whole."""

from __future__ import annotations

import tracemalloc

import imagecodecs
import numpy as np
import pytest
from microscope_files import write_czi, write_lif, write_nd2

from sam2_fewshot.errors import InputError
from sam2_fewshot.images import czi
from sam2_fewshot.images.display import frame_exposures
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.registry import open_source
from sam2_fewshot.images.source import RegionSource
from sam2_fewshot.rendering.contrast import bounded
from sam2_fewshot.settings import Settings

RNG = np.random.default_rng(8)
DEEP = RNG.integers(0, 60_000, (2, 2, 2, 90, 120)).astype(np.uint16)
GREY = RNG.integers(0, 255, (2, 2, 2, 90, 120)).astype(np.uint8)
PHOTO = RNG.integers(0, 255, (1, 1, 1, 90, 120, 3)).astype(np.uint8)
DEEP_PHOTO = RNG.integers(0, 60_000, (1, 1, 1, 90, 120, 3)).astype(np.uint16)
BOX = (35, 20, 101, 77)
ZSTD = {"compression": 5, "pack": imagecodecs.zstd_encode}
JXR = {"compression": 4, "pack": imagecodecs.jpegxr_encode}

FILES = {
    "a.czi: 16 bit": (write_czi, DEEP, {}),
    "a.czi: 8 bit, packed": (write_czi, GREY, {"pixels": 0, "tile": 32, **ZSTD}),
    "a.czi: JPEG XR": (write_czi, DEEP, {"tile": 32, **JXR}),
    "a.czi: float": (write_czi, DEEP.astype(np.float32), {"pixels": 2}),
    "a.czi: photo": (write_czi, PHOTO[..., ::-1], {"pixels": 3, "pyramid": (2,)}),
    "a.czi: packed photo": (write_czi, DEEP_PHOTO[..., ::-1], {"pixels": 4, "tile": 40, **ZSTD}),
    "a.nd2: 16 bit": (write_nd2, DEEP, {}),
    "a.nd2: 8 bit": (write_nd2, GREY, {}),
    "a.nd2: one channel": (write_nd2, DEEP[:, :, :1], {}),
    "a.nd2: photo": (write_nd2, PHOTO[..., ::-1], {}),
    "a.nd2: padded rows": (write_nd2, DEEP[:, :, :1], {"padding": 6}),
    "a.lif: 16 bit": (write_lif, DEEP, {}),
    "a.lif: 8 bit": (write_lif, GREY, {}),
    "a.lif: photo": (write_lif, PHOTO, {"rgb": "RGB"}),
    "a.lif: blue first": (write_lif, DEEP_PHOTO[..., ::-1], {"rgb": "BGR"}),
    "a.lif: padded rows": (write_lif, PHOTO, {"rgb": "RGB", "padding": 2}),
    "a.lif: mosaic": (write_lif, DEEP, {"mosaic": 2}),
}


@pytest.fixture
def decoded(monkeypatch):
    """Collect the tiles of CZI files that are decoded."""
    tiles = []
    real = czi.decode_tile

    def count(file, tile):
        tiles.append(tile)
        return real(file, tile)

    monkeypatch.setattr(czi, "decode_tile", count)
    return tiles


@pytest.mark.parametrize("kind", FILES)
def test_a_region_is_what_it_is_in_the_whole(kind, tmp_path):
    write, content, more = FILES[kind]
    path = write(tmp_path / kind.split(":")[0], content, **more)
    z, t = content.shape[1] - 1, content.shape[0] - 1
    image = open_images([path], Settings())[0]
    assert image.header.by_region
    x0, y0, x1, y1 = BOX
    blue_first = ("a.czi: photo", "a.czi: packed photo", "a.nd2: photo", "a.lif: blue first")
    true = content[t, z, ..., ::-1] if kind in blue_first else content[t, z]
    planes, regions = (list(planes) for planes in (image.source.planes(z, t), image.source.region(z, t, BOX)))
    assert np.array_equal(np.stack(planes), true)
    assert np.array_equal(np.stack(regions), true[:, y0:y1, x0:x1])
    assert all(region.dtype == content.dtype and region.flags.c_contiguous for region in regions)
    whole = image.frame(z, t).read()
    image = open_images([path], Settings(), whole_plane=10)[0]
    assert np.array_equal(image.frame(z, t).read(BOX), whole[y0:y1, x0:x1])
    assert np.array_equal(image.frame(z, t).read(), whole)


@pytest.mark.parametrize("kind", FILES)
def test_an_overview_has_the_pixels_that_contrast_would_take(kind, tmp_path):
    write, content, more = FILES[kind]
    source = open_source(
        write(tmp_path / kind.split(":")[0], content, **{**more, **({"pyramid": ()} if "czi" in kind else {})})
    )
    assert isinstance(source, RegionSource)
    for plane, reduced in zip(source.planes(0, 0), source.reduced(0, 0, 500), strict=True):
        assert np.array_equal(reduced, plane[::5, ::5])


@pytest.mark.parametrize(
    ("kind", "write", "more"), [("czi", write_czi, {"tile": 600}), ("nd2", write_nd2, {}), ("lif", write_lif, {})]
)
def test_few_small_objects_between_the_samples_set_the_contrast(kind, write, more, tmp_path):
    plane = np.full((1100, 1200), 200, np.uint16)
    plane[501, 301], plane[501, 303] = 50, 900
    path = write(tmp_path / f"a.{kind}", plane[None, None, None], **more)
    (image,) = open_images([path], Settings(), whole_plane=10)
    assert bounded(frame_exposures(image.source, image.display, 0, 0, ""), ()) == ((50, 900),)


def test_a_level_of_a_pyramid_gives_the_contrast_alone(tmp_path):
    plane = np.full((2200, 2400), 200, np.uint16)
    plane[500, 300], plane[501, 301] = 600, 900
    path = write_czi(tmp_path / "a.czi", plane[None, None, None], tile=1200, pyramid=(2,))
    (image,) = open_images([path], Settings(), whole_plane=10)
    assert image.source.has_level(0, 0, 10**6)
    assert bounded(frame_exposures(image.source, image.display, 0, 0, ""), ()) == ((200, 600),)


def test_only_the_tiles_of_the_region_are_decoded(tmp_path, decoded):
    source = open_source(write_czi(tmp_path / "a.czi", DEEP, tile=30, **ZSTD))
    assert decoded == []
    list(source.region(1, 1, (30, 30, 60, 60)))
    assert [tile.start for tile in decoded] == [
        {"X": 23, "Y": 35, "C": c + 2, "Z": 2, "T": 1, "S": 0, "M": 5, "B": 0} for c in range(2)
    ]
    decoded.clear()
    list(source.region(0, 0, (29, 30, 61, 60)))
    assert [tile.start["M"] for tile in decoded] == [4, 5, 6] * 2
    decoded.clear()
    list(source.reduced(0, 0, 100))
    assert len(decoded) == 12 * 2


def test_a_damaged_tile_does_no_harm_elsewhere(tmp_path):
    marks = iter(range(100))
    path = write_czi(
        tmp_path / "a.czi",
        DEEP[:1, :1, :1],
        tile=30,
        compression=5,
        pack=lambda part: b"xx" if next(marks) == 0 else imagecodecs.zstd_encode(part),
    )
    source = open_source(path)
    assert np.array_equal(next(source.region(0, 0, (30, 0, 120, 90))), DEEP[0, 0, 0, :, 30:])
    with pytest.raises(InputError, match=r"a\.czi cannot be read as an image"):
        next(source.region(0, 0, (0, 0, 9, 9)))


def test_tiles_lie_over_one_another_in_the_order_of_their_numbers(tmp_path):
    path = write_czi(tmp_path / "a.czi", DEEP[:1, :1, :1], tile=30)
    content = bytearray(path.read_bytes())
    move = b"X\0\0\0" + np.array([23, 30], "<i4").tobytes()  # the second tile, from 23 to 13: 10 px over the first
    assert content.count(move) == 6
    path.write_bytes(content.replace(move, b"X\0\0\0" + np.array([13, 30], "<i4").tobytes()))
    source = open_source(path)
    assert np.array_equal(next(source.region(0, 0, (15, 0, 50, 30)))[:, 5:], DEEP[0, 0, 0, :30, 30:60])
    assert not next(source.region(0, 0, (50, 0, 60, 30))).any()


def test_the_pyramid_gives_the_contrast(tmp_path, decoded):
    path = write_czi(tmp_path / "a.czi", DEEP, tile=30, pyramid=(2, 4, 8))
    source = open_source(path)
    for plane, reduced in zip(source.planes(1, 1), source.reduced(1, 1, 500), strict=True):
        assert reduced.shape == (18, 24)
        assert np.isin(reduced, plane[::4, ::4]).all()
    decoded.clear()
    list(source.reduced(1, 1, 500))
    assert [tile.reduction for tile in decoded] == [4, 4]


def test_a_pyramid_that_shows_only_a_part_is_passed_over(tmp_path, decoded):
    path = write_czi(tmp_path / "a.czi", DEEP[:1, :1, :1], tile=30, pyramid=(2,))
    content = bytearray(path.read_bytes())
    wide = b"X\0\0\0" + np.array([-7, 120, 0, 60], "<i4").tobytes()
    assert content.count(wide) == 2
    path.write_bytes(content.replace(wide, b"X\0\0\0" + np.array([-7, 100, 0, 60], "<i4").tobytes()))
    source = open_source(path)
    assert np.array_equal(next(source.reduced(0, 0, 500)), DEEP[0, 0, 0, ::5, ::5])
    assert {tile.reduction for tile in decoded} == {1}


def test_a_compressed_nd2_is_read_whole(tmp_path):
    path = write_nd2(tmp_path / "a.nd2", DEEP, packed=True)
    (image,) = open_images([path], Settings(), whole_plane=10)
    assert not image.header.by_region
    x0, y0, x1, y1 = BOX
    assert np.array_equal(np.stack(list(image.source.region(1, 1, BOX))), DEEP[1, 1, :, y0:y1, x0:x1])
    assert np.array_equal(image.frame(1, 1).read(BOX), image.frame(1, 1).read()[y0:y1, x0:x1])


def test_a_czi_of_one_large_compressed_tile_is_read_whole(tmp_path):
    for more, by_region in ((ZSTD, False), ({}, True)):
        path = write_czi(tmp_path / "a.czi", DEEP, tile=120, **more)
        assert czi.open_czi(path, largest_tile=90 * 120 - 1)[0].header.by_region == by_region


def test_a_lif_that_does_not_tell_where_its_pixels_lie_is_read_whole(tmp_path):
    path = write_lif(tmp_path / "a.lif", DEEP, further_axes=[(11, 1, -1, 0)])
    source = open_source(path)
    assert not source.header.by_region
    x0, y0, x1, y1 = BOX
    assert np.array_equal(np.stack(list(source.region(1, 1, BOX))), DEEP[1, 1, :, y0:y1, x0:x1])


@pytest.mark.parametrize("write", [write_czi, write_nd2, write_lif])
def test_a_file_that_was_cut_off_since_is_a_sentence(write, tmp_path):
    path = write(tmp_path / f"a.{write.__name__[-3:]}", DEEP)
    source = open_source(path)
    with path.open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(InputError, match=r"cannot be read as an image.*Copy or export it again"):
        list(source.region(1, 1, BOX))


def test_a_cut_off_lif_is_not_believed(tmp_path):
    path = write_lif(tmp_path / "a.lif", DEEP)
    path.write_bytes(path.read_bytes()[:-100])
    assert not open_source(path).header.by_region


def _made_up(kind, tmp_path):
    """Return a file of 60,000 × 60,000 px that does not have them."""
    small = np.zeros((1, 1, 1, 4, 4), np.uint8)
    path = tmp_path / f"a.{kind}"
    if kind == "czi":
        content = write_czi(path, small, pixels=0, tile=2).read_bytes()
        far = np.array([60_000, 2, 0, 2], "<i4").tobytes()
        for axis, start in (b"X", -5), (b"Y", 7):
            begin = axis + bytes(3)
            content = content.replace(begin + np.array([start, 2, 0, 2], "<i4").tobytes(), begin + far)
    elif kind == "nd2":
        content = write_nd2(path, small, claim=60_000).read_bytes()
    else:
        content = write_lif(path, small).read_bytes()
        told = 'NumberOfElements="4"'.encode("utf-16-le"), 'NumberOfElements="60000"'.encode("utf-16-le")
        grown = content.replace(*told)
        more = (len(grown) - len(content)) // 2
        size = int.from_bytes(content[9:13], "little")
        grown = bytearray(grown)
        grown[4:8], grown[9:13] = (2 * (size + more) + 5).to_bytes(4, "little"), (size + more).to_bytes(4, "little")
        content = bytes(grown)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["czi", "nd2", "lif"])
def test_a_size_that_was_made_up_is_not_believed(kind, tmp_path):
    with pytest.raises(InputError, match=r"says it is (60,0|59,9)\d\d × (60,0|59,9)\d\d px"):
        open_source(_made_up(kind, tmp_path))


LARGE_PLANE = (np.add.outer(np.arange(4200), np.arange(4300)) % 4001).astype(np.uint16)
LARGE_FILES = {
    "czi": (write_czi, {"tile": 512}),
    "packed.czi": (write_czi, {"tile": 512, **ZSTD, "pyramid": (2, 4)}),
    "nd2": (write_nd2, {}),
    "lif": (write_lif, {}),
}


@pytest.mark.parametrize("kind", LARGE_FILES)
def test_a_large_frame_goes_by_region_in_little_memory(kind, tmp_path, decoded):
    write, more = LARGE_FILES[kind]
    path = write(tmp_path / f"a.{kind}", LARGE_PLANE[None, None, None], **more)
    image = open_images([path], Settings())[0]
    frame = image.frame()
    tracemalloc.start()
    first = frame.read((600, 600, 1000, 1000))
    overview = tracemalloc.get_traced_memory()[1]
    decoded.clear()
    tracemalloc.reset_peak()
    second = frame.read((3200, 3200, 3400, 3400))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert overview < 30e6 < LARGE_PLANE.nbytes  # all of it is never made
    assert peak < 3e6
    assert len(decoded) == ("czi" in kind)
    ((low, high),) = bounded(frame_exposures(image.source, image.display, 0, 0, ""), ())
    for part, pixels in ((LARGE_PLANE[600:1000, 600:1000], first), (LARGE_PLANE[3200:3400, 3200:3400], second)):
        true = np.clip((part.astype(float) - low) / (high - low), 0, 1) * 255
        assert np.abs(pixels[..., 0] - true).max() <= 0.51
