"""The protocols of progress and of backbones, and the values that backbones give and take."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from sam2_fewshot.errors import FewShotWarning
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.records import Box


_PACKAGE = __name__.partition(".")[0]


class Progress(Protocol):
    """Where the progress of the work is reported."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps; None when the number is not known."""
        return

    def advance(self, steps: int = 1) -> None:
        """Report that steps of the current stage are done."""
        return

    def warn(self, sentence: str) -> None:
        """Warn the user; the work goes on."""
        ...


class Quiet(Progress):
    """A :class:`Progress` for Python callers: silent but for Python warnings."""

    _told: ClassVar[dict[str | tuple[Any, ...], int]] = {}

    def forget(self) -> None:
        """Take all warnings for new ones again, such as those about the examples of another fit."""
        self._told.clear()

    def warn(self, sentence: str) -> None:
        """Issue a :class:`~sam2_fewshot.errors.FewShotWarning` that quotes the caller's own line."""
        frame = sys._getframe(1)
        while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
            frame = frame.f_back
        module = frame.f_globals.get("__name__") or "<unknown>"  # nothing is told where there is none
        # warnings.warn remembers what it has told for as long as the program runs.
        warnings.warn_explicit(
            sentence,
            FewShotWarning,
            frame.f_code.co_filename,
            frame.f_lineno,
            module,
            registry=self._told,
        )


class Staged:
    """A :class:`Progress` that puts the part of the work before the stage, and passes everything on to another."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.part = ""

    def forget(self) -> None:
        """Let a :class:`Quiet` forget what it has told; others keep their own accounts."""
        if isinstance(self._progress, Quiet):
            self._progress.forget()

    def start(self, stage: str, total: int | None = None) -> None:
        """Pass on, with the part before the stage."""
        self._progress.start(f"{self.part}{stage}", total)

    def advance(self, steps: int = 1) -> None:
        """Pass on."""
        self._progress.advance(steps)

    def warn(self, sentence: str) -> None:
        """Pass on."""
        self._progress.warn(sentence)


@dataclass(frozen=True, slots=True)
class Gates:
    """What a mask must reach to be a candidate, as suits a backbone's calibration.

    Parameters
    ----------
    predicted_iou
        The backbone's own estimate of a mask's quality, in [0, 1].
    stability
        How little the mask depends on the level at which it is thresholded, in [0, 1].
    """

    predicted_iou: float
    stability: float


class PromptedMasks(NamedTuple):
    """The masks of some prompts that passed both gates, in the order of the prompts.

    Parameters
    ----------
    prompt
        int64 (M,), index of the prompt.
    predicted_iou, stability
        float64 (M,), in [0, 1].
    boxes
        int64 (M, 4), ``(x0, y0, x1, y1)`` in pixels of the encoded image or window, half open, tight.
    data
        M boolean arrays, cropped to their boxes.
    """

    prompt: NDArray[np.int64]
    predicted_iou: NDArray[np.float64]
    stability: NDArray[np.float64]
    boxes: NDArray[np.int64]
    data: list[NDArray[np.bool_]]

    def placed(self, window: Box, frame_shape: tuple[int, int]) -> list[InstanceMask]:
        """Return the masks of a window's prompts as masks of the frame ``(height, width)`` that it lies in."""
        return [
            InstanceMask(data, window[0] + int(box[0]), window[1] + int(box[1]), frame_shape)
            for box, data in zip(self.boxes, self.data, strict=True)
        ]


class Embedding(Protocol):
    """An encoded image or window for prompts; only the backbone that made it reads it."""

    @property
    def frame_shape(self) -> tuple[int, int]:
        """``(height, width)`` of the image or window in pixels."""
        ...

    def resized(self, frame_shape: tuple[int, int]) -> Embedding:
        """Return the same with another size in pixels ``(height, width)``, that of the masks which prompts then give.

        A picture that was reduced before it was encoded thus answers in pixels of the picture itself.
        """
        ...


