"""Objects and images as files: the readers, the writers and the sample of the manifest."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.arrays import label_image, masks_of, records_of
from sam2_fewshot.annotations.convert import read_records
from sam2_fewshot.annotations.registry import FORMATS
from sam2_fewshot.annotations.review import CONFIRMED, EXAMPLE, UNWANTED, Part, Results
from sam2_fewshot.annotations.values import as_kind
from sam2_fewshot.errors import InputError, counted
from sam2_fewshot.files.corrections import RIGHT, WRONG
from sam2_fewshot.geometry.outlines import mask_to_area, polygon_to_mask
from sam2_fewshot.napari.marks import outline_of
from sam2_fewshot.protocols import Quiet
from sam2_fewshot.records import FIGURES, Detection, PixelSize, whole_box
from sam2_fewshot.sample import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from shapely import Polygon

    from sam2_fewshot.annotations.arrays import PlaneIndex
    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.annotations.registry import Format
    from sam2_fewshot.records import InstanceMask

LayerData = tuple[Any, dict[str, Any], str]

_FORMATS = {".json": "nimbus", ".geojson": "geojson", ".tif": "labels", ".tiff": "labels", ".zarr": "zarr"}
_KINDS = {UNWANTED: UNWANTED, WRONG: UNWANTED, CONFIRMED: CONFIRMED, RIGHT: CONFIRMED, EXAMPLE: EXAMPLE}
"""Tags that stand for kinds."""


def nuclei() -> list[LayerData]:
    """Return the bundled image."""
    from PIL import Image

    return [(np.asarray(Image.open(sample().image)), {"name": "nuclei"}, "image")]


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Return the reader of a file of marked objects; None for several files, and for an OME-Zarr without labels."""
    if isinstance(path, list) or (Path(path).is_dir() and not (Path(path) / "labels").is_dir()):
        return None
    return read


def read(path: str | list[str]) -> list[LayerData]:
    """Return the objects of a file as layers: labels where a pixel belongs to one object, else shapes and points."""
    assert isinstance(path, str)
    images: dict[str, list[FrameRecord]] = {}
    for record in read_records(Path(path)):
        images.setdefault(record.stem, []).append(record)
    layers: list[LayerData] = []
    for stem, records in images.items():
        if Path(path).suffix.lower() in (".json", ".geojson", ".roi", ".zip"):
            layers += _outlines(stem, records)
        else:
            layers.append(_labels(stem, records))
    return layers


def _labels(stem: str, records: Sequence[FrameRecord]) -> LayerData:
    first = records[0]
    axes = [length for length in (first.size_t, first.size_z) if length > 1]
    # In the order of the file, whose numbers the labels then are where it counts without gaps.
    results = Results((*axes, *first.frame_shape), (len(axes), len(axes) + 1), by_score=False)
    box = whole_box(first.frame_shape)
    results.add(*(Part(_at(record, first), box, record.detections, 0.0) for record in records))
    features = {**results.table(), **_columns(records)}
    return label_image(results), {"name": stem, "features": features}, "labels"


def _at(record: FrameRecord, first: FrameRecord) -> tuple[int, ...]:
    place = record.location
    return tuple(at for at, size in ((place.time, first.size_t), (place.z, first.size_z)) if size > 1)


def _outlines(stem: str, records: Sequence[FrameRecord]) -> Iterator[LayerData]:
    # Where the file does not tell how many slices there are, those count that have objects.
    is_many = [max(getattr(record.location, name) for record in records) > 0 for name in ("time", "z")]
    axes = ["time" * is_many[0], "z" * is_many[1]]
    shapes, points, tags, holes = [], [], [], 0
    for record in records:
        place = [getattr(record.location, name) for name in axes if name]
        for item in record.detections:
            xy = np.asarray(item.polygon.exterior.coords)[:-1, :2] - 0.5
            shapes.append(np.column_stack([np.tile(place, (len(xy), 1)), xy[:, ::-1]]))
            holes += bool(item.polygon.interiors)
        points += [[*place, point.xy[1] - 0.5, point.xy[0] - 0.5] for point in record.points]
        tags += [_joined(point.tags) for point in record.points]
    if holes:
        Quiet().warn(f"The holes of {counted(holes, 'outline')} of {stem} are filled: shapes in napari have none.")
    if shapes:
        options = {"name": stem, "features": _columns(records), "shape_type": "polygon", "face_color": "transparent"}
        yield shapes, {**options, "edge_color": "#00e5ff", "edge_width": 1}, "shapes"
    if points:
        yield (
            np.array(points),
            {"name": f"{stem} points", "features": {"tags": tags}, "face_color": "#00e5ff"},
            "points",
        )


def _columns(records: Sequence[FrameRecord]) -> dict[str, list[Any]]:
    """Return what the files tell about the objects, a column each; ``id`` is that of tables."""
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "kind", "tags", *FIGURES)}
    for record in records:
        for number, (own, item) in enumerate(zip(record.ids, record.detections, strict=True), 1):
            tags = record.tags_of(number, ())
            said = [_KINDS[tag] for tag in tags if tag in _KINDS]
            columns["id"].append(own)
            columns["kind"].append(UNWANTED if UNWANTED in said else str(item.kind or next(iter(said), "")))
            columns["tags"].append(_joined(tags))
            for name in FIGURES:
                columns[name].append(getattr(item, name))
    return columns


