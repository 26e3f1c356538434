"""ImageJ: a ``.roi`` file, or the ``.zip`` that its ROI Manager saves. Decoded and encoded by roifile."""

from __future__ import annotations

import re
import zipfile
from contextlib import contextmanager
from posixpath import basename, splitext
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely import LineString, Polygon

from sam2_fewshot.annotations.drawings import Drawing
from sam2_fewshot.annotations.named import UNKNOWN
from sam2_fewshot.annotations.record import figures_of, vertices
from sam2_fewshot.annotations.values import Figures
from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.outlines import valid_polygon
from sam2_fewshot.images.source import reading
from sam2_fewshot.records import Location
from sam2_fewshot.storage.files import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO

    from roifile import ImagejRoi

    from sam2_fewshot.annotations.drawings import Ring
    from sam2_fewshot.annotations.named import MarkedFile
    from sam2_fewshot.annotations.placing import Point
    from sam2_fewshot.annotations.record import Add, FrameRecord
    from sam2_fewshot.images.image_file import ImageFile

MAX_ROI_BYTES = 20_000_000
"""Largest single ROI that is read: two million vertices."""
MAX_ZIP_BYTES = 200_000_000
"""A zip file may have this many bytes, packed, and its ROIs together as many unpacked."""

_RECT, _OVAL, _POINT = 1, 2, 10
_OUTLINES = frozenset({0, 7, 8})
"""Polygon, freehand and traced: their vertices are in the file. So are those of ellipses, as a kind of freehand."""
_LINES = {3: "a line", 4: "a freehand line", 5: "a segmented line", 9: "an angle"}
_MARKS = {1: "a text", 2: "an arrow", 4: "a picture"}
"""Subtypes that are not selections."""
_OVAL_POINTS = 128
_MOST_CROSSED = 100
"""Corners of a composite whose rings cross; more take too long to mend, and ImageJ makes none that cross."""
_GUESSED = "a place in the stack may be a time point or a channel as well; convert with --image tells which it is"
_MADE_UP = re.compile(r"[0-9]{3,}(-[0-9]{3,})+(-[0-9]+)?|(z[0-9]+_)?(t[0-9]+_)?[0-9]{4,}")
"""``0123-0456``: the names that the ROI Manager gives, from the ROI's place; ``z1_t1_0001``: those that are given here,
see :func:`_name`."""


def read(file: MarkedFile, max_roi_bytes: int = MAX_ROI_BYTES, max_zip_bytes: int = MAX_ZIP_BYTES) -> Iterator[Drawing]:
    """Yield the ROIs of a file.

    Parameters
    ----------
    file
        A ``.roi`` file, or a zip file of those.
    max_roi_bytes, max_zip_bytes
        Largest ROI, and largest zip file, packed and unpacked, that is read.

    Raises
    ------
    InputError
        If it is neither, or too large.
    """
    image = file.target()
    for count, (name, data) in enumerate(_contents(file.path, max_roi_bytes, max_zip_bytes), 1):
        file.placer.remarks.total += 1
        if data is None:
            yield Drawing(count, why=f"larger than {max_roi_bytes // 10**6} MB")
            continue
        roi = _decoded(data)
        if roi is None:
            yield Drawing(count, why="damaged, or not an ImageJ ROI")
            continue
        with np.errstate(all="ignore"):  # damaged numbers are reported where they are placed
            drawn = list(_drawn(count, roi, name, image))
        if any(not drawing.why for drawing in drawn) and not _has_plane(roi):
            file.placer.without_plane(count, image)
        if any(_is_guessed(drawing.location.z, roi, name, image) for drawing in drawn):
            file.placer.remarks.note(count, "put on a slice", _GUESSED)
        yield from drawn


