"""A thousand mutated files of each format of marked objects: what is read makes sense, all else is one sentence."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from pycocotools import mask as coco_masks
from roifile import ROI_TYPE, ImagejRoi
from shapely import Point, Polygon, box

from sam2_fewshot.annotations.examples import read_objects
from sam2_fewshot.annotations.nominal import nominal_images
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sam2_fewshot.images.image_set import ImageSet
    from told import Told

pytestmark = pytest.mark.fuzz

SHAPE = (60, 80)
MUTATIONS = 1000
CIRCLES = [Point(x, y).buffer(r, quad_segs=5) for x, y, r in ((15, 15, 9), (40, 30, 12), (65, 20, 8), (75, 48, 8))]
ODD = [
    None,
    True,
    "x",
    "",
    [],
    {},
    0,
    -1,
    1.5,
    1e400,
    -1e300,
    10**400,
    2**63,
    float("nan"),
    [1, 2],
    [[1, 2]],
    {"x": 1, "y": 2},
]


def geojson() -> bytes:
    shapes = [*CIRCLES, Polygon(CIRCLES[1].exterior, [CIRCLES[1].buffer(-4).exterior]), Point(3, 4)]
    shapes += [shapely.MultiPolygon([CIRCLES[0], CIRCLES[2]]), shapely.MultiPoint([(1, 2), (9, 9)])]
    features = [
        {
            "type": "Feature",
            "id": str(i),
            "geometry": json.loads(shapely.to_geojson(shape))
            | ({"plane": {"c": -1, "z": 0, "t": 0}} if i == 0 else {}),
            "properties": {"classification": {"name": "cell", "color": [1, 2, 3]}, "measurements": {"Score": 0.5}},
        }
        for i, shape in enumerate(shapes)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def coco() -> bytes:
    annotations: list[dict[str, Any]] = []
    for i, circle in enumerate(CIRCLES):
        flat = np.asarray(circle.exterior.coords).ravel().tolist()
        compressed = coco_masks.frPyObjects([flat], *SHAPE)[0]
        counts = {"size": list(SHAPE), "counts": compressed["counts"].decode()}
        uncompressed = {"size": list(SHAPE), "counts": [100, 20, 40, 20, SHAPE[0] * SHAPE[1] - 180]}
        for segmentation in ([flat], [flat, flat[:8]], counts, uncompressed):
            annotations.append(
                {
                    "id": len(annotations), "image_id": 1, "category_id": 1 + i % 2, "iscrowd": 0,
                    "segmentation": segmentation, "score": 0.5, "outline": flat, "bbox": [1, 2, 3, 4],
                }
            )  # fmt: skip
    images = [{"id": 1, "file_name": "a.tif", "height": SHAPE[0], "width": SHAPE[1], "z": 0, "time": 0}]
    categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def nimbus() -> bytes:
    annotations = []
    for i, circle in enumerate(CIRCLES):
        points = [{"x": x, "y": y, "z": 0} for x, y in circle.exterior.coords[:-1]]
        for shape, coordinates in (("polygon", points), ("rectangle", points[:5:4]), ("point", points[10:11])):
            where = {"XY": 0, "Z": 0, "Time": 0}
            annotations.append({"id": f"{shape}{i}", "shape": shape, "tags": ["cell"], "coordinates": coordinates,
                                "location": where, "channel": 0})  # fmt: skip
    properties = [{"id": "p", "name": "Score"}]
    values = {"polygon0": {"p": 0.5}}
    return json.dumps(
        {"annotations": annotations, "annotationConnections": [], "annotationProperties": properties,
         "annotationPropertyValues": values}
    ).encode()  # fmt: skip


def rois() -> list[ImagejRoi]:
    made = [ImagejRoi.frompoints(np.asarray(circle.exterior.coords, np.float32)) for circle in CIRCLES]
    made.append(ImagejRoi.frompoints(np.array([[5, 5], [20, 8], [9, 22]])))
    for kind in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        roi = ImagejRoi.frompoints(np.array([[5, 5], [20, 20]]))
        roi.roitype = kind
        made.append(roi)
    point = ImagejRoi.frompoints(np.array([[5, 5], [20, 8]]))
    point.roitype = ROI_TYPE.POINT
    made.append(point)
    for number, roi in enumerate(made):
        roi.name, roi.position, roi.props = f"cell {number}", number % 2, "tag: cell\nscore: 0.5\n"
    return made


def roi() -> bytes:
    return rois()[0].tobytes()


def roi_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, each in enumerate(rois()):
            archive.writestr(f"{number}.roi", each.tobytes())
    return content.getvalue()


def labels() -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    values = np.zeros(SHAPE, np.uint16)
    for number, circle in enumerate(CIRCLES, 1):
        values[shapely.contains_xy(circle, columns + 0.5, rows + 0.5)] = number
    return values


def label_tiff() -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, labels(), compression="zlib", metadata={"axes": "YX"})
    return content.getvalue()


def label_png() -> bytes:
    content = io.BytesIO()
    Image.fromarray(labels().astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


SEEDS: dict[str, Callable[[], bytes]] = {
    "a.geojson": geojson,
    "a_coco.json": coco,
    "a.json": nimbus,
    "a.roi": roi,
    "a.zip": roi_zip,
    "a_labels.tif": label_tiff,
    "a_labels.png": label_png,
}


def bytes_changed(rng: random.Random, content: bytes) -> bytes:
    """Return a file with some of its bytes overwritten, cut out, put in twice or cut off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at, length = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 4, 8, 60])
        kind = rng.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            data[at : at + length] = rng.choice([b"\x00", b"\xff", b"\x7f", b"\x80"]) * length
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + 4] = rng.choice([2**31 - 1, 2**31, 2**32 - 1, 65536]).to_bytes(
                4, rng.choice(["big", "little"])
            )
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


