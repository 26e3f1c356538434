"""``rois/STEM.zip``: one file an image for ImageJ's ROI Manager (*More → Open* or a drop on ImageJ's window).

An object is a freehand selection with subpixel coordinates in single precision, which is within 0.004 px up to
131,072 px. An outline with holes is a composite selection. Tags and figures are in the ROI's properties, and objects of
the same first tag are of one group, which gives them one colour.
"""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.writers.names import figure, printable
from sam2_fewshot.writers.per_image import a_file_an_image
from sam2_fewshot.writers.whole import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from roifile import ImagejRoi
    from shapely import Polygon

    from sam2_fewshot.writers.record import Add, FrameRecord

_MOST_GROUPS = 255
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0
"""Steps of a path in a composite selection: those of Java's ``PathIterator``."""


@contextmanager
def roi_files(folder: Path, tags: Sequence[str]) -> Iterator[Add]:
    """Write one zip file of ROIs an image; an image's frames must follow one another.

    Parameters
    ----------
    folder
        Where to put the files.
    tags
        Tags of every object, where the record does not have its own.

    Yields
    ------
    Add
        Takes the frames.
    """
    with a_file_an_image(lambda record: roi_file(folder / f"{record.stem}.zip", tags)) as add:
        yield add


@contextmanager
def roi_file(path: Path, tags: Sequence[str]) -> Iterator[Add]:
    """Write the ROIs of one image, as :func:`roi_files` does."""
    groups: dict[str, int] = {}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(
            record: FrameRecord, number: int, roi: ImagejRoi, own: Sequence[str], figures: Mapping[str, Any]
        ) -> None:
            roi.name = _name(record, number)
            own = [printable(tag) for tag in own]
            roi.props = _properties(own, figures)
            if own:
                roi.group = min(groups.setdefault(own[0], len(groups) + 1), _MOST_GROUPS)
            _place(roi, record)
            # With a date, the same finds would not give the same file.
            archive.writestr(zipfile.ZipInfo(f"{roi.name}.roi", _EARLIEST), roi.tobytes(), zipfile.ZIP_DEFLATED)

        def add(record: FrameRecord) -> None:
            with telling(path):
                for number, item in enumerate(record.detections, start=1):
                    figures = {
                        "score": figure(item.score),
                        "similarity": figure(item.similarity),
                        "predicted_iou": figure(item.predicted_iou),
                        "area_px": item.area,
                    }
                    put(record, number, _selection(item.polygon), record.tags_of(number, tags), figures)
                for number, point in enumerate(record.points, start=len(record.detections) + 1):
                    put(record, number, _point(point.xy), point.tags, {})

        yield add


def _selection(polygon: Polygon) -> ImagejRoi:
    from roifile import ROI_TYPE, ImagejRoi

    rings = [np.asarray(ring.coords, float)[:-1, :2] for ring in (polygon.exterior, *polygon.interiors)]
    roi = ImagejRoi.frompoints(rings[0], name="")
    if len(rings) == 1:
        return roi
    path: list[float] = []
    for ring in rings:
        for step, (x, y) in enumerate(ring.tolist()):
            path += [_LINE if step else _MOVE, x, y]
        path.append(_CLOSE)
    composite = ImagejRoi()
    composite.roitype = ROI_TYPE.RECT
    composite.left, composite.top, composite.right, composite.bottom = roi.left, roi.top, roi.right, roi.bottom
    composite.multi_coordinates = np.array(path, np.float32)
    composite.shape_roi_size = len(path)
    return composite


def _point(xy: tuple[float, float]) -> ImagejRoi:
    from roifile import ROI_TYPE, ImagejRoi

    roi = ImagejRoi.frompoints(np.array([xy], float), name="")
    roi.roitype = ROI_TYPE.POINT
    return roi


def _name(record: FrameRecord, number: int) -> str:
    z = f"z{record.location.z + 1}_" if record.size_z > 1 else ""
    time = f"t{record.location.time + 1}_" if record.size_t > 1 else ""
    return f"{z}{time}{number:04d}"


def _place(roi: ImagejRoi, record: FrameRecord) -> None:
    """Put a ROI on its plane: by slice and frame in a hyperstack, by its place in a plain stack."""
    sizes = max(1, len(record.channel_names)), record.size_z, record.size_t
    z, time = record.location.z + 1, record.location.time + 1
    if sum(size > 1 for size in sizes) > 1:
        roi.z_position, roi.t_position = z, time
    elif record.size_z * record.size_t > 1:
        roi.position = max(z, time)


def _properties(tags: Sequence[str], figures: Mapping[str, Any]) -> str:
    lines = [f"tag{f' {n}' if n > 1 else ''}: {' '.join(tag.split())}\n" for n, tag in enumerate(tags, start=1)]
    lines += [f"{name}: {value}\n" for name, value in figures.items() if value is not None]
    return "".join(lines)
