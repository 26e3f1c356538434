"""What the guided method has learned, and how it detects objects with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.methods.base import Scored, ScoredMask
from sam2_fewshot.methods.guided.appearance import NOT_PROMINENT, Prominence, measure, tiles_with_something
from sam2_fewshot.methods.guided.box_refinement import (
    PREDICTED_IOU,
    REFINEMENT,
    covered,
    non_overlapping,
    refined_masks,
    to_refine,
    to_refine_in_training,
    with_refined,
)
from sam2_fewshot.methods.guided.descriptors import COARSE_COSINE, SUPPORT, FrameMaps, Proposed, describe, support
from sam2_fewshot.methods.guided.erosion import restored, restored_in_turn
from sam2_fewshot.methods.guided.expectation import NO_EVIDENCE, Evidence, LookAlike
from sam2_fewshot.methods.guided.kinds import Divide, less_for_kind
from sam2_fewshot.methods.guided.logistic import Logistic
from sam2_fewshot.methods.guided.magnifications import (
    NEVER,
    NOTHING_AT_HALF,
    NOTHING_LARGER,
    Found,
    joined,
    search_at_half,
    search_windows,
    windows_to_search,
)
from sam2_fewshot.methods.guided.maps import PixelModel, dense_maps, tile_cells
from sam2_fewshot.methods.guided.proposals import component_candidates, peaks, point_candidates
from sam2_fewshot.methods.guided.scaling import TIMES
from sam2_fewshot.settings import SIMILAR_AREAS
from sam2_fewshot.tiling.overview import is_flat
from sam2_fewshot.tiling.tiles import TileGrid, tile_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import Stopwatch
    from sam2_fewshot.methods.guided.maps import TileCells
    from sam2_fewshot.protocols import Backbone, Embedding, Progress
    from sam2_fewshot.records import InstanceMask

_FEWEST_PEAKS, _PEAKS_PER_TILE = 64, 3
"""So many peaks of a map are prompted a frame, or a tile of it, whichever are more."""
_CELL_ARRAYS = ("mean", "scale", "weights", "directions")
_CLASSIFIERS = ("first", "second")
_CLASSIFIER_ARRAYS = ("mean", "scale", "weights")


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """A frame once it is encoded and the pixel model was applied to it.

    Parameters
    ----------
    grid
        Its tiles.
    embeddings
        Of the tiles that were encoded, by their numbers, counted row by row.
    maps
        On which candidates are measured.
    """

    grid: TileGrid
    embeddings: Mapping[int, Embedding]
    maps: FrameMaps


@dataclass(frozen=True, eq=False)
class FrameCandidates:
    """What was proposed on a frame, with scores.

    Parameters
    ----------
    frame
        The frame.
    proposed
        All candidates and refined masks.
    likely
        The likely candidates and their refined masks; the log-odds of what is too long are negatively infinite.
    """

    frame: EncodedFrame
    proposed: list[InstanceMask]
    likely: Found


@dataclass(frozen=True, eq=False)
class GuidedModel:
    """What was learned.

    Parameters
    ----------
    side
        Side of a tile in pixels.
    diameter
        Median diameter of the examples in pixels, the square root of the area.
    areas, examples
        Smallest and largest area of a candidate, and of an example, in pixels.
    colours, unit
        float64 (3,), direction in RGB in which examples differ from their surroundings, and the standard deviation
        along it.
    levels
        (3, T): the levels at which the contrast, the local contrast and the score are thresholded; NaN where there is
        none.
    cells
        The pixel model.
    first
        Tells which candidates are worth refining, by their descriptors.
    second
        Tells right candidates from wrong ones, by their descriptors and by how their refined masks turn out.
    threshold
        Log-odds of the second classifier from which on a candidate counts as an object; its score is then .5.
    margin, worth
        By how much the log-odds of what is found at twice the magnification have to lie above the threshold, and for
        how many small places for each detection a tile is searched like that; see
        :mod:`~sam2_fewshot.methods.guided.magnifications`.
    larger
        Smallest and largest area of what is looked for at half the magnification, in pixels of the frame. Where the
        first is not below the second, nothing is.
    longest
        Diagonal of the bounding box that no detection exceeds, in pixels of the picture that is searched: of the frame,
        or of what is enlarged or reduced.
    kinds
        What divides the wanted objects from those of other kinds; see :mod:`~sam2_fewshot.methods.guided.kinds`.
    erosion
        By how many pixels the marks were eroded; all that is learned is about such cores, but for `examples`.
    prominence
        How far the examples stand out; tiles in which nothing does are not encoded.
    evidence
        How well the examples are found again.
    places
        Where unmarked detections lie on the examples' frames, those with the highest score first. They are not saved.
    agreement
        Mean IoU of the examples with what is detected of them by what was learned without them; NaN where that is not
        known.
    limits
        The user's smallest and largest area that are in force, of whole objects. They are not saved.
    """

    side: int
    diameter: float
    areas: tuple[float, float]
    examples: tuple[float, float]
    colours: NDArray[np.float64]
    unit: float
    levels: NDArray[np.float64]
    cells: PixelModel
    first: Logistic
    second: Logistic
    threshold: float
    margin: float = NEVER
    worth: float = 0.0
    larger: tuple[float, float] = NOTHING_LARGER
    longest: float = math.inf
    kinds: Sequence[Divide] = ()
    erosion: float = 0.0
    prominence: Prominence = NOT_PROMINENT
    evidence: Evidence = NO_EVIDENCE
    places: Sequence[LookAlike] = ()
    agreement: float = math.nan
    limits: tuple[float, float] = (0.0, math.inf)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all of it as arrays by name, for saving."""
        return {
            "numbers": np.array(
                [self.side, self.diameter, *self.areas, self.unit, self.cells.bias, self.threshold]
                + [getattr(self, name).bias for name in _CLASSIFIERS]
            ),
            "examples": np.array(self.examples),
            "evidence": np.array(self.evidence, np.int64),
            **({} if math.isnan(self.agreement) else {"agreement": np.array([self.agreement])}),
            "sizes": np.array([self.margin, self.worth, self.longest]),
            "larger": np.array(self.larger),
            "erosion": np.array([self.erosion]),
            "kinds": np.array(self.kinds, np.float64).reshape(-1, 3),
            "prominence": np.array(self.prominence),
            "colours": self.colours,
            "levels": self.levels,
            **{f"cells_{name}": getattr(self.cells, name) for name in _CELL_ARRAYS},
            **{
                f"{classifier}_{name}": getattr(getattr(self, classifier), name)
                for classifier in _CLASSIFIERS
                for name in _CLASSIFIER_ARRAYS
            },
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> GuidedModel:
        """Return what :meth:`arrays` was made from."""
        side, diameter, smallest, largest, unit, cell_bias, threshold, *biases = arrays["numbers"].tolist()
        least_larger, most_larger = arrays["larger"].tolist() if "larger" in arrays else NOTHING_LARGER
        margin, worth, longest = arrays["sizes"].tolist() if "sizes" in arrays else (NEVER, 0.0, math.inf)
        # Version 0.3.0 did not keep them.
        supposed = [area / times for area, times in zip((smallest, largest), SIMILAR_AREAS, strict=True)]
        examples = arrays["examples"].tolist() if "examples" in arrays else supposed
        cells = {name: arrays[f"cells_{name}"] for name in _CELL_ARRAYS}
        first, second = (
            Logistic(bias=bias, **{name: arrays[f"{classifier}_{name}"] for name in _CLASSIFIER_ARRAYS})  # type: ignore[arg-type]
            for classifier, bias in zip(_CLASSIFIERS, biases, strict=True)
        )
        return cls(
            side=int(side),
            diameter=diameter,
            areas=(smallest, largest),
            examples=(examples[0], examples[1]),
            colours=arrays["colours"],  # type: ignore[arg-type]
            unit=unit,
            levels=arrays["levels"],  # type: ignore[arg-type]
            cells=PixelModel(bias=cell_bias, **cells),  # type: ignore[arg-type]
            first=first,
            second=second,
            threshold=threshold,
            margin=margin,
            worth=worth,
            larger=(least_larger, most_larger),
            longest=longest,
            erosion=float(arrays["erosion"][0]) if "erosion" in arrays else 0.0,
            kinds=[Divide(int(m), at, bool(above)) for m, at, above in arrays.get("kinds", np.zeros((0, 3))).tolist()],
            prominence=Prominence(*arrays["prominence"].tolist()) if "prominence" in arrays else NOT_PROMINENT,
            evidence=Evidence(*arrays["evidence"].tolist()) if "evidence" in arrays else NO_EVIDENCE,
            agreement=float(arrays["agreement"][0]) if "agreement" in arrays else math.nan,
        )

    def detect(
        self,
        backbone: Backbone,
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        progress: Progress,
        watch: Stopwatch,
        least_area: int | None = None,
    ) -> Scored:
        """Return the objects on a frame, the highest score first, none of which overlaps a better one.

        Parameters
        ----------
        backbone
            The one that it was learned with.
        pixels
            uint8 RGB (H, W, 3).
        known
            Masks of the examples on this frame, which are not detected again.
        progress
            Reports each tile done.
        watch
            Takes the time of each stage.
        least_area
            Objects smaller than the examples are looked for as well, down to so many pixels, and larger ones; None:
            they are not.
        """
        if is_flat(pixels):
            return Scored([], 0, [])
        # First of all, so that its tiles serve candidates which cross the borders of the usual ones.
        half, wider = (
            search_at_half(self, backbone, pixels, progress, watch) if least_area is not None else NOTHING_AT_HALF
        )
        usual = self.candidates(backbone, pixels, progress, watch, wider=wider)
        found, proposed = usual.likely, usual.proposed
        depths = np.full(len(found.masks), self.erosion)
        if least_area is not None:
            with watch.stage("compare"):
                windows = windows_to_search(self, usual, least_area, known)
            del usual  # its maps take the memory that the search of the windows needs
            smaller = search_windows(self, backbone, pixels, windows, least_area, progress, watch)
            # A pixel of a picture at twice its size is half a pixel of the frame.
            for more, depth in ((smaller, self.erosion / TIMES), (half, self.erosion * TIMES)):
                if more.masks:
                    found = joined(found, more)
                    depths = np.append(depths, np.full(len(more.masks), depth))
                    proposed += more.masks
        masks, odds, features = found
        with watch.stage("compare"):
            if self.erosion:
                odds = np.where(self.are_within_limits(masks, depths), odds, -np.inf)
            chosen = [i for i in non_overlapping(masks, odds, known) if np.isfinite(odds[i])]
            whole = {i: masks[i] for i in chosen}
            if self.erosion:
                whole = restored_in_turn(whole, odds, depths, known)
        scored = [
            ScoredMask(
                mask=mask,
                score=float(1 / (1 + np.exp(-odds[i]))),
                similarity=float(np.clip(features[i, COARSE_COSINE - REFINEMENT], -1, 1)),
                predicted_iou=float(features[i, PREDICTED_IOU]),
            )
            for i, mask in whole.items()
        ]
        return Scored(scored, len(proposed), proposed)

    def are_within_limits(self, cores: Sequence[InstanceMask], depths: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which cores (N,), eroded by so many pixels each, are those of objects within the limits."""
        least, most = self.limits

        def is_within(core: InstanceMask, depth: float) -> bool:
            # What a core is grown to has no fewer pixels.
            if core.area > most:
                return False
            if core.area >= least and most == math.inf:
                return True
            return least <= restored([core], depth)[0].area <= most

        return np.array([is_within(*pair) for pair in zip(cores, depths.tolist(), strict=True)], bool)

    def candidates(
        self,
        backbone: Backbone,
        pixels: NDArray[np.uint8],
        progress: Progress,
        watch: Stopwatch,
        encoded: Iterable[TileCells] | None = None,
        about: Sequence[InstanceMask] | None = None,
        share: float = 1.0,
        wider: Mapping[int, Embedding] = MappingProxyType({}),
    ) -> FrameCandidates:
        """Propose candidates on a frame, refine the likely ones, and score them.

        Parameters
        ----------
        backbone, pixels, progress, watch
            As in :meth:`detect`.
        encoded
            All of the frame's tiles; without them, those are encoded in which something stands out.
        about
            Points are prompted only in the bounding boxes of these masks, and only candidates about them are refined;
            None for all that are likely.
        share
            How large a part of a frame this is; the fewest prompts are of a whole one.
        wider
            As in :func:`~sam2_fewshot.methods.guided.box_refinement.refined_masks`.
        """
        grid = TileGrid.of(pixels, self.side)
        shape = grid.frame_shape
        with watch.stage("encode"):
            seen = measure(pixels, self.colours, self.unit, self.diameter)
            prominence = self.prominence if encoded is None else NOT_PROMINENT
            numbers = tiles_with_something(seen.local, grid, prominence, self.diameter)
            progress.start("encoding", len(numbers))
            encoded = encoded or tile_cells(backbone, pixels, self.side, progress.advance, numbers)
            planes, embeddings = dense_maps(encoded, shape, self.side, backbone, [self.cells])
        with watch.stage("propose"):
            maps = FrameMaps.of(seen, planes[0])
            frame = EncodedFrame(grid, embeddings, maps)
            components = self.components(frame)
        with watch.stage("compare"):
            descriptors = describe(components.masks, maps, self.diameter, components)
            clear = covered(components.masks, self.first.log_odds(descriptors), shape)
            if about is not None:
                clear |= ~_boxes_of(about, shape)
        with watch.stage("prompt"):
            more = self.prompted(backbone, frame, clear, share)
        with watch.stage("compare"):
            proposed = components.and_once(more)
            candidates = list(proposed.masks)
            descriptors[:, SUPPORT] = support(components.masks, proposed)
            descriptors = np.concatenate([descriptors, describe(more, maps, self.diameter, proposed)])
            first = self.first.log_odds(descriptors)
            if about is None:
                likely = to_refine(candidates, first, len(embeddings), share)
            else:
                likely = to_refine_in_training(candidates, first, about, share=0.0)
            chosen = [candidates[i] for i in likely]
        with watch.stage("prompt"):
            progress.start("prompting", len(chosen))
            masks = refined_masks(backbone, pixels, embeddings, grid, chosen, progress.advance, wider)
        with watch.stage("compare"):
            both, features = with_refined(chosen, descriptors[likely], masks, maps, self.diameter, self.areas, proposed)
            fits = [math.hypot(*mask.data.shape) <= self.longest for mask in both]
            judged = self.second.log_odds(features) - less_for_kind(features, self.kinds)
            odds = np.where(fits, judged - self.threshold, -np.inf)
        return FrameCandidates(frame, [*candidates, *both[len(likely) :]], Found(both, odds, features))

    def components(self, frame: EncodedFrame) -> Proposed:
        """Return the components of a frame's maps that may be objects; none in tiles that are not encoded."""
        masks, times = component_candidates(self._planes(frame.maps), self.diameter, self.areas)
        within = [tile_of(frame.grid, mask) in frame.embeddings for mask in masks]
        return Proposed(masks, times).chosen(np.array(within, bool))

    def prompted(
        self, backbone: Backbone, frame: EncodedFrame, covered: NDArray[np.bool_] | None = None, share: float = 1.0
    ) -> list[InstanceMask]:
        """Return the masks of the maps' peaks as point prompts.

        Parameters
        ----------
        backbone
            Decodes the prompts.
        frame
            The frame.
        covered
            Boolean (H, W): where there is an object already, and no point is prompted; None for nowhere.
        share
            How large a part of a frame this is.
        """
        # The contrast itself is left out: where the ground is uneven, it peaks there.
        planes = self._planes(frame.maps)[1:]
        most = max(math.ceil(share * _FEWEST_PEAKS), _PEAKS_PER_TILE * len(frame.embeddings))
        points = peaks(planes, self.diameter, most)
        if covered is not None:
            columns, rows = points.astype(int).T
            points = points[~covered[rows, columns]]
        return point_candidates(backbone, frame.embeddings, frame.grid, points, self.areas)

    def _planes(self, maps: FrameMaps) -> list[tuple[NDArray[np.float32], NDArray[np.float64]]]:
        levels = [row[np.isfinite(row)] for row in self.levels]
        return list(zip((maps.contrast, maps.local, maps.score), levels, strict=True))


def _boxes_of(masks: Sequence[InstanceMask], frame_shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where (H, W) the bounding box of a mask is."""
    where = np.zeros(frame_shape, bool)
    for x0, y0, x1, y1 in (mask.box for mask in masks):
        where[y0:y1, x0:x1] = True
    return where
