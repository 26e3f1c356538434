from __future__ import annotations

import io
import json
import re
import tracemalloc
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest

from sam2_fewshot.errors import InputError
from sam2_fewshot.object_model import KnownObject, ObjectModel, read_object_model
from sam2_fewshot.records import Frame, InstanceMask
from sam2_fewshot.segmenter import FewShotSegmenter
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.arrays import ArrayArchive, Layout, Unfit
from sam2_fewshot.storage.digests import frame_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sam2_fewshot.protocols import Backbone


def learned() -> ObjectModel:
    rng = np.random.default_rng(0)
    masks = [InstanceMask(rng.random((3, 5)) > 0.5, 7, 2, (20, 30)), InstanceMask(np.ones((1, 1), bool), 0, 0, (4, 4))]
    return ObjectModel(
        method="grid",
        learned={
            "vectors": rng.normal(size=(5, 8)).astype(np.float32),
            "negatives": np.zeros((0, 8), np.float32),
            "left_out": np.full(5, 0.5, np.float32),
            "shape_mean": np.ones(3),
            "shape_spread": np.ones(3),
        },
        areas=np.arange(5) + 30,
        known=[KnownObject(f"{i:032x}", mask, wanted=i == 0) for i, mask in enumerate(masks)],
        model_name="sam2.1_hiera_micro.pt",
        model_sha256="ab" * 32,
        target_occupancy=0.2,
        max_zoom=8.0,
        compared={"scorer": "knn", "white_percentile": 95.0},
        channels="- {index: 2, visible: false}",
    )


def guided() -> ObjectModel:
    rng = np.random.default_rng(1)
    classifiers = {
        f"{which}_{part}": rng.random(width) + 0.1
        for which, width in (("first", 19), ("second", 23))
        for part in ("mean", "scale", "weights")
    }
    cells = {f"cells_{part}": rng.random(12).astype(np.float32) + 1 for part in ("mean", "scale", "weights")}
    return replace(
        learned(),
        method="guided",
        learned={
            "numbers": np.array([512, 20.0, 100, 900, 5.0, -1, 0.5, 0.1, 0.2]),
            "evidence": np.array([10, 9, 1, 16]),
            "agreement": np.array([0.8]),
            "sizes": np.array([1.5, 0.1, 90.0]),
            "colours": np.full(3, 3**-0.5),
            "levels": np.array([[1.0, np.nan], [2.0, 3.0], [np.nan, np.nan]]),
            **cells,
            "cells_directions": np.ones(12, np.float32),
            **classifiers,
            "shape_mean": np.ones(3),
            "shape_spread": np.ones(3),
        },
    )


def test_the_longest_example_is_a_wanted_one() -> None:
    model = replace(learned(), areas=np.array([8]))
    assert model.longest == 5.0
    streak = KnownObject("0", InstanceMask(np.ones((3, 400), bool), 0, 0, (4, 400)))
    assert replace(model, known=[*model.known, streak]).longest == 5.0
    untold = [replace(item, wanted=False) for item in [*model.known, streak]]
    assert replace(model, known=untold).longest == 400.0


def test_what_was_marked_on_a_frame_is_wanted_or_not_where_that_is_told() -> None:
    frame = Frame(np.zeros((20, 30, 3), np.uint8))
    first, second = learned().known
    here = [replace(item, frame_digest=frame_digest(frame)) for item in (first, replace(first, wanted=False))]
    model = replace(learned(), known=[*here, second])
    assert model.known_on(frame) == ([first.mask], [first.mask], [])
    elsewhere = replace(learned(), known=[here[1], replace(second, wanted=True)])
    assert elsewhere.known_on(frame) == ([], [first.mask], [])
    untold = replace(learned(), known=[here[1], second])
    assert untold.known_on(frame) == ([], [], [first.mask])


MODELS = {"grid": learned, "guided": guided}


