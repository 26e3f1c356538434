"""Between napari's layers and planes, places and marks.

napari's data coordinates are indices, so that the centre of the first pixel is at 0; in this package it is at 0.5.
"""

from __future__ import annotations

from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from shapely import Point, Polygon

from sam2_fewshot.annotations.arrays import Place, axis_names, location_of, masks_of, plane_index
from sam2_fewshot.annotations.review import CONFIRMED, EXAMPLE, UNWANTED, Mark
from sam2_fewshot.errors import InputError
from sam2_fewshot.geometry.outlines import mask_to_polygon, polygon_to_mask, valid_polygon
from sam2_fewshot.rendering import BlendedPlane, Look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, Location

COLORS = {EXAMPLE: "#00e5ff", CONFIRMED: "#00ff66", UNWANTED: "#ff3355"}
PLACEMENT = ("scale", "translate", "rotate", "shear", "affine")
"""Attributes by which napari places a layer in the world, the units apart."""
_TABLE = np.linspace(0, 1, 1024)
_CORNERS = 64
_BLENDINGS = {"translucent_no_depth": "translucent"}
_SESSION = token_hex(8)  # arrays are known by their ids, which another session gives to others


class Scene:
    """The image layers that are searched, as they are now.

    Parameters
    ----------
    viewer
        The napari viewer.
    layer
        The image layer that is searched; None for all visible ones.

    Raises
    ------
    InputError
        If there is none, or it cannot be searched as it is displayed.
    """

    def __init__(self, viewer: Any, layer: Any = None) -> None:
        visible = [each for each in viewer.layers if isinstance(each, Image) and each.visible]
        if layer is not None and layer not in viewer.layers:
            raise InputError("The image layer was removed; choose another one.")
        if layer is None and not visible:
            raise InputError(
                "There is no visible image layer to search. Open an image with File ▸ Open, or the bundled one with "
                "File ▸ Open Sample."
            )
        self.reference = first = layer if layer is not None else visible[-1]
        if viewer.dims.ndisplay != 2:
            raise InputError("The viewer displays the image in 3D, but planes are searched; switch to 2D (Ctrl+Y).")
        alike = [each for each in visible if _same_grid(each, first)]
        self.layers = [layer] if layer is not None else alike
        self.left_out = [] if layer is not None else [each.name for each in visible if each not in alike]
        self.shape = tuple(int(n) for n in finest(first).shape[: first.ndim])
        if not all(self.shape):
            raise InputError(f"{first.name} has no pixels.")
        displayed = sorted(axis - viewer.dims.ndim + first.ndim for axis in viewer.dims.displayed)
        if displayed[0] < 0:
            raise InputError(f"{first.name} has no rows and columns along the axes that the viewer displays.")
        self.axes = displayed[0], displayed[1]
        self.others = [axis for axis in range(first.ndim) if axis not in self.axes]
        point = np.round(first.world_to_data(viewer.dims.point)).astype(int)
        self.place: Place = tuple(int(point[axis]) for axis in self.others)
        for axis, at in zip(self.others, self.place, strict=True):
            if not 0 <= at < self.shape[axis]:
                raise InputError(f"{first.name} has nothing at the slice that is displayed; move the slider below it.")
        self._arrays = [finest(each) for each in self.layers]
        self.looks = [_look(each) for each in self.layers]
        labels = getattr(first, "axis_labels", ())
        self._names = axis_names([labels[axis] for axis in self.others if labels], len(self.others))

    @property
    def key(self) -> str:
        """Stands for the pixels of all planes: layers that look the same on the same arrays have the same key."""
        looks = [(x.limits, x.gamma, x.blending, x.opacity, x.colors is None or x.colors.tobytes()) for x in self.looks]
        return sha256(repr(([id(array) for array in self._arrays], looks, self.axes)).encode()).hexdigest()

    def plane(self, place: Place) -> BlendedPlane:
        """Return a plane by its place."""
        index = plane_index(place, self.axes, len(self.shape))
        shape = self.shape[self.axes[0]], self.shape[self.axes[1]]
        digest = sha256(f"{_SESSION}/{self.key}/{place}".encode()).hexdigest()[:32]
        return BlendedPlane(self._arrays, self.looks, index, shape, self.reference.name, self.location(place), digest)

    def places(self) -> list[Place]:
        """Return the places of all planes."""
        return [tuple(map(int, each)) for each in np.ndindex(*(self.shape[axis] for axis in self.others))]

    def location(self, place: Place) -> Location:
        """Return a place as a location; see :func:`~sam2_fewshot.annotations.arrays.axis_names`."""
        return location_of(place, [self.shape[axis] for axis in self.others], self._names)

    def region(self) -> Box:
        """Return the part of the plane that is visible."""
        corners = np.array(self.reference.corner_pixels, float)
        if self.reference.multiscale:
            corners = corners * self.reference.downsample_factors[self.reference.data_level]
        (y0, x0), (y1, x1) = corners[:, self.axes].astype(int)
        height, width = self.shape[self.axes[0]], self.shape[self.axes[1]]
        box = max(x0, 0), max(y0, 0), min(x1 + 1, width), min(y1 + 1, height)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise InputError(f"No part of {self.reference.name} is visible; press the home button below the layers.")
        return tuple(map(int, box))  # type: ignore[return-value]

    def vertices(self, outline: Polygon | Point, place: Place) -> NDArray[np.float64]:
        """Return an outline or a point of a plane as vertices in all axes, as napari has them."""
        ring = outline.coords if isinstance(outline, Point) else outline.exterior.coords[:-1]
        xy = np.asarray(ring)[:, :2] - 0.5
        points = np.zeros((len(xy), len(self.shape)))
        points[:, self.others] = place
        points[:, self.axes[0]], points[:, self.axes[1]] = xy[:, 1], xy[:, 0]
        return points

    def world(self, point: Point, place: Place) -> NDArray[np.float64]:
        """Return the world position of a point of a plane."""
        return np.array(self.reference.data_to_world(self.vertices(point, place)[0]))

    def xy(self, position: Sequence[float]) -> tuple[float, float] | None:
        """Return a world position as ``(x, y)`` in pixels of the plane, None outside of it."""
        point = self.reference.world_to_data(position)
        x, y = float(point[self.axes[1]]) + 0.5, float(point[self.axes[0]]) + 0.5
        inside = 0 <= x < self.shape[self.axes[1]] and 0 <= y < self.shape[self.axes[0]]
        return (x, y) if inside else None


