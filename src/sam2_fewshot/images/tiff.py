"""TIFF, OME-TIFF and ImageJ hyperstacks, by tifffile: planes one at a time, without the rest of the file in memory."""

from __future__ import annotations

import math
from os import SEEK_CUR
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.positions import check_counts, check_positions, opened_positions
from sam2_fewshot.images.source import ORIENTATION, Header, check_kind, check_size, damaged, reading, turned
from sam2_fewshot.images.tiff_metadata import (
    channel_names_and_colors,
    companion_xml,
    files_named,
    opened_tiff,
    series_names,
    tiff_pixel_size,
)
from sam2_fewshot.images.tiff_pixels import NAMED_AXES, SeriesPixels, axes_of, has_regions, piece_rows, series_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from tifffile import TiffFile, TiffPageSeries

    from sam2_fewshot.images.source import PixelSource
    from sam2_fewshot.records import Box

_MOST_TAGS = 4096
_MINISWHITE, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 2, 3, 5, 6
_THUMBNAIL, _MASK = 1, 4
"""Bits of the tag NewSubfileType."""
_KINDS = {"ome", "generic", "uniform", "shaped", "mmstack", "imagej"}
"""Kinds of series, as tifffile calls them, of which each is a position; those of slide scanners are levels, labels and
overviews."""
_KNOWN_PHOTOMETRICS = {_MINISWHITE, 1, _RGB, _PALETTE, _CMYK, _YCBCR}
_LOSSLESS = {1, 5, 8, 32773, 32946, 34925, 50000}
"""None, LZW, Deflate, PackBits, Deflate's older number, LZMA and Zstandard: YCbCr in them stays so, while the decoders
of JPEG and its kin give RGB."""
_PLANAR = 2
_OPACITY = {1, 2}
"""What the tag ExtraSamples says of a sample that is opacity; 0 is any other, such as a channel."""


def open_tiff(path: Path, only: int | None = None) -> list[PixelSource]:
    """Open the images of a TIFF file: series of an OME-TIFF, or pages of different sizes.

    Of a set of files that one OME-XML describes, those images are opened that have pixels in this file. Pages marked as
    thumbnails or masks, and the label and overview pictures of slide scanners, are left out. Images are counted among
    all that the file describes.
    """
    with reading(path):
        _check_chain(path)
    return _open_series(path, None, only)


def open_companion(path: Path, only: int | None = None) -> list[PixelSource]:
    """Open the images that a companion file (``.companion.ome``) describes; see :func:`open_tiff`.

    Raises
    ------
    InputError
        If it is not OME-XML, or the TIFF files that it names are not beside it.
    """
    with reading(path):
        xml = companion_xml(path)
        names = files_named(path, xml)
        if not names:
            raise InputError(f"{path.name} names no TIFF file with pixels; give the TIFF files themselves.")
        missing = [name for name in names if not (path.parent / name).is_file()]
        if missing:
            raise InputError(
                f"{path.name} describes images in {len(names)} files, and {missing[0]} is not beside it. Put all of "
                "them into one folder."
            )
        first = path.parent / names[0]
        _check_chain(first)
    return _open_series(path, first, only)


def _open_series(path: Path, first: Path | None, only: int | None) -> list[PixelSource]:
    """Open the series of a file, or of the files that a companion names, of which the first is given."""
    with reading(path), opened_tiff(path, first) as (tif, logged):
        every = _positions(tif, path if first is None else None)
        check_positions(path, len(every))
        names = dict(zip(every, series_names(tif, every) if len(every) > 1 else ("",), strict=True))

        def opened(number: int) -> TiffSource:
            return TiffSource(path, tif, logged, number, first)

        return opened_positions(path, opened, names, only)


def _positions(tif: TiffFile, path: Path | None) -> list[int]:
    """Return the numbers of the series that are positions; with a path, only those with pixels in that file."""
    every = series_of(tif)
    if len(every) < 2 or every[0].kind not in _KINDS:
        return [0]
    if every[0].kind == "ome":
        chosen = [n for n, series in enumerate(every) if path is None or path.name in {f.name for f in _files(series)}]
    else:
        chosen = [n for n, series in enumerate(every) if not int(series.keyframe.subfiletype) & (_THUMBNAIL | _MASK)]
    return chosen or [0]


def _files(series: TiffPageSeries) -> tuple[Path, ...]:
    """Return the files that hold the pages of a series."""
    if not series.is_multifile:
        return (Path(series.keyframe.parent.filehandle.path),)
    return tuple(sorted({Path(page.parent.filehandle.path) for page in series.pages if page is not None}))


