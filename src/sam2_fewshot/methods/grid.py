"""The grid method: masks of a grid of point prompts, compared with the examples' mean features.

Learn: each example → a context crop → the backbone → mask-weighted mean of the features → a vector; the vectors' mean
is the prototype. Detect: the frame → candidate masks → a vector each, in the same way → cosine similarity.

With SAM 2 the candidates are those of ``SAM2AutomaticMaskGenerator`` with one crop layer and no post-processing: the
same prompts, gates and suppression, hence the same masks; what differs is how they are computed. Areas are limited on
the full-resolution mask, never by the generator's ``min_mask_region_area``, which works on low-resolution logits and
erases small objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from sam2_fewshot.geometry.outlines import largest_part
from sam2_fewshot.geometry.overlap import box_nms, boxes_of
from sam2_fewshot.methods.base import Scored, ScoredMask, is_known
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import Place, Stopwatch, TrainingFrame
    from sam2_fewshot.protocols import Backbone, Embedding, Progress
    from sam2_fewshot.records import Box
    from sam2_fewshot.settings import Settings

_LEVELS = {"one": (1.0,), "three": (0.75, 1.25, 2.0)}
"""Occupancies as multiples of the one that is set; the seed document's .15, .25 and .40 at its default of .20."""
_FULLEST = 0.8
_DENSE = 2048
"""Pixels of a frame's side from which on the points are as dense as there: 16 px from one another with the 128 of the
seed document, whose images have 1024 px. A slide would else have one point in hundreds of pixels."""


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """A mask that was proposed and has no score yet.

    Parameters
    ----------
    mask
        The proposed object.
    predicted_iou
        The backbone's own estimate of the mask's quality, in [0, 1].
    """

    mask: InstanceMask
    predicted_iou: float


class GridMethod:
    """See the module.

    Parameters
    ----------
    backbone
        Encodes and prompts.
    settings
        How to compare.
    progress
        Reports crops and prompts done.
    """

    def __init__(self, backbone: Backbone, settings: Settings, progress: Progress) -> None:
        self._backbone, self._settings, self._progress = backbone, settings, progress

    def learn(self, frames: Sequence[TrainingFrame]) -> Mapping[str, NDArray[np.generic]]:
        """Return the examples' and the negative examples' vectors, (n, D) and (m, D), and how similar they are."""
        self._progress.start("learning", sum(len(frame.positives) + len(frame.negatives) for frame in frames))
        vectors = np.concatenate([self._pool(frame.pixels, frame.positives) for frame in frames])
        negatives = np.concatenate([self._pool(frame.pixels, frame.negatives) for frame in frames])
        left_out = Prototype(vectors, negatives, self._settings.scorer).left_out()
        return {"vectors": vectors, "negatives": negatives, "left_out": left_out}

    def detect(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        watch: Stopwatch,
        place: Place,
    ) -> Scored:
        """Return the grid's candidates with their similarity; those nearer to the negative examples are left out."""
        vectors, negatives = (learned[name].astype(np.float32) for name in ("vectors", "negatives"))
        prototype = Prototype(vectors, negatives, self._settings.scorer)
        with watch.stage("encode"):
            embedding = self._backbone.embed(pixels)
        with watch.stage("propose"):
            grid = points_in(place, self._settings.points_per_side)
            proposed = propose(self._backbone, embedding, self._settings, self._progress, grid)
            candidates = [
                candidate
                for candidate in in_one_part(proposed, self._settings.box_nms_iou)
                # A mask that was large enough may have fallen into parts that are not.
                if _size_fits(candidate.mask, self._settings) and not is_known(candidate.mask, known)
            ]
        with watch.stage("compare"):
            self._progress.start("comparing", len(candidates))
            own = self._pool(pixels, [candidate.mask for candidate in candidates])
            score, cosine = prototype.similarity(own), prototype.cosine(own)
            wanted = ~prototype.nearer_to_negatives(own)
        masks = [
            ScoredMask(candidates[i].mask, max(float(score[i]), 0.0), float(cosine[i]), candidates[i].predicted_iou)
            for i in np.flatnonzero(wanted)
        ]
        return Scored(masks, len(proposed), [candidate.mask for candidate in proposed])

    def summary(self, learned: Mapping[str, NDArray[np.generic]]) -> str:
        """Return a sentence on how similar each example is to the others; empty where that is no score."""
        left_out, threshold = learned["left_out"].astype(np.float64), self._settings.similarity_threshold
        if len(left_out) < 2 or self._settings.scorer == "lda":
            return ""
        return (
            f"Compared with the others, the {len(left_out)} examples have similarities from {left_out.min():.2f} to "
            f"{left_out.max():.2f}; {np.count_nonzero(left_out >= threshold)} of them reach the threshold "
            f"{threshold:g}."
        )

    def step(self, learned: Mapping[str, NDArray[np.generic]]) -> int:
        """Return 1: the whole frame is encoded at once, whatever its size."""
        return 1

    def _pool(self, pixels: NDArray[np.uint8], masks: Sequence[InstanceMask]) -> NDArray[np.float32]:
        """Return a feature vector (n, D) for each mask."""
        settings, backbone = self._settings, self._backbone
        if settings.features_from == "frame":
            pooled = backbone.pool_frame(pixels, masks)
            self._progress.advance(len(masks))
            return pooled
        smallest = backbone.input_size / settings.max_zoom
        parts: list[NDArray[np.float32]] = []
        for factor in _LEVELS[settings.occupancy_levels]:
            occupancy = min(settings.target_occupancy * factor, _FULLEST)
            windows = [context_window(mask, occupancy, smallest) for mask in masks]
            # The user counts each crop once, whatever the number of levels.
            on_batch = (lambda done: None) if parts else self._progress.advance
            vectors = backbone.pool(pixels, windows, masks, on_batch=on_batch)
            # Of length 1, so that each level counts as much.
            parts.append(vectors if len(_LEVELS[settings.occupancy_levels]) == 1 else unit(vectors))
        return np.concatenate(parts, axis=1)


