"""The seams of the house: small protocols, each with more than one real implementation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sam2_fewshot.errors import FewShotWarning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, Location


@runtime_checkable
class FrameReader(Protocol):
    """One image plane that can be read by region, as 8-bit RGB."""

    @property
    def name(self) -> str:
        """What to call the frame in results and messages."""
        ...

    @property
    def location(self) -> Location:
        """Position of the frame in the dataset."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        ...

    def read(self, region: Box | None = None) -> NDArray[np.uint8]:
        """Return the uint8 RGB pixels (h, w, 3) of a region, or of all of the frame.

        Parameters
        ----------
        region
            ``(x0, y0, x1, y1)`` in pixels, half open, inside the frame; None for all of it.

        Raises
        ------
        InputError
            If the pixels cannot be read.
        """
        ...


class Progress(Protocol):
    """Someone who is told how the work goes."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps; None when the number is not known."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Report that steps of the current stage are done."""
        ...

    def warn(self, sentence: str) -> None:
        """Tell the user something while the work goes on."""
        ...


class Quiet:
    """A :class:`Progress` for Python callers: silent but for Python warnings."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""

    def warn(self, sentence: str) -> None:
        """Issue a :class:`~sam2_fewshot.errors.FewShotWarning`."""
        warnings.warn(sentence, FewShotWarning, stacklevel=3)