class TiffSource:
    """An image of a TIFF file, at its full resolution; a :class:`~sam2_fewshot.images.source.PixelSource`.

    Parameters
    ----------
    path
        The file.
    tif, logged
        It, or the first file of its set, open; and what tifffile has logged about it.
    number
        Which series it is.
    first
        The first file of the set, where `path` is its companion.

    Raises
    ------
    InputError
        If it cannot be read, is cut off, or claims more pixels than are allowed.
    """

    def __init__(self, path: Path, tif: TiffFile, logged: list[str], number: int, first: Path | None) -> None:
        self._number, self._first = number, first
        self._samples, self.header = _header(path, tif, number, logged)
        series = series_of(tif)[number]
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
        with reading(self.header.path), opened_tiff(self.header.path, self._first) as (tif, _):
            sizes = [math.prod(level.shape) for level in series_of(tif)[self._number].levels]
        planes = self.header.height * self.header.width
        enough = [n for n, size in enumerate(sizes) if n and planes * size >= pixels * sizes[0]]
        return self._read(z, t, None, enough[-1]) if enough else None

    def has_level(self, z: int, t: int, pixels: int) -> bool:
        """Tell whether there is a level of a pyramid that has so many pixels."""
        return self.reduced(z, t, pixels) is not None

    def _read(self, z: int, t: int, box: Box | None, level: int = 0) -> Iterator[NDArray[Any]]:
        header = self.header
        with reading(header.path), opened_tiff(header.path, self._first) as (tif, _):
            series = series_of(tif)[self._number].levels[level]
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


def _header(path: Path, tif: TiffFile, number: int, logged: list[str]) -> tuple[int, Header]:
    """Return the number of samples that count as channels of their own, and the header."""
    every = series_of(tif)
    if number >= len(every) or every[number].dtype is None:
        raise damaged(path, "no image is in it")
    series = every[number]
    key = series.keyframe
    axes, shape = axes_of(series)
    if axes.count("Y") != 1 or axes.count("X") != 1 or axes.count("S") > 1:
        raise InputError(
            f"{path.name} has the axes {axes}, and which of them are an image's rows and columns is not clear."
        )
    height, width = int(shape[axes.index("Y")]), int(shape[axes.index("X")])
    first = series.pages[0]
    if series.dataoffset is not None:  # a size that was made up is not believed
        by_region = _end_of(series) <= _length(series)
    else:
        by_region = first is not None and has_regions(first)
    check_size(path, height, width, by_region)
    check_kind(path, np.dtype(series.dtype))
    _check_whole(path, series, logged)
    pixels_of = SeriesPixels(series)
    check_counts(path, pixels_of.size("C") * pixels_of.size("S"), pixels_of.size("Z"), pixels_of.size("T"))
    notes = []
    if len(every) > 1 and every[0].kind not in _KINDS:
        notes.append(f"{path.name} has {len(every)} images; the first is read.")
    unnamed = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis not in NAMED_AXES and n > 1]
    if unnamed:
        count = math.prod(n for _, n in unnamed)
        notes.append(
            f"{path.name} does not say what its {count} pages are; they are taken as Z slices. If they are channels "
            "or time points, save it as OME-TIFF or as an ImageJ hyperstack."
        )
    if any("issing" in line for line in logged):
        notes.append(f"{path.name} lacks some of the planes that its description names; those are black.")
    notes += turned(path, key.tags.valueof(ORIENTATION), "its tag Orientation")
    files = _files(series)
    samples, channels, photometric = pixels_of.size("S"), pixels_of.size("C"), int(key.photometric)
    if samples == 2 and {int(kind) for kind in key.extrasamples} & _OPACITY:
        samples = 1  # grey and its opacity, which is left out
    if photometric not in _KNOWN_PHOTOMETRICS:
        kind = getattr(key.photometric, "name", photometric)
        raise InputError(f"{path.name} has colours of the kind {kind}; save it as RGB or grey.")
    if photometric == _YCBCR and (int(key.compression) in _LOSSLESS or int(key.planarconfig) == _PLANAR):
        raise InputError(f"{path.name} has colours of the kind YCBCR, which are read from JPEG only; save it as RGB.")
    photo = channels == 1 and (
        (photometric in {_RGB, _YCBCR} and samples in (3, 4)) or (photometric == _CMYK and samples in (4, 5))
    )
    if photometric == _CMYK:
        if not photo or np.dtype(series.dtype).kind != "u":
            raise InputError(f"{path.name} is a CMYK image of an unusual kind; save it as RGB.")
        notes.append(f"{path.name} is a CMYK image; it is converted to RGB without a colour profile.")
    size_c = 1 if photo else channels * samples
    names, colors = channel_names_and_colors(tif, size_c, number)
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
        palette=_palette(key) if photometric == _PALETTE and size_c == 1 else None,  # else they are intensities
        channel_names=names,
        channel_colors=colors,
        warnings=tuple(notes),
        pixel_size=tiff_pixel_size(tif, number),
        parts=() if [file.name for file in files] == [path.name] else files,
    )
    return samples, header


def _length(series: TiffPageSeries) -> int:
    """Return the bytes of the file with the first page of a series."""
    return Path(series.keyframe.parent.filehandle.path).stat().st_size


def _check_whole(path: Path, series: TiffPageSeries, logged: list[str]) -> None:
    """Refuse a file that ends before its pixels do; pages in the middle show it when they are read."""
    key: Any = series.keyframe
    length = _length(series)
    if any("invalid page offset" in line or "invalid offset to page" in line for line in logged):
        raise damaged(path, "its end is missing")
    if series.dataoffset is not None:
        ends = [_end_of(series)]
    else:
        ends = []
        for page in (series.pages[0], series.pages[len(series.pages) - 1]):
            if page is not None and page.parent is key.parent:
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
