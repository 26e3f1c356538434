"""Learn what the examples look like, then find more of them: the whole story on one page.

Fit: each example → its mask → a context crop → SAM 2's image encoder → mask-weighted mean of the features → a vector;
the vectors' mean is the prototype. Segment: the frame → candidate masks → a vector each, in the same way → cosine
similarity to the prototype → those at or above the threshold, as outlines.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.frames import as_frame
from sam2_fewshot.geometry.outlines import largest_part, mask_to_polygon
from sam2_fewshot.geometry.overlap import shared_area
from sam2_fewshot.proposals.grid import GridProposals
from sam2_fewshot.proposals.points import mask_at_point
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import Detection
from sam2_fewshot.settings import Settings
from sam2_fewshot.similarity.crops import context_window
from sam2_fewshot.similarity.exemplars import exemplar_mask
from sam2_fewshot.similarity.object_model import KnownObject, ObjectModel, frame_digest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.protocols import FrameReader, Progress
    from sam2_fewshot.records import Exemplar, Frame, InstanceMask

# A candidate that shares more than this of the smaller of the two with an example is that example, or a part of it.
_SAME_OBJECT = 0.5


@dataclass
class RunStats:
    """What the last :meth:`FewShotSegmenter.segment` did.

    Parameters
    ----------
    candidates
        How many masks were compared with the examples.
    seconds
        Wall-clock seconds of each stage: ``encode``, ``propose``, ``compare``, ``outline``.
    """

    candidates: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


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
    >>> segmenter = FewShotSegmenter("sam2.1_hiera_micro.pt")  # doctest: +SKIP
    >>> segmenter.fit([Exemplar(image=image, mask=mask) for mask in masks])  # doctest: +SKIP
    >>> detections = segmenter.segment(image)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Sam2Model = "auto",
        device: str = "auto",
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:
        # torch takes seconds to import; whoever only imports this class does not pay for it.
        from sam2_fewshot.model.network import Sam2Model
        from sam2_fewshot.model.opening import open_model

        self.settings = settings or Settings()
        self.last_run = RunStats()
        self._progress = progress or Quiet()
        self._model = model if isinstance(model, Sam2Model) else open_model(model, device, self.settings)
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
        from sam2_fewshot.model.device import describe

        return describe(self._model.device)

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

    def fit(self, exemplars: Sequence[Exemplar]) -> FewShotSegmenter:
        """Learn what objects look like.

        An example that cannot be used is left out with a warning that says which one and why.

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
            If no positive example can be used.
        """
        chosen = self._chosen(exemplars)
        self._progress.start("learning", len(chosen))
        learned: dict[int, tuple[InstanceMask, NDArray[np.float32]]] = {}
        known: list[KnownObject] = []
        # Frame by frame, so that only one is in memory.
        for group in _by_image(exemplars):
            frame = as_frame(exemplars[group[0]].image, self.settings)
            masks = {i: mask for i in group if (mask := self._mask(exemplars[i], frame, i))}
            known += [KnownObject(frame_digest(frame.pixels), mask) for mask in masks.values()]
            here = [i for i in masks if i in chosen]
            vectors = self._pool(frame.pixels, [masks[i] for i in here])
            learned.update((i, (masks[i], vector)) for i, vector in zip(here, vectors, strict=True))
        positive = [learned[i] for i in sorted(learned) if not exemplars[i].negative]
        negative = [learned[i] for i in sorted(learned) if exemplars[i].negative]
        if not positive:
            raise InputError(
                f"None of the {len(exemplars)} examples can be learned from; mark 5 to 20 objects of the wanted kind."
                if exemplars
                else "There are no examples to learn from; mark 5 to 20 objects."
            )
        self._objects = ObjectModel(
            vectors=np.stack([vector for _, vector in positive]),
            negatives=np.array([vector for _, vector in negative], np.float32).reshape(-1, positive[0][1].size),
            areas=np.array([mask.area for mask, _ in positive], np.int64),
            known=known,
            model_name=self.model_name,
            model_sha256=self.model_sha256,
            target_occupancy=self.settings.target_occupancy,
            max_zoom=self.settings.max_zoom,
        )
        return self

    def segment(self, image: NDArray[Any] | FrameReader) -> list[Detection]:
        """Find the objects that look like the examples.

        Parameters
        ----------
        image
            Array (H, W) or (H, W, 3), or a :class:`~sam2_fewshot.protocols.FrameReader`. Arrays are turned into
            8-bit RGB as image files are.

        Returns
        -------
        list of Detection
            The highest score first; empty when nothing is found. Examples that lie on this image are not returned.

        Raises
        ------
        InputError
            If nothing was learned yet, or the image cannot be used.
        """
        objects, settings, stats = self.object_model, self.settings, RunStats()
        frame = as_frame(image, settings)
        with stats.stage("encode"):
            embedding = self._model.embed(frame.pixels)
        with stats.stage("propose"):
            candidates = GridProposals(settings).propose(self._model, embedding, self._progress)
            known = objects.known_on(frame_digest(frame.pixels))
            candidates = [c for c in candidates if not any(_same_object(c.mask, mask) for mask in known)]
        with stats.stage("compare"):
            self._progress.start("comparing", len(candidates))
            vectors = self._pool(frame.pixels, [candidate.mask for candidate in candidates])
            similarity = objects.similarity(vectors)
            keep = (similarity >= settings.similarity_threshold) & ~objects.nearer_to_negatives(vectors)
        with stats.stage("outline"):
            detections = [
                Detection(
                    instance=(part := largest_part(candidates[i].mask)),
                    polygon=mask_to_polygon(part, settings.smoothing),
                    score=float(np.clip(similarity[i], 0, 1)),
                    similarity=float(similarity[i]),
                    predicted_iou=candidates[i].predicted_iou,
                    location=frame.location,
                )
                for i in np.flatnonzero(keep)
            ]
        stats.candidates = len(candidates)
        self.last_run = stats
        return sorted(detections, key=lambda detection: detection.score, reverse=True)

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
        model: str | os.PathLike[str] | Sam2Model | None = None,
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
            As for a new segmenter. When `settings` are left out, those of the crops are the saved ones.

        Raises
        ------
        InputError
            If the file is not an object model, or was learned with other weights or other crops than these.
        """
        objects = ObjectModel.load(path)
        crops = {"target_occupancy": objects.target_occupancy, "max_zoom": objects.max_zoom}
        chosen = settings or Settings(**crops)
        for name, saved in crops.items():
            if getattr(chosen, name) != saved:
                raise InputError(
                    f"{path} was learned with {Settings.model_fields[name].title} {saved:g}, but the settings say "
                    f"{getattr(chosen, name):g}; use {saved:g}, or learn again from the examples."
                )
        segmenter = cls(model or objects.model_name, device, chosen, progress)
        if segmenter.model_sha256 != objects.model_sha256:
            raise InputError(
                f"{path} was learned with other weights ({objects.model_name}, SHA-256 {objects.model_sha256[:12]}…) "
                f"than {segmenter.model_name} (SHA-256 {segmenter.model_sha256[:12]}…); features of different weights "
                "cannot be compared. Use that checkpoint, or learn again from the examples."
            )
        segmenter._objects = objects
        return segmenter

    def _chosen(self, exemplars: Sequence[Exemplar]) -> set[int]:
        """Return the indices of the examples to learn from: at most ``max_examples`` of either sign."""
        chosen: set[int] = set()
        most = self.settings.max_examples
        for negative in (False, True):
            of_sign = [i for i, exemplar in enumerate(exemplars) if exemplar.negative is negative]
            if len(of_sign) > most:
                self._progress.warn(
                    f"Of {len(of_sign)} {'negative ' * negative}examples {most}, spread evenly, are learned from "
                    "(Max Examples); none of them is reported as a find."
                )
                of_sign = [of_sign[i] for i in np.linspace(0, len(of_sign) - 1, most).round().astype(int)]
            chosen.update(of_sign)
        return chosen

    def _mask(self, exemplar: Exemplar, frame: Frame, index: int) -> InstanceMask | None:
        def find(frame: Frame, point: tuple[float, float]) -> InstanceMask | None:
            return mask_at_point(self._model, frame.pixels, point)

        name = exemplar.label or f"Example {index + 1}"
        return exemplar_mask(exemplar, frame, name, find, self._progress.warn)

    def _pool(self, pixels: NDArray[np.uint8], masks: Sequence[InstanceMask]) -> NDArray[np.float32]:
        """Return a feature vector (n, C) for each mask."""
        smallest = self._model.image_size / self.settings.max_zoom
        windows = [context_window(mask, self.settings.target_occupancy, smallest) for mask in masks]
        return self._model.pool(pixels, windows, masks, on_batch=self._progress.advance)


def _by_image(exemplars: Sequence[Exemplar]) -> list[list[int]]:
    """Group the examples' indices by the image object they lie on."""
    groups: dict[int, list[int]] = {}
    for i, exemplar in enumerate(exemplars):
        groups.setdefault(id(exemplar.image), []).append(i)
    return list(groups.values())


def _same_object(a: InstanceMask, b: InstanceMask) -> bool:
    return shared_area(a, b) > _SAME_OBJECT * min(a.area, b.area)
