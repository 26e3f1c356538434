"""Between napari's layers and planes and places, and the layer *Found*.

napari's data coordinates are indices, so that the centre of the first pixel is at 0; in this package it is at 0.5.
"""

from __future__ import annotations

from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import DirectLabelColormap, ensure_colormap
from shapely import Point, Polygon

from sam2_fewshot.annotations.arrays import PlaneIndex, axis_names, label_image, location_of, plane_slices
from sam2_fewshot.annotations.review import CONFIRMED, EXAMPLE, FOUND, UNWANTED
from sam2_fewshot.errors import InputError
from sam2_fewshot.rendering.viewer import BlendedPlane, Look

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.review import Results
    from sam2_fewshot.records import Box, Location

COLORS = {EXAMPLE: "#00e5ff", CONFIRMED: "#00ff66", UNWANTED: "#ff3355"}
PLACEMENT = ("scale", "translate", "rotate", "shear", "affine")
"""Attributes by which napari places a layer in the world, the units apart."""
_ASKED = "#ff00ff"
_TABLE = np.linspace(0, 1, 1024)
_NEAR = 0.1
"""Pixels; layers that lie nearer to one another than this lie on the same pixels."""
_READ_WHOLE = 1 << 22
"""Pixels of a plane that is read, which takes part of a second, to know it again by its pixels."""
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
        self._images = [each for each in viewer.layers if isinstance(each, Image)]
        visible = [each for each in self._images if each.visible]
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
        alike = [each for each in visible if same_grid(each, first)]
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
        self.place: PlaneIndex = tuple(int(point[axis]) for axis in self.others)
        for axis, at in zip(self.others, self.place, strict=True):
            if not 0 <= at < self.shape[axis]:
                raise InputError(f"{first.name} has nothing at the slice that is displayed; move the slider below it.")
        self._arrays = [finest(each) for each in self.layers]
        self.looks = [_look(each) for each in self.layers]
        labels = getattr(first, "axis_labels", ())
        self._names = axis_names([labels[axis] for axis in self.others if labels], len(self.others))

    @property
    def plane_shape(self) -> tuple[int, int]:
        """``(height, width)`` of a plane."""
        return self.shape[self.axes[0]], self.shape[self.axes[1]]

    def same_image(self, other: Scene | None) -> bool:
        """Tell whether another scene has the same planes, looked at in any way."""
        own, others = ((each.reference, each.shape, each.axes) if each else None for each in (self, other))
        return own == others

    def plane(self, place: PlaneIndex) -> BlendedPlane:
        """Return a plane by its place."""
        index = plane_slices(place, self.axes, len(self.shape))
        name, location = self.reference.name, self.location(place)
        height, width = self.plane_shape
        digest = None if height * width <= _READ_WHOLE else self._digest(place)
        return BlendedPlane(self._arrays, self.looks, index, self.plane_shape, name, location, digest)

    def _digest(self, place: PlaneIndex) -> str:
        """Return what stands for a plane that is too large to be read for it: the same arrays that look the same."""
        looks = [look.key for look in self.looks]
        known_by = (_SESSION, [id(array) for array in self._arrays], looks, self.axes, place)
        return sha256(repr(known_by).encode()).hexdigest()[:32]

    def channels(self) -> list[Look | None]:
        """Return how each channel of the image's file is displayed, None for those that are not searched.

        The channels are the layers of the file in their order. There are none where it is not known which ones are
        searched: of several files, or made of the layers of a file, such as a filtered one.
        """
        own = [each for each in self._images if each.source.parent is None and same_grid(each, self.reference)]
        sources = {each.source.path for each in self.layers}
        if sources != {None}:
            own = [each for each in own if each.source.path in sources]
        if len(sources) != 1 or {each.source.path for each in own} != sources or any(x not in own for x in self.layers):
            return []
        return [self.looks[self.layers.index(each)] if each in self.layers else None for each in own]

    def places(self) -> list[PlaneIndex]:
        """Return the places of all planes."""
        return [tuple(map(int, each)) for each in np.ndindex(*(self.shape[axis] for axis in self.others))]

    def location(self, place: PlaneIndex) -> Location:
        """Return a place as a location; see :func:`~sam2_fewshot.annotations.arrays.axis_names`."""
        return location_of(place, [self.shape[axis] for axis in self.others], self._names)

    def region(self) -> Box:
        """Return the part of the plane that is visible."""
        corners = np.array(self.reference.corner_pixels, float)
        if self.reference.multiscale:
            corners = corners * self.reference.downsample_factors[self.reference.data_level]
        (y0, x0), (y1, x1) = corners[:, self.axes].astype(int)
        height, width = self.plane_shape
        box = max(x0, 0), max(y0, 0), min(x1 + 1, width), min(y1 + 1, height)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise InputError(f"No part of {self.reference.name} is visible; press the home button below the layers.")
        return tuple(map(int, box))  # type: ignore[return-value]

    def vertices(self, outline: Polygon | Point, place: PlaneIndex) -> NDArray[np.float64]:
        """Return an outline or a point of a plane as vertices in all axes, as napari has them."""
        ring = outline.coords if isinstance(outline, Point) else outline.exterior.coords[:-1]
        xy = np.asarray(ring)[:, :2] - 0.5
        points = np.zeros((len(xy), len(self.shape)))
        points[:, self.others] = place
        points[:, self.axes[0]], points[:, self.axes[1]] = xy[:, 1], xy[:, 0]
        return points

    def world(self, point: Point, place: PlaneIndex) -> NDArray[np.float64]:
        """Return the world position of a point of a plane."""
        return np.array(self.reference.data_to_world(self.vertices(point, place)[0]))

    def xy(self, position: Sequence[float]) -> tuple[float, float] | None:
        """Return a world position as ``(x, y)`` in pixels of the plane, None outside of it."""
        point = self.reference.world_to_data(position)
        x, y = float(point[self.axes[1]]) + 0.5, float(point[self.axes[0]]) + 0.5
        height, width = self.plane_shape
        return (x, y) if 0 <= x < width and 0 <= y < height else None

    def has(self, place: PlaneIndex) -> bool:
        """Tell whether there is a plane at a place."""
        return all(0 <= at < self.shape[axis] for at, axis in zip(place, self.others, strict=True))


