"""What a frame shows without the backbone: its contrast, and where nothing stands out that could be an object.

Encoding is what takes longest, and on most of a sparse frame there is nothing to be found. Where every example stands
out from its surroundings, tiles in which all is far fainter than the faintest of them are not encoded. Brightness
differs between frames, so what is faint is measured by the frame's own contrast as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from sam2_fewshot.geometry.overlap import grown
from sam2_fewshot.methods.guided.maps import enlarge
from sam2_fewshot.tiling.tiles import halo_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import InstanceMask
    from sam2_fewshot.tiling.tiles import TileGrid

_FAINTER = 0.2
"""Objects this much fainter than the faintest example are looked for. On thirty tasks, with ten examples at random, the
largest or the most salient ones, no object lies in a tile that is left out, with .15 to .25 alike; measured by the
examples alone, a third of the electron micrographs' particles do."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """Planes of one frame, float32 (H, W) each.

    Parameters
    ----------
    contrast
        Brightness along the direction in which examples differ from their surroundings, smoothed, in units of its
        standard deviation on the examples' frames.
    local
        The same less its mean over a neighbourhood larger than an object.
    edges
        Magnitude of the contrast's gradient.
    """

    contrast: NDArray[np.float32]
    local: NDArray[np.float32]
    edges: NDArray[np.float32]


def measure(pixels: NDArray[np.uint8], colours: NDArray[np.float64], unit: float, diameter: float) -> Appearance:
    """Return the planes of a frame.

    Parameters
    ----------
    pixels
        uint8 RGB (H, W, 3).
    colours, unit, diameter
        As in :class:`~sam2_fewshot.methods.guided.model.GuidedModel`.
    """
    # One channel at a time: a product with all of them would copy the picture as 64-bit numbers.
    raw = np.zeros(pixels.shape[:2], np.float32)
    for channel, weight in enumerate((colours / unit).astype(np.float32)):
        raw += pixels[..., channel] * weight
    contrast = ndimage.gaussian_filter(raw, float(np.clip(diameter / 20, 0.6, 1.5)))
    return Appearance(
        contrast, contrast - local_mean(raw, 1.2 * diameter), ndimage.gaussian_gradient_magnitude(raw, 1.0)
    )


def local_mean(plane: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return a plane (H, W) smoothed by a wide Gaussian, computed on a reduced one and interpolated.

    With cells a sixth of `sigma` wide, the difference is below a thousandth of the plane's range nearly everywhere, and
    a hundredth at the border.
    """
    step = max(1, int(sigma / 6))
    height, width = plane.shape
    padded = np.pad(plane, [(0, -height % step), (0, -width % step)], mode="edge")
    cells = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).mean(axis=3).mean(axis=1)
    return enlarge(ndimage.gaussian_filter(cells, sigma / step), (height, width), step)


class Prominence(NamedTuple):
    """How far the examples stand out: the highest local contrast on each, over what is as wide as noise.

    Parameters
    ----------
    least, median
        Of the faintest example and of the median one, in the units of :class:`Appearance`. Where `least` is not above
        0, not every example stands out.
    """

    least: float
    median: float


NOT_PROMINENT = Prominence(0.0, 0.0)
"""Nothing is known of it, so every tile is encoded."""


def prominence_of(
    local: Sequence[NDArray[np.float32]], examples: Sequence[Sequence[InstanceMask]], diameter: float
) -> Prominence:
    """Return how far examples stand out.

    Parameters
    ----------
    local
        Of each frame, as in :class:`Appearance`.
    examples
        On each frame.
    diameter
        Typical diameter of an object in pixels.
    """
    highest = []
    for plane, masks in zip(local, examples, strict=True):
        smooth = _without_noise(plane, diameter) if masks else plane
        for mask in masks:
            highest.append(float(mask.under(smooth)[mask.data].max()))
    return Prominence(min(highest), float(np.median(highest))) if highest else NOT_PROMINENT


def tiles_with_something(
    local: NDArray[np.float32], grid: TileGrid, prominence: Prominence, diameter: float
) -> list[int]:
    """Return the numbers of the tiles in which something may be an object, in ascending order.

    Parameters
    ----------
    local
        Of the frame, as in :class:`Appearance`.
    grid
        Its tiles. What lies in their halos is looked at as well, so that no object is cut off.
    prominence
        Of the examples.
    diameter
        Typical diameter of an object in pixels.
    """
    cores = grid.cores()
    if prominence.least <= 0:
        return list(range(len(cores)))
    smooth = _without_noise(local, diameter)
    # On a frame with less contrast than the examples', the faintest example would be fainter in proportion.
    faintest = prominence.least * min(1.0, float(smooth.max()) / prominence.median)
    around = [grown(core, halo_of(grid.side), grid.frame_shape) for core in cores]
    highest = [smooth[y0:y1, x0:x1].max() for x0, y0, x1, y1 in around]
    return [number for number, value in enumerate(highest) if value >= _FAINTER * faintest]


def _without_noise(local: NDArray[np.float32], diameter: float) -> NDArray[np.float32]:
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(local, diameter / 6)
    return smooth
