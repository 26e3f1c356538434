"""COCO: outlines, run-length masks, compressed or not, and boxes (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from sam2_fewshot.annotations.drawings import Drawing, area_within
from sam2_fewshot.annotations.named import UNKNOWN, Entry, ImageNames, nominal_header
from sam2_fewshot.annotations.placing import PlacedExemplar, Regions
from sam2_fewshot.annotations.record import a_line_each, vertices
from sam2_fewshot.annotations.values import MOST_IMAGES, Figures, index, json_number, words
from sam2_fewshot.geometry.run_lengths import compress, decode, encode, expand
from sam2_fewshot.images.source import MAX_PLANE_PIXELS
from sam2_fewshot.records import FIGURES, Location
from sam2_fewshot.storage.files import replacing, telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sam2_fewshot.annotations.drawings import Ring
    from sam2_fewshot.annotations.named import MarkedFile
    from sam2_fewshot.annotations.placing import Placer
    from sam2_fewshot.annotations.record import Add, FrameRecord
    from sam2_fewshot.images.source import Header
    from sam2_fewshot.records import Detection, InstanceMask

_QUOTED = 40


@dataclass(frozen=True, slots=True)
class _Image:
    """What a COCO file says about an image: ``(height, width)`` is None where it says none."""

    entry: Entry
    shape: tuple[int, int] | None
    z: int
    time: int


def recognises(content: Any) -> bool:
    """Tell whether the content of a JSON file is COCO's."""
    return (
        isinstance(content, dict)
        and all(isinstance(content.get(key), list) for key in ("images", "annotations"))
        and content.get("type") not in ("Feature", "FeatureCollection")  # GeoJSON that holds more than its features
    )


def images_in(path: Path, content: Mapping[str, Any]) -> list[Header]:
    """Return the images that a file speaks of, with the sizes that it tells."""
    found: dict[Entry, Header] = {}
    for image in _images(content).values():
        size_z, size_t = image.z + 1, image.time + 1
        name, position = key = image.entry
        if key in found:
            before = found[key]
            size_z, size_t = max(size_z, before.size_z), max(size_t, before.size_t)
        shape = image.shape or (UNKNOWN, UNKNOWN)
        header = nominal_header(Path(name or "image"), shape, size_z, size_t)
        found[key] = replace(header, position=position)
    return list(found.values())[:MOST_IMAGES]


def _images(content: Mapping[str, Any]) -> dict[object, _Image]:
    """Return the images that a file speaks of, by their ids."""
    found: dict[object, _Image] = {}
    for entry in content["images"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int | str):
            continue
        name = entry.get("file_name")
        name = _relative(name) if isinstance(name, str) else ""
        height, width = index(entry.get("height")), index(entry.get("width"))
        shape = (height, width) if height and width and height > 0 and width > 0 else None
        z, time = index(entry.get("z", 0)), index(entry.get("time", 0))
        position = entry.get("position")
        called = Entry(name, position if isinstance(position, str) else "")
        found[entry["id"]] = _Image(called, shape, z or 0, time or 0)
    return found


