"""Layers of the app: channels with a colour, a contrast, and the slices that they are set to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sam2_fewshot.images.display import default_colors
from sam2_fewshot.rendering.contrast import WHITE, ChannelStyle, Color

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sam2_fewshot.nimbus.parameters import DatasetSize
    from sam2_fewshot.records import Location
    from sam2_fewshot.settings import Settings

FrameIndex = dict[tuple[int, int, int, int], int]
"""Number of each plane by (XY, Z, Time, channel)."""

_AXES = ("xy", "z", "time")


@dataclass(frozen=True, slots=True)
class Layer:
    """A channel as the app displays it.

    Parameters
    ----------
    channel
        Counted from 0.
    style
        Colour and contrast.
    slices
        For XY, Z and Time each: ``current``, ``constant``, ``offset`` or ``max-merge``, and the value that goes with
        the second and third.
    """

    channel: int
    style: ChannelStyle
    slices: tuple[tuple[str, int], ...] = (("current", 0),) * 3

    def planes(self, location: Location, size: DatasetSize, index: FrameIndex, merge: bool = True) -> tuple[int, ...]:
        """Return the planes that are merged at a location; none where the layer shows nothing there.

        Parameters
        ----------
        location, size, index
            Where, how large the dataset is, and which planes it has.
        merge
            False for the one plane whose intensities make the contrast: the current one, also where several are merged.
        """
        places = []
        for axis, (kind, value) in zip(_AXES, self.slices, strict=True):
            count, current = getattr(size, axis), getattr(location, axis)
            if kind == "max-merge" and merge:
                places.append(range(count))
                continue
            at = {"constant": value, "offset": current + value}.get(kind, current) if count > 1 else 0
            if not 0 <= at < count:
                return ()
            places.append(range(at, at + 1))
        keys = [(xy, z, time, self.channel) for time in places[2] for z in places[1] for xy in places[0]]
        return tuple(index[key] for key in keys if key in index)


def visible_layers(
    layers: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any], warn: Callable[[str], None] = lambda text: None
) -> list[Layer]:
    """Return the visible layers of a collection.

    Parameters
    ----------
    layers
        As the collection stores them.
    overrides
        The view's contrasts by layer id.
    warn
        Is warned of a colour that is not known.
    """
    return [_layer(layer, overrides, warn) for layer in layers if layer.get("visible", True)]


def default_layers(count: int, settings: Settings) -> list[Layer]:
    """Return a layer for each channel of a dataset that nobody has opened in the app yet, as for image files."""
    colors = default_colors([None] * count)
    return [
        Layer(channel, ChannelStyle(color, "percentile", settings.black_percentile, settings.white_percentile))
        for channel, color in enumerate(colors)
    ]


def _layer(layer: Mapping[str, Any], overrides: Mapping[str, Any], warn: Callable[[str], None]) -> Layer:
    contrast = overrides.get(str(layer.get("id"))) or layer.get("contrast") or {}
    absolute = contrast.get("mode") == "absolute"
    style = ChannelStyle(
        _color(layer.get("color"), warn),
        "absolute" if absolute else "range",
        _number(contrast.get("blackPoint"), 0.0),
        _number(contrast.get("whitePoint"), 100.0),
    )
    return Layer(int(_number(layer.get("channel"), 0)), style, tuple(_slice(layer.get(axis)) for axis in _AXES))


def _slice(value: Any) -> tuple[str, int]:
    setting = value if isinstance(value, dict) else {}
    return str(setting.get("type") or "current"), int(_number(setting.get("value"), 0))


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default


def _color(value: Any, warn: Callable[[str], None]) -> Color:
    from PIL import ImageColor

    if value is None:
        return WHITE
    try:
        red, green, blue = ImageColor.getrgb(str(value).strip())[:3]
    except ValueError:
        warn(f"The colour {str(value)[:40]!r} of a layer is not known; the layer is taken as white.")
        return WHITE
    return red, green, blue
