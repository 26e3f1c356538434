"""How channels become the 8-bit RGB that is segmented: the user's YAML file, colours, and contrast of the whole frame.

How that file is written is in ``docs/formats.md``, under Channels.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sam2_fewshot.errors import SettingsError
from sam2_fewshot.geometry.overlap import bands
from sam2_fewshot.rendering.channels import merge, no_finite_value, photo
from sam2_fewshot.rendering.contrast import (
    SAMPLES,
    WHITE,
    ChannelStyle,
    Color,
    Exposure,
    Exposures,
    Limits,
    exposure,
    extremes,
    sample_step,
)
from sam2_fewshot.storage.files import parse_yaml, read_yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.images.source import Header, RegionSource
    from sam2_fewshot.rendering.viewer import Look
    from sam2_fewshot.settings import Settings

GREEN_MAGENTA: tuple[Color, ...] = ((0, 255, 0), (255, 0, 255))
DISTINCT: tuple[Color, ...] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (255, 0, 255),
    (0, 255, 255),
    (255, 255, 255),
    (255, 128, 0),
    (0, 255, 128),
    (128, 0, 255),
)
"""Up to three channels have components of their own, so that merging them loses nothing."""
_PRIMARIES = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
_COMPONENTS = ("red", "green", "blue")
"""What the channels of a colour photo are called."""
_TINT = 0.01
"""Colours that differ by less, of 1, look the same."""
_STRIP = 1 << 24
"""Pixels that are read together for the contrast of a plane without a pyramid."""


class ChannelSetting(BaseModel):
    """The user's settings of one channel; what is left out stays as by default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    name: str | None = None
    index: int | None = Field(default=None, ge=1)
    color: str | None = None
    mode: Literal["percentile", "range", "absolute"] = "percentile"
    black: float | None = None
    white: float | None = None
    visible: bool = True

    @field_validator("color")
    @classmethod
    def _known_color(cls, value: str | None) -> str | None:
        if value is not None:
            parse_color(value)
        return value

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.name is not None and self.index is not None:
            raise ValueError("give name or index, not both")
        if self.mode == "absolute" and (self.black is None or self.white is None):
            raise ValueError("mode absolute needs both black and white, in intensities")
        if self.mode != "absolute":
            for which, value in (("black", self.black), ("white", self.white)):
                if value is not None and not 0 <= value <= 100:
                    raise ValueError(f"{which} is {value:g}, but in mode {self.mode} it must be from 0 to 100")
        if self.black is not None and self.white is not None and self.white <= self.black:
            raise ValueError(f"white is {self.white:g}, which is not above black ({self.black:g})")
        return self


def parse_color(text: str) -> Color:
    """Return the RGB of ``#RRGGBB`` or of a colour's English name.

    Raises
    ------
    ValueError
        If it is neither.
    """
    from PIL import ImageColor

    if text.isalpha() or (text.startswith("#") and len(text) in (4, 7)):
        try:
            red, green, blue = ImageColor.getrgb(text)[:3]
        except ValueError:
            pass
        else:
            return red, green, blue
    raise ValueError(f"color is {reprlib.repr(text)}, but it must be like '#FF8000' or a name such as 'red'")


def read_channels(path: Path) -> tuple[ChannelSetting, ...]:
    """Read the user's YAML file.

    Raises
    ------
    SettingsError
        If it is not there, is not YAML, or holds something that cannot be used.
    """
    return parse_channels(read_text(path), path.name)


def read_text(path: Path) -> str:
    """Return the text of the user's YAML file.

    Raises
    ------
    SettingsError
        If it is not there, too large, or no text.
    """
    return read_yaml_text(path, "channel file")


