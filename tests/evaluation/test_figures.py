"""The figures against public implementations and cases worked out by hand."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest

from sam2_fewshot.annotations.arrays import masks_of
from sam2_fewshot.evaluation.figures import EvaluatedFrame, aggregated_jaccard, average_precision, evaluate_frames
from sam2_fewshot.evaluation.matching import Scores
from sam2_fewshot.methods.base import is_known
from sam2_fewshot.records import InstanceMask

SHAPE = (60, 90)


def box(x0: int, y0: int, width: int = 10, height: int = 10) -> InstanceMask:
    return InstanceMask(np.ones((height, width), bool), x0, y0, SHAPE)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True and found label images: shifted, resized, missed and false rectangles."""
    truth, found, n = np.zeros(SHAPE, int), np.zeros(SHAPE, int), 0
    for k in range(15):
        r, c = 6 + (k // 5) * 18, 8 + (k % 5) * 17
        h, w = 5 + (k * 7 + seed) % 6, 5 + (k * 5 + 2 * seed) % 7
        truth[r : r + h, c : c + w] = k + 1
        dy, dx = (k * 3 + seed) % 4 - 1, (k * 2 + seed) % 5 - 2
        if k % 6 != seed % 6:
            n += 1
            found[r + dy : r + dy + h - (k % 3), c + dx : c + dx + w + (k % 2)] = n
    found[0:4, 80:88] = n + 1
    found[54:59, 2:9] = n + 2
    return truth, found


def frames(*seeds: int) -> list[EvaluatedFrame]:
    return [
        EvaluatedFrame(str(seed), [*dict(masks_of(found)).values()], [*dict(masks_of(truth)).values()])
        for seed in seeds
        for truth, found in [scene(seed)]
    ]


# stardist 0.9.2: matching_dataset(truths, founds, thresh=iou, by_image=False) on scene(0) and scene(3).
STARDIST = {
    0.1: (25, 4, 5, 0.8620689655172413, 0.8333333333333334, 0.847457627118644, 0.5526415252685547),
    0.3: (25, 4, 5, 0.8620689655172413, 0.8333333333333334, 0.847457627118644, 0.5526415252685547),
    0.5: (17, 12, 13, 0.5862068965517241, 0.5666666666666667, 0.576271186440678, 0.6114352170158835),
    0.75: (2, 27, 28, 0.06896551724137931, 0.06666666666666667, 0.06779661016949153, 0.8285714387893677),
    0.9: (0, 29, 30, 0, 0, 0, 0.0),
}
# The same with thresh=0.5 + 1e-6: panoptic quality wants more than .5, which two pairs have exactly.
STARDIST_PANOPTIC = 0.3184541928566108
STARDIST_SEGMENTATION = 0.6262932459513346


def test_the_same_as_stardist() -> None:
    result = evaluate_frames(frames(0, 3), list(STARDIST))
    for scores, expected in zip(result.scores, STARDIST.values(), strict=True):
        ours = (scores.tp, scores.fp, scores.fn, scores.precision, scores.recall, scores.f1, scores.mean_matched_iou)
        assert ours == pytest.approx(expected, abs=1e-6)
    assert result.panoptic_quality == pytest.approx(STARDIST_PANOPTIC, abs=1e-6)
    assert result.segmentation_quality == pytest.approx(STARDIST_SEGMENTATION, abs=1e-6)


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_the_same_average_precision_as_coco(iou: float) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    masks = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(5)
    judged, images, truths, finds = [], [], [], []
    for frame in frames(0, 1, 2, 3, 4):
        # Every find twice, once moved, so that finds compete for the same object.
        predicted = [*frame.predicted, *(InstanceMask(m.data, m.x0 + 1, m.y0, SHAPE) for m in frame.predicted)]
        scores = rng.permutation(len(predicted)) / 100
        judged.append(EvaluatedFrame(frame.name, predicted, frame.truth, scores.tolist()))
        images.append({"id": len(images) + 1, "height": SHAPE[0], "width": SHAPE[1]})
        for mask in frame.truth:
            rle = masks.encode(np.asfortranarray(mask.full().astype(np.uint8)))
            truths.append({"id": len(truths) + 1, "image_id": len(images), "category_id": 1, "segmentation": rle,
                           "area": mask.area, "iscrowd": 0, "bbox": [0, 0, 1, 1]})  # fmt: skip
        for mask, score in zip(predicted, scores, strict=True):
            rle = masks.encode(np.asfortranarray(mask.full().astype(np.uint8)))
            finds.append({"image_id": len(images), "category_id": 1, "segmentation": rle, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO()
        truth.dataset = {"images": images, "annotations": truths, "categories": [{"id": 1}], "info": {}}
        truth.createIndex()
        run = evaluation.COCOeval(truth, truth.loadRes(finds), "segm")
        run.params.iouThrs, run.params.maxDets = np.array([iou]), [1000]
        run.evaluate()
        run.accumulate()
    assert average_precision(judged, iou) == pytest.approx(float(run.eval["precision"][0, :, 0, 0, 0].mean()), abs=1e-9)


def test_average_precision_by_hand() -> None:
    truth = [box(0, 0), box(30, 0)]
    finds = [box(0, 0), box(60, 30), box(30, 0)]
    # Precision 1 up to a recall of .5, then 2/3: 51 and 50 of 101 points.
    expected = (51 + 50 * 2 / 3) / 101
    assert average_precision([EvaluatedFrame("a", finds, truth, [0.9, 0.8, 0.7])], 0.5) == pytest.approx(expected)
    below = EvaluatedFrame("a", finds[:2], truth, [0.9, 0.8], below=[(finds[2], 0.7)])
    assert average_precision([below], 0.5) == pytest.approx(expected)
    ignored = EvaluatedFrame("a", finds, truth, [0.9, 0.8, 0.7], ignore=[box(55, 25, 20, 20)])
    assert average_precision([ignored], 0.5) == 1.0
    assert average_precision([EvaluatedFrame("a", [], truth, [])], 0.5) == 0.0
    assert math.isnan(average_precision([EvaluatedFrame("a", finds, [], [1, 1, 1])], 0.5))


def test_aggregated_jaccard_by_hand() -> None:
    truth, half = [box(0, 0), box(30, 0)], box(0, 0, 5, 10)
    assert aggregated_jaccard(EvaluatedFrame("a", truth, truth)) == 1.0
    # 50 shared of 100; the second object is missed (100), one find is nowhere (100).
    assert aggregated_jaccard(EvaluatedFrame("a", [half, box(60, 30)], truth)) == pytest.approx(50 / 300)
    # A find over both objects is taken by both: 200 shared; its union with each is 400.
    assert aggregated_jaccard(EvaluatedFrame("a", [box(0, 0, 40, 10)], truth)) == pytest.approx(200 / 800)
    assert math.isnan(aggregated_jaccard(EvaluatedFrame("a", [], [])))
    assert aggregated_jaccard(EvaluatedFrame("a", [half], [])) == 0.0


def test_aggregated_jaccard_the_plain_way() -> None:
    for seed in range(4):
        truth, found = scene(seed)
        shared = union = 0
        taken = set()
        for t in range(1, truth.max() + 1):
            ious = [
                ((truth == t) & (found == p)).sum() / ((truth == t) | (found == p)).sum()
                for p in range(1, found.max() + 1)
            ]
            best = int(np.argmax(ious)) + 1
            if ious[best - 1] > 0:
                taken.add(best)
                shared += ((truth == t) & (found == best)).sum()
                union += ((truth == t) | (found == best)).sum()
            else:
                union += (truth == t).sum()
        union += sum((found == p).sum() for p in range(1, found.max() + 1) if p not in taken)
        (frame,) = frames(seed)
        assert aggregated_jaccard(frame) == pytest.approx(shared / union)


def test_sizes_are_judged_apart() -> None:
    small, large = box(0, 0, 4, 4), box(20, 20, 20, 20)
    frame = EvaluatedFrame("a", [large, box(50, 50, 3, 3), box(60, 0, 15, 15)], [small, large])
    low, high = evaluate_frames([frame], [0.5], [100]).sizes
    assert (low.low, low.high, low.scores) == (0, 100, Scores(0, 1, 1, 0.0))
    assert (high.low, high.high, high.scores) == (100, math.inf, Scores(1, 1, 0, 1.0))
    low, high = evaluate_frames([frame], [0.5], [400]).sizes  # from `low` to below `high`
    assert (low.scores, high.scores) == (Scores(0, 2, 1, 0.0), Scores(1, 0, 0, 1.0))
    total = evaluate_frames([frame]).scores[0]
    thirds = evaluate_frames([frame]).sizes
    assert sum(size.scores.tp for size in thirds) == total.tp
    assert sum(size.scores.fp for size in thirds) == total.fp
    assert sum(size.scores.fn for size in thirds) == total.fn


def test_what_was_shown_is_not_judged() -> None:
    shown = box(0, 0)
    frame = EvaluatedFrame("a", [box(1, 1, 5, 5), box(30, 0)], [shown, box(30, 0)], [0.9, 0.8], ignore=[shown])
    result = evaluate_frames([frame])
    assert result.scores == (Scores(1, 0, 0, 1.0),)
    assert result.average_precision == (1.0,)
    assert result.not_judged == 1
    assert result.aji == 1.0


def test_the_jaccard_index_is_the_mean_over_the_frames_with_true_objects() -> None:
    full, empty = EvaluatedFrame("a", [box(0, 0)], [box(0, 0)]), EvaluatedFrame("b", [box(0, 0)], [])
    half = EvaluatedFrame("c", [box(0, 0, 5, 10)], [box(0, 0)])
    assert evaluate_frames([full, empty, half]).aji == pytest.approx(0.75)
    assert math.isnan(evaluate_frames([empty]).aji)


def test_what_is_detected_in_an_example_is_not_taken_by_its_neighbour() -> None:
    example, neighbour, over_both = box(0, 0), box(9, 0), box(2, 0)
    frame = EvaluatedFrame("a", [over_both], [example, neighbour], ignore=[example])
    result = evaluate_frames([frame])
    assert result.scores == (Scores(0, 0, 1, 0.0),)
    assert result.aji == 0.0


@pytest.mark.parametrize(
    ("example", "truth", "judged"),
    [
        (box(0, 0, 16, 16), [box(3, 3)], 0),  # drawn too large, an IoU of .39
        (box(3, 3, 5, 5), [box(0, 0)], 0),  # only a part
        (
            box(0, 0, 30, 20),
            [box(2, 2, 6, 6), box(12, 2, 6, 6), box(25, 5)],
            1,
        ),  # a cell with two nuclei, and half of one
        (box(0, 0, 16, 16), [box(13, 3)], 1),  # that of a neighbour, which is still found beside it
    ],
)
def test_true_objects_count_where_the_search_may_find_them(
    example: InstanceMask, truth: list[InstanceMask], judged: int
) -> None:
    found = [mask for mask in truth if not is_known(mask, [example])]
    result = evaluate_frames([EvaluatedFrame("a", found, truth, [0.9] * len(found), ignore=[example])])
    assert result.scores == (Scores(judged, 0, 0, float(judged)),)
    assert result.not_judged == len(truth) - judged


def test_what_is_detected_of_an_object_that_is_not_judged_is_not_false() -> None:
    marked, true = box(0, 0, 4, 10), box(0, 0)
    beside = box(4, 0, 6, 10)  # not in the mark, which is only a part of the object
    result = evaluate_frames([EvaluatedFrame("a", [beside, box(30, 0)], [true], [0.9, 0.8], ignore=[marked])])
    assert result.scores == (Scores(0, 1, 0, 0.0),)


def test_what_holds_an_unwanted_object_is_evaluated() -> None:
    """A cell is searched for though its nucleus is marked as unwanted; another nucleus's outline is not."""
    nucleus, cell, other = box(2, 2, 4, 4), box(0, 0), box(30, 0)
    result = evaluate_frames([EvaluatedFrame("a", [cell], [cell, other, nucleus], [0.9], unwanted=[nucleus])])
    assert result.scores == (Scores(1, 0, 1, 1.0),)
    assert result.not_judged == 1


class Watched(InstanceMask):
    """A mask that counts how often its pixels are counted."""

    counted = 0

    @property
    def area(self) -> int:
        Watched.counted += 1
        return int(np.count_nonzero(self.data))


def test_pairs_are_compared_once_and_only_where_they_touch() -> None:
    def row(y0: int, count: int) -> list[InstanceMask]:
        return [Watched(np.ones((2, 2), bool), 3 * i, y0, SHAPE) for i in range(count)]

    def counted(count: int, ious: list[float]) -> int:
        found, below = row(0, count), [(mask, 0.1) for mask in row(9, count)]
        frame = EvaluatedFrame("a", found, row(0, count), [0.5] * count, below, ignore=row(40, count))
        Watched.counted = 0
        assert evaluate_frames([frame], ious).average_precision == (1.0,) * len(ious)
        return Watched.counted

    few = counted(10, [0.5])
    assert counted(10, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) == few
    assert counted(100, [0.5]) == 10 * few


def test_nothing_at_all() -> None:
    result = evaluate_frames([EvaluatedFrame("a", [], [])], [0.5, 0.75])
    assert result.scores == (Scores(0, 0, 0, 0.0),) * 2
    assert math.isnan(result.aji)
    assert result.average_precision is None
    assert result.as_facts()["by_frame"] == [{"frame": "a", "tp": 0, "fp": 0, "fn": 0, "precision": 0.0,
                                              "recall": 0.0, "f1": 0.0, "mean_matched_iou": 0.0}]  # fmt: skip
    with pytest.raises(ValueError, match="at least one frame"):
        evaluate_frames([])
