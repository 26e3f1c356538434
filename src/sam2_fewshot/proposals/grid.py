"""Candidates as ``SAM2AutomaticMaskGenerator`` gives them: one prompt at each point of a regular grid.

The same prompts, gates and suppression as the public generator with one crop layer and no post-processing, hence
the same masks; what differs is how they are computed (:mod:`sam2_fewshot.model.decoder`,
:mod:`sam2_fewshot.model.masks`). Areas are limited on the full-resolution mask, never by the generator's
``min_mask_region_area``, which works on low-resolution logits and erases small objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.proposals.nms import box_nms
from sam2_fewshot.records import Candidate, InstanceMask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.model.outputs import Embedding
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.settings import Settings


def point_grid(points_per_side: int) -> NDArray[np.float64]:
    """Return the centres of ``points_per_side ** 2`` equal cells of the unit square.

    Returns
    -------
    numpy.ndarray
        (N, 2), ``(x, y)`` in [0, 1], row by row.
    """
    offset = 1 / (2 * points_per_side)
    side = np.linspace(offset, 1 - offset, points_per_side)
    x, y = np.meshgrid(side, side)
    return np.stack([x.ravel(), y.ravel()], axis=1)


class GridProposals:
    """Prompts SAM 2 at each point of a grid.

    Parameters
    ----------
    settings
        ``points_per_side``, ``predicted_iou_gate``, ``stability_gate``, ``box_nms_iou``, ``min_mask_area`` and
        ``max_mask_area`` are used. A gate that is None is the checkpoint's default.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def propose(self, model: Sam2Model, embedding: Embedding, progress: Progress) -> list[Candidate]:
        """Return candidates, the highest predicted IoU first.

        Parameters
        ----------
        model
            Decodes the prompts.
        embedding
            Of the frame.
        progress
            Is told of each prompt done.
        """
        settings = self._settings
        grid = point_grid(settings.points_per_side)
        progress.start("proposing", len(grid))
        gates = model.gates
        found = model.prompt(
            embedding,
            (grid * model.image_size).astype(np.float32),
            iou_gate=_first(settings.predicted_iou_gate, gates.predicted_iou),
            stability_gate=_first(settings.stability_gate, gates.stability),
            on_batch=progress.advance,
        )
        # The public generator suppresses on boxes whose right and bottom edges are the last pixels.
        boxes = found.boxes - np.array([0, 0, 1, 1])
        height, width = embedding.frame_shape
        candidates = []
        for i in box_nms(boxes.astype(np.float64), found.predicted_iou, settings.box_nms_iou):
            x0, y0 = found.boxes[i, :2]
            x, y = grid[found.prompt[i]] * (width, height)
            candidates.append(
                Candidate(
                    InstanceMask(found.data[i], int(x0), int(y0), embedding.frame_shape),
                    float(found.predicted_iou[i]),
                    float(found.stability[i]),
                    (float(x), float(y)),
                )
            )
        return [candidate for candidate in candidates if self._size_fits(candidate.mask.area)]

    def _size_fits(self, area: int) -> bool:
        settings = self._settings
        return settings.min_mask_area <= area and (not settings.max_mask_area or area <= settings.max_mask_area)


def _first(value: float | None, default: float) -> float:
    return default if value is None else value