def parse_channels(text: str, name: str) -> tuple[ChannelSetting, ...]:
    """Return what the text of such a file says; `name` is what to call it in messages.

    Raises
    ------
    SettingsError
        If it is not YAML, or holds something that cannot be used.
    """
    content = parse_yaml(text, name)
    if isinstance(content, dict) and set(content) == {"channels"}:
        content = content["channels"]
    if not isinstance(content, list) or not content:
        raise SettingsError(f"{name} must be a list with an entry for each channel, such as '- index: 1'.")
    return tuple(_entry(name, number, entry) for number, entry in enumerate(content, 1))


def channels_of(looks: Sequence[Look | None]) -> tuple[str, bool]:
    """Return how a viewer displays the channels as the text of such a file, and whether that says all.

    The file knows a colour and two limits a channel; other colours between them, a gamma and an opacity are lost.
    Channels lighten one another, which is what a viewer displays only where each is added to those below it and has
    components of its own. RGB alone has an entry for each of its components; among other layers it has none.

    Parameters
    ----------
    looks
        Of all channels of the image, the lowest first; None for one that is not displayed.
    """
    displayed = [look for look in looks if look is not None]
    if len(displayed) == 1 and displayed[0].colors is None:
        (only,) = displayed
        black, white = only.limits
        entries = [f"- {{name: {name}, mode: absolute, black: {black}, white: {white}}}\n" for name in _COMPONENTS]
        return "".join(entries), only.gamma == only.opacity == 1
    lines, is_all, used = [], True, np.zeros(3, bool)
    for number, look in enumerate(looks, 1):
        if look is None:
            lines.append(f"- {{index: {number}, visible: false}}\n")
            continue
        last = np.ones(3) if look.colors is None else look.colors[-1, :3]
        components = last > _TINT
        is_apart = not used.any() or (look.blending == "additive" and not (used & components).any())
        is_all = is_all and is_apart and look.gamma == look.opacity == 1
        used |= components
        if look.colors is not None:
            ramp = np.linspace(0, 1, len(look.colors))[:, None] * last
            is_all = is_all and bool(np.allclose(look.colors[:, :3], ramp, atol=_TINT))
            color = "".join(f"{round(255 * float(part)):02X}" for part in last)
            black, white = look.limits
            lines.append(f'- {{index: {number}, color: "#{color}", mode: absolute, black: {black}, white: {white}}}\n')
    has_entry = any(look is not None and look.colors is not None for look in looks)
    return "".join(lines) if has_entry else "", is_all


def _entry(name: str, number: int, entry: object) -> ChannelSetting:
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        raise SettingsError(f"{name}, entry {number}: it must have lines such as 'color: red'.")
    try:
        return ChannelSetting(**entry)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(ChannelSetting.model_fields)
            reason = f"there is no {key!r}; use {known}"
        elif problem["type"] == "value_error":
            reason = str(problem["ctx"]["error"])
        else:
            reason = f"{key} is {reprlib.repr(problem['input'])}, which is wrong: {problem['msg'].lower()}"
        raise SettingsError(f"{name}, entry {number}: {reason}.") from None


def channel_styles(
    names: Sequence[str | None],
    colors: Sequence[Color | None],
    settings: Sequence[ChannelSetting],
    black: float,
    white: float,
    image: str,
) -> tuple[ChannelStyle, ...]:
    """Decide how each channel of an image is displayed.

    A single channel is grey. Several take the colours that the file gives them if these differ; else two are green and
    magenta, and more go through :data:`DISTINCT`.

    Parameters
    ----------
    names, colors
        From the file, one a channel.
    settings
        From the user; they go first.
    black, white
        Percentiles by default.
    image
        Name of the image, for messages.

    Raises
    ------
    SettingsError
        If a setting is for a channel that the image does not have.
    """
    count = len(names)
    palette = default_colors(colors)
    styles = [ChannelStyle(color, "percentile", black, white) for color in palette]
    for number, setting in enumerate(settings, 1):
        at = _find(setting, number, names, image)
        low, high = (0.0, 100.0) if setting.mode == "range" else (black, white)
        low = low if setting.black is None else setting.black
        high = high if setting.white is None else setting.white
        if not (math.isfinite(low) and high > low):
            raise SettingsError(f"Channel {at + 1}: white ({high:g}) is not above black ({low:g}).")
        color = palette[at] if setting.color is None else parse_color(setting.color)
        styles[at] = ChannelStyle(color, setting.mode, low, high, setting.visible)
    if count and not any(style.visible for style in styles):
        raise SettingsError(f"All channels of {image} are switched off; leave at least one visible.")
    return tuple(styles)


