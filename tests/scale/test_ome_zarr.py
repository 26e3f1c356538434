"""OME-Zarr from folders and servers."""

from __future__ import annotations

import json
import socket
import threading
from base64 import b64encode
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from sam2_fewshot.cli.options import expand
from sam2_fewshot.errors import InputError, ServerError
from sam2_fewshot.images.addresses import is_zarr, remote
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.ome_zarr import ZarrSource
from sam2_fewshot.images.registry import open_positions, signature
from sam2_fewshot.rendering.channels import as_reader
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEP = np.random.default_rng(0).integers(1, 4000, (2, 300, 410)).astype(np.uint16)
BOX = (130, 70, 400, 299)


def write(path: Path, pixels: np.ndarray, axes: str = "cyx", form: int = 3, levels: int = 1, **more: Any) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=form)  # type: ignore[arg-type]
    for level in range(levels):
        reduced = pixels[..., :: 2**level, :: 2**level]
        chunks = (1,) * (pixels.ndim - 2) + (64, 64)
        group.create_array(str(level), shape=reduced.shape, chunks=chunks, dtype=reduced.dtype)[...] = reduced  # type: ignore[index]
    image = {"axes": [{"name": axis} for axis in axes], "datasets": [{"path": str(level)} for level in range(levels)]}
    told: dict[str, Any] = {"multiscales": [image], **more}
    group.attrs.update({"ome": {"version": "0.5", **told}} if form == 3 else told)
    return path


@pytest.mark.parametrize("form", [2, 3])
def test_both_versions_are_read_by_region(form: int, tmp_path: Path) -> None:
    channels = [{"label": "DAPI", "color": "0000FF"}, {"label": "YFP", "color": "nonsense"}]
    path = write(tmp_path / "a.ome.zarr", DEEP, form=form, omero={"channels": channels})
    (image,) = open_images([path], Settings())
    assert (image.stem, image.header.size_c, image.shape, image.header.dtype) == ("a", 2, (300, 410), np.uint16)
    assert image.header.channel_names == ("DAPI", "YFP")
    assert image.header.channel_colors == ((0, 0, 255), None)
    whole = image.frame().read()
    (image,) = open_images([path], Settings(), whole_plane=10)
    assert np.array_equal(image.frame().read(BOX), whole[BOX[1] : BOX[3], BOX[0] : BOX[2]])


def test_slices_times_and_a_folder_of_images(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 20 * 30).reshape(2, 1, 3, 20, 30).astype(np.float32)
    write(tmp_path / "in" / "a.zarr", pixels, "tczyx")
    write(tmp_path / "in" / "b.zarr", pixels[0, 0, 0], "yx")
    images = open_images([tmp_path / "in"], Settings())
    assert [(image.name, image.size_t, image.size_z) for image in images] == [("a.zarr", 2, 3), ("b.zarr", 1, 1)]
    assert np.array_equal(next(images[0].source.planes(2, 1)), pixels[1, 0, 2])


@pytest.mark.parametrize(
    "omero",
    [
        {"channels": [{"color": color} for color in ("FF0000", "00FF00", "0000FF")]},
        {"channels": [{"label": label} for label in ("Red", "Green", "Blue")]},
    ],
)
def test_three_channels_of_these_colours_are_a_photo(omero: dict[str, Any], tmp_path: Path) -> None:
    photo = np.random.default_rng(1).integers(20, 90, (3, 100, 120)).astype(np.uint8)
    (image,) = open_images([write(tmp_path / "a.zarr", photo, omero=omero)], Settings(), whole_plane=10)
    assert image.header.is_photo
    (plane,) = image.source.region(0, 0, (5, 6, 70, 80))
    assert np.array_equal(plane, np.moveaxis(photo, 0, -1)[6:80, 5:70])
    assert np.array_equal(image.frame().read(), as_reader(np.moveaxis(photo, 0, -1), Settings()).read())


