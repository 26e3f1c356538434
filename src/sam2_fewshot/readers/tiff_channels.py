"""Names and colours of channels, as OME-XML and ImageJ's lookup tables tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from tifffile import TiffFile

Names = tuple[str | None, ...]
Colors = tuple[tuple[int, int, int] | None, ...]


def channel_looks(tif: TiffFile, count: int) -> tuple[Names, Colors]:
    """Return the names and the RGB colours of the first image's channels, None where the file does not tell.

    Metadata that does not make sense is passed over: the pixels can be used without it.
    """
    nothing = (None,) * count
    try:
        if tif.is_ome and tif.ome_metadata:
            return _from_ome(tif.ome_metadata, count)
        if tif.is_imagej and count > 1:
            return nothing, _from_imagej((tif.imagej_metadata or {}).get("LUTs"), count)
    except (ElementTree.ParseError, ValueError, TypeError, AttributeError, IndexError):
        pass
    return nothing, nothing


def _from_ome(xml: str, count: int) -> tuple[Names, Colors]:
    """Read ``Channel/@Name`` and ``@Color`` (RGBA in one signed 32-bit number: OME schema 2016-06)."""
    pixels = ElementTree.fromstring(xml).find(".//{*}Image/{*}Pixels")
    if pixels is None:
        raise ValueError("no Pixels")
    names: list[str | None] = []
    colors: list[tuple[int, int, int] | None] = []
    for channel in pixels.findall("{*}Channel"):
        for _ in range(min(int(channel.get("SamplesPerPixel", "1")), count)):
            names.append(channel.get("Name"))
            value = channel.get("Color")
            number = int(value) & 0xFFFFFFFF if value is not None else None
            colors.append(None if number is None else (number >> 24, number >> 16 & 255, number >> 8 & 255))
    return tuple((*names, *[None] * count)[:count]), tuple((*colors, *[None] * count)[:count])


def _from_imagej(tables: Any, count: int) -> Colors:
    """Take the brightest entry of each channel's lookup table, uint8 (3, 256)."""
    if tables is None or len(tables) != count:
        return (None,) * count
    brightest = [np.asarray(table).reshape(3, 256)[:, -1] for table in tables]
    return tuple((int(r), int(g), int(b)) for r, g, b in brightest)
