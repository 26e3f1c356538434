"""Label images in bands of rows, read and painted with the same result as at once."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.overlap import bands, boxes_of, sharing
from sam2_fewshot.images.source import RowSource
from sam2_fewshot.records import InstanceMask, common_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.images.source import Header, PixelSource
    from sam2_fewshot.records import Box, Detection

BAND, _LARGEST_BAND = 1 << 22, 1 << 25
"""About the pixels of a band, and the most; a pixel takes up to 16 bytes while it is read."""
_MOST_COUNTED = 1_000_000


def band_rows(width: int, piece_rows: int, band: int = BAND) -> int:
    """Return how many rows of a plane to read at once, whole pieces of the file if the memory allows it."""
    if piece_rows * width > _LARGEST_BAND:
        return max(_LARGEST_BAND // width, 1)
    return max(band // (piece_rows * width), 1) * piece_rows


def _bands_of(
    source: PixelSource, z: int, t: int, large: int, band: int
) -> Iterator[tuple[int, NDArray[np.integer[Any]]]]:
    """Yield a plane of labels after row 0; a large one, where its file allows it, in bands after their first rows."""
    header = source.header
    height, width = header.height, header.width
    if height * width <= large or not header.by_region or not isinstance(source, RowSource):
        yield 0, _as_numbers(header, list(source.planes(z, t)))
        return
    rows = band_rows(width, source.piece_rows, band)
    for box in bands((0, 0, width, height), rows):
        yield box[1], _as_numbers(header, list(source.region(z, t, box)))


def has_one_number(source: PixelSource, number: int, large: int, band: int = BAND) -> bool:
    """Tell whether no plane of labels has any object number but this one: then the file is a black-and-white mask.

    The number is that of the objects on one of its planes; the rest is as for :func:`objects_of`.
    """
    header = source.header
    if header.size_z == header.size_t == 1:
        return True  # whoever asks has seen this plane
    planes = ((z, t) for t in range(header.size_t) for z in range(header.size_z))
    return not any(
        ((labels != 0) & (labels != number)).any()
        for z, t in planes
        for _, labels in _bands_of(source, z, t, large, band)
    )


def _as_numbers(header: Header, planes: list[NDArray[Any]]) -> NDArray[np.integer[Any]]:
    """Return a plane's object numbers (H, W), from one array a channel; refuse what are none."""
    path, first = header.path, planes[0]
    if first.ndim == 3 and not first.shape[2] % 2:  # the last sample is the opacity
        first = first[..., :-1]
    if first.ndim == 3 and (first == first[..., :1]).all():
        first = first[..., 0]
    if first.ndim == 3 or any((plane != first).any() for plane in planes[1:]):
        raise InputError(
            f"{path.name} is a colour image; a label image has one number a pixel: "
            "0 for background, 1, 2, … for objects."
        )
    if first.dtype.kind == "f":
        with np.errstate(all="ignore"):
            whole = np.isfinite(first).all() and (first == np.floor(first)).all() and (abs(first) < 2**53).all()
        if not whole:
            raise InputError(f"{path.name} has values that are not whole numbers; a label image has object numbers.")
        first = first.astype(np.int64)
    if header.stretched_from:
        full = np.iinfo(np.uint8 if first.dtype == np.uint8 else np.uint16).max
        first = (first.astype(np.int64) * header.stretched_from + full // 2) // full
    if first.dtype == bool:
        first = first.astype(np.uint8)
    if first.dtype.kind == "i" and first.min() < 0:
        raise InputError(f"{path.name} has negative values ({first.min()}); objects are numbered from 1.")
    return first


@dataclass(frozen=True, slots=True)
class Piece:
    """What one band holds of an object, packed.

    Parameters
    ----------
    box
        ``(x0, y0, x1, y1)`` in the plane.
    packed
        Its bits, compressed.
    """

    box: Box
    packed: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_], x0: int, y0: int) -> Piece:
        """Pack a mask whose first pixel lies at column `x0` and row `y0` of the plane."""
        height, width = mask.shape
        return cls((x0, y0, x0 + width, y0 + height), zlib.compress(np.packbits(mask).tobytes(), 1))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask, unpacked."""
        x0, y0, x1, y1 = self.box
        bits = np.unpackbits(np.frombuffer(zlib.decompress(self.packed), np.uint8), count=(y1 - y0) * (x1 - x0))
        return bits.view(bool).reshape(y1 - y0, x1 - x0)


def put_together(pieces: list[Piece], frame_shape: tuple[int, int]) -> InstanceMask:
    """Return the mask of an object, of which there is at least one piece, cropped to it."""
    x0, y0 = (min(piece.box[side] for piece in pieces) for side in (0, 1))
    x1, y1 = (max(piece.box[side] for piece in pieces) for side in (2, 3))
    data = np.zeros((y1 - y0, x1 - x0), bool)
    for piece in pieces:
        left, top, right, bottom = piece.box
        data[top - y0 : bottom - y0, left - x0 : right - x0] |= piece.mask
    return InstanceMask(data, x0, y0, frame_shape)


class _Gathered:
    """The objects of a plane, to which its bands are added from top to bottom."""

    def __init__(self) -> None:
        self.pieces: dict[int, list[Piece]] = {}
        # While there is one number, parts of different bands that touch, and the band above's last row, by places in
        # the list of pieces; -1 is background.
        self._has_one_number = True
        self._touching: list[NDArray[np.int32]] = []
        self._above: NDArray[np.int32] | None = None

    def add(self, top: int, labels: NDArray[np.integer[Any]]) -> None:
        """Add a band.

        Parameters
        ----------
        top
            Row of the plane that it begins at, where the one before ended.
        labels
            Object numbers (h, W); 0 is background.
        """
        from scipy import ndimage

        numbers, ranks = ranked(labels)
        found = [int(number) for number in numbers]
        # Several numbers distinguish the objects.
        self._has_one_number = self._has_one_number and len({*self.pieces, *found}) < 2
        if self._has_one_number:
            ranks, count = ndimage.label(ranks, np.ones((3, 3)))
            found *= count
            self._connect(ranks)
        for rank, window in enumerate(ndimage.find_objects(ranks), 1):
            rows, columns = window
            piece = Piece.of(ranks[window] == rank, columns.start, top + rows.start)
            self.pieces.setdefault(found[rank - 1], []).append(piece)

    def _connect(self, parts: NDArray[np.int32]) -> None:
        """Note which parts of a band, numbered from 1, touch those above over edges and corners."""
        before = sum(map(len, self.pieces.values()))
        first, last = (np.where(row > 0, row + np.int32(before - 1), np.int32(-1)) for row in (parts[0], parts[-1]))
        if self._above is not None:
            above = np.pad(self._above, 1, constant_values=-1)
            pairs = np.concatenate([[above[shift : shift + first.size], first] for shift in range(3)], axis=1)
            self._touching.append(np.unique(pairs[:, (pairs >= 0).all(axis=0)], axis=1))
        self._above = last

    def parts(self) -> list[list[Piece]]:
        """Return the pieces of each connected part, from the top, if all objects have the same number; else none."""
        if not self._has_one_number or not self.pieces:
            return []
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        (pieces,) = self.pieces.values()
        one, other = np.concatenate([np.zeros((2, 0), np.int32), *self._touching], axis=1)
        touching = coo_array((np.ones(one.size), (one, other)), shape=(len(pieces), len(pieces)))
        parts: dict[int, list[Piece]] = {}
        for part, piece in zip(connected_components(touching)[1].tolist(), pieces, strict=True):
            parts.setdefault(part, []).append(piece)
        return list(parts.values())


def objects_of(
    source: PixelSource, places: Iterable[tuple[int, int]], large: int, band: int = BAND, *, may_be_mask: bool
) -> Iterator[tuple[list[tuple[int, list[Piece]]], int]]:
    """Yield the objects of planes of labels by their numbers, in rising order, in pieces to be put together.

    The objects of a black-and-white mask are its connected parts, numbered through.

    Parameters
    ----------
    source
        What is read.
    places
        Slice and time point of each plane.
    large
        Pixels of a plane above which it is read in bands.
    band
        About the pixels of a band.
    may_be_mask
        False where other than by its content it is known that each number is an object.

    Yields
    ------
    tuple
        The objects, and the one number of a black-and-white mask that they are parts of; else 0.

    Raises
    ------
    InputError
        If the file cannot be read, or is no label image.
    """

    @cache  # each plane of a black-and-white stack asks it of the same number
    def is_mask(number: int) -> bool:
        return may_be_mask and has_one_number(source, number, large, band)

    for z, t in places:
        gathered = _Gathered()
        for top, labels in _bands_of(source, z, t, large, band):
            gathered.add(top, labels)
        parts, first = gathered.parts(), min(gathered.pieces, default=0)
        if len(parts) > 1 and is_mask(first):
            yield list(enumerate(parts, 1)), first
        else:
            yield sorted(gathered.pieces.items()), 0


def ranked(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the object numbers in rising order, and for each pixel which of them it is, from 1; 0 for background."""
    if labels.dtype.kind in "iu" and labels.size and labels.min() >= 0 and labels.max() <= _MOST_COUNTED:
        numbers = np.flatnonzero(np.bincount(labels.ravel().astype(np.intp)))
        numbers = numbers[numbers > 0]
        ranks = np.zeros(int(labels.max()) + 1, np.int32)
        ranks[numbers] = np.arange(1, numbers.size + 1)
        return numbers, ranks[labels]
    numbers, found = np.unique(labels, return_inverse=True)  # numbers up to 2**64 must be sorted, which takes longer
    is_object = numbers != 0
    ranks = np.where(is_object, np.cumsum(is_object), 0).astype(np.int32)
    return numbers[is_object], ranks[found.reshape(labels.shape)]