def finest(layer: Any) -> Any:
    """Return a layer's array, of a pyramid that of the first level."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def mapping(layer: Any, other: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the matrix and the shift that take points of a layer, in its data coordinates, to those of another.

    The points are ``points @ matrix + shift``, since napari places layers by nothing but affine transforms.
    """
    far = 1024.0  # at points that are far apart rounding matters less
    points = np.vstack([np.zeros(layer.ndim), far * np.eye(layer.ndim)])
    mapped = np.array([other.world_to_data(layer.data_to_world(point)) for point in points])
    return (mapped[1:] - mapped[0]) / far, mapped[0]


def same_grid(layer: Any, other: Any) -> bool:
    """Tell whether two layers have the same pixels, at the same place of the world."""
    shape, other_shape = (tuple(finest(each).shape[: each.ndim]) for each in (layer, other))
    if shape != other_shape:
        return False
    matrix, shift = mapping(layer, other)
    corners = np.vstack([np.zeros(len(shape)), np.diag(shape)])
    return bool(np.allclose(corners @ matrix + shift, corners, rtol=0, atol=_NEAR))


def _look(layer: Any) -> Look:
    blending = str(getattr(layer.blending, "value", layer.blending))
    low, high = (float(limit) for limit in layer.contrast_limits)
    colors = None if layer.rgb else np.asarray(layer.colormap.map(_TABLE), np.float32)
    blending = _BLENDINGS.get(blending, blending)
    return Look((low, high), colors, float(layer.gamma), blending, float(layer.opacity))  # type: ignore[arg-type]


def place_like(layer: Any, reference: Any) -> None:
    """Place a layer in the world where another one is; what is the same already is not set, since napari draws anew."""
    for name in PLACEMENT:
        value, own = (getattr(each, name) for each in (reference, layer))
        value, own = (np.asarray(each.affine_matrix if name == "affine" else each) for each in (value, own))
        if not np.array_equal(value, own):
            setattr(layer, name, value)
    if hasattr(reference, "units") and layer.units != reference.units:
        layer.units = reference.units


def add_found(
    viewer: Any, results: Results, below: Any, keys: Mapping[str, Callable[[], Any]], pick: Callable[[Any, Any], Any]
) -> Any:
    """Add the layer *Found*, below another one, with what keys and the mouse do on it; another layer stays active."""
    active, data = viewer.layers.selection.active, label_image(results)
    layer = viewer.add_labels(data, name="Found", multiscale=isinstance(data, list))
    layer.editable = False
    layer.mouse_drag_callbacks.append(pick)
    for key, action in keys.items():
        layer.bind_key(key, lambda _, action=action: action())
    if below is not None:
        viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(below))
    viewer.layers.selection.active = active
    return layer


def found_colors(results: Results, asked: int) -> DirectLabelColormap:
    """Return the colours of *Found*: what was found by its scores, marks by their kinds, and the label asked for."""
    table: dict[Any, Any] = {None: "transparent", 0: "transparent"}
    table |= enumerate(ensure_colormap("viridis").map(results.scores), 1)
    table |= {i: COLORS[kind] for i, kind in enumerate(results.kinds, 1) if kind != FOUND}
    return DirectLabelColormap(color_dict=table | ({asked: _ASKED} if asked else {}))
