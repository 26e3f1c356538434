"""The guided method: everything about an object that can be learned from the examples guides the search.

Learn: the examples' size sets the magnification of the tiles; a pixel model gives maps of what is like them
(:mod:`~sam2_fewshot.methods.guided.maps`); components of these maps and of the contrast, and the masks of their peaks
as point prompts, are candidates (:mod:`~sam2_fewshot.methods.guided.proposals`). On the training frames it is known of
many candidates whether they are right: those that match an example are, its parts and its unions with neighbours are
not. From these a classifier learns to separate them (:mod:`~sam2_fewshot.methods.guided.descriptors`,
:mod:`~sam2_fewshot.methods.guided.classifier`). The best are refined by box prompts
(:mod:`~sam2_fewshot.methods.guided.box_refinement`), and a second classifier scores them by how that turned out.
Nothing is tuned to a backbone or a kind of image: which map is trusted, and how far, follows from the examples.

An example is never scored by what was learned from itself: the pixel models are learned in three folds, and the score
from which on a candidate counts as an object is set on examples that the classifier has not seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sam2_fewshot.methods.guided.expectation import in_words
from sam2_fewshot.methods.guided.learning import learn_guided
from sam2_fewshot.methods.guided.limits import for_candidates, in_force, limited, warn_of_limits
from sam2_fewshot.methods.guided.model import GuidedModel
from sam2_fewshot.methods.guided.training_windows import MOST_TILES
from sam2_fewshot.resources import STORED, embeddings_in_learning, room_for_tiles
from sam2_fewshot.tiling.tiles import core_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import Place, Scored, Stopwatch, TrainingFrame
    from sam2_fewshot.protocols import Backbone, Progress
    from sam2_fewshot.records import InstanceMask
    from sam2_fewshot.settings import Settings


class GuidedMethod:
    """See the package.

    Parameters
    ----------
    backbone
        Encodes the tiles.
    settings
        ``min_mask_area``, ``max_mask_area``, ``sizes`` and ``max_memory`` are used.
    progress
        Reports tiles and candidates done.
    """

    def __init__(self, backbone: Backbone, settings: Settings, progress: Progress) -> None:
        self._backbone, self._settings, self._progress = backbone, settings, progress
        self._limits = (settings.min_mask_area, settings.max_mask_area)

    @property
    def held_tiles(self) -> int:
        """Of how many tiles the embeddings are held when it learns; fewer than usual where the memory is short."""
        backbone = self._backbone
        if not backbone.on_cpu:  # they are held in the memory of the device
            return MOST_TILES
        return embeddings_in_learning(
            self._settings.max_memory, MOST_TILES, backbone.embedding_bytes, backbone.extra_bytes
        )

    def learn(self, frames: Sequence[TrainingFrame]) -> Mapping[str, NDArray[np.generic]]:
        """Return a :class:`~sam2_fewshot.methods.guided.model.GuidedModel` as arrays."""
        room = room_for_tiles(self._settings.max_memory) if self._backbone.on_cpu else STORED
        return learn_guided(self._backbone, frames, self._limits, self._progress, room, self.held_tiles).arrays()

    def detect(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        watch: Stopwatch,
        place: Place,
    ) -> Scored:
        """Return objects that do not overlap."""
        model = GuidedModel.from_arrays(learned)
        warn_of_limits(model.examples, self._limits, self._progress)
        least, most = in_force(model.examples, self._limits)
        sought = for_candidates(model, self._limits)[0] if self._settings.sizes == "any" else None
        here = limited(model, self._limits)
        found = here.detect(self._backbone, pixels, known, self._progress, watch, sought)
        if model.erosion:  # so far the limits were those of cores
            within = [each for each in found.masks if least <= each.mask.area <= (most or math.inf)]
            found = found._replace(masks=within)
        return found._replace(least_area=least)

    def summary(self, learned: Mapping[str, NDArray[np.generic]]) -> str:
        """Return sentences on how well the examples are found again, and what is to be expected on like images."""
        model = GuidedModel.from_arrays(learned)
        return in_words(model.evidence, model.agreement)

    def step(self, learned: Mapping[str, NDArray[np.generic]]) -> int:
        """Return the side of a tile without its halo, in pixels."""
        return core_of(GuidedModel.from_arrays(learned).side)
