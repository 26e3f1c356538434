"""The feature pyramid that SAM 2's encoder makes of a window, and what its decoder needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from sam2_fewshot.backbones.sam2.device import fitting

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_SHORTEST = 1e-6
"""Length of features below which they have no direction."""


class Embedding(NamedTuple):
    """What SAM 2's encoder makes of one image.

    Parameters
    ----------
    image_embed
        (1, C, h, w), the coarse features with the "no memory" token added.
    high_res
        (1, C / 8, 4h, 4w) and (1, C / 4, 2h, 2w), the finer features that the decoder takes.
    frame_shape
        ``(height, width)`` of the image in pixels.
    """

    image_embed: Tensor
    high_res: tuple[Tensor, Tensor]
    frame_shape: tuple[int, int]

    def resized(self, frame_shape: tuple[int, int]) -> Embedding:
        """Return the same for masks of another size; see :class:`~sam2_fewshot.protocols.Embedding`."""
        return self._replace(frame_shape=frame_shape)


@dataclass(frozen=True, eq=False, slots=True)
class Tile:
    """A :class:`~sam2_fewshot.protocols.Tile` on the encoder's device.

    Parameters
    ----------
    levels
        (C, s, s), (C, s / 2, s / 2) and (C, s / 4, s / 4), the fine, middle and coarse level; s is a quarter of the
        model's input.
    embedding
        For prompts in this window.
    """

    levels: tuple[Tensor, Tensor, Tensor]
    embedding: Embedding

    @property
    def level_bytes(self) -> int:
        """Memory of the levels in bytes."""
        return sum(level.numel() * level.element_size() for level in self.levels)

    @fitting()
    def shortened(self) -> Tile:
        """Return the tile with levels of half the precision, which is enough for what is averaged over channels."""
        fine, middle, coarse = (level.half() for level in self.levels)
        return Tile((fine, middle, coarse), self.embedding)

    @fitting()
    def features(self, halo: int, cells: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return all levels at cells of the fine one, interpolated bilinearly; see the protocol."""
        with torch.inference_mode():
            places = [torch.from_numpy(index + halo).to(self.levels[0].device) for index in np.nonzero(cells)]
            features = [_interpolated(level, self.levels[0], *places) for level in self.levels]
            found: NDArray[np.float32] = torch.cat(features).T.cpu().numpy()
            return found

    @fitting()
    def maps(
        self,
        halo: int,
        centres: NDArray[np.float32],
        weights: NDArray[np.float32],
        directions: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return linear maps of the features, and their cosines; see :class:`~sam2_fewshot.protocols.Tile`.

        Each level is multiplied at its own resolution and the products are interpolated, which gives the same as with
        the interpolated features, as both are linear.
        """
        count, scores, cosines = len(weights), [], []
        with torch.inference_mode(), torch.autocast(self.levels[0].device.type, enabled=False):
            for number, level in enumerate(self.levels):
                here = slice(number * len(level), (number + 1) * len(level))
                rows = np.concatenate([weights[:, here], directions[:, here]])
                centre = torch.from_numpy(centres[here]).to(level.device)
                centred = level.float().flatten(1) - centre[:, None]
                products = torch.from_numpy(rows).to(level.device) @ centred
                finer = enlarged(products.reshape(-1, *level.shape[1:]), self.levels[0])
                length = _lengths(centred.reshape(level.shape), self.levels[0]).clamp(min=_SHORTEST)
                scores.append(finer[:count])
                cosines.append(finer[count:] / length)
            return _without_halo(torch.stack([scores[0] + scores[1] + scores[2], *cosines], dim=1), halo)


def enlarged(level: Tensor, finest: Tensor) -> Tensor:
    """Interpolate a level (N, h, w) bilinearly to the size of the finest one, as float32."""
    size = finest.shape[-2:]
    if level.shape[-2:] == size:
        return level.float()
    return functional.interpolate(level.float()[None], size, mode="bilinear", align_corners=False)[0]


def _interpolated(level: Tensor, finest: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return what :func:`enlarged` gives at n cells, float32 (C, n): of most tiles few cells are learned from."""
    if level.shape[-2:] == finest.shape[-2:]:
        return level[:, rows, columns].float()
    ends = []
    for axis, index in ((-2, rows), (-1, columns)):
        size = level.shape[axis]
        first, share = _between(size, finest.shape[axis], level.device)
        ends.append(((first[index], 1 - share[index]), ((first[index] + 1).clamp(max=size - 1), share[index])))
    corners = [
        level[:, row, column].float() * (of_row * of_column) for row, of_row in ends[0] for column, of_column in ends[1]
    ]
    return corners[0] + corners[1] + corners[2] + corners[3]


def _lengths(level: Tensor, finest: Tensor) -> Tensor:
    """Return the lengths (H, W) that a level's features (C, h, w) have once :func:`enlarged`, without enlarging them.

    An interpolated feature is a mean of four neighbours with weights that are products of a row's and a column's. Its
    squared length is the sum of their scalar products, each times the weights of both; of these products a cell has
    one with itself and one with each of four neighbours.
    """
    if level.shape[-2:] == finest.shape[-2:]:
        lengths: Tensor = level.norm(dim=0)
        return lengths
    left, right, above, below = level[:, :, :-1], level[:, :, 1:], level[:, :-1], level[:, 1:]
    itself, across, down = level.square().sum(0), (left * right).sum(0), (above * below).sum(0)
    crosswise = (above[:, :, :-1] * below[:, :, 1:]).sum(0) + (above[:, :, 1:] * below[:, :, :-1]).sum(0)
    (of_row, of_rows), (of_column, of_columns) = (
        _squared_weights(level.shape[axis], finest.shape[axis], level.device) for axis in (-2, -1)
    )
    squared = (of_row @ itself + of_rows @ down) @ of_column.T + (
        of_row @ across + of_rows @ crosswise / 2
    ) @ of_columns.T
    return squared.clamp(min=0).sqrt()


def _squared_weights(size: int, finer: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return how the products of cells along an axis weigh in the squares of what is interpolated between them.

    Returns
    -------
    alone
        float32 (finer, size), of a cell with itself: the square of its weight.
    paired
        float32 (finer, size - 1), of a cell with the next: twice the product of their weights.
    """
    first, share = (values[:, None] for values in _between(size, finer, device))
    weights = torch.zeros(finer, size + 1, dtype=torch.float32, device=device)
    weights = weights.scatter_(1, first, 1 - share).scatter_(1, first + 1, share)[:, :size]
    return weights**2, 2 * weights[:, :-1] * weights[:, 1:]


def _between(size: int, finer: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the first of the two cells between which each finer cell (finer,) lies, and the weight of the second."""
    places = ((torch.arange(finer, dtype=torch.float32, device=device) + 0.5) * (size / finer) - 0.5).clamp(0, size - 1)
    first = places.floor().clamp(max=max(size - 2, 0)).long()
    return first, places - first


def _without_halo(cells: Tensor, halo: int) -> NDArray[np.float32]:
    height, width = cells.shape[-2:]
    array: NDArray[np.float32] = cells[..., halo : height - halo, halo : width - halo].cpu().numpy()
    return array
