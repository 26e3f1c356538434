"""What TIFF files say about their images: OME-XML, in the file or in a companion, ImageJ's and Zeiss' metadata."""

from __future__ import annotations

import logging
import re
import threading
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.positions import field_names, position_names, row_letters, well_name
from sam2_fewshot.images.source import damaged, pixel_size
from sam2_fewshot.images.tiff_pixels import series_of
from sam2_fewshot.storage.files import refuse_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tifffile import TiffFile

    from sam2_fewshot.images.source import ChannelColors, ChannelNames
    from sam2_fewshot.records import PixelSize

MAX_XML_BYTES = 200_000_000
"""Largest companion file that is read."""

_INCH, _CENTIMETRE = 2, 3
_SCREEN = 72
"""Pixels an inch where nothing is known; ImageJ takes it for no calibration too."""
_APERIO_SIZE = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")
"""Micrometres a pixel in the description of an SVS file, ``… |AppMag = 20|MPP = 0.4990|…``."""


@contextmanager
def opened_tiff(path: Path, first: Path | None = None) -> Iterator[tuple[TiffFile, list[str]]]:
    """Open a file and collect what tifffile logs about it, so that it is neither lost nor printed.

    Parameters
    ----------
    path
        The file, or the companion of a set of them.
    first
        The first file of the set, where `path` is its companion.

    Raises
    ------
    InputError
        If its OME-XML names files outside of its folder.
    """
    import tifffile

    logged: list[str] = []
    here = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        if record.thread == here:
            logged.append(record.getMessage())
        return False

    log = logging.getLogger("tifffile")
    log.addFilter(collect)
    try:
        xml = None if first is None else companion_xml(path)
        with tifffile.TiffFile(first or path, omexml=xml) as tif:
            companion = _companion(path, tif.ome_metadata) if xml is None else None
            if companion is None:
                if tif.ome_metadata:
                    files_named(path, tif.ome_metadata)
                yield tif, logged
                return
        with tifffile.TiffFile(path, omexml=companion) as tif:
            files_named(path, companion)
            yield tif, logged
    finally:
        log.removeFilter(collect)


def companion_xml(path: Path) -> str:
    """Return the OME-XML in a companion file.

    Raises
    ------
    InputError
        If it is too long, or not OME-XML.
    """
    size = path.stat().st_size
    if size > MAX_XML_BYTES:
        raise InputError(f"{path.name} is {size // 10**6} MB; OME-XML of up to {MAX_XML_BYTES // 10**6} MB is read.")
    text = path.read_text("utf-8-sig").strip()
    if not text.endswith("OME>"):
        raise damaged(path, "it is not OME-XML")
    return text


def _companion(path: Path, xml: str | None) -> str | None:
    """Return the OME-XML that a file refers to as described elsewhere, None where it describes itself."""
    if not xml or "BinaryOnly" not in xml:
        return None
    try:
        entry = _root(xml).find("{*}BinaryOnly")
    except ElementTree.ParseError:
        return None
    name = "" if entry is None else entry.get("MetadataFile", "")
    if not name:
        return None
    companion = _beside(path, name)
    if not companion.is_file():
        return None
    if companion.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        with tifffile.TiffFile(companion) as tif:
            return tif.ome_metadata
    return companion_xml(companion)


def files_named(path: Path, xml: str) -> list[str]:
    """Return the names of the files with pixels that OME-XML speaks of, in its order.

    Raises
    ------
    InputError
        If one is not in the same folder, or is a device: what a file names must not lead elsewhere.
    """
    try:
        root = _root(xml)
    except ElementTree.ParseError:
        return []
    names = dict.fromkeys(
        entry.get("FileName", "") for entry in root.iterfind("{*}Image/{*}Pixels/{*}TiffData/{*}UUID")
    )
    for name in names:
        if name:
            refuse_device(_beside(path, name))
    return [name for name in names if name]


def _beside(path: Path, name: str) -> Path:
    plain = PurePosixPath(name.replace("\\", "/"))
    if plain.is_absolute() or ".." in plain.parts or Path(name).is_absolute() or "\0" in name:
        raise InputError(f"{path.name} refers to a file outside of its folder ({name[:60]!r}), which is not opened.")
    return path.parent / name


def series_names(tif: TiffFile, numbers: Sequence[int]) -> tuple[str, ...]:
    """Return a name for each of some series: that of its well, of its image in OME-XML, or its number."""
    every = series_of(tif)
    if every and every[0].kind == "ome" and tif.ome_metadata:
        images = [_image(tif, number) for number in range(len(every))]
        wells = _wells(tif.ome_metadata)
        keys = ["" if image is None else image.get("ID", "") for image in images]
        if all(key in wells for key in keys):
            names = field_names([wells[key] for key in keys])
        else:
            labels = [None if image is None else image.get("Name") for image in images]
            names = position_names(labels if len(set(labels)) > 1 else [None] * len(labels))
        return tuple(names[number] for number in numbers)
    return tuple(f"P{number + 1}" for number in numbers)


@lru_cache(maxsize=2)
def _root(xml: str) -> ElementTree.Element:
    """Parse OME-XML, that of a plate once for all its images."""
    return ElementTree.fromstring(xml)


def _wells(xml: str) -> dict[str, tuple[str, int]]:
    """Return the well of each image of a plate, by its ID, with its number in the well, counted from 1."""
    found: dict[str, tuple[str, int]] = {}
    for well in _root(xml).iterfind("{*}Plate/{*}Well"):
        row, column = well.get("Row", ""), well.get("Column", "")
        if row.isdecimal() and column.isdecimal():
            name = well_name(row_letters(int(row)), str(int(column) + 1))
            fields = [sample.find("{*}ImageRef") for sample in well.iterfind("{*}WellSample")]
            for number, image in enumerate([field for field in fields if field is not None], 1):
                found[image.get("ID", "")] = name, number
    return found