def test_contrast_comes_from_a_smaller_level(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", DEEP, levels=3)
    source = ZarrSource(path)
    reduced = source.reduced(0, 0, 10_000)
    assert reduced is not None
    assert [plane.shape for plane in reduced] == [(150, 205), (150, 205)]
    assert source.reduced(0, 0, 10**9) is None


def test_smaller_levels_may_be_missing_and_paths_may_have_slashes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", DEEP, levels=2)
    group = zarr.open_group(path)
    described = dict(group.attrs["ome"])  # type: ignore[call-overload]
    image = {**described["multiscales"][0], "datasets": [{"path": "/0"}, {"path": "1/"}, {"path": "2"}]}
    group.attrs["ome"] = {**described, "multiscales": [image]}
    source = ZarrSource(path)
    assert source.reduced(0, 0, 10_000) is not None
    (plane, _) = source.planes(0, 0)
    assert np.array_equal(plane, DEEP[0])


def test_an_image_inside_of_a_group_is_found(tmp_path: Path) -> None:
    outer = zarr.open_group(tmp_path / "a.zarr", mode="w")
    outer.attrs["ome"] = {"bioformats2raw.layout": 3}
    write(tmp_path / "a.zarr" / "0", DEEP)
    assert ZarrSource(tmp_path / "a.zarr").header.size_c == 2


def test_missing_pieces_are_told_and_read_as_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", DEEP)
    gone = sorted((path / "0" / "c").rglob("0"))
    for piece in [file for file in gone if file.is_file()][:2]:
        piece.unlink()
    source = ZarrSource(path)
    assert source.header.warnings == (
        "a.zarr: 2 of its 70 pieces are not stored and are taken as 0; that is normal for empty background, otherwise "
        "the copy is not complete.",
    )
    assert not next(source.planes(0, 0))[:9, :9].any()


@pytest.mark.parametrize("axes", ["cxy", "yxc", "ycx"])
def test_axes_may_be_in_any_order(axes: str, tmp_path: Path) -> None:
    deep, box = DEEP[:, :80, :90], (13, 7, 85, 79)
    for pixels, omero in ((deep, {}), (deep[[0, 1, 0]].astype(np.uint8), {"channels": [{"label": c} for c in "rgb"]})):
        plain = ZarrSource(write(tmp_path / "plain.zarr", pixels, omero=omero))
        turned = pixels.transpose(["cyx".index(axis) for axis in axes])
        source = ZarrSource(write(tmp_path / "turned.zarr", turned, axes, omero=omero))
        assert (source.header.height, source.header.width) == (80, 90)
        for own, other in zip(source.region(0, 0, box), plain.region(0, 0, box), strict=True):
            assert np.array_equal(own, other)
        assert [plane.shape for plane in source.planes(0, 0)] == [plane.shape for plane in plain.planes(0, 0)]


def test_chunks_that_do_not_fit_into_memory_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", DEEP, form=2)
    array = path / "0" / ".zarray"
    array.write_text(json.dumps({**json.loads(array.read_text()), "chunks": [1, 10**5, 10**5]}))
    with pytest.raises(InputError, match=r"chunks of a\.zarr unpack to 20,000 MB each; save it with smaller ones"):
        ZarrSource(path)


def test_a_smaller_level_of_python_objects_is_left_out_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", DEEP, form=2, levels=2)
    array = path / "1" / ".zarray"
    filters = [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}]  # unpickling runs what the file says
    objects = {"dtype": "|O", "fill_value": "", "compressor": None, "filters": filters}
    array.write_text(json.dumps({**json.loads(array.read_text()), **objects}))
    source = ZarrSource(path)
    assert source.reduced(0, 0, 1) is None
    assert next(source.planes(0, 0)).shape == DEEP.shape[-2:]
    (path / "0").rename(path / "2")
    (path / "1").rename(path / "0")
    with pytest.raises(InputError, match=r"pixels of a\.zarr are of the kind .*; save it with whole numbers"):
        ZarrSource(path)


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"ome": {"plate": {}}}, "is a plate without images"),
        ({"ome": {"well": {}}}, "is a well without images"),
        ({}, "is a Zarr without OME metadata"),
        ({"multiscales": [{"axes": ["q", "y", "x"], "datasets": [{"path": "0"}]}]}, "has the axes 'qyx'"),
        (
            {"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]},
            "has 3 axes, and its description names 2",
        ),
        ({"multiscales": [{"axes": ["c", "y", "x"], "datasets": [{"path": "7"}]}]}, "lacks the array '7'"),
        ({"multiscales": [{"axes": ["c", "y", "x"], "datasets": [{"path": "../a"}]}]}, "lacks the array"),
        ({"multiscales": [{"axes": ["c", "y", "x"], "datasets": []}]}, "missing or unusual"),
    ],
)
def test_what_is_no_image_is_a_sentence(attributes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", DEEP)
    group = zarr.open_group(path, mode="a")
    group.attrs.put(attributes)
    with pytest.raises(InputError, match=sentence):
        open_images([path], Settings())


def test_damaged_pieces_and_metadata_are_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", DEEP)
    source = ZarrSource(path)
    next(file for file in (path / "0" / "c").rglob("*") if file.is_file()).write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"a\.zarr cannot be read"):
        list(source.planes(0, 0))
    (path / "zarr.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.zarr cannot be read"):
        ZarrSource(path)


