"""SAM 2's opinion of a candidate: the mask that it makes of the candidate's bounding box.

An object gives its own mask back; of a part of an object, or of two that touch, SAM 2 makes something else, and is less
sure of it. Both the mask and the doubt are of use: the one as a further candidate, the other to tell right candidates
from wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.geometry.tiles import TileGrid, tile_at
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.model.outputs import Embedding
    from sam2_fewshot.records import Box

_COARSER = (2, 4)
"""How many times wider the tiles are in which SAM 2 is asked about what fits into none of the usual ones."""


@dataclass(frozen=True, eq=False, slots=True)
class Opinion:
    """What SAM 2 makes of a candidate's bounding box.

    Parameters
    ----------
    mask
        In the frame; never empty.
    predicted_iou
        SAM 2's own guess of the mask's quality.
    stability
        IoU of the masks that a cut one logit higher and one lower would give.
    agreement
        IoU of the mask with the candidate.
    """

    mask: InstanceMask
    predicted_iou: float
    stability: float
    agreement: float


def opinions_of_all(
    model: Sam2Model,
    pixels: NDArray[np.uint8],
    embeddings: Sequence[Embedding],
    grid: TileGrid,
    candidates: Sequence[InstanceMask],
    on_done: Callable[[int], None] = lambda done: None,
) -> list[Opinion | None]:
    """Prompt SAM 2 with the bounding box of each candidate, and again at lower magnification where a tile is too small.

    An object that is much larger than most, or lies across the border of two tiles, is whole in none of them. Tiles
    twice and four times as wide, of which only those are encoded that are needed, show it whole.

    Parameters
    ----------
    model, embeddings, grid, candidates, on_done
        As in :func:`opinions`.
    pixels
        uint8 RGB (H, W, 3), the frame.
    """
    found = opinions(model, embeddings, grid, candidates, on_done)
    for times in _COARSER:
        left = [i for i, opinion in enumerate(found) if opinion is None]
        wide = TileGrid(grid.frame_shape, grid.side * times)
        windows = wide.windows()
        tiles = np.array([tile_of(wide, candidates[i]) for i in left], int)
        held = np.array([_holds(windows[tile], candidates[i].box) for tile, i in zip(tiles, left, strict=True)], bool)
        needed = np.unique(tiles[held])
        if not len(needed):
            continue
        tiles_seen = model.tiles(pixels, [windows[tile] for tile in needed])
        # Of a tile only the embedding is kept; its levels take five times as much memory.
        known = {tile: seen.embedding for tile, seen in zip(needed, tiles_seen, strict=True)}
        for i, opinion in zip(left, opinions(model, known, wide, [candidates[i] for i in left]), strict=True):
            found[i] = opinion
    return found


def opinions(
    model: Sam2Model,
    embeddings: Sequence[Embedding] | Mapping[int, Embedding],
    grid: TileGrid,
    candidates: Sequence[InstanceMask],
    on_done: Callable[[int], None] = lambda done: None,
) -> list[Opinion | None]:
    """Prompt SAM 2 with the bounding box of each candidate.

    Parameters
    ----------
    model
        Decodes the prompts.
    embeddings
        Of the grid's tiles, row by row, or of those that hold a candidate, by their numbers.
    grid
        Of the candidates' frame.
    candidates
        None of them empty.
    on_done
        Is told the number of candidates done.

    Returns
    -------
    list
        For each candidate, None where its box reaches beyond the tile in whose core its middle lies, where SAM 2's mask
        goes on beyond that tile, and where it sees nothing.
    """
    height, width = grid.frame_shape
    windows = grid.windows()
    found: list[Opinion | None] = [None] * len(candidates)
    places: dict[int, list[int]] = {}
    for i, mask in enumerate(candidates):
        tile = tile_of(grid, mask)
        if _holds(windows[tile], mask.box):
            places.setdefault(tile, []).append(i)
    for tile, here in sorted(places.items()):
        x, y = windows[tile][:2]
        boxes = (np.array([candidates[i].box for i in here]) - (x, y, x, y)) * (model.image_size / grid.side)
        answers = model.prompt_boxes(embeddings[tile], boxes.astype(np.float32))
        for prompt, iou, stability, box, data in zip(*answers, strict=True):
            answer = in_frame(data, x + int(box[0]), y + int(box[1]), (height, width))
            if answer is not None and not is_cut(answer, windows[tile]):
                i = here[prompt]
                found[i] = Opinion(answer, float(iou), float(stability), mask_iou(answer, candidates[i]))
        on_done(len(here))
    return found


def _holds(window: Box, box: Box) -> bool:
    return window[0] <= box[0] and window[1] <= box[1] and box[2] <= window[2] and box[3] <= window[3]


def tile_of(grid: TileGrid, mask: InstanceMask) -> int:
    """Return the number of the tile in whose core the middle of a mask's bounding box lies."""
    x0, y0, x1, y1 = mask.box
    return tile_at(grid, (x0 + x1) / 2, (y0 + y1) / 2)


def is_cut(mask: InstanceMask, window: Box) -> bool:
    """Tell whether a mask ends where its tile does and not the frame: a part of something, with a straight edge."""
    (x0, y0, x1, y1), (height, width) = mask.box, mask.frame_shape
    return 0 < x0 <= window[0] or 0 < y0 <= window[1] or window[2] <= x1 < width or window[3] <= y1 < height


def in_frame(data: NDArray[np.bool_], x0: int, y0: int, shape: tuple[int, int]) -> InstanceMask | None:
    """Cut off what lies beyond the frame, where a tile sees its mirror image; None when nothing is left."""
    top, left = max(0, -y0), max(0, -x0)
    data = data[top : shape[0] - y0, left : shape[1] - x0] if y0 < shape[0] and x0 < shape[1] else data[:0]
    rows, columns = np.flatnonzero(data.any(1)), np.flatnonzero(data.any(0))
    if not rows.size:
        return None
    crop = data[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return InstanceMask(crop, x0 + left + int(columns[0]), y0 + top + int(rows[0]), shape)
