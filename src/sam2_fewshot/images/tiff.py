"""TIFF, OME-TIFF and ImageJ hyperstacks, by tifffile: planes one at a time, without the rest of the file in memory."""

from __future__ import annotations

import logging
import math
import threading
from contextlib import contextmanager
from dataclasses import replace
from os import SEEK_CUR
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.pixel_size import tiff_pixel_size
from sam2_fewshot.images.source import Header, check_kind, check_size, damaged, reading
from sam2_fewshot.images.tiff_region import can_cut, cut, piece_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from tifffile import TiffFile, TiffPageSeries

    from sam2_fewshot.records import Box

_MOST_TAGS = 4096
_NAMED = "TZCSYX"
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
        with reading(path), _opened(path) as (tif, said):
            self._samples, self.header = _look(path, tif, said)
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
            pick = _Picker(series)
            for channel in range(1 if header.is_photo else header.size_c // self._samples):
                pixels = pick.plane(z, t, channel, box)
                if header.is_photo:
                    yield _as_rgb(pixels, int(series.keyframe.photometric))
                elif pixels.ndim == 3:
                    for sample in range(self._samples):
                        yield pixels[..., sample]
                else:
                    yield pixels


class _Picker:
    """Finds the pixels of one plane in a series of pages."""

    def __init__(self, series: TiffPageSeries) -> None:
        self.series = series
        self.shape = tuple(int(n) for n in series.get_shape(squeeze=False))
        self.axes = str(series.get_axes(squeeze=False))
        self.memory: NDArray[Any] | None = None
        offset = series.dataoffset
        if offset is not None:
            holder = series.keyframe.parent
            dtype = np.dtype(series.dtype).newbyteorder(holder.byteorder)
            self.memory = np.memmap(holder.filehandle.path, dtype, "r", int(offset), self.shape)
        # Pages hold the trailing axes, all of them or some.
        self.split = next(
            (k for k in range(len(self.shape), -1, -1) if math.prod(self.shape[k:]) == series.keyframe.size),
            None,
        )

    def size(self, kind: str) -> int:
        """Return the number of steps along the axes of a kind; Z stands for all axes without another meaning."""
        return math.prod(n for axis, n in zip(self.axes, self.shape, strict=True) if self._kind(axis) == kind)

    def plane(self, z: int, t: int, c: int, box: Box | None = None) -> NDArray[Any]:
        """Return one channel or a region of it, (H, W) or, when pixels have several samples, (H, W, S)."""
        index: list[int | slice] = [slice(None)] * len(self.shape)
        for kind, position in (("Z", z), ("T", t), ("C", c)):
            places = [i for i, axis in enumerate(self.axes) if self._kind(axis) == kind]
            if places:
                steps = np.unravel_index(position, [self.shape[i] for i in places])
                for i, step in zip(places, steps, strict=True):
                    index[i] = int(step)
        left = "".join(axis for axis, at in zip(self.axes, index, strict=True) if isinstance(at, slice))
        if box is not None:
            x0, y0, x1, y1 = box
            index[self.axes.index("Y")], index[self.axes.index("X")] = slice(y0, y1), slice(x0, x1)
        pixels = np.asarray(self._block(index, box))
        order = [left.index(axis) for axis in ("YXS" if "S" in left else "YX")]
        pixels = pixels.transpose(order)
        return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))

    def _block(self, index: list[int | slice], box: Box | None) -> NDArray[Any]:
        if self.memory is not None:
            return self.memory[tuple(index)]
        split = self.split
        if split is None:
            raise ValueError("its pages do not have the size that its description says")
        number = 0
        for at, n in zip(index[:split], self.shape[:split], strict=True):
            if isinstance(at, slice):
                raise ValueError(f"its pages are ordered in an unknown way: {self.axes}")
            number = number * n + at
        page = self.series.pages[number] if number < len(self.series.pages) else None
        if page is None:  # a plane that OME-XML names and the file lacks
            return np.zeros(self.shape[split:], self.series.dtype)[tuple(index[split:])]
        axes, shape = self.axes[split:], list(self.shape[split:])
        alone = all(n == 1 for axis, n in zip(axes, shape, strict=True) if axis not in "YXS")
        if box is not None and alone and can_cut(page):
            pixels: NDArray[Any] = cut(page, box)
            for axis, size in (("Y", box[3] - box[1]), ("X", box[2] - box[0])):
                place = axes.index(axis)
                shape[place], index[split + place] = size, slice(None)
            return pixels.reshape(shape)[tuple(index[split:])]
        pixels = page.asarray()
        return pixels.reshape(shape)[tuple(index[split:])]

    @staticmethod
    def _kind(axis: str) -> str:
        return axis if axis in _NAMED else "Z"


def _look(path: Path, tif: TiffFile, said: list[str]) -> tuple[int, Header]:
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
        by_region = first is not None and can_cut(first)
    check_size(path, height, width, by_region)
    check_kind(path, np.dtype(series.dtype))
    _check_whole(path, tif, said)
    pick = _Picker(series)
    notes = [f"{path.name} has {len(tif.series)} images; the first is read."] if len(tif.series) > 1 else []
    unnamed = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis not in _NAMED and n > 1]
    if unnamed:
        count = math.prod(n for _, n in unnamed)
        notes.append(
            f"{path.name} does not say what its {count} pages are; they are taken as Z slices. If they are channels "
            "or time points, save it as OME-TIFF or as an ImageJ hyperstack."
        )
    if any("issing" in line for line in said):
        notes.append(f"{path.name} lacks some of the planes that its description names; those are black.")
    samples, channels, photometric = pick.size("S"), pick.size("C"), int(key.photometric)
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
    names, colors = channel_looks(tif, 1 if photo else channels * samples)
    header = Header(path, height, width, np.dtype(series.dtype).newbyteorder("="), warnings=tuple(notes))
    header = replace(
        header,
        size_c=1 if photo else channels * samples,
        size_z=pick.size("Z"),
        size_t=pick.size("T"),
        by_region=by_region,
        is_photo=photo,
        is_inverted=photometric == _MINISWHITE,
        palette=_palette(key) if photometric == _PALETTE else None,
        channel_names=names,
        channel_colors=colors,
        pixel_size=tiff_pixel_size(tif),
    )
    return samples, header


def _check_whole(path: Path, tif: TiffFile, said: list[str]) -> None:
    """Refuse a file that ends before its pixels do; pages in the middle show it when they are read."""
    series = tif.series[0]
    key: Any = series.keyframe
    length = path.stat().st_size
    if any("invalid page offset" in line or "invalid offset to page" in line for line in said):
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
    """Return where a series that lies in one piece should end."""
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
    """Open a file and collect what tifffile logs about it, so that it is neither lost nor shown as it is."""
    import tifffile

    said: list[str] = []
    here = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        if record.thread == here:
            said.append(record.getMessage())
        return False

    log = logging.getLogger("tifffile")
    log.addFilter(collect)
    try:
        with tifffile.TiffFile(path) as tif:
            yield tif, said
    finally:
        log.removeFilter(collect)


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
