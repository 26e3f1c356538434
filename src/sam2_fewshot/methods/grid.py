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
from sam2_fewshot.similarity.prototype import Prototype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.common import RunStats, Shown
    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Candidate, InstanceMask
    from sam2_fewshot.settings import Settings


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
        """Return the examples' and the negative examples' vectors, (n, C) and (m, C)."""
        self._progress.start("learning", sum(len(frame.wanted) + len(frame.unwanted) for frame in shown))
        return {
            "vectors": np.concatenate([self._pool(frame.pixels, frame.wanted) for frame in shown]),
            "negatives": np.concatenate([self._pool(frame.pixels, frame.unwanted) for frame in shown]),
        }

    def find(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        stats: RunStats,
    ) -> list[Found]:
        """Return the grid's candidates with their similarity; those nearer to the negative examples are left out."""
        prototype = Prototype(learned["vectors"].astype(np.float32), learned["negatives"].astype(np.float32))
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
        with stats.stage("compare"):
            self._progress.start("comparing", len(candidates))
            vectors = self._pool(pixels, [candidate.mask for candidate in candidates])
            similarity = prototype.similarity(vectors)
            wanted = ~prototype.nearer_to_negatives(vectors)
        return [
            Found(candidates[i].mask, max(float(similarity[i]), 0.0), float(similarity[i]), candidates[i].predicted_iou)
            for i in np.flatnonzero(wanted)
        ]

    def _pool(self, pixels: NDArray[np.uint8], masks: Sequence[InstanceMask]) -> NDArray[np.float32]:
        """Return a feature vector (n, C) for each mask."""
        smallest = self._model.image_size / self._settings.max_zoom
        windows = [context_window(mask, self._settings.target_occupancy, smallest) for mask in masks]
        return self._model.pool(pixels, windows, masks, on_batch=self._progress.advance)


def _in_one_part(candidates: Sequence[Candidate], iou_threshold: float) -> list[Candidate]:
    """Cut masks to their largest part, and drop those that then lie on a better one.

    The public generator suppresses by the boxes of whole masks; a far-off crumb makes such a box large enough for a
    mask to survive beside another one of the same object.
    """
    cut = [replace(candidate, mask=largest_part(candidate.mask)) for candidate in candidates]
    boxes = np.array([candidate.mask.box for candidate in cut], np.float64).reshape(-1, 4)
    order = box_nms(boxes, np.array([candidate.predicted_iou for candidate in cut], np.float64), iou_threshold)
    return [cut[i] for i in order]
