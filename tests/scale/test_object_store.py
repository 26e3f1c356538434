"""OME-Zarr in an object store (s3), with keys, without, and where it may not be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from object_store import CLOSED, object_store

from sam2_fewshot.cli.options import expand
from sam2_fewshot.errors import InputError, ServerError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.ome_zarr import ZarrSource
from sam2_fewshot.images.registry import signature
from sam2_fewshot.settings import Settings

pytest.importorskip("s3fs")

if TYPE_CHECKING:
    from collections.abc import Iterator

PIXELS = np.random.default_rng(0).integers(1, 4000, (2, 300, 410)).astype(np.uint16)
BOX = (130, 70, 400, 299)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bool]]]:
    """A store whose bucket "plates" holds an image, for a person who has no keys."""
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    group = zarr.open_group(tmp_path / "plates" / "day 1" / "a.zarr", mode="w", zarr_format=3)
    group.create_array("0", shape=PIXELS.shape, chunks=(1, 64, 64), dtype=PIXELS.dtype)[...] = PIXELS
    image = {"axes": [{"name": axis} for axis in "cyx"], "datasets": [{"path": "0"}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    with object_store(tmp_path) as (address, seen):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        s3fs.S3FileSystem.clear_instance_cache()
        yield seen
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("keys", [False, True])
def test_an_image_is_read_by_region(
    keys: bool, store: list[tuple[str, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if keys:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (path,) = expand(["s3://plates/day 1/a.zarr"])
    (image,) = open_images([path], Settings(), whole_plane=10)
    (local,) = open_images([tmp_path / "plates" / "day 1" / "a.zarr"], Settings(), whole_plane=10)
    assert (image.stem, image.shape, image.header.size_c) == ("a", (300, 410), 2)
    assert np.array_equal(image.frame().read(BOX), local.frame().read(BOX))
    assert signature(path) == signature(path)
    assert {signed for _, signed in store} == {keys}


@pytest.mark.parametrize(
    ("address", "kind", "sentence"),
    [
        ("s3://plates/b.zarr", InputError, "There is no OME-Zarr at s3://plates/b.zarr; check the address"),
        ("s3://plate/a.zarr", InputError, "There is no OME-Zarr at s3://plate/a.zarr; check the address"),
        (f"s3://{CLOSED}/a.zarr", InputError, f"s3://{CLOSED}/a.zarr may not be read with the keys at hand"),
    ],
)
@pytest.mark.usefixtures("store")
def test_what_cannot_be_read_is_a_sentence(address: str, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        ZarrSource(Path(address))


@pytest.mark.usefixtures("store")
def test_a_store_that_does_not_answer_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ServerError, match=r"s3://plates/a\.zarr could not be read"):
        ZarrSource(Path("s3://plates/a.zarr"), patience=0.3)
