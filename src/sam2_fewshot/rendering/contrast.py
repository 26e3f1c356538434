"""What is displayed as black and as white: percentiles of what a frame shows, also beside those of the examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import FrameReader

Color = tuple[int, int, int]
Limits = tuple[float, float]

WHITE: Color = (255, 255, 255)
SAMPLES = 1_000_000
"""About so many pixels of a plane, evenly spaced, are looked at for percentiles."""
_FEW = 10
"""On one side of an even background objects have at least this part (a tenth) of the other side's pixels."""
_NEARLY = 0.99
"""Share of the even pixels that are connected with the border where a frame is padded, and of the rest that is one
piece: dead pixels and dust may be even, too."""
_LARGE = 0.5
"""How much of a padded frame's height and width the image proper takes at least."""
_FEWEST = 0.001
"""Share of a frame below which what is padded decides no percentile."""
_FAR = 0.05
"""How far the value of what is padded lies from the others at least, in their own range (1st to 99th percentile). What
is nearer changes next to nothing."""
_BLENDED = 2
"""Pixels of a sample beside what is padded that are not counted: reduced or turned frames are blended with it there."""
_NEAR = 0.1
"""How far the ground may be from that of an example's frame, as a share of what is displayed of that."""


@dataclass(frozen=True, slots=True)
class ChannelStyle:
    """How a channel is displayed.

    Parameters
    ----------
    color
        RGB of full brightness, 0 to 255 each.
    mode
        What `black` and `white` mean. ``percentile``: percentiles of the plane's intensities (0 to 100);
        ``range``: percent of the way from the plane's lowest to its highest intensity, which is NimbusImage's
        "percentile"; ``absolute``: intensities themselves.
    black, white
        What is displayed as black and as full brightness.
    visible
        False leaves the channel out.
    """

    color: Color = WHITE
    mode: Literal["percentile", "range", "absolute"] = "percentile"
    black: float = 0.1
    white: float = 99.9
    visible: bool = True


def sample_step(size: int, pixels: int) -> int:
    """Return the n for which every n-th pixel each way is about so many of a plane; at least 1.

    All that samples for contrast goes by it, so that a frame looks the same whether it is read whole or in parts.

    Parameters
    ----------
    size
        Pixels of the plane.
    pixels
        How many of them are wanted at most, but for the rest of a division.
    """
    return max(1, math.ceil(math.sqrt(size / pixels)))


def contrast(
    plane: NDArray[Any], style: ChannelStyle, ends: Callable[[], Limits | None] | None = None
) -> Limits | None:
    """Return a plane's black and white point as intensities, None when it has no finite value.

    A plane is (H, W), or (H, W, 3) of a colour photo, of whose pixels the darkest component counts for black and the
    brightest one for white, so that no hue is cut off. Percentiles are those of an evenly spaced sample of about
    :data:`SAMPLES` pixels, so they are the same in every run. Where the sample's percentiles coincide, of a photo those
    of either component, because bright or dark objects on an even background fill less of the frame than lies beyond
    them, or where the sample has no finite value, the plane's lowest and highest intensity are taken; but none on a
    side where the sample has less than a tenth of the other side's pixels, since a dead pixel is no object. What lies
    beyond the image proper is not counted; see :func:`padding`.

    Parameters
    ----------
    plane, style
        What is displayed, and how.
    ends
        Gives the lowest and highest intensity where `plane` is but a sample of a larger one; asked only if they are
        needed. None: those of `plane`.
    """
    if style.mode == "absolute":
        return style.black, style.white
    black, white, below, above = 0.0, 0.0, 0, 0
    if style.mode == "percentile":
        darkest, brightest = _counted(plane)
        if darkest.size and brightest.size:
            of_darkest = _percentiles(darkest, style)
            of_brightest = of_darkest if brightest is darkest else _percentiles(brightest, style)
            black, white = of_darkest[0], of_brightest[1]
            if white > black and (of_darkest[1] > black or white > of_brightest[0]):
                return black, white
            below, above = int(np.count_nonzero(darkest < black)), int(np.count_nonzero(brightest > white))
    found = extremes(plane) if ends is None else ends()
    if found is None:
        return None
    low, high = found
    if style.mode == "percentile":
        return black if _FEW * below < above else low, white if _FEW * above < below else high
    with np.errstate(all="ignore"):
        return low + style.black / 100 * (high - low), low + style.white / 100 * (high - low)


class Exposure(NamedTuple):
    """How a plane was exposed, in its own intensities.

    Parameters
    ----------
    black, white
        Its black and white point; see :func:`contrast`.
    low, high
        The 1st and 99th percentile, of a photo that of the darkest and of the brightest component.
    ground, bright_ground
        The medians of these components, which are the same of a plane.

    All but the points are NaN where these are no percentiles, and such a plane is displayed by them.
    """

    black: float
    white: float
    low: float = math.nan
    high: float = math.nan
    ground: float = math.nan
    bright_ground: float = math.nan

    @property
    def limits(self) -> Limits:
        """The black and the white point."""
        return self.black, self.white

    def is_alike(self, example: Exposure) -> bool:
        """Whether the ground is about as bright as that of an example's frame."""
        near = _NEAR * (example.white - example.black)
        return abs(self.ground - example.ground) <= near and abs(self.bright_ground - example.bright_ground) <= near


Exposures = tuple[Exposure | None, ...]
"""Of a frame's channels, or of a photo; None for a channel without a finite value, and for one that is left out."""


