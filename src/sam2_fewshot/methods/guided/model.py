"""What the guided method has learned, and how it finds objects with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sam2_fewshot.methods.base import Scored, ScoredMask
from sam2_fewshot.methods.guided.box_refinement import apart, explained, opinions_of_all, second_pool, to_ask
from sam2_fewshot.methods.guided.classifier import Logistic
from sam2_fewshot.methods.guided.descriptors import (
    COARSE_COSINE,
    DESCRIPTORS,
    SUPPORT,
    FrameMaps,
    Proposed,
    describe,
    support,
)
from sam2_fewshot.methods.guided.maps import PixelModel, dense_maps, enlarge, tile_cells
from sam2_fewshot.methods.guided.proposals import component_candidates, peaks, point_candidates
from sam2_fewshot.tiling.tiles import TileGrid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.backbones.sam2.pyramid import Embedding
    from sam2_fewshot.methods.base import Stopwatch
    from sam2_fewshot.methods.guided.box_refinement import SecondPool
    from sam2_fewshot.methods.guided.maps import TileCells
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import InstanceMask

_FEWEST_PEAKS, _PEAKS_PER_TILE = 64, 3
"""So many peaks of a map are prompted a frame, or a tile of it, whichever are more."""
_CELL_ARRAYS = ("mean", "scale", "weights", "directions")
_JUDGES = ("first", "second")
_JUDGE_ARRAYS = ("mean", "scale", "weights")


@dataclass(frozen=True, eq=False)
class LookedAt:
    """A frame as the encoder and the pixel model see it.

    Parameters
    ----------
    grid
        Its tiles.
    embeddings
        Of the tiles, row by row.
    maps
        On which candidates are measured.
    """

    grid: TileGrid
    embeddings: Sequence[Embedding]
    maps: FrameMaps


@dataclass(frozen=True, eq=False)
class Looks:
    """What both looks at a frame gave.

    Parameters
    ----------
    seen
        The frame.
    candidates, first
        What was proposed, and its log-odds at the first look, float64 (N,).
    asked
        Indices of the candidates that SAM 2 was asked about.
    pool, odds
        These and SAM 2's masks of them, and how far their log-odds at the second look lie above the cut.
    """

    seen: LookedAt
    candidates: list[InstanceMask]
    first: NDArray[np.float64]
    asked: list[int]
    pool: SecondPool
    odds: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GuidedModel:
    """What was learned.

    Parameters
    ----------
    side
        Side of a tile in pixels.
    diameter
        Median diameter of the examples in pixels, the square root of the area.
    areas
        Smallest and largest area of a candidate in pixels.
    colours, unit
        float64 (3,), direction in RGB in which examples differ from their surroundings, and the standard deviation
        along it.
    levels
        (3, L): where the contrast, the local contrast and the score are cut; NaN where there is no level.
    cells
        The pixel model.
    first
        Tells which candidates are worth asking SAM 2 about, by their descriptors.
    second
        Tells right candidates from wrong ones, by their descriptors and by what SAM 2 says.
    cut
        Log-odds of the second judge at which an object counts as found; its score is then .5.
    """

    side: int
    diameter: float
    areas: tuple[float, float]
    colours: NDArray[np.float64]
    unit: float
    levels: NDArray[np.float64]
    cells: PixelModel
    first: Logistic
    second: Logistic
    cut: float

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all of it as arrays by name, for saving."""
        return {
            "numbers": np.array(
                [self.side, self.diameter, *self.areas, self.unit, self.cells.bias, self.cut]
                + [getattr(self, judge).bias for judge in _JUDGES]
            ),
            "colours": self.colours,
            "levels": self.levels,
            **{f"cells_{name}": getattr(self.cells, name) for name in _CELL_ARRAYS},
            **{f"{judge}_{name}": getattr(getattr(self, judge), name) for judge in _JUDGES for name in _JUDGE_ARRAYS},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> GuidedModel:
        """Return what :meth:`arrays` was made from."""
        side, diameter, smallest, largest, unit, cell_bias, cut, *biases = arrays["numbers"].tolist()
        cells = {name: arrays[f"cells_{name}"] for name in _CELL_ARRAYS}
        first, second = (
            Logistic(bias=bias, **{name: arrays[f"{judge}_{name}"] for name in _JUDGE_ARRAYS})  # type: ignore[arg-type]
            for judge, bias in zip(_JUDGES, biases, strict=True)
        )
        return cls(
            side=int(side),
            diameter=diameter,
            areas=(smallest, largest),
            colours=arrays["colours"],  # type: ignore[arg-type]
            unit=unit,
            levels=arrays["levels"],  # type: ignore[arg-type]
            cells=PixelModel(bias=cell_bias, **cells),  # type: ignore[arg-type]
            first=first,
            second=second,
            cut=cut,
        )

    def find(
        self,
        model: Sam2Model,
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        progress: Progress,
        watch: Stopwatch,
    ) -> Scored:
        """Return the objects on a frame, the highest score first, none of which overlaps a better one.

        Parameters
        ----------
        model
            The checkpoint that it was learned with.
        pixels
            uint8 RGB (H, W, 3).
        known
            Masks of the examples on this frame, which are not found again.
        progress
            Is told of each tile done.
        watch
            Takes the time of each stage.
        """
        if np.ptp(pixels, axis=(0, 1)).max() == 0:
            return Scored([], 0, [])  # of one colour: whatever differs from place to place is made by the tiles
        looks = self.look(model, pixels, progress, watch)
        with watch.stage("compare"):
            chosen = apart(looks.pool.masks, looks.odds, known)
        masks = [
            ScoredMask(
                mask=looks.pool.masks[i],
                score=float(1 / (1 + np.exp(-looks.odds[i]))),
                similarity=float(np.clip(looks.pool.features[i, COARSE_COSINE], -1, 1)),
                predicted_iou=float(looks.pool.features[i, DESCRIPTORS]),
            )
            for i in chosen
        ]
        return Scored(masks, len(looks.candidates), [*looks.candidates, *looks.pool.masks[len(looks.asked) :]])

    def look(
        self,
        model: Sam2Model,
        pixels: NDArray[np.uint8],
        progress: Progress,
        watch: Stopwatch,
        encoded: Iterable[TileCells] | None = None,
    ) -> Looks:
        """Propose candidates on a frame and judge them.

        Parameters
        ----------
        model, pixels, progress, watch
            As in :meth:`find`.
        encoded
            The frame's tiles; without them, it is encoded.
        """
        shape = (pixels.shape[0], pixels.shape[1])
        grid = TileGrid(shape, self.side)
        tiles = len(grid.windows())
        with watch.stage("encode"):
            progress.start("encoding", tiles)
            encoded = encoded or tile_cells(model, pixels, self.side, progress.advance)
            planes, embeddings = dense_maps(encoded, shape, self.side, model.image_size, [self.cells])
        with watch.stage("propose"):
            maps = measure(pixels, planes[0], self.colours, self.unit, self.diameter)
            seen = LookedAt(grid, embeddings, maps)
            components = self.components(maps)
        with watch.stage("compare"):
            descriptors = describe(components.masks, maps, self.diameter, components)
            clear = explained(components.masks, self.first.log_odds(descriptors), shape)
        with watch.stage("prompt"):
            more = self.prompted(model, seen, clear)
        with watch.stage("compare"):
            proposed = components.and_once(more)
            candidates = list(proposed.masks)
            descriptors[:, SUPPORT] = support(components.masks, proposed)
            descriptors = np.concatenate([descriptors, describe(more, maps, self.diameter, proposed)])
            first = self.first.log_odds(descriptors)
            asked = to_ask(candidates, first, tiles)
            questions = [candidates[i] for i in asked]
        with watch.stage("prompt"):
            progress.start("prompting", len(questions))
            said = opinions_of_all(model, pixels, embeddings, grid, questions, progress.advance)
        with watch.stage("compare"):
            pool = second_pool(questions, descriptors[asked], said, maps, self.diameter, self.areas, proposed)
            odds = self.second.log_odds(pool.features) - self.cut
        return Looks(seen, candidates, first, asked, pool, odds)

    def components(self, maps: FrameMaps) -> Proposed:
        """Return the components of a frame's maps that may be objects."""
        return Proposed(*component_candidates(self._planes(maps), self.diameter, self.areas))

    def prompted(
        self, model: Sam2Model, looked_at: LookedAt, explained: NDArray[np.bool_] | None = None
    ) -> list[InstanceMask]:
        """Return what SAM 2 makes of the maps' peaks.

        Parameters
        ----------
        model
            Decodes the prompts.
        looked_at
            The frame.
        explained
            Boolean (H, W): where an object was found already, which is not asked about; None for nowhere.
        """
        # The contrast itself is left out: where the ground is uneven, it peaks there.
        planes = self._planes(looked_at.maps)[1:]
        points = peaks(planes, self.diameter, max(_FEWEST_PEAKS, _PEAKS_PER_TILE * len(looked_at.embeddings)))
        if explained is not None:
            columns, rows = points.astype(int).T
            points = points[~explained[rows, columns]]
        return point_candidates(model, looked_at.embeddings, looked_at.grid, points, self.areas)

    def _planes(self, maps: FrameMaps) -> list[tuple[NDArray[np.float32], NDArray[np.float64]]]:
        cuts = [row[np.isfinite(row)] for row in self.levels]
        return list(zip((maps.contrast, maps.local, maps.score), cuts, strict=True))


def measure(
    pixels: NDArray[np.uint8], planes: NDArray[np.float32], colours: NDArray[np.float64], unit: float, diameter: float
) -> FrameMaps:
    """Return the planes on which candidates are measured.

    Parameters
    ----------
    pixels
        uint8 RGB (H, W, 3).
    planes
        float32 (4, H, W), the maps of a pixel model.
    colours, unit, diameter
        As in :class:`GuidedModel`.
    """
    # One channel at a time: a product with all of them would copy the picture as 64-bit numbers.
    raw = np.zeros(pixels.shape[:2], np.float32)
    for channel, weight in enumerate((colours / unit).astype(np.float32)):
        raw += pixels[..., channel] * weight
    contrast = ndimage.gaussian_filter(raw, float(np.clip(diameter / 20, 0.6, 1.5)))
    return FrameMaps(
        contrast=contrast,
        local=contrast - local_mean(raw, 1.2 * diameter),
        edges=ndimage.gaussian_gradient_magnitude(raw, 1.0),
        score=planes[0],
        cosines=planes[1:],
    )


def local_mean(plane: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return a plane (H, W) smoothed by a wide Gaussian, computed on a reduced one and interpolated.

    With cells a sixth of `sigma` wide, the difference is below a thousandth of the plane's range nearly everywhere, and
    a hundredth at the border.
    """
    step = max(1, int(sigma / 6))
    height, width = plane.shape
    padded = np.pad(plane, [(0, -height % step), (0, -width % step)], mode="edge")
    cells = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).mean(axis=3).mean(axis=1)
    return enlarge(ndimage.gaussian_filter(cells, sigma / step), (height, width), step)
