"""A backbone without a network: a few fixed filters for features, and thresholds of the brightness for prompts.

It stands in for SAM 2 in tests, where it gives the same answers on every machine within milliseconds, and it is the
example of a second backbone. It detects plain objects on a plain ground; it is not for real images.

Features: the colours, the contrast to the neighbourhood and the gradient's magnitude, averaged over cells of 2 pixels
of the input; and, over cells of 8, the colours and a wider contrast. Prompts: the window's brightness is thresholded
at three levels; a point's masks are the connected regions above or below each level that hold it, and a box's mask is
the region whose bounding box is most like it.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from sam2_fewshot.errors import SettingsError
from sam2_fewshot.protocols import Gates, PromptedMasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, InstanceMask
    from sam2_fewshot.settings import Settings

_INPUT = 128
"""px; side of the input."""
_STRIDES, _CHANNELS = (2, 8), (5, 4)
_NEAR, _WIDE = 11, 49
"""px of the input; widths of the neighbourhoods to which contrasts are taken at the two levels of the pyramid."""
_SMOOTHING = 1.0
"""px; standard deviation of the Gaussian that smooths the brightness before it is thresholded."""
_LEVELS = (0.3, 0.5, 0.7)
"""Thresholds, as shares of the way from the darkest to the brightest place of the window."""
_MARGIN = 6.0
"""Grey levels by which the brightness must differ from a threshold for a pixel to be sure of its side."""
_GATES = Gates(predicted_iou=0.5, stability=0.5)
_PER_PIXEL = 16
"""Bytes that an embedding takes for a pixel of its window, with the labels of the three levels."""


def open_model(name: str | os.PathLike[str], device: str, settings: Settings) -> FilterBackbone:
    """Return the backbone; it has no weights, and no use for the settings.

    Raises
    ------
    SettingsError
        If another device than the CPU is asked for.
    """
    if device not in ("auto", "cpu"):
        raise SettingsError(
            f"The device is {device!r}, but {os.fspath(name)} computes on the CPU only; choose cpu or auto."
        )
    return FilterBackbone()


def expected_bytes(name: str | os.PathLike[str]) -> int:
    """Return 0: it takes less memory than SAM 2's embedded checkpoint."""
    return 0


