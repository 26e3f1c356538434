"""Outlines of single objects, one after the other: the embeddings are kept, so that each further prompt is quick."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.examples.points import (
    APPEARANCE,
    Alternatives,
    PointMask,
    agreeing,
    appearance,
    fit_of,
    input_scale,
    masks_of,
    may_be_at,
    spread_of,
    whole_ones,
)
from sam2_fewshot.geometry.outlines import largest_part
from sam2_fewshot.geometry.overlap import intersect
from sam2_fewshot.records import whole_box
from sam2_fewshot.storage.digests import pixels_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.records import Box, FrameReader, InstanceMask

_SIDES = (2.0, 0.5)
"""Sides of the windows that a point is prompted in, in sides of the backbone's input: one for large objects, and one in
which small objects are enlarged. On the bundled image a wider choice outlined no better."""
_AROUND = 2.0
"""A box is prompted in a window of at least so many times its longer side."""
_KEPT = 64


class Outliner:
    """Outlines what lies under a point or in a box of a frame.

    Windows lie on a grid of half their side, so that nearby prompts share them.

    Parameters
    ----------
    backbone
        Encodes windows and decodes the prompts.
    kept
        The embeddings of so many windows are kept, those that were used last.
    """

    def __init__(self, backbone: Backbone, kept: int = _KEPT) -> None:
        self._backbone, self._kept = backbone, kept
        self._held: OrderedDict[tuple[Box, bytes], tuple[NDArray[np.uint8], Any]] = OrderedDict()

    def at_point(
        self, frame: FrameReader, point: tuple[float, float], outlined: Sequence[InstanceMask] = ()
    ) -> InstanceMask | None:
        """Return the mask under a point; None where there is no object.

        Parameters
        ----------
        frame
            The frame. Its pixels are read to know them again, if it has no method ``stamp`` that stands for a region's.
        point
            ``(x, y)`` in image pixels, inside the frame.
        outlined
            Masks of the frame that were right; of the masks that the point may mean the one is taken that agrees with
            them in size and contrast, see :func:`~sam2_fewshot.examples.points.agreeing`.

        Raises
        ------
        InputError
            If the frame cannot be read.
        """
        encoded = {window: self._encoded(frame, window) for window in self._windows(frame, point)}
        proposed: list[PointMask] = []
        for window, (_, embedding) in encoded.items():
            # In image pixels a pixel's centre has the fraction .5, in prompts it is a whole number.
            at = self._in_input(window, point) - 0.5
            answer = self._backbone.prompt(embedding, at.reshape(1, 2))
            proposed += [
                item for _, item in masks_of(answer, window, frame.shape) if may_be_at(point, item.mask, window)
            ]
        if not proposed:
            return None
        found = whole_ones(proposed)
        widest, (pixels, _) = next(iter(encoded.items()))
        spread = spread_of(pixels)

        def appearances(masks: Sequence[InstanceMask]) -> NDArray[np.float64]:
            local = [part for mask in masks if (part := mask.within(widest)) and part.area == mask.area]
            return np.array([appearance(mask, pixels, spread) for mask in local]).reshape(-1, APPEARANCE)

        alternatives = Alternatives(
            appearances([item.mask for item in found]),
            np.array([item.predicted_iou for item in found]),
            np.zeros(len(found), bool),
        )
        return largest_part(found[agreeing([alternatives], appearances(outlined))[0]].mask)

    def in_box(self, frame: FrameReader, box: tuple[float, float, float, float]) -> InstanceMask | None:
        """Return the mask of the object that fits a box ``(x0, y0, x1, y1)`` in image pixels; None where there is none.

        Raises
        ------
        InputError
            If the frame cannot be read.
        """
        inside = intersect(box, whole_box(frame.shape))
        if inside is None:
            return None
        x0, y0, x1, y1 = inside
        side = self._backbone.input_size * _SIDES[1]
        while side < _AROUND * max(x1 - x0, y1 - y0):
            side *= 2
        window = _window(((x0 + x1) / 2, (y0 + y1) / 2), round(side), frame.shape)
        corners = np.concatenate([self._in_input(window, corner) for corner in ((x0, y0), (x1, y1))])
        answer = self._backbone.prompt_boxes(self._encoded(frame, window)[1], corners.reshape(1, 4))
        found = [item.mask for _, item in masks_of(answer, window, frame.shape)]
        return largest_part(found[0]) if found and fit_of(found[0], (x0, y0, x1, y1)) else None

    def prepare(self, frame: FrameReader, region: Box) -> Iterator[None]:
        """Encode ahead what points in a region will need, a window at a time, as far as that is kept."""
        x0, y0, x1, y1 = region
        step = max(1, round(self._backbone.input_size * _SIDES[1] / 2))
        rows, columns = (range(begin // step * step, end + step, step) for begin, end in ((y0, y1), (x0, x1)))
        points = [(x, y) for y in rows for x in columns]
        ahead = list(dict.fromkeys(window for point in points for window in self._windows(frame, point)))
        for window in ahead[: self._kept // 2]:
            self._encoded(frame, window)
            yield

    def _windows(self, frame: FrameReader, point: tuple[float, float]) -> list[Box]:
        """Return the windows that a point is prompted in, the widest first."""
        sides = [round(share * self._backbone.input_size) for share in _SIDES]
        return list(dict.fromkeys(_window(point, side, frame.shape) for side in sides))

    def _encoded(self, frame: FrameReader, window: Box) -> tuple[NDArray[np.uint8], Any]:
        """Return a window's pixels, uint8 RGB (h, w, 3), and its embedding."""
        # Known by the pixels, since those of an array may be changed in place.
        stamp: Any = getattr(frame, "stamp", None)
        pixels = frame.read(window) if stamp is None else None
        key = window, stamp(window) if pixels is None else pixels_digest(pixels)
        if key not in self._held:
            if pixels is None:
                pixels = frame.read(window)
            self._held[key] = pixels, self._backbone.embed(pixels)
            if len(self._held) > self._kept:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]

    def _in_input(self, window: Box, point: tuple[float, float]) -> NDArray[np.float32]:
        """Return a point of the image in pixels of the backbone's input that shows a window, float32 (2,)."""
        scaled: NDArray[np.float64] = (np.array(point) - window[:2]) * input_scale(window, self._backbone.input_size)
        return scaled.astype(np.float32)


def _window(point: tuple[float, float], side: int, frame_shape: tuple[int, int]) -> Box:
    """Return the window of a grid of half its side that has a point nearest to its middle."""
    height, width = frame_shape

    def span(at: float, length: int) -> tuple[int, int]:
        if side >= length:
            return 0, length
        step = max(1, side // 2)
        begin = min(max(round((at - side / 2) / step) * step, 0), length - side)
        return begin, begin + side

    (x0, x1), (y0, y1) = span(point[0], width), span(point[1], height)
    return x0, y0, x1, y1
