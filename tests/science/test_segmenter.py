from __future__ import annotations

import copy
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from shapely import Point, Polygon, box

from sam2_fewshot import (
    CheckpointError,
    Exemplar,
    FewShotSegmenter,
    FewShotWarning,
    Frame,
    InputError,
    Location,
    Settings,
    SettingsError,
)
from sam2_fewshot.geometry.outlines import crop_to_object, polygon_to_mask
from sam2_fewshot.methods.grid import Candidate, Prototype, in_one_part
from sam2_fewshot.rendering.channels import as_reader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.records import Detection

Discs = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]

QUICK = Settings(method="grid", points_per_side=16)
SHOWN = (1, 3, 5)


@dataclass
class Listener:
    """A Progress that remembers."""

    stages: list[tuple[str, int | None]] = field(default_factory=list)
    steps: int = 0
    warnings: list[str] = field(default_factory=list)

    def start(self, stage: str, total: int | None = None) -> None:
        self.stages.append((stage, total))

    def advance(self, steps: int = 1) -> None:
        self.steps += steps

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def fitted(filters: Backbone, discs: Discs, listener: Listener) -> FewShotSegmenter:
    image, labels = discs
    segmenter = FewShotSegmenter(filters, settings=QUICK, progress=listener)
    return segmenter.fit([Exemplar(image, mask=labels == number) for number in SHOWN])


@pytest.fixture(scope="module")
def found(fitted: FewShotSegmenter, discs: Discs) -> list[Detection]:
    return fitted.segment(discs[0])


class Nameless:
    """A reader without a location."""

    name, shape = "a.tif", (40, 50)

    def read(self, region: object = None) -> NDArray[np.uint8]:
        return np.zeros((*self.shape, 3), np.uint8)


class Shaped(Frame):
    """A reader whose shape is what a user's may be."""

    kind: Any = tuple

    @property
    def shape(self) -> Any:
        return self.kind(self.pixels.shape[:2])


class InALine(Shaped):
    kind = list


class InAnArray(Shaped):
    kind = np.array


class OfNumPy(Shaped):
    def kind(self, shape: tuple[int, int]) -> Any:
        return tuple(np.array(shape))


def test_a_reader_whose_shape_was_made_plain_may_be_copied() -> None:
    reader = as_reader(InALine(np.zeros((4, 6, 3), np.uint8)), Settings())
    for each in (copy.copy(reader), copy.deepcopy(reader)):
        assert each.shape == (4, 6)


def best_iou(found: list[Detection], truth: NDArray[np.bool_]) -> float:
    return max((np.sum(d.mask & truth) / np.sum(d.mask | truth) for d in found), default=0.0)


def direction(segmenter: FewShotSegmenter) -> NDArray[np.float32]:
    learned = segmenter.object_model.learned
    return Prototype(learned["vectors"], learned["negatives"]).direction


def test_the_others_are_found_and_the_examples_are_not(found: list[Detection], discs: Discs) -> None:
    labels = discs[1]
    others = [number for number in range(1, labels.max() + 1) if number not in SHOWN]
    assert sum(best_iou(found, labels == number) > 0.7 for number in others) >= len(others) - 1
    assert all(best_iou(found, labels == number) < 0.5 for number in SHOWN)


def test_a_detection_tells_all_about_itself(found: list[Detection], discs: Discs) -> None:
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    for d in found:
        assert 0.5 <= d.score <= 1
        assert d.score == pytest.approx(max(d.similarity, 0))
        assert d.mask.shape == discs[1].shape
        assert d.mask.dtype == bool
        assert d.area == d.mask.sum()
        x0, y0, x1, y1 = d.bbox
        assert d.mask[y0:y1, x0:x1].sum() == d.area
        assert d.polygon.is_valid
        assert polygon_to_mask(d.polygon, d.mask.shape).area == pytest.approx(d.area, rel=0.1)
        assert d.location == Location()
        assert 0 <= d.predicted_iou <= 1


