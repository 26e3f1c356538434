"""Parts of a TIFF page: only the tiles or strips that a region needs are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.records import Box

_LONGEST_STRIP = 1 << 24
"""Pixels; a page in larger pieces than this gains nothing from being read by region."""


def can_cut(page: Any) -> bool:
    """Tell whether a region of a page can be read without reading all of it.

    Parameters
    ----------
    page
        A :class:`tifffile.TiffPage` or a frame of one.
    """
    key = page.keyframe
    rows, columns = _piece(key)
    return bool(key.imagedepth == 1 and rows * columns <= _LONGEST_STRIP and len(page.dataoffsets) >= _count(key) > 1)


def piece_rows(page: Any) -> int:
    """Return the height of a page's tiles or strips.

    Parameters
    ----------
    page
        As for :func:`can_cut`.
    """
    return _piece(page.keyframe)[0]


def cut(page: Any, box: Box) -> NDArray[Any]:
    """Return a region of a page as stored, (h, w), (h, w, S), or (S, h, w) where its samples are stored apart.

    Parameters
    ----------
    page
        As for :func:`can_cut`.
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
    down, across = -(-key.imagelength // rows), -(-key.imagewidth // columns)
    apart = key.samplesperpixel if int(key.planarconfig) == 2 else 1
    together = key.samplesperpixel // apart
    region = np.full((apart, y1 - y0, x1 - x0, together), key.nodata or 0, key.dtype)
    file = page.parent.filehandle
    for sample in range(apart):
        for row in range(y0 // rows, -(-y1 // rows)):
            for column in range(x0 // columns, -(-x1 // columns)):
                index = (sample * down + row) * across + column
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
                a, b = max(top, y0), min(top + piece.shape[0], y1)
                c, d = max(left, x0), min(left + piece.shape[1], x1)
                region[sample, a - y0 : b - y0, c - x0 : d - x0] = piece[a - top : b - top, c - left : d - left]
    if apart > 1:
        return region[..., 0]
    return region[0] if together > 1 else region[0, ..., 0]


def _piece(key: Any) -> tuple[int, int]:
    if key.is_tiled:
        return int(key.tilelength), int(key.tilewidth)
    return min(int(key.rowsperstrip or key.imagelength), int(key.imagelength)), int(key.imagewidth)


def _count(key: Any) -> int:
    rows, columns = _piece(key)
    planes = key.samplesperpixel if int(key.planarconfig) == 2 else 1
    return int(-(-key.imagelength // rows) * -(-key.imagewidth // columns) * planes)
