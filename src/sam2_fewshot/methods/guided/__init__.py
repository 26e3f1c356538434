"""The guided method: everything about an object that can be learned from the examples guides the search.

Learn: the examples' size sets the magnification of the tiles; a pixel model gives maps of what looks like them
(:mod:`~sam2_fewshot.methods.guided.maps`); components of these maps and of the contrast, and SAM 2's masks of their
peaks, are candidates (:mod:`~sam2_fewshot.methods.guided.proposals`). On the training frames it is known of many
candidates whether they are right: those that match an example are, its parts and its unions with neighbours are not.
From these a classifier learns to separate them (:mod:`~sam2_fewshot.methods.guided.descriptors`,
:mod:`~sam2_fewshot.methods.guided.classifier`). The best are refined by box prompts
(:mod:`~sam2_fewshot.methods.guided.box_refinement`), and a second classifier scores them with what SAM 2 says.
Nothing is tuned to a checkpoint or a kind of image: which map is trusted, and how far, follows from the examples.

An example is never judged by what was learned from itself: the pixel models are learned in three folds, and the score
at which an object counts as found is set on examples that the regression has not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam2_fewshot.methods.guided.learning import learn_guided
from sam2_fewshot.methods.guided.model import GuidedModel
from sam2_fewshot.tiling.tiles import TileGrid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.methods.base import Scored, Stopwatch, TrainingFrame
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import InstanceMask
    from sam2_fewshot.settings import Settings


class GuidedMethod:
    """See the package.

    Parameters
    ----------
    model
        Encodes the tiles.
    settings
        ``min_mask_area`` and ``max_mask_area`` are used.
    progress
        Is told of tiles and candidates done.
    """

    def __init__(self, model: Sam2Model, settings: Settings, progress: Progress) -> None:
        self._model, self._settings, self._progress = model, settings, progress

    def learn(self, frames: Sequence[TrainingFrame]) -> Mapping[str, NDArray[np.generic]]:
        """Return a :class:`~sam2_fewshot.methods.guided.model.GuidedModel` as arrays."""
        limits = (self._settings.min_mask_area, self._settings.max_mask_area)
        return learn_guided(self._model, frames, limits, self._progress).arrays()

    def find(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        watch: Stopwatch,
    ) -> Scored:
        """Return objects that do not overlap."""
        return GuidedModel.from_arrays(learned).find(self._model, pixels, known, self._progress, watch)

    def step(self, learned: Mapping[str, NDArray[np.generic]]) -> int:
        """Return the side of a tile without its halo, in pixels."""
        return TileGrid((1, 1), GuidedModel.from_arrays(learned).side).core
