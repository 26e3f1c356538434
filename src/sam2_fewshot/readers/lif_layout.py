"""Where the pixels of a LIF image lie in its file, so that regions of them can be read by a memory map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of a LIF image's pixels: LIF stores them as they are, at even distances along each axis.

    Parameters
    ----------
    path
        The file.
    offset
        Where the image begins, in bytes.
    dtype
        Of the pixels.
    shape
        ``(height, width)``, or ``(height, width, samples)`` of a photo.
    steps
        Bytes between neighbours along these axes.
    z, t
        Bytes between slices, and between time points.
    channels
        Bytes from the beginning to each channel.
    is_reversed
        True when the samples are blue, green, red.
    """

    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    steps: tuple[int, ...]
    z: int
    t: int
    channels: tuple[int, ...]
    is_reversed: bool

    def plane(self, z: int, t: int, channel: int) -> NDArray[Any]:
        """Return a plane as a view into the file, (H, W) or (H, W, 3), red first.

        Raises
        ------
        ValueError
            If the file ends before.
        """
        offset = self.offset + self.channels[channel] + z * self.z + t * self.t
        length = _extent(self.shape, self.steps) + self.dtype.itemsize
        block = np.memmap(self.path, np.uint8, "r", offset, (length,))
        pixels: NDArray[Any] = np.ndarray(self.shape, self.dtype, block, 0, self.steps)
        if pixels.ndim == 3:
            pixels = pixels[..., 2::-1] if self.is_reversed else pixels[..., :3]
        return pixels


def layout_of(path: Path, image: Any) -> Layout | None:
    """Return where an image's pixels lie, None if the file does not tell or they are not all in it.

    Parameters
    ----------
    path
        The file.
    image
        A :class:`liffile.LifImage` with the axes X and Y.
    """
    try:
        steps = {dim.label: int(dim.bytes_inc) for dim in image._dimensions}
        sizes = {dim.label: int(dim.number_elements) for dim in image._dimensions}
        places = tuple(int(channel.bytes_inc) for channel in image._channels)
        block, dtype = image.memory_block, np.dtype(image.dtype)
        begin, length, apart = int(block.offset), int(block.size), bool(block.frames)
        samples, count, is_reversed = image.sizes.get("S", 1), image.sizes.get("C", 1), bool(image._is_bgr)
    except (AttributeError, LookupError, TypeError, ValueError):
        return None
    if apart or begin <= 0 or begin + length > path.stat().st_size or min(*steps.values(), *places) < 0:
        return None
    shape: tuple[int, ...] = (sizes["Y"], sizes["X"])
    inner: tuple[int, ...] = (steps["Y"], steps["X"])
    channels = places
    if samples > 1:
        if samples not in (3, 4) or count != 1 or places != tuple(n * dtype.itemsize for n in range(samples)):
            return None
        shape, inner, channels = (*shape, samples), (*inner, dtype.itemsize), (0,)
    far = {axis: (sizes.get(axis, 1) - 1) * steps.get(axis, 0) for axis in "ZT"}
    end = _extent(shape, inner) + max(channels) + sum(far.values()) + dtype.itemsize
    if len(channels) != count or end > length:
        return None
    return Layout(path, begin, dtype, shape, inner, steps.get("Z", 0), steps.get("T", 0), channels, is_reversed)


def _extent(shape: tuple[int, ...], steps: tuple[int, ...]) -> int:
    """Return the bytes from the first pixel's beginning to the last one's."""
    return sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
