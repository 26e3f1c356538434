"""The floor: what a threshold and a size range give without any network.

Grey values are smoothed a little and cut at the frame's own Otsu threshold (Otsu 1979). The examples say how large
the objects are, how far apart two centres must be at least, and on which side of the threshold they lie: the side on
which the examples themselves are found again with the larger sum of IoUs. Holes are filled, touching objects are split
by a watershed on the distance transform (Meyer's flooding, as in scikit-image), and parts between half the smallest
and twice the largest example are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.color import rgb2gray
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from sam2_fewshot.annotations.arrays import masks_of
from sam2_fewshot.geometry.overlap import mask_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Exemplar, InstanceMask

_SLACK = 2.0
# Of the examples' median radius: neighbours closer than this are one object.
_NEAREST_CENTRES = 0.7


class OtsuFloor:
    """Threshold, polarity, size range.

    Parameters
    ----------
    examples
        With masks, at least one.
    """

    def __init__(self, examples: Sequence[Exemplar]) -> None:
        masks = [example.mask for example in examples if example.mask is not None]
        if len(masks) < len(examples):
            raise ValueError("the floor learns from masks only")
        areas = [int(np.count_nonzero(mask)) for mask in masks]
        self.smallest, self.largest = min(areas) / _SLACK, max(areas) * _SLACK
        self.radius = float(np.sqrt(np.median(areas) / np.pi))
        self.bright = self._found_again(examples, bright=True) >= self._found_again(examples, bright=False)

    def find(self, image: NDArray[np.uint8]) -> list[InstanceMask]:
        """Return the objects of a frame (H, W) or (H, W, 3)."""
        return self._parts(_grey(image), self.bright)

    def _found_again(self, examples: Sequence[Exemplar], *, bright: bool) -> float:
        """Return the sum over the examples of the largest IoU with a part of their frame."""
        parts: dict[int, list[InstanceMask]] = {}
        total = 0.0
        for example in examples:
            if id(example.image) not in parts:
                parts[id(example.image)] = self._parts(_grey(example.image), bright)
            (own,) = [*dict(masks_of(np.asarray(example.mask))).values()]
            total += max((mask_iou(own, part) for part in parts[id(example.image)]), default=0.0)
        return total

    def _parts(self, grey: NDArray[np.float64], bright: bool) -> list[InstanceMask]:
        cut = _cut(grey)
        inside = grey > cut if bright else grey < cut
        inside = ndimage.binary_fill_holes(inside)
        depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), 1.0)
        parts, _ = ndimage.label(inside)
        apart = max(1, round(_NEAREST_CENTRES * self.radius))
        split: Any = peak_local_max  # scikit-image has no type hints
        peaks = split(depth, min_distance=apart, labels=parts, exclude_border=False)
        markers = np.zeros(grey.shape, np.int32)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        flood: Any = watershed
        labels = flood(-depth, markers, mask=inside)
        return [mask for mask in [*dict(masks_of(labels)).values()] if self.smallest <= mask.area <= self.largest]


def _grey(image: Any) -> NDArray[np.float64]:
    pixels = np.asarray(image)
    grey: NDArray[np.float64] = ndimage.gaussian_filter(rgb2gray(pixels) if pixels.ndim == 3 else pixels / 255, 1.0)
    return grey


def _cut(grey: NDArray[np.float64]) -> float:
    # A frame of one colour has no threshold, and nothing in it lies above or below.
    otsu: Any = threshold_otsu
    return float(otsu(grey)) if grey.max() > grey.min() else float(grey.max())