def exposure(
    plane: NDArray[Any], style: ChannelStyle, ends: Callable[[], Limits | None] | None = None
) -> Exposure | None:
    """Return how a plane was exposed, None when it has no finite value; parameters as those of :func:`contrast`."""
    limits = contrast(plane, style, ends)
    if limits is None or style.mode != "percentile":
        return None if limits is None else Exposure(*limits)
    darkest, brightest = (values.astype(float) for values in _counted(plane))
    if not (darkest.size and brightest.size):
        return Exposure(*limits)
    low, ground = np.percentile(darkest, (1, 50))
    bright_ground, high = np.percentile(brightest, (50, 99))
    return Exposure(*limits, float(low), float(high), float(ground), float(bright_ground))


def bounded(own: Exposures, examples: Sequence[Exposures]) -> tuple[Limits | None, ...]:
    """Return the black and white point of each channel, where a few odd pixels must not decide them.

    A speck of dirt or a scale bar that covers half a percent of a frame, and is brighter than all objects, makes them
    dim. Where the ground is as bright as on the examples' frames, such as of one series, what exceeds the brightest
    of these is displayed as white, up to a hundredth of the frame; and what is darker than the darkest as black.

    Parameters
    ----------
    own
        Of a frame.
    examples
        Of the examples' frames. Those with other channels tell nothing.
    """
    found: list[Limits | None] = []
    for number, plane in enumerate(own):
        others = [each[number] for each in examples if len(each) == len(own)]
        alike = [other for other in others if plane and other and plane.is_alike(other)]
        if plane is None or not alike:
            found.append(plane and plane.limits)
            continue
        black = max(plane.black, min(plane.low, *(other.black for other in alike)))
        white = min(plane.white, max(plane.high, *(other.white for other in alike)))
        # On even ground, of which the examples' frames may show less, nothing may be left between them.
        found.append((black, white) if white > black else plane.limits)
    return tuple(found)


def exposures_of(frame: object) -> Exposures:
    """Return how a frame was exposed; nothing where its reader does not know it, as :func:`displayed_as` says."""
    found: Exposures = getattr(frame, "exposures", ()) if hasattr(frame, "displayed_as") else ()
    return found


def displayed_as(frame: FrameReader, examples: Sequence[Exposures]) -> FrameReader:
    """Return a frame as it is searched beside the examples' frames; see :func:`bounded`.

    Readers that know intensities have a method of this name, and a property ``exposures``; others stay as they are.
    """
    method = getattr(frame, "displayed_as", None)
    found: FrameReader = method(examples) if method and examples else frame
    return found


def _counted(plane: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the darkest and the brightest component of sampled pixels, flat, that are finite and no padding."""
    step = sample_step(plane.shape[0] * plane.shape[1], SAMPLES)
    sample = plane[::step, ::step]
    both = [choose.reduce(sample, axis=2) for choose in (np.fmin, np.fmax)] if plane.ndim == 3 else [sample]
    beyond = padding(both[0], both[-1])
    values = [_finite(each if beyond is None else each[~beyond]) for each in both]
    return values[0], values[-1]


def padding(darkest: NDArray[Any], brightest: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where a frame holds nothing, as around one that was turned, registered or stitched; None for nowhere.

    There it has its lowest or its highest value, far from all others. All of it is connected with the border, and the
    rest is one large piece, and not even itself: even ground has several objects on it, or a smaller one, and saturated
    objects lie within. If it counted, the camera's offset would be displayed as light, or white ground as grey, and the
    frame would look unlike those without padding.

    Parameters
    ----------
    darkest, brightest
        (H, W), the darkest and the brightest component of each pixel; of a plane both are its values.

    Returns
    -------
    NDArray or None
        Boolean (H, W).
    """
    found: NDArray[np.bool_] | None = None
    for values, end, even in ((darkest, np.fmin, brightest), (brightest, np.fmax, darkest)):
        value = float(end.reduce(values, axis=None))
        outside = _at_border(even == value)
        if np.count_nonzero(outside) <= outside.size * _FEWEST or not _is_large(~outside):
            continue
        outside = ndimage.binary_dilation(outside, iterations=_BLENDED)
        pieces, _ = ndimage.label(~outside, np.ones((3, 3)))
        inside = _finite(values[~outside])
        if not inside.size or np.bincount(pieces.ravel())[1:].max() < _NEARLY * np.count_nonzero(pieces):
            continue
        low, high = np.percentile(inside.astype(float), (1, 99))
        if high > low and min(abs(low - value), abs(high - value)) > _FAR * (high - low):
            found = outside if found is None else found | outside
    return found


def _is_large(shown: NDArray[np.bool_]) -> bool:
    """Tell whether what is shown takes much of the frame's height and width."""
    extents = [np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0)]
    return all(
        len(extent) and extent[-1] - extent[0] + 1 >= _LARGE * side
        for extent, side in zip(extents, shown.shape, strict=True)
    )


def _at_border(even: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pieces that reach the border (H, W), if they hold nearly all; nothing otherwise."""
    pieces, count = ndimage.label(even)
    reaches = np.zeros(count + 1, bool)
    for edge in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        reaches[edge] = True
    reaches[0] = False
    outside: NDArray[np.bool_] = reaches[pieces]
    return outside if np.count_nonzero(outside) >= _NEARLY * np.count_nonzero(even) else np.zeros_like(outside)


def extremes(plane: NDArray[Any]) -> Limits | None:
    """Return a plane's lowest and highest intensity, None when it has no finite value."""
    values = _finite(plane)
    return (float(values.min()), float(values.max())) if values.size else None


def _percentiles(values: NDArray[Any], style: ChannelStyle) -> Limits:
    with np.errstate(all="ignore"):
        black, white = np.percentile(values.astype(float), [style.black, style.white])
    return float(black), float(white)


def _finite(plane: NDArray[Any]) -> NDArray[Any]:
    return plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane.ravel()
