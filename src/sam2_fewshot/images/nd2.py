"""Nikon ND2, read by nd2 (extra "nd2").

Of a frame that is not compressed only the region is read, through the file's memory map. Compressed frames
(by zlib, and by JPEG 2000 in old files) are in one piece, so they are read whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import needed
from sam2_fewshot.images.positions import check_counts, check_positions, opened_positions, step_names
from sam2_fewshot.images.source import Header, SteppedSource, check_kind, check_size, pixel_size, reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.images.source import ChannelColors, ChannelNames, PixelSource
    from sam2_fewshot.records import Box, PixelSize

_OWN_AXES = frozenset("ZTCYXS")
_LOOP = "XYPosLoop"


def open_nd2(path: Path, only: int | None = None) -> list[PixelSource]:
    """Open the positions of an ND2 file; each further axis gives positions as well.

    It needs the extra "nd2".
    """
    with reading(path), _opened(path) as file:
        header, components = _header(path, file)
        places = [dict(place) for place in file.loop_indices] or [{}]
        axes = sorted({axis for place in places for axis in place} - _OWN_AXES, key=lambda axis: (axis != "P", axis))
        positions: dict[tuple[int, ...], dict[tuple[int, int], int]] = {}
        for number, place in enumerate(places):
            key = tuple(place.get(axis, 0) for axis in axes)
            positions.setdefault(key, {}).setdefault((place.get("Z", 0), place.get("T", 0)), number)
        check_positions(path, len(positions))
        keys = sorted(positions)
        names = dict(enumerate(step_names(axes, keys, _point_names(file) if "P" in axes else {})))

    def opened(number: int) -> Nd2Source:
        return Nd2Source(header, components, positions[keys[number]])

    return opened_positions(path, opened, names, only)


class Nd2Source(SteppedSource):
    """A position of an ND2 file; a :class:`~sam2_fewshot.images.source.RegionSource`.

    Parameters
    ----------
    header
        But for its name and number.
    components
        Samples of a channel.
    frames
        Number of each of its frames in the file, by slice and time point.
    """

    def __init__(self, header: Header, components: int, frames: Mapping[tuple[int, int], int]) -> None:
        self.header = header
        self._components, self._frames = components, frames

    def _read(self, z: int, t: int, box: Box, step: int) -> Iterator[NDArray[Any]]:
        """Yield pixels of the planes, from the memory map of an uncompressed file."""
        header = self.header
        x0, y0, x1, y1 = box
        with reading(header.path), _opened(header.path) as file:
            number = self._frames.get((z, t))
            if number is None:
                raise ValueError(f"it lacks slice {z + 1} at time {t + 1}")
            channels = 1 if header.is_photo else header.size_c // self._components
            shape = channels, header.height, header.width, self._components
            pixels = np.asarray(file.read_frame(number)).reshape(shape)[:, y0:y1:step, x0:x1:step]
            if header.is_photo:  # blue, green, red, but in the JPEG 2000 of old files
                planes = [pixels[0, ..., :3] if file.is_legacy else pixels[0, ..., 2::-1]]
            else:
                planes = [p[..., s] for p in pixels for s in range(shape[3])]
            # The file's memory map ends with it, and nd2 does not count the arrays that use it.
            copies = [np.array(plane, plane.dtype.newbyteorder("="), order="C") for plane in planes]
        yield from copies


def _point_names(file: Any) -> dict[int, str]:
    """Return what the stage positions are called, by their numbers."""
    try:
        points = [point for loop in file.experiment if loop.type == _LOOP for point in loop.parameters.points]
        return {number: str(point.name or "") for number, point in enumerate(points)}
    except Exception:  # as in _channels
        return {}


def _header(path: Path, file: Any) -> tuple[Header, int]:
    """Return the header and the number of components of a channel."""
    sizes = {str(axis): int(n) for axis, n in file.sizes.items()}
    height, width = sizes.get("Y", 0), sizes.get("X", 0)
    dtype = np.dtype(file.dtype)
    components, channels = sizes.get("S", 1), sizes.get("C", 1)
    by_region = not file.is_legacy and file.attributes.compressionType in (None, "none")
    # A size that was made up is not believed.
    frame = height * width * components * channels * dtype.itemsize
    check_size(path, height, width, by_region and frame <= path.stat().st_size)
    check_kind(path, dtype)
    check_counts(path, channels * components, sizes.get("Z", 1), sizes.get("T", 1))
    photo = components in (3, 4) and channels == 1
    count = 1 if photo else channels * components
    names, colors = _channels(file, count)
    header = Header(
        path,
        height,
        width,
        dtype.newbyteorder("="),
        size_c=count,
        size_z=sizes.get("Z", 1),
        size_t=sizes.get("T", 1),
        by_region=by_region,
        is_photo=photo,
        channel_names=names,
        channel_colors=colors,
        pixel_size=_size(file),
    )
    return header, components


def _channels(file: Any, count: int) -> tuple[ChannelNames, ChannelColors]:
    try:
        found = [channel.channel for channel in file.metadata.channels or ()]
        if len(found) == count:
            names = tuple(str(channel.name) for channel in found)
            return names, tuple((int(c.color.r), int(c.color.g), int(c.color.b)) for c in found)
    except Exception:  # nd2 raises anything on odd metadata (NameError too), and the pixels can be used without it
        pass
    return (None,) * count, (None,) * count


def _size(file: Any) -> PixelSize | None:
    try:
        volume = file.metadata.channels[0].volume
        x, y, z = volume.axesCalibration
        is_known = all(volume.axesCalibrated[:2])  # else the sizes are made up
        return pixel_size(x, y, z if volume.axesCalibrated[2] else None) if is_known else None
    except Exception:  # as above
        return None


def _opened(path: Path) -> Any:
    return needed(f"{path.name}: ND2", "nd2", "nd2").ND2File(path)
