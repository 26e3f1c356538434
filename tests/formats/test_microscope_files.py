from __future__ import annotations

import struct
import sys

import czifile
import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from microscope_files import write_czi, write_lif, write_nd2

from sam2_fewshot.errors import FewShotError, InputError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.registry import open_source
from sam2_fewshot.records import PixelSize
from sam2_fewshot.settings import Settings

STACK = np.random.default_rng(4).integers(0, 60_000, (2, 3, 2, 20, 30)).astype(np.uint16)
FLAT = STACK[:1, :1, :1]
PHOTO = np.random.default_rng(5).integers(0, 255, (1, 1, 1, 20, 30, 3)).astype(np.uint8)
XML = """<ImageDocument><Metadata><Scaling><Items><Distance Id="X"><Value>5e-07</Value></Distance>
<Distance Id="Y"><Value>2.5e-07</Value></Distance><Distance Id="Z"><Value>2e-06</Value></Distance></Items></Scaling>
<Information><Image><Dimensions><Channels><Channel Name="DAPI"/><Channel Name="GFP"/></Channels></Dimensions></Image>
</Information><DisplaySetting><Channels><Channel><Color>#FF0000FF</Color></Channel><Channel><Color>nonsense</Color>
</Channel></Channels></DisplaySetting></Metadata></ImageDocument>"""

WRITERS = {"nd2": write_nd2, "lif": write_lif, "czi": write_czi}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("array", [STACK, FLAT, STACK[:, :1], STACK[:1, :, :1]], ids=["TZC", "flat", "TC", "Z"])
def test_planes(tmp_path, kind, array):
    source = open_source(WRITERS[kind](tmp_path / f"a.{kind}", array))
    header = source.header
    assert (header.size_t, header.size_z, header.size_c, header.height, header.width) == array.shape
    assert header.dtype == np.uint16
    for t in range(header.size_t):
        for z in range(header.size_z):
            planes = list(source.planes(z, t))
            assert (np.stack(planes) == array[t, z]).all()
            assert all(plane.dtype == np.uint16 and plane.flags.c_contiguous for plane in planes)


@pytest.mark.parametrize(
    ("kind", "names", "colors", "size"),
    [
        ("nd2", ("DAPI", "GFP"), ((0, 0, 255), (0, 255, 0)), PixelSize(0.5, 0.5, 2.0)),
        ("lif", ("Green", "Gray"), ((0, 255, 0), (255, 255, 255)), PixelSize(0.5, 0.25, 2.0)),
        ("czi", ("DAPI", "GFP"), ((0, 0, 255), None), PixelSize(0.5, 0.25, 2.0)),
    ],
)
def test_descriptions(tmp_path, kind, names, colors, size):
    more = {"xml": XML} if kind == "czi" else {}
    header = open_source(WRITERS[kind](tmp_path / f"a.{kind}", STACK, **more)).header
    assert header.channel_names == names
    assert header.channel_colors == colors
    found = header.pixel_size
    assert (found.x, found.y, found.z) == pytest.approx((size.x, size.y, size.z))


def test_an_uncalibrated_nd2_has_no_pixel_size(tmp_path):
    assert open_source(write_nd2(tmp_path / "a.nd2", FLAT, calibrated=False)).header.pixel_size is None


def test_metadata_that_cannot_be_read_does_no_harm(tmp_path):
    header = open_source(write_nd2(tmp_path / "a.nd2", STACK, probes=False)).header
    assert (header.channel_names, header.pixel_size) == ((None, None), None)


def test_a_lif_file_of_lines_is_refused(tmp_path):
    with pytest.raises(InputError, match="its image has the axes Y"):
        open_source(write_lif(tmp_path / "a.lif", FLAT[..., :1]))


def test_a_lif_file_without_images(tmp_path):
    with pytest.raises(InputError, match="no image is in it"):
        open_source(write_lif(tmp_path / "a.lif", FLAT, images=0))