def finest(layer: Any) -> Any:
    """Return a layer's array, of a pyramid that of the first level."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def _same_grid(layer: Any, other: Any) -> bool:
    shapes = [finest(each).shape[: each.ndim] for each in (layer, other)]
    worlds = [each.extent.world for each in (layer, other)]
    return shapes[0] == shapes[1] and worlds[0].shape == worlds[1].shape and np.allclose(*worlds)


def _look(layer: Any) -> Look:
    blending = str(getattr(layer.blending, "value", layer.blending))
    low, high = (float(limit) for limit in layer.contrast_limits)
    colors = None if layer.rgb else np.asarray(layer.colormap.map(_TABLE), np.float32)
    blending = _BLENDINGS.get(blending, blending)
    return Look((low, high), colors, float(layer.gamma), blending, float(layer.opacity))  # type: ignore[arg-type]


def marks_in(layer: Any, scene: Scene) -> tuple[list[Mark], list[str]]:
    """Return the shapes or labels of a layer as marks, and sentences about what is left out.

    Rectangles, ellipses and closed paths are polygons. A feature ``kind`` tells what is not wanted.
    """
    if getattr(layer, "ndim", 0) != len(scene.shape):
        raise InputError(
            f"{layer.name} has {layer.ndim} axes, but {scene.reference.name} has {len(scene.shape)}; draw on a layer "
            "of the same axes."
        )
    if isinstance(layer, Labels):
        return _marks_of_labels(layer, scene), []
    kinds = layer.features["kind"] if "kind" in layer.features else [EXAMPLE] * len(layer.data)
    marks, bad = [], 0
    for data, shape_type, kind in zip(layer.data, layer.shape_type, kinds, strict=True):
        across = np.round(data[:, scene.others]).astype(int)
        points = np.asarray(data, float)[:, [scene.axes[1], scene.axes[0]]] + 0.5
        if shape_type == "ellipse" and len(points) == 4:
            angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)[:, None]
            middle, along, up = points.mean(axis=0), (points[1] - points[0]) / 2, (points[3] - points[0]) / 2
            points = middle + np.cos(angle) * along + np.sin(angle) * up
        outline = valid_polygon(Polygon(points)) if len(points) > 2 and shape_type != "line" else None
        place = tuple(map(int, across[0])) if len(across) else ()
        on_plane = outline is not None and bool((across == across[:1]).all()) and scene_has(scene, place)
        if outline is None or not on_plane or not polygon_to_mask(outline, scene.plane(place).shape).area:
            bad += 1
        else:
            marks.append(Mark(place, outline, str(kind) if kind in COLORS else EXAMPLE))
    sentence = f"{bad} of {len(layer.data)} shapes of {layer.name} are left out: a line, or outside the image."
    return marks, [sentence] if bad else []


def scene_has(scene: Scene, place: Place) -> bool:
    """Tell whether there is a plane at a place."""
    return all(0 <= at < scene.shape[axis] for at, axis in zip(place, scene.others, strict=True))


def _marks_of_labels(layer: Any, scene: Scene) -> list[Mark]:
    """Return the objects of a label image on the plane that is displayed."""
    data = finest(layer)
    if tuple(data.shape) != scene.shape:
        raise InputError(
            f"{layer.name} is of the shape {tuple(data.shape)}, but {scene.reference.name} of {scene.shape}; labels "
            "must have the image's own pixels."
        )
    labels = np.asarray(data[plane_index(scene.place, scene.axes, len(scene.shape))])
    return [Mark(scene.place, mask_to_polygon(mask)) for _, mask in masks_of(labels)]


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


def place_like(layer: Any, reference: Any) -> None:
    """Place a layer in the world where another one is; what is the same already is not set, since napari draws anew."""
    for name in PLACEMENT:
        value, own = (getattr(each, name) for each in (reference, layer))
        value, own = (np.asarray(each.affine_matrix if name == "affine" else each) for each in (value, own))
        if not np.array_equal(value, own):
            setattr(layer, name, value)
    if hasattr(reference, "units") and layer.units != reference.units:
        layer.units = reference.units
