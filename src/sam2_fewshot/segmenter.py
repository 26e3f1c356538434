"""Few-shot segmentation: learn from examples, then detect more objects like them.

Fit: each example → its mask (:mod:`sam2_fewshot.examples.training_set`) → what a method learns from the masks.
Predict: a frame → the blocks in which it is searched, one where it fits into the memory
(:mod:`sam2_fewshot.tiling.blocks`) → the candidates in each, with scores (:mod:`sam2_fewshot.methods`) → one result
(:mod:`sam2_fewshot.tiling.merging`) → those at or above the threshold (:mod:`sam2_fewshot.methods.selection`).
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from sam2_fewshot import __version__
from sam2_fewshot.errors import CheckpointError, InputError, counted
from sam2_fewshot.examples.training_set import training_set
from sam2_fewshot.memory import Memory
from sam2_fewshot.methods.base import Place, Stopwatch, lies_in
from sam2_fewshot.methods.grid import GridMethod
from sam2_fewshot.methods.guided import GuidedMethod
from sam2_fewshot.methods.selection import floor_of, least_score, marked, outlined, select, shape_arrays, within_prior
from sam2_fewshot.object_model import COMPARED, ObjectModel, read_object_model
from sam2_fewshot.protocols import Quiet, Staged
from sam2_fewshot.records import Detection, Exemplar, FrameResult, Kind
from sam2_fewshot.rendering.channels import as_reader
from sam2_fewshot.rendering.contrast import displayed_as
from sam2_fewshot.resources import room_after_learning
from sam2_fewshot.settings import as_settings, quoted
from sam2_fewshot.storage.files import write_whole
from sam2_fewshot.tiling.blocks import (
    BlockResult,
    is_owned,
    plan_search,
    search_block,
    view_of,
)
from sam2_fewshot.tiling.merging import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.backbones.wrapped import Remembering
    from sam2_fewshot.methods.base import Method
    from sam2_fewshot.protocols import Backbone, Progress
    from sam2_fewshot.records import Box, FrameReader
    from sam2_fewshot.settings import Settings
    from sam2_fewshot.tiling.blocks import Block, BlockStore, Detect, SearchPlan, View

METHODS: dict[str, type[GuidedMethod] | type[GridMethod]] = {"guided": GuidedMethod, "grid": GridMethod}
"""The methods by the value of the setting ``method``."""


class FewShotSegmenter:
    """Detects every object that looks like a few examples.

    Parameters
    ----------
    model
        A checkpoint's name (``sam2.1_hiera_base_plus.pt``), its path, ``auto`` for the best one that is present, or a
        backbone that is loaded already.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. Not used with a loaded backbone.
    settings
        :class:`Settings`, or the values of some by name; the defaults when left out. They stay; a new segmenter with
        others takes over what was learned with :meth:`adopt`, and what was saved with :meth:`load`.
    progress
        Reports the progress.
    method
        Learns and searches, in place of the one that the settings name.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it cannot be used.
    SettingsError
        If there is no such device, or the settings cannot be used.

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
        settings: Settings | Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        method: Method | None = None,
    ) -> None:
        # torch takes seconds to import, so it is not imported with this class.
        from sam2_fewshot.backbones import open_backbone
        from sam2_fewshot.backbones.wrapped import Remembering

        self._settings = as_settings(settings or {})
        self._remembering: Remembering | None = None
        self._progress = Staged(progress or Quiet())
        if isinstance(model, str | os.PathLike):
            model = open_backbone(model, device, self.settings)
            if model.on_cpu and self.settings.batch_size <= 1:
                memory, each = self.settings.max_memory, model.embedding_bytes
                # What was learned from is searched as well, mostly; other frames are encoded once in any case.
                self._remembering = Remembering(
                    model, room_after_learning(memory, each, model.extra_bytes), keeps=False
                )
                model = self._remembering
        elif not hasattr(model, "sha256"):
            raise CheckpointError(
                f"The model is {quoted(model)}, but it must be the name of a checkpoint, such as "
                "sam2.1_hiera_micro.pt, or its path, or auto, or a backbone that is loaded already."
            )
        self._backbone = model
        self._method = method or METHODS[self.settings.method](model, self.settings, self._progress)
        self._objects: ObjectModel | None = None
        self._memory = Memory(model, self._method, self.settings.max_memory, self._progress)

    @property
    def settings(self) -> Settings:
        """The settings with which this segmenter was made."""
        return self._settings

    @settings.setter
    def settings(self, _: Never) -> None:
        # The method and the backbone were made with them.
        raise AttributeError(
            "The settings of a segmenter cannot be changed. Make another one with them, which needs no new examples: "
            "FewShotSegmenter(model, settings=settings).adopt(segmenter.object_model)."
        )

    @property
    def model_name(self) -> str:
        """File name of the checkpoint."""
        return self._backbone.name

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the checkpoint's file, in hexadecimal."""
        return self._backbone.sha256

    @property
    def device_name(self) -> str:
        """The device in words."""
        return self._backbone.device_name

    @property
    def is_accelerated(self) -> bool:
        """Whether it computes on something faster than the CPU."""
        return not self._backbone.on_cpu

    @property
    def memory(self) -> Memory:
        """How much of a frame fits into the memory."""
        return self._memory

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

    @property
    def summary(self) -> str:
        """How well the examples are found again, and what is to be expected on like images, in words; perhaps empty.

        Raises
        ------
        InputError
            If nothing was learned yet.
        """
        return self._method.summary(self.object_model.learned)

    def adopt(self, objects: ObjectModel, what: str = "This") -> FewShotSegmenter:
        """Take an object model that another segmenter has learned with the same weights and settings.

        Parameters
        ----------
        objects
            The object model.
        what
            What to call it in messages.

        Raises
        ------
        InputError
            If it is no object model, or if the weights are others, features of which cannot be compared, or settings
            with which they were learned.
        """
        if not hasattr(objects, "check_settings"):
            raise InputError(
                f"adopt takes an object model, such as segmenter.object_model, but it was given an object of type "
                f"{type(objects).__name__}."
            )
        if self.model_sha256 != objects.model_sha256:
            raise InputError(
                f"{what} was learned with other weights ({objects.model_name}, SHA-256 {objects.model_sha256[:12]}…) "
                f"than {self.model_name} (SHA-256 {self.model_sha256[:12]}…); features of different weights cannot be "
                "compared. Use that checkpoint, or learn again from the examples."
            )
        objects.check_settings(self.settings, what)
        self._objects = objects
        return self

    def adopt_saved(self, content: bytes | bytearray | memoryview) -> FewShotSegmenter:
        """Take the object model that :meth:`ObjectModel.to_bytes` gave; see :meth:`adopt`.

        Raises
        ------
        InputError
            If it is damaged, or was learned with other weights.
        """
        return self.adopt(ObjectModel.from_bytes(bytes(content), learned=getattr(self._method, "layouts", None)))

    def fit(self, exemplars: Iterable[Exemplar]) -> FewShotSegmenter:
        """Learn from examples.

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
            If no wanted example can be used, or what is given are no examples.
        """
        examples = _listed(exemplars)
        self._progress.forget()
        self.memory.check_learning()
        with self._remembering.keeping() if self._remembering else nullcontext():
            training = training_set(
                examples, self._backbone, self.settings, self.memory.learning_pixels, self._progress
            )
            learned = self._method.learn(training.frames)
        self._objects = ObjectModel(
            method=self.settings.method,
            learned={**learned, **shape_arrays(training.frames)},
            areas=training.areas,
            known=training.known,
            model_name=self.model_name,
            model_sha256=self.model_sha256,
            target_occupancy=self.settings.target_occupancy,
            max_zoom=self.settings.max_zoom,
            compared={name: getattr(self.settings, name) for name in COMPARED},
            exposures=training.exposures,
            version=__version__,
        )
        return self

    def as_searched(self, image: NDArray[Any] | FrameReader) -> FrameReader:
        """Return an image in the contrast in which it is searched, beside the examples' frames where these are known.

        Raises
        ------
        InputError
            If the image cannot be used.
        """
        examples = self._objects.exposures if self._objects else ()
        return as_reader(displayed_as(as_reader(image, self.settings), examples), self.settings)

    def segment(self, image: NDArray[Any] | FrameReader) -> list[Detection]:
        """Return the detections of :meth:`predict`, the highest score first."""
        return list(self.predict(image).detections)

    def predict(
        self, image: NDArray[Any] | FrameReader, store: BlockStore | None = None, *, keep_proposed: bool = False
    ) -> FrameResult:
        """Detect the objects that look like the examples.

        Parameters
        ----------
        image
            Array (H, W) or (H, W, 3), or a :class:`~sam2_fewshot.records.FrameReader`, also of a frame that is larger
            than the memory. Arrays are turned into 8-bit RGB as image files are; a fourth channel is dropped where it
            has one value, such as that of an opaque image, and refused otherwise. Pixels that are NaN, or masked in a
            masked array, are black.
        store
            Of the results of the blocks of a frame that is searched in several.
        keep_proposed
            Whether the result lists all masks that were proposed, which may be thousands.

        Returns
        -------
        FrameResult
            The examples that lie on this image are not detected again; they are its `examples`. With another threshold
            x, down to the result's floor, the detections are those of `detections` and `below` with a score of at least
            x; on a frame that is searched in several blocks, except where two blocks differ at their border.

        Raises
        ------
        InputError
            If nothing was learned yet, or the image cannot be used.
        """
        frame = self.as_searched(image)
        plan = self.plan(frame)
        detect = self._detector(keep_proposed=keep_proposed)
        return self.join(frame, plan, list(self._searched(frame, plan, detect, store)))

    def stream(
        self,
        frame: NDArray[Any] | FrameReader,
        region: Box | None = None,
        at_most: int | None = None,
        begins: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[Box, FrameResult]]:
        """Yield what is found in each block of a frame as soon as it is finished, at last the result of all.

        Parameters
        ----------
        frame
            As the image in :meth:`predict`.
        region
            Box ``(x0, y0, x1, y1)`` in pixels, half open, that alone is searched, as far as it lies on the frame; None
            for all of it.
        at_most
            Pixels of a block at most, where that is possible, so that there are results soon; None for as many as the
            memory allows.
        begins
            Is told before each block how many are finished, and how many there are.

        Yields
        ------
        box
            What the result is for; that of the last one, the whole region, holds all before.
        result
            The detections of a block are of any score, and not yet compared with those of its neighbours; only the last
            result is as :meth:`predict` returns it. A single block gives the last one only.

        Raises
        ------
        InputError
            If nothing was learned yet, the image cannot be used, or the region holds no pixel of it.
        """
        frame = self.as_searched(frame)
        plan = self.plan(frame, region=region, at_most=at_most)
        results: list[BlockResult] = []
        for result in self._searched(frame, plan, self._detector(), begins=begins):
            results.append(result)
            if len(plan.blocks) > 1:
                yield result.block.core, result.found
        yield plan.region, self.join(frame, plan, results)

    def _searched(
        self,
        frame: FrameReader,
        plan: SearchPlan,
        detect: Detect,
        store: BlockStore | None = None,
        begins: Callable[[int, int], None] | None = None,
    ) -> Iterator[BlockResult]:
        """Yield the results of a frame's blocks in their order; those that are stored are not searched anew."""
        self._make_room(frame, plan)
        count = len(plan.blocks)
        store = store if count > 1 else None
        stored = store.load(plan.blocks) if store else {}
        for done, block in enumerate(plan.blocks):
            if begins:
                begins(done, count)
            if (result := stored.get(block)) is None:
                self._progress.part = f"block {done + 1} of {count}: " if count > 1 else ""
                try:
                    result = search_block(frame, plan, block, detect)
                finally:
                    self._progress.part = ""
                if store:
                    store.save(result)
            yield result

    def plan(
        self,
        frame: NDArray[Any] | FrameReader,
        shift: tuple[int, int] = (0, 0),
        region: Box | None = None,
        at_most: int | None = None,
    ) -> SearchPlan:
        """Decide in which blocks to search a frame or region; see :func:`~sam2_fewshot.tiling.blocks.plan_search`.

        Parameters
        ----------
        frame, region, at_most
            As in :meth:`stream`.
        shift
            ``(x, y)`` by which the grid of blocks is moved, in steps of the method's own tiles.
        """
        objects, frame = self.object_model, self.as_searched(frame)
        most = self.memory.search_pixels(frame, self._step)
        plan = plan_search(
            frame,
            longest=objects.longest,
            diameter=objects.diameter,
            most_pixels=most,
            step=self._step,
            threshold=least_score(objects.learned, self.settings),
            shift=shift,
            region=region,
            at_most=at_most,
        )
        if plan.most_pixels > most:
            self.memory.check_search(frame, self._step, objects.longest)
        wanted, unwanted, untold = objects.known_on(frame)
        return replace(plan, marked=wanted, known=[*wanted, *untold], unwanted=unwanted)

    def least_memory(self, frame: NDArray[Any] | FrameReader) -> float:
        """Return about how much memory is taken at least, in GB, by the search of a frame in the smallest blocks.

        Raises
        ------
        InputError
            If nothing was learned yet.
        """
        return self.memory.least_for_search(as_reader(frame, self.settings), self._step, self.object_model.longest)

    def search(self, frame: FrameReader, plan: SearchPlan, block: Block) -> BlockResult:
        """Search one block of a frame; see :func:`~sam2_fewshot.tiling.blocks.search_block`."""
        return search_block(self.as_searched(frame), plan, block, self._detector())

    def join(self, frame: FrameReader, plan: SearchPlan, results: Sequence[BlockResult]) -> FrameResult:
        """Merge the results of the blocks of a frame or region, and apply the threshold.

        Objects and examples whose middle lies beyond the region are left out. So is, with a warning, an object that
        does not fit into the largest window that may be searched.
        """
        frame, detect = self.as_searched(frame), self._detector()
        found, lost = merge(results, plan, lambda window: detect(view_of(frame, plan, window)))
        if lost:
            self._progress.warn(
                f"{frame.name}: {counted(lost, 'object')} {'is' if lost == 1 else 'are'} larger than the blocks in "
                f"which the frame is searched overlap ({plan.halo} px), and left out. Mark one of them as an example, "
                "which widens the overlap, or raise Max Memory."
            )
        found = replace(found, detections=[item for item in found.detections if is_owned(item.instance, plan.region)])
        here = [mask for mask in plan.marked if is_owned(mask, plan.region)]
        examples = [marked(mask, self.settings, frame.location, Kind.EXAMPLE) for mask in here]
        return replace(select(found, self.object_model.learned, self.settings), examples=examples)

    def save(self, path: str | os.PathLike[str], channels: str | None = None) -> None:
        """Save the object model (not the backbone's weights) to a ``.npz`` file.

        Parameters
        ----------
        path
            The file.
        channels
            How the channels of the examples' images were displayed, as the text of a file for ``--channels``. Left out:
            what the object model says of it.

        Raises
        ------
        InputError
            If nothing was learned yet, or the file cannot be written.
        """
        try:
            objects = self.object_model if channels is None else replace(self.object_model, channels=channels)
            write_whole(Path(path), objects.to_bytes())
        except InputError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            raise InputError(f"The object model cannot be written to {path}: {error.__cause__.strerror}.") from error

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | Backbone | None = None,
        device: str = "auto",
        settings: Settings | Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> FewShotSegmenter:
        """Return a segmenter with the object model that :meth:`save` wrote; no examples are needed.

        Parameters
        ----------
        path
            The ``.npz`` file.
        model
            The checkpoint it was learned with; the saved name is used when left out.
        device, settings, progress
            As for a new segmenter. When `settings` are left out, those of the method and of the images' display are as
            the model was learned with; all others, such as the threshold, are the defaults, so give them again.

        Raises
        ------
        InputError
            If the file is not an object model, or was learned with other weights or settings than these, or with a
            checkpoint that its name alone does not find.
        """
        objects = read_object_model(path)
        chosen = as_settings(settings or objects.settings)
        objects.check_settings(chosen, str(path))
        if doubt := objects.doubt(str(path)):
            (progress or Quiet()).warn(doubt)
        model = model or objects.checkpoint(str(path), "model=")
        return cls(model, device, chosen, progress).adopt(objects, str(path))

    def _make_room(self, frame: FrameReader, plan: SearchPlan) -> None:
        """Let go of tiles that were kept since learning, as far as a search needs their memory."""
        if self._remembering:
            largest = max((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (block.read for block in plan.blocks))
            self._remembering.limit(self.memory.left_by_search(frame, self._step, largest))

    @property
    def _step(self) -> int:
        """After how many pixels the method's own tiles repeat."""
        return self._method.step(self.object_model.learned)

    def _detector(self, *, keep_proposed: bool = False) -> Detect:
        """Return the function that searches a window with the object model."""
        learned, settings = self.object_model.learned, self.settings

        def detect(view: View) -> FrameResult:
            watch = Stopwatch()
            scored = self._method.detect(learned, view.pixels, view.known, watch, Place(view.window, view.frame.shape))
            masks = [item for item in scored.masks if not lies_in(item.mask, view.unwanted)]
            with watch.stage("outline"):
                detections = outlined(within_prior(masks, learned, settings), view, settings, scored.least_area)
            return FrameResult(
                detections,
                floor=floor_of(settings),
                candidates=scored.candidates,
                seconds=watch.seconds,
                proposed=[view.placed(mask) for mask in scored.proposed] if keep_proposed else None,
            )

        return detect


def _listed(given: Iterable[object]) -> list[Exemplar]:
    """Return examples as a list; raises :class:`InputError` where something else is given."""
    examples: list[Any] = []
    try:
        each_of = iter(given)
    except TypeError:
        wrong = f"a single {type(given).__name__}"
    else:
        examples.extend(each_of)
        wrong = next((f"a list that holds {type(it).__name__}" for it in examples if not isinstance(it, Exemplar)), "")
    if wrong:
        raise InputError(
            "fit takes a list of examples, such as [Exemplar(image=image, mask=mask) for mask in masks], but it was "
            f"given {wrong}."
        )
    return examples