def test_photos(tmp_path):
    czi = write_czi(tmp_path / "a.czi", PHOTO[..., ::-1], pixels=3)  # stored as blue, green, red
    lif = write_lif(tmp_path / "a.lif", PHOTO, rgb="RGB")
    nd2 = write_nd2(tmp_path / "a.nd2", PHOTO[..., ::-1])  # as well
    for path in (czi, lif, nd2):
        image = open_images([path], Settings())[0]
        assert image.header.is_photo
        (colours,) = image.source.planes(0, 0)
        assert (colours == PHOTO[0, 0, 0]).all()


@pytest.mark.parametrize(
    ("compression", "pack"),
    [
        (4, imagecodecs.jpegxr_encode),
        (5, imagecodecs.zstd_encode),
        (6, lambda part: b"\1" + imagecodecs.zstd_encode(part)),
        (6, lambda part: b"\3\1\1" + imagecodecs.zstd_encode(part.view(np.uint8).reshape(-1, 2).T.tobytes())),
        (2, lambda part: bytes(imagecodecs.lzw_encode(part))),
    ],
    ids=["JPEG XR", "Zstandard", "Zstandard with a head", "Zstandard of split bytes", "LZW"],
)
def test_compressed_czi(tmp_path, compression, pack):
    path = write_czi(tmp_path / "a.czi", STACK, compression=compression, pack=pack, pyramid=(2,))
    assert (np.stack(list(open_source(path).planes(2, 1))) == STACK[1, 2]).all()


def test_our_czi_files_are_czi_files(tmp_path):
    read = czifile.imread(str(write_czi(tmp_path / "a.czi", STACK)))
    assert (np.squeeze(read).reshape(STACK.shape) == STACK).all()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"pixels": 77}, "unusual kind"),
        ({"pixels": 4}, "has 2 channels, each a colour picture; export the one"),
        ({"compression": 1}, "compressed in an unknown way"),
        ({"compression": 5}, "damaged"),
        ({"pack": lambda part: b"xx"}, "cut off"),
        ({"xml": "<a"}, None),
    ],
)
def test_odd_czi_files(tmp_path, damage, said):
    path = write_czi(tmp_path / "a.czi", STACK, **damage)
    if said is None:
        assert open_source(path).header.channel_names == (None, None)
        return
    with pytest.raises(InputError, match=said):
        list(open_source(path).planes(0, 0))


def test_a_czi_with_grey_and_colour_is_refused_with_the_reason(tmp_path):
    path = write_czi(tmp_path / "a.czi", STACK)
    data = bytearray(path.read_bytes())
    first = data.rindex(b"ZISRAWDIRECTORY") + 32 + 128
    assert data[first : first + 6] == b"DV\1\0\0\0"
    data[first + 2] = 3  # 8-bit colours
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.czi has channels of different kinds, as grey and colour"):
        open_source(path)


def test_planes_that_a_czi_lacks_are_told(tmp_path):
    path = write_czi(tmp_path / "a.czi", STACK, tile=100)
    assert open_source(path).header.warnings == ()
    times, slices, channels = STACK.shape[:3]
    count = times * slices * channels
    content = bytearray(path.read_bytes())
    struct.pack_into("<i", content, content.index(b"ZISRAWDIRECTORY") + 32, count - 1)  # the last tile is not listed
    path.write_bytes(content)
    source = open_source(path)
    assert source.header.warnings == (f"a.czi lacks 1 of its {count} planes; those are black.",)
    *_, black = source.planes(slices - 1, times - 1)
    assert not black.any()


@pytest.mark.parametrize(("kind", "module"), [("nd2", "nd2"), ("lif", "liffile")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, kind, module):
    path = WRITERS[kind](tmp_path / f"a.{kind}", FLAT)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf'a\.{kind}: .*pip install "sam2-fewshot\[{kind}\]"'):
        open_source(path)


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    cut=st.just(1.0) | st.floats(0, 1),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files(tmp_path, kind, changes, cut):
    path = tmp_path / f"a.{kind}"
    WRITERS[kind](path, STACK, **({"pyramid": (2, 4)} if kind == "czi" else {}))
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data[: int(len(data) * cut)])
    try:
        source = open_source(path)
        list(source.planes(0, 0))
        list(source.reduced(0, 0, 100))
    except FewShotError as error:
        assert "\n" not in str(error)  # noqa: PT017