def test_the_run_is_reported(fitted: FewShotSegmenter, discs: Discs, listener: Listener) -> None:
    result = fitted.predict(discs[0])
    assert result.candidates >= len(result.detections)
    assert list(result.seconds) == ["encode", "propose", "compare", "outline"]
    assert ("learning", 3) in listener.stages
    assert ("proposing", 256) in listener.stages
    assert any(stage == "comparing" and total is not None for stage, total in listener.stages)


def test_a_mask_with_a_crumb_is_no_second_detection() -> None:
    """A mask with a crumb far off has a large box and survives suppression; without the crumb it is a double."""
    frame = (100, 100)
    whole = np.zeros(frame, bool)
    whole[10:30, 10:30] = True
    crumbed = whole.copy()
    crumbed[80, 80] = True
    candidates = [Candidate(crop_to_object(mask), iou) for mask, iou in ((whole, 0.9), (crumbed, 0.8))]
    (left,) = in_one_part(candidates, 0.7)
    assert left.mask.box == (10, 10, 30, 30)
    assert in_one_part([], 0.7) == []


def test_another_picture_of_the_kind_has_all_its_objects_found(fitted: FewShotSegmenter, discs: Discs) -> None:
    image, labels = discs
    flipped, truth = np.ascontiguousarray(image[:, ::-1]), labels[:, ::-1]
    found = fitted.segment(Frame(flipped, "flipped", Location(xy=3, z=1)))
    assert sum(best_iou(found, truth == number) > 0.7 for number in range(1, 9)) >= 7
    assert {d.location for d in found} == {Location(xy=3, z=1)}


def test_a_threshold_of_one_finds_nothing(filters: Backbone, fitted: FewShotSegmenter, discs: Discs) -> None:
    strict = FewShotSegmenter(filters, settings=QUICK.changed({"similarity_threshold": 1.0}))
    strict.adopt(fitted.object_model)
    result = strict.predict(discs[0])
    assert list(result.detections) == []
    assert result.candidates > 0


def test_polygons_and_points_teach_what_masks_teach(filters: Backbone, fitted: FewShotSegmenter, discs: Discs) -> None:
    image, labels = discs
    other = FewShotSegmenter(filters, settings=QUICK)
    for number, way in ((1, "polygon"), (3, "point")):
        rows, columns = np.nonzero(labels == number)
        x, y = columns.mean() + 0.5, rows.mean() + 0.5
        shape = {"polygon": Point(x, y).buffer(12.5)} if way == "polygon" else {"point": (x, y)}
        other.fit([Exemplar(image, **shape)])
        assert other.object_model.areas[0] == pytest.approx(np.sum(labels == number), rel=0.15)
        assert direction(other) @ direction(fitted) > 0.95