def _relative(name: str) -> str:
    """Return a file's name with its folders, none of which leads up or to the root."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def read(file: MarkedFile) -> Iterator[Drawing | PlacedExemplar]:
    """Yield the objects of a file; what has a mask alone is placed already.

    Where a file speaks of one image of another name, the image that the file itself is named after, or the only one,
    is taken; where the user says the image, that one.
    """
    placer, content = file.placer, file.content
    image = file.image or (file.images[0] if len(file.images) == 1 else None)
    known = _images(content)
    entries = {each.entry for each in known.values()}
    found, unclear = ImageNames(file.images).of_entries(entries)
    places = {key: found.get(each.entry) for key, each in known.items()}
    if (said := file.said(len(entries))) is not None:
        places = dict.fromkeys(known, said)
    elif image is not None and len(entries) == 1 and not found:
        only = " ".join(next(iter(entries))).strip()
        placer.remarks.warn(
            f"{placer.remarks.file} speaks of {only or 'an image'}; its objects are taken to lie on {image.name}."
        )
        places = dict.fromkeys(known, image)
    classes = _classes(content)
    regions = Regions(placer.remarks)
    has_planes = any(isinstance(entry, dict) and not {"z", "time"}.isdisjoint(entry) for entry in content["images"])
    for count, annotation in enumerate(content["annotations"], 1):
        placer.remarks.total += 1
        key = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(annotation, dict) or not isinstance(key, int | str) or key not in known:
            yield Drawing(count, why="of an image that the file does not name")
            continue
        if annotation.get("iscrowd") == 1:
            if not _is_mask_of_cvat(annotation):
                yield Drawing(count, why="a crowd (iscrowd: 1), which is several objects in one")
                continue
            placer.remarks.note(count, "taken as one object", "iscrowd is 1, which CVAT writes of every mask")
        named, target = known[key], places[key]
        if target is None and named.entry in unclear:
            yield Drawing(count, why=f"on an image that could be several of those given ({named.entry.file[:_QUOTED]})")
            continue
        if target is None:
            yield Drawing(
                count, why=f"on an image that was not given ({named.entry.file[:_QUOTED] or 'without a name'})"
            )
            continue
        if named.shape is not None and named.shape != target.shape:
            height, width = named.shape
            yield Drawing(
                count,
                why=f"on an image of {width} × {height} px, but {target.name} is {target.shape[1]} × "
                f"{target.shape[0]} px",
            )
            continue
        if not has_planes:
            placer.without_plane(count, target)
        category = annotation.get("category_id")
        tags = classes.get(category, ()) if isinstance(category, int | str) else ()
        tags = tuple(dict.fromkeys((*tags, *words(annotation.get("tags")))))
        figures = Figures.of(annotation, kind=annotation.get("kind"))
        drawing = Drawing(count, Location(target.xy, named.z, named.time), tags=tags, figures=figures)
        yield _object(drawing, annotation, placer, regions)


def _is_mask_of_cvat(annotation: Mapping[str, Any]) -> bool:
    """Tell whether an annotation is a mask as CVAT writes it, which calls each a crowd.

    Its writer, Datumaro, sets ``iscrowd`` where it writes run lengths, and has ``attributes``, which COCO does not know
    (``datumaro/plugins/data_formats/coco/exporter.py``).
    """
    return isinstance(annotation.get("segmentation"), dict) and isinstance(annotation.get("attributes"), dict)


def _object(
    drawing: Drawing, annotation: Mapping[str, Any], placer: Placer, regions: Regions
) -> Drawing | PlacedExemplar:
    """Return what an annotation draws."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if not placer.frames.has(drawing.location):
            return drawing
        frame = placer.frames.frame(drawing.location)
        try:
            instance = _mask(segmentation, frame.shape)
        except ValueError as error:
            return replace(drawing, why=f"a mask that cannot be read ({error})")
        if not instance.area:
            return replace(drawing, why="an empty mask")
        outline, holes = _outline(annotation.get("outline")), annotation.get("holes")
        # Files of earlier versions do not tell whether the outline has no holes or only lacks them.
        if outline is not None and (isinstance(holes, list) or not _has_holes(instance)):
            inner = (_outline(ring) for ring in holes or ())
            rings = (outline, *(ring for ring in inner if ring is not None))
            return replace(drawing, rings=rings, instance=instance)
        exemplar = regions.exemplar(drawing.number, frame, instance)
        return PlacedExemplar(exemplar, drawing.tags, drawing.figures, instance)
    parts = [_outline(part) for part in segmentation] if isinstance(segmentation, list) else []
    outlines = [part for part in parts if part is not None]
    if not outlines:
        corners = _corners(annotation.get("bbox"))
        if corners is None:
            return replace(drawing, why="without an outline or a mask, and without a box")
        return replace(drawing, box=corners)
    if len(outlines) == 1:
        return replace(drawing, rings=(outlines[0],))
    return replace(drawing, rings=(max(outlines, key=area_within),), is_part=True)


