"""Leica LIF: liffile (extra "lif") reads the description, and regions of the planes come from a memory map."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.images.source import (
    Header,
    SteppedSource,
    check_kind,
    check_size,
    damaged,
    pixel_size,
    reader_package,
    reading,
    unread_axes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, PixelSize

_READ_AXES = frozenset("TZCYXS")
_AXES = {"1": "X", "2": "Y", "3": "Z", "4": "T"}
_MOST_LISTED = 5
_BLUE_GREEN = ["3", "2"]
"""Tags of the first two channels where the samples of a pixel are blue, green, red."""
_COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "yellow": (255, 255, 0),
    "gray": (255, 255, 255),
    "grey": (255, 255, 255),
}


class LifSource(SteppedSource):
    """The first image of a LIF file; a :class:`~sam2_fewshot.images.source.RegionSource`.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        If it cannot be read, or if the extra "lif" is missing.
    """

    def __init__(self, path: Path) -> None:
        with reading(path), _opened(path) as (image, names):
            self._layout = layout_of(path, image)
            self.header = _header(path, image, names, self._layout is not None)

    def _read(self, z: int, t: int, box: Box, step: int) -> Iterator[NDArray[Any]]:
        """Yield pixels of the planes, from a memory map where the file says where they lie."""
        x0, y0, x1, y1 = box
        for channel in range(self.header.size_c):
            with reading(self.header.path):
                plane = self._frame(z, t, channel) if self._layout is None else self._layout.plane(z, t, channel)
                pixels = np.array(plane[y0:y1:step, x0:x1:step], plane.dtype.newbyteorder("="), order="C")
            yield pixels

    def _frame(self, z: int, t: int, channel: int) -> NDArray[Any]:
        """Have liffile read a plane."""
        header = self.header
        at = {"Z": z, "T": t, "C": channel}
        with _opened(header.path) as (image, _):
            pixels = np.asarray(image.frame(**{axis: step for axis, step in at.items() if axis in image.sizes}))
        if header.is_photo:
            pixels = pixels[..., :3]
        expected = (header.height, header.width)
        if pixels.shape[:2] != expected or pixels.ndim != (3 if header.is_photo else 2):
            raise ValueError("its frames are laid out in an unusual way")
        return pixels


def _header(path: Path, image: Any, names: list[str], by_region: bool) -> Header:
    sizes = {str(axis): int(n) for axis, n in image.sizes.items()}
    if "Y" not in sizes or "X" not in sizes:
        raise damaged(path, f"its first image has the axes {''.join(sizes)[:20]}")
    check_size(path, sizes["Y"], sizes["X"], by_region)
    dtype = np.dtype(image.dtype)
    check_kind(path, dtype)
    photo = sizes.get("S", 1) in (3, 4)
    notes = []
    if len(names) > 1:
        listed = ", ".join(names[1 : _MOST_LISTED + 1]) + (", …" if len(names) > _MOST_LISTED + 1 else "")
        notes.append(
            f"{path.name} has {len(names)} images; the first ({names[0]}) is read. Export the others ({listed}) to "
            "files of their own."
        )
    notes += unread_axes(path, [axis for axis, n in sizes.items() if axis not in _READ_AXES and n > 1])
    count = sizes.get("C", 1)
    channels = _channels(image, count)
    return Header(
        path,
        sizes["Y"],
        sizes["X"],
        dtype.newbyteorder("="),
        size_c=count,
        size_z=sizes.get("Z", 1),
        size_t=sizes.get("T", 1),
        by_region=by_region,
        is_photo=photo and count == 1,
        channel_names=channels,
        channel_colors=tuple(_COLORS.get((name or "").lower()) for name in channels),
        warnings=tuple(notes),
        pixel_size=_size(image),
    )


def _channels(image: Any, count: int) -> tuple[str | None, ...]:
    """Return the names of the channels' colour tables, which is what LIF has for names."""
    try:
        names = [channel["LUTName"] or None for channel in _described_channels(image)]
    except (AttributeError, LookupError, TypeError, ValueError):
        names = []
    return tuple(names) if len(names) == count else (None,) * count


def _size(image: Any) -> PixelSize | None:
    """Return the distance of neighbours along each axis, which LIF gives in metres from the first to the last."""
    steps: dict[str, float | None] = {}
    for axis in "XYZ":
        places = image.coords.get(axis)
        steps[axis] = None if places is None or len(places) < 2 else abs(float(places[1] - places[0]))
    return pixel_size(steps["X"], steps["Y"], steps["Z"], "m")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """Give the first image that has pixels, and the names of all of them."""
    liffile = reader_package(path, "LIF", "liffile", "lif")
    with liffile.LifFile(path) as file:
        images = list(file.images)
        if not images:
            raise damaged(path, "no image is in it")
        yield images[0], [str(image.name) for image in images]


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
    """Return where an image's pixels lie, None if the file does not say or they are not all in it.

    Parameters
    ----------
    path
        The file.
    image
        A :class:`liffile.LifImage` with the axes X and Y.
    """
    try:
        axes: dict[str, dict[str, str]] = {}
        for number, entry in enumerate(_described(image, "Dimensions/DimensionDescription")):
            axis = _AXES.get(entry["DimID"], "")
            axes[axis if axis and axis not in axes else f"other {number}"] = entry
        steps = {axis: int(entry["BytesInc"]) for axis, entry in axes.items()}
        sizes = {axis: int(entry["NumberOfElements"]) for axis, entry in axes.items()}
        described = _described_channels(image)
        channels = tuple(int(channel["BytesInc"]) for channel in described)
        block, dtype = image.memory_block, np.dtype(image.dtype)
        begin, length, is_elsewhere = int(block.offset), int(block.size), bool(block.frames)
        samples, count = image.sizes.get("S", 1), image.sizes.get("C", 1)
        is_reversed = samples == 3 and [channel["ChannelTag"] for channel in described[:2]] == _BLUE_GREEN
        shape: tuple[int, ...] = (sizes["Y"], sizes["X"])
        inner: tuple[int, ...] = (steps["Y"], steps["X"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return None
    if is_elsewhere or begin <= 0 or begin + length > path.stat().st_size or min(*steps.values(), *channels) < 0:
        return None
    if samples > 1:
        if samples not in (3, 4) or count != 1 or channels != tuple(n * dtype.itemsize for n in range(samples)):
            return None
        shape, inner, channels = (*shape, samples), (*inner, dtype.itemsize), (0,)
    far = {axis: (sizes.get(axis, 1) - 1) * steps.get(axis, 0) for axis in "ZT"}
    end = _extent(shape, inner) + max(channels) + sum(far.values()) + dtype.itemsize
    if len(channels) != count or end > length:
        return None
    return Layout(path, begin, dtype, shape, inner, steps.get("Z", 0), steps.get("T", 0), channels, is_reversed)


def _described(image: Any, what: str) -> list[dict[str, str]]:
    return [entry.attrib for entry in image.xml_element.iterfind(f"./Data/Image/ImageDescription/{what}")]


def _described_channels(image: Any) -> list[dict[str, str]]:
    """Return the descriptions of an image's channels, in the order in which they are stored."""
    return sorted(_described(image, "Channels/ChannelDescription"), key=lambda channel: int(channel["BytesInc"]))


def _extent(shape: tuple[int, ...], steps: tuple[int, ...]) -> int:
    """Return the bytes from the first pixel's beginning to the last one's."""
    return sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
