"""What a NimbusImage server holds, and its rules, oddities included. No HTTP here.

Written from what a live server was seen to do: lists end after 50 entries unless told otherwise, one bad annotation
refuses its whole list, a property value that is there wins over a later one, unknown ids are 400, an axis with one
entry is missing from an image's header, the keys of a posted form come back sorted.
"""

from __future__ import annotations

import itertools
import json
import pickle
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ["point", "line", "polygon", "rectangle"]
AXES = ("IndexXY", "IndexZ", "IndexT", "IndexC")


class Problem(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, body: Any, content_type: str = "application/json") -> None:
        super().__init__(status)
        self.status, self.body, self.content_type = status, body, content_type


def refuse(status: int, message: str, kind: str) -> Problem:
    return Problem(status, {"message": message, "type": kind})


@dataclass
class Image:
    """Planes by (XY, Z, Time, channel), all of one shape."""

    planes: dict[tuple[int, int, int, int], np.ndarray]
    channels: list[str] = field(default_factory=list)

    def header(self) -> dict[str, Any]:
        first = next(iter(self.planes.values()))
        counts = [max(key[axis] for key in self.planes) + 1 for axis in range(4)]
        header: dict[str, Any] = {
            "sizeX": first.shape[1],
            "sizeY": first.shape[0],
            "dtype": str(first.dtype),
            "bandCount": 1 if first.ndim == 2 else first.shape[2],
            "magnification": None,
            "mm_x": None,
            "mm_y": None,
        }
        several = {name: count for name, count in zip(AXES, counts, strict=True) if count > 1}
        if several:
            header["IndexRange"] = several
            header["channels"] = self.channels or [f"Channel {i}" for i in range(counts[3])]
            header["frames"] = [
                {"Frame": number, **{name: at for name, at in zip(AXES, key, strict=True) if name in several}}
                for number, key in enumerate(self.planes)
            ]
        return header

    def region(self, query: dict[str, str]) -> np.ndarray | bytes:
        frame = int(query.get("frame", 0))
        if not 0 <= frame < len(self.planes):
            body = {"message": "Value Error: Frame does not exist", "type": "rest"}
            raise Problem(400, body, "image/jpeg")
        plane = list(self.planes.values())[frame]
        plane = plane[..., None] if plane.ndim == 2 else plane
        height, width = plane.shape[:2]
        part = plane[
            int(query.get("top", 0)) : min(int(query.get("bottom", height)), height),
            int(query.get("left", 0)) : min(int(query.get("right", width)), width),
        ]
        if "width" in query:
            step = max(1, -(-max(part.shape[:2]) // int(query["width"])))
            part = part[::step, ::step]
        return part


class Store:
    """One server's data. Every method takes and returns what JSON can hold."""

    def __init__(self, token: str = "t0ken-of-the-user") -> None:
        self.tokens = {token: "000000000000000000000001"}
        self.folders: dict[str, dict[str, Any]] = {}
        self.items: dict[str, dict[str, Any]] = {}
        self.images: dict[str, Image] = {}
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.views: list[dict[str, Any]] = []
        self.annotations: dict[str, dict[str, Any]] = {}
        self.connections: dict[str, dict[str, Any]] = {}
        self.properties: dict[str, dict[str, Any]] = {}
        self.values: list[dict[str, Any]] = []
        self.interfaces: dict[str, dict[str, Any]] = {}
        self.read_only = False
        self.between: Callable[[], object] = lambda: None
        """Called between looking for property values and inserting them."""
        self.outsiders: set[str] = set()
        self.lock = threading.RLock()
        self._numbers = itertools.count(1)

    # --- making things ---------------------------------------------------------------------------------------

    def new_id(self) -> str:
        return f"{int(time.time()):08x}{next(self._numbers):016x}"

    def add_dataset(self, image: Image, layers: list[dict[str, Any]] | None = None, view: bool = True) -> str:
        """Make a dataset folder with an image, and a collection with layers and a view of it unless told not to."""
        dataset, item = self.new_id(), self.new_id()
        meta = {"subtype": "contrastDataset", "selectedLargeImageId": item}
        self.folders[dataset] = {"_id": dataset, "name": "dataset", "meta": meta}
        self.items[item] = {"_id": item, "name": "image", "folderId": dataset, "largeImage": {"fileId": "f"}}
        self.images[item] = image
        if view:
            collection = self.new_id()
            self.collections[collection] = {"_id": collection, "meta": {"layers": layers or [], "propertyIds": []}}
            self.views.append(
                {
                    "_id": self.new_id(),
                    "configurationId": collection,
                    "datasetId": dataset,
                    "layerContrasts": {},
                    "owner": next(iter(self.tokens.values())),
                }
            )
        return dataset

    def add_annotation(self, dataset: str, **fields: Any) -> str:
        document = {
            "shape": "polygon",
            "tags": [],
            "channel": 0,
            "location": {"XY": 0, "Z": 0, "Time": 0},
            "coordinates": [{"x": 1, "y": 1}, {"x": 9, "y": 1}, {"x": 9, "y": 9}],
            "datasetId": dataset,
            **fields,
        }
        return str(self.create_annotations([document])[0]["_id"])

    # --- annotations -----------------------------------------------------------------------------------------

    def create_annotations(self, documents: Any) -> list[dict[str, Any]]:
        if not isinstance(documents, list):
            raise refuse(500, "An unexpected error occurred on the server.", "internal")
        for document in documents:
            _check_annotation(document)
        for document in documents:
            if not _is_id(document["datasetId"]):
                raise refuse(500, "An unexpected error occurred on the server.", "internal")
        unknown = sorted({d["datasetId"] for d in documents} - set(self.folders))
        if unknown:
            raise refuse(403, f"Dataset(s) not found: [ObjectId('{unknown[0]}')]", "access")
        with self.lock:
            created = [{**document, "_id": self.new_id()} for document in documents]
            self.annotations.update({document["_id"]: document for document in created})
        return created

    def list_annotations(self, query: dict[str, str]) -> list[dict[str, Any]]:
        dataset = self._queried_dataset(query)
        tags = set(json.loads(query.get("tags", "[]")))
        with self.lock:
            return [
                document
                for document in self.annotations.values()
                if document["datasetId"] == dataset
                and tags <= set(document["tags"])
                and query.get("shape", document["shape"]) == document["shape"]
            ]

    def delete_annotations(self, ids: list[str]) -> None:
        """Delete several at once: their property values go along, their connections stay, as on the real server."""
        with self.lock:
            for key in ids:
                self.annotations.pop(key, None)
            self.values = [value for value in self.values if value["annotationId"] not in ids]

    def edit_annotation(self, key: str, changes: dict[str, Any]) -> None:
        """Change what the app can change; other keys are left as they are."""
        known = ("coordinates", "tags", "channel", "location", "shape", "color", "name")
        with self.lock:
            self.one("upenn_annotation", self.annotations, key).update(
                {name: value for name, value in changes.items() if name in known}
            )

    def connect(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        made = []
        with self.lock:
            for child in body["annotationsIds"]:
                document = self.annotations.get(child)
                if document is None:
                    continue
                others = [
                    other
                    for other in self.annotations.values()
                    if other["_id"] not in body["annotationsIds"]
                    and other["location"] == document["location"]
                    and other["datasetId"] == document["datasetId"]
                    and (body["channelId"] is None or other["channel"] == body["channelId"])
                    and (not body["tags"] or set(body["tags"]) & set(other["tags"]))
                ]
                if others:
                    nearest = min(others, key=lambda other, own=document: _distance(own, other))
                    key = self.new_id()
                    self.connections[key] = {
                        "_id": key,
                        "childId": child,
                        "parentId": nearest["_id"],
                        "datasetId": document["datasetId"],
                        "label": "A Connection -- automatic",
                        "tags": [],
                    }
                    made.append(self.connections[key])
        return made

    def list_connections(self, query: dict[str, str]) -> list[dict[str, Any]]:
        dataset = self._queried_dataset(query)
        return [value for value in self.connections.values() if value["datasetId"] == dataset]

    def create_connections(self, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        with self.lock:
            for document in documents:
                for end in ("child", "parent"):
                    if document[f"{end}Id"] not in self.annotations:
                        raise refuse(400, f"A {end} annotation does not exist", "validation")
            made = [{**document, "_id": self.new_id()} for document in documents]
            self.connections.update({document["_id"]: document for document in made})
        return made

    def delete_connections(self, ids: list[str]) -> None:
        with self.lock:
            for key in ids:
                self.connections.pop(key, None)

    # --- property values -------------------------------------------------------------------------------------

    def create_property(self, body: dict[str, Any]) -> dict[str, Any]:
        key = self.new_id()
        self.properties[key] = {**body, "_id": key}
        return self.properties[key]

    def list_properties(self) -> list[dict[str, Any]]:
        """Only those that a collection names can be listed."""
        named = {key for each in self.collections.values() for key in each["meta"].get("propertyIds", [])}
        return [value for key, value in self.properties.items() if key in named]

    def post_values(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for entry in entries:
            for key, value in entry["values"].items():
                if not _is_value(value):
                    message = f"data.values.{key} cannot be validated by any definition"
                    raise refuse(400, message, "validation")
        unknown = {entry["datasetId"] for entry in entries} - set(self.folders)
        if unknown:
            raise refuse(400, f"Invalid folder id ({min(unknown)}).", "rest")
        # A real server looks for what is there, and inserts what is not, in two steps.
        with self.lock:
            there = {value["annotationId"]: value for value in self.values}
        self.between()
        with self.lock:
            answer = []
            for entry in entries:
                document = there.get(entry["annotationId"])
                if document is None:  # the same annotation twice in one list makes two documents
                    document = {**entry, "values": dict(entry["values"]), "_id": self.new_id()}
                    self.values.append(document)
                else:
                    document["values"] = {**entry["values"], **document["values"]}
                answer.append(json.loads(json.dumps(document)))
        return answer

    def list_values(self, query: dict[str, str]) -> list[dict[str, Any]]:
        return [
            value
            for value in self.values
            if query.get("datasetId", value["datasetId"]) == value["datasetId"]
            and query.get("annotationId", value["annotationId"]) == value["annotationId"]
        ]

    def delete_values(self, query: dict[str, str]) -> None:
        with self.lock:
            for document in self.values:
                if document["datasetId"] == query["datasetId"]:
                    document["values"].pop(query["propertyId"], None)
            self.values = [document for document in self.values if document["values"]]

    # --- folders, items, files, collections ------------------------------------------------------------------

    def one(self, kind: str, table: dict[str, dict[str, Any]], key: str) -> dict[str, Any]:
        if key not in table:
            raise refuse(400, f"Invalid {kind} id ({key}).", "rest")
        return table[key]

    def image(self, item: str) -> Image:
        self.one("item", self.items, item)
        if item not in self.images:
            raise refuse(400, "No large image file in this item.", "rest")
        return self.images[item]

    def histogram(self, item: str, query: dict[str, str]) -> list[dict[str, Any]]:
        pixels = self.image(item).region({"frame": query.get("frame", "0")})
        return [{"min": float(band.min()), "max": float(band.max())} for band in np.moveaxis(pixels, -1, 0)]

    def list_items(self, query: dict[str, str]) -> list[dict[str, Any]]:
        self.one("folder", self.folders, query["folderId"])
        return [
            item
            for item in self.items.values()
            if item["folderId"] == query["folderId"] and query.get("name", item["name"]) == item["name"]
        ]

    def create_item(self, query: dict[str, str]) -> dict[str, Any]:
        found = self.list_items(query)
        if found and query.get("reuseExisting") == "true":
            return found[0]
        item = {"_id": self.new_id(), "name": query["name"], "folderId": query["folderId"], "meta": {}}
        self.items[item["_id"]] = item
        return item

    def create_file(self, query: dict[str, str], content: bytes) -> dict[str, Any]:
        self.one("item", self.items, query["parentId"])
        if int(query["size"]) != len(content):
            raise refuse(400, "Uploads of several chunks are not known here.", "rest")
        file = {
            "_id": self.new_id(),
            "name": query["name"],
            "itemId": query["parentId"],
            "size": len(content),
            "created": datetime.now(UTC).isoformat(),
        }
        self.files[file["_id"]] = file
        self.contents[file["_id"]] = content
        return file

    def delete_file(self, key: str) -> None:
        self.one("file", self.files, key)
        with self.lock:
            self.files.pop(key, None)

    def list_views(self, query: dict[str, str], user: str) -> list[dict[str, Any]]:
        own_only = query.get("currentUserOnly") == "true"
        return [
            view
            for view in self.views
            if view["datasetId"] == query["datasetId"] and (not own_only or view["owner"] == user)
        ]

    def put_metadata(self, collection: str, body: dict[str, Any]) -> dict[str, Any]:
        found = self.one("upenn_collection", self.collections, collection)
        found["meta"].update(body)
        return found

    def _queried_dataset(self, query: dict[str, str]) -> str:
        if "datasetId" not in query:
            raise refuse(400, 'Parameter "datasetId" is required.', "rest")
        if not _is_id(query["datasetId"]):
            raise refuse(500, "An unexpected error occurred on the server.", "internal")
        self.one("folder", self.folders, query["datasetId"])
        return query["datasetId"]


def page(entries: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    """Cut a list as the server does: 50 entries by default, 0 for all; a cursor instead of an offset."""
    if query.get("sort") == "_id":
        entries = sorted(entries, key=lambda entry: entry["_id"], reverse=query.get("sortdir") == "-1")
    limit, start = int(query.get("limit", 50)), int(query.get("offset", 0))
    if "afterId" in query:
        entries, start = [entry for entry in entries if entry["_id"] > query["afterId"]], 0
    return entries[start : start + limit if limit else None]


def pickled(pixels: np.ndarray) -> bytes:
    return pickle.dumps(np.ascontiguousarray(pixels), protocol=5)


def _check_annotation(document: Any) -> None:
    for key in ("shape", "tags", "channel", "location", "coordinates", "datasetId"):
        if key not in document:
            raise refuse(400, f"data must contain ['{key}'] properties", "validation")
    if document["shape"] not in SHAPES:
        raise refuse(400, f"data.shape must be one of {SHAPES}", "validation")
    for number, tag in enumerate(document["tags"]):
        if not isinstance(tag, str):
            raise refuse(400, f"data.tags[{number}] must be string", "validation")
    if not _is_int(document["channel"]):
        raise refuse(400, "data.channel must be integer", "validation")
    for key, value in document["location"].items():
        if not _is_int(value):
            raise refuse(400, f"data.location.{key} must be integer", "validation")
    if not document["coordinates"]:
        raise refuse(400, "data.coordinates must contain at least 1 items", "validation")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(text: str) -> bool:
    return len(text) == 24 and all(letter in "0123456789abcdef" for letter in text)


def _is_value(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_value, value.values()))
    return value is None or (isinstance(value, (int, float, str)) and not isinstance(value, bool))


def _distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    def middle(document: dict[str, Any]) -> np.ndarray:
        return np.mean([[point["x"], point["y"]] for point in document["coordinates"]], axis=0)

    return float(np.linalg.norm(middle(a) - middle(b)))
