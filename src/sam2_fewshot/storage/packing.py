"""Detections as plain arrays, for NumPy archives without pickles; all comes back bit by bit."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from sam2_fewshot.records import Detection, InstanceMask, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import IO

    from numpy.typing import NDArray

    from sam2_fewshot.records import Location

KINDS = (None, *Kind)
"""The kinds in the order of their numbers in archives, to which further ones may only be added at the end."""


def write_archive(file: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write a NumPy archive of arrays after a header, which is stored as JSON in an array of that name."""
    np.savez_compressed(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


@contextmanager
def opened_archive(file: IO[bytes], name: str, versions: Collection[int]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Give the header and the arrays, each unpacked when it is asked for, of what :func:`write_archive` wrote.

    A damaged archive fails in a dozen ways, here or later.

    Parameters
    ----------
    file
        What it wrote to.
    name, versions
        What the header must have as ``format``, and one of which as ``version``.
    """
    with np.load(file, allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        if header["format"] != name or header["version"] not in versions:
            raise ValueError(f"not a {name} of this version")
        yield header, archive


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
    arrays: Mapping[str, NDArray[Any]], frame_shape: tuple[int, int], location: Location
) -> tuple[list[Detection], list[Any]]:
    """Return the detections and the further outlines that :func:`pack_detections` packed.

    Parameters
    ----------
    arrays
        What it returned. Versions up to 0.2.0 had no kinds; all of theirs were found.
    frame_shape
        ``(height, width)`` of the frame in pixels.
    location
        Of the frame.
    """
    content, stops = arrays["outlines"].tobytes(), np.cumsum(arrays["lengths"]).tolist()
    outlines = [shapely.from_wkb(content[start:stop]) for start, stop in zip([0, *stops], stops, strict=False)]
    masks = unpack_masks(arrays["boxes"], arrays["bits"], frame_shape)
    kinds = arrays["kinds"].tolist() if "kinds" in arrays else [KINDS.index(Kind.FOUND)] * len(masks)
    detections = [
        Detection(mask, outline, score, similarity, predicted_iou, location, KINDS[kind])
        for mask, outline, (score, similarity, predicted_iou), kind in zip(
            masks, outlines[: len(masks)], arrays["figures"].tolist(), kinds, strict=True
        )
    ]
    return detections, outlines[len(masks) :]


def pack_masks(masks: Sequence[InstanceMask]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the crops' boxes, int64 (N, 4), ``x0, y0, x1, y1``, and their pixels.

    The pixels are uint8, the crops row by row, each packed to whole bytes, in a row.
    """
    bits = [np.packbits(mask.data.astype(bool, copy=False)) for mask in masks]
    boxes = np.array([mask.box for mask in masks], np.int64).reshape(-1, 4)
    return boxes, np.concatenate([np.zeros(0, np.uint8), *bits])


def unpack_masks(boxes: NDArray[np.int64], bits: NDArray[np.uint8], frame_shape: tuple[int, int]) -> list[InstanceMask]:
    """Return the masks that :func:`pack_masks` packed, of a frame of ``(height, width)`` pixels."""
    masks = []
    start = 0
    for x0, y0, x1, y1 in boxes.tolist():
        width, height = x1 - x0, y1 - y0
        stop = start + (width * height + 7) // 8
        data = np.unpackbits(bits[start:stop], count=width * height).astype(bool).reshape(height, width)
        masks.append(InstanceMask(data, x0, y0, frame_shape))
        start = stop
    return masks