def _image(tif: TiffFile, number: int) -> ElementTree.Element | None:
    """Return the description of a series in OME-XML: tifffile leaves out images whose pixels it cannot find."""
    images = _root(tif.ome_metadata or "").findall("{*}Image")
    every = series_of(tif)
    if len(images) == len(every):
        return images[number]
    named = [image for image in images if image.get("Name") == every[number].name]
    if len(named) == 1:
        return named[0]
    return images[0] if number == 0 and images else None


def channel_names_and_colors(tif: TiffFile, count: int, number: int = 0) -> tuple[ChannelNames, ChannelColors]:
    """Return the names and the RGB colours of an image's channels, None where the file does not say.

    Metadata that does not make sense is passed over: the pixels can be used without it.

    Parameters
    ----------
    tif
        The open file.
    count
        Number of channels.
    number
        Which series it is.
    """
    nothing = (None,) * count
    try:
        if tif.is_ome and tif.ome_metadata:
            return _ome_channels(_pixels(tif, number), count)
        if tif.is_imagej and count > 1:
            return nothing, _imagej_colors((tif.imagej_metadata or {}).get("LUTs"), count)
    except (ElementTree.ParseError, ValueError, TypeError, AttributeError, IndexError):
        pass
    return nothing, nothing


def _pixels(tif: TiffFile, number: int) -> ElementTree.Element:
    image = _image(tif, number)
    pixels = None if image is None else image.find("{*}Pixels")
    if pixels is None:
        raise ValueError("no Pixels")
    return pixels


def _ome_channels(pixels: ElementTree.Element, count: int) -> tuple[ChannelNames, ChannelColors]:
    """Read ``Channel/@Name`` and ``@Color`` (RGBA in one signed 32-bit number: OME schema 2016-06)."""
    names: list[str | None] = []
    colors: list[tuple[int, int, int] | None] = []
    for channel in pixels.findall("{*}Channel"):
        for _ in range(min(int(channel.get("SamplesPerPixel", "1")), count)):
            names.append(channel.get("Name"))
            value = channel.get("Color")
            number = int(value) & 0xFFFFFFFF if value is not None else None
            colors.append(None if number is None else (number >> 24, number >> 16 & 255, number >> 8 & 255))
    return tuple((*names, *[None] * count)[:count]), tuple((*colors, *[None] * count)[:count])


def _imagej_colors(tables: Any, count: int) -> ChannelColors:
    """Take the brightest entry of each channel's lookup table, uint8 (3, 256)."""
    if tables is None or len(tables) != count:
        return (None,) * count
    found = [np.asarray(table).reshape(3, 256) for table in tables]
    # Of an inverted table it is the first, of others the last, also where several are as bright.
    brightest = [table[:, 255 - int(table.sum(0, int)[::-1].argmax())] for table in found]
    return tuple((int(r), int(g), int(b)) for r, g, b in brightest)


def tiff_pixel_size(tif: TiffFile, number: int = 0) -> PixelSize | None:
    """Return the pixel size that OME-XML, ImageJ's, Zeiss LSM's or Aperio's metadata state.

    The resolution of other TIFF files is that of a printer more often than that of a microscope, so it is passed over.
    """
    try:
        if tif.is_ome and tif.ome_metadata:
            return _ome_pixel_size(_pixels(tif, number))
        if tif.is_lsm:
            found: Any = tif.lsm_metadata
            return pixel_size(found["VoxelSizeX"], found["VoxelSizeY"], found["VoxelSizeZ"] or None, "m")
        if tif.is_imagej:
            return _imagej_pixel_size(tif)
        if tif.is_svs and (found := _APERIO_SIZE.search(tif.pages.first.description)):
            return pixel_size(found[1], found[1])
    except (ElementTree.ParseError, ArithmeticError, ValueError, TypeError, AttributeError, LookupError):
        pass  # the pixels can be used without it
    return None


def _ome_pixel_size(pixels: ElementTree.Element) -> PixelSize | None:
    """Read ``Pixels/@PhysicalSizeX`` and its unit, µm when left out (OME schema 2016-06)."""
    x, y, z = (pixels.get(f"PhysicalSize{axis}") for axis in "XYZ")
    return pixel_size(x, y, z, [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XYZ"])


def _imagej_pixel_size(tif: TiffFile) -> PixelSize | None:
    """Read the resolution tags (pixels a unit), with the units and the slices' distance from ImageJ's description.

    It has a unit of Y or Z only where that differs from ``unit``, as in kymographs, where Y is time. Where it has no
    ``unit``, ImageJ goes by the tag ResolutionUnit: inches, unless it is the 72 an inch of a screen, or centimetres
    (``ij/io/TiffDecoder.java``).
    """
    metadata, tags = tif.imagej_metadata or {}, tif.pages.first.tags
    sizes = []
    for name in ("XResolution", "YResolution"):
        pixels, units = tags[name].value
        sizes.append(units / pixels)
    unit = str(metadata.get("unit", ""))
    if not unit and "ResolutionUnit" in tags:
        kind = int(tags["ResolutionUnit"].value)
        is_screen = all(round(1 / size) == _SCREEN for size in sizes)
        unit = {_INCH: "" if is_screen else "inch", _CENTIMETRE: "cm"}.get(kind, "")
    units = [unit, *(str(metadata.get(key, "")).strip() or unit for key in ("yunit", "zunit"))]
    return pixel_size(sizes[0], sizes[1], metadata.get("spacing"), units)
