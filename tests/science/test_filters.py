"""The backbone of fixed filters: what it promises by itself, and both methods with it from fit to a saved model."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, FewShotWarning, InputError, Settings
from sam2_fewshot.backbones import expected_bytes, open_backbone
from sam2_fewshot.backbones import filters as filters_module
from sam2_fewshot.errors import SettingsError
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.methods.base import Place
from sam2_fewshot.methods.grid import points_in, propose
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.resources import BYTES_PER_PIXEL, reserve
from sam2_fewshot.settings import without_effect

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone, Tile

Discs = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]
MARKED = (1, 2, 3, 4, 5)
WAYS = [
    {"method": "guided"},
    {"method": "grid"},
    {"method": "grid", "features_from": "frame"},
    {"method": "grid", "occupancy_levels": "three", "scorer": "knn"},
    {"method": "grid", "scorer": "lda", "similarity_threshold": 0.0},
]


def settings_of(way: dict[str, object], **more: object) -> Settings:
    return Settings(**{"points_per_side": 16, **way, **more})


def hits(segmenter: FewShotSegmenter, discs: Discs) -> list[int]:
    image, labels = discs
    found = segmenter.segment(image)
    return [
        number
        for number in range(1, labels.max() + 1)
        if any(np.sum(d.mask & (labels == number)) > 0.7 * np.sum(d.mask | (labels == number)) for d in found)
    ]


def fitted(backbone: Backbone, discs: Discs, settings: Settings) -> FewShotSegmenter:
    image, labels = discs
    return FewShotSegmenter(backbone, settings=settings).fit([Exemplar(image, mask=labels == n) for n in MARKED])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_objects_are_learned_and_detected(way: dict[str, object], filters: Backbone, discs: Discs) -> None:
    segmenter = fitted(filters, discs, settings_of(way))
    assert hits(segmenter, discs) == [6, 7, 8]  # all but the examples
    result = segmenter.predict(discs[0])
    assert all(0 <= item.score <= 1 and -1 <= item.similarity <= 1 for item in result.detections)
    assert result.candidates >= 8


@pytest.mark.parametrize("method", ["guided", "grid"])
def test_what_was_learned_is_saved_and_loaded_by_name(
    method: str, filters: Backbone, discs: Discs, tmp_path: Path
) -> None:
    segmenter = fitted(filters, discs, settings_of({"method": method}))
    segmenter.save(tmp_path / "discs.npz")
    loaded = FewShotSegmenter.load(tmp_path / "discs.npz", settings=segmenter.settings)
    assert (loaded.model_name, loaded.device_name) == ("filters", "CPU")
    before, after = segmenter.segment(discs[0]), loaded.segment(discs[0])
    assert [(d.bbox, d.score) for d in before] == [(d.bbox, d.score) for d in after]
    assert before


@pytest.mark.parametrize("method", ["guided", "grid"])
def test_a_frame_is_searched_in_blocks(method: str, filters: Backbone, discs: Discs) -> None:
    wide = np.tile(discs[0], (2, 2, 1))
    settings = settings_of({"method": method})
    whole = fitted(filters, discs, settings)
    memory = (reserve() + 100_000 * BYTES_PER_PIXEL) / 1e9
    small = FewShotSegmenter(filters, settings=settings.changed({"max_memory": memory})).adopt(whole.object_model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewShotWarning)  # so little memory is not enough for objects of that size
        one, several = whole.predict(wide), small.predict(wide)
    assert one.blocks == 1 < several.blocks
    if method == "guided":
        assert len(one.detections) >= 28
        assert len(several.detections) == pytest.approx(len(one.detections), abs=2)
    assert len(several.detections) >= 15  # a grid of so few points meets some of the discs


def test_points_and_negatives_are_examples(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    rows, columns = np.nonzero(labels == 1)
    ground = np.zeros(labels.shape, bool)
    ground[90:120, 80:100] = True
    segmenter = FewShotSegmenter(filters, settings=settings_of({"method": "grid"}))
    segmenter.fit(
        [
            Exemplar(image, point=(columns.mean() + 0.5, rows.mean() + 0.5)),
            Exemplar(image, mask=ground, negative=True),
        ]
    )
    assert segmenter.object_model.areas[0] == pytest.approx(np.sum(labels == 1), rel=0.15)
    assert hits(segmenter, discs) == [2, 3, 4, 5, 6, 7, 8]


def enlarged(tile: Tile, halo: int) -> NDArray[np.float32]:
    """All features of a tile (D, 64 - 2 halo, 64 - 2 halo)."""
    side = 64 - 2 * halo
    return tile.features(halo, np.ones((side, side), bool)).T.reshape(-1, side, side)


def test_a_pyramid_has_the_levels_that_it_says(filters: Backbone, discs: Discs) -> None:
    windows = [(-20, -30, 108, 98), (100, 60, 228, 188)]  # beyond the frame
    done: list[int] = []
    tiles = list(filters.tiles(discs[0], windows, done.append))
    assert sum(done) == 2
    assert filters.strides == (2, 8)
    cells = filters.input_size // filters.strides[0]
    for tile in tiles:
        features = enlarged(tile, 2)
        assert features.shape == (sum(filters.channels), cells - 4, cells - 4)
        assert features.dtype == np.float32
        short = tile.shortened()
        assert 2 * short.level_bytes == tile.level_bytes
        assert np.abs(enlarged(short, 2) - features).max() < 0.01
        centres = features.mean(axis=(1, 2))
        weights = np.eye(len(features), dtype=np.float32)[:2]
        maps = tile.maps(2, centres, weights, weights)
        assert maps.shape == (2, 1 + len(filters.channels), *features.shape[1:])
        assert maps[:, 0] == pytest.approx((features - centres[:, None, None])[:2], abs=1e-6)
        assert np.abs(maps[:, 1:]).max() <= 1 + 1e-5


def test_what_lies_beyond_a_frame_is_its_mirror_image(filters: Backbone, discs: Discs) -> None:
    image = discs[0]
    (beyond,) = filters.tiles(image, [(-20, -30, 108, 98)])
    (padded,) = filters.tiles(np.pad(image, ((40, 0), (40, 0), (0, 0)), mode="reflect"), [(20, 10, 148, 138)])
    assert np.array_equal(enlarged(beyond, 0), enlarged(padded, 0))
    (tiny,) = filters.tiles(image[:1, :1], [(-4, -4, 4, 4)])
    assert np.isfinite(enlarged(tiny, 0)).all()


def test_a_point_gives_the_regions_that_hold_it(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    embedding = filters.embed(image)
    scale = np.array([filters.input_size / image.shape[1], filters.input_size / image.shape[0]])
    points = (np.array([(40.5, 30.5), (2.5, 155.5)]) * scale - 0.5).astype(np.float32)
    answer = filters.prompt(embedding, points, iou_gate=-1.0, stability_gate=0.0)
    assert answer.prompt.tolist() == [0, 0, 0, 1, 1, 1]
    for box, data in zip(answer.boxes[:3], answer.data[:3], strict=True):
        mask = InstanceMask(data, int(box[0]), int(box[1]), labels.shape)
        assert np.sum(mask.full() & (labels == 1)) > 0.8 * np.sum(mask.full() | (labels == 1))
    assert len(filters.prompt(embedding, points, iou_gate=1.0, stability_gate=0.0).prompt) == 0
    assert len(filters.prompt(embedding, points[:0], iou_gate=0.0, stability_gate=0.0).prompt) == 0
    assert len(propose(filters, embedding, Settings(), Quiet(), points_in(Place((0, 0, 1, 1), (1, 1)), 16))) >= 8


def test_a_box_gives_the_region_that_fills_it(filters: Backbone, discs: Discs) -> None:
    image, labels = discs
    scale = np.array([filters.input_size / image.shape[1], filters.input_size / image.shape[0]] * 2)
    boxes = np.array([crop_to_object(labels == number).box for number in (1, 4)])
    answer = filters.prompt_boxes(filters.embed(image), (boxes * scale).astype(np.float32))
    assert answer.prompt.tolist() == [0, 1]
    assert np.abs(answer.boxes - boxes).max() <= 2
    nowhere = np.array([[300, 300, 310, 310]], np.float32)
    assert len(filters.prompt_boxes(filters.embed(image), nowhere).prompt) == 0


def test_it_needs_no_torch_and_no_card() -> None:
    code = (
        "import sys; from sam2_fewshot import Settings; from sam2_fewshot.backbones import open_backbone; "
        "open_backbone('filters', 'auto', Settings()); assert 'torch' not in sys.modules, 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(SettingsError, match="filters computes on the CPU only; choose cpu or auto"):
        open_backbone("filters", "cuda:1", Settings())
    assert expected_bytes("filters") == 0


def test_other_filters_would_have_another_hash(filters: Backbone, discs: Discs, micro: Backbone) -> None:
    assert filters.sha256 == hashlib.sha256(Path(filters_module.__file__).read_bytes()).hexdigest()
    learned = fitted(filters, discs, settings_of({"method": "grid"})).object_model
    with pytest.raises(InputError, match=r"learned with other weights \(filters"):
        FewShotSegmenter(micro, settings=settings_of({"method": "grid"})).adopt(learned)


def test_settings_without_effect_have_none(filters: Backbone, discs: Discs) -> None:
    changed = {
        "target_occupancy": 0.5,
        "points_per_side": 16,
        "scorer": "lda",
        "occupancy_levels": "three",
        "features_from": "frame",
        "predicted_iou_gate": 1.0,
        "stability_gate": 1.0,
        "box_nms_iou": 0.0,
        "max_zoom": 1.0,
        "top_percent": 1.0,
    }
    told = without_effect(Settings(**changed))
    assert [sentence.partition(" was set to ")[0] for sentence in told] == [
        field.title for name, field in Settings.model_fields.items() if name in changed
    ]
    results = [fitted(filters, discs, settings).segment(discs[0]) for settings in (Settings(), Settings(**changed))]
    one, other = ([(item.bbox, item.score) for item in result] for result in results)
    assert one == other
    assert len(one) >= 3
    assert without_effect(Settings(method="grid", **{k: v for k, v in changed.items() if k != "top_percent"})) == []


@pytest.mark.parametrize("mode", ["auto", "top", "otsu"])
def test_the_similarity_threshold_has_no_effect_in_other_modes(mode: str, filters: Backbone, discs: Discs) -> None:
    ways = [Settings(threshold_mode=mode, similarity_threshold=value) for value in (0.5, 0.99)]
    assert [len(without_effect(way)) for way in ways] == [0, 1]
    one, other = ([item.score for item in fitted(filters, discs, way).segment(discs[0])] for way in ways)
    assert one == other
