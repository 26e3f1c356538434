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
