"""Between napari's layers and marks: what is drawn, painted or clicked, and the layer *Marks*."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from shapely import Polygon

from sam2_fewshot.annotations.arrays import masks_of, plane_slices
from sam2_fewshot.annotations.review import EXAMPLE, Mark
from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.outlines import mask_to_polygon, polygons_to_masks, valid_polygon
from sam2_fewshot.napari.layers import COLORS, finest, mapping, same_grid

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.arrays import PlaneIndex
    from sam2_fewshot.napari.layers import Scene
    from sam2_fewshot.records import InstanceMask

Known = dict[tuple[Any, ...], Mark | None]
"""What shapes are as marks, None for those that are none, by all that it depends on but their kinds."""

_DRAG = 4.0
"""Canvas pixels; the mouse moves less in a click."""
_CORNERS = 64
_STRAIGHT = 0.25
"""Pixels; nothing but corners on straight lines is that near, and napari takes long for corners."""
_CLOSED = 1.0
"""Pixels; the ends of a path that is an outline are no farther apart."""


def outline_of(shape_type: str, points: NDArray[Any]) -> Polygon | None:
    """Return the outline of a shape of napari's, None for a line, an open path, and what has no area.

    Parameters
    ----------
    shape_type
        What napari calls it.
    points
        Its vertices ``(x, y)``, float (N, 2); of an ellipse the corners around it.
    """
    if shape_type == "ellipse" and len(points) == 4:
        angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)[:, None]
        middle, along, up = points.mean(axis=0), (points[1] - points[0]) / 2, (points[3] - points[0]) / 2
        points = middle + np.cos(angle) * along + np.sin(angle) * up
    is_open = shape_type == "path" and len(points) and np.hypot(*(points[0] - points[-1])) > _CLOSED
    return None if len(points) < 3 or shape_type == "line" or is_open else valid_polygon(Polygon(points))


def mark_of(mask: InstanceMask, place: PlaneIndex, kind: str = EXAMPLE) -> Mark:
    """Return an object as a mark, with no more corners than its pixels need."""
    return Mark(place, mask_to_polygon(mask, _STRAIGHT), kind, mask)


def marks_in(layer: Any, scene: Scene, known: Known | None = None) -> tuple[list[Mark], list[str]]:
    """Return the shapes or labels of a layer as marks, and sentences about what is left out.

    Rectangles, ellipses and closed paths are polygons. A feature ``kind`` tells what is not wanted.

    Parameters
    ----------
    layer, scene
        A layer that may lie elsewhere in the world than the image, and the image.
    known
        What was made of the shapes before. It is brought up to date, and what is in it is not made again.
    """
    if getattr(layer, "ndim", 0) != len(scene.shape):
        raise InputError(
            f"{layer.name} has {layer.ndim} axes, but {scene.reference.name} has {len(scene.shape)}; draw on a layer "
            "of the same axes."
        )
    if isinstance(layer, Labels):
        return _marks_of_labels(layer, scene), []
    known = {} if known is None else known
    matrix, shift = mapping(layer, scene.reference)
    placed = matrix.tobytes(), shift.tobytes(), scene.shape, scene.axes
    shapes = [(str(kind), np.asarray(data, float)) for kind, data in zip(layer.shape_type, layer.data, strict=True)]
    keys = [(kind, data.tobytes(), *placed) for kind, data in shapes]
    new = {
        key: mark
        for key, (kind, data) in zip(keys, shapes, strict=True)
        # Rounded, so that what lies where the image lies has its own vertices exactly.
        if key not in known and (mark := _mark_of_shape(kind, np.round(data @ matrix + shift, 6), scene)) is not None
    }
    masks = polygons_to_masks([mark.outline for mark in new.values()], [scene.plane_shape] * len(new))
    made = {key: replace(mark, mask=mask) for (key, mark), mask in zip(new.items(), masks, strict=True) if mask.area}
    listed = {key: known[key] if key in known else made.get(key) for key in keys}
    known.clear()
    known.update(listed)
    kinds = layer.features["kind"] if "kind" in layer.features else [EXAMPLE] * len(keys)
    marks = [
        replace(mark, kind=str(kind) if kind in COLORS else EXAMPLE)
        for key, kind in zip(keys, kinds, strict=True)
        if (mark := listed[key]) is not None
    ]
    bad = len(keys) - len(marks)
    sentence = f"{bad} of {len(keys)} shapes of {layer.name} are left out: a line, an open path, or outside the image."
    return marks, [sentence] if bad else []


def _mark_of_shape(shape_type: str, data: NDArray[np.float64], scene: Scene) -> Mark | None:
    """Return a shape as a mark, None where it has no area or does not lie on one plane."""
    across = np.round(data[:, scene.others]).astype(int)
    outline = outline_of(shape_type, data[:, [scene.axes[1], scene.axes[0]]] + 0.5)
    if outline is None or not (across == across[:1]).all():
        return None
    place = tuple(map(int, across[0]))
    return Mark(place, outline) if scene.has(place) else None


def _marks_of_labels(layer: Any, scene: Scene) -> list[Mark]:
    """Return the objects of a label image on the plane that is displayed."""
    data, reference = finest(layer), scene.reference
    if tuple(data.shape) != scene.shape:
        raise InputError(
            f"{layer.name} is of the shape {tuple(data.shape)}, but {reference.name} of {scene.shape}; labels "
            "must have the image's own pixels."
        )
    if not same_grid(layer, reference):
        (begin, end), (other_begin, other_end) = (each.extent.world.round(2).tolist() for each in (layer, reference))
        raise InputError(
            f"{layer.name} reaches from {begin} to {end} in the world, but {reference.name} from {other_begin} to "
            f"{other_end}; labels must have the image's own pixels. Give the layer the image's scale and translation."
        )
    labels = np.asarray(data[plane_slices(scene.place, scene.axes, len(scene.shape))])
    return [mark_of(mask, scene.place) for _, mask in masks_of(labels)]


def points_in(layer: Any, scene: Scene) -> tuple[list[tuple[float, float]], int]:
    """Return the points ``(x, y)`` of a layer on the plane that is displayed, and how many lie elsewhere."""
    here = []
    for point in np.asarray(layer.data, float):
        world = layer.data_to_world(point)
        at = np.round(scene.reference.world_to_data(world))[scene.others].astype(int)
        xy = scene.xy(world)
        if xy is not None and tuple(map(int, at)) == scene.place:
            here.append(xy)
    return here, len(layer.data) - len(here)


def clicked_or_dragged(viewer: Any, event: Any) -> Generator[None, None, list[Any]]:
    """Follow the mouse until it is let go, and return the world position of a click, or two corners of a box."""
    start, at, dragged = np.array(event.pos), event.position, False
    yield
    while event.type == "mouse_move":
        dragged = dragged or float(np.abs(np.array(event.pos) - start).max()) > _DRAG
        viewer.status = "A box: let go for the outline of what is in it." if dragged else ""
        yield
    return [at, event.position] if dragged else [at]


def add_layer(viewer: Any, scene: Scene) -> Any:
    """Add the layer *Marks*."""
    width = max(1.0, max(scene.plane_shape) / 500)
    look = {"face_color": "transparent", "edge_color": COLORS[EXAMPLE], "edge_width": width}
    kinds = {"features": {"kind": np.array([], object)}, "feature_defaults": {"kind": EXAMPLE}}
    return viewer.add_shapes(ndim=len(scene.shape), name="Marks", **look, **kinds)


def add_marks(layer: Any, scene: Scene, marks: Sequence[Mark]) -> None:
    """Draw marks on the layer *Marks*, those of a kind at once: with each call napari sets up all shapes anew."""
    for kind, alike in groupby(sorted(marks, key=lambda mark: mark.kind), lambda mark: mark.kind):
        layer.feature_defaults = {"kind": kind}
        vertices = [scene.vertices(mark.outline, mark.place) for mark in alike]
        layer.add_polygons(vertices, edge_color=COLORS[kind], face_color="transparent")
    layer.feature_defaults = {"kind": EXAMPLE}