def in_one_part(candidates: Sequence[Candidate], iou_threshold: float) -> list[Candidate]:
    """Reduce masks to their largest part, and drop those that then lie on a better one.

    The public generator suppresses by the boxes of whole masks; a far-off crumb makes such a box large enough for a
    mask to survive beside another one of the same object.
    """
    parts = [replace(candidate, mask=largest_part(candidate.mask)) for candidate in candidates]
    boxes = boxes_of(candidate.mask for candidate in parts).astype(np.float64)
    order = box_nms(boxes, np.array([candidate.predicted_iou for candidate in parts], np.float64), iou_threshold)
    return [parts[i] for i in order]


def points_in(place: Place, points_per_side: int) -> NDArray[np.float64]:
    """Return those centres of ``points_per_side ** 2`` equal cells of a frame that lie in a window of it.

    So an object is prompted as often whatever the blocks are in which a frame is searched. A side of more than
    :data:`_DENSE` pixels has as many more points.

    Returns
    -------
    numpy.ndarray
        (N, 2), ``(x, y)`` in [0, 1) of the window, row by row; N may be 0.
    """
    (x0, y0, x1, y1), (height, width) = place

    def within(low: int, high: int, whole: int) -> NDArray[np.float64]:
        count = round(points_per_side * max(1.0, whole / _DENSE))
        centres = np.linspace(1 / (2 * count), 1 - 1 / (2 * count), count)
        inside = (centres - low / whole) / ((high - low) / whole)
        return inside[(inside >= 0) & (inside < 1)]

    x, y = np.meshgrid(within(x0, x1, width), within(y0, y1, height))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def propose(
    backbone: Backbone,
    embedding: Embedding,
    settings: Settings,
    progress: Progress,
    grid: NDArray[np.float64],
) -> list[Candidate]:
    """Return the masks of point prompts at a grid, the highest predicted IoU first.

    Parameters
    ----------
    backbone
        Decodes the prompts.
    embedding
        Of the frame, or of a window.
    settings
        ``predicted_iou_gate``, ``stability_gate``, ``box_nms_iou``, ``min_mask_area`` and ``max_mask_area`` are used.
        A gate that is None is the backbone's default.
    progress
        Reports each prompt done.
    grid
        The prompts (N, 2), ``(x, y)`` in [0, 1], as of :func:`points_in`.
    """
    progress.start("proposing", len(grid))
    if not len(grid):
        return []
    gates = backbone.gates
    found = backbone.prompt(
        embedding,
        (grid * backbone.input_size).astype(np.float32),
        iou_gate=_first(settings.predicted_iou_gate, gates.predicted_iou),
        stability_gate=_first(settings.stability_gate, gates.stability),
        on_batch=progress.advance,
    )
    # The public generator suppresses on boxes whose right and bottom edges are the last pixels.
    boxes = found.boxes - np.array([0, 0, 1, 1])
    candidates = []
    for i in box_nms(boxes.astype(np.float64), found.predicted_iou, settings.box_nms_iou):
        x0, y0 = found.boxes[i, :2]
        mask = InstanceMask(found.data[i], int(x0), int(y0), embedding.frame_shape)
        candidates.append(Candidate(mask, float(found.predicted_iou[i])))
    return [candidate for candidate in candidates if _size_fits(candidate.mask, settings)]


def _size_fits(mask: InstanceMask, settings: Settings) -> bool:
    return settings.min_mask_area <= mask.area and (not settings.max_mask_area or mask.area <= settings.max_mask_area)


def _first(value: float | None, default: float) -> float:
    return default if value is None else value