COUNTED = 1 << 22
"""About the pixels that are counted at once, which takes three times the memory of labels."""


class Bands:
    """The label image of one frame in bands, from top to bottom; each object has its id as value, background 0.

    Where objects overlap, the one with the higher score wins, of equal ones the earlier. An object that
    would be hidden altogether gets one pixel of its mask back, from the object there that has most pixels
    left; only when each of those is down to its last pixel does it stay hidden.

    Parameters
    ----------
    detections
        The objects of the frame.
    frame_shape
        ``(height, width)`` in pixels.
    ids
        Those of the objects, at most 2**32 - 1; left out, the n-th object has n.
    counted
        About the pixels that are counted at once.
    """

    def __init__(
        self,
        detections: Sequence[Detection],
        frame_shape: tuple[int, int],
        ids: Sequence[int] = (),
        counted: int = COUNTED,
    ) -> None:
        self._instances = [item.instance for item in detections]
        self._height, self._width = frame_shape
        self._boxes = boxes_of(self._instances)
        # A score that is not a finite number counts as the lowest.
        scores = [-item.score if math.isfinite(item.score) else math.inf for item in detections]
        self._order = np.argsort(scores, kind="stable")
        self._rank = np.argsort(self._order)
        self._values = np.array([0, *ids], np.uint32) if ids else None
        self._given: dict[tuple[int, int], int] = {}
        self._give_back(max(counted // max(self._width, 1), 1))

    def of(self, rows: int) -> Iterator[NDArray[np.uint32]]:
        """Yield uint32 (h, W), h = `rows` but for the last."""
        for places in self._places(rows):
            yield places if self._values is None else self._values[places]

    def _places(self, rows: int) -> Iterator[NDArray[np.uint32]]:
        """Return bands in which the n-th object has the value n."""
        return map(self._window, bands((0, 0, self._width, self._height), rows))

    def _window(self, box: Box) -> NDArray[np.uint32]:
        x0, y0, x1, y1 = box
        labels = np.zeros((y1 - y0, x1 - x0), np.uint32)
        inside = np.flatnonzero(sharing(self._boxes, box))
        for index in inside[np.argsort(-self._rank[inside])]:
            instance = self._instances[index]
            into, of = common_part(box, instance.box)
            labels[into][instance.data[of]] = index + 1
        for (row, column), value in self._given.items():
            if y0 <= row < y1 and x0 <= column < x1:
                labels[row - y0, column - x0] = value
        return labels

    def _give_back(self, rows: int) -> None:
        """Give each object that would be hidden one of its pixels back."""
        pixels = np.zeros(len(self._instances) + 1, np.int64)
        for band in self._places(rows):
            pixels += np.bincount(band.ravel(), minlength=len(pixels))
        for number in self._order.tolist():
            instance = self._instances[number]
            if pixels[number + 1] or not instance.data.any():
                continue
            window = self._window(instance.box)
            y, x = np.nonzero(instance.data)
            owners = window[y, x]
            richest = int(np.argmax(pixels[owners]))
            if pixels[owners[richest]] > 1:
                pixels[owners[richest]] -= 1
                pixels[number + 1] = 1
                self._given[instance.y0 + int(y[richest]), instance.x0 + int(x[richest])] = number + 1


def hidden_pixels(detections: Sequence[Detection], frame_shape: tuple[int, int], counted: int = COUNTED) -> int:
    """Return how many pixels of objects go to others in the label image of a frame; see :class:`Bands`."""
    rows = max(counted // max(frame_shape[1], 1), 1)
    painted = sum(int(np.count_nonzero(band)) for band in Bands(detections, frame_shape, counted=counted).of(rows))
    return sum(item.area for item in detections) - painted