def values_changed(rng: random.Random, content: bytes) -> bytes:
    """Return JSON in which some values are others, missing, or there twice."""
    document = json.loads(content)
    for _ in range(rng.randint(1, 6)):
        node = document
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if rng.random() < 0.2 or not isinstance(node[key], dict | list):
                if rng.random() < 0.2:
                    del node[key]
                elif rng.random() < 0.2 and isinstance(node, list):
                    node.insert(key, copy.deepcopy(node[key]))
                else:
                    node[key] = copy.deepcopy(rng.choice(ODD))
                break
            node = node[key]
    return json.dumps(document).encode()


@pytest.fixture
def image(tmp_path: Path) -> ImageSet:
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", np.zeros((2, *SHAPE), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    return open_images([folder / "a.tif"], Settings())


def check(path: Path, images: ImageSet, told: Told) -> bool:
    """Read a file; tell whether something was in it. What is in it must be usable."""
    try:
        placed = read_objects(path, images, told)
    except InputError as error:
        sentence = str(error)
        assert re.search(r"[.!]$", sentence), sentence
        assert "\n" not in sentence
        assert "Traceback" not in sentence
        return False
    assert placed
    for each in placed:
        exemplar = each.exemplar
        height, width = each.frame.shape
        if exemplar.polygon is not None:
            assert exemplar.polygon.is_valid
            assert exemplar.polygon.area > 0
            assert exemplar.polygon.within(box(-1, -1, width + 1, height + 1))
        elif exemplar.point is not None:
            assert Point(exemplar.point).within(box(-1e-9, -1e-9, width, height))
        elif exemplar.box is not None:
            assert box(*exemplar.box).area > 0
            assert box(*exemplar.box).within(box(0, 0, width, height))
        else:
            assert exemplar.mask is not None
            assert exemplar.mask.any()
            assert exemplar.mask.shape == each.frame.shape
        assert all(isinstance(tag, str) and tag for tag in each.tags)
    return True


@pytest.mark.parametrize("name", SEEDS)
def test_the_seed_itself_is_read(tmp_path: Path, image: ImageSet, told: Told, name: str) -> None:
    (tmp_path / name).write_bytes(SEEDS[name]())
    assert check(tmp_path / name, image, told)
    assert not any("left out" in sentence for sentence in told.warnings)


@pytest.mark.parametrize("name", SEEDS)
def test_no_mutation_is_an_accident(tmp_path: Path, image: ImageSet, told: Told, name: str) -> None:
    seed = SEEDS[name]()
    is_json = name.endswith("json")
    used = 0
    for number in range(MUTATIONS):
        rng = random.Random(f"{name} {number}")
        change = values_changed if is_json and number % 4 else bytes_changed
        path = tmp_path / name
        path.write_bytes(change(rng, seed))
        try:
            used += check(path, image, told)
            if number % 5 == 0:
                try:
                    known = nominal_images(path)
                except InputError:
                    continue
                check(path, known, told)
        except BaseException as error:
            error.add_note(f"mutation {number} of {name}")
            raise
    assert used > MUTATIONS / 50  # the others are refused
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["images", name])