@pytest.mark.parametrize("points", [[(10, 10), (30, 10), (30, 30.5)], np.array([(10, 10), (30, 10), (30, 30.5)])])
def test_an_outline_may_be_given_by_its_points(discs: Discs, points: Any) -> None:
    assert Exemplar(discs[0], polygon=points).polygon == Polygon([(10, 10), (30, 10), (30, 30.5)])


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ({"polygon": [(1, 2), (3, 4)]}, r"at least three points \(x, y\), but it is \[\(1, 2\), \(3, 4\)\]\."),
        ({"polygon": np.zeros((4, 3))}, "must be a shapely polygon or at least three points"),
        ({"polygon": "cells.geojson"}, "must be a shapely polygon .* but it is 'cells.geojson'"),
        ({"box": (1, 2, 3)}, r"The box .* must be 4 numbers \(x0, y0, x1, y1\), but it is \(1, 2, 3\)\."),
        ({"point": (1, 2, 3)}, r"The point .* must be 2 numbers \(x, y\), but it is \(1, 2, 3\)\."),
        ({"point": "ab"}, "must be 2 numbers"),
    ],
)
def test_what_is_no_outline_box_or_point_is_refused(discs: Discs, way: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Exemplar(discs[0], **way)


def test_examples_may_come_one_by_one(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    segmenter = FewShotSegmenter(filters, settings=QUICK)
    segmenter.fit(Exemplar(image, mask=labels == number) for number in SHOWN)
    assert len(segmenter.object_model.known) == len(SHOWN)


def test_a_negative_example_takes_its_like_away(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    segmenter = FewShotSegmenter(filters, settings=QUICK)
    wanted = [Exemplar(image, mask=labels == 1)]
    ground = np.zeros(labels.shape, bool)
    ground[90:120, 80:100] = True
    segmenter.fit([*wanted, Exemplar(image, mask=ground, negative=True)])
    objects = segmenter.object_model
    assert len(objects.learned["vectors"]) == 1
    assert len(objects.learned["negatives"]) == 1
    assert len(objects.known) == 2
    prototype = Prototype(objects.learned["vectors"], objects.learned["negatives"])
    assert prototype.nearer_to_negatives(prototype.negatives).all()
    assert not prototype.nearer_to_negatives(prototype.vectors).any()


def test_a_grey_array_is_stretched_as_files_are(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    segmenter = FewShotSegmenter(filters, settings=QUICK)
    dim = image[..., 0].astype(np.uint16) * 11 + 4000
    segmenter.fit([Exemplar(dim, mask=labels == 1)])
    stretched = direction(segmenter)
    segmenter.fit([Exemplar(image[..., 0], mask=labels == 1)])
    assert direction(segmenter) @ stretched > 0.99


OUTSIDE = "no pixel of its image"


@pytest.mark.parametrize(
    ("marked", "why"),
    [
        ({"mask": np.zeros((160, 200), bool)}, "its mask is empty"),
        ({"mask": np.ones((20, 20), bool)}, r"shape \(20, 20\)"),
        ({"polygon": box(500, 500, 600, 600)}, OUTSIDE),
        ({"polygon": Polygon([(3, 3), (9, 9), (6, 6)])}, "no area"),
        ({"point": (200.0, 10.0)}, "outside its image"),
        ({"point": (float("nan"), 10.0)}, "outside its image"),
        ({}, "not 0"),
        ({"point": (1.0, 1.0), "polygon": box(0, 0, 5, 5)}, "not 2"),
    ],
)
def test_a_bad_example_is_left_out_by_name(
    filters: Backbone, discs: Discs, marked: dict[str, object], why: str
) -> None:
    image, labels = discs
    listener = Listener()
    segmenter = FewShotSegmenter(filters, settings=QUICK, progress=listener)
    segmenter.fit([Exemplar(image, mask=labels == 2), Exemplar(image, **marked, label="cells.json, object 7")])
    assert len(segmenter.object_model.learned["vectors"]) == 1
    (warning,) = listener.warnings
    assert warning.startswith("cells.json, object 7 is left out")
    assert re.search(why, warning), warning
    with pytest.raises(InputError, match="The example cannot be learned from"):
        segmenter.fit([Exemplar(image, **marked)])


def test_a_crossing_outline_is_mended_and_said(filters: Backbone, discs: Discs) -> None:
    listener = Listener()
    segmenter = FewShotSegmenter(filters, settings=QUICK, progress=listener)
    segmenter.fit([Exemplar(discs[0], polygon=Polygon([(30, 20), (60, 50), (60, 20), (30, 26)]))])
    assert "crosses itself" in listener.warnings[0]
    assert listener.warnings[0].startswith("Example 1")


def test_an_example_over_the_whole_frame_is_questioned(filters: Backbone, discs: Discs) -> None:
    segmenter = FewShotSegmenter(filters, settings=QUICK)
    with pytest.warns(FewShotWarning, match="covers 100 %"):
        segmenter.fit([Exemplar(discs[0], mask=np.ones((160, 200), bool))])


def test_every_fit_says_what_it_left_out_at_the_callers_line(filters: Backbone, discs: Discs) -> None:
    segmenter = FewShotSegmenter(filters, settings=QUICK)
    examples = [Exemplar(discs[0], mask=discs[1] == 1), Exemplar(discs[0], mask=discs[1] == 99, label="nothing")]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(2):
            segmenter.fit(examples)
            for _ in range(2):
                segmenter._progress.warn("Said of every block.")
    assert [str(each.message) for each in told] == 2 * [
        "nothing is left out: its mask is empty.",
        "Said of every block.",
    ]
    assert {each.filename for each in told} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error", FewShotWarning)
        with pytest.raises(FewShotWarning, match="nothing is left out"):
            segmenter.fit(examples)
        with pytest.raises(FewShotWarning, match="nothing is left out"):
            exec("segmenter.fit(examples)", {"segmenter": segmenter, "examples": examples})  # by a host without a name
        warnings.simplefilter("ignore", FewShotWarning)
        segmenter.fit(examples)


def test_a_result_may_be_edited(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    segmenter = FewShotSegmenter(filters, settings=QUICK).fit([Exemplar(image, mask=labels == n) for n in SHOWN])
    learned, areas = segmenter.object_model.to_bytes(), [item.area for item in segmenter.predict(image).examples]
    assert len(areas) == len(SHOWN)
    for item in segmenter.predict(image).examples:
        item.instance.data[:] = False
    assert segmenter.object_model.to_bytes() == learned
    assert [item.area for item in segmenter.predict(image).examples] == areas


def test_of_too_many_examples_some_are_taken_evenly(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    listener = Listener()
    segmenter = FewShotSegmenter(filters, settings=QUICK.changed({"max_examples": 2}), progress=listener)
    segmenter.fit([Exemplar(image, mask=labels == number) for number in (1, 2, 3, 4)])
    assert len(segmenter.object_model.learned["vectors"]) == 2
    assert segmenter.object_model.areas.tolist() == [np.sum(labels == 1), np.sum(labels == 4)]
    assert len(segmenter.object_model.known) == 4
    assert "Of 4 examples 2" in listener.warnings[0]


def test_no_examples_are_refused(filters: Backbone, discs: Discs) -> None:
    segmenter = FewShotSegmenter(filters, settings=QUICK)
    with pytest.raises(InputError, match="no examples"):
        segmenter.fit([])
    with pytest.raises(InputError, match="The example cannot be learned from"):
        segmenter.fit([Exemplar(discs[0], mask=discs[1] == 1, negative=True)])
    with pytest.raises(InputError, match="Nothing was learned"):
        segmenter.segment(discs[0])
    with pytest.raises(InputError, match="Nothing was learned"):
        segmenter.save("nowhere.npz")


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.zeros((4, 4, 5)), r"\(4, 4, 5\)"),
        (np.zeros((3, 4, 4, 4)), r"\(3, 4, 4, 4\)"),
        (np.zeros(7), r"\(7,\)"),
        (np.zeros((0, 5)), "no pixels"),
        (np.full((5, 5), np.nan), "no finite value"),
        (np.zeros((5, 5), complex), "complex128"),
        (np.array([["a", "b"]]), "<U1"),
        (np.eye(4)[..., None] * np.arange(4), r"fourth channel differs.*Leave it out with image\[\.\.\., :3\]"),
        ("cells/a.tif", r"The path 'cells/a\.tif' was given as an image.*Read the file first"),
        (Path("a.tif"), r"The path 'a\.tif' was given"),
        (Nameless(), "type Nameless was given .* a reader with name, location, shape, read; it has no location"),
        (5, "type int was given .* it has no name and no location and no shape and no read"),
    ],
)
def test_what_is_not_an_image_is_refused(fitted: FewShotSegmenter, image: NDArray[np.generic], why: str) -> None:
    with pytest.raises(InputError, match=why):
        fitted.segment(image)


@pytest.mark.parametrize("kind", [InALine, InAnArray, OfNumPy])
def test_examples_are_known_again_whatever_numbers_a_shape_has(
    filters: Backbone, discs: Discs, kind: type[Shaped]
) -> None:
    image, labels = discs
    plain, reader = Frame(image), kind(image)
    fitted, other = (
        FewShotSegmenter(filters, settings=QUICK).fit([Exemplar(each, mask=labels == n) for n in SHOWN])
        for each in (plain, reader)
    )
    whole = [item.bbox for item in fitted.predict(plain).examples]
    assert len(whole) == len(SHOWN)
    for segmenter, frame in ((fitted, reader), (other, plain), (other, reader)):
        assert [item.bbox for item in segmenter.predict(frame).examples] == whole
        *_, (box, result) = segmenter.stream(frame)
        assert [item.bbox for item in result.examples] == whole
        assert repr(box) == "(0, 0, 200, 160)"
    assert other.object_model.to_bytes() == fitted.object_model.to_bytes()


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.zeros((40, 50), np.uint8), r"uint8 of shape \(40, 50\)"),
        (np.zeros((40, 50, 3), np.uint16), r"uint16 of shape \(40, 50, 3\)"),
        (np.zeros((40, 50, 3)), "float64"),
        (np.zeros((40, 50, 4), np.uint8), r"uint8 of shape \(40, 50, 4\)"),
    ],
)
def test_a_reader_of_other_pixels_is_refused(
    filters: Backbone, fitted: FewShotSegmenter, pixels: NDArray[Any], what: str
) -> None:
    reader = Frame(pixels, "a.tif")
    said = rf"a\.tif: what its reader gives is {what}.*must be uint8 of shape \(height, width, 3\)"
    with pytest.raises(InputError, match=said):
        fitted.segment(reader)
    with pytest.raises(InputError, match=said):
        FewShotSegmenter(filters).fit([Exemplar(reader, mask=np.eye(40, 50, dtype=bool))])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1), np.uint8),
        np.zeros((40, 50), np.uint16),
        np.full((30, 30, 3), 255, np.uint8),
        np.arange(900, dtype=np.float64).reshape(30, 30, 1),
        np.zeros((20, 30, 4), np.uint8),
        np.eye(25, dtype=bool),
        np.where(np.eye(25) > 0, np.nan, 3e300),
        np.arange(100, dtype=np.int64).reshape(10, 10) * 10**15,
    ],
)
def test_an_odd_image_is_no_accident(fitted: FewShotSegmenter, image: NDArray[np.generic]) -> None:
    for detection in fitted.segment(image):
        assert np.isfinite(detection.score)


