"""Frames searched in blocks give what they give whole."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scale_scenes import Heard, Watched, as_set, memory_for, scene
from shapely import box

from sam2_fewshot import Exemplar, FewShotSegmenter, Frame, InputError, Settings
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.storage.digests import frame_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bright import BrightSegmenter
    from sam2_fewshot import Detection
    from sam2_fewshot.protocols import Backbone

EXAMPLE = scene(64, 3, seed=5)
SMALL = 120**2


def learned(make: Callable[[int], BrightSegmenter], pixels: int = SMALL) -> BrightSegmenter:
    segmenter = make(pixels)
    segmenter.fit([Exemplar(image=EXAMPLE, mask=EXAMPLE[..., 0] > 100)])
    return segmenter


@pytest.fixture
def fitted(bright: Callable[[int], BrightSegmenter]) -> BrightSegmenter:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[20:37, 20:37] = 200
    large = bright(10**6).fit([Exemplar(image=picture, polygon=box(20, 20, 37, 37))])
    segmenter = bright(SMALL)
    segmenter.adopt(large.object_model)
    return segmenter


@pytest.fixture
def whole(bright: Callable[[int], BrightSegmenter], fitted: BrightSegmenter) -> BrightSegmenter:
    segmenter = bright(10**7)
    segmenter.adopt(fitted.object_model)
    return segmenter


def test_blocks_give_exactly_what_the_whole_gives(fitted: BrightSegmenter, whole: BrightSegmenter) -> None:
    frame = Frame(scene())
    result, other = fitted.predict(frame), whole.predict(frame)
    found = result.detections
    assert as_set(found) == as_set(other.detections)
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    assert all(item.instance.frame_shape == frame.shape for item in found)
    assert result.blocks == len(fitted.plan(frame).blocks) > 9
    assert other.blocks == len(whole.plan(frame).blocks) == 1
    assert result.candidates >= len(found)
    assert {"propose", "outline"} == set(result.seconds) == set(other.seconds)
    assert (result.threshold, result.reason) == (other.threshold, other.reason) == (0.5, "as set")
    assert result.blank == other.blank == 0
    assert as_set(fitted.segment(frame)) == as_set(found)


def test_all_that_was_proposed_comes_from_blocks_too(fitted: BrightSegmenter, whole: BrightSegmenter) -> None:
    frame = Frame(scene())
    assert fitted.predict(frame).proposed is None
    assert whole.predict(frame).proposed is None
    proposed = {}
    for segmenter in (fitted, whole):
        result = segmenter.predict(frame, keep_proposed=True)
        assert result.proposed is not None
        assert all(mask.frame_shape == frame.shape for mask in result.proposed)
        proposed[segmenter] = {(mask.box, mask.data.tobytes()) for mask in result.proposed}
        assert proposed[segmenter] >= {(item.bbox, item.instance.data.tobytes()) for item in result.detections}
    assert proposed[fitted] >= proposed[whole]  # neighbours see some twice, and others cut
    blank = fitted.predict(np.zeros((400, 400, 3), np.uint8), keep_proposed=True)
    assert blank.blank == blank.blocks > 1
    assert not blank.detections
    assert not blank.proposed


def test_an_array_that_is_large_is_searched_in_blocks_too(fitted: BrightSegmenter) -> None:
    picture = scene()
    result = fitted.predict(picture)
    displayed = fitted.as_searched(picture)
    assert as_set(result.detections) == as_set(fitted.segment(Frame(displayed.read())))
    assert result.blocks > 1


def test_the_result_does_not_depend_on_the_grid(fitted: BrightSegmenter) -> None:
    frame = Frame(scene(seed=2))
    results = []
    for shift in ((0, 0), (17, 5), (40, 33)):
        plan = fitted.plan(frame, shift)
        result = fitted.join(frame, plan, [fitted.search(frame, plan, block) for block in plan.blocks])
        results.append(as_set(result.detections))
    assert results[0] == results[1] == results[2]


def test_the_order_of_blocks_does_not_matter(fitted: BrightSegmenter) -> None:
    frame = Frame(scene(seed=3))
    plan = fitted.plan(frame)
    results = [fitted.search(frame, plan, block) for block in plan.blocks]
    forwards, backwards = fitted.join(frame, plan, results), fitted.join(frame, plan, results[::-1])
    assert as_set(forwards.detections) == as_set(backwards.detections)


def test_a_large_frame_is_never_read_whole(fitted: BrightSegmenter) -> None:
    frame = Watched(scene())
    fitted.segment(frame)
    strips = [region for region in frame.regions if region[2] - region[0] == 400]
    assert len(strips) == 1  # the overview reads strips of 16 megapixels, which here is all
    others = [region for region in frame.regions if region not in strips]
    assert max((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in others) <= SMALL


def test_an_object_longer_than_the_halo_is_found_whole(
    fitted: BrightSegmenter, whole: BrightSegmenter, heard: Heard
) -> None:
    picture = scene(count=20)
    picture[200:204, 150:230] = 180  # 80 px long; the blocks overlap by 34
    frame = Frame(picture)
    plan = fitted.plan(frame)
    assert plan.halo == 34
    assert as_set(fitted.segment(frame)) == as_set(whole.segment(frame))
    assert heard.warnings == []


def test_an_object_that_fits_no_window_is_told(fitted: BrightSegmenter, heard: Heard) -> None:
    picture = scene(count=20)
    picture[200:204, 20:380] = 180
    found = fitted.segment(Frame(picture, name="slide.tif"))
    assert max(item.bbox[2] - item.bbox[0] for item in found) < 40
    (sentence,) = heard.warnings
    assert "slide.tif: 1 object is larger than the blocks" in sentence
    assert "34 px" in sentence
    assert "Mark one of them as an example" in sentence


def test_blank_blocks_are_passed_over_and_counted(fitted: BrightSegmenter, whole: BrightSegmenter) -> None:
    picture = np.full((400, 400, 3), 20, np.uint8)
    picture[:150, :150] += scene(150, 10)
    frame = Frame(picture)
    result = fitted.predict(frame)
    assert as_set(result.detections) == as_set(whole.segment(frame))
    assert 0 < result.blank < result.blocks
    empty = fitted.predict(np.zeros((400, 400, 3), np.uint8))
    assert list(empty.detections) == []
    assert empty.blank == empty.blocks


def test_examples_on_a_large_frame_are_learned_from_parts_and_not_found(
    bright: Callable[[int], BrightSegmenter],
) -> None:
    picture = scene(600, seed=4)
    frame = Watched(picture)
    everything = bright(10**7)
    everything.adopt(learned(bright).object_model)
    objects = everything.segment(Frame(picture))
    marked = [item for item in objects if item.bbox[0] != 0][:3]
    segmenter = bright(SMALL)
    ways = [
        Exemplar(image=frame, mask=marked[0].mask),
        Exemplar(image=frame, polygon=marked[1].polygon),
        Exemplar(image=frame, mask=marked[2].mask, negative=True),
    ]
    segmenter.fit(ways)
    assert segmenter.object_model.known_on(Frame(picture)).wanted[0].frame_shape == (600, 600)
    assert (np.asarray(segmenter.object_model.learned["seen"]) < 600).any()
    found = segmenter.segment(frame)
    assert as_set(found) == as_set([item for item in objects if item not in marked])


def test_what_lies_below_the_threshold_comes_from_blocks_too(
    fitted: BrightSegmenter, bright: Callable[..., BrightSegmenter]
) -> None:
    frame = Frame(scene())
    result, other = (
        bright(pixels, similarity_threshold=0.75).adopt(fitted.object_model).predict(frame) for pixels in (SMALL, 10**7)
    )
    assert as_set(result.detections) == as_set(other.detections)
    assert as_set(result.below) == as_set(other.below)
    assert result.detections
    assert all(item.score >= 0.75 for item in result.detections)
    assert result.below
    assert all(0.075 <= item.score < 0.75 for item in result.below)
    assert result.floor == pytest.approx(0.075)


def test_a_long_object_below_the_threshold_is_told_by_the_floor(
    fitted: BrightSegmenter, bright: Callable[..., BrightSegmenter]
) -> None:
    picture = scene()
    picture[200:204, 20:380] = 120  # in no block whole
    higher, lower = (
        bright(SMALL, similarity_threshold=threshold).adopt(fitted.object_model) for threshold in (0.55, 0.45)
    )
    assert 0.55 > higher.predict(Frame(picture)).floor > 120 / 255
    assert lower.predict(Frame(picture)).floor == pytest.approx(0.045)


def test_an_example_off_a_large_frame_is_told(bright: Callable[[int], BrightSegmenter], heard: Heard) -> None:
    frame = Watched(scene(600))
    off = [
        Exemplar(image=frame, polygon=box(900, 900, 950, 950), label="a.geojson, object 1"),
        Exemplar(image=frame, point=(-5.0, 3.0)),
        Exemplar(image=frame, mask=np.ones((3, 3), bool)),
        Exemplar(image=frame),
    ]
    with pytest.raises(InputError, match="None of the 4 examples"):
        bright(500**2).fit(off)
    assert [sentence.split(" is left out")[0] for sentence in heard.warnings] == [
        "a.geojson, object 1",
        "Example 2",
        "Example 3",
        "Example 4",
    ]


def test_too_little_memory_for_the_objects_is_told(fitted: BrightSegmenter, bright: object, heard: Heard) -> None:
    tiny = bright(10)  # type: ignore[operator]
    tiny.adopt(fitted.object_model)
    assert len(tiny.segment(scene(150, 5))) == 5
    (sentence,) = heard.warnings
    assert sentence.startswith("Searching objects of this size takes about 1.")
    assert "may take more than Max Memory allows" in sentence


def test_too_little_memory_is_told_once_also_where_the_whole_frame_is_one_block(
    bright: Callable[[int], BrightSegmenter], heard: Heard
) -> None:
    pixels = np.zeros((1500, 1500, 3), np.uint8)
    pixels[300:1100, 300:1100] = 200
    enough = bright(1500**2)
    enough.fit([Exemplar(image=pixels, polygon=box(300, 300, 1100, 1100))])
    heard.warnings.clear()
    tiny = bright(10)
    tiny.adopt(enough.object_model)
    for name in ("a", "b"):
        assert len(tiny.plan(Frame(pixels, name)).blocks) == 1
    assert len(set(heard.warnings)) == 1
    heard.warnings.clear()
    enough.plan(Frame(pixels))
    assert not heard.warnings


def test_however_little_memory_there_is_the_ground_is_learned_from(
    bright: Callable[[int], BrightSegmenter], heard: Heard
) -> None:
    picture = scene(700) + np.random.default_rng(0).integers(0, 9, (700, 700, 1)).astype(np.uint8)
    frame, boxes = Frame(picture), [box(x, 300, x + 17, 317) for x in (250, 300, 350)]
    segmenter = bright(1).fit([Exemplar(image=frame, polygon=each) for each in boxes])
    for height, width in np.asarray(segmenter.object_model.learned["seen"]):
        assert height * width > 5 * sum(each.area for each in boxes)
    (sentence,) = heard.warnings
    assert sentence.startswith("Learning takes about 1.")
    assert "which may take more than Max Memory allows" in sentence


def test_the_digest_of_strips_is_that_of_the_whole() -> None:
    frame = Watched(scene(50, 2))
    digest = frame_digest(frame, strip=350)
    assert frame.regions[:2] == [(0, 0, 50, 7), (0, 7, 50, 14)]
    assert digest == frame_digest(Frame(scene(50, 2)))


def gridded(heard: Heard) -> FewShotSegmenter:
    settings = Settings(method="grid", points_per_side=16, max_memory=memory_for(SMALL))
    segmenter = FewShotSegmenter("filters", settings=settings, progress=heard)
    return segmenter.fit([Exemplar(image=EXAMPLE, mask=EXAMPLE[..., 0] > 100)])


def test_the_progress_names_the_block(heard: Heard) -> None:
    segmenter, frame, stages = gridded(heard), Frame(scene(200, 10)), ["proposing", "comparing"]
    count = len(segmenter.plan(frame).blocks)
    assert count > 1
    for search in (segmenter.predict, lambda frame: list(segmenter.stream(frame))):
        heard.stages.clear()
        search(frame)
        assert heard.stages == [f"block {i} of {count}: {stage}" for i in range(1, count + 1) for stage in stages]
        heard.stages.clear()
        search(Frame(frame.pixels[:60, :60]))
        assert heard.stages == stages


def test_after_a_search_that_was_stopped_no_block_is_named() -> None:
    class Stopping(Heard):
        def start(self, stage: str, total: int | None = None) -> None:
            super().start(stage, total)
            if stage.startswith("block 2"):
                raise KeyboardInterrupt

    segmenter = gridded(stopping := Stopping())
    with pytest.raises(KeyboardInterrupt):
        segmenter.predict(scene(200, 10))
    stopping.stages.clear()
    segmenter.fit([Exemplar(image=EXAMPLE, mask=EXAMPLE[..., 0] > 100)])
    assert stopping.stages == ["learning"]


def test_other_weights_are_not_adopted(fitted: BrightSegmenter, bright: Callable[[int], BrightSegmenter]) -> None:
    with pytest.raises(InputError, match="other weights"):
        bright(SMALL).adopt(replace(fitted.object_model, model_sha256="0" * 64))


def changed(a: Sequence[Detection], b: Sequence[Detection]) -> int:
    return sum(max((mask_iou(x.instance, y.instance) for y in b), default=0) < 0.8 for x in a)


@pytest.mark.slow  # of blocks alone, test_the_result_does_not_depend_on_the_grid tells
@pytest.mark.parametrize(("kind", "width"), [("filters", 420), ("micro", 1600)])
def test_shifting_the_grid_hardly_changes_what_the_guided_method_finds(
    kind: str, width: int, request: pytest.FixtureRequest, heard: Heard
) -> None:
    backbone: Backbone = request.getfixturevalue(kind)
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[:168, :width]
    grey = rng.normal(40, 6, (168, width))
    labels = np.zeros(grey.shape, np.int32)
    places = [(row, column) for row in range(16, 163, 24) for column in range(16, width - 10, 24)]
    for number, (row, column) in enumerate([(r + rng.integers(-3, 4), c + rng.integers(-3, 4)) for r, c in places], 1):
        disc = (rows - row) ** 2 + (columns - column) ** 2 <= rng.integers(4, 8) ** 2
        grey[disc] += rng.uniform(60, 120)
        labels[disc] = number
    frame = Frame(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))
    segmenter = FewShotSegmenter(backbone, settings=Settings(min_mask_area=10))
    part = Frame(frame.pixels[:160, :160])
    chosen = [number for number in np.unique(labels[20:140, 20:140]) if number][:10]
    segmenter.fit([Exemplar(image=part, mask=labels[:160, :160] == number) for number in chosen])
    results = []
    for shift in ((0, 0), (1, 0)):
        plan = segmenter.plan(frame, shift, at_most=1)  # the smallest blocks
        assert len(plan.blocks) > 1
        result = segmenter.join(frame, plan, [segmenter.search(frame, plan, block) for block in plan.blocks])
        results.append(result.detections)
    assert len(results[0]) > 100
    assert changed(results[0], results[1]) <= 0.01 * len(results[0])
    assert changed(results[1], results[0]) <= 0.01 * len(results[1])
