"""One dataset: how large it is, its layers, and its frames as the app shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.display import default_colors
from sam2_fewshot.nimbus.parameters import DatasetSize
from sam2_fewshot.nimbus.planes import BLOCK, MEMORY, Planes
from sam2_fewshot.nimbus.server import Refused
from sam2_fewshot.rendering import WHITE, ChannelStyle, Color, paint, photo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.records import Box, Location
    from sam2_fewshot.settings import Settings

_WRITE = 1  # Girder's levels of access: 0 read, 1 write, 2 admin


class NimbusDataset:
    """A dataset's headers and layers, read once; pixels are fetched when they are asked for.

    Parameters
    ----------
    server
        The connection.
    dataset_id
        The dataset's folder.
    settings
        Percentiles of the contrast where the app has no layers yet.
    warn
        Takes warnings for the user.
    block, memory
        As for :class:`~sam2_fewshot.nimbus.planes.Planes`.

    Raises
    ------
    InputError
        If the dataset has no image, or no layer is visible.
    ServerError
        If the server does not tell.
    """

    def __init__(
        self,
        server: Server,
        dataset_id: str,
        settings: Settings,
        warn: Callable[[str], None],
        block: int = BLOCK,
        memory: int = MEMORY,
    ) -> None:
        self.id = dataset_id
        folder = server.get("reading the dataset", f"folder/{dataset_id}")
        if folder.get("_accessLevel", _WRITE) < _WRITE:
            raise InputError(
                "You may look at this dataset but not change it, so the objects cannot be saved. Ask its owner for "
                "write access, or work on a copy of your own."
            )
        item_id = self._item_id = _image_item(server, dataset_id, folder)
        header = server.get("reading the image's header", f"item/{item_id}/tiles")
        self.shape = int(header["sizeY"]), int(header["sizeX"])
        self.index = _index(header)
        self.size = _size(header, self.index)
        self.planes = Planes(server, item_id, self.shape, block, memory)
        self._settings = settings
        self._frames: dict[Location, NimbusFrame] = {}
        self._last: tuple[Location, NDArray[np.uint8]] | None = None
        self.collections: list[str] = []
        self.is_in_collections = False
        """Whether there is a collection of this dataset, even if the user may read none."""
        self.layers = self._read_layers(server, warn)
        self._is_photo = not self.layers and int(header.get("bandCount") or 1) >= 3 and self.size.channels == 1
        if not self.layers:
            self.layers = default_layers(self.size.channels, settings)

    def has(self, location: Location) -> bool:
        """Tell whether there is a frame at a location."""
        size = self.size
        return 0 <= location.xy < size.xy and 0 <= location.z < size.z and 0 <= location.time < size.time

    def frame(self, location: Location) -> NimbusFrame:
        """Return the frame at a location, always the same object for the same one."""
        if location not in self._frames:
            self._frames[location] = NimbusFrame(self, location)
        return self._frames[location]

    def name(self, location: Location) -> str:
        """Return what to call a frame, counted from 1, without the axes that have a single entry."""
        parts = [
            f"{axis} {at + 1}"
            for axis, at, count in (
                ("XY", location.xy, self.size.xy),
                ("Z", location.z, self.size.z),
                ("Time", location.time, self.size.time),
            )
            if count > 1
        ]
        return ", ".join(parts) or "the image"

    def shows(self, location: Location) -> bool:
        """Tell whether a layer has a plane at a location; where none has, the frame is black."""
        return any(layer.contrast_plane(location, self.size, self.index) is not None for layer in self.layers)

    def fingerprint(self, location: Location) -> str:
        """Return what tells whether another job reads the same pixels: the image, the place, and the layers."""
        contrast = (self._settings.black_percentile, self._settings.white_percentile)
        return repr((self._item_id, location, self.shape, self._is_photo, self.layers, contrast))

    def compose(self, location: Location, box: Box | None) -> NDArray[np.uint8]:
        """Return a frame as RGB (h, w, 3); as :meth:`NimbusFrame.read`."""
        if not self.planes.in_one and box is not None:
            return self._compose(location, box)
        if self._last is None or self._last[0] != location:
            self._last = None  # let go of the old one before the new one is made
            self._last = location, self._compose(location, None)
        pixels = self._last[1]
        return pixels if box is None else pixels[box[1] : box[3], box[0] : box[2]]

    def _compose(self, location: Location, box: Box | None) -> NDArray[np.uint8]:
        x0, y0, x1, y1 = box or (0, 0, self.shape[1], self.shape[0])
        canvas = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
        for layer in self.layers:
            frames = layer.planes(location, self.size, self.index)
            contrast_plane = layer.contrast_plane(location, self.size, self.index)
            if not frames or contrast_plane is None:
                continue
            plane = self.planes.read(frames, box)
            if self._is_photo and plane.ndim == 3 and plane.dtype == np.uint8:
                return photo(plane)
            limits = self.planes.limits(contrast_plane, layer.style)
            if limits is None:
                continue
            for band, color in _bands(plane, layer):
                paint(canvas, band, limits, color)
        return canvas

    def _read_layers(self, server: Server, warn: Callable[[str], None]) -> list[Layer]:
        """Return the layers of the first view whose collection can be read: one of the user's own, or else any."""
        client = server.dataset(self.id).collections
        unreadable: set[str] = set()
        for are_own in (True, False):
            with server.telling("reading the dataset's views"):
                listed = client.list_views(current_user_only=are_own)
            views: dict[str, Mapping[str, Any]] = {}
            for view in listed:
                if key := view.get("configurationId"):
                    views.setdefault(str(key), view)
            for key, view in views.items():
                self.is_in_collections = True
                collection = None if key in unreadable else _collection(server, key)
                if collection is None:
                    unreadable.add(key)
                    continue
                self.collections = [each for each in views if each not in unreadable] if are_own else [key]
                layers = (collection.get("meta") or {}).get("layers") or []
                return read_layers(layers, view.get("layerContrasts") or {}, warn)
        if unreadable:
            warn("The layers of this dataset cannot be read, so its channels are shown in colours of our own.")
        return []


