from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot.errors import InputError
from sam2_fewshot.object_model import KnownObject, ObjectModel, frame_digest
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from pathlib import Path


def learned() -> ObjectModel:
    rng = np.random.default_rng(0)
    masks = [InstanceMask(rng.random((3, 5)) > 0.5, 7, 2, (20, 30)), InstanceMask(np.ones((1, 1), bool), 0, 0, (4, 4))]
    return ObjectModel(
        method="grid",
        learned={"vectors": rng.normal(size=(5, 8)).astype(np.float32), "negatives": np.zeros((0, 8), np.float32)},
        areas=np.arange(5) + 30,
        known=[KnownObject(f"{i:032x}", mask) for i, mask in enumerate(masks)],
        model_name="sam2.1_hiera_micro.pt",
        model_sha256="ab" * 32,
        target_occupancy=0.2,
        max_zoom=8.0,
    )


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    model = learned()
    model.save(tmp_path / "cells.npz")
    back = ObjectModel.load(tmp_path / "cells.npz")
    assert back.learned.keys() == model.learned.keys()
    for before, after in [
        (model.areas, back.areas),
        *((model.learned[name], back.learned[name]) for name in model.learned),
    ]:
        assert np.array_equal(before, after)
        assert before.dtype == after.dtype
    assert [k.frame_digest for k in back.known] == [k.frame_digest for k in model.known]
    for a, b in zip(model.known, back.known, strict=True):
        assert np.array_equal(a.mask.full(), b.mask.full())
        assert a.mask.box == b.mask.box
    assert (back.model_name, back.model_sha256) == (model.model_name, model.model_sha256)
    assert back.method == "grid"
    assert (back.target_occupancy, back.max_zoom) == (0.2, 8.0)
    assert [p.name for p in tmp_path.iterdir()] == ["cells.npz"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no object model at .*gone\.npz"):
        ObjectModel.load(tmp_path / "gone.npz")


def damaged(kind: str, good: bytes) -> bytes:
    return {"empty": b"", "text": b"hello", "cut": good[: len(good) // 2], "npy": b"\x93NUMPY\x01\x00"}[kind]


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "npy"])
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str) -> None:
    learned().save(tmp_path / "good.npz")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(damaged(kind, (tmp_path / "good.npz").read_bytes()))
    with pytest.raises(InputError, match=r"bad\.npz is not an object model"):
        ObjectModel.load(bad)


def test_another_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="not an object model"):
        ObjectModel.load(tmp_path / "other.npz")


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "later.npz", facts=np.array('{"format": 99}'))
    with pytest.raises(InputError, match="format 99"):
        ObjectModel.load(tmp_path / "later.npz")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        learned().save(tmp_path / "nowhere" / "cells.npz")


def test_a_digest_knows_shape_and_pixels() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert frame_digest(pixels) == frame_digest(pixels.copy())
    assert frame_digest(pixels) != frame_digest(pixels.reshape(4, 2, 3))
    assert frame_digest(pixels) != frame_digest(pixels[::-1])


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    learned().save(tmp_path / "a.npz")
    ObjectModel.load(tmp_path / "a.npz").save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as archive:
        assert len(archive["areas"]) == 5


def test_no_damaged_byte_is_an_accident(tmp_path: Path) -> None:
    learned().save(tmp_path / "good.npz")
    good, bad = (tmp_path / "good.npz").read_bytes(), tmp_path / "bad.npz"
    refused = 0
    for place in range(0, len(good), 7):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            ObjectModel.load(bad)
        except InputError:
            refused += 1
    assert refused > 100  # the rest is padding, times, and flags