def _contents(path: Path, max_roi_bytes: int, max_zip_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield name and bytes of each ROI, None for bytes that are too many. Names never become paths."""
    with reading(path):
        if path.suffix.lower() == ".roi":
            with path.open("rb") as file:
                yield path.stem, _limited(file, max_roi_bytes)
            return
        size = path.stat().st_size
        if size > max_zip_bytes:
            raise InputError(
                f"{path.name} is {size // 10**6} MB; zip files of up to {max_zip_bytes // 10**6} MB are read."
            )
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise InputError(
                f"{path.name} is not a whole zip file; save the ROIs again in ImageJ (ROI Manager, More, Save)."
            ) from None
        with archive:
            members = [member for member in archive.infolist() if _is_roi(member.filename)]
            if not members:
                raise InputError(
                    f"There is no ImageJ ROI in {path.name}; a zip file with examples is one that ImageJ's ROI Manager "
                    "saved."
                )
            unpacked = 0
            for member in members:
                data = _unpacked(archive, member, max_roi_bytes)
                unpacked += max_roi_bytes if data is None else len(data)
                if unpacked > max_zip_bytes:
                    raise InputError(
                        f"The ROIs in {path.name} unpack to more than {max_zip_bytes // 10**6} MB, which is not "
                        "believed of examples; save only those that serve as examples."
                    )
                yield splitext(basename(member.filename))[0], data


def _is_roi(name: str) -> bool:
    """Tell whether a member of a zip file is a ROI by its name; macOS puts a ``._0001.roi`` beside each."""
    return name.lower().endswith(".roi") and not basename(name).startswith("._")


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes | None:
    """Return a member's bytes, None when they are too many whatever the archive says, none when it is damaged."""
    try:
        with archive.open(member) as file:
            return _limited(file, most)
    except Exception:  # a wrong checksum, a password, an unknown method, a damaged header: nothing can be read
        return b""


def _limited(file: IO[bytes], most: int) -> bytes | None:
    data = file.read(most + 1)
    return data if len(data) <= most else None


def _decoded(data: bytes) -> ImagejRoi | None:
    from roifile import ImagejRoi

    try:
        with np.errstate(all="ignore"):
            return ImagejRoi.frombytes(data)
    except Exception:  # struct.error, ValueError, TypeError, UnicodeDecodeError and more, by the place of the damage
        return None


def _drawn(count: int, roi: ImagejRoi, file: str, image: ImageFile) -> Iterator[Drawing]:
    kind, what = int(roi.roitype), int(roi.subtype)
    if what in _MARKS or kind in _LINES:
        yield Drawing(count, why=f"{_MARKS.get(what) or _LINES[kind]}; areas and points can be examples")
        return
    properties = _properties(roi)
    tags, figures = _tags(roi, file, properties), _figures(properties)
    if kind == _POINT:
        for number, (at, position, counter) in enumerate(_points(roi), 1):
            more = (*tags, f"counter {counter}") if counter else tags
            where = _location(roi, file, image, position)
            yield Drawing(f"{count}.{number}", where, point=at, tags=more, figures=figures)
        return
    rings, parts = _area(roi)
    if not rings:
        yield Drawing(count, why="without an area")
        return
    where = _location(roi, file, image, roi.position)
    yield Drawing(count, where, rings, is_part=parts > 1, tags=tags, figures=figures)


def _area(roi: ImagejRoi) -> tuple[Sequence[Ring], int]:
    """Return outline and holes of an area selection, and how many parts it has; no rings when it has no area."""
    try:
        if int(roi.roitype) in _OUTLINES:
            points = np.asarray(roi.coordinates(), np.float64)
            if len(points) < 3:
                return (), 0
            return (points[:-1] if (points[0] == points[-1]).all() else points,), 1
        polygon, parts = _polygon_of(roi)
    except (ArithmeticError, ValueError, TypeError, LookupError, RuntimeError, shapely.errors.ShapelyError):
        return (), 0  # a path that makes no sense
    return [vertices(ring) for ring in (polygon.exterior, *polygon.interiors)] if polygon else (), parts


def _polygon_of(roi: ImagejRoi) -> tuple[Polygon | None, int]:
    """Return the outline of a rectangle, an oval or a path, and how many parts it has; None when it has no area."""
    kind = int(roi.roitype)
    if kind == _RECT and roi.composite:
        return _composite(roi)
    if kind not in {_RECT, _OVAL}:
        return None, 0
    x0, y0, x1, y1 = _bounds(roi)
    if not np.isfinite([x0, y0, x1, y1]).all() or x1 <= x0 or y1 <= y0:
        return None, 0
    if kind == _OVAL:
        return _oval(x0, y0, x1, y1), 1
    radius = min(roi.rounded_rect_arc_size, x1 - x0, y1 - y0) / 2
    if radius > 0:
        core = shapely.box(x0 + radius, y0 + radius, x1 - radius, y1 - radius)
        return valid_polygon(core.buffer(radius, quad_segs=32)), 1
    return shapely.box(x0, y0, x1, y1), 1


def _bounds(roi: ImagejRoi) -> tuple[float, float, float, float]:
    if roi.subpixelrect:
        return roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
    return roi.left, roi.top, roi.right, roi.bottom


def _oval(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """Return the polygon with the area of the ellipse in a box."""
    angle = np.arange(_OVAL_POINTS) * (2 * np.pi / _OVAL_POINTS)
    # A polygon of n corners on the ellipse has sin(2π/n) / (2π/n) of its area.
    swell = (2 * np.pi / _OVAL_POINTS / np.sin(2 * np.pi / _OVAL_POINTS)) ** 0.5
    x = (x0 + x1) / 2 + (x1 - x0) / 2 * swell * np.cos(angle)
    y = (y0 + y1) / 2 + (y1 - y0) / 2 * swell * np.sin(angle)
    return Polygon(np.column_stack([x, y]))


def _composite(roi: ImagejRoi) -> tuple[Polygon | None, int]:
    """Return the largest part of a path, its holes left out: what lies in an odd number of rings is inside."""
    rings = [ring for ring in map(_path_ring, roi.coordinates(multi=True)) if ring is not None]
    area = shapely.build_area(shapely.geometrycollections(rings))
    if not area.is_valid and shapely.get_num_coordinates(area) > _MOST_CROSSED:
        return None, 0
    parts = [part for part in shapely.get_parts(area) if isinstance(part, Polygon)]
    return valid_polygon(area), len(parts)


def _path_ring(points: np.ndarray) -> LineString | None:
    points = np.asarray(points, float)
    if len(points) < 3 or not np.isfinite(points).all():
        return None
    return LineString(np.concatenate([points, points[:1]]))


def _points(roi: ImagejRoi) -> Iterator[tuple[Point, int, int]]:
    """Yield each point, the slice of the stack that it is on (0 for none), and its counter."""
    if roi.integer_coordinates is None:
        return
    half = 0.0 if roi.subpixel_coordinates is not None else 0.5
    for number, (x, y) in enumerate(np.asarray(roi.coordinates(), float).tolist()):
        position = int(roi.counter_positions[number]) if roi.counter_positions is not None else 0
        counter = int(roi.counters[number]) if roi.counters is not None else 0
        yield (x + half, y + half), position or roi.position, counter


def _has_plane(roi: ImagejRoi) -> bool:
    """Tell whether a ROI says a slice, a frame or a place in the stack, of points that of any."""
    places = [roi.z_position, roi.t_position, roi.position]
    if roi.counter_positions is not None:
        places += np.asarray(roi.counter_positions).tolist()
    return any(place > 0 for place in places)


def _location(roi: ImagejRoi, file: str, image: ImageFile, position: int) -> Location:
    """Return where a ROI lies: by its slice and frame, or by its place in the stack, channels counted first."""
    z, t = roi.z_position, roi.t_position
    if z > 0 or t > 0:
        return Location(image.xy, max(z, 1) - 1, max(t, 1) - 1)
    place = max(position, 1) - 1
    if image.size_z == UNKNOWN and _is_named(roi, file, "t", place):
        return Location(image.xy, 0, place)
    if place and image.header.size_c * image.size_z * image.size_t > 1:
        place //= image.header.size_c
        return Location(image.xy, place % image.size_z, place // image.size_z)
    return Location(image.xy)


def _is_named(roi: ImagejRoi, file: str, axis: str, place: int) -> bool:
    """Tell whether a ROI has a name that :func:`_name` gives to those of a slice (``z``) or time point (``t``)."""
    return re.fullmatch(f"{axis}{place + 1}_[0-9]{{4,}}", roi.name or file) is not None


def _is_guessed(z: int, roi: ImagejRoi, file: str, image: ImageFile) -> bool:
    """Tell whether nothing says that a ROI's place in the stack is the slice that it was taken for."""
    return image.size_z == UNKNOWN and z > 0 >= max(roi.z_position, roi.t_position) and not _is_named(roi, file, "z", z)


def _tags(roi: ImagejRoi, file: str, properties: Mapping[str, str]) -> tuple[str, ...]:
    tags = [value for key, value in properties.items() if re.fullmatch("tag( [0-9]+)?", key)]
    tags += properties.get("tags", "").split(",")
    if not any(tags):
        name = (roi.name or file).strip()
        if not _MADE_UP.fullmatch(name):
            # The class goes first, since other formats have one: names differ, if only by the number that ImageJ adds,
            # as in ``cell-1``. A number without a dash may be the class's own, as in ``CD4``.
            tags = [re.sub(r"[ ._#-]+[0-9]+$", "", name), name, re.sub(r"[ ._#-]*[0-9]+$", "", name)]
        if roi.group:
            tags.append(f"group {roi.group}")
    return tuple(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))


def _figures(properties: Mapping[str, str]) -> Figures:
    return Figures.of({key: _number(text) for key, text in properties.items()}, kind=properties.get("kind"))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _properties(roi: ImagejRoi) -> dict[str, str]:
    """Return the lines ``key: value`` of a ROI's properties, keys in small letters."""
    lines = (line.partition(":") for line in roi.props.splitlines())
    return {key.strip().lower(): value.strip() for key, colon, value in lines if colon}


_MOST_GROUPS = 255
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0
"""Steps of a path in a composite selection: those of Java's ``PathIterator``."""


@contextmanager
def write(path: Path, tags: Sequence[str], first: FrameRecord) -> Iterator[Add]:
    """Write one zip file with the ROIs of an image."""
    groups: dict[str, int] = {}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(record: FrameRecord, number: int, roi: ImagejRoi, figures: Mapping[str, Any]) -> None:
            roi.name = _name(record, number)
            own = record.tags_of(number, tags)
            roi.props = _roi_properties(own, figures)
            if own:
                roi.group = min(groups.setdefault(own[0], len(groups) + 1), _MOST_GROUPS)
            _place(roi, record)
            # With a date, the same detections would not give the same file.
            archive.writestr(zipfile.ZipInfo(f"{roi.name}.roi", _EARLIEST), roi.tobytes(), zipfile.ZIP_DEFLATED)

        def add(record: FrameRecord) -> None:
            with telling(path):
                for number, item in enumerate(record.detections, start=1):
                    facts = {**figures_of(item), "area_px": item.area, "kind": item.kind}
                    put(record, number, _selection(item.polygon), facts)
                for number, point in record.numbered_points():
                    put(record, number, _point(point.xy), {})

        yield add


def _selection(polygon: Polygon) -> ImagejRoi:
    from roifile import ROI_TYPE, ImagejRoi

    rings = [vertices(ring) for ring in (polygon.exterior, *polygon.interiors)]
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
    """Put a ROI on its plane: by slice and frame in a hyperstack, by its place in a plain stack.

    A place in the stack counts the channels and all slices too, so it is wrong where these are not known.
    """
    if not record.is_stack:
        return
    z, time = record.location.z + 1, record.location.time + 1
    sizes = len(record.channel_names), record.size_z, record.size_t
    if not record.channel_names or sum(size > 1 for size in sizes) > 1:
        roi.z_position, roi.t_position = z, time
    else:
        roi.position = max(z, time)


def _roi_properties(tags: Sequence[str], figures: Mapping[str, Any]) -> str:
    lines = [f"tag{f' {n}' if n > 1 else ''}: {' '.join(tag.split())}\n" for n, tag in enumerate(tags, start=1)]
    lines += [f"{name}: {value}\n" for name, value in figures.items() if value is not None]
    return "".join(lines)
