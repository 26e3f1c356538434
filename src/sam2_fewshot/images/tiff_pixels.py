"""Pixels of TIFF pages: planes of a series, or regions for which only the tiles or strips they need are decoded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.images.source import MAX_PIECE_BYTES
from sam2_fewshot.records import common_part

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tifffile import TiffFile, TiffPageSeries

    from sam2_fewshot.records import Box

_LONGEST_STRIP = 1 << 24
"""Pixels; a page in larger pieces than this gains nothing from being read by region."""
NAMED_AXES = "TZCSYX"
"""Axes with a meaning of their own; all others are taken as slices."""


def series_of(tif: TiffFile) -> list[TiffPageSeries]:
    """Return the series of pages of a file, with all of their axes, those of length one too."""
    every: Any = tif.series
    return list(every(squeeze=False) if callable(every) else every)


def axes_of(series: TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Return the axes of a series, a letter each, and its shape along them; see :func:`series_of`."""
    given: Any = series
    if hasattr(given, "get_axes"):  # tifffile before 2026.5.2
        return str(given.get_axes(squeeze=False)), tuple(int(n) for n in given.get_shape(squeeze=False))
    return str(given.axes), tuple(int(n) for n in given.shape)


class SeriesPixels:
    """The pixels of a series of pages, by slice, time point and channel.

    Parameters
    ----------
    series
        Of an open file.
    """

    def __init__(self, series: TiffPageSeries) -> None:
        self.series = series
        self.axes, self.shape = axes_of(series)
        self.memory: NDArray[Any] | None = None
        offset = series.dataoffset
        if offset is not None:
            holder = series.keyframe.parent
            dtype = np.dtype(series.dtype).newbyteorder(holder.byteorder)
            self.memory = np.memmap(holder.filehandle.path, dtype, "r", int(offset), self.shape)
        # Pages hold the trailing axes, all of them or some, but rows and columns in any case, also where they are one.
        last = min((self.axes.index(axis) for axis in "YX" if axis in self.axes), default=len(self.shape))
        self.split = next(
            (k for k in range(last, -1, -1) if math.prod(self.shape[k:]) == series.keyframe.size),
            None,
        )

    def size(self, kind: str) -> int:
        """Return the number of steps along the axes of a kind; Z stands for all axes without another meaning."""
        return math.prod(n for axis, n in zip(self.axes, self.shape, strict=True) if _kind(axis) == kind)

    def plane(self, z: int, t: int, c: int, box: Box | None = None) -> NDArray[Any]:
        """Return one channel or a region of it, (H, W) or, when pixels have several samples, (H, W, S).

        Parameters
        ----------
        z, t, c
            Slice, time point and channel, from 0.
        box
            ``(x0, y0, x1, y1)`` in pixels, half open, inside the plane; all of it when left out.

        Raises
        ------
        Exception
            Of any kind, if the file is damaged.
        """
        index: list[int | slice] = [slice(None)] * len(self.shape)
        for kind, position in (("Z", z), ("T", t), ("C", c)):
            places = [i for i, axis in enumerate(self.axes) if _kind(axis) == kind]
            if places:
                steps = np.unravel_index(position, [self.shape[i] for i in places])
                for i, step in zip(places, steps, strict=True):
                    index[i] = int(step)
        axes_left = "".join(axis for axis, at in zip(self.axes, index, strict=True) if isinstance(at, slice))
        if box is not None:
            x0, y0, x1, y1 = box
            index[self.axes.index("Y")], index[self.axes.index("X")] = slice(y0, y1), slice(x0, x1)
        pixels = np.asarray(self._block(index, box))
        order = [axes_left.index(axis) for axis in ("YXS" if "S" in axes_left else "YX")]
        pixels = pixels.transpose(order)
        return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))

    def _block(self, index: list[int | slice], box: Box | None) -> NDArray[Any]:
        if self.memory is not None:
            return self.memory[tuple(index)]
        split = self.split
        if split is None:
            raise ValueError("its pages do not have the size that its description says")
        number = 0
        for at, n in zip(index[:split], self.shape[:split], strict=True):
            if isinstance(at, slice):
                raise ValueError(f"its pages are ordered in an unknown way: {self.axes}")
            number = number * n + at
        page = self.series.pages[number] if number < len(self.series.pages) else None
        if page is None:  # a plane that OME-XML names and the file lacks
            return np.zeros(self.shape[split:], self.series.dtype)[tuple(index[split:])]
        file = page.parent.filehandle
        if file.closed:  # one of several files of a set, which tifffile keeps closed
            file.open()
            with file:
                return self._of_page(page, split, index, box)
        return self._of_page(page, split, index, box)

    def _of_page(self, page: Any, split: int, index: list[int | slice], box: Box | None) -> NDArray[Any]:
        axes, shape = self.axes[split:], list(self.shape[split:])
        is_plane = all(n == 1 for axis, n in zip(axes, shape, strict=True) if axis not in "YXS")
        if box is not None and is_plane and has_regions(page):
            pixels = read_region(page, box)
            for axis, size in (("Y", box[3] - box[1]), ("X", box[2] - box[0])):
                place = axes.index(axis)
                shape[place], index[split + place] = size, slice(None)
            return pixels.reshape(shape)[tuple(index[split:])]
        key = page.keyframe
        unpacked = math.prod(key.chunks) * np.dtype(key.dtype).itemsize
        if key.is_tiled and unpacked > max(MAX_PIECE_BYTES, key.nbytes):
            raise ValueError(f"its tiles unpack to {unpacked // 10**6:,} MB each, which is more than its pixels")
        whole: NDArray[Any] = page.asarray()
        return whole.reshape(shape)[tuple(index[split:])]


