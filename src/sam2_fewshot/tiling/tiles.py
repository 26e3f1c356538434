"""Windows of a frame: square tiles with a halo that is computed and thrown away, and masks in them and in the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sam2_fewshot.geometry.overlap import cells
from sam2_fewshot.records import whole_box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import PromptedMasks
    from sam2_fewshot.records import Box, InstanceMask

PARTS = 16
"""A tile's side is divided by this; one part on either side is the halo."""


def halo_of(length: int) -> int:
    """Return how wide the halo on either side of a tile is, in the unit of its side, pixels or cells."""
    return length // PARTS


def core_of(length: int) -> int:
    """Return how wide the part of a tile is that counts, the tile without its halo."""
    return length - 2 * halo_of(length)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """A grid of tiles whose cores touch and cover a frame.

    Parameters
    ----------
    frame_shape
        ``(height, width)`` of the frame in pixels.
    side
        Width and height of a tile in pixels, halo included; a multiple of :data:`PARTS`.
    """

    frame_shape: tuple[int, int]
    side: int

    @classmethod
    def of(cls, pixels: NDArray[Any], side: int) -> TileGrid:
        """Return the grid of tiles of a side over a picture or plane (H, W, …)."""
        return cls((pixels.shape[0], pixels.shape[1]), side)

    @property
    def core(self) -> int:
        """Width and height in pixels of the part of a tile that counts."""
        return core_of(self.side)

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        height, width = self.frame_shape
        return -(-height // self.core), -(-width // self.core)

    def cores(self) -> list[Box]:
        """Return the tiles without their halos ``(x0, y0, x1, y1)``, row by row, cut off at the frame's border."""
        return list(cells(whole_box(self.frame_shape), self.core))

    def windows(self) -> list[Box]:
        """Return the tiles ``(x0, y0, x1, y1)``, row by row; those at the border reach beyond the frame."""
        rows, columns = self.counts
        halo = halo_of(self.side)
        return [
            (x - halo, y - halo, x - halo + self.side, y - halo + self.side)
            for y in range(0, rows * self.core, self.core)
            for x in range(0, columns * self.core, self.core)
        ]


def tile_at(grid: TileGrid, x: float, y: float) -> int:
    """Return the number of the tile, counted row by row, in whose core a point of the frame lies."""
    rows, columns = grid.counts
    return min(int(y / grid.core), rows - 1) * columns + min(int(x / grid.core), columns - 1)


def tile_side(frame_shape: tuple[int, int], ideal: float) -> int:
    """Return a tile side near an ideal one that wastes little of the tiles at the border.

    Parameters
    ----------
    frame_shape
        ``(height, width)`` of a typical frame in pixels.
    ideal
        The side that is wanted, in pixels.

    Returns
    -------
    int
        A multiple of :data:`PARTS` within a third of the ideal, except that a frame smaller than a tile has a tile of
        the ideal side.
    """
    share = (PARTS - 2) / PARTS
    longest = max(frame_shape)
    count = round(longest / (ideal * share))
    side = ideal if count == 0 else min(max(longest / (count * share), ideal * 2 / 3), ideal * 4 / 3)
    parts = max(1, round(side / PARTS + 0.49))
    if count == 0 or side < ideal * 4 / 3:
        return parts * PARTS
    # It covers the frame with no fewer tiles than sides nearer to the ideal do, which magnify more.
    needed = TileGrid(frame_shape, parts * PARTS).counts
    as_many = [n for n in range(1, parts + 1) if TileGrid(frame_shape, n * PARTS).counts == needed]
    return min(as_many, key=lambda n: abs(n * PARTS - ideal)) * PARTS


def tile_of(grid: TileGrid, mask: InstanceMask) -> int:
    """Return the number of the tile in whose core the middle of a mask's bounding box lies."""
    x0, y0, x1, y1 = mask.box
    return tile_at(grid, (x0 + x1) / 2, (y0 + y1) / 2)


def whole_masks(
    answers: PromptedMasks, window: Box, frame_shape: tuple[int, int]
) -> Iterator[tuple[int, InstanceMask]]:
    """Yield those masks of a tile's prompts that are whole in it, as masks of its frame, and which answers they are."""
    for number, placed in enumerate(answers.placed(window, frame_shape)):
        mask = placed.within(whole_box(frame_shape))  # beyond the frame a tile shows its mirror image
        if mask is not None and not mask.is_clipped(window):
            yield number, mask


def holds(window: Box, box: Box) -> bool:
    """Tell whether a box lies within a window."""
    return window[0] <= box[0] and window[1] <= box[1] and box[2] <= window[2] and box[3] <= window[3]
