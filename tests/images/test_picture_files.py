import io
import os
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageFile

from calls import calls_of
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.registry import open_source
from sam2_fewshot.settings import Settings


def plane(path):
    (found,) = open_source(path).planes(0, 0)
    return found


def displayed(path):
    return open_images([path], Settings())[0].frame().read()


def save(path, array, mode=None, **kwargs):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **kwargs)
    return path


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_png(tmp_path, dtype):
    pixels = (np.arange(600).reshape(20, 30) * 100).astype(dtype)
    path = save(tmp_path / "a.png", pixels)
    assert open_source(path).header.dtype == dtype
    np.testing.assert_array_equal(plane(path), pixels)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "ppm"])
def test_colour_pictures_are_photos(tmp_path, colours, suffix):
    path = save(tmp_path / f"a.{suffix}", colours, **({"lossless": True} if suffix == "webp" else {}))
    assert open_source(path).header.is_photo
    np.testing.assert_array_equal(plane(path), colours)


def test_jpeg(tmp_path, colours):
    path = save(tmp_path / "a.jpg", np.kron(colours, np.ones((8, 8, 1), np.uint8)), quality=95)
    assert plane(path).shape == (160, 240, 3)
    grey = save(tmp_path / "g.jpg", colours[..., 0])
    assert not open_source(grey).header.is_photo
    assert plane(grey).shape == (20, 30)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_where_all_is_opaque(tmp_path, colours, mode):
    path = save(tmp_path / "a.png", colours, mode)
    expected = colours if mode == "RGBA" else np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_array_equal(plane(path), expected)


@pytest.mark.parametrize("beneath", [0, 255])
@pytest.mark.parametrize("kind", ["RGBA.png", "RGBA.webp", "LA.png", "16 bits.png"])
def test_what_is_transparent_is_black_and_counts_for_no_contrast(tmp_path, colours, beneath, kind):
    colours = colours // 4 + 100
    if kind == "LA.png":
        colours = colours[..., :1]
    whole = np.full((20, 40, colours.shape[2] + 1), beneath, np.uint8)
    whole[:, 10:, :-1] = colours
    whole[..., -1] = np.repeat([0, 1, 255], [10, 5, 25])  # what is seen through is seen
    path = tmp_path / kind
    if kind == "16 bits.png":
        path.write_bytes(imagecodecs.png_encode(whole.astype(np.uint16) * 257))
    else:
        save(path, whole, **({"lossless": True, "exact": True} if kind == "RGBA.webp" else {}))
    picture = displayed(path)
    assert not picture[:, :10].any()
    np.testing.assert_array_equal(picture[:, 10:], displayed(save(tmp_path / "b.png", colours.squeeze())))


def test_the_transparent_colour_of_a_palette_is_black(tmp_path):
    image = Image.new("P", (3, 1))
    image.putdata([0, 1, 2])
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=1)
    assert displayed(tmp_path / "a.png").tolist() == [[[255, 0, 0], [0, 0, 0], [0, 0, 255]]]


