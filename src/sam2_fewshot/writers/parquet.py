"""``detections.parquet``: the table of ``detections.csv`` with typed columns, for pandas, polars, R and databases."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sam2_fewshot.writers.names import printable
from sam2_fewshot.writers.table import COLUMNS, centroid
from sam2_fewshot.writers.whole import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sam2_fewshot.writers.record import Add, FrameRecord

_WHOLE = frozenset({"xy", "z", "time", "id", "area_px", "x0", "y0", "x1", "y1"})


@contextmanager
def parquet_table(path: Path) -> Iterator[Add]:
    """Write the columns of :func:`~sam2_fewshot.writers.table.table`, unrounded, with null where there is no figure.

    ``image`` is text as it is, whole numbers are int64, all others double. A frame with objects is a row group.

    Parameters
    ----------
    path
        The file to write.

    Yields
    ------
    Add
        Takes the frames.
    """
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {name: pa.int64() if name in _WHOLE else pa.float64() for name in COLUMNS} | {"image": pa.string()}
    schema = pa.schema([(name, kinds[name]) for name in COLUMNS])
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:

        def add(record: FrameRecord) -> None:
            rows = list(_rows(record))
            if rows:
                with telling(path):
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))

        yield add


def _rows(record: FrameRecord) -> Iterator[dict[str, Any]]:
    place = record.location.xy + 1, record.location.z + 1, record.location.time + 1
    for number, item in enumerate(record.detections, start=1):
        figures = (
            value if math.isfinite(value) else None for value in (item.score, item.similarity, item.predicted_iou)
        )
        middle = centroid(item.instance) or (None, None)
        area = None if record.pixel_size is None else item.area * record.pixel_size.area
        row = (printable(record.name), *place, number, *figures, item.area, *map(int, item.bbox), *middle, area)
        yield dict(zip(COLUMNS, row, strict=True))