class _Level(NamedTuple):
    """Regions of a window at one threshold: those above it and those below it, each connected.

    Parameters
    ----------
    labels
        int32 (h, w), number of the region of each pixel, from 0.
    places
        Rows and columns of each region's bounding box.
    boxes
        int64 (R, 4), the same as ``(x0, y0, x1, y1)``.
    predicted_iou, stability
        float64 (R,): how far the brightness lies from the threshold, and the share of sure pixels.
    """

    labels: NDArray[np.int32]
    places: list[tuple[slice, slice]]
    boxes: NDArray[np.int64]
    predicted_iou: NDArray[np.float64]
    stability: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FilterEmbedding:
    """A window, and its regions once they are asked for.

    Parameters
    ----------
    pixels
        uint8 RGB (h, w, 3).
    """

    pixels: NDArray[np.uint8]

    @property
    def frame_shape(self) -> tuple[int, int]:
        """``(height, width)`` of the window in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def resized(self, frame_shape: tuple[int, int]) -> FilterEmbedding:
        """Return the same for masks of another size; see :class:`~sam2_fewshot.protocols.Embedding`."""
        picture = Image.fromarray(self.pixels).resize(frame_shape[::-1], Image.Resampling.BILINEAR)
        return FilterEmbedding(np.asarray(picture))

    @cached_property
    def levels(self) -> list[_Level]:
        """The regions at each threshold."""
        grey = ndimage.gaussian_filter(self.pixels.mean(axis=2, dtype=np.float32), _SMOOTHING)
        low, high = float(grey.min()), float(grey.max())
        return [_regions(grey, low + share * (high - low)) for share in _LEVELS]


def _regions(grey: NDArray[np.float32], threshold: float) -> _Level:
    above = grey > threshold
    labels, count = ndimage.label(above)
    below, more = ndimage.label(~above)
    labels = np.where(above, labels, below + count).astype(np.int32) - 1
    areas = np.bincount(labels.ravel(), minlength=count + more)
    distance = np.abs(grey - threshold).ravel()
    mean = np.bincount(labels.ravel(), distance, count + more) / areas
    sure = np.bincount(labels.ravel(), distance > _MARGIN, count + more) / areas
    places = ndimage.find_objects(labels + 1)
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in places], np.int64).reshape(-1, 4)
    return _Level(labels, places, boxes, mean / (mean + _MARGIN), sure)


@dataclass(frozen=True, eq=False)
class FilterTile:
    """The feature pyramid of a window; see :class:`~sam2_fewshot.protocols.Tile`.

    Parameters
    ----------
    pyramid
        (5, s, s) and (4, s / 4, s / 4).
    embedding
        For prompts in this window.
    """

    pyramid: tuple[NDArray[np.floating], ...]
    embedding: FilterEmbedding

    @property
    def level_bytes(self) -> int:
        """Memory of the pyramid in bytes."""
        return sum(level.nbytes for level in self.pyramid)

    def shortened(self) -> FilterTile:
        """Return the tile with a pyramid of half the precision."""
        return replace(self, pyramid=tuple(level.astype(np.float16) for level in self.pyramid))

    def features(self, halo: int, cells: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return both levels at cells of the finer one, each coarse cell repeated; see the protocol."""
        return self._enlarged(halo)[:, cells].T

    def _enlarged(self, halo: int) -> NDArray[np.float32]:
        side = self.pyramid[0].shape[-1]
        inside = slice(halo, side - halo)
        enlarged = [
            level.repeat(side // level.shape[-1], axis=1).repeat(side // level.shape[-1], axis=2)
            for level in self.pyramid
        ]
        return np.concatenate(enlarged)[:, inside, inside].astype(np.float32)

    def maps(
        self,
        halo: int,
        centres: NDArray[np.float32],
        weights: NDArray[np.float32],
        directions: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return linear maps of the features, and their cosines to directions at each level."""
        centred = self._enlarged(halo) - centres[:, None, None]
        planes = [np.einsum("nc,chw->nhw", weights, centred)]
        start = 0
        for level in self.pyramid:
            here = slice(start, start := start + len(level))
            length = np.linalg.norm(centred[here], axis=0)
            planes.append(np.einsum("nc,chw->nhw", directions[:, here], centred[here]) / np.maximum(length, 1e-6))
        return np.stack(planes, axis=1)


class FilterBackbone:
    """See the module; it is a :class:`~sam2_fewshot.protocols.Backbone`."""

    name = "filters"
    gates = _GATES
    device_name = "CPU"
    on_cpu = True
    input_size = _INPUT
    strides = _STRIDES
    channels = _CHANNELS
    embedding_bytes = _PER_PIXEL * _INPUT**2
    extra_bytes = 0

    @cached_property
    def sha256(self) -> str:
        """Hash of this module: what it computes is written here, and in no weights."""
        return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()

    def embed(self, image: NDArray[np.uint8]) -> FilterEmbedding:
        """Encode an image, uint8 RGB (H, W, 3), for prompts."""
        return FilterEmbedding(image)

    def tiles(
        self,
        image: NDArray[np.uint8],
        windows: Sequence[Box],
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> Iterator[FilterTile]:
        """Encode square windows of an image, uint8 RGB (H, W, 3), one after the other."""
        for window in windows:
            pixels = _mirrored(image, window)
            yield FilterTile(_pyramid(pixels), FilterEmbedding(pixels))
            on_batch(1)

    def pool(
        self,
        image: NDArray[np.uint8],
        windows: Sequence[Box],
        masks: Sequence[InstanceMask],
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> NDArray[np.float32]:
        """Encode a window for each mask and average its features, float32 (N, 9), over the mask."""
        vectors = np.empty((len(masks), sum(_CHANNELS)), np.float32)
        for i, (window, mask) in enumerate(zip(windows, masks, strict=True)):
            vectors[i] = _mean(_pyramid(_mirrored(image, window)), mask.window(window))
            on_batch(1)
        return vectors

    def pool_frame(self, image: NDArray[np.uint8], masks: Sequence[InstanceMask]) -> NDArray[np.float32]:
        """Encode the image once and average its features, float32 (N, 9), over each mask."""
        pyramid = _pyramid(image)
        vectors = [_mean(pyramid, mask.full()) for mask in masks]
        return np.array(vectors, np.float32).reshape(-1, sum(_CHANNELS))

    def prompt(
        self,
        embedding: FilterEmbedding,
        coordinates: NDArray[np.float32],
        *,
        iou_gate: float = -math.inf,
        stability_gate: float = 0.0,
        reach: float = math.inf,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> PromptedMasks:
        """Return the regions that hold each point, at each threshold, as far as they pass both gates."""
        height, width = embedding.frame_shape
        columns, rows = ((coordinates + 0.5) * (width / _INPUT, height / _INPUT)).astype(int).T
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        found = []
        for level in embedding.levels:
            regions = level.labels[rows, columns]
            passed = (level.predicted_iou[regions] > iou_gate) & (level.stability[regions] >= stability_gate)
            found += [(int(i), level, int(regions[i])) for i in np.flatnonzero(passed)]
        on_batch(len(coordinates))
        return _masks(sorted(found, key=lambda item: item[0]))

    def prompt_boxes(self, embedding: FilterEmbedding, boxes: NDArray[np.float32]) -> PromptedMasks:
        """Return for each box the region whose bounding box has the highest IoU with it, if any has one."""
        height, width = embedding.frame_shape
        scaled = boxes * (np.array([width, height, width, height]) / _INPUT)
        found = []
        for i, box in enumerate(scaled):
            ious = [_box_ious(box, level.boxes) for level in embedding.levels]
            best = max(range(len(ious)), key=lambda number: ious[number].max())
            region = int(ious[best].argmax())
            if ious[best][region] > 0:
                found.append((i, embedding.levels[best], region))
        return _masks(found)


def _mirrored(image: NDArray[np.uint8], window: Box) -> NDArray[np.uint8]:
    """Cut a window ``(x0, y0, x1, y1)`` from (H, W, 3); what lies beyond the image is its mirror image."""
    x0, y0, x1, y1 = window
    rows, columns = (
        np.pad(np.arange(size), (max(0, -start), max(0, stop - size)), mode="reflect")[max(0, start) :][: stop - start]
        for start, stop, size in ((y0, y1, image.shape[0]), (x0, x1, image.shape[1]))
    )
    return image[rows][:, columns]


def _pyramid(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.floating], ...]:
    """Return the levels, float32 (5, 64, 64) and (4, 16, 16), of a window (h, w, 3); colours go from -1 to 1."""
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize((_INPUT, _INPUT), Image.Resampling.BILINEAR)
    colours = np.moveaxis(np.asarray(resized, np.float32) / 127.5 - 1, 2, 0)
    grey = colours.mean(axis=0)
    edges = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    near, wide = (grey - ndimage.uniform_filter(grey, size) for size in (_NEAR, _WIDE))
    return _cells([*colours, near, edges], _STRIDES[0]), _cells([*colours, wide], _STRIDES[1])


def _cells(planes: Sequence[NDArray[np.float32]], stride: int) -> NDArray[np.float32]:
    """Average planes (S, S) over square cells; returns (C, S / stride, S / stride)."""
    count = _INPUT // stride
    cells: NDArray[np.float32] = np.stack(planes).reshape(-1, count, stride, count, stride).mean(axis=(2, 4))
    return cells


def _mean(pyramid: Sequence[NDArray[np.floating]], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Average each level over the cells of a mask (h, w) of its window, weighted by the share that lies on it."""
    parts = []
    for level in pyramid:
        size = level.shape[-1]
        share = np.asarray(Image.fromarray(inside.astype(np.float32)).resize((size, size), Image.Resampling.BOX))
        weights = share if share.any() else np.ones_like(share)
        parts.append((level * weights).sum(axis=(1, 2)) / weights.sum())
    return np.concatenate(parts)


def _masks(found: Sequence[tuple[int, _Level, int]]) -> PromptedMasks:
    """Return regions, each with the number of its prompt. Prompts in the same region share its array."""
    regions: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for _, level, region in found:
        if (id(level), region) not in regions:
            regions[id(level), region] = level.labels[level.places[region]] == region
    return PromptedMasks(
        np.array([prompt for prompt, _, _ in found], np.int64),
        np.array([level.predicted_iou[region] for _, level, region in found], np.float64),
        np.array([level.stability[region] for _, level, region in found], np.float64),
        np.array([level.boxes[region] for _, level, region in found], np.int64).reshape(-1, 4),
        [regions[id(level), region] for _, level, region in found],
    )


def _box_ious(box: NDArray[np.float64], others: NDArray[np.int64]) -> NDArray[np.float64]:
    shared = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0).prod(axis=1)
    ious: NDArray[np.float64] = shared / (
        (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    )
    return ious
