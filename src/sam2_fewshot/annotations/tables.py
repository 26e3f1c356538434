"""Tables with one row an object: ``detections.csv`` and ``detections.parquet``."""

from __future__ import annotations

import csv
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sam2_fewshot.annotations.record import printable
from sam2_fewshot.errors import spelt
from sam2_fewshot.records import FIGURES
from sam2_fewshot.storage.files import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sam2_fewshot.annotations.record import Add, FrameRecord
    from sam2_fewshot.records import InstanceMask


COLUMNS = (
    *("image", "position", "xy", "z", "time", "id", "score", "similarity", "predicted_iou", "area_px"),
    *("x0", "y0", "x1", "y1", "centroid_x", "centroid_y", "area_um2", "kind"),
)
"""The header. See :func:`write_csv` for what the columns hold."""
_DIGITS = {
    **dict.fromkeys(FIGURES, ".6f"),
    **dict.fromkeys(("centroid_x", "centroid_y"), ".3f"),
    "area_um2": ".6g",
}


@contextmanager
def write_csv(path: Path, tags: Sequence[str] = ()) -> Iterator[Add]:
    r"""Write ``detections.csv`` (UTF-8, commas, a header, a point as decimal mark).

    ``image`` is the file's name, with folders where several images have that name; ``position`` is that of the image
    in it where it has several; ``xy``, ``z`` and ``time`` count from 1 as in the app; ``id`` is the object's value in
    the frame's label image. ``score``, ``similarity`` and ``predicted_iou`` have six digits and are empty when there is
    no figure. ``area_px`` counts the mask's pixels. ``x0, y0, x1, y1`` is the mask's box, half open. The centroid is
    the mean of the pixels' centres, in image pixels.
    ``area_um2`` is the area in µm², empty where the image's file does not tell how large a pixel is. ``kind`` is
    ``example`` for what the user marked, ``confirmed`` for what the user marked as right in earlier results, and
    ``found`` for all else; the first two have a score of 1, since nobody is surer of them. It is empty where that is
    not known.

    A file name that a spreadsheet would take for a formula (it begins with ``=``, ``+``, ``-`` or ``@``:
    https://owasp.org/www-community/attacks/CSV_Injection) gets an apostrophe before it; tabs, line breaks and the
    like in it are written as ``\t``, ``\n`` and so on.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)

        def add(record: FrameRecord) -> None:
            with telling(path):
                for row in _rows(record):
                    rows.writerow([_cell(name, value) for name, value in row.items()])

        yield add


def centroid(instance: InstanceMask) -> tuple[float, float] | None:
    """Return the mean ``(x, y)`` of a mask's pixel centres in image pixels, None when it is empty."""
    rows, columns = instance.data.nonzero()
    if not rows.size:
        return None
    return float(instance.x0 + columns.mean() + 0.5), float(instance.y0 + rows.mean() + 0.5)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return format(value, _DIGITS.get(name, ""))
    # A line break in a cell is legal CSV, but few programs read it right (Python's own writes a lone \r unquoted).
    line = spelt(printable(value))
    return ("'" if line[:1] in tuple("=+-@") else "") + line


_WHOLE = frozenset({"xy", "z", "time", "id", "area_px", "x0", "y0", "x1", "y1"})


@contextmanager
def write_parquet(path: Path, tags: Sequence[str] = ()) -> Iterator[Add]:
    """Write the columns of :func:`write_csv`, unrounded, with null where there is no figure.

    ``image``, ``position`` and ``kind`` are text as they are, whole numbers are int64, all others double. A frame with
    objects is a row group.
    """
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {name: pa.int64() if name in _WHOLE else pa.float64() for name in COLUMNS}
    kinds |= {"image": pa.string(), "position": pa.string(), "kind": pa.string()}
    schema = pa.schema([(name, kinds[name]) for name in COLUMNS])
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:

        def add(record: FrameRecord) -> None:
            rows = list(_rows(record))
            if rows:
                with telling(path):
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))

        yield add


def _rows(record: FrameRecord) -> Iterator[dict[str, Any]]:
    """Yield what is known of each object by column, unrounded, None where there is no figure."""
    place = record.location.xy + 1, record.location.z + 1, record.location.time + 1
    for number, item in zip(record.ids, record.detections, strict=True):
        figures = (
            value if math.isfinite(value) else None for value in (item.score, item.similarity, item.predicted_iou)
        )
        middle = centroid(item.instance) or (None, None)
        area = None if record.pixel_size is None else item.area * record.pixel_size.area
        kind = item.kind and str(item.kind)
        names = record.full_name, record.position
        row = (*names, *place, number, *figures, item.area, *map(int, item.bbox), *middle, area, kind)
        yield dict(zip(COLUMNS, row, strict=True))
