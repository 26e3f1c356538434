"""A region of a frame is searched as it would be in the whole frame, and each block's result comes at once."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, Frame, InputError, Settings
from sam2_fewshot.annotations.arrays import masks_of
from sam2_fewshot.backbones.wrapped import Interruptible
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.storage.digests import frame_digest
from told import Told


@pytest.fixture(scope="module")
def large(discs):
    """A frame of 3 × 4 pictures of discs."""
    return Frame(np.tile(discs[0], (3, 4, 1)), "large")


@pytest.fixture(scope="module")
def learned(filters, discs):
    frame = Frame(discs[0])
    exemplars = [Exemplar(frame, mask=mask.full()) for mask in [*dict(masks_of(discs[1])).values()][:5]]
    return FewShotSegmenter(filters).fit(exemplars)


@pytest.fixture(scope="module")
def by_grid(filters, discs):
    """The method that searches a dozen blocks in a second."""
    frame = Frame(discs[0])
    exemplars = [Exemplar(frame, mask=mask.full()) for mask in [*dict(masks_of(discs[1])).values()][:3]]
    return FewShotSegmenter(filters, settings=Settings(method="grid", points_per_side=64)).fit(exemplars)


def alike(found, others):
    return all(max(mask_iou(item.instance, other.instance) for other in others) > 0.9 for item in found)


def test_a_region_gives_what_the_whole_frame_gives_there(learned, discs):
    frame = Frame(np.tile(discs[0], (2, 4, 1)))
    whole = learned.predict(frame).detections
    region = (450, 100, 780, 310)
    *_, (box, result) = learned.stream(frame, region)
    assert box[0] <= region[0]
    assert box[1] <= region[1]
    assert box[2] >= region[2]
    assert box[3] >= region[3]
    inside = [item for item in whole if region[0] <= item.bbox[0] and item.bbox[2] <= region[2]]
    inside = [item for item in inside if region[1] <= item.bbox[1] and item.bbox[3] <= region[3]]
    assert len(inside) > 10
    assert alike(inside, result.detections)
    assert len(result.detections) < len(whole)


def test_a_region_gives_nothing_that_lies_beyond_it(by_grid, large):
    *_, (box, result) = by_grid.stream(large, (50, 40, 200, 160))
    middles = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in (item.bbox for item in result.detections)]
    assert middles
    assert all(box[0] <= x < box[2] and box[1] <= y < box[3] for x, y in middles)


def test_a_region_is_taken_as_far_as_it_lies_on_the_frame(by_grid, large):
    height, width = large.shape
    whole = by_grid.plan(large)
    for region in ((-5, -7, width + 3, height + 9), np.array([-70, 0, width, height]), (0.5, 0.0, width - 0.5, 1e9)):
        plan = by_grid.plan(large, region=region)
        assert repr(plan.region) == repr(whole.region) == f"(0, 0, {width}, {height})"
    box = by_grid.plan(large, region=(-90, -90, 30, 30)).region
    assert box == by_grid.plan(large, region=(0, 0, 30, 30)).region


@pytest.mark.parametrize("region", [(9, 9, 9, 40), (40, 40, 10, 10), (900, 0, 950, 9), (-9, -9, 0, 0), (0, 0, 0, 0)])
def test_a_region_without_a_pixel_is_told(by_grid, large, region):
    said = rf"The region \({', '.join(map(str, region))}\) holds no pixel of large, which is 800 × 480 px"
    with pytest.raises(InputError, match=said):
        by_grid.plan(large, region=region)
    with pytest.raises(InputError, match=said):
        next(by_grid.stream(large, region))


def test_a_region_has_its_own_examples(filters, large, discs):
    masks = [mask.full() for mask in dict(masks_of(discs[1])).values()][:3]
    examples = []
    for mask, (x, y) in zip(masks, [(0, 0), (600, 0), (600, 320)], strict=True):
        there = np.zeros(large.shape, bool)
        there[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        examples.append(Exemplar(large, mask=there))
    segmenter = FewShotSegmenter(filters, settings=Settings(method="grid", points_per_side=16)).fit(examples)
    *_, (_, whole) = segmenter.stream(large)
    *_, (box, result) = segmenter.stream(large, (590, 0, 800, 160))
    assert len(whole.examples) == 3
    assert box[0] > 200
    assert [item.bbox for item in result.examples] == [item.bbox for item in whole.examples if item.bbox[0] >= 600][:1]
    # What lies beyond is not detected either, at the border of the region.
    assert len(segmenter.plan(large, region=(590, 0, 800, 160)).known) == 3


def test_blocks_are_given_one_by_one_and_then_together(by_grid, large):
    told: list[tuple[int, int]] = []
    region = (0, 0, 700, 420)
    *parts, (box, last) = by_grid.stream(
        large, region, at_most=100_000, begins=lambda done, total: told.append((done, total))
    )
    assert len(parts) > 3
    assert told == [(done, len(parts)) for done in range(len(parts))]
    assert box[:2] == (0, 0)
    assert box[2] >= 700
    assert box[3] >= 420
    in_parts = [item for _, result in parts for item in result.detections if item.score >= last.threshold]
    assert alike(last.detections, in_parts)
    *_, (_, at_once) = by_grid.stream(large, region)
    assert last.detections
    assert alike(last.detections, at_once.detections)


def test_small_blocks_leave_out_no_long_object(filters):
    rows, columns = np.mgrid[:300, :900]
    labels = np.zeros((300, 900), int)
    for number, column in enumerate(range(50, 880, 100), 1):
        labels[(rows - 50) ** 2 + (columns - column) ** 2 <= 13**2] = number
    wall = (abs(rows - 150) < 8) & (columns >= 200) & (columns < 650)
    noise = np.random.default_rng(0).normal(0, 8, labels.shape)
    pixels = (np.where((labels > 0) | wall, 170, 40) + noise).astype(np.uint8)
    frame = Frame(np.repeat(pixels[..., None], 3, axis=2))
    progress = Told()
    settings = Settings(method="grid", points_per_side=64, similarity_threshold=0.05)
    segmenter = FewShotSegmenter(filters, settings=settings, progress=progress)
    segmenter.fit([Exemplar(frame, mask=labels == number) for number in (1, 2, 3)])
    *_, (_, result) = segmenter.stream(frame, at_most=200**2)
    assert result.blocks > 1
    assert alike(segmenter.predict(frame).detections, result.detections)
    assert max(item.bbox[2] - item.bbox[0] for item in result.detections) > 400
    assert not any("Max Memory" in sentence for sentence in progress.warnings)


def test_one_block_gives_one_result(learned, discs):
    ((box, result),) = learned.stream(Frame(discs[0]))
    assert box == (0, 0, 200, 160)
    assert [item.score for item in result.detections] == [
        item.score for item in learned.predict(Frame(discs[0])).detections
    ]


def test_no_more_than_the_region_and_its_halo_is_read(learned, large):
    read = []

    class Watched:
        name, location, shape, digest = large.name, large.location, large.shape, "watched"

        def read(self, region=None):
            read.append(region)
            return large.read(region)

    list(learned.stream(Watched(), (300, 200, 400, 300)))
    assert read
    assert all(region is not None and (region[2] - region[0]) < large.shape[1] for region in read)


def test_a_reader_that_knows_its_digest_is_not_read_for_it():
    class Known:
        name, location, shape, digest = "known", None, (10**6, 10**6), "abc"

    assert frame_digest(Known()) == "abc"


def test_an_interruptible_backbone_stops_at_the_next_call(filters, discs):
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise InterruptedError

    frame = Frame(discs[0])
    exemplars = [Exemplar(frame, mask=mask.full()) for mask in [*dict(masks_of(discs[1])).values()][:3]]
    segmenter = FewShotSegmenter(Interruptible(filters, check))
    assert segmenter.model_name == filters.name
    assert not calls
    with pytest.raises(InterruptedError):
        segmenter.fit(exemplars)
