"""TIFF, OME-TIFF and ImageJ hyperstacks, by tifffile: planes one at a time, without the rest of the file in memory."""

from __future__ import annotations

import logging
import math
import threading
from contextlib import contextmanager
from os import SEEK_CUR
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.source import Header, check_kind, check_size, damaged, pixel_size, reading
from sam2_fewshot.images.tiff_pixels import NAMED_AXES, SeriesPixels, has_regions, piece_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from tifffile import TiffFile, TiffPageSeries

    from sam2_fewshot.images.source import ChannelColors, ChannelNames
    from sam2_fewshot.records import Box, PixelSize

_MOST_TAGS = 4096
_MINISWHITE, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 2, 3, 5, 6
_KNOWN_PHOTOMETRICS = {_MINISWHITE, 1, _RGB, _PALETTE, _CMYK, _YCBCR}


class TiffSource:
    """The first image of a TIFF file, at its full resolution; a :class:`~sam2_fewshot.images.source.PixelSource`.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        If it cannot be read, is cut off, or claims more pixels than are allowed.
    """

    def __init__(self, path: Path) -> None:
        with reading(path):
            _check_chain(path)
        with reading(path), _opened(path) as (tif, logged):
            self._samples, self.header = _header(path, tif, logged)
            series = tif.series[0]
            self.piece_rows = piece_rows(series) if series.dataoffset is None else 1
            """Height of what is unpacked as a whole: tiles or strips; rows where the file is mapped into memory."""

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Yield the planes at a slice and time point; photos as (H, W, 3)."""
        yield from self._read(z, t, None)

    def region(self, z: int, t: int, box: Box) -> Iterator[NDArray[Any]]:
        """Yield a region of the planes; see :class:`~sam2_fewshot.images.source.RegionSource`."""
        yield from self._read(z, t, box)

    def reduced(self, z: int, t: int, pixels: int) -> Iterator[NDArray[Any]] | None:
        """Yield the planes of the smallest level of a pyramid that has so many pixels; None without a pyramid."""
        with reading(self.header.path), _opened(self.header.path) as (tif, _):
            sizes = [math.prod(level.shape) for level in tif.series[0].levels]
        planes = self.header.height * self.header.width
        enough = [n for n, size in enumerate(sizes) if n and planes * size >= pixels * sizes[0]]
        return self._read(z, t, None, enough[-1]) if enough else None

    def _read(self, z: int, t: int, box: Box | None, level: int = 0) -> Iterator[NDArray[Any]]:
        header = self.header
        with reading(header.path), _opened(header.path) as (tif, _):
            series = tif.series[0].levels[level]
            pixels_of = SeriesPixels(series)
            for channel in range(1 if header.is_photo else header.size_c // self._samples):
                pixels = pixels_of.plane(z, t, channel, box)
                if header.is_photo:
                    yield _as_rgb(pixels, int(series.keyframe.photometric))
                elif pixels.ndim == 3:
                    for sample in range(self._samples):
                        yield pixels[..., sample]
                else:
                    yield pixels


def _header(path: Path, tif: TiffFile, logged: list[str]) -> tuple[int, Header]:
    """Return the number of samples that count as channels of their own, and the header."""
    if not tif.series or tif.series[0].dtype is None:
        raise damaged(path, "no image is in it")
    series = tif.series[0]
    key = series.keyframe
    axes, shape = str(series.get_axes(squeeze=False)), series.get_shape(squeeze=False)
    if axes.count("Y") != 1 or axes.count("X") != 1 or axes.count("S") > 1:
        raise InputError(
            f"{path.name} has the axes {axes}, and which of them are an image's rows and columns is not clear."
        )
    height, width = int(shape[axes.index("Y")]), int(shape[axes.index("X")])
    first = series.pages[0]
    if series.dataoffset is not None:  # a size that was made up is not believed
        by_region = _end_of(series) <= path.stat().st_size
    else:
        by_region = first is not None and has_regions(first)
    check_size(path, height, width, by_region)
    check_kind(path, np.dtype(series.dtype))
    _check_whole(path, tif, logged)
    pixels_of = SeriesPixels(series)
    notes = [f"{path.name} has {len(tif.series)} images; the first is read."] if len(tif.series) > 1 else []
    unnamed = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis not in NAMED_AXES and n > 1]
    if unnamed:
        count = math.prod(n for _, n in unnamed)
        notes.append(
            f"{path.name} does not say what its {count} pages are; they are taken as Z slices. If they are channels "
            "or time points, save it as OME-TIFF or as an ImageJ hyperstack."
        )
    if any("issing" in line for line in logged):
        notes.append(f"{path.name} lacks some of the planes that its description names; those are black.")
    samples, channels, photometric = pixels_of.size("S"), pixels_of.size("C"), int(key.photometric)
    if photometric not in _KNOWN_PHOTOMETRICS:
        kind = getattr(key.photometric, "name", photometric)
        raise InputError(f"{path.name} has colours of the kind {kind}; save it as RGB or grey.")
    photo = channels == 1 and (
        (photometric in {_RGB, _YCBCR} and samples in (3, 4)) or (photometric == _CMYK and samples in (4, 5))
    )
    if photometric == _CMYK:
        if not photo or np.dtype(series.dtype).kind != "u":
            raise InputError(f"{path.name} is a CMYK image of an unusual kind; save it as RGB.")
        notes.append(f"{path.name} is a CMYK image; it is converted to RGB without a colour profile.")
    size_c = 1 if photo else channels * samples
    names, colors = channel_names_and_colors(tif, size_c)
    header = Header(
        path,
        height,
        width,
        np.dtype(series.dtype).newbyteorder("="),
        size_c=size_c,
        size_z=pixels_of.size("Z"),
        size_t=pixels_of.size("T"),
        by_region=by_region,
        is_photo=photo,
        is_inverted=photometric == _MINISWHITE,
        palette=_palette(key) if photometric == _PALETTE else None,
        channel_names=names,
        channel_colors=colors,
        warnings=tuple(notes),
        pixel_size=tiff_pixel_size(tif),
    )
    return samples, header


def _check_whole(path: Path, tif: TiffFile, logged: list[str]) -> None:
    """Refuse a file that ends before its pixels do; pages in the middle show it when they are read."""
    series = tif.series[0]
    key: Any = series.keyframe
    length = path.stat().st_size
    if any("invalid page offset" in line or "invalid offset to page" in line for line in logged):
        raise damaged(path, "its end is missing")
    if series.dataoffset is not None:
        ends = [_end_of(series)]
    else:
        ends = []
        for page in (series.pages[0], series.pages[len(series.pages) - 1]):
            if page is not None and page.parent is tif:
                ends += [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False) if n]
                # A size that was made up has fewer strips or tiles than it takes; tifffile would fill the rest.
                is_raw = int(key.compression) == 1 and sum(page.databytecounts) >= key.nbytes
                if not is_raw and len(page.dataoffsets) < math.prod(key.chunked):
                    raise damaged(path, "it has fewer pixels than it says")
    if ends and max(ends) > length:
        raise damaged(path, f"it is {length:,} bytes long and should have at least {max(ends):,}")


def _end_of(series: TiffPageSeries) -> int:
    """Return where a series that is contiguous should end."""
    return int(series.dataoffset or 0) + math.prod(series.shape) * np.dtype(series.dtype).itemsize


def _check_chain(path: Path) -> None:
    """Refuse a file whose pages lead back to an earlier one: tifffile would follow them for ever."""
    length = path.stat().st_size
    with path.open("rb") as file:
        order: Literal["little", "big"] = "little" if file.read(2) == b"II" else "big"
        is_big = int.from_bytes(file.read(2), order) == 43
        count_size, entry_size, offset_size = (8, 20, 8) if is_big else (2, 12, 4)
        file.seek(8 if is_big else 4)
        seen: set[int] = set()
        while (offset := int.from_bytes(file.read(offset_size), order)) and offset < length:
            if offset in seen:
                raise damaged(path, "its pages go round in a circle")
            seen.add(offset)
            file.seek(offset)
            entries = int.from_bytes(file.read(count_size), order)
            if entries > _MOST_TAGS:  # no page, which tifffile will say
                return
            file.seek(entries * entry_size, SEEK_CUR)


def _as_rgb(pixels: NDArray[Any], photometric: int) -> NDArray[Any]:
    if photometric != _CMYK:
        return pixels[..., :3]
    # A colour ink c under a black ink k, both from 0 to 1, leave (1 - c)(1 - k) of the light.
    top = float(np.iinfo(pixels.dtype).max)
    light = (top - pixels[..., :3].astype(np.float32)) * (top - pixels[..., 3:4].astype(np.float32)) / top
    return (light + 0.5).astype(pixels.dtype)


def _palette(key: Any) -> NDArray[np.uint8] | None:
    table = key.colormap
    return None if table is None else (np.asarray(table).T >> 8).astype(np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[TiffFile, list[str]]]:
    """Open a file and collect what tifffile logs about it, so that it is neither lost nor printed."""
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
        with tifffile.TiffFile(path) as tif:
            yield tif, logged
    finally:
        log.removeFilter(collect)


def channel_names_and_colors(tif: TiffFile, count: int) -> tuple[ChannelNames, ChannelColors]:
    """Return the names and the RGB colours of the first image's channels, None where the file does not say.

    Metadata that does not make sense is passed over: the pixels can be used without it.
    """
    nothing = (None,) * count
    try:
        if tif.is_ome and tif.ome_metadata:
            return _ome_channels(tif.ome_metadata, count)
        if tif.is_imagej and count > 1:
            return nothing, _imagej_colors((tif.imagej_metadata or {}).get("LUTs"), count)
    except (ElementTree.ParseError, ValueError, TypeError, AttributeError, IndexError):
        pass
    return nothing, nothing


def _ome_channels(xml: str, count: int) -> tuple[ChannelNames, ChannelColors]:
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


def _imagej_colors(tables: Any, count: int) -> ChannelColors:
    """Take the brightest entry of each channel's lookup table, uint8 (3, 256)."""
    if tables is None or len(tables) != count:
        return (None,) * count
    brightest = [np.asarray(table).reshape(3, 256)[:, -1] for table in tables]
    return tuple((int(r), int(g), int(b)) for r, g, b in brightest)


