import struct

import imagecodecs
import numpy as np
import pytest

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.registry import open_source
from sam2_fewshot.settings import Settings

RANDOM = np.random.default_rng(0)


def write(path, pixels):
    kind = "jp2" if path.suffix == ".jp2" else "j2k"
    path.write_bytes(imagecodecs.jpeg2k_encode(pixels, codecformat=kind, level=0, reversible=True))
    return path


@pytest.mark.parametrize("name", ["a.jp2", "a.j2k", "a.unknown"])
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("u1", (20, 30)), ("u2", (20, 30)), ("i2", (20, 30)), ("u1", (20, 30, 3)), ("u2", (20, 30, 3)), ("u1", (9, 8, 4))],
)
def test_pixels_are_as_they_were(tmp_path, name, dtype, shape):
    limits = np.iinfo(dtype)
    pixels = RANDOM.integers(limits.min // 2, limits.max // 2, shape).astype(dtype)
    source = open_source(write(tmp_path / name, pixels))
    header = source.header
    assert (header.height, header.width, header.dtype, header.is_photo) == (*shape[:2], dtype, len(shape) == 3)
    (plane,) = source.planes(0, 0)
    assert (plane == (pixels[..., :3] if len(shape) == 3 else pixels)).all()


def test_a_palette_gives_its_colours(tmp_path):
    path = write(tmp_path / "a.jp2", np.array([[0, 1, 2], [2, 1, 0]], np.uint8))
    colors = np.array([[250, 20, 30], [40, 240, 60], [70, 80, 230]], np.uint8)
    palette = b"\0\3\3\7\7\7" + colors.tobytes()  # three colours of three samples of 8 bits
    use = b"".join(struct.pack(">HBB", 0, 1, column) for column in range(3))
    boxes = b"".join(struct.pack(">I4s", 8 + len(b), name) + b for name, b in ((b"pclr", palette), (b"cmap", use)))
    data = path.read_bytes()
    head, color = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    (length,) = struct.unpack_from(">I", data, head)
    red_green_blue = data[color : color + 11] + struct.pack(">I", 16)
    data = data[:head] + struct.pack(">I", length + len(boxes)) + data[head + 4 : color] + boxes + red_green_blue
    path.write_bytes(data + path.read_bytes()[color + 15 :])
    source = open_source(path)
    assert source.header.is_photo
    (plane,) = source.planes(0, 0)
    assert (plane == colors[[[0, 1, 2], [2, 1, 0]]]).all()


def test_a_folder_gives_them_too(tmp_path):
    write(tmp_path / "a.jp2", np.zeros((9, 8), np.uint8))
    assert [image.stem for image in open_images([tmp_path], Settings())] == ["a"]


def test_what_cannot_be_read_is_a_sentence(tmp_path):
    path = write(tmp_path / "a.jp2", RANDOM.integers(0, 255, (40, 30)).astype("u1"))
    data = path.read_bytes()
    data = data[: data.index(b"\xff\xd9") + 2]  # older versions of the encoder leave room behind the picture's end
    place = data.index(b"\xff\x4f\xff\x51")
    for content, said in {
        data[: len(data) // 2]: "its end is missing",
        data[:30]: "damaged",
        data[: place + 8] + b"\x7f" * 8 + data[place + 16 :]: "up to 500,000,000 px can be read",
        data[: place + 40] + b"\0\7" + data[place + 42 :]: "different sizes or kinds|damaged",
        data[: place + 42] + b"\x1f" + data[place + 43 :]: "samples of 32 bits",
        b"\0\0\0\x0cjP  \r\n\x87\n" * 9: "no picture is in it|damaged",
    }.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            list(open_source(path).planes(0, 0))
