"""Raw pixels from the server: each plane once, large ones in blocks, as the official client fetches them."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import ServerError
from sam2_fewshot.geometry.overlap import cells
from sam2_fewshot.records import common_part, whole_box
from sam2_fewshot.rendering.contrast import ChannelStyle, Limits, contrast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.records import Box

BLOCK = 4096
"""Longest side of what is fetched at a time, in pixels; the server draws a region as a whole in its memory."""
MEMORY = 1 << 30
"""Bytes of planes that are cached."""
_OVERVIEW = 2048
"""Longest side of what intensities of larger planes are measured on; the app's histogram is of this size."""
_FULL_RANGE = ChannelStyle(mode="range", black=0.0, white=100.0)
# What an array's pickle names. Anything else could run code here.
_ALLOWED = {
    (module, name)
    for core in ("numpy.core", "numpy._core")
    for module, name in [
        (f"{core}.multiarray", "_reconstruct"),
        (f"{core}.multiarray", "scalar"),
        (f"{core}.numeric", "_frombuffer"),
    ]
} | {("numpy", "ndarray"), ("numpy", "dtype")}

Key = tuple[tuple[int, ...], int, int]


class Planes:
    """The planes of one large image.

    Parameters
    ----------
    server
        The connection.
    item_id
        The item with the image.
    shape
        ``(height, width)`` of every plane in pixels.
    block
        Longest side of a block in pixels.
    memory
        Bytes of blocks that are cached; those used last stay.
    """

    def __init__(self, server: Server, item_id: str, shape: tuple[int, int], block: int, memory: int) -> None:
        self.shape = shape
        self._server = server
        self._path = f"item/{item_id}/tiles"
        self._block = block
        self._memory = memory
        self._cached: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._pixel_bytes = 1  # until the first block tells
        self._limits: dict[tuple[int, ChannelStyle], Limits | None] = {}

    @property
    def in_one(self) -> bool:
        """Whether a plane is a single block."""
        return max(self.shape) <= self._block

    def read(self, frames: Sequence[int], box: Box | None = None) -> NDArray[Any]:
        """Return the pixels of a box, of several frames their maximum.

        Parameters
        ----------
        frames
            Numbers of the frames, at least one.
        box
            ``(x0, y0, x1, y1)`` in pixels, half open, inside the plane; None for all of it.

        Returns
        -------
        NDArray
            (h, w), or (h, w, 3) where the image's pixels are colours, in the image's own dtype.

        Raises
        ------
        ServerError
            If they cannot be fetched.
        """
        x0, y0, x1, y1 = box or whole_box(self.shape)
        key = tuple(frames)
        if self.in_one:
            return self._get((key, 0, 0))[y0:y1, x0:x1]
        out: NDArray[Any] | None = None
        for top, left, part in self._parts(key, (x0, y0, x1, y1)):
            if out is None:
                out = np.zeros((y1 - y0, x1 - x0, *part.shape[2:]), part.dtype)
            into, of = common_part((x0, y0, x1, y1), (left, top, left + part.shape[1], top + part.shape[0]))
            out[into] = part[of]
        if out is None:
            raise ValueError(f"the box {box} holds no pixel")
        return out

    def _parts(self, frames: tuple[int, ...], box: Box) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Yield what covers a box, each part with its first row and column: blocks, or no more than the box itself.

        Blocks serve later reads too. Where those of one read do not fit into the memory they would all be fetched again
        for the next, so then they are not worth it.
        """
        x0, y0, x1, y1 = box
        side = self._block
        rows, columns = range(y0 // side, -(-y1 // side)), range(x0 // side, -(-x1 // side))
        if len(rows) * len(columns) * side**2 * self._pixel_bytes * (len(frames) + 1) <= self._memory:
            for row in rows:
                for column in columns:
                    yield row * side, column * side, self._get((frames, row, column))
            return
        for part in cells(box, side):
            yield part[1], part[0], reduce(np.maximum, (self._fetch_box(frame, part) for frame in frames))

    def limits(self, frame: int, style: ChannelStyle) -> Limits | None:
        """Return the black and white point of a frame as intensities, None when it has no finite value.

        In mode ``range`` they are rounded for integer pixels as the app rounds them, and those of planes beyond
        2048 pixels come from the server's histogram, which the app uses too.
        """
        if style.mode == "absolute":
            return style.black, style.white
        ends = ChannelStyle(mode="percentile", black=style.black, white=style.white)
        key = frame, ends if style.mode == "percentile" else _FULL_RANGE
        if key not in self._limits:
            self._limits[key] = self._measure(*key)
        found = self._limits[key]
        if found is None or style.mode == "percentile":
            return found
        low, high = found
        black, white = (low + share / 100 * (high - low) for share in (style.black, style.white))
        whole = float(low).is_integer() and float(high).is_integer() and high - low > 1
        # scaleLinear().rangeRound() in the app rounds halves up.
        return (float(np.floor(black + 0.5)), float(np.floor(white + 0.5))) if whole else (black, white)

    def _measure(self, frame: int, style: ChannelStyle) -> Limits | None:
        if self.in_one and (style.mode == "percentile" or max(self.shape) <= _OVERVIEW):
            return contrast(self.read([frame]), style)
        if style.mode == "range":
            # The very request of the app, so that its cached answer serves here too.
            query = {"frame": frame, "bins": 4096, "width": _OVERVIEW, "height": _OVERVIEW}
            answer = self._server.get(
                "reading an image's histogram",
                f"{self._path}/histogram",
                {**query, "resample": "false", "cache": "none"},
            )
            if answer:
                return float(answer[0]["min"]), float(answer[0]["max"])
        return contrast(self._fetch(frame, {"width": _OVERVIEW, "height": _OVERVIEW}, None), style)

    def _get(self, key: Key) -> NDArray[Any]:
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        frames, row, column = key
        if len(frames) == 1:
            height, width = self.shape
            top, left = row * self._block, column * self._block
            box = left, top, min(left + self._block, width), min(top + self._block, height)
            block = self._fetch_box(frames[0], box)
        else:
            block = reduce(np.maximum, (self._get(((frame,), row, column)) for frame in frames))
        self._cached[key] = block
        self._bytes += block.nbytes
        while self._bytes > self._memory and len(self._cached) > 1:
            self._bytes -= self._cached.popitem(last=False)[1].nbytes
        return block

    def _fetch_box(self, frame: int, box: Box) -> NDArray[Any]:
        left, top, right, bottom = box
        region = {} if self.in_one else {"left": left, "top": top, "right": right, "bottom": bottom}
        pixels = self._fetch(frame, region, (bottom - top, right - left))
        self._pixel_bytes = pixels.nbytes // ((bottom - top) * (right - left))
        return pixels

    def _fetch(self, frame: int, region: dict[str, int], shape: tuple[int, int] | None) -> NDArray[Any]:
        content = self._server.get_bytes(
            "reading an image", f"{self._path}/region", {"frame": frame, "encoding": "pickle:5", **region}
        )
        try:
            pixels = _ArrayUnpickler(io.BytesIO(content)).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError, ValueError, IndexError):
            pixels = None
        if not isinstance(pixels, np.ndarray) or pixels.ndim not in (2, 3) or not pixels.size:
            raise ServerError(f"The server's answer for frame {frame} of the image holds no pixels.")
        if shape is not None and pixels.shape[:2] != shape:
            raise ServerError(
                f"The server sent {pixels.shape[1]} × {pixels.shape[0]} pixels of frame {frame} of the image, but "
                f"{shape[1]} × {shape[0]} were asked for."
            )
        if pixels.ndim == 2:
            return pixels
        # One band is grey, two are grey and alpha, three and four are colours without and with alpha.
        return pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]


class _ArrayUnpickler(pickle.Unpickler):
    """Reads a NumPy array and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