class NimbusFrame:
    """One frame of a dataset; a :class:`~sam2_fewshot.records.FrameReader`.

    Parameters
    ----------
    dataset
        What it is a frame of.
    location
        Where.
    """

    def __init__(self, dataset: NimbusDataset, location: Location) -> None:
        self._dataset = dataset
        self.location = location

    @property
    def name(self) -> str:
        """Its place in the dataset, counted from 1."""
        return self._dataset.name(self.location)

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self._dataset.shape

    def read(self, region: Box | None = None) -> NDArray[np.uint8]:
        """Return the uint8 RGB pixels (h, w, 3) of a region, or of all of the frame, as the app shows them.

        Raises
        ------
        ServerError
            If the pixels cannot be fetched.
        """
        return self._dataset.compose(self.location, region)


def _collection(server: Server, key: str) -> Mapping[str, Any] | None:
    """Return a collection; None where it is gone, or the user may not read it."""
    try:
        found: Mapping[str, Any] = server.get("reading the layers", f"upenn_collection/{key}")
    except Refused as error:
        if error.status not in (400, 403, 404):
            raise
        return None
    return found


def _image_item(server: Server, dataset_id: str, folder: Mapping[str, Any]) -> str:
    """Return the id of the item with the image: the selected one, else the first that has one."""
    selected = (folder.get("meta") or {}).get("selectedLargeImageId")
    if selected:
        try:
            item = server.get("reading the image", f"item/{selected}")
        except Refused as error:
            if error.status not in (400, 404):  # it may have been deleted since
                raise
        else:
            if item.get("largeImage"):
                return str(item["_id"])
    items = server.get("listing the dataset's files", "item", {"folderId": dataset_id, "limit": 0})
    images = [str(item["_id"]) for item in items if item.get("largeImage")]
    if not images:
        raise InputError(
            "This dataset has no image that NimbusImage can show. Open it in NimbusImage first, and let the import "
            "of its files finish."
        )
    return images[0]


def _index(header: Mapping[str, Any]) -> FrameIndex:
    """Return the number of each plane. An axis with one entry is missing everywhere, a single plane has no list."""
    index: FrameIndex = {}
    for frame in header.get("frames") or [{"Frame": 0}]:
        place = tuple(int(frame.get(key) or 0) for key in ("IndexXY", "IndexZ", "IndexT", "IndexC"))
        index.setdefault((place[0], place[1], place[2], place[3]), int(frame["Frame"]))
    return index


def _size(header: Mapping[str, Any], index: FrameIndex) -> DatasetSize:
    spans = header.get("IndexRange") or {}
    seen = [max(key[axis] for key in index) + 1 for axis in range(4)]
    xy, z, time, channels = (
        max(1, int(spans.get(key) or 1), least)
        for key, least in zip(("IndexXY", "IndexZ", "IndexT", "IndexC"), seen, strict=True)
    )
    return DatasetSize(xy, z, time, channels)


