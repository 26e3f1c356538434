"""Measure what a model can do; everything goes through the public SAM 2 classes, as a user's program does."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.sam2_image_predictor import SAM2ImagePredictor

from training.augment import photograph
from training.measures import aligned_edge, average_precision, centre_of, count_hits, mask_iou
from training.scenes import Scene, scene

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_SEED = 9_000_000_000_000  # far from every seed of a training run
Pair = tuple[str, NDArray[np.uint8], NDArray[np.int16]]


def predictor_of(model: Any) -> SAM2ImagePredictor:
    """Make a predictor for a model of any input size; the public one assumes 1024.

    Parameters
    ----------
    model
        A ``SAM2Base``.

    Returns
    -------
    SAM2ImagePredictor
        The predictor.
    """
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(model.image_size // step,) * 2 for step in (4, 8, 16)]
    return predictor


def _predict(predictor: SAM2ImagePredictor, **prompts: Any) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    masks, scores, _ = predictor.predict(**prompts)
    count = len(next(iter(prompts.values())))
    return masks.reshape(count, -1, *masks.shape[-2:]) > 0, scores.reshape(count, -1)


def click_and_box(model: Any, pairs: list[Pair], most: int = 100, least_area: int = 24) -> dict[str, dict[str, float]]:
    """Ask for every object once by a click at its centre and once by its box.

    Parameters
    ----------
    model
        A ``SAM2Base``.
    pairs
        Group, picture and labels.
    most
        Objects of one picture at most.
    least_area
        Objects with fewer pixels are left out.

    Returns
    -------
    dict
        For each group: mean IoU of click (mask with the best predicted IoU), of the best candidate and of box, and the
        mean error of the predicted IoU.
    """
    predictor, rows = predictor_of(model), defaultdict(list)
    for group, image, labels in pairs:
        sizes = np.bincount(labels.ravel())
        names = [int(name) for name in np.flatnonzero(sizes >= least_area) if name][:most]
        if not names:
            continue
        predictor.set_image(image)
        truth = [labels == name for name in names]
        points = np.array([[centre_of(mask)] for mask in truth], np.float32)
        boxes = np.array([_box(mask) for mask in truth], np.float32)
        for first in range(0, len(names), 32):
            part = slice(first, first + 32)
            ones = np.ones((len(points[part]), 1), np.int32)
            found, scores = _predict(predictor, point_coords=points[part], point_labels=ones, multimask_output=True)
            boxed, _ = _predict(predictor, box=boxes[part], multimask_output=False)
            for mask, three, score, one in zip(truth[part], found, scores, boxed, strict=True):
                ious = [mask_iou(candidate, mask) for candidate in three]
                best = int(np.argmax(score))
                rows[group].append((ious[best], max(ious), mask_iou(one[0], mask), abs(score[best] - ious[best])))
    names_of = ("click", "best of 3", "box", "error of predicted IoU")
    table = {}
    for group, values in rows.items():
        means = dict(zip(names_of, (float(v) for v in np.mean(values, 0)), strict=True))
        table[group] = {**means, "objects": len(values)}
    return table


def _box(mask: NDArray[np.bool_]) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def everything(model: Any, pairs: list[Pair]) -> dict[str, float]:
    """Run ``SAM2AutomaticMaskGenerator`` with its own defaults: 32 points a side, gates .8 and .95.

    Parameters
    ----------
    model
        A ``SAM2Base``.
    pairs
        Group, picture and labels.

    Returns
    -------
    dict
        Precision, recall and F1 at IoU .5 over all pictures.
    """
    generator = SAM2AutomaticMaskGenerator(model)
    generator.predictor._bb_feat_sizes = predictor_of(model)._bb_feat_sizes
    hits = found = objects = 0
    for _, image, labels in pairs:
        masks = [item["segmentation"] for item in generator.generate(image)]
        counts = count_hits(masks, labels)
        hits, found, objects = hits + counts[0], found + counts[1], objects + counts[2]
    both = max(1, found + objects)
    return {"precision": hits / max(1, found), "recall": hits / max(1, objects), "F1": 2 * hits / both}


def _noisy(item: Scene, seed: int) -> NDArray[np.uint8]:
    torch.manual_seed(seed)
    image = torch.from_numpy(item.image).permute(2, 0, 1)[None].float() / 255
    noisy: NDArray[np.uint8] = (photograph(image)[0].permute(1, 2, 0) * 255).byte().numpy()
    return noisy


def discrimination(model: Any, scenes: int, examples: int = 8) -> dict[str, float]:
    """Rank all objects of look-alike scenes by their similarity to a few examples of one class.

    Parameters
    ----------
    model
        A ``SAM2Base``.
    scenes
        Number of scenes with two or three classes.
    examples
        Objects that are shown.

    Returns
    -------
    dict
        Mean average precision, and what chance gives.
    """
    predictor, seed = predictor_of(model), FIRST_SEED
    found: list[float] = []
    chance: list[float] = []
    while len(found) < scenes:
        seed += 1
        item = scene(seed)
        classes = item.classes[1:]
        areas = np.bincount(item.labels.ravel(), minlength=len(item.classes))[1:]
        usable = areas >= 100
        wanted = classes == 1
        if (usable & wanted).sum() < examples + 4 or (usable & ~wanted).sum() < 8:
            continue
        predictor.set_image(_noisy(item, seed % 2**31))
        embed = predictor.get_image_embedding()[0]
        embed = embed - embed.mean((1, 2), keepdim=True)
        labels = torch.from_numpy(item.labels.astype(np.int64))
        hot = F.one_hot(labels, len(item.classes))[..., 1:].permute(2, 0, 1).float()
        cells = F.adaptive_avg_pool2d(hot, embed.shape[-1]).flatten(1)
        means = F.normalize(cells @ embed.flatten(1).T / cells.sum(1, keepdim=True).clamp(min=1e-6), dim=1).numpy()
        shown = np.flatnonzero(usable & wanted)[:examples]
        rest = np.flatnonzero(usable & ~np.isin(np.arange(len(classes)), shown))
        scores = means[rest] @ means[shown].mean(0)
        found.append(average_precision(scores, wanted[rest]))
        chance.append(float(wanted[rest].mean()))
    return {"AP": statistics.fmean(found), "chance": statistics.fmean(chance)}


def large_objects(model: Any, scenes: int, diameter: int = 150) -> dict[str, float]:
    """Ask by box for large, flat objects; count masks with straight edges on attention windows.

    Parameters
    ----------
    model
        A ``SAM2Base``.
    scenes
        Number of scenes.
    diameter
        Smallest diameter of a disc of the same area, in pixels of 512.

    Returns
    -------
    dict
        Mean IoU, share of masks with window-aligned edges, number of objects.
    """
    predictor, ious, straight = predictor_of(model), [], []
    for seed in range(FIRST_SEED + 5_000_000, FIRST_SEED + 5_000_000 + scenes):
        item = scene(seed, family="large")
        areas = np.bincount(item.labels.ravel())
        names = [name for name in range(1, len(areas)) if areas[name] >= np.pi / 4 * diameter**2]
        if not names:
            continue
        predictor.set_image(_noisy(item, seed % 2**31))
        truth = [item.labels == name for name in names]
        found, _ = _predict(predictor, box=np.array([_box(mask) for mask in truth], np.float32), multimask_output=False)
        for mask, one in zip(truth, found[:, 0], strict=True):
            ious.append(mask_iou(one, mask))
            straight.append(aligned_edge(one, mask))
    return {"box IoU": statistics.fmean(ious), "window edges": statistics.fmean(straight), "objects": len(ious)}


def seconds(model: Any, repeats: int = 5) -> dict[str, float]:
    """Time one encoding and 64 prompts; the fastest of some repeats.

    Parameters
    ----------
    model
        A ``SAM2Base``.
    repeats
        How often.

    Returns
    -------
    dict
        Seconds.
    """
    predictor = predictor_of(model)
    image = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    points = np.random.default_rng(1).uniform(0, 512, (64, 1, 2)).astype(np.float32)
    ones = np.ones((64, 1), np.int32)

    def fastest(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return min(times)

    return {
        "encode": fastest(lambda: predictor.set_image(image)),
        "64 prompts": fastest(lambda: predictor.predict(points, ones, multimask_output=True)),
    }