def _kind(axis: str) -> str:
    return axis if axis in NAMED_AXES else "Z"


def has_regions(page: Any) -> bool:
    """Tell whether a region of a page can be read without reading all of it.

    Parameters
    ----------
    page
        A :class:`tifffile.TiffPage` or a frame of one.
    """
    key = page.keyframe
    is_small = math.prod(_piece(key)) <= _LONGEST_STRIP
    return bool(key.imagedepth == 1 and is_small and len(page.dataoffsets) >= math.prod(_grid(key)) > 1)


def piece_rows(page: Any) -> int:
    """Return the height of a page's tiles or strips.

    Parameters
    ----------
    page
        As for :func:`has_regions`.
    """
    return _piece(page.keyframe)[0]


def read_region(page: Any, box: Box) -> NDArray[Any]:
    """Return a region of a page as stored, (h, w), (h, w, S), or (S, h, w) where each sample has planes of its own.

    Parameters
    ----------
    page
        As for :func:`has_regions`.
    box
        ``(x0, y0, x1, y1)`` in pixels, half open, inside the page.

    Raises
    ------
    Exception
        Of any kind, if a piece is damaged or cut off.
    """
    key = page.keyframe
    x0, y0, x1, y1 = box
    rows, columns = _piece(key)
    planes, down, across = _grid(key)
    samples = key.samplesperpixel // planes
    region = np.full((planes, y1 - y0, x1 - x0, samples), key.nodata or 0, key.dtype)
    file = page.parent.filehandle
    for plane in range(planes):
        for row in range(y0 // rows, -(-y1 // rows)):
            for column in range(x0 // columns, -(-x1 // columns)):
                index = (plane * down + row) * across + column
                offset, length = page.dataoffsets[index], page.databytecounts[index]
                if not length:  # left out of a sparse file
                    continue
                with file.lock:
                    file.seek(offset)
                    data = file.read(length)
                if len(data) < length:
                    raise ValueError(f"its end is missing: piece {index + 1} of {len(page.dataoffsets)} is cut off")
                decoded, _, shape = key.decode(data, index, jpegtables=key.jpegtables, jpegheader=key.jpegheader)
                piece = decoded.reshape(decoded.shape[-3:])[: shape[1], : shape[2]]
                top, left = row * rows, column * columns
                into, of = common_part(box, (left, top, left + piece.shape[1], top + piece.shape[0]))
                region[(plane, *into)] = piece[of]
    if planes > 1:
        return region[..., 0]
    return region[0] if samples > 1 else region[0, ..., 0]


def _piece(key: Any) -> tuple[int, int]:
    if key.is_tiled:
        return int(key.tilelength), int(key.tilewidth)
    return min(int(key.rowsperstrip or key.imagelength), int(key.imagelength)), int(key.imagewidth)


def _grid(key: Any) -> tuple[int, int, int]:
    """Return how many planes of samples a page has, and how many pieces down and across each."""
    rows, columns = _piece(key)
    planes = int(key.samplesperpixel) if int(key.planarconfig) == 2 else 1
    return planes, -(-int(key.imagelength) // rows), -(-int(key.imagewidth) // columns)