class Tile(Protocol):
    """A backbone's feature pyramid of one square window: s cells a side at the finest level."""

    @property
    def embedding(self) -> Embedding:
        """For prompts in this window; it takes less memory than the pyramid and may outlive it."""
        ...

    @property
    def level_bytes(self) -> int:
        """Memory of the pyramid in bytes."""
        ...

    def shortened(self) -> Tile:
        """Return the tile with a pyramid of about half the precision and memory."""
        ...

    def features(self, halo: int, cells: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return all levels at n cells of the finest one, float32 (n, D), row by row.

        D is the sum of the levels' channels, the finest level first.

        Parameters
        ----------
        halo
            Cells of the finest level that are left out at each border.
        cells
            Boolean (s - 2 halo, s - 2 halo), n of them true.
        """
        ...

    def maps(
        self,
        halo: int,
        centres: NDArray[np.float32],
        weights: NDArray[np.float32],
        directions: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return linear maps of the features, and their cosines to directions.

        Parameters
        ----------
        halo
            As in :meth:`features`.
        centres
            float32 (D,), taken from the features.
        weights
            float32 (N, D), of N linear maps.
        directions
            float32 (N, D); the part of each level is of length 1, or 0.

        Returns
        -------
        numpy.ndarray
            float32 (N, 1 + L, s - 2 halo, s - 2 halo): the linear map, and the cosine at each of the L levels.
        """
        ...


class Backbone(Protocol):
    """A frozen network, or a replacement of one: images to feature pyramids, prompts to masks.

    It sees every image, window and crop resized to a square of :attr:`input_size` pixels. Coordinates of prompts are
    pixels of that square. The pyramid has a level for each of :attr:`strides`.
    """

    @property
    def name(self) -> str:
        """Name of the weights, by which the backbone can be opened."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the weights, in hexadecimal. Features of different weights cannot be compared."""
        ...

    @property
    def gates(self) -> Gates:
        """Default gates of candidates."""
        ...

    @property
    def device_name(self) -> str:
        """The device in words."""
        ...

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the CPU, in the computer's own memory."""
        ...

    @property
    def input_size(self) -> int:
        """Side of the square input in pixels."""
        ...

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input that a cell of each level of the pyramid covers each way, the finest level first."""
        ...

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of features at each level, the finest level first."""
        ...

    @property
    def embedding_bytes(self) -> int:
        """Memory of an :class:`Embedding` in bytes."""
        ...

    @property
    def extra_bytes(self) -> int:
        """Bytes of the computer's memory that it takes beyond :data:`sam2_fewshot.resources.RESERVE` (an estimate)."""
        ...

    def embed(self, image: NDArray[np.uint8]) -> Embedding:
        """Encode an image, uint8 RGB (H, W, 3), for prompts."""
        ...

    def tiles(
        self,
        image: NDArray[np.uint8],
        windows: Sequence[Box],
        on_batch: Callable[[int], None] = ...,
    ) -> Iterator[Tile]:
        """Encode windows of an image.

        Parameters
        ----------
        image
            uint8 RGB (H, W, 3). Windows that reach beyond it see its mirror image.
        windows
            Square boxes ``(x0, y0, x1, y1)`` in pixels, half open.
        on_batch
            Called with the number of windows done, after each batch.

        Yields
        ------
        Tile
            One for each window.
        """
        ...

    def pool(
        self,
        image: NDArray[np.uint8],
        windows: Sequence[Box],
        masks: Sequence[InstanceMask],
        on_batch: Callable[[int], None] = ...,
    ) -> NDArray[np.float32]:
        """Encode a window for each mask, as :meth:`tiles` does, and average its features over the mask.

        Parameters
        ----------
        image, windows, on_batch
            As in :meth:`tiles`.
        masks
            One for each window, in the image.

        Returns
        -------
        numpy.ndarray
            float32 (N, C), not normalised; C is the backbone's choice.
        """
        ...

    def pool_frame(self, image: NDArray[np.uint8], masks: Sequence[InstanceMask]) -> NDArray[np.float32]:
        """Encode the image, once, and average its features over each mask; returns float32 (N, C) as :meth:`pool`."""
        ...

    def prompt(
        self,
        embedding: Any,
        coordinates: NDArray[np.float32],
        *,
        iou_gate: float = -math.inf,
        stability_gate: float = 0.0,
        reach: float = math.inf,
        on_batch: Callable[[int], None] = ...,
    ) -> PromptedMasks:
        """Return the masks of one foreground point a prompt, several each, that pass both gates.

        Parameters
        ----------
        embedding
            The :class:`Embedding` of the image, from this backbone.
        coordinates
            float32 (N, 2), ``(x, y)`` in pixels of the input; the centre of the first pixel is at ``(0, 0)``.
        iou_gate
            A mask passes when its predicted IoU is above this; all pass when left out.
        stability_gate
            A mask passes when its stability is not below this; all pass when left out.
        reach
            How far from its point an object is thought to reach, in pixels of the input. An object that goes on is
            whole all the same; what lies far away without a connection to it may be left out.
        on_batch
            Called with the number of prompts done, after each batch.
        """
        ...

    def prompt_boxes(self, embedding: Any, boxes: NDArray[np.float32]) -> PromptedMasks:
        """Return one mask a box; a box without an object gives none.

        Parameters
        ----------
        embedding
            The :class:`Embedding` of the image, from this backbone.
        boxes
            float32 (N, 4), the edges ``(x0, y0, x1, y1)`` in pixels of the input: unlike those of a point, they are not
            shifted to the pixels' centres.
        """
        ...