def _mask(value: Mapping[str, Any], frame_shape: tuple[int, int]) -> InstanceMask:
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or [index(n) for n in size] != list(frame_shape):
        raise ValueError("it is not of its image's size")
    if frame_shape[0] * frame_shape[1] > MAX_PLANE_PIXELS:
        raise ValueError(f"its image has more than {MAX_PLANE_PIXELS:,} px")
    if isinstance(counts, str):
        return decode(expand(counts), frame_shape)
    if not isinstance(counts, list):
        raise ValueError("it has no counts")
    whole = [index(n) for n in counts]
    if not whole or None in whole:
        raise ValueError("its counts are not whole numbers")
    return decode(np.array(whole, np.int64), frame_shape)


def _has_holes(instance: InstanceMask) -> bool:
    return bool((ndimage.binary_fill_holes(instance.data) > instance.data).any())


def _outline(value: Any) -> Ring | None:
    """Return the points of a list ``x, y, x, y, …``, None when it is not one of at least three."""
    if not isinstance(value, list | np.ndarray) or len(value) < 6 or len(value) % 2:
        return None
    if isinstance(value, np.ndarray):
        return value.reshape(-1, 2) if value.ndim == 1 else None
    numbers = [json_number(entry) for entry in value]
    return None if None in numbers else np.array(numbers, np.float64).reshape(-1, 2)


def _corners(value: Any) -> tuple[float, float, float, float] | None:
    """Return ``(x0, y0, x1, y1)`` of a list ``x, y, width, height``, None when it is not one."""
    numbers = [json_number(entry) for entry in value] if isinstance(value, list) and len(value) == 4 else [None]
    if None in numbers:
        return None
    x, y, width, height = (entry for entry in numbers if entry is not None)
    return x, y, x + width, y + height


def _classes(content: Mapping[str, Any]) -> dict[object, tuple[str, ...]]:
    categories = content.get("categories")
    found: dict[object, tuple[str, ...]] = {}
    for entry in categories if isinstance(categories, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("id"), int | str) and entry.get("no_class") is not True:
            found[entry["id"]] = words(entry.get("name"))
    return found


_NO_CLASS = {"name": "object", "no_class": True}
"""The category of objects without a class, which COCO does not know; it is read back as none."""


@contextmanager
def write(path: Path, tags: Sequence[str]) -> Iterator[Add]:
    """Write one COCO file for all frames; each frame is an image of it.

    Objects marked by a point are left out, since COCO has no place for them.
    """
    images: list[dict[str, object]] = []
    categories: dict[str | None, int] = {}
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"info": {"description": "Objects found or converted by sam2-fewshot"},\n"annotations": [')
        put = a_line_each(file)

        def add(record: FrameRecord) -> None:
            nonlocal count
            images.append(_image_entry(record, len(images) + 1))
            with telling(path):
                for number, item in enumerate(record.detections, start=1):
                    own = record.tags_of(number, tags)
                    category = categories.setdefault(own[0] if own else None, len(categories) + 1)
                    count += 1
                    entry = {"id": count, "image_id": len(images), "category_id": category, **_annotation(item)}
                    if len(own) > 1:
                        entry["tags"] = own
                    put(json.dumps(entry, ensure_ascii=False, allow_nan=False))

        yield add
        listed = [{"id": key, **(_NO_CLASS if name is None else {"name": name})} for name, key in categories.items()]
        file.write(f'],\n"images": {json.dumps(images, ensure_ascii=False)},\n')
        file.write(f'"categories": {json.dumps(listed, ensure_ascii=False)}}}\n')


def _image_entry(record: FrameRecord, key: int) -> dict[str, object]:
    height, width = record.frame_shape
    image: dict[str, object] = {
        "id": key,
        "file_name": record.full_name,
        "width": width,
        "height": height,
    }
    if record.position:
        image["position"] = record.position
    if record.is_stack:
        image |= {"z": int(record.location.z), "time": int(record.location.time)}
    return image


def _annotation(item: Detection) -> dict[str, object]:
    x0, y0, x1, y1 = (int(n) for n in item.bbox)
    return {
        "segmentation": {"size": list(item.instance.frame_shape), "counts": compress(encode(item.instance))},
        "area": item.area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
        **{name: float(value) for name in FIGURES if np.isfinite(value := getattr(item, name))},
        **({} if item.kind is None else {"kind": item.kind}),
        "outline": vertices(item.polygon.exterior).ravel().tolist(),
        "holes": [vertices(ring).ravel().tolist() for ring in item.polygon.interiors],
    }