def _joined(tags: Sequence[str]) -> str:
    """Return tags with commas between them, one that has a comma itself in quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(tags)
    return text.getvalue()


def _split(text: str) -> list[str]:
    return [tag for tag in next(csv.reader([" ".join(text.split())], skipinitialspace=True), []) if tag]


def write_labels(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write a layer of labels in one of the package's formats, by the ending; figures are taken from its features."""
    finest = data[0] if isinstance(data, Sequence) else data
    features = _features(attributes)
    rows = {int(label): row for row, label in enumerate(features.get("index", ()))}
    objects = [
        (place, *_object(mask, mask_to_area(mask), features, rows.get(label)))
        for place in np.ndindex(*finest.shape[:-2])
        for label, mask in masks_of(np.asarray(finest[place]))
    ]
    return _write(Path(path), objects, tuple(finest.shape), attributes)


def write_shapes(path: str, data: Sequence[Any], attributes: Mapping[str, Any]) -> list[str]:
    """Write a layer of shapes as :func:`write_labels` writes labels; lines and open paths are left out."""
    features = _features(attributes)
    given = attributes.get("shape_type", "polygon")
    kinds = [given] * len(data) if isinstance(given, str) else given
    outlines = [
        outline_of(str(kind), np.asarray(each)[:, :-3:-1] + 0.5) for kind, each in zip(kinds, data, strict=True)
    ]
    corners = [np.asarray(each).max(axis=0) for each in data]
    shape = tuple(max(1, int(n)) for n in np.max(corners, axis=0) + 2) if corners else (1, 1)
    objects = []
    for row, (each, outline) in enumerate(zip(data, outlines, strict=True)):
        if outline is not None and (mask := polygon_to_mask(outline, (shape[-2], shape[-1]))).area:
            place = tuple(int(n) for n in np.round(np.asarray(each)[0, :-2]))
            objects.append((place, *_object(mask, outline, features, row)))
    return _write(Path(path), objects, shape, attributes)


def _features(attributes: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {str(name): np.asarray(column) for name, column in dict(attributes.get("features", {})).items()}


def _object(
    mask: InstanceMask, outline: Polygon, features: Mapping[str, NDArray[Any]], row: int | None
) -> tuple[Detection, tuple[str, ...]]:
    """Return an object, and its tags, as its row of the features tells."""
    score, similarity, iou = (
        float(features[name][row]) if name in features and row is not None else np.nan for name in FIGURES
    )
    kind, tags = _cell(features, "kind", row), _split(_cell(features, "tags", row))
    item = Detection(mask, outline, score, similarity, iou, kind=as_kind(kind))
    if "tags" not in features:
        return item, (kind,) * bool(kind)
    # The kind may have been changed since the tags were read, and "not this" is kept as a tag alone.
    is_unwanted = kind == UNWANTED
    fitting = [tag for tag in tags if (_KINDS.get(tag, kind) == UNWANTED) == is_unwanted]
    is_missing = len(fitting) < len(tags) or (is_unwanted and _KINDS.keys().isdisjoint(fitting))
    return item, tuple(dict.fromkeys([*fitting, *[kind] * is_missing]))


def _cell(features: Mapping[str, NDArray[Any]], name: str, row: int | None) -> str:
    """Return a text of the features, an empty one where there is none."""
    value = features[name][row] if name in features and row is not None else None
    is_text = isinstance(value, str) or (isinstance(value, int | np.integer) and not isinstance(value, bool))
    return str(value) if is_text else ""  # where there is none stands NaN, or the like


def _write(
    path: Path,
    objects: Sequence[tuple[PlaneIndex, Detection, tuple[str, ...]]],
    shape: PlaneIndex,
    attributes: Mapping[str, Any],
) -> list[str]:
    form = FORMATS[_FORMATS[path.suffix.lower()]]
    form.check(form.suffixes[0])
    if not objects:
        raise InputError(f"{attributes.get('name', 'The layer')} has no objects to write.")
    records = records_of(path.stem, objects, shape, attributes.get("axis_labels", ()), _pixel_size(attributes))
    last = max(record.location.xy for record in records)
    if last and form.per_image:
        raise InputError(
            f"{attributes.get('name', 'The layer')} has objects at position {last + 1}, counted along its axes that "
            f"are neither time nor Z, and a {path.suffix} file holds one position. Save the layer as .json, which "
            "holds all; or save each position as a layer of its own. Where the axes are time or Z, name them t or z in "
            "the layer's axis_labels."
        )
    _warn_of_lost(form, objects)
    with form.begin(lambda stem: path, ()) as add:
        for record in records:
            add(record)
    return [str(path)]


def _warn_of_lost(form: Format, objects: Sequence[tuple[PlaneIndex, Detection, tuple[str, ...]]]) -> None:
    holes = sum(bool(item.polygon.interiors) for _, item, _ in objects)
    if holes and not form.has_holes:
        Quiet().warn(
            f"The holes of {counted(holes, 'outline')} are filled: the format {form.name} has none. Save as .geojson "
            "to keep them."
        )
    if not form.has_figures and any(tags or item.kind or math.isfinite(item.score) for _, item, tags in objects):
        Quiet().warn(
            f"Classes, kinds and scores are left out: the format {form.name} has no place for them. Save as .zarr or "
            ".geojson to keep them."
        )


def _pixel_size(attributes: Mapping[str, Any]) -> PixelSize | None:
    """Return the size of a pixel, None when the layer's scale is not in a unit of length."""
    try:
        y, x = (
            float((float(step) * unit).to("micrometer").magnitude)
            for step, unit in zip(attributes["scale"][-2:], attributes["units"][-2:], strict=True)
        )
    except Exception:  # no units, or pixels: the unit's library has many errors, and the answer to all is the same
        return None
    return PixelSize(x, y)