def test_a_reader_may_call_its_frame_what_it_likes() -> None:
    class Reader(Frame):
        digest = f"plate 3, {'0' * 128}"

    frame, other = Reader(np.zeros((20, 30, 3), np.uint8)), Frame(np.zeros((20, 30, 3), np.uint8))
    model = learned()
    model = replace(model, known=[replace(item, frame_digest=frame_digest(frame)) for item in model.known])
    for each in (model, ObjectModel.from_bytes(model.to_bytes())):
        assert [len(masks) for masks in each.known_on(frame)] == [1, 1, 0]
        assert not any(each.known_on(other))


@pytest.mark.parametrize("method", MODELS)
def test_it_comes_back_from_its_bytes(method: str) -> None:
    model = MODELS[method]()
    back = ObjectModel.from_bytes(model.to_bytes())
    assert back.learned.keys() == model.learned.keys()
    for before, after in [
        (model.areas, back.areas),
        *((model.learned[name], back.learned[name]) for name in model.learned),
    ]:
        assert np.array_equal(before, after, equal_nan=True)
        assert before.dtype == after.dtype
    assert [k.frame_digest for k in back.known] == [k.frame_digest for k in model.known]
    assert [k.wanted for k in back.known] == [True, False]
    for a, b in zip(model.known, back.known, strict=True):
        assert np.array_equal(a.mask.full(), b.mask.full())
        assert a.mask.box == b.mask.box
    assert (back.model_name, back.model_sha256) == (model.model_name, model.model_sha256)
    assert back.method == method
    assert (back.target_occupancy, back.max_zoom) == (0.2, 8.0)
    assert back.compared == {"scorer": "knn", "white_percentile": 95.0}
    assert back.channels == "- {index: 2, visible: false}"
    assert ObjectModel.from_bytes(replace(model, channels="").to_bytes()).channels == ""


@pytest.mark.parametrize("method", MODELS)
def test_files_of_version_0_2_0_are_read(method: str) -> None:
    arrays = arrays_in(MODELS[method]().to_bytes())
    later = {"known_wanted", "learned_evidence", "learned_sizes"}
    back = ObjectModel.from_bytes(saved({name: array for name, array in arrays.items() if name not in later}))
    assert [item.wanted for item in back.known] == [False, False]
    assert not {"evidence", "sizes"} & back.learned.keys()


def test_files_of_version_0_3_0_do_not_say_how_images_were_displayed() -> None:
    arrays = arrays_in(replace(learned(), compared={"scorer": "mean"}).to_bytes())
    back = ObjectModel.from_bytes(saved({name: array for name, array in arrays.items() if name != "channels"}))
    assert back.channels is None
    back.check_settings(Settings(method="grid", black_percentile=1, white_percentile=50), "It")


def test_only_what_was_learned_from_colours_may_have_been_displayed_otherwise() -> None:
    rounding = np.array([0.0, 1e-12, 0.0])
    grey = {**guided().learned, "colours": np.full(3, 3**-0.5) + rounding}
    assert replace(guided(), learned=grey).doubt("cells.npz") == ""
    old = ObjectModel.from_bytes(replace(guided(), learned={**grey, "colours": np.array([0.6, 0.0, 0.8])}).to_bytes())
    assert old.doubt("cells.npz").startswith("cells.npz was learned by version 0.8.0 or an earlier one.")
    assert ObjectModel.from_bytes(replace(old, version="0.8.1").to_bytes()).doubt("cells.npz") == ""


def test_percentiles_of_the_display_are_those_of_the_examples() -> None:
    bright = replace(learned(), compared={"black_percentile": 0.1, "white_percentile": 95.0})
    assert Settings(**bright.settings).white_percentile == 95
    with pytest.raises(InputError, match=r"White Percentile 95\.0, but the settings say 99\.9; use 95\.0"):
        bright.check_settings(Settings(method="grid"), "It")