def tiff_pixel_size(tif: TiffFile) -> PixelSize | None:
    """Return the pixel size that OME-XML, ImageJ's or Zeiss LSM's metadata state.

    The resolution of other TIFF files is that of a printer more often than that of a microscope, so it is passed over.
    """
    try:
        if tif.is_ome and tif.ome_metadata:
            return _ome_pixel_size(tif.ome_metadata)
        if tif.is_lsm:
            found: Any = tif.lsm_metadata
            return pixel_size(found["VoxelSizeX"], found["VoxelSizeY"], found["VoxelSizeZ"] or None, "m")
        if tif.is_imagej:
            return _imagej_pixel_size(tif)
    except (ElementTree.ParseError, ArithmeticError, ValueError, TypeError, AttributeError, LookupError):
        pass  # the pixels can be used without it
    return None


def _ome_pixel_size(xml: str) -> PixelSize | None:
    """Read ``Pixels/@PhysicalSizeX`` and its unit, µm when left out (OME schema 2016-06)."""
    pixels = ElementTree.fromstring(xml).find(".//{*}Image/{*}Pixels")
    if pixels is None:
        return None
    x, y, z = (pixels.get(f"PhysicalSize{axis}") for axis in "XYZ")
    return pixel_size(x, y, z, [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XYZ"])


def _imagej_pixel_size(tif: TiffFile) -> PixelSize | None:
    """Read the resolution tags (pixels a unit), with the unit and the slices' distance from ImageJ's description."""
    metadata = tif.imagej_metadata or {}
    sizes = []
    for name in ("XResolution", "YResolution"):
        pixels, units = tif.pages.first.tags[name].value
        sizes.append(units / pixels)
    return pixel_size(sizes[0], sizes[1], metadata.get("spacing"), str(metadata.get("unit", "")))
