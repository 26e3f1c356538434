"""The journal of finished frames: the truth that every output file is assembled from.

One file a frame, an ``.npz`` archive without pickles:

==============  ==========================  ===============================================================
member          dtype, shape                content
==============  ==========================  ===============================================================
``header``      uint8 (bytes of JSON)       format, version, fingerprint and the record's small fields
``boxes``       int64 (N, 4)                crop of each find's mask, ``x0, y0, x1, y1``: the detections, of which the
                                            header has the number, then what lies below the threshold
``bits``        uint8                       the crops row by row, each packed to whole bytes, in a row
``figures``     float64 (N, 3)              score, similarity, predicted IoU
``outlines``    uint8                       well-known binary of the finds' polygons, then the examples'
``lengths``     int64 (N + E,)              bytes of each outline
==============  ==========================  ===============================================================

Everything comes back bit by bit.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from sam2_fewshot.records import Detection, InstanceMask, Location
from sam2_fewshot.writers.record import ExampleMark, FrameRecord
from sam2_fewshot.writers.whole import replacing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

JOURNAL_FOLDER = ".frames"
"""Name of the journal's folder in the output folder."""

_FORMAT = "sam2-fewshot frame"
_VERSION = 2
_NAME = re.compile(r"xy(\d+)_z(\d+)_t(\d+)\.npz")


@dataclass(frozen=True, slots=True)
class Journal:
    """Finished frames on disk.

    Parameters
    ----------
    folder
        Where to keep them; it is made at the first write.
    fingerprint
        What the frames depend on (inputs, settings, model) in a string. Frames recorded under another
        fingerprint count as not done.
    """

    folder: Path
    fingerprint: str

    def done(self, location: Location) -> FrameRecord | None:
        """Return a frame's record, None when the frame must be done (again).

        A file that is damaged, cut off, of another version or under another fingerprint counts as not done.
        """
        path = self._path(location)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                header = _header(archive)
                if header["fingerprint"] != self.fingerprint or Location(*header["location"]) != location:
                    return None
                return _unpack(header, archive)
        except Exception:  # a damaged archive fails in a dozen ways, and the answer to all is the same
            return None

    def write(self, record: FrameRecord) -> None:
        """Record a finished frame; it replaces an earlier record of the same location.

        The file appears when it is whole. The record's location is taken for the detections' too.

        Raises
        ------
        InputError
            If it cannot be written (disk full, no permission).
        """
        with replacing(self._path(record.location)) as path, path.open("wb") as file:
            np.savez_compressed(file, **_pack(record, self.fingerprint))

    def records(self, locations: Collection[Location] | None = None) -> Iterator[FrameRecord]:
        """Yield the finished frames by XY, then Z, then Time.

        One at a time is in memory. With `locations`, only those are given.
        """
        for location in self.locations():
            if locations is None or location in locations:
                record = self.done(location)
                if record is not None:
                    yield record

    def locations(self) -> list[Location]:
        """Return the locations for which there is a file, of whatever fingerprint, in order."""
        found = (_NAME.fullmatch(path.name) for path in self._files())
        return sorted(Location(*map(int, name.groups())) for name in found if name)

    def preview(self, location: Location) -> Path:
        """Return where the small picture of a frame belongs that the report shows."""
        return self._path(location).with_suffix(".jpg")

    def _path(self, location: Location) -> Path:
        return self.folder / f"xy{location.xy:06d}_z{location.z:05d}_t{location.time:05d}.npz"

    def _files(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except OSError:
            return []


def _header(archive: Any) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(archive["header"].tobytes())
    if header["format"] != _FORMAT or header["version"] != _VERSION:
        raise ValueError("not a frame record of this version")
    return header


def _pack(record: FrameRecord, fingerprint: str) -> dict[str, Any]:
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "fingerprint": fingerprint,
        "name": record.name,
        "stem": record.stem,
        "location": [record.location.xy, record.location.z, record.location.time],
        "frame_shape": list(record.frame_shape),
        "size_z": record.size_z,
        "size_t": record.size_t,
        "candidates": record.candidates,
        "seconds": {stage: float(seconds) for stage, seconds in record.seconds.items()},
        "negative": [mark.negative for mark in record.examples],
        "warnings": list(record.warnings),
        "kept": len(record.detections),
        "threshold": record.threshold,
        "floor": record.floor,
    }
    found = (*record.detections, *record.below)
    outlines: list[bytes] = [
        shapely.to_wkb(geometry)
        for geometry in [
            *(detection.polygon for detection in found),
            *(mark.outline for mark in record.examples),
        ]
    ]
    bits = [np.packbits(detection.instance.data.astype(bool, copy=False)) for detection in found]
    return {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "boxes": np.array([detection.instance.box for detection in found], np.int64).reshape(-1, 4),
        "bits": np.concatenate([np.zeros(0, np.uint8), *bits]),
        "figures": np.array([(item.score, item.similarity, item.predicted_iou) for item in found], np.float64).reshape(
            -1, 3
        ),
        "outlines": np.frombuffer(b"".join(outlines), np.uint8),
        "lengths": np.array([len(outline) for outline in outlines], np.int64),
    }


def _unpack(header: dict[str, Any], archive: Any) -> FrameRecord:
    boxes, figures, bits = archive["boxes"], archive["figures"], archive["bits"]
    shape = (int(header["frame_shape"][0]), int(header["frame_shape"][1]))
    location = Location(*header["location"])
    outlines = _outlines(archive["outlines"].tobytes(), archive["lengths"])
    detections = []
    start = 0
    for (x0, y0, x1, y1), (score, similarity, predicted_iou), polygon in zip(
        boxes.tolist(), figures.tolist(), outlines[: len(boxes)], strict=True
    ):
        width, height = x1 - x0, y1 - y0
        stop = start + (width * height + 7) // 8
        data = np.unpackbits(bits[start:stop], count=width * height).astype(bool).reshape(height, width)
        start = stop
        instance = InstanceMask(data, x0, y0, shape)
        detections.append(Detection(instance, polygon, score, similarity, predicted_iou, location))
    marks = zip(outlines[len(boxes) :], header["negative"], strict=True)
    return FrameRecord(
        name=header["name"],
        stem=header["stem"],
        location=location,
        frame_shape=shape,
        size_z=header["size_z"],
        size_t=header["size_t"],
        detections=tuple(detections[: header["kept"]]),
        candidates=header["candidates"],
        seconds=header["seconds"],
        examples=tuple(ExampleMark(outline, negative) for outline, negative in marks),
        warnings=tuple(header["warnings"]),
        below=tuple(detections[header["kept"] :]),
        threshold=header["threshold"],
        floor=header["floor"],
    )


def _outlines(data: bytes, lengths: np.ndarray) -> list[Any]:
    stops = np.cumsum(lengths).tolist()
    starts = [0, *stops][:-1]
    return [shapely.from_wkb(data[start:stop]) for start, stop in zip(starts, stops, strict=True)]
