"""Learn what the examples look like, then find more of them: the whole story on one page.

Fit: each example → its mask (:mod:`sam2_fewshot.examples.training_set`) → what a method learns from the masks.
Segment: a frame → what the method finds on it, each with a score → those at or above the threshold, as outlines. The
methods are in :mod:`sam2_fewshot.methods`. A frame too large for the memory is searched in blocks
(:mod:`sam2_fewshot.tiling.blocks`), in the same way.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import InputError
from sam2_fewshot.examples.training_set import lessons_from
from sam2_fewshot.memory import block_pixels
from sam2_fewshot.methods.base import RunStats, outlined
from sam2_fewshot.methods.grid import GridMethod
from sam2_fewshot.methods.guided import GuidedMethod
from sam2_fewshot.methods.guided.model import GuidedModel
from sam2_fewshot.methods.selection import cut, floor_of, shape_arrays, within_prior
from sam2_fewshot.object_model import COMPARED, ObjectModel, frame_digest
from sam2_fewshot.protocols import FrameReader, Quiet
from sam2_fewshot.rendering import as_frame, held_bytes
from sam2_fewshot.settings import Settings
from sam2_fewshot.tiling.blocks import BlockFinds, is_even, join
from sam2_fewshot.tiling.search import (
    Staged,
    in_window,
    look_again,
    on_frame,
    plan_search,
    search_all,
    sorted_out,
    summed,
)
from sam2_fewshot.tiling.tiles import TileGrid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import Found, Method
    from sam2_fewshot.protocols import Backbone, Progress
    from sam2_fewshot.records import Box, Detection, Exemplar, InstanceMask
    from sam2_fewshot.tiling.blocks import Block
    from sam2_fewshot.tiling.search import KeptBlocks, SearchPlan


class FewShotSegmenter:
    """Finds every object that looks like a few examples.

    Parameters
    ----------
    model
        A checkpoint's name (``sam2.1_hiera_base_plus.pt``), its path, ``auto`` for the best one that is present, or a
        model that is loaded already.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. Not used with a loaded model.
    settings
        How to look; the defaults when left out.
    progress
        Who is told how the work goes.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it cannot be used.
    SettingsError
        If there is no such device.

    Examples
    --------
    >>> from sam2_fewshot import Exemplar, FewShotSegmenter
    >>> segmenter = FewShotSegmenter("sam2.1_hiera_micro.pt")  # doctest: +SKIP
    >>> segmenter.fit([Exemplar(image=image, mask=mask) for mask in masks])  # doctest: +SKIP
    >>> detections = segmenter.segment(image)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Backbone = "auto",
        device: str = "auto",
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:
        # torch takes seconds to import; whoever only imports this class does not pay for it.
        from sam2_fewshot.backbones import open_backbone

        self.settings = settings or Settings()
        self.last_run = RunStats()
        self._progress = Staged(progress or Quiet())
        if isinstance(model, str | os.PathLike):
            model = open_backbone(model, device, self.settings)
        self._model: Backbone = model
        kind: Any = GuidedMethod if self.settings.method == "guided" else GridMethod
        self._method: Method = kind(self._model, self.settings, self._progress)
        self._objects: ObjectModel | None = None

    @property
    def model_name(self) -> str:
        """File name of the checkpoint."""
        return self._model.name

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the checkpoint's file, in hexadecimal."""
        return self._model.sha256

    @property
    def device_name(self) -> str:
        """The device in words."""
        return self._model.device_name

    @property
    def object_model(self) -> ObjectModel:
        """What was learned.

        Raises
        ------
        InputError
            If nothing was learned yet.
        """
        if self._objects is None:
            raise InputError("Nothing was learned yet: call fit with examples, or load a saved object model, first.")
        return self._objects

    def adopt(self, objects: ObjectModel, what: str = "This") -> FewShotSegmenter:
        """Take what another segmenter has learned, with the same weights and settings.

        Parameters
        ----------
        objects
            What it has learned.
        what
            What to call it in messages.

        Raises
        ------
        InputError
            If the weights are others; features of different weights cannot be compared.
        """
        if self.model_sha256 != objects.model_sha256:
            raise InputError(
                f"{what} was learned with other weights ({objects.model_name}, SHA-256 {objects.model_sha256[:12]}…) "
                f"than {self.model_name} (SHA-256 {self.model_sha256[:12]}…); features of different weights cannot be "
                "compared. Use that checkpoint, or learn again from the examples."
            )
        self._objects = objects
        return self

    def fit(self, exemplars: Sequence[Exemplar]) -> FewShotSegmenter:
        """Learn what objects look like.

        An example that cannot be used is left out with a warning that says which one and why. A point is given the mask
        that agrees best with the other examples; see :func:`~sam2_fewshot.examples.points.agreeing`. Both of a
        wanted and a negative example on the same object are left out, and an object that is marked twice counts once.

        Parameters
        ----------
        exemplars
            At least one that is not negative.

        Returns
        -------
        FewShotSegmenter
            This segmenter.

        Raises
        ------
        InputError
            If no wanted example can be used.
        """
        model: Any = self._model
        lessons = lessons_from(exemplars, model, self.settings, self._most_pixels(learning=True), self._progress)
        self._objects = ObjectModel(
            method=self.settings.method,
            learned={**self._method.learn(lessons.shown), **shape_arrays(lessons.shown)},
            areas=lessons.areas,
            known=lessons.known,
            model_name=self.model_name,
            model_sha256=self.model_sha256,
            target_occupancy=self.settings.target_occupancy,
            max_zoom=self.settings.max_zoom,
            compared={name: getattr(self.settings, name) for name in COMPARED},
        )
        return self

    def segment(
        self, image: NDArray[Any] | FrameReader, kept: KeptBlocks | None = None, *, keep_proposed: bool = False
    ) -> list[Detection]:
        """Find the objects that look like the examples.

        Parameters
        ----------
        image
            Array (H, W) or (H, W, 3), or a :class:`~sam2_fewshot.protocols.FrameReader`. Arrays are turned into
            8-bit RGB as image files are.
        kept
            Knows, and keeps, what is found in the blocks of a large frame.
        keep_proposed
            Whether ``last_run.proposed`` shall list all masks that were proposed, which may be thousands. Of a frame
            that is searched in blocks it stays None.

        Returns
        -------
        list of Detection
            The highest score first; empty when nothing is found. Examples that lie on this image are not returned.

        Raises
        ------
        InputError
            If nothing was learned yet, or the image cannot be used.
        """
        objects = self.object_model
        stats = RunStats(floor=floor_of(self.settings), proposed=[] if keep_proposed else None)
        if not isinstance(image, FrameReader):
            image = as_frame(image, self.settings)
        if self.is_large(image):
            reader, plan = image, self.plan(image)
            finds = search_all(plan, lambda block: self.search(reader, plan, block), self._progress, kept)
            return self.join(image, plan, finds)
        frame = as_frame(image, self.settings)
        known = objects.known_on(frame_digest(frame.pixels))
        found = self._found(frame.pixels, known, stats)
        with stats.stage("outline"):
            detections = outlined(found, frame.location, stats.floor, self.settings.smoothing)
        return self._cut(detections, stats)

    def candidates(self, image: NDArray[Any] | FrameReader) -> list[Detection]:
        """Find what :meth:`segment` finds, and also what it drops for a score below the threshold.

        What has a score of at least x is what :meth:`segment` finds with the threshold x; on a frame that is searched
        in blocks, but for what two blocks see differently where they meet.

        Parameters
        ----------
        image
            As for :meth:`segment`.

        Returns
        -------
        list of Detection
            The highest score first, down to a tenth of the threshold. It is complete down to ``last_run.floor``.

        Raises
        ------
        InputError
            As :meth:`segment`.
        """
        return [*self.segment(image), *self.last_run.below]

    def is_large(self, frame: FrameReader) -> bool:
        """Tell whether a frame does not fit into the memory as a whole and is searched in blocks."""
        return frame.shape[0] * frame.shape[1] > self._most_pixels(held_bytes(frame))

    def plan(self, frame: FrameReader, shift: tuple[int, int] = (0, 0)) -> SearchPlan:
        """Decide how to search a frame in blocks; see :func:`~sam2_fewshot.tiling.search.plan_search`."""
        most = self._most_pixels(held_bytes(frame))
        return plan_search(frame, self.object_model, most, self._step, self._progress, shift)

    def search(self, frame: FrameReader, plan: SearchPlan, block: Block) -> BlockFinds:
        """Search one block of a frame.

        Raises
        ------
        InputError
            If nothing was learned yet, or the block cannot be read.
        """
        pixels = frame.read(block.read)
        if is_even(pixels, plan.contrast, plan.diameter):
            return BlockFinds(block, blank=True, floor=floor_of(self.settings))
        detections, stats = self._in_window(frame, plan, block.read, pixels)
        return sorted_out(block, detections, plan.halo, stats, self.settings.similarity_threshold)

    def join(self, frame: FrameReader, plan: SearchPlan, finds: Sequence[BlockFinds]) -> list[Detection]:
        """Make one result of what was found in a frame's blocks, the highest score first.

        Objects longer than the blocks overlap are searched once more, each in a window around what was seen of it; one
        that does not fit into the largest window is left out with a warning.
        """
        threshold = self.settings.similarity_threshold

        def again(window: Box) -> list[Detection]:
            return [item for item in self._in_window(frame, plan, window)[0] if item.score >= threshold]

        detections, cut = join(finds, threshold)
        detections, lost = look_again(detections, cut, plan, again)
        if lost:
            self._progress.warn(
                f"{frame.name}: {lost} object{'s are' if lost > 1 else ' is'} larger than the blocks in which the "
                f"frame is searched overlap ({plan.halo} px), and left out. Mark one of them as an example, which "
                "widens the overlap, or raise Max Memory."
            )
        return self._cut(detections, summed(finds))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save what was learned (not SAM 2's weights) to a ``.npz`` file.

        Raises
        ------
        InputError
            If nothing was learned yet, or the file cannot be written.
        """
        self.object_model.save(path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | Backbone | None = None,
        device: str = "auto",
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> FewShotSegmenter:
        """Read what :meth:`save` wrote; no examples are needed then.

        Parameters
        ----------
        path
            The ``.npz`` file.
        model
            The checkpoint it was learned with; found by its name when left out.
        device, settings, progress
            As for a new segmenter. When `settings` are left out, the saved ones are used where they matter.

        Raises
        ------
        InputError
            If the file is not an object model, or was learned with other weights or settings than these.
        """
        objects = ObjectModel.load(path)
        chosen = settings or Settings(**objects.settings)
        objects.check_settings(chosen, str(path))
        return cls(model or objects.model_name, device, chosen, progress).adopt(objects, str(path))

    def _most_pixels(self, held: int = 0, learning: bool = False) -> int:
        """Return how many pixels of a frame, of which some bytes are held anyway, fit into the memory at a time."""
        step = 1 if learning or self._objects is None else self._step
        beside, tile = self._model.extra_bytes + held, self._model.embedding_bytes
        return block_pixels(self.settings.max_memory, step, learning=learning, tile_bytes=tile, beside=beside)

    @property
    def _step(self) -> int:
        """After how many pixels the method's own tiles repeat."""
        if self.settings.method != "guided":
            return 1
        return TileGrid((1, 1), GuidedModel.from_arrays(self.object_model.learned).side).core

    def _in_window(
        self, frame: FrameReader, plan: SearchPlan, window: Box, pixels: NDArray[np.uint8] | None = None
    ) -> tuple[list[Detection], RunStats]:
        """Search a part of a frame; masks and outlines are those of the frame."""
        stats = RunStats(floor=floor_of(self.settings))
        if pixels is None:
            pixels = frame.read(window)
        known = [part for mask in plan.known if (part := in_window(mask, window))]
        found = self._found(pixels, known, stats)
        with stats.stage("outline"):
            moved = [replace(item, mask=on_frame(item.mask, window, frame.shape)) for item in found]
            return outlined(moved, frame.location, stats.floor, self.settings.smoothing), stats

    def _found(self, pixels: NDArray[np.uint8], known: Sequence[InstanceMask], stats: RunStats) -> list[Found]:
        learned = self.object_model.learned
        return within_prior(self._method.find(learned, pixels, known, stats), learned, self.settings)

    def _cut(self, found: Iterable[Detection], stats: RunStats) -> list[Detection]:
        """Return what reaches the threshold, best first; the rest is told in `last_run`."""
        self.last_run = stats
        return cut(found, self.object_model.learned, self.settings, stats)
