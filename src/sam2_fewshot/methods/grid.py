"""The seed's method: SAM 2's masks on a grid of points, compared with the examples' mean features.

Learn: each example → a context crop → SAM 2's image encoder → mask-weighted mean of the features → a vector; the
vectors' mean is the prototype. Find: the frame → candidate masks → a vector each, in the same way → cosine
similarity.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.outlines import largest_part
from sam2_fewshot.methods.common import Found, is_known
from sam2_fewshot.proposals.grid import GridProposals
from sam2_fewshot.proposals.nms import box_nms
from sam2_fewshot.similarity.crops import context_window
from sam2_fewshot.similarity.prototype import Prototype, unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.common import RunStats, Shown
    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Candidate, InstanceMask
    from sam2_fewshot.settings import Settings


_LEVELS = {"one": (1.0,), "three": (0.75, 1.25, 2.0)}
"""Occupancies as multiples of the one that is set; the seed document's .15, .25 and .40 at its default of .20."""
_FULLEST = 0.8


class GridMethod:
    """See the module.

    Parameters
    ----------
    model
        Encodes and prompts.
    settings
        How to look.
    progress
        Is told of crops and prompts done.
    """

    def __init__(self, model: Sam2Model, settings: Settings, progress: Progress) -> None:
        self._model, self._settings, self._progress = model, settings, progress

    def learn(self, shown: Sequence[Shown]) -> Mapping[str, NDArray[np.generic]]:
        """Return the examples' and the negative examples' vectors, (n, D) and (m, D), and how similar they are."""
        self._progress.start("learning", sum(len(frame.wanted) + len(frame.unwanted) for frame in shown))
        vectors = np.concatenate([self._pool(frame.pixels, frame.wanted) for frame in shown])
        negatives = np.concatenate([self._pool(frame.pixels, frame.unwanted) for frame in shown])
        left_out = Prototype(vectors, negatives, self._settings.scorer).left_out()
        return {"vectors": vectors, "negatives": negatives, "left_out": left_out}

    def find(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        stats: RunStats,
    ) -> list[Found]:
        """Return the grid's candidates with their similarity; those nearer to the negative examples are left out."""
        vectors, negatives = (learned[name].astype(np.float32) for name in ("vectors", "negatives"))
        prototype = Prototype(vectors, negatives, self._settings.scorer)
        with stats.stage("encode"):
            embedding = self._model.embed(pixels)
        with stats.stage("propose"):
            proposed = GridProposals(self._settings).propose(self._model, embedding, self._progress)
            candidates = [
                candidate
                for candidate in _in_one_part(proposed, self._settings.box_nms_iou)
                if not is_known(candidate.mask, known)
            ]
        stats.candidates = len(proposed)
        if stats.proposed is not None:
            stats.proposed += [candidate.mask for candidate in proposed]
        with stats.stage("compare"):
            self._progress.start("comparing", len(candidates))
            own = self._pool(pixels, [candidate.mask for candidate in candidates])
            score, cosine = prototype.similarity(own), prototype.cosine(own)
            wanted = ~prototype.nearer_to_negatives(own)
        return [
            Found(candidates[i].mask, max(float(score[i]), 0.0), float(cosine[i]), candidates[i].predicted_iou)
            for i in np.flatnonzero(wanted)
        ]

    def _pool(self, pixels: NDArray[np.uint8], masks: Sequence[InstanceMask]) -> NDArray[np.float32]:
        """Return a feature vector (n, D) for each mask."""
        settings, model = self._settings, self._model
        if settings.features_from == "frame":
            pooled = model.pool_frame(pixels, masks)
            self._progress.advance(len(masks))
            return pooled
        smallest = model.image_size / settings.max_zoom
        parts: list[NDArray[np.float32]] = []
        for factor in _LEVELS[settings.occupancy_levels]:
            occupancy = min(settings.target_occupancy * factor, _FULLEST)
            windows = [context_window(mask, occupancy, smallest) for mask in masks]
            vectors = model.pool(pixels, windows, masks, on_batch=self._progress.advance if not parts else _unheard)
            # Of length 1, so that each level counts as much.
            parts.append(vectors if len(_LEVELS[settings.occupancy_levels]) == 1 else unit(vectors))
        return np.concatenate(parts, axis=1)


def _unheard(done: int) -> None:
    """Be told of crops that the user does not count."""


def _in_one_part(candidates: Sequence[Candidate], iou_threshold: float) -> list[Candidate]:
    """Cut masks to their largest part, and drop those that then lie on a better one.

    The public generator suppresses by the boxes of whole masks; a far-off crumb makes such a box large enough for a
    mask to survive beside another one of the same object.
    """
    cut = [replace(candidate, mask=largest_part(candidate.mask)) for candidate in candidates]
    boxes = np.array([candidate.mask.box for candidate in cut], np.float64).reshape(-1, 4)
    order = box_nms(boxes, np.array([candidate.predicted_iou for candidate in cut], np.float64), iou_threshold)
    return [cut[i] for i in order]
