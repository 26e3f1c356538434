"""Who looks for the objects, as the worker sees it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol

from sam2_fewshot.methods.selection import AS_SET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sam2_fewshot.nimbus.parameters import Request
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Detection, Exemplar, FrameReader


class Engine(Protocol):
    """What a job needs of a :class:`~sam2_fewshot.segmenter.FewShotSegmenter`."""

    @property
    def model_sha256(self) -> str:
        """The checkpoint's SHA-256 in hexadecimal."""
        ...

    @property
    def described(self) -> str:
        """The model and the device, in words."""
        ...

    @property
    def slow(self) -> bool:
        """Whether it runs on a CPU although it was installed for a GPU."""
        ...

    @property
    def candidates(self) -> int:
        """Number of masks that were proposed on the last frame."""
        ...

    @property
    def cut(self) -> str:
        """Where the scores of the last frame were cut and why, in words; empty where that was set."""
        ...

    def fit(self, exemplars: Sequence[Exemplar]) -> None:
        """Learn what the examples look like."""
        ...

    def save(self, path: Path) -> None:
        """Save what was learned."""
        ...

    def load(self, path: Path) -> None:
        """Take over what was saved; raises InputError when it does not fit."""
        ...

    def segment(self, image: FrameReader) -> list[Detection]:
        """Find more of them, best first."""
        ...


class FewShotEngine:
    """SAM 2 as an :class:`Engine`.

    Parameters
    ----------
    request
        Names the checkpoint and the settings.
    progress
        Is told how the work goes.

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be used.
    """

    def __init__(self, request: Request, progress: Progress) -> None:
        from sam2_fewshot.backbones import open_backbone
        from sam2_fewshot.segmenter import FewShotSegmenter

        self._settings = request.settings
        self._progress = progress
        self._model = open_backbone(request.model, "auto", request.settings)
        self._segmenter = FewShotSegmenter(self._model, settings=request.settings, progress=progress)

    @property
    def model_sha256(self) -> str:
        """The checkpoint's SHA-256 in hexadecimal."""
        return self._segmenter.model_sha256

    @property
    def described(self) -> str:
        """The model and the device, in words."""
        return f"{self._segmenter.model_name} on {self._segmenter.device_name}"

    @property
    def slow(self) -> bool:
        """Whether it runs on a CPU although it was installed for a GPU."""
        return self._model.on_cpu and _built_for_gpu()

    @property
    def candidates(self) -> int:
        """Number of masks that were proposed on the last frame."""
        return self._segmenter.last_run.candidates

    @property
    def cut(self) -> str:
        """Where the scores of the last frame were cut and why, in words; empty where that was set."""
        stats = self._segmenter.last_run
        return "" if stats.reason in ("", AS_SET) else f" The score is cut at {stats.threshold:.3f}: {stats.reason}."

    def fit(self, exemplars: Sequence[Exemplar]) -> None:
        """Learn what the examples look like."""
        self._segmenter.fit(exemplars)

    def save(self, path: Path) -> None:
        """Save what was learned."""
        self._segmenter.save(path)

    def load(self, path: Path) -> None:
        """Take over what was saved.

        Raises
        ------
        InputError
            If it is damaged, or does not fit the model or the settings.
        """
        from sam2_fewshot.segmenter import FewShotSegmenter

        self._segmenter = FewShotSegmenter.load(path, self._model, settings=self._settings, progress=self._progress)

    def segment(self, image: FrameReader) -> list[Detection]:
        """Find more of them, best first."""
        return self._segmenter.segment(image)


def _built_for_gpu() -> bool:
    """Tell whether the torch that is installed comes with CUDA: PyPI's for x86-64 do, those marked ``+cpu`` do not."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return False
    plain = "+" not in installed and platform.system() == "Linux" and platform.machine() == "x86_64"
    return plain or "+cu" in installed
