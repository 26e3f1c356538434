"""Marks are eroded before they are learned from where they touch, and detections are grown back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.methods.guided.erosion import depth_of, eroded, restored, restored_in_turn
from sam2_fewshot.methods.guided.limits import for_candidates
from sam2_fewshot.methods.guided.model import GuidedModel
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from told import Told

SHAPE = (120, 160)


def mask_of(full: NDArray[np.bool_]) -> InstanceMask:
    """Return a mask of a frame, cropped."""
    whole = InstanceMask(full, 0, 0, (full.shape[0], full.shape[1])).within((0, 0, full.shape[1], full.shape[0]))
    assert whole is not None
    return whole


def box(x0: int, y0: int, x1: int, y1: int) -> InstanceMask:
    return InstanceMask(np.ones((y1 - y0, x1 - x0), bool), x0, y0, SHAPE)


def ellipse(x: float, y: float, across: float, down: float) -> InstanceMask:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return mask_of(((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 < 1)


def test_what_is_eroded_and_grown_back_is_as_it_was() -> None:
    for mask in (ellipse(60, 50, 20, 20), ellipse(60, 50, 40, 12), box(20, 20, 60, 34)):
        core = eroded(mask, 3)
        assert core.area < mask.area
        assert not core.full()[~mask.full()].any()
        assert mask_iou(restored([core], 3)[0], mask) > 0.95


def test_at_most_half_the_depth_is_taken() -> None:
    disc = ellipse(60, 50, 20, 20)
    core = eroded(disc, 50)
    assert core.area == pytest.approx(disc.area / 4, rel=0.05)
    assert mask_iou(restored([core], 50)[0], disc) > 0.95


@pytest.mark.parametrize("width", range(1, 14))
def test_what_is_thin_is_kept_and_comes_back_a_pixel_too_wide_at_most(width: int) -> None:
    rod = box(20, 30, 70, 30 + width)
    core = eroded(rod, 6)
    assert core.area
    (back,) = restored([core], 6)
    x0, y0, x1, y1 = back.box
    assert x0 >= 19
    assert x1 <= 71
    assert 29 <= y0 <= 30
    assert 30 + width <= y1 <= 31 + width


def test_the_border_of_the_frame_is_no_outside() -> None:
    core = eroded(box(0, 0, 40, SHAPE[0]), 5)
    assert core.box == (0, 0, 35, SHAPE[0])
    assert restored([core], 5)[0].box == (0, 0, 40, SHAPE[0])
    everything = box(0, 0, SHAPE[1], SHAPE[0])
    assert eroded(everything, 5).area == everything.area


def test_neighbours_meet_where_they_met() -> None:
    first, second = box(20, 20, 60, 32), box(20, 32, 60, 44)
    cores = [eroded(first, 4), eroded(second, 4)]
    assert not (cores[0].full() & ndimage.binary_dilation(cores[1].full(), iterations=4)).any()
    back = restored(cores, 4)
    assert [mask_iou(one, other) > 0.95 for one, other in zip(back, (first, second), strict=True)] == [True, True]
    assert not (back[0].full() & back[1].full()).any()


def test_nothing_is_grown_over_what_lies_beside() -> None:
    first, second = box(20, 20, 60, 32), box(20, 32, 60, 44)
    (back,) = restored([eroded(second, 4)], 4, beside=[first])
    assert mask_iou(back, second) > 0.95
    assert not (back.full() & first.full()).any()
    far = box(20, 80, 60, 92)
    assert restored([eroded(second, 4)], 4, beside=[far])[0].area > second.area * 0.95


def test_what_lies_wholly_under_another_object_is_left_as_it_is() -> None:
    inside = box(30, 24, 40, 28)
    assert restored([inside], 4, beside=[box(20, 20, 60, 32)]) == [inside]


def test_a_small_neighbour_cuts_no_notch() -> None:
    core, speck = box(40, 40, 60, 60), box(63, 50, 64, 51)
    alone = restored([core], 8)[0]
    both = restored([core, speck], 8)
    assert (alone.full() & ~both[0].full() & ~both[1].full()).sum() == 0
    beside = restored([core], 8, beside=[speck])[0]
    assert alone.area - beside.area < 9  # only about the speck


def test_what_is_surer_is_grown_first_and_what_lies_under_it_goes() -> None:
    known, surer, beside = box(20, 8, 60, 20), box(24, 22, 56, 30), box(24, 36, 56, 44)
    # On what is grown about the core of the surer one, so that nothing shows it as long as only cores are compared.
    under = box(26, 31, 54, 33)
    odds, depths = np.array([-1.0, 0.0, -2.0, 1.0]), np.full(4, 4.0)
    whole = restored_in_turn({3: surer, 0: beside, 2: under}, odds, depths, [known])
    assert list(whole) == [3, 0]
    assert whole[3].box == (20, 20, 60, 34)
    assert whole[0].box[::2] == (20, 60)
    assert whole[0].area > beside.area
    assert not (whole[3].full() & (whole[0].full() | known.full())).any()
    assert restored_in_turn({}, odds, depths, [known]) == {}


def test_each_core_is_grown_by_its_own_depth() -> None:
    first, second = ellipse(40, 60, 20, 20), ellipse(110, 60, 20, 20)
    back = restored([eroded(first, 3), eroded(second, 6)], [3, 6])
    assert [mask_iou(one, other) > 0.95 for one, other in zip(back, (first, second), strict=True)] == [True, True]


def test_a_mask_alone_is_grown_as_it_is_among_others() -> None:
    discs = [ellipse(30, 30, 12, 12), ellipse(80, 90, 16, 16), ellipse(120, 30, 20, 20)]
    cores = [eroded(disc, 4) for disc in discs]
    for alone, among in zip((restored([core], 4)[0] for core in cores), restored(cores, 4), strict=True):
        assert alone.box == among.box
        assert (alone.data == among.data).all()


def test_of_overlapping_cores_the_first_keeps_what_they_share() -> None:
    one, other = box(20, 20, 40, 40), box(36, 20, 56, 40)
    first, second = restored([one, other], 2)
    assert (first.full() & one.full()).sum() == one.area
    assert not (first.full() & second.full()).any()


def test_without_erosion_masks_stay() -> None:
    masks = [box(20, 20, 40, 40), box(36, 20, 56, 40)]
    assert restored(masks, 0.0) == masks
    assert restored([], 3.0) == []


def test_pieces_give_what_the_whole_gives() -> None:
    rng = np.random.default_rng(1)
    cores = [box(x, y, x + 4, y + 4) for x, y in rng.integers(2, 110, (40, 2)).tolist() if y < 110]
    whole = restored(cores, 5)
    in_pieces = restored(cores, 5, piece=17)
    for one, other in zip(whole, in_pieces, strict=True):
        assert one.box == other.box
        assert (one.data == other.data).all()


def test_by_how_much_marks_are_eroded() -> None:
    discs = [ellipse(30, 30, 12, 12), ellipse(80, 60, 16, 16), ellipse(120, 60, 20, 20)]
    assert depth_of(discs) == pytest.approx(8, abs=0.6)
    # Nothing can be taken from what is two pixels wide, and too much would be of a cross of thin arms.
    assert depth_of([box(20, 20, 60, 22)]) == 0
    cross = np.zeros(SHAPE, bool)
    cross[40:80, 40:80] = True
    cross[58:61, 5:155] = cross[5:115, 58:61] = True
    assert depth_of([mask_of(cross)]) == 0
    assert depth_of([]) == 0
    assert depth_of([box(0, 0, SHAPE[1], SHAPE[0])]) == 0


def test_candidates_may_be_as_small_as_the_cores_of_whole_objects(of_colony: FewShotSegmenter) -> None:
    learned = GuidedModel.from_arrays(of_colony.object_model.learned)  # of examples of 270 px
    assert for_candidates(learned, (270, 300)) == (27, 300)
    assert for_candidates(learned, (271, 269)) == (0, 0)
    assert for_candidates(replace(learned, erosion=0), (270, 300)) == (270, 300)
    for side in range(1, 40):
        square = box(20, 20, 20 + side, 20 + side)
        assert eroded(square, 50).area >= for_candidates(replace(learned, examples=(side**2,) * 2), (side**2, 0))[0]


def test_nothing_is_grown_to_the_far_side_of_a_thin_neighbour() -> None:
    core, wall = box(40, 40, 60, 60), box(62, 20, 64, 80)
    assert restored([core], 8, beside=[wall])[0].box[2] <= 62
    assert restored([core, wall], 8)[0].box[2] <= 62


def test_outlines_do_not_depend_on_what_is_far_away() -> None:
    core, speck, far = box(20, 20, 40, 40), box(43, 30, 44, 31), ellipse(130, 60, 20, 20)
    near = restored([core, speck], 8)
    among = restored([core, speck, eroded(far, 16)], [8, 8, 16])
    assert near[0].area == among[0].area


def colony(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return a picture of rods side by side that hardly part, and their labels, which touch."""
    rng = np.random.default_rng(seed)
    height, width, long, wide = 160, 240, 30, 9
    labels = np.zeros((height, width), np.int32)
    for row in range(9):
        shift = int(rng.integers(0, long))
        for place in range(5):
            x, y = 24 + shift + place * long, 36 + row * wide
            labels[y : y + wide, x : x + long] = labels.max() + 1
    depth = np.zeros((height, width))
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        inside = np.pad(labels[place] == number, 1)
        depth[place] = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
    picture = 150 - 90 * np.clip(depth - 0.5, 0, 2.5) / 2.5 * (labels > 0) + rng.normal(0, 4, labels.shape)
    return ndimage.gaussian_filter(picture, 1.0).clip(0, 255).astype(np.uint8), labels


