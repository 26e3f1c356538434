"""One dataset: how large it is, its layers, and its frames as the app shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.nimbus.layers import default_layers, visible_layers
from sam2_fewshot.nimbus.parameters import DatasetSize
from sam2_fewshot.nimbus.planes import BLOCK, MEMORY, Planes
from sam2_fewshot.nimbus.server import ABSENT
from sam2_fewshot.records import whole_box
from sam2_fewshot.rendering.channels import paint
from sam2_fewshot.settings import Settings, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.nimbus.layers import FrameIndex, Layer
    from sam2_fewshot.nimbus.server import Server
    from sam2_fewshot.records import Box, Location

NOT_THERE = "at an XY, Z or Time that this dataset does not have"
"""Where an annotation lies for which there is no frame."""
_AXES = ("IndexXY", "IndexZ", "IndexT", "IndexC")
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
    tool
        Id of the tool; the layers are those of the collection that it is saved in.

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
        tool: str = "",
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
        """Collections of one's own, that with the layers first; where none can be read, one of somebody else."""
        self.readable: list[str] = []
        """All collections of this dataset that can be read."""
        self.is_in_collections = False
        """Whether there is a collection of this dataset, even if the user may read none."""
        layers = self._read_layers(server, warn, tool)
        self.layers = layers or default_layers(self.size.channels, settings)
        if layers and _percentiles(settings) != _percentiles(Settings()):
            warn(
                "Black Percentile and White Percentile have no effect, because the layers of this dataset have a "
                "contrast of their own. Change it in the app."
            )

    def has(self, location: Location) -> bool:
        """Tell whether there is a frame at a location."""
        size = self.size
        return 0 <= location.xy < size.xy and 0 <= location.z < size.z and 0 <= location.time < size.time

    def frame(self, location: Location) -> NimbusFrame:
        """Return the frame at a location, always the same object for the same one."""
        if location not in self._frames:
            self._frames[location] = NimbusFrame(self, location)
        return self._frames[location]

    def absence(self, location: Location) -> str:
        """Return where an annotation lies for which there is no frame."""
        return NOT_THERE

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
        return any(layer.planes(location, self.size, self.index, merge=False) for layer in self.layers)

    def fingerprint(self, location: Location) -> str:
        """Return what tells whether another job reads the same pixels: the image, the place, and the layers."""
        contrast = _percentiles(self._settings)
        return repr((self._item_id, location, self.shape, self.layers, contrast))

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
        x0, y0, x1, y1 = box or whole_box(self.shape)
        canvas = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
        for layer in self.layers:
            frames = layer.planes(location, self.size, self.index)
            current = layer.planes(location, self.size, self.index, merge=False)
            if not frames or not current:
                continue
            plane = self.planes.read(frames, box)
            limits = self.planes.limits(current[0], layer.style)
            if limits is None:
                continue
            for band, color in _bands(plane, layer):
                paint(canvas, band, limits, color)
        return canvas

    def _read_layers(self, server: Server, warn: Callable[[str], None], tool: str) -> list[Layer]:
        """Return the layers of a view whose collection can be read: one of the user's own, or else any.

        Of several, that of the collection with the tool, or else the first.
        """
        own: list[_View] = []
        of_others: list[_View] = []
        seen: set[str] = set()
        for found, are_own in ((own, True), (of_others, False)):
            query = {"datasetId": self.id, "limit": 0, **({"currentUserOnly": "true"} if are_own else {})}
            listed = server.get("reading the dataset's views", "dataset_view", query)
            views: dict[str, Mapping[str, Any]] = {}
            for view in listed:
                if (key := str(view.get("configurationId") or "")) and key not in seen:
                    views.setdefault(key, view)
            seen.update(views)
            for key, view in views.items():
                # One that is gone, or that the user may not read, is passed over.
                collection = server.find("reading the layers", f"upenn_collection/{key}", absent=ABSENT | {403})
                if collection is not None:
                    meta, name = collection.get("meta") or {}, str(collection.get("name") or key)
                    tools = meta.get("tools") or []
                    ids = {str(each["id"]) for each in tools if isinstance(each, dict) and each.get("id")}
                    found.append(_View(key, name, ids, meta.get("layers") or [], view.get("layerContrasts") or {}))
        self.is_in_collections = bool(seen)
        usable = own or of_others[:1]
        if not usable:
            if seen:
                warn("The layers of this dataset cannot be read, so its channels are shown in colours of our own.")
            return []
        candidates = [each for each in usable if tool in each.tools] or usable
        chosen, *others = candidates
        self.collections = [chosen.key, *(each.key for each in usable if each is not chosen)]
        self.readable = [each.key for each in [*own, *of_others]]
        layers = visible_layers(chosen.layers, chosen.contrasts, warn)
        if chosen.layers and not layers:
            raise InputError(
                "All layers of this dataset are switched off, so there is nothing to see. Switch on the layers that "
                "show the objects, and run the tool again."
            )
        if any(visible_layers(each.layers, each.contrasts) != layers for each in others):
            warn(
                "Several of your collections show this dataset with other layers or another contrast; those of "
                f"{quoted(chosen.name)} are taken. To have those of another one, run a tool that is saved in it."
            )
        return layers


@dataclass(frozen=True, slots=True)
class _View:
    """A collection that shows the dataset, with the ids of its tools, and the contrasts of the user's view."""

    key: str
    name: str
    tools: set[str]
    layers: Sequence[Mapping[str, Any]]
    contrasts: Mapping[str, Any]


class NimbusFrame:
    """One frame of a dataset; a :class:`~sam2_fewshot.records.FrameReader`."""

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


def _percentiles(settings: Settings) -> tuple[float, float]:
    return settings.black_percentile, settings.white_percentile


def _image_item(server: Server, dataset_id: str, folder: Mapping[str, Any]) -> str:
    """Return the id of the item with the image: the selected one, else the first that has one."""
    selected = (folder.get("meta") or {}).get("selectedLargeImageId")
    item = server.find("reading the image", f"item/{selected}") if selected else None  # it may have been deleted since
    if item and item.get("largeImage"):
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
        xy, z, time, channel = (int(frame.get(key) or 0) for key in _AXES)
        index.setdefault((xy, z, time, channel), int(frame["Frame"]))
    return index


def _size(header: Mapping[str, Any], index: FrameIndex) -> DatasetSize:
    spans = header.get("IndexRange") or {}
    seen = [max(key[axis] for key in index) + 1 for axis in range(4)]
    xy, z, time, channels = (max(1, int(spans.get(key) or 1), least) for key, least in zip(_AXES, seen, strict=True))
    return DatasetSize(xy, z, time, channels)


def _bands(plane: NDArray[Any], layer: Layer) -> list[tuple[NDArray[Any], tuple[int, int, int]]]:
    """Return what to paint in which colour: a grey plane once, each component of a coloured one in its own."""
    red, green, blue = layer.style.color
    if plane.ndim == 2:
        return [(plane, layer.style.color)]
    return [(plane[..., 0], (red, 0, 0)), (plane[..., 1], (0, green, 0)), (plane[..., 2], (0, 0, blue))]