def context_window(mask: InstanceMask, occupancy: float, smallest_side: float) -> Box:
    """Return the square window, centred on an object, in which it fills a share of the area.

    Parameters
    ----------
    mask
        The object; it must not be empty.
    occupancy
        Share of the window's area that the object fills: ``side = sqrt(area / occupancy)``, the seed document's rule.
    smallest_side
        The window is never smaller than this, in pixels, which bounds the magnification of tiny objects.

    Returns
    -------
    Box
        ``(x0, y0, x1, y1)`` in frame pixels, half open. It always holds the whole bounding box, so that long
        objects keep their ends, and may reach beyond the frame.
    """
    left, top, right, bottom = mask.box
    side = max(math.ceil(math.sqrt(mask.area / occupancy)), math.ceil(smallest_side), right - left, bottom - top)
    # The box's centre is (left + right) / 2; flooring keeps left and right within the window, whatever the parity.
    x0 = (left + right - side) // 2
    y0 = (top + bottom - side) // 2
    return x0, y0, x0 + side, y0 + side


Scorer = Literal["mean", "nearest", "knn", "lda"]
"""mean: cosine to the examples' mean. nearest: cosine to the nearest example. knn: mean cosine to the nearest
examples. lda: cosine to the mean after whitening."""

_NEIGHBOURS = 3
_SHRINKAGE = 0.5
"""Weight of a round covariance in the whitening; there are fewer vectors than features (Ledoit & Wolf 2004 give the
principle)."""


@dataclass(frozen=True, eq=False, slots=True)
class Prototype:
    """Feature vectors of examples.

    Parameters
    ----------
    vectors
        float32 (n, C), mask-weighted mean features of the examples, n ≥ 1.
    negatives
        float32 (m, C), those of objects of the kind that is not wanted; m may be 0.
    scorer
        How vectors are compared.
    """

    vectors: NDArray[np.float32]
    negatives: NDArray[np.float32]
    scorer: Scorer = "mean"

    @property
    def direction(self) -> NDArray[np.float32]:
        """The examples' mean feature vector, (C,), of length 1."""
        mean: NDArray[np.float32] = self.vectors.mean(axis=0)
        return unit(mean)

    def cosine(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine (n,), in [-1, 1], of feature vectors (n, C) to the examples' mean."""
        cosine: NDArray[np.float32] = np.clip(unit(vectors) @ self.direction, -1, 1)
        return cosine

    def similarity(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the similarity (n,), in [-1, 1], of all candidates (n, C) of a frame by the scorer.

        ``lda`` takes the mean and the spread of ordinary things from the candidates themselves, as the linear
        discriminant of one class against the rest does (Hariharan, Malik, Ramanan 2012: "Discriminative decorrelation
        for clustering and classification").
        """
        if self.scorer == "mean" or not len(vectors):
            return self.cosine(vectors)
        if self.scorer == "lda":
            whiten = _Whitening(vectors)
            return Prototype(whiten(self.vectors), self.negatives[:0]).cosine(whiten(vectors))
        nearest = -np.sort(-(unit(vectors) @ unit(self.vectors).T), axis=1)
        count = 1 if self.scorer == "nearest" else _NEIGHBOURS
        similarity: NDArray[np.float32] = np.clip(nearest[:, :count].mean(axis=1), -1, 1)
        return similarity

    def left_out(self) -> NDArray[np.float32]:
        """Return the similarity (n,) of each example to the others; of a single one, that to itself.

        For ``lda``, whose similarities depend on a frame's candidates, it is that of ``mean``.
        """
        count = len(self.vectors)
        if count == 1:
            return np.ones(1, np.float32)
        scorer = self._of_pairs
        others = [np.delete(self.vectors, i, axis=0) for i in range(count)]
        values = [
            Prototype(rest, self.negatives, scorer).similarity(self.vectors[i : i + 1])[0]
            for i, rest in enumerate(others)
        ]
        return np.array(values, np.float32)

    def nearer_to_negatives(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which of the feature vectors (n, C) are more similar to the negatives than to the examples.

        Both by the scorer. For ``lda`` it is by the means: what is ordinary among a frame's candidates says nothing of
        which of the two a candidate is.
        """
        if not len(self.negatives):
            return np.zeros(len(vectors), bool)
        scorer = self._of_pairs
        wanted, unwanted = (Prototype(own, own[:0], scorer) for own in (self.vectors, self.negatives))
        nearer: NDArray[np.bool_] = unwanted.similarity(vectors) > wanted.similarity(vectors)
        return nearer

    @property
    def _of_pairs(self) -> Scorer:
        """The scorer where there are no candidates of a frame, which ``lda`` needs."""
        return "mean" if self.scorer == "lda" else self.scorer


class _Whitening:
    """A map of vectors (n, C) that gives those it was made from a mean of 0 and about the same spread everywhere."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._mean = vectors.mean(axis=0)
        centred = (vectors - self._mean).astype(np.float64)
        covariance = centred.T @ centred / len(vectors)
        size = len(covariance)
        round_ = max(float(np.trace(covariance)) / size, 1e-9) * np.eye(size)
        values, axes = np.linalg.eigh((1 - _SHRINKAGE) * covariance + _SHRINKAGE * round_)
        self._scale = (axes / np.sqrt(values)) @ axes.T

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        whitened: NDArray[np.float32] = ((vectors - self._mean) @ self._scale).astype(np.float32)
        return whitened


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (..., C) scaled to a length of 1; those of length 0 stay."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return scaled
