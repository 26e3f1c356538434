"""Leica LIF: liffile (extra "lif") reads the description, and regions of the planes come from a memory map.

A plane is what the microscope scanned as one: XY, or XZ or XT. Wavelengths of a lambda scan are channels.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import needed
from sam2_fewshot.images.positions import check_counts, check_positions, opened_positions, position_names
from sam2_fewshot.images.source import Header, SteppedSource, check_kind, check_size, damaged, pixel_size, reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.images.source import PixelSource
    from sam2_fewshot.records import Box, PixelSize

_WAVELENGTHS = "\u03bb\u039b"
"""Axes of emission and of excitation wavelengths, as liffile calls them."""
_AXES = {
    **{"1": "X", "2": "Y", "3": "Z", "4": "T", "5": _WAVELENGTHS[0], "6": "A", "7": "N", "8": "Q"},
    **{"9": _WAVELENGTHS[1], "10": "M", "11": "L"},
}
"""By the number in the file."""
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


@dataclass(frozen=True, slots=True)
class Roles:
    """What each axis of a LIF image stands for.

    Parameters
    ----------
    rows, columns
        Axes of a plane.
    slices, times
        Axes of slices and time points; empty where there is none.
    channels
        Axes that together count the channels, the slowest first.
    others
        Axes of which each step is a position of its own.
    """

    rows: str
    columns: str
    slices: str
    times: str
    channels: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, axes: Sequence[str]) -> Roles | None:
        """Return the roles of some axes, the slowest first; None without a plane."""
        places = [axis for axis in axes if axis in "XYZT"]
        if len(places) < 2:
            return None
        *left, rows, columns = places
        slices = next((axis for axis in left if axis != "T"), "")
        times = "T" if "T" in left else ""
        channels = tuple(axis for axis in ("C", *_WAVELENGTHS) if axis in axes)
        taken = {rows, columns, slices, times, *channels, "S"}
        return cls(rows, columns, slices, times, channels, tuple(axis for axis in axes if axis not in taken))


def open_lif(path: Path, only: int | None = None) -> list[PixelSource]:
    """Open the images of a LIF file; each tile of a mosaic, and each step of an unusual axis, is a position.

    It needs the extra "lif".
    """
    with reading(path), _images(path) as images:
        counts = Counter(str(image.name) for image in images)
        places: list[tuple[int, Roles | None, dict[str, int]]] = []
        labels: list[str] = []
        for number, image in enumerate(images):
            name = str(image.name)
            name = name if counts[name] == 1 else str(image.path)
            roles = Roles.of([*image.sizes])
            others = roles.others if roles else ()
            sizes = [int(image.sizes[axis]) for axis in others]
            check_positions(path, len(places) + math.prod(sizes))
            for steps in np.ndindex(*sizes):
                at = dict(zip(others, map(int, steps), strict=True))
                places.append((number, roles, at))
                labels.append("_".join([name, *(f"{axis}{step + 1}" for axis, step in at.items())]))
        names = dict(enumerate(position_names(labels) if len(labels) != 1 else ("",)))

        def opened(number: int) -> LifSource:
            place, roles, at = places[number]
            if roles is None:
                name = f" {names[number]}" if names[number] else ""
                raise damaged(path, f"its image{name} has the axes {''.join(images[place].sizes)[:20]}")
            return LifSource(path, images[place], place, roles, at)

        return opened_positions(path, opened, names, only)


class LifSource(SteppedSource):
    """An image of a LIF file; a :class:`~sam2_fewshot.images.source.RegionSource`.

    Parameters
    ----------
    path
        The file.
    image
        A :class:`liffile.LifImage`, and its place among those of the file.
    place
        Where that is.
    roles
        Of its axes.
    at
        The steps along axes that are positions.

    Raises
    ------
    InputError
        If it cannot be read.
    """

    def __init__(self, path: Path, image: Any, place: int, roles: Roles, at: Mapping[str, int]) -> None:
        sizes = {str(axis): int(n) for axis, n in image.sizes.items()}
        self._place, self._at, self._roles = place, dict(at), roles
        self._counts = [sizes[axis] for axis in roles.channels]
        self._layout = layout_of(path, image, roles, at)
        height, width = sizes[roles.rows], sizes[roles.columns]
        by_region = self._layout is not None
        check_size(path, height, width, by_region)
        dtype = np.dtype(image.dtype)
        check_kind(path, dtype)
        count = math.prod(self._counts)
        slices, times = sizes.get(roles.slices, 1), sizes.get(roles.times, 1)
        check_counts(path, count, slices, times)
        channels = _channels(image, sizes, roles)
        self.header = Header(
            path,
            height,
            width,
            dtype.newbyteorder("="),
            size_c=count,
            size_z=slices,
            size_t=times,
            by_region=by_region,
            is_photo=sizes.get("S", 1) in (3, 4) and count == 1,
            channel_names=channels,
            channel_colors=tuple(_COLORS.get((name or "").lower()) for name in channels),
            pixel_size=_size(image, roles),
        )

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
        header, roles = self.header, self._roles
        steps = np.unravel_index(channel, self._counts) if self._counts else ()
        at = {roles.slices: z, roles.times: t, **dict(zip(roles.channels, map(int, steps), strict=True)), **self._at}
        with _images(header.path) as images:
            pixels = np.asarray(images[self._place].frame(**{axis: step for axis, step in at.items() if axis}))
        if header.is_photo:
            pixels = pixels[..., :3]
        expected = (header.height, header.width)
        if pixels.shape[:2] != expected or pixels.ndim != (3 if header.is_photo else 2):
            raise ValueError("its frames are laid out in an unusual way")
        return pixels


def _channels(image: Any, sizes: Mapping[str, int], roles: Roles) -> tuple[str | None, ...]:
    """Return a name for each channel: that of its colour table, which is what LIF has, and its wavelength."""
    names: list[str | None] = [None] * sizes.get("C", 1)
    try:
        found = [channel["LUTName"] or None for channel in _described_channels(image)]
    except (AttributeError, LookupError, TypeError, ValueError):
        found = []
    names = found if len(found) == len(names) else names
    for axis in _WAVELENGTHS:
        if axis in roles.channels:
            places = image.coords.get(axis)
            steps = [None] * sizes[axis] if places is None else [f"{float(place) * 1e9:.0f} nm" for place in places]
            names = [" ".join(filter(None, (name, step))) or None for name in names for step in steps]
    return tuple(names)


def _size(image: Any, roles: Roles) -> PixelSize | None:
    """Return the distance of neighbours along each axis, which LIF gives in metres from the first to the last."""
    steps: list[float | None] = []
    for axis in (roles.columns, roles.rows, roles.slices):
        places = image.coords.get(axis) if axis != "T" else None
        steps.append(None if places is None or len(places) < 2 else abs(float(places[1] - places[0])))
    return pixel_size(steps[0], steps[1], steps[2], "m")


@contextmanager
def _images(path: Path) -> Iterator[list[Any]]:
    """Give the images that have pixels."""
    liffile = needed(f"{path.name}: LIF", "liffile", "lif")
    with liffile.LifFile(path) as file:
        images = list(file.images)
        if not images:
            raise damaged(path, "no image is in it")
        yield images


@dataclass(frozen=True, slots=True)
class PixelLayout:
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
        ``(times, slices, height, width)``, and of a photo ``samples`` as well.
    steps
        Bytes between neighbours along these axes.
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
    channels: tuple[int, ...]
    is_reversed: bool

    def plane(self, z: int, t: int, channel: int) -> NDArray[Any]:
        """Return a plane as a view into the file, (H, W) or (H, W, 3), red first.

        Raises
        ------
        ValueError
            If the file ends before.
        """
        length = _extent(self.shape, self.steps) + self.dtype.itemsize
        block = np.memmap(self.path, np.uint8, "r", self.offset + self.channels[channel], (length,))
        pixels: NDArray[Any] = np.ndarray(self.shape, self.dtype, block, 0, self.steps)[t, z]
        if pixels.ndim == 3:
            pixels = pixels[..., 2::-1] if self.is_reversed else pixels[..., :3]
        return pixels


def layout_of(path: Path, image: Any, roles: Roles, at: Mapping[str, int]) -> PixelLayout | None:
    """Return where an image's pixels lie, None if the file does not say or they are not all in it.

    Parameters
    ----------
    path
        The file.
    image
        A :class:`liffile.LifImage`.
    roles
        Of its axes.
    at
        The steps along the axes that are positions.
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
        order = roles.times, roles.slices, roles.rows, roles.columns
        shape = tuple(sizes[axis] if axis else 1 for axis in order)
        inner = tuple(steps[axis] if axis else 0 for axis in order)
        start = sum(steps[axis] * step for axis, step in at.items())
    except (AttributeError, LookupError, TypeError, ValueError):
        return None
    if is_elsewhere or begin <= 0 or begin + length > path.stat().st_size or min(*steps.values(), *channels) < 0:
        return None
    if samples > 1:
        if samples not in (3, 4) or count != 1 or channels != tuple(n * dtype.itemsize for n in range(samples)):
            return None
        shape, inner, channels = (*shape, samples), (*inner, dtype.itemsize), (0,)
    if len(channels) != count:
        return None
    for axis in _WAVELENGTHS:
        if axis in roles.channels:
            check_counts(path, len(channels) * sizes[axis], 1, 1)
            channels = tuple(offset + n * steps[axis] for offset in channels for n in range(sizes[axis]))
    if _extent(shape, inner) + max(channels) + start + dtype.itemsize > length:
        return None
    return PixelLayout(path, begin + start, dtype, shape, inner, channels, is_reversed)


def _described(image: Any, what: str) -> list[dict[str, str]]:
    return [entry.attrib for entry in image.xml_element.iterfind(f"./Data/Image/ImageDescription/{what}")]


def _described_channels(image: Any) -> list[dict[str, str]]:
    """Return the descriptions of an image's channels, in the order in which they are stored."""
    return sorted(_described(image, "Channels/ChannelDescription"), key=lambda channel: int(channel["BytesInc"]))


def _extent(shape: tuple[int, ...], steps: tuple[int, ...]) -> int:
    """Return the bytes from the first pixel's beginning to the last one's."""
    return sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
