"""Detections as plain arrays, for NumPy archives without pickles; all comes back bit by bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from sam2_fewshot.geometry.overlap import boxes_of
from sam2_fewshot.records import Detection, InstanceMask, Kind
from sam2_fewshot.storage.arrays import ArrayArchive, Layout, Unfit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import IO

    from numpy.typing import NDArray

    from sam2_fewshot.records import Location

KINDS = (None, *Kind)
"""The kinds in the order of their numbers in archives, to which further ones may only be added at the end."""

_MOST_BYTES = 2_000_000_000
"""The arrays of an archive may take so much together: those of a million objects take less."""
_MOST_PIXELS = 4_000_000_000
"""The boxes of masks may have so many pixels together, each of which takes a byte once it is unpacked."""
_FARTHEST = 1e15  # that an outline may lie from the first pixel
_HEADER = Layout("u1", ("bytes",), longest=10_000_000)
_DETECTIONS = {
    "figures": Layout("f8", ("masks", 3), may_be_nan=True, may_be_empty=True),
    "kinds": Layout("u1", ("masks",), most=len(KINDS) - 1, may_be_empty=True, is_optional=True),
    "lengths": Layout("i8", ("outlines",), least=0, most=_MOST_BYTES, may_be_empty=True),
}


def write_archive(file: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write a NumPy archive of arrays after a header, which is stored as JSON in an array of that name."""
    np.savez_compressed(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


def open_archive(file: bytes | IO[bytes], name: str, versions: Collection[int]) -> tuple[dict[str, Any], ArrayArchive]:
    """Return the header and the arrays of what :func:`write_archive` wrote; they are unpacked when they are asked for.

    A damaged archive fails in a dozen ways, here or later.

    Parameters
    ----------
    file
        What it wrote, or the file that it wrote to.
    name, versions
        What the header must have as ``format``, and one of which as ``version``.
    """
    archive = ArrayArchive(file, _MOST_BYTES)
    header = json.loads(archive.take({"header": _HEADER})["header"].tobytes())
    if header["format"] != name or header["version"] not in versions:
        raise ValueError(f"not a {name} of this version")
    return header, archive


def pack_detections(detections: Sequence[Detection], further: Sequence[Any] = ()) -> dict[str, NDArray[Any]]:
    """Return detections, and the outlines of something else, as arrays.

    Returns
    -------
    dict
        ``boxes`` and ``bits`` of :func:`pack_masks`; ``figures``, score, similarity and predicted IoU, float64 (N, 3);
        ``kinds``, places in :data:`KINDS`, uint8 (N,);
        ``outlines``, the well-known binary of the detections' polygons and of the further outlines in a row, uint8; and
        ``lengths``, the bytes of each, int64.
    """
    boxes, bits = pack_masks([detection.instance for detection in detections])
    figures = [(item.score, item.similarity, item.predicted_iou) for item in detections]
    parts: list[bytes] = [shapely.to_wkb(outline) for outline in (*(item.polygon for item in detections), *further)]
    return {
        "boxes": boxes,
        "bits": bits,
        "figures": np.array(figures, np.float64).reshape(-1, 3),
        "kinds": np.array([KINDS.index(item.kind) for item in detections], np.uint8),
        "outlines": np.frombuffer(b"".join(parts), np.uint8),
        "lengths": np.array([len(part) for part in parts], np.int64),
    }


def unpack_detections(
    archive: ArrayArchive, frame_shape: tuple[int, int], location: Location
) -> tuple[list[Detection], list[Any]]:
    """Return the detections and the further outlines that :func:`pack_detections` packed.

    Parameters
    ----------
    archive
        Of what it returned. Versions up to 0.2.0 had no kinds; all of theirs were found.
    frame_shape
        ``(height, width)`` of the frame in pixels.
    location
        Of the frame.

    Raises
    ------
    ValueError
        If it holds what :func:`pack_detections` does not return. What is damaged may raise other errors as well.
    """
    masks = unpack_masks(archive, frame_shape)
    arrays = archive.take(_DETECTIONS)
    if np.isnan(arrays["figures"][:, 0]).any():
        raise Unfit("a score is no number")
    outlines = _outlines(archive, arrays["lengths"])
    if not (shapely.get_type_id(outlines[: len(masks)]) == shapely.GeometryType.POLYGON).all():
        raise Unfit("an object's outline is no polygon")
    kinds = arrays["kinds"].tolist() if "kinds" in arrays else [KINDS.index(Kind.FOUND)] * len(masks)
    detections = [
        Detection(mask, outline, score, similarity, predicted_iou, location, KINDS[kind])
        for mask, outline, (score, similarity, predicted_iou), kind in zip(
            masks, outlines[: len(masks)], arrays["figures"].tolist(), kinds, strict=True
        )
    ]
    return detections, list(outlines[len(masks) :])


def _outlines(archive: ArrayArchive, lengths: NDArray[np.int64]) -> NDArray[np.object_]:
    stops = np.cumsum(lengths).tolist()
    layout = Layout("u1", (stops[-1] if stops else 0,), may_be_empty=True)
    content = archive.take({"outlines": layout})["outlines"].tobytes()
    parts = [content[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
    with np.errstate(invalid="ignore"):
        outlines: NDArray[np.object_] = shapely.from_wkb(np.array(parts, object))
        is_near = np.abs(shapely.get_coordinates(outlines)) < _FARTHEST  # which nothing that is no number is
    types = shapely.get_type_id(outlines)
    is_known = (types == shapely.GeometryType.POLYGON) | (types == shapely.GeometryType.POINT)
    if not (is_near.all() and is_known.all()) or shapely.is_empty(outlines).any():
        raise Unfit("an outline is no polygon or point, or lies nowhere")
    return outlines


def pack_masks(masks: Sequence[InstanceMask]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the crops' boxes, int64 (N, 4), ``x0, y0, x1, y1``, and their pixels.

    The pixels are uint8, the crops row by row, each packed to whole bytes, in a row.
    """
    bits = [np.packbits(mask.data.astype(bool, copy=False)) for mask in masks]
    return boxes_of(masks), np.concatenate([np.zeros(0, np.uint8), *bits])


def unpack_masks(archive: ArrayArchive, frame_shape: tuple[int, int], prefix: str = "") -> list[InstanceMask]:
    """Return the masks that :func:`pack_masks` packed.

    Parameters
    ----------
    archive
        Of what it returned: ``boxes`` and ``bits``.
    frame_shape
        ``(height, width)`` of the frame in pixels.
    prefix
        What their names there begin with.

    Raises
    ------
    ValueError
        As :func:`unpack_detections`.
    """
    height, width = frame_shape
    layout = Layout("i8", (f"{prefix}masks", 4), least=0, most=(width, height, width, height), may_be_empty=True)
    boxes = archive.take({f"{prefix}boxes": layout})[f"{prefix}boxes"].tolist()
    shapes = [(y1 - y0, x1 - x0) for x0, y0, x1, y1 in boxes]
    counts = [height * width for height, width in shapes]
    if any(min(shape) < 0 for shape in shapes) or sum(counts) > _MOST_PIXELS:
        raise Unfit("a box ends before it begins, or all are too large")
    sizes = [(count + 7) // 8 for count in counts]
    # No more is unpacked than the boxes hold.
    name, layout = f"{prefix}bits", Layout("u1", (sum(sizes),), may_be_empty=True)
    bits = archive.take({name: layout})[name]
    masks, start = [], 0
    for (x0, y0, *_), shape, count, size in zip(boxes, shapes, counts, sizes, strict=True):
        data = np.unpackbits(bits[start : start + size], count=count).astype(bool).reshape(shape)
        masks.append(InstanceMask(data, x0, y0, frame_shape))
        start += size
    return masks