def default_colors(colors: Sequence[Color | None]) -> tuple[Color, ...]:
    """Return a colour for each channel, the file's own where they differ.

    A file that says black does not say: nothing of the channel would be seen.
    """
    count = len(colors)
    colors = [color if color and any(color) else None for color in colors]
    if count == 1:
        return (WHITE,)
    if None not in colors and len(set(colors)) > 1:
        return tuple(color or WHITE for color in colors)
    if count == 2:
        return GREEN_MAGENTA
    return tuple(DISTINCT[i % len(DISTINCT)] for i in range(count))


def _find(setting: ChannelSetting, number: int, names: Sequence[str | None], image: str) -> int:
    """Return which channel a setting is for, from 0."""
    if setting.name is not None:
        if setting.name in names:
            return names.index(setting.name)
        known = ", ".join(repr(name) for name in names if name) or "no names"
        raise SettingsError(f"{image} has no channel called {setting.name!r}; its channels have {known}.")
    index = setting.index or number
    if index > len(names):
        raise SettingsError(f"{image} has no channel {index}; it has {len(names)}.")
    return index - 1


@dataclass(frozen=True, slots=True)
class DisplaySettings:
    """How an image becomes RGB: a photo in one style, everything else by its channels' styles."""

    styles: tuple[ChannelStyle, ...]
    as_photo: bool = False


def display_of(header: Header, channels: Sequence[ChannelSetting], settings: Settings) -> DisplaySettings:
    """Decide how an image becomes RGB.

    Raises
    ------
    SettingsError
        If `channels` names a channel that the image does not have.
    """
    black, white = settings.black_percentile, settings.white_percentile
    names, colors = header.channel_names, header.channel_colors
    if header.is_photo or _has_colors(header.palette):
        if not channels:
            return DisplaySettings((ChannelStyle(black=black, white=white),), as_photo=True)
        names, colors = _COMPONENTS, _PRIMARIES
    return DisplaySettings(channel_styles(names, colors, channels, black, white, header.name))


def _has_colors(palette: NDArray[np.uint8] | None) -> bool:
    """Tell a palette of a picture's colours from one that only brightens: a lookup table over intensities."""
    return palette is not None and bool((np.diff(palette.astype(int), axis=0) < 0).any())


def compose(
    stored: Iterable[NDArray[Any]],
    header: Header,
    display: DisplaySettings,
    name: str,
    limits: Sequence[Limits | None] | None = None,
) -> NDArray[np.uint8]:
    """Make the stored planes of a frame, or of a region of it, RGB, uint8 (H, W, 3).

    Parameters
    ----------
    stored
        From :meth:`~sam2_fewshot.images.source.PixelSource.planes` or
        :meth:`~sam2_fewshot.images.source.RegionSource.region`.
    header, display
        What they are, and how they become RGB.
    name
        What to call the image in messages.
    limits
        The black and white point of each channel, where they are not those of the planes themselves.

    Raises
    ------
    InputError
        If they cannot be read, or no visible channel has a finite value.
    """
    planes = _displayed(stored, header, display)
    if display.as_photo:
        style = display.styles[0]
        return photo(next(planes), style.black, style.white, name, limits[0] if limits else None)
    return merge(planes, display.styles, name, limits)


def plane_exposures(stored: Iterable[NDArray[Any]], header: Header, display: DisplaySettings) -> Exposures:
    """Return how each channel of a frame was exposed whose stored planes are at hand."""
    planes = zip(_displayed(stored, header, display), display.styles, strict=True)
    return tuple(exposure(plane, style) if style.visible else None for plane, style in planes)