def test_what_was_learned_is_saved_and_loaded(
    filters: Backbone, fitted: FewShotSegmenter, found: list[Detection], discs: Discs, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "discs.npz")
    again = FewShotSegmenter.load(tmp_path / "discs.npz", filters, settings=QUICK).segment(discs[0])
    assert [d.bbox for d in again] == [d.bbox for d in found]
    assert [d.score for d in again] == pytest.approx([d.score for d in found], abs=1e-6)


def test_a_saved_model_finds_its_checkpoint_by_name(micro: Backbone, discs: Discs, tmp_path: Path) -> None:
    image, labels = discs
    FewShotSegmenter(micro, settings=QUICK).fit([Exemplar(image, mask=labels == 1)]).save(tmp_path / "discs.npz")
    loaded = FewShotSegmenter.load(tmp_path / "discs.npz", device="cpu")
    assert loaded.model_name == "sam2.1_hiera_micro.pt"
    assert len(loaded.model_sha256) == 64
    assert "CPU" in loaded.device_name


def test_other_crops_or_weights_than_the_saved_ones_are_refused(
    filters: Backbone, micro: Backbone, fitted: FewShotSegmenter, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "discs.npz")
    with pytest.raises(InputError, match=r"Target Occupancy 0\.2, but the settings say 0\.3"):
        FewShotSegmenter.load(tmp_path / "discs.npz", filters, settings=QUICK.changed({"target_occupancy": 0.3}))
    with pytest.raises(InputError, match=r"other weights \(filters, .*micro\.pt"):
        FewShotSegmenter.load(tmp_path / "discs.npz", micro)
    with pytest.raises(InputError, match=r"This was learned with Method grid, but the settings say guided"):
        FewShotSegmenter(filters, settings=Settings(method="guided")).adopt(fitted.object_model)
    with pytest.raises(InputError, match=r"This was learned with Target Occupancy 0\.2, but the settings say 0\.3"):
        FewShotSegmenter(filters, settings=QUICK.changed({"target_occupancy": 0.3})).adopt(fitted.object_model)


