"""Whatever a Python caller hands over, as the frame that SAM 2 sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.composite import ChannelStyle, merge, photo
from sam2_fewshot.errors import InputError
from sam2_fewshot.protocols import FrameReader
from sam2_fewshot.records import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.settings import Settings

_STRIP = 1 << 24
"""Pixels of a strip."""


def as_frame(image: NDArray[Any] | FrameReader, settings: Settings) -> Frame:
    """Return an image as 8-bit RGB in memory.

    Parameters
    ----------
    image
        A reader, which is read whole; or an array: (H, W) is stretched between the black and white percentiles of the
        settings, (H, W, 3) is a photo, which stays as it is when it is uint8, and (H, W, 1) and (H, W, 4) are the same
        with a superfluous axis and with an alpha channel, which is dropped.

    Raises
    ------
    InputError
        If the array is not an image, is empty, or has no finite value.
    """
    if isinstance(image, FrameReader):
        if not all(image.shape):
            raise InputError(f"{image.name} is {image.shape[1]} × {image.shape[0]} px, which is no pixel at all.")
        return Frame(image.read(), image.name, image.location)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise InputError(
            f"An image of shape {pixels.shape} was given, but it must be (height, width) or (height, width, 3). "
            "Merge its channels to RGB, or choose one of them."
        )
    if not pixels.size:
        raise InputError(f"An image of shape {pixels.shape} was given, which has no pixels.")
    if pixels.dtype.kind not in "buif":
        raise InputError(f"An image of type {pixels.dtype} was given, but its values must be real numbers.")
    black, white = settings.black_percentile, settings.white_percentile
    if pixels.ndim == 2:
        return Frame(merge([pixels], [ChannelStyle(black=black, white=white)]))
    return Frame(photo(pixels[..., :3], black, white))


def held_bytes(frame: FrameReader) -> int:
    """Return how many bytes a reader keeps of its frame for as long as parts of it are read.

    A reader that cannot read a large frame by region says so by an attribute of this name; others keep little.
    """
    return int(getattr(frame, "held_bytes", 0))


def overview(frame: FrameReader, step: int) -> NDArray[np.uint8]:
    """Return a frame reduced by a whole number, uint8 (h, w, 3), without having it whole in memory.

    Parameters
    ----------
    frame
        Read in strips of rows.
    step
        Each pixel is the mean over so many pixels each way; at the right and lower border over what there is.
    """
    height, width = frame.shape
    rows = max(1, _STRIP // (step * max(1, width))) * step
    parts = [_reduced(frame.read((0, top, width, min(top + rows, height))), step) for top in range(0, height, rows)]
    return np.concatenate(parts)


def _reduced(pixels: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Average over squares."""
    row, column = np.arange(0, pixels.shape[0], step), np.arange(0, pixels.shape[1], step)
    # Columns first: rows are then added up on an array that is smaller already.
    sums = np.add.reduceat(np.add.reduceat(pixels, column, axis=1, dtype=np.uint32), row, axis=0)
    counts = np.outer(np.diff([*row, pixels.shape[0]]), np.diff([*column, pixels.shape[1]]))
    mean: NDArray[np.uint8] = ((sums + counts[..., None] // 2) // counts[..., None]).astype(np.uint8)
    return mean