def frame_exposures(source: RegionSource, display: DisplaySettings, z: int, t: int, name: str) -> Exposures:
    """Return how each channel of a frame was exposed, without having it whole in memory.

    The black and white points are those of a level of the file's pyramid alone, or without one those of a plane read
    whole: from the pixels that :func:`~sam2_fewshot.rendering.contrast.contrast` would take of it, and where it asks
    for the lowest and highest intensity from all pixels, strip by strip. None for a channel that is not displayed.

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
    if all(style.mode == "absolute" for style in display.styles):
        return tuple(Exposure(style.black, style.white) for style in display.styles)
    is_level = source.has_level(z, t, SAMPLES)
    ends_of_all = cache(partial(_extremes, source, display, z, t))

    def ends_of(number: int) -> Limits | None:
        return ends_of_all()[number]

    planes = zip(_displayed(_overview(source, z, t), header, display), display.styles, strict=True)
    found = tuple(
        exposure(plane, style, None if is_level else partial(ends_of, number)) if style.visible else None
        for number, (plane, style) in enumerate(planes)
    )
    if not any(found) and any(style.visible for style in display.styles):
        raise no_finite_value(name)
    return found


def _overview(source: RegionSource, z: int, t: int) -> list[NDArray[Any]]:
    reduced = source.reduced(z, t, SAMPLES)
    if reduced is not None:
        return list(reduced)
    step = sample_step(source.header.height * source.header.width, SAMPLES)
    strips = [[np.ascontiguousarray(plane[::step, ::step]) for plane in strip] for strip in _strips(source, z, t, step)]
    return [np.concatenate(parts) for parts in zip(*strips, strict=True)]


def _extremes(source: RegionSource, display: DisplaySettings, z: int, t: int) -> list[Limits | None]:
    """Return the lowest and highest intensity of each channel."""
    strips = [
        [extremes(plane) for plane in _displayed(strip, source.header, display)] for strip in _strips(source, z, t)
    ]
    found = [[ends for ends in parts if ends] for parts in zip(*strips, strict=True)]
    return [(min(low for low, _ in parts), max(high for _, high in parts)) if parts else None for parts in found]


def _strips(source: RegionSource, z: int, t: int, step: int = 1) -> Iterator[Iterator[NDArray[Any]]]:
    """Yield the planes in strips whose first row is a multiple of a step."""
    height, width = source.header.height, source.header.width
    rows = max(1, _STRIP // (width * step)) * step
    for strip in bands((0, 0, width, height), rows):
        yield source.region(z, t, strip)


def _displayed(stored: Iterable[NDArray[Any]], header: Header, display: DisplaySettings) -> Iterator[NDArray[Any]]:
    """Yield the intensities of each channel, or the colours of a photo, whose components count together."""
    for plane in (as_intensities(plane, header) for plane in stored):
        if plane.ndim == 3 and not display.as_photo:
            yield from (plane[..., component] for component in range(plane.shape[2]))
        else:
            yield plane


def as_intensities(plane: NDArray[Any], header: Header) -> NDArray[Any]:
    """Turn stored numbers into intensities (H, W) or colours (H, W, 3); what is transparent is NaN."""
    if plane.ndim == 3 and not plane.shape[2] % 2:
        opaque = as_intensities(plane[..., 0] if plane.shape[2] == 2 else plane[..., :3], header)
        is_hidden = (plane[..., -1] == 0).reshape(plane.shape[:2] + (1,) * (opaque.ndim - 2))
        return np.where(is_hidden, np.float32(np.nan), opaque)
    palette = header.palette
    if palette is not None and _has_colors(palette):
        colors: NDArray[Any] = palette[np.minimum(plane, len(palette) - 1)]
        return colors
    if plane.dtype == bool:
        plane = plane.astype(np.uint8) * np.uint8(255)
    if header.is_inverted:
        return ~plane if plane.dtype.kind in "ui" else -plane
    return plane
