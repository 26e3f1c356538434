"""Objects on the planes of an array of any number of axes: as a label image, and as records for any format."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import find_objects

from sam2_fewshot.annotations.label_bands import ranked
from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.overlap import sharing
from sam2_fewshot.images.stems import safe_stem
from sam2_fewshot.records import InstanceMask, Location, common_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.review import Results
    from sam2_fewshot.records import Detection, PixelSize

PlaneIndex = tuple[int, ...]
"""Where a plane lies in an array: an index for each axis but its rows and columns."""

_NAMES = {"z": "z", "t": "time", "time": "time"}

_LARGEST = 4000
"""Pixels; a label image of longer planes is a pyramid."""


def plane_slices(place: PlaneIndex, axes: tuple[int, int], ndim: int) -> tuple[int | slice, ...]:
    """Return the index of a plane in an array, with slices for its rows and columns."""
    rest = iter(place)
    return tuple(slice(None) if axis in axes else next(rest) for axis in range(ndim))


class LabelImage:
    """A label image that is painted where it is read, so that it takes no memory and is always up to date.

    It has what viewers ask of an array: ``shape``, ``dtype``, ``ndim``, ``size``, indexing by whole numbers and slices,
    and :func:`numpy.asarray`.

    Parameters
    ----------
    objects
        What is painted: each object that is shown, on its place, with its label; a later one covers an earlier one.
    step
        Only each so many-th row and column of the planes is there.
    """

    dtype = np.dtype(np.int32)

    def __init__(self, objects: Results, step: int = 1) -> None:
        self._objects, self._step = objects, step
        self.shape = tuple(
            -(-length // step) if axis in objects.axes else length for axis, length in enumerate(objects.shape)
        )
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[()], dtype)

    def __getitem__(self, key: Any) -> NDArray[np.int32]:
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        keys += [slice(None)] * (self.ndim - len(keys))
        ranges = [
            range(*each.indices(length)) if isinstance(each, slice) else range(length)[int(each) :][:1]
            for each, length in zip(keys, self.shape, strict=True)
        ]
        # Painted without steps, from the lowest to the highest index of each axis; then the steps are taken.
        spans = [(min(r[0], r[-1]), max(r[0], r[-1]) + 1) if r else (0, 0) for r in ranges]
        painted = np.zeros([end - begin for begin, end in spans], np.int32)
        self._paint(painted, spans)
        steps = [slice(None, None, each.step) if isinstance(each, slice) else 0 for each in keys]
        return painted[tuple(steps)]

    def __setitem__(self, key: Any, value: Any) -> None:
        """Refuse what a viewer's brush asks for."""
        raise InputError(
            "These labels cannot be painted on, since they are made of objects. Draw corrections on another layer."
        )

    def _paint(self, painted: NDArray[np.int32], spans: Sequence[tuple[int, int]]) -> None:
        objects, step = self._objects, self._step
        (top, bottom), (left, right) = (spans[axis] for axis in objects.axes)
        others = [axis for axis in range(self.ndim) if axis not in objects.axes]
        planes = painted.transpose([*others, *objects.axes])
        window = (left, top, right, bottom)
        boxes = -(-objects.boxes // step)  # in the rows and columns that are there
        for i in map(int, np.flatnonzero(objects.shown & sharing(boxes, window))):
            place = tuple(at - spans[axis][0] for at, axis in zip(objects.places[i], others, strict=True))
            if any(not 0 <= at < length for at, length in zip(place, planes.shape, strict=False)):
                continue
            mask, (x, y) = objects.masks[i], boxes[i, :2].tolist()
            data = mask.data[-mask.y0 % step :: step, -mask.x0 % step :: step]
            into, of = common_part(window, (x, y, x + data.shape[1], y + data.shape[0]))
            planes[place][into][data[of]] = i + 1


def label_image(objects: Results, largest: int = _LARGEST) -> LabelImage | list[LabelImage]:
    """Return the label image of objects; of planes with more than `largest` pixels a side a pyramid of halves."""
    steps = [1]
    while max(objects.shape[axis] for axis in objects.axes) / steps[-1] > largest:
        steps.append(steps[-1] * 2)
    return LabelImage(objects) if len(steps) == 1 else [LabelImage(objects, step) for step in steps]


def axis_names(labels: Sequence[str], count: int) -> list[str]:
    """Return which part of a location each of `count` axes is: by their labels, else Z is the last, time before it."""
    named = [str(label).lower() for label in [*labels, *[""] * count][:count]]
    if any(label in _NAMES for label in named):
        return [_NAMES.get(label, "xy") for label in named]
    usual = ["xy"] * count + ["time", "z"]
    return usual[len(usual) - count :]


def location_of(place: PlaneIndex, sizes: Sequence[int], names: Sequence[str]) -> Location:
    """Return a place as a location; the axes have lengths and :func:`axis_names`."""
    at = {"xy": 0, "time": 0, "z": 0}
    for index, size, name in zip(place, sizes, names, strict=True):
        at[name] = at[name] * size + index
    return Location(at["xy"], at["z"], at["time"])


def masks_of(labels: NDArray[Any]) -> Iterator[tuple[int, InstanceMask]]:
    """Yield the labels of a plane (H, W) in rising order, and their masks; 0 is background."""
    # Labels may be huge; find_objects makes a list as long as the largest.
    numbers, ranks = ranked(labels)
    for rank, (rows, columns) in enumerate(find_objects(ranks) if numbers.size else (), 1):
        mask = InstanceMask(ranks[rows, columns] == rank, columns.start, rows.start, (labels.shape[0], labels.shape[1]))
        yield int(numbers[rank - 1]), mask


def records_of(
    name: str,
    objects: Sequence[tuple[PlaneIndex, Detection, tuple[str, ...]]],
    shape: tuple[int, ...],
    labels: Sequence[str] = (),
    pixel_size: PixelSize | None = None,
) -> list[FrameRecord]:
    """Return objects as records, in the order of their locations.

    Parameters
    ----------
    name
        What to call the image.
    objects
        Places, objects and their tags.
    shape
        Of the array; the last two axes are rows and columns.
    labels
        What the axes are called; see :func:`axis_names`.
    pixel_size
        In micrometres.
    """
    sizes = shape[:-2]
    names = axis_names(labels, len(sizes))
    last = location_of(tuple(size - 1 for size in sizes), sizes, names)
    frames: dict[Location, list[tuple[Detection, tuple[str, ...]]]] = {}
    for place, item, tags in objects:
        location = location_of(place, sizes, names)
        frames.setdefault(location, []).append((replace(item, location=location), tags))
    return [
        FrameRecord(
            name=name,
            stem=safe_stem(name),
            location=location,
            frame_shape=(shape[-2], shape[-1]),
            size_z=last.z + 1,
            size_t=last.time + 1,
            detections=tuple(item for item, _ in found),
            tags=tuple(tags for _, tags in found),
            pixel_size=pixel_size,
        )
        for location, found in sorted(frames.items())
    ]
