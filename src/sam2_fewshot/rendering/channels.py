"""From channels, or a caller's array, to the 8-bit RGB that is searched and displayed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.records import Frame, FrameReader
from sam2_fewshot.rendering.contrast import ChannelStyle, bounded, contrast, exposure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Box
    from sam2_fewshot.rendering.contrast import Color, Exposures, Limits
    from sam2_fewshot.settings import Settings

_PAINTED = 1 << 22


def merge(
    planes: Iterable[NDArray[Any]],
    styles: Sequence[ChannelStyle],
    name: str = "The image",
    limits: Sequence[Limits | None] | None = None,
) -> NDArray[np.uint8]:
    """Merge channels into one RGB picture.

    Parameters
    ----------
    planes
        Arrays (H, W) of any real or boolean dtype, one a style; an iterator keeps only one in memory. At
        least one.
    styles
        How to display each.
    name
        What to call the image in messages.
    limits
        The black and white point of each, where the planes are a region of a larger frame. None: their own.

    Returns
    -------
    NDArray
        uint8 (H, W, 3). A channel whose white point is not above its black point, such as a constant
        one, stays black. NaN is black.

    Raises
    ------
    InputError
        If there are visible channels and none of them has a finite value.
    """
    canvas: NDArray[np.uint8] | None = None
    visible = finite = 0
    for number, (plane, style) in enumerate(zip(planes, styles, strict=True)):
        if canvas is None:
            canvas = np.zeros((*plane.shape, 3), np.uint8)
        if not style.visible:
            continue
        visible += 1
        ends = contrast(plane, style) if limits is None else limits[number]
        if ends is not None:
            finite += 1
            paint(canvas, plane, ends, style.color)
    if canvas is None:
        raise ValueError("merge needs at least one plane")
    if visible and not finite:
        raise no_finite_value(name)
    return canvas


def photo(
    pixels: NDArray[Any],
    black: float = 0.1,
    white: float = 99.9,
    name: str = "The image",
    limits: Limits | None = None,
) -> NDArray[np.uint8]:
    """Display a colour photo (H, W, 3) in 8 bits.

    It is scaled between the `black` and `white` percentiles, or between the `limits` of the larger frame, all three
    components alike, so that the hues stay. A picture that was displayed so before stays as it is, and a grey one
    becomes what it becomes as a plane.

    Raises
    ------
    InputError
        If no pixel is finite.
    """
    limits = limits or contrast(pixels, ChannelStyle(black=black, white=white))
    if limits is None:
        raise no_finite_value(name)
    canvas = np.zeros(pixels.shape, np.uint8)
    for component in range(3):
        tint = (255 * (component == 0), 255 * (component == 1), 255 * (component == 2))
        paint(canvas, pixels[..., component], limits, tint)
    return canvas


def no_finite_value(name: str) -> InputError:
    """Return the error about an image, a frame or an array in which there is nothing to show."""
    return InputError(
        f"{name} has no finite value: all its pixels are NaN or infinite. Leave it out, or export it again."
    )


def paint(
    canvas: NDArray[np.uint8], plane: NDArray[Any], limits: Limits, color: Color, at_a_time: int = _PAINTED
) -> None:
    """Lighten a canvas (H, W, 3) in place with a plane (H, W) in a colour.

    The black point becomes 0, the white point the colour, linearly between and clipped beyond. Nothing happens when
    white is not above black.

    Parameters
    ----------
    canvas
        uint8 (H, W, 3).
    plane
        (H, W), of any kind of number.
    limits
        The black and the white point.
    color
        RGB, 0 to 255 each.
    at_a_time
        Planes of other than 8 and 16-bit whole numbers are painted in strips of about so many pixels.
    """
    if not limits[1] > limits[0]:
        return
    if plane.dtype in (np.uint8, np.uint16):
        unit = between(limits, np.arange(np.iinfo(plane.dtype).max + 1))
        for level in sorted(set(color) - {0}):
            tinted = _tint(unit, level)[plane]
            for component in range(3):
                if color[component] == level:
                    np.maximum(canvas[..., component], tinted, out=canvas[..., component])
        return
    rows = max(1, at_a_time // max(1, plane.shape[1]))
    for start in range(0, plane.shape[0], rows):
        part = slice(start, start + rows)
        unit = between(limits, plane[part])
        for component, level in enumerate(color):
            if level:
                lightened = canvas[part, :, component]
                np.maximum(lightened, _tint(unit, level), out=lightened)


def between(limits: Limits, values: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far values are from the black point to the white one, clipped to [0, 1]; NaN is black."""
    low, high = limits
    with np.errstate(all="ignore"):
        unit = (values.astype(np.float64) - low) / (high - low)
    return np.clip(np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)


def _tint(unit: NDArray[np.float64], level: int) -> NDArray[np.uint8]:
    return (unit * level + 0.5).astype(np.uint8)


_OF_A_READER = ("name", "location", "shape", "read")