def _bands(plane: NDArray[Any], layer: Layer) -> list[tuple[NDArray[Any], tuple[int, int, int]]]:
    """Return what to paint in which colour: a grey plane once, each component of a coloured one in its own."""
    red, green, blue = layer.style.color
    if plane.ndim == 2:
        return [(plane, layer.style.color)]
    return [(plane[..., 0], (red, 0, 0)), (plane[..., 1], (0, green, 0)), (plane[..., 2], (0, 0, blue))]


FrameIndex = dict[tuple[int, int, int, int], int]
"""Number of each plane by (XY, Z, Time, channel)."""

_AXES = ("xy", "z", "time")


@dataclass(frozen=True, slots=True)
class Layer:
    """A channel as the app displays it.

    Parameters
    ----------
    channel
        Counted from 0.
    style
        Colour and contrast.
    slices
        For XY, Z and Time each: ``current``, ``constant``, ``offset`` or ``max-merge``, and the value that goes with
        the second and third.
    """

    channel: int
    style: ChannelStyle
    slices: tuple[tuple[str, int], ...] = (("current", 0),) * 3

    def planes(self, location: Location, size: DatasetSize, index: FrameIndex) -> tuple[int, ...]:
        """Return the planes that are merged at a location; none where the layer shows nothing there."""
        return self._planes(location, size, index, merge=True)

    def contrast_plane(self, location: Location, size: DatasetSize, index: FrameIndex) -> int | None:
        """Return the plane whose intensities make the contrast: the current one, also where several are merged."""
        found = self._planes(location, size, index, merge=False)
        return found[0] if found else None

    def _planes(self, location: Location, size: DatasetSize, index: FrameIndex, merge: bool) -> tuple[int, ...]:
        places = []
        for axis, (kind, value) in zip(_AXES, self.slices, strict=True):
            count, current = getattr(size, axis), getattr(location, axis)
            if kind == "max-merge" and merge:
                places.append(range(count))
                continue
            at = {"constant": value, "offset": current + value}.get(kind, current) if count > 1 else 0
            if not 0 <= at < count:
                return ()
            places.append(range(at, at + 1))
        keys = [(xy, z, time, self.channel) for time in places[2] for z in places[1] for xy in places[0]]
        return tuple(index[key] for key in keys if key in index)


def read_layers(
    layers: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any], warn: Callable[[str], None]
) -> list[Layer]:
    """Return the visible layers of a collection.

    Parameters
    ----------
    layers
        As the collection stores them.
    overrides
        The view's contrasts by layer id.
    warn
        Is warned of a colour that is not known.

    Raises
    ------
    InputError
        If there are layers and none is visible.
    """
    visible = [layer for layer in layers if layer.get("visible", True)]
    if layers and not visible:
        raise InputError(
            "All layers of this dataset are switched off, so there is nothing to see. Switch on the layers that show "
            "the objects, and run the tool again."
        )
    return [_layer(layer, overrides, warn) for layer in visible]


def default_layers(count: int, settings: Settings) -> list[Layer]:
    """Return a layer for each channel of a dataset that nobody has opened in the app yet, as for image files."""
    colors = default_colors([None] * count)
    return [
        Layer(channel, ChannelStyle(color, "percentile", settings.black_percentile, settings.white_percentile))
        for channel, color in enumerate(colors)
    ]


def _layer(layer: Mapping[str, Any], overrides: Mapping[str, Any], warn: Callable[[str], None]) -> Layer:
    contrast = overrides.get(str(layer.get("id"))) or layer.get("contrast") or {}
    absolute = contrast.get("mode") == "absolute"
    style = ChannelStyle(
        _color(layer.get("color"), warn),
        "absolute" if absolute else "range",
        _number(contrast.get("blackPoint"), 0.0),
        _number(contrast.get("whitePoint"), 100.0),
    )
    return Layer(int(_number(layer.get("channel"), 0)), style, tuple(_slice(layer.get(axis)) for axis in _AXES))


def _slice(value: Any) -> tuple[str, int]:
    setting = value if isinstance(value, dict) else {}
    return str(setting.get("type") or "current"), int(_number(setting.get("value"), 0))


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default


def _color(value: Any, warn: Callable[[str], None]) -> Color:
    from PIL import ImageColor

    if value is None:
        return WHITE
    try:
        red, green, blue = ImageColor.getrgb(str(value).strip())[:3]
    except ValueError:
        warn(f"The colour {str(value)[:40]!r} of a layer is not known; the layer is taken as white.")
        return WHITE
    return red, green, blue
