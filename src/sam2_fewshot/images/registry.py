"""The formats of image files: one line each, and what is the same for all of them.

A new format is a module beside this one with a function that opens the images in a file, each a
:class:`~sam2_fewshot.images.source.PixelSource`, and a line in :data:`FORMATS`. Modules of formats are imported when a
file of theirs is opened.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.addresses import DOUBLE_SUFFIX, is_zarr, remote, stem_of
from sam2_fewshot.images.source import kind_of, reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sam2_fewshot.images.source import Header, PixelSource


class ImageFormat(NamedTuple):
    """How a format is called, read and recognised.

    Parameters
    ----------
    names
        For messages.
    opener
        The module beside this one, and the function in it that takes and gives what :func:`open_positions` does.
    suffixes
        Of its files, in lower case with blanks between; folders are searched for images by them.
    starts
        First bytes of its files, up to four; a format without any is recognised by its suffix.
    """

    names: str
    opener: str
    suffixes: str = ""
    starts: tuple[bytes, ...] = ()


COMPANION = ImageFormat("companion OME-XML", "tiff.open_companion", ".ome")
"""The description of a set of TIFF files, recognised by its name: ``a.companion.ome`` or ``a.ome.xml``."""
OME_ZARR = ImageFormat("OME-Zarr", "ome_zarr.open_ome_zarr")
"""A folder or an address, recognised by :func:`~sam2_fewshot.images.addresses.is_zarr`."""

_TIFF = ".tif .tiff .btf .tf8 .lsm .svs .ndpi .scn .qptiff"
FORMATS = (
    ImageFormat("TIFF", "tiff.open_tiff", _TIFF, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ImageFormat("JPEG 2000", "jpeg2000.open_jpeg2000", ".jp2 .j2k .j2c .jpc .jpf .jpx", (b"\0\0\0\x0c", b"\xffO\xffQ")),
    ImageFormat("PNG, JPEG", "picture.open_picture", ".png .jpg .jpeg .bmp .gif .webp .ppm .pgm", (b"",)),
    ImageFormat("ND2", "nd2.open_nd2", ".nd2"),
    ImageFormat("LIF", "lif.open_lif", ".lif"),
    ImageFormat("CZI", "czi.open_czi", ".czi"),
    OME_ZARR,
)
"""A suffix goes before first bytes, an earlier line before a later one; pictures take whatever no other format does."""

IMAGE_SUFFIXES = frozenset(suffix for known in FORMATS for suffix in known.suffixes.split())
_OTHER_FORMATS = {".lsm5", ".oib", ".oif", ".vsi", ".mrxs", ".h5", ".hdf5", ".ims"} - IMAGE_SUFFIXES

_LABELS = re.compile(
    r"[ ._-](labels?|masks?|annotations?|annotated|examples?|rois?|roi_?sets?|objects?|instances?|cp_masks?)$",
    re.IGNORECASE,
)
_SAMPLES, _SAMPLE = 16, 4096
"""So many samples of so many bytes of an image file, spread over it, show whether it has changed."""


def open_positions(path: Path, only: int | None = None) -> list[PixelSource]:
    """Open the images in a file, whatever its format: its positions, at least one. No pixels are read.

    Parameters
    ----------
    path
        The file, or an OME-Zarr's folder or address.
    only
        Open this image alone, by the number in its header.

    Raises
    ------
    InputError
        If there is no such file or no such image in it, if it cannot be read as an image, or if the package that reads
        its format is missing.
    ServerError
        If its server does not answer, or answers with an error.
    """
    known = OME_ZARR if is_zarr(path) else _format_of(path)
    module, _, name = known.opener.partition(".")
    found: list[PixelSource] = getattr(importlib.import_module(f"sam2_fewshot.images.{module}"), name)(path, only)
    return found


def open_source(path: Path) -> PixelSource:
    """Open a file that has one image, or the first of them, such as a label image; see :func:`open_positions`.

    Raises
    ------
    InputError
        If there is no such file, or if it cannot be read as an image.
    """
    return open_positions(path)[0]


def _format_of(path: Path) -> ImageFormat:
    kind = kind_of(path)
    if kind == "folder":
        raise InputError(f"{path} is a folder, not an image file.")
    if kind == "missing":
        raise InputError(f"There is no file {path}; check its name and folder.")
    suffix = path.suffix.lower()
    if is_companion(path):
        return COMPANION
    if suffix in _OTHER_FORMATS:
        raise InputError(
            f"{path.name}: files of the kind {path.suffix} are not read; export it as OME-TIFF, TIFF or PNG."
        )
    with reading(path), path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise InputError(f"{path.name} is empty (0 bytes); copy or export it again.")
    by_suffix = [known for known in FORMATS if not known.starts and suffix in known.suffixes.split()]
    return (by_suffix + [known for known in FORMATS if start.startswith(known.starts)])[0]


def is_companion(path: Path) -> bool:
    """Tell whether a file is, by its name, the OME-XML of images in TIFF files beside it."""
    return path.name.lower().endswith((".ome", ".ome.xml"))


def example_stems(path: Path) -> tuple[str, ...]:
    """Return the image stems that a file of examples may belong to, the likeliest first.

    ``a_labels.png`` belongs to an image ``a_labels`` or, more often, ``a``; so do ``a.png``, ``a-mask.tif``,
    ``a.labels.tif`` and ``a_examples.geojson``. ``a.tif.geojson`` belongs to ``a`` too.
    """
    stem = stem_of(path)
    stems = [stem]
    for _ in range(2):
        shorter = _LABELS.sub("", stem)
        inner = shorter.rpartition(".")
        if f".{inner[2].lower()}" in IMAGE_SUFFIXES:
            shorter = inner[0]
        stem = DOUBLE_SUFFIX.sub("", shorter)
        if stem and stem not in stems:
            stems.append(stem)
    return tuple(stems)


def frame_fingerprint(common: str, image: Sequence[object]) -> str:
    """Return the fingerprint of the frames of one image, by its signature; it begins with that of the run."""
    return f"{common}-{hashlib.sha256(json.dumps(image).encode()).hexdigest()}"


def signatures(headers: Sequence[Header]) -> list[list[object]]:
    """Return what shows whether images are the same as before: :func:`signature` of their files, and which they are.

    Parameters
    ----------
    headers
        Of the images; a file that many of them are in is looked at once.
    """
    known: dict[Path, list[object]] = {}
    found: list[list[object]] = []
    for header in headers:
        own: list[object] = []
        for path in dict.fromkeys((header.path, *header.parts)):
            if path not in known:
                known[path] = signature(path)
            own.append(known[path])
        found.append([*own, header.number, header.position] if header.position else own)
    return found


def content_of(image: Sequence[object]) -> str:
    """Return what shows whether an image, by its signature, has the same content, also where it was copied or moved."""
    content = [each[1] if isinstance(each, list) else each for each in image]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def told_apart(found: Iterable[Sequence[object]]) -> list[Sequence[object]]:
    """Return signatures, no two the same: an exact copy, as of a backup among the images, has its number among them."""
    seen: Counter[str] = Counter()
    apart: list[Sequence[object]] = []
    for each in found:
        key = json.dumps(each)
        apart.append([*each, seen[key]] if seen[key] else each)
        seen[key] += 1
    return apart


def signature(path: Path) -> list[object]:
    """Return what shows whether an image is the same as before: name, content, and time of the last change.

    Reading a terabyte again only to hash it would take longer than most runs, so the content is the size and a few
    samples. Of an OME-Zarr the names, sizes and times of all its files are taken, and the beginnings of a few; of one
    on the web the metadata, so that changed pixels go unnoticed there.
    """
    if remote(path) is not None:
        from sam2_fewshot.images.ome_zarr import metadata_text

        return [remote(path), hashlib.sha256(metadata_text(path).encode()).hexdigest(), None]
    if path.is_dir():
        content, times = hashlib.sha256(), hashlib.sha256()
        files = [file for file in sorted(path.rglob("*")) if not file.is_dir()]
        for file in files:
            status = file.stat()
            content.update(json.dumps([file.relative_to(path).as_posix(), status.st_size]).encode())
            times.update(f"{status.st_mtime_ns} ".encode())
        for number in range(_SAMPLES if files else 0):
            with files[number * (len(files) - 1) // (_SAMPLES - 1)].open("rb") as piece:
                content.update(piece.read(_SAMPLE))
        return [path.name, content.hexdigest(), times.hexdigest()]
    status = path.stat()
    return [path.name, _sampled(path, status.st_size), status.st_mtime_ns]


def _sampled(path: Path, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(number * max(size - _SAMPLE, 0) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