def enlarged(picture: NDArray[np.uint8], labels: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return a picture and its labels at twice the size."""
    smooth = ndimage.zoom(picture.astype(float), 2, order=1).clip(0, 255).astype(np.uint8)
    return smooth, labels.repeat(2, axis=0).repeat(2, axis=1)


def found_of(truth: NDArray[np.int32], masks: Sequence[NDArray[np.bool_]]) -> float:
    """Return the share of true objects that a mask shares an IoU of .5 with."""
    hit = 0
    for number in range(1, int(truth.max()) + 1):
        true = truth == number
        hit += any((true & mask).sum() > 0.5 * (true | mask).sum() for mask in masks)
    return hit / int(truth.max())


@pytest.fixture(scope="module")
def of_colony(micro: Sam2Model) -> FewShotSegmenter:
    image, labels = colony(1)
    chosen = [2, 8, 13, 19, 22, 29, 33, 36, 41, 44]
    return FewShotSegmenter(micro, settings=Settings()).fit([Exemplar(image, mask=labels == n) for n in chosen])


def test_rods_that_touch_are_parted(of_colony: FewShotSegmenter) -> None:
    learned = GuidedModel.from_arrays(of_colony.object_model.learned)
    assert learned.erosion > 1
    assert learned.examples == (270, 270)
    image, labels = colony(2)
    detections = of_colony.segment(image)
    assert found_of(labels, [each.mask for each in detections]) > 0.9  # .71 without erosion
    assert np.median([each.area for each in detections]) > 240  # 140 without
    taken = np.sum([each.mask for each in detections], axis=0)
    assert taken.max() == 1


def test_a_saved_model_grows_detections_back_as_well(of_colony: FewShotSegmenter, micro: Sam2Model) -> None:
    image, _ = colony(2)
    again = FewShotSegmenter(micro, settings=Settings()).adopt(of_colony.object_model)
    first, second = of_colony.segment(image), again.segment(image)
    assert [each.score for each in first] == [each.score for each in second]
    assert all((one.mask == other.mask).all() for one, other in zip(first, second, strict=True))


def test_area_limits_are_those_of_whole_objects(of_colony: FewShotSegmenter, micro: Sam2Model) -> None:
    image, _ = colony(2)
    areas = [each.area for each in of_colony.segment(image)]
    # No core has so many pixels, and not all of the objects.
    limits = Settings(min_mask_area=264, max_mask_area=290)
    within = FewShotSegmenter(micro, settings=limits).adopt(of_colony.object_model).segment(image)
    assert within
    assert all(264 <= each.area <= 290 for each in within)
    assert len(within) < len(areas)


def test_what_is_larger_is_grown_by_as_much_more(of_colony: FewShotSegmenter) -> None:
    image, labels = enlarged(*colony(2))
    detections = of_colony.segment(image)
    assert found_of(labels, [each.mask for each in detections]) > 0.5
    assert np.median([each.area for each in detections]) > 0.85 * 4 * 270


def test_objects_that_lie_apart_are_learned_from_as_they_were_drawn(
    micro: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs
    segmenter = FewShotSegmenter(micro, settings=Settings())
    segmenter.fit([Exemplar(image, mask=labels == number) for number in range(1, 7)])
    assert GuidedModel.from_arrays(segmenter.object_model.learned).erosion == 0


def test_warnings_are_told_once(micro: Sam2Model, told: Told) -> None:
    image, labels = colony(1)
    segmenter = FewShotSegmenter(micro, settings=Settings(), progress=told)
    segmenter.fit([Exemplar(image, mask=labels == number) for number in (2, 13, 29, 41)])
    assert len(told.warnings) == len(set(told.warnings))
    assert sum("mark 5 to 20" in sentence for sentence in told.warnings) == 1


def test_few_marks_are_joined_by_objects_within_the_limits(micro: Sam2Model, told: Told) -> None:
    image, labels = colony(1)
    settings = Settings(min_mask_area=262, max_mask_area=290)
    segmenter = FewShotSegmenter(micro, settings=settings, progress=told)
    segmenter.fit([Exemplar(image, mask=labels == number) for number in (2, 13, 29)])
    learned = GuidedModel.from_arrays(segmenter.object_model.learned)
    assert learned.erosion > 1
    assert learned.examples == (270, 270)
    within = segmenter.segment(colony(2)[0])
    assert within
    assert all(262 <= each.area <= 290 for each in within)