class _Plain:
    """A user's reader with a shape of Python's own integers: frames are known again by it."""

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self.name, self.location, self.read = reader.name, reader.location, reader.read
        height, width = reader.shape
        self.shape = int(height), int(width)

    def __getattr__(self, name: str) -> Any:
        """Return what a reader may have besides, such as a ``digest``."""
        if name.startswith("__") or name == "_reader":  # which a copy asks for before it has them
            raise AttributeError(name)
        return getattr(self._reader, name)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _OfArray(Frame):
    """A frame that an array was rendered to, and can be again.

    Parameters
    ----------
    values
        (H, W) or (H, W, 3).
    style
        How they are displayed.
    examples
        Exposures of the examples' frames, beside which it was rendered.
    """

    values: NDArray[Any]
    style: ChannelStyle
    examples: tuple[Exposures, ...] = ()

    @classmethod
    def rendered(cls, values: NDArray[Any], style: ChannelStyle, limits: Limits | None = None) -> _OfArray:
        """Render an array, between its own limits where none are given."""
        if values.ndim == 2:
            pixels = merge([values], [style], limits=[limits] if limits else None)
        else:
            pixels = photo(values, style.black, style.white, limits=limits)
        return cls(pixels, values=values, style=style)

    @property
    def exposures(self) -> Exposures:
        """How it was exposed."""
        return (exposure(self.values, self.style),)

    def displayed_as(self, examples: Sequence[Exposures]) -> _OfArray:
        """Return it as it is searched beside the examples' frames."""
        if self.examples == tuple(examples):  # as each step of a search asks for it
            return self
        (limits,) = bounded(self.exposures, examples)
        return replace(self.rendered(self.values, self.style, limits), examples=tuple(examples))


def as_reader(image: NDArray[Any] | FrameReader, settings: Settings) -> FrameReader:
    """Return an image as something that can be read by region, in 8-bit RGB.

    Parameters
    ----------
    image
        A reader, of which only the shape is made a tuple of Python's integers; or an array: (H, W) is stretched between
        the black and white percentiles of the settings, so is (H, W, 3), a photo, with all its components alike,
        and (H, W, 1) and (H, W, 4) are the same with a superfluous axis and with an alpha channel of one value, which
        is dropped. What a masked array masks is black and counts for no percentile, as NaN.
    settings
        ``black_percentile`` and ``white_percentile`` are used.

    Raises
    ------
    InputError
        If the array is not an image, is empty, or has no finite value; or if the reader has no pixels.
    """
    if isinstance(image, FrameReader):
        if not all(image.shape):
            raise InputError(f"{image.name} is {image.shape[1]} × {image.shape[0]} px, which is no pixel at all.")
        is_plain = type(image.shape) is tuple and all(type(side) is int for side in image.shape)
        return image if is_plain else _Plain(image)
    if isinstance(image, str | os.PathLike):
        raise InputError(
            f"The path {os.fspath(image)!r} was given as an image, but it must be an array. Read the file first, for "
            "instance with skimage.io.imread(path)."
        )
    pixels = image if isinstance(image, np.ma.MaskedArray) else np.asarray(image)
    if not pixels.ndim:
        missing = [name for name in _OF_A_READER if not hasattr(image, name)]
        raise InputError(
            f"An object of type {type(image).__name__} was given as an image, but it must be an array, or a reader "
            f"with {', '.join(_OF_A_READER)}; it has no {' and no '.join(missing)}."
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise InputError(
            f"An image of shape {pixels.shape} was given, but it must be (height, width) or (height, width, 3). "
            "Merge its channels to RGB, or choose one of them."
        )
    if not pixels.size:
        raise InputError(f"An image of shape {pixels.shape} was given, which has no pixels.")
    if pixels.dtype.kind not in "buif":
        raise InputError(f"An image of type {pixels.dtype} was given, but its values must be real numbers.")
    fourth = np.ma.getdata(pixels)[..., 3:] if pixels.ndim == 3 else np.zeros((1, 1, 0))
    if (fourth != fourth[0, 0]).any():
        # Files say what their fourth channel is, arrays do not.
        raise InputError(
            f"An image of shape {pixels.shape} was given, whose fourth channel differs from place to place: it may be "
            "transparency or a channel of the microscope. Leave it out with image[..., :3], or merge the channels to "
            "RGB."
        )
    if isinstance(pixels, np.ma.MaskedArray):
        pixels = np.ma.filled(pixels.astype(np.float64), np.nan)
    style = ChannelStyle(black=settings.black_percentile, white=settings.white_percentile)
    return _OfArray.rendered(pixels[..., :3] if pixels.ndim == 3 else pixels, style)


def read_rgb(reader: FrameReader, region: Box | None = None) -> NDArray[np.uint8]:
    """Return the pixels (h, w, 3) of a region of a frame, or of all of it.

    Raises
    ------
    InputError
        If they cannot be read, or are not 8-bit RGB.
    """
    pixels = np.asarray(reader.read(region))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(
            f"{reader.name}: what its reader gives is {pixels.dtype} of shape {pixels.shape}, but it must be uint8 of "
            "shape (height, width, 3), which is RGB. Convert what its read returns, or give the image as an array."
        )
    return pixels