def test_a_segmenter_saves_it_whole(filters: Backbone, tmp_path: Path) -> None:
    model = replace(learned(), model_name=filters.name, model_sha256=filters.sha256)
    segmenter = FewShotSegmenter(filters, settings=Settings(**model.settings)).adopt(model)
    segmenter.save(tmp_path / "cells.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["cells.npz"]
    assert read_object_model(tmp_path / "cells.npz").to_bytes() == model.to_bytes()
    segmenter.save(tmp_path / "cells.npz", "- {index: 1}")
    assert read_object_model(tmp_path / "cells.npz").channels == "- {index: 1}"
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written to .*file"):
        segmenter.save(tmp_path / "file" / "cells.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no object model at .*gone\.npz"):
        read_object_model(tmp_path / "gone.npz")


def test_a_file_that_the_system_does_not_read_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_object_model(tmp_path)
    assert f"{tmp_path} cannot be read: " in str(caught.value)
    assert "damaged" not in str(caught.value)


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


def arrays_in(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as archive:
        return dict(archive)


def saved(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[0] = value
    return changed


MUTATIONS = {
    "missing": lambda array: None,
    "of texts": lambda array: np.full(array.shape, "x"),
    "of objects": lambda array: np.full(array.shape, None),
    "of another width": lambda array: array.astype(np.float16 if array.dtype.kind == "f" else np.int16),
    "of whole numbers": lambda array: array.astype(np.int32),
    "of fractions": lambda array: array.astype(np.float32 if array.dtype == np.float64 else np.float64),
    "complex": lambda array: array.astype(np.complex64),
    "single": lambda array: array.ravel()[:1].reshape(()),
    "with an axis more": lambda array: array[None],
    "longer": lambda array: np.concatenate([array, array]),
    "shorter": lambda array: array[:-1],
    "wider": lambda array: np.concatenate([array, array], axis=-1) if array.ndim > 1 else np.resize(array, (99, 99)),
    "empty": lambda array: array[:0],
    "flat": lambda array: array.reshape(-1, 1),
    "with NaN": lambda array: with_value(array, np.nan),
    "endless": lambda array: with_value(array, np.inf),
    "huge": lambda array: with_value(array, 2**62),
    "negative": lambda array: with_value(array, -(2**62)),
    "zero": lambda array: np.zeros_like(array),
}
HARMLESS = {
    # A model may know of any number of examples, of negative ones, and of levels.
    "areas": {"longer", "shorter"},
    "negatives": {"empty", "longer", "shorter", "zero"},
    "levels": {"with NaN", "wider", "zero"},
    # Version 0.2.0 had none of them, version 0.3.0 no sizes, version 0.5.0 no agreement, version 0.8.0 no exposures.
    "agreement": {"missing", "zero"},
    "wanted": {"missing", "zero"},
    "evidence": {"missing", "zero"},
    "sizes": {"missing"},
    "exposures": {"missing"},
    # Any text; what it says is read with the images.
    "channels": {"missing", "of texts", "with NaN", "endless", "huge", "negative", "zero"},
    **{part: {"zero"} for part in ("mean", "weights", "directions", "colours", "vectors", "out")},
}
"""Mutations, by the last word of the array's name, after which a model still makes sense."""


def mutants(good: dict[str, np.ndarray], mutation: str) -> Iterator[tuple[str, bytes]]:
    """Yield a model for each array that a mutation changes."""
    for name, array in good.items():
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                changed = MUTATIONS[mutation](array)
        except (ValueError, TypeError, IndexError, OverflowError):  # it holds no such value
            continue
        if changed is None:
            yield name, saved({other: value for other, value in good.items() if other != name})
        elif changed.dtype != array.dtype or changed.shape != array.shape or changed.tobytes() != array.tobytes():
            yield name, saved({**good, name: changed})


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("method", MODELS)
def test_each_array_is_looked_at_before_it_is_used(method: str, mutation: str) -> None:
    names, refused = [], {}
    for name, content in mutants(arrays_in(MODELS[method]().to_bytes()), mutation):
        names.append(name)
        try:
            ObjectModel.from_bytes(content)
        except InputError as error:
            refused[name] = str(error)
    assert names
    assert set(names) - set(refused) == {name for name in names if mutation in HARMLESS.get(name.split("_")[-1], ())}
    sentence = "This is not an object model of sam2-fewshot, or it is damaged: .+. Copy the file again, or learn again"
    assert all(re.match(sentence, text) for text in refused.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [("known_boxes", -1), ("known_boxes", 2**40), ("known_boxes", 28), ("known_frames", 0), ("areas", 0),
     ("known_pixels", None)],
)  # fmt: skip
def test_places_that_make_no_sense_are_refused(name: str, value: int | None) -> None:
    arrays = arrays_in(learned().to_bytes())
    arrays[name] = np.zeros_like(arrays[name]) if value is None else with_value(arrays[name], value)
    with pytest.raises(InputError, match="is not an object model"):
        ObjectModel.from_bytes(saved(arrays))


@pytest.mark.parametrize(
    "change",
    [
        {"method": "other"}, {"method": None}, {"target_occupancy": 99}, {"target_occupancy": "x"}, {"max_zoom": None},
        {"max_zoom": float("nan")}, {"compared": {"scorer": "other"}}, {"compared": {"scorer": ["mean"]}},
        {"compared": {"white_percentile": "x"}}, {"compared": {"black_percentile": 60, "white_percentile": 50}},
        {"compared": 5}, {"model_name": ...},
    ],
)  # fmt: skip
def test_facts_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    arrays = arrays_in(learned().to_bytes())
    facts = {**json.loads(str(arrays["facts"])), **change}
    facts = {name: value for name, value in facts.items() if value is not ...}
    with pytest.raises(InputError, match=r"is not an object model .*(settings|method)"):
        ObjectModel.from_bytes(saved({**arrays, "facts": np.array(json.dumps(facts))}))


@pytest.mark.parametrize("facts", ["[]", "{}", "no JSON", "[" * 9999, "null"])
def test_facts_of_another_kind_are_refused(facts: str) -> None:
    arrays = {**arrays_in(learned().to_bytes()), "facts": np.array(facts)}
    with pytest.raises(InputError, match="does not say what it is"):
        ObjectModel.from_bytes(saved(arrays))


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("learned_vectors", (5, 1 << 25), "would take 671 MB"),
        ("learned_vectors", (5, 8), "not as long as its head says"),
        ("known_pixels", (1 << 60,), "would take"),
        ("known_pixels", (64 << 20,), "not of the size of their boxes"),
    ],
)
def test_what_unpacks_to_too_much_is_refused_before(name: str, shape: tuple[int, ...], sentence: str) -> None:
    dtype = np.float32 if name == "learned_vectors" else np.uint8
    header = io.BytesIO()
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    content = io.BytesIO()
    with ZipFile(io.BytesIO(learned().to_bytes())) as good, ZipFile(content, "w", ZIP_DEFLATED) as archive:
        for member in good.namelist():
            if member != f"{name}.npy":
                archive.writestr(member, good.read(member))
        with archive.open(f"{name}.npy", "w") as file:
            file.write(header.getvalue())
            for _ in range(64):
                file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=sentence):
            ObjectModel.from_bytes(content.getvalue())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (8 << 20 if "boxes" not in sentence else 200 << 20)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.npz"
    with path.open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(InputError, match=r"large\.npz has 1,000 MB; an object model .* at most 500"):
        read_object_model(path)


def test_arrays_that_are_there_twice_or_too_many_are_refused() -> None:
    good = learned().to_bytes()
    twice, many = io.BytesIO(good), io.BytesIO(good)
    with ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("areas.npy", b"")
    with ZipFile(many, "a") as archive:
        for number in range(1000):
            archive.writestr(f"{number}.npy", b"")
    for file in (twice, many):
        with pytest.raises(InputError, match="twice, or too many"):
            ObjectModel.from_bytes(file.getvalue())


def test_an_array_may_be_optional() -> None:
    layouts = {"a": Layout("f8", ("n",)), "b": Layout("?", ("n",), is_optional=True)}
    assert set(ArrayArchive(saved({"a": np.ones(3)})).take(layouts)) == {"a"}
    both = ArrayArchive(saved({"a": np.ones(3), "b": np.ones(3, bool)})).take(layouts)
    assert both["b"].all()
    with pytest.raises(Unfit, match="the array b is 2, and not n"):
        ArrayArchive(saved({"a": np.ones(3), "b": np.ones(2, bool)})).take(layouts)
