from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot.errors import InputError
from sam2_fewshot.object_model import KnownObject, ObjectModel, frame_digest
from sam2_fewshot.records import Frame, InstanceMask
from sam2_fewshot.segmenter import FewShotSegmenter, read_object_model

if TYPE_CHECKING:
    from pathlib import Path

    from sam2_fewshot.protocols import Backbone


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


def test_it_comes_back_from_its_bytes() -> None:
    model = learned()
    back = ObjectModel.from_bytes(model.to_bytes())
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


def test_a_segmenter_saves_it_whole(filters: Backbone, tmp_path: Path) -> None:
    model = replace(learned(), model_name=filters.name, model_sha256=filters.sha256)
    segmenter = FewShotSegmenter(filters).adopt(model)
    segmenter.save(tmp_path / "cells.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["cells.npz"]
    assert read_object_model(tmp_path / "cells.npz").to_bytes() == model.to_bytes()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written to .*file"):
        segmenter.save(tmp_path / "file" / "cells.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no object model at .*gone\.npz"):
        read_object_model(tmp_path / "gone.npz")


def damaged(kind: str, good: bytes) -> bytes:
    return {"empty": b"", "text": b"hello", "cut": good[: len(good) // 2], "npy": b"\x93NUMPY\x01\x00"}[kind]


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "npy"])
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str) -> None:
    bad = tmp_path / "bad.npz"
    bad.write_bytes(damaged(kind, learned().to_bytes()))
    with pytest.raises(InputError, match=r"bad\.npz is not an object model"):
        read_object_model(bad)


def test_another_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="not an object model"):
        read_object_model(tmp_path / "other.npz")


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "later.npz", facts=np.array('{"format": 99}'))
    with pytest.raises(InputError, match="format 99"):
        read_object_model(tmp_path / "later.npz")


def test_a_digest_knows_shape_and_pixels() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert frame_digest(Frame(pixels)) == frame_digest(Frame(pixels.copy()))
    assert frame_digest(Frame(pixels)) != frame_digest(Frame(pixels.reshape(4, 2, 3)))
    assert frame_digest(Frame(pixels)) != frame_digest(Frame(pixels[::-1]))


def test_the_same_model_gives_the_same_bytes() -> None:
    content = learned().to_bytes()
    assert ObjectModel.from_bytes(content).to_bytes() == content
    with np.load(io.BytesIO(content)) as archive:
        assert len(archive["areas"]) == 5


def test_no_damaged_byte_is_an_accident() -> None:
    good = learned().to_bytes()
    refused = 0
    for place in range(0, len(good), 7):
        try:
            ObjectModel.from_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        except InputError:
            refused += 1
    assert refused > 100  # the rest is padding, times, and flags
