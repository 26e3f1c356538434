"""Sizes of pixels, whatever unit a file gives them in; nonsense counts as not known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from sam2_fewshot.records import PixelSize

if TYPE_CHECKING:
    from tifffile import TiffFile

_MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre", r"\u00b5m"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("inch", "in"), 25_400.0),
}
_SMALLEST, _LARGEST = 1e-6, 1e6
"""Micrometres between which a pixel's size is believed: from below an atom to a metre."""


def pixel_size(x: object, y: object, z: object = None, unit: str = "µm") -> PixelSize | None:
    """Return a pixel's size in micrometres, None when it is not given or cannot be.

    Parameters
    ----------
    x, y
        Width and height, numbers or text.
    z
        Distance of two slices; nonsense there counts as not known.
    unit
        Of all three, by symbol or English name.
    """
    scale = _MICROMETRES.get(unit.strip().casefold())
    width, height, depth = (_length(value, scale) for value in (x, y, z))
    return None if width is None or height is None else PixelSize(width, height, depth)


def _length(value: object, scale: float | None) -> float | None:
    try:
        number = float(value) * (scale or math.nan)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if _SMALLEST <= number <= _LARGEST else None


def tiff_pixel_size(tif: TiffFile) -> PixelSize | None:
    """Return the pixel size that OME-XML, ImageJ's or Zeiss LSM's metadata tell.

    The resolution of other TIFF files is that of a printer more often than that of a microscope, so it is passed over.
    """
    try:
        if tif.is_ome and tif.ome_metadata:
            return _from_ome(tif.ome_metadata)
        if tif.is_lsm:
            found: Any = tif.lsm_metadata
            return pixel_size(found["VoxelSizeX"], found["VoxelSizeY"], found["VoxelSizeZ"] or None, "m")
        if tif.is_imagej:
            return _from_imagej(tif)
    except (ElementTree.ParseError, ArithmeticError, ValueError, TypeError, AttributeError, LookupError):
        pass  # the pixels can be used without it
    return None


def zarr_pixel_size(image: object) -> PixelSize | None:
    """Return the pixel size at full resolution that an OME-Zarr tells; an axis without a unit has none.

    Parameters
    ----------
    image
        An entry of ``multiscales`` (https://ngff.openmicroscopy.org/0.4/#multiscale-md). Its own scale comes on top of
        that of its first data set.
    """
    told: Any = image
    try:
        names = [str(axis["name"]).lower() for axis in told["axes"]]
        units = [str(axis.get("unit") or "") for axis in told["axes"]]
        steps = [1.0] * len(names)
        changes = [c for where in (told["datasets"][0], told) for c in where.get("coordinateTransformations") or ()]
        scales = [change["scale"] for change in changes if change["type"] == "scale"]
        for scale in scales:
            steps = [step * float(by) for step, by in zip(steps, scale, strict=True)]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None  # the pixels can be used without it
    if not scales:
        return None
    lengths = {
        name: _length(step, _MICROMETRES.get(unit.strip().casefold()))
        for name, step, unit in zip(names, steps, units, strict=True)
    }
    return pixel_size(lengths.get("x"), lengths.get("y"), lengths.get("z"))


def _from_ome(xml: str) -> PixelSize | None:
    """Read ``Pixels/@PhysicalSizeX`` and its unit, µm when left out (OME schema 2016-06)."""
    pixels = ElementTree.fromstring(xml).find(".//{*}Image/{*}Pixels")
    if pixels is None:
        return None
    sizes = []
    for axis in "XYZ":
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        sizes.append(_length(pixels.get(f"PhysicalSize{axis}"), _MICROMETRES.get(unit.strip().casefold())))
    return pixel_size(sizes[0], sizes[1], sizes[2])


def _from_imagej(tif: TiffFile) -> PixelSize | None:
    """Read the resolution tags (pixels a unit), with the unit and the slices' distance from ImageJ's description."""
    told = tif.imagej_metadata or {}
    tags = tif.pages.first.tags
    sizes = []
    for name in ("XResolution", "YResolution"):
        pixels, units = tags[name].value
        sizes.append(units / pixels)
    return pixel_size(sizes[0], sizes[1], told.get("spacing"), str(told.get("unit", "")))