@pytest.mark.parametrize(
    ("package", "place", "extra"),
    [
        ("zarr", "a.zarr", "zarr"),
        ("zarr", "s3://b/a.zarr", "s3"),
        ("aiohttp", "http://127.0.0.1/a.zarr", "zarr"),
        ("s3fs", "s3://b/a.zarr", "s3"),
    ],
)
def test_a_missing_package_is_named(
    package: str, place: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    write(tmp_path / "a.zarr", DEEP)
    with pytest.raises(InputError, match=rf"sam2-fewshot\[{extra}\]"):
        ZarrSource(Path(place) if "://" in place else tmp_path / place)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://host:80/a/b.zarr", "http://host:80/a/b.zarr"),
        ("https://host/a.zarr?x=1", "https://host/a.zarr?x=1"),
        ("s3://bucket/a.zarr", "s3://bucket/a.zarr"),
        ("/data/a.zarr", None),
        ("https", None),
    ],
)
def test_a_path_keeps_an_address(text: str, address: str | None) -> None:
    assert remote(Path(text)) == address
    assert remote(text) == address
    assert is_zarr(Path(text)) == (address is not None)


class Hushed(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(requests: type[Hushed], folder: Path) -> Iterator[str]:
    """Give the address of a server for a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(requests, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a server for the temporary folder."""
    with serving(Hushed, tmp_path) as address:
        yield address


def test_an_image_on_the_web_is_read_by_region(served: str, tmp_path: Path) -> None:
    local = write(tmp_path / "a.zarr", DEEP)
    (path,) = expand([f"{served}/a.zarr"])
    (image,) = open_images([path], Settings(), whole_plane=10)
    assert image.stem == "a"
    assert np.array_equal(
        image.frame().read(BOX), open_images([local], Settings(), whole_plane=10)[0].frame().read(BOX)
    )
    first = signature(path)
    assert first == signature(path)
    write(tmp_path / "a.zarr", DEEP[:1])
    assert first != signature(path)


def test_a_wrong_address_is_a_sentence(served: str) -> None:
    with pytest.raises(InputError, match=r"There is no OME-Zarr at http://127.0.0.1:\d+/b.zarr"):
        ZarrSource(Path(f"{served}/b.zarr"))


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (
            "http://me:hunter2@host:80/b.zarr",
            r"^The address of http://host:80/b\.zarr has a user name or password in it",
        ),
        ("https://hunter2@host/b.zarr", r"machine host login NAME password PASSWORD\.$"),
        ("https://me:hunter2@host/b.zarr?a=hunter2", r"^The address of https://host/b\.zarr has a user name"),
        ("https://host/b.zarr?X-Signature=hunter2", r"^The address of https://host/b\.zarr has a question mark in it"),
    ],
)
def test_an_address_with_a_secret_is_refused_without_it(address: str, sentence: str) -> None:
    for reads in (open_positions, signature, ZarrSource):
        with pytest.raises(InputError, match=sentence) as caught:
            reads(*expand([address]))
        assert "hunter2" not in str(caught.value)


def test_the_login_is_taken_from_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Guarded(Hushed):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") == f"Basic {b64encode(b'me:secret').decode()}":
                super().do_GET()
            else:
                self.send_error(401)

    local = write(tmp_path / "a.zarr", DEEP)
    logins = tmp_path / "logins"
    monkeypatch.setenv("NETRC", str(logins))
    logins.write_text("")
    with serving(Guarded, tmp_path) as address:
        with pytest.raises(InputError, match=r"a\.zarr may not be read with the keys at hand.* \.netrc"):
            ZarrSource(Path(f"{address}/a.zarr"))
        logins.write_text("machine 127.0.0.1 login me password secret\n")
        logins.chmod(0o600)
        read = list(ZarrSource(Path(f"{address}/a.zarr")).region(0, 0, BOX))
    assert np.array_equal(read, list(ZarrSource(local).region(0, 0, BOX)))


def test_a_server_that_is_not_there_or_stalls_is_a_sentence() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/a.zarr"
        with pytest.raises(ServerError, match="the server did not answer in time"):
            ZarrSource(Path(address), patience=0.3)
    with pytest.raises(ServerError, match="Check the address and the network"):
        ZarrSource(Path(address), patience=0.3)


def test_a_server_that_stalls_amid_the_pixels_is_a_sentence(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", DEEP)
    go_on = threading.Event()

    class Stalling(Hushed):
        def do_GET(self) -> None:
            if "/a.zarr/0/c/" in self.path:  # metadata is answered, pixels are not
                go_on.wait(30)
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Stalling, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        source = ZarrSource(Path(f"http://127.0.0.1:{server.server_port}/a.zarr"), patience=2.0)
        assert source.header.height == 300
        with pytest.raises(ServerError, match="the server did not answer in time"):
            next(source.region(0, 0, BOX))
    finally:
        go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_signature_of_a_folder_sees_each_piece(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", DEEP)
    first = signature(path)
    assert first == signature(path)
    piece = next(file for file in (path / "0" / "c").rglob("*") if file.is_file())
    piece.write_bytes(piece.read_bytes() + b"x")
    assert signature(path) != first
