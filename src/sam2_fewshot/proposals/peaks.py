"""Candidates that SAM 2 makes of points: the peaks of maps that are high on objects.

Where objects touch without a gap, no cut of a map parts them, but a peak often lies in each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max

from sam2_fewshot.geometry.tiles import tile_at
from sam2_fewshot.proposals.boxes import in_frame, is_cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.geometry.tiles import TileGrid
    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.model.outputs import Embedding
    from sam2_fewshot.records import InstanceMask


def peaks(
    maps: Sequence[tuple[NDArray[np.float32], NDArray[np.float64]]], diameter: float, most: int
) -> NDArray[np.float64]:
    """Return the peaks (N, 2) of maps, ``(x, y)`` in image pixels.

    Parameters
    ----------
    maps
        Pairs of a map (H, W), high on objects, and its levels; what lies below the lowest level has no peaks.
    diameter
        Typical diameter of an object in pixels; it sets how far peaks are apart.
    most
        How many are returned at most of each map, the highest.
    """
    found = np.empty((0, 2))
    for plane, levels in maps:
        if not len(levels):
            continue
        smooth = ndimage.gaussian_filter(plane, diameter / 6)
        here = (
            peak_local_max(  # type: ignore[no-untyped-call]
                smooth,
                min_distance=max(1, int(diameter / 3)),
                threshold_abs=float(levels[0]),
                num_peaks=most,
                exclude_border=False,
            )[:, ::-1]
            + 0.5
        )
        if len(found):
            apart = np.linalg.norm(here[:, None] - found[None], axis=-1).min(axis=1) > diameter / 4
            here = here[apart]
        found = np.concatenate([found, here])
    return found


def point_candidates(
    model: Sam2Model,
    embeddings: Sequence[Embedding],
    grid: TileGrid,
    points: NDArray[np.float64],
    areas: tuple[float, float],
) -> list[InstanceMask]:
    """Return the masks that SAM 2 makes of points, of a plausible size.

    Parameters
    ----------
    model
        Decodes the prompts.
    embeddings
        Of the grid's tiles, row by row.
    grid
        Of the frame.
    points
        (N, 2), ``(x, y)`` in image pixels.
    areas
        Smallest and largest area of a mask in pixels.
    """
    windows, zoom = grid.windows(), model.image_size / grid.side
    reach = math.sqrt(areas[1]) / 2 * zoom
    tiles = np.array([tile_at(grid, x, y) for x, y in points], int)
    found = []
    for tile in np.unique(tiles):
        x, y = windows[tile][:2]
        # SAM 2's prompt encoder adds the half pixel itself.
        prompts = (points[tiles == tile] - (x, y)) * zoom - 0.5
        answers = model.prompt(
            embeddings[tile], prompts.astype(np.float32), iou_gate=-math.inf, stability_gate=0.0, reach=reach
        )
        for box, data in zip(answers.boxes, answers.data, strict=True):
            mask = in_frame(data, x + int(box[0]), y + int(box[1]), grid.frame_shape)
            if mask is not None and areas[0] <= mask.area <= areas[1] and not is_cut(mask, windows[tile]):
                found.append(mask)
    return found