def test_settings_are_changed_by_making_another_segmenter(
    filters: Backbone, fitted: FewShotSegmenter, found: list[Detection], discs: Discs
) -> None:
    strict = QUICK.changed({"similarity_threshold": (found[1].score + found[2].score) / 2})
    with pytest.raises(AttributeError, match=r"Make another one with them.*adopt\(segmenter\.object_model\)"):
        fitted.settings = strict  # type: ignore[assignment]
    assert fitted.settings == QUICK
    again = FewShotSegmenter(filters, settings=strict).adopt(fitted.object_model).segment(discs[0])
    assert [d.bbox for d in again] == [d.bbox for d in found[:2]]


def test_values_of_settings_by_name_are_settings(filters: Backbone, fitted: FewShotSegmenter, tmp_path: Path) -> None:
    values = {"method": "grid", "points_per_side": 16}
    assert FewShotSegmenter(filters, settings=values).settings == QUICK
    fitted.save(tmp_path / "discs.npz")
    assert FewShotSegmenter.load(tmp_path / "discs.npz", filters, settings=values).settings == QUICK
    with pytest.raises(SettingsError, match="There is no setting called 'a'"):
        FewShotSegmenter(filters, settings={"a": 1})


@pytest.mark.parametrize("model", [None, 3, b"filters", np.zeros((2, 2))])
def test_what_is_no_model_is_refused_at_once(model: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^The model is .+, but it must be the name of a checkpoint"):
        FewShotSegmenter(model)


def test_what_are_no_examples_is_refused(filters: Backbone, fitted: FewShotSegmenter, discs: Discs) -> None:
    image, labels = discs
    example = Exemplar(image, mask=labels == 1)
    wrong: tuple[tuple[Any, str], ...] = (
        (example, "a single Exemplar"),
        (None, "a single NoneType"),
        ([labels == 1], "a list that holds ndarray"),
        ([example, None], "a list that holds NoneType"),
    )
    segmenter = FewShotSegmenter(filters, settings=QUICK)
    for given, told in wrong:
        with pytest.raises(InputError, match=rf"^fit takes a list of examples, .+ but it was given {told}\.$"):
            segmenter.fit(given)
    with pytest.raises(InputError, match=r"adopt takes an object model.+ of type FewShotSegmenter\."):
        segmenter.adopt(fitted)  # type: ignore[arg-type]


def test_arrays_are_searched_in_blocks_too(fitted: FewShotSegmenter, found: list[Detection], discs: Discs) -> None:
    *_, (region, result) = fitted.stream(discs[0])
    assert [d.bbox for d in result.detections] == [d.bbox for d in found]
    assert fitted.plan(discs[0]).region == region
    assert fitted.least_memory(discs[0]) > 0


def test_a_saved_object_model_may_lie_in_any_buffer(filters: Backbone, fitted: FewShotSegmenter) -> None:
    content = fitted.object_model.to_bytes()
    for buffer in (bytearray(content), memoryview(content)):
        adopted = FewShotSegmenter(filters, settings=QUICK).adopt_saved(buffer)
        assert adopted.object_model.to_bytes() == content


def test_a_name_is_needed_to_save(fitted: FewShotSegmenter) -> None:
    with pytest.raises(InputError, match="name the file that is to be written"):
        fitted.save("")
