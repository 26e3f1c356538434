"""Stored numbers → the 8-bit RGB that is segmented: planes, or regions whose contrast is that of the whole frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.channels import channel_styles
from sam2_fewshot.rendering import SAMPLES, ChannelStyle, Limits, contrast, merge, paint, photo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.images.channels import ChannelSetting
    from sam2_fewshot.images.source import Header, PixelSource, RegionSource
    from sam2_fewshot.records import Box
    from sam2_fewshot.settings import Settings

_PRIMARIES = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
_STRIP = 1 << 24
"""Pixels that are read together for the contrast of a plane without a pyramid."""


@dataclass(frozen=True, slots=True)
class DisplaySettings:
    """How an image becomes RGB: a photo as it is, everything else by its channels' styles."""

    styles: tuple[ChannelStyle, ...]
    as_photo: bool
    colored: bool
    black: float
    white: float


def display_of(header: Header, channels: Sequence[ChannelSetting], settings: Settings) -> DisplaySettings:
    """Decide how an image becomes RGB.

    Raises
    ------
    SettingsError
        If `channels` names a channel that the image does not have.
    """
    black, white = settings.black_percentile, settings.white_percentile
    # A palette that only brightens is a lookup table over intensities; others are the colours of a picture.
    colored = header.palette is not None and bool((np.diff(header.palette.astype(int), axis=0) < 0).any())
    is_photo = header.is_photo or colored
    if not is_photo:
        styles = channel_styles(header.channel_names, header.channel_colors, channels, black, white, header.path.name)
        return DisplaySettings(styles, False, colored, black, white)
    if not channels:
        return DisplaySettings((), True, colored, black, white)
    styles = channel_styles(("red", "green", "blue"), _PRIMARIES, channels, black, white, header.path.name)
    return DisplaySettings(styles, False, colored, black, white)


def compose(source: PixelSource, display: DisplaySettings, z: int, t: int, name: str) -> NDArray[np.uint8]:
    """Read a plane whole and make it RGB, uint8 (H, W, 3)."""
    planes = (as_intensities(plane, source.header, display.colored) for plane in source.planes(z, t))
    if display.as_photo:
        return photo(next(planes), display.black, display.white, name)
    return merge(_channels_of(planes), display.styles, name)


def compose_region(
    source: RegionSource, display: DisplaySettings, z: int, t: int, box: Box, limits: Sequence[Limits | None]
) -> NDArray[np.uint8]:
    """Read a region and make it RGB, uint8 (h, w, 3).

    Parameters
    ----------
    source, display, z, t
        What is read, and how it becomes RGB.
    box
        ``(x0, y0, x1, y1)`` in pixels.
    limits
        From :func:`frame_limits`.
    """
    planes = (as_intensities(plane, source.header, display.colored) for plane in source.region(z, t, box))
    canvas = np.zeros((box[3] - box[1], box[2] - box[0], 3), np.uint8)
    if display.as_photo:
        pixels = next(planes)
        if pixels.dtype == np.uint8:
            return np.ascontiguousarray(pixels)
        for component, color in enumerate(_PRIMARIES):
            if limits[0] is not None:
                paint(canvas, pixels[..., component], limits[0], color)
        return canvas
    for plane, style, ends in zip(_channels_of(planes), display.styles, limits, strict=True):
        if style.visible and ends is not None:
            paint(canvas, plane, ends, style.color)
    return canvas


def frame_limits(
    source: RegionSource, display: DisplaySettings, z: int, t: int, name: str
) -> tuple[Limits | None, ...]:
    """Return the black and white point of each channel of a frame, from an overview of it only.

    The overview is a level of the file's pyramid, or the pixels that :func:`~sam2_fewshot.rendering.contrast` would
    take of the whole plane, so that without a pyramid the limits are those of a plane read whole (in the mode
    ``range``: of these pixels).

    Parameters
    ----------
    source, display, z, t
        What is read, and how it becomes RGB.
    name
        What to call it in messages.

    Raises
    ------
    InputError
        If it cannot be read, or no visible channel has a finite value.
    """
    header = source.header
    if display.as_photo and header.dtype == np.uint8:
        return (None,)
    if all(style.mode == "absolute" for style in display.styles) and not display.as_photo:
        return tuple((style.black, style.white) for style in display.styles)
    samples = [as_intensities(plane, header, display.colored) for plane in _overview(source, z, t)]
    if display.as_photo:
        flat = samples[0].reshape(samples[0].shape[0], -1)
        found: tuple[Limits | None, ...] = (contrast(flat, ChannelStyle(black=display.black, white=display.white)),)
        visible = [True]
    else:
        found = tuple(
            contrast(plane, style) for plane, style in zip(_channels_of(samples), display.styles, strict=True)
        )
        visible = [style.visible for style in display.styles]
    if any(visible) and all(limits is None for limits, seen in zip(found, visible, strict=True) if seen):
        raise InputError(
            f"{name} has no finite value: all its pixels are NaN or infinite. Leave it out, or export it again."
        )
    return found


def _overview(source: RegionSource, z: int, t: int) -> list[NDArray[Any]]:
    reduced = source.reduced(z, t, SAMPLES)
    if reduced is not None:
        return list(reduced)
    height, width = source.header.height, source.header.width
    step = max(1, int(np.ceil(np.sqrt(height * width / SAMPLES))))
    rows = max(1, _STRIP // (width * step)) * step
    strips = [
        [np.ascontiguousarray(plane[::step, ::step]) for plane in source.region(z, t, (0, top, width, bottom))]
        for top in range(0, height, rows)
        for bottom in [min(top + rows, height)]
    ]
    return [np.concatenate(parts) for parts in zip(*strips, strict=True)]


def as_intensities(plane: NDArray[Any], header: Header, colored: bool) -> NDArray[Any]:
    """Turn stored numbers into intensities (H, W) or colours (H, W, 3)."""
    if header.palette is not None and colored:
        colors: NDArray[Any] = header.palette[np.minimum(plane, len(header.palette) - 1)]
        return colors
    if plane.dtype == bool:
        plane = plane.astype(np.uint8) * np.uint8(255)
    if header.is_inverted:
        return ~plane if plane.dtype.kind in "ui" else -plane
    return plane


def _channels_of(planes: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for plane in planes:
        if plane.ndim == 3:
            yield from (plane[..., component] for component in range(plane.shape[2]))
        else:
            yield plane