def test_a_picture_that_is_all_transparent_is_displayed_as_if_it_were_not(tmp_path, colours):
    hidden = np.dstack([colours, np.zeros((20, 30), np.uint8)])
    seen = displayed(save(tmp_path / "b.png", colours))
    np.testing.assert_array_equal(displayed(save(tmp_path / "a.png", hidden)), seen)


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_16_bit_png_with_several_samples_keeps_all_its_bits(tmp_path, samples):
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, samples)).astype(np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    header = open_source(path).header
    assert header.dtype == np.uint16
    assert header.is_photo == (samples > 2)
    np.testing.assert_array_equal(plane(path), pixels[..., :3] if samples > 2 else pixels[..., 0])


def test_black_and_white_png(tmp_path):
    path = save(tmp_path / "a.png", np.eye(8, dtype=bool))
    np.testing.assert_array_equal(plane(path), np.eye(8, dtype=np.uint8) * 255)


def test_palette_pictures_keep_their_numbers_and_colours(tmp_path):
    image = Image.new("P", (2, 2))
    image.putdata([0, 1, 2, 1])
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png")
    source = open_source(tmp_path / "a.png")
    assert source.header.palette[:3].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert plane(tmp_path / "a.png").tolist() == [[0, 1], [2, 1]]


def test_cmyk_jpeg_is_converted_with_a_warning(tmp_path):
    path = save(tmp_path / "a.jpg", np.full((16, 16, 3), (0, 255, 255), np.uint8), "CMYK", quality=100)
    source = open_source(path)
    assert "CMYK" in source.header.warnings[0]
    assert source.header.is_photo
    assert abs(plane(path)[8, 8].astype(int) - (0, 255, 255)).max() < 8


def test_exif_orientation_is_not_applied(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    path = save(tmp_path / "a.jpg", colours, exif=exif)
    header = open_source(path).header
    assert (header.height, header.width) == (20, 30)
    assert header.warnings == (
        "a.jpg is stored turned by 90° (EXIF); it is read as it is stored, many programs show it upright: save it "
        "again upright before marking.",
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_each_orientation_but_upright_is_told(tmp_path, colours, suffix):
    exif = Image.Exif()
    for value, said in {
        1: "",
        2: "mirrored (",
        3: "by 180°",
        4: "mirrored and",
        5: "by 90°",
        8: "by 90°",
        9: "",
    }.items():
        exif[0x0112] = value
        notes = open_source(save(tmp_path / f"{value}.{suffix}", colours, exif=exif)).header.warnings
        assert len(notes) == bool(said)
        assert said in "".join(notes)


def test_damaged_exif_does_no_harm(tmp_path, colours):
    path = save(tmp_path / "a.jpg", colours, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert open_source(path).header.warnings == ()
    assert plane(path).shape == (20, 30, 3)


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_of_an_animation_the_first_picture_is_read(tmp_path, suffix):
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    source = open_source(path)
    assert "several pictures; the first is read" in source.header.warnings[0]
    found = plane(path)
    shown = source.header.palette[found][..., 0] if source.header.palette is not None else found
    assert (shown == 10).all()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0.1, 0.6, 0.98])
def test_cut_off_pictures_are_refused_when_opened(tmp_path, colours, suffix, keep):
    path = save(tmp_path / f"a.{suffix}", np.kron(colours, np.ones((4, 4, 1), np.uint8)))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(InputError, match=rf"a\.{suffix} cannot be read as an image"):
        open_source(path)


@pytest.mark.parametrize(
    "content", [b"not an image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"\x00" * 99]
)
def test_other_bytes_are_refused(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image"):
        open_source(path)


def test_damage_within_a_deep_png_is_one_sentence(tmp_path):
    raw = bytearray(imagecodecs.png_encode(np.arange(20 * 30 * 3, dtype=np.uint16).reshape(20, 30, 3)))
    raw[60:90] = bytes(30)
    path = tmp_path / "a.png"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image"):
        open_source(path)


def bomb(width, height, depth=8, colour=0):
    """A PNG of a few bytes that claims a size."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(buffer, "PNG")
    raw = bytearray(buffer.getvalue())
    raw[16:26] = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour])
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    return bytes(raw)


@pytest.mark.parametrize("kind", [(8, 0), (16, 2)])
def test_pictures_that_claim_a_monstrous_size_are_refused(tmp_path, kind):
    path = tmp_path / "a.png"
    path.write_bytes(bomb(50_000, 50_000, *kind))
    with pytest.raises(InputError, match=r"a\.png says it is 50,000 × 50,000 px"):
        open_source(path)


def test_pictures_may_have_as_many_pixels_as_any_plane(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(bomb(25_000, 20_000))
    header = open_source(path).header
    assert (header.width, header.height, header.dtype) == (25_000, 20_000, np.uint8)
    path.write_bytes(bomb(25_001, 20_000))
    with pytest.raises(InputError, match="says it is 25,001 × 20,000 px; planes of up to 500,000,000 px"):
        open_source(path)


def test_pictures_that_claim_more_than_they_hold_are_refused_when_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(bomb(5_000, 5_000))
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image"):
        plane(path)


def test_missing_folder_empty_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        open_source(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="is a folder"):
        open_source(tmp_path)
    (tmp_path / "e.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"e\.png is empty \(0 bytes\)"):
        open_source(tmp_path / "e.png")
    (tmp_path / "a.oib").write_bytes(b"ZISRAWFILE")
    with pytest.raises(InputError, match=r"a\.oib: files of the kind \.oib are not read; export it as OME-TIFF"):
        open_source(tmp_path / "a.oib")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png is not a file"):
        open_source(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "a\0.png"])
def test_impossible_names_are_one_sentence(name):
    with pytest.raises(InputError, match="cannot be read"):
        open_source(Path(name))


def test_a_file_that_vanished_is_one_sentence(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    source = open_source(path)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.png cannot be read: No such file"):
        list(source.planes(0, 0))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_picture_is_not_decoded_when_it_is_opened(tmp_path, colours, suffix):
    path = save(tmp_path / f"a.{suffix}", colours)
    with calls_of(ImageFile.ImageFile.load) as decoded:
        open_source(path)
    assert decoded == []
