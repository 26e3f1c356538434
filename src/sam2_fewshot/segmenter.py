"""Learn what the examples look like, then find more of them: the whole story on one page.

Fit: each example → its mask → what a method learns from the masks and their frames. Segment: a frame → what the method
finds on it, each with a score → those at or above the threshold, as outlines. The methods are in
:mod:`sam2_fewshot.methods`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.frames import as_frame
from sam2_fewshot.geometry.outlines import largest_part, mask_to_polygon
from sam2_fewshot.methods.common import RunStats, Shown
from sam2_fewshot.methods.grid import GridMethod
from sam2_fewshot.methods.guided import GuidedMethod
from sam2_fewshot.proposals.points import mask_at_point
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import Detection
from sam2_fewshot.settings import Settings
from sam2_fewshot.similarity.exemplars import exemplar_mask
from sam2_fewshot.similarity.object_model import KnownObject, ObjectModel, frame_digest

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.common import Method
    from sam2_fewshot.model.network import Sam2Model
    from sam2_fewshot.protocols import FrameReader, Progress
    from sam2_fewshot.records import Exemplar, Frame, InstanceMask

_FLOOR = 0.1
"""Finds below the threshold are told down to this share of it: a user who lowers the threshold that far need not wait,
and below it lie a few in a thousand objects and most of the ground."""


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
        kind: type[GuidedMethod | GridMethod] = GuidedMethod if self.settings.method == "guided" else GridMethod
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
        shown: list[Shown] = []
        known: list[KnownObject] = []
        for group in _by_image(exemplars):
            frame = as_frame(exemplars[group[0]].image, self.settings)
            masks = {i: mask for i in group if (mask := self._mask(exemplars[i], frame, i))}
            digest = frame_digest(frame.pixels)
            known += [KnownObject(digest, mask) for mask in masks.values()]
            wanted, unwanted = (
                [mask for i, mask in masks.items() if i in chosen and exemplars[i].negative is sign]
                for sign in (False, True)
            )
            shown.append(Shown(frame.pixels, wanted, unwanted))
        areas = [mask.area for frame in shown for mask in frame.wanted]
        if not areas:
            raise InputError(
                f"None of the {len(exemplars)} examples can be learned from; mark 5 to 20 objects of the wanted kind."
                if exemplars
                else "There are no examples to learn from; mark 5 to 20 objects."
            )
        self._objects = ObjectModel(
            method=self.settings.method,
            learned=self._method.learn([frame for frame in shown if frame.wanted or frame.unwanted]),
            areas=np.array(areas, np.int64),
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
        threshold = self.settings.similarity_threshold
        found = self.candidates(image)
        kept = [detection for detection in found if detection.score >= threshold]
        self.last_run.below = found[len(kept) :]
        return kept

    def candidates(self, image: NDArray[Any] | FrameReader) -> list[Detection]:
        """Find what :meth:`segment` finds, and also what it drops for a score below the threshold.

        What has a score of at least x is what :meth:`segment` finds with the threshold x.

        Parameters
        ----------
        image
            As for :meth:`segment`.

        Returns
        -------
        list of Detection
            The highest score first, down to a tenth of the threshold (``last_run.floor``).

        Raises
        ------
        InputError
            As :meth:`segment`.
        """
        objects, settings = self.object_model, self.settings
        stats = RunStats(floor=_FLOOR * settings.similarity_threshold)
        frame = as_frame(image, settings)
        known = objects.known_on(frame_digest(frame.pixels))
        found = self._method.find(objects.learned, frame.pixels, known, stats)
        with stats.stage("outline"):
            detections = [
                Detection(
                    instance=(part := largest_part(item.mask)),
                    polygon=mask_to_polygon(part, settings.smoothing),
                    score=item.score,
                    similarity=item.similarity,
                    predicted_iou=item.predicted_iou,
                    location=frame.location,
                )
                for item in found
                if item.score >= stats.floor
            ]
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
            As for a new segmenter. When `settings` are left out, the saved ones are used where they matter.

        Raises
        ------
        InputError
            If the file is not an object model, or was learned with other weights or settings than these.
        """
        objects = ObjectModel.load(path)
        saved = {
            "method": objects.method,
            "target_occupancy": objects.target_occupancy,
            "max_zoom": objects.max_zoom,
        }
        chosen = settings or Settings(**saved)
        for name, value in saved.items():
            if getattr(chosen, name) != value:
                raise InputError(
                    f"{path} was learned with {Settings.model_fields[name].title} {value}, but the settings say "
                    f"{getattr(chosen, name)}; use {value}, or learn again from the examples."
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


def _by_image(exemplars: Sequence[Exemplar]) -> list[list[int]]:
    """Group the examples' indices by the image object they lie on."""
    groups: dict[int, list[int]] = {}
    for i, exemplar in enumerate(exemplars):
        groups.setdefault(id(exemplar.image), []).append(i)
    return list(groups.values())
