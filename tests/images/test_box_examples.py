"""Boxes as examples, and geometries without a feature around them."""

from __future__ import annotations

import json

import pytest
from roifile import ROI_TYPE, ImagejRoi
from test_outline_examples import SQUARE, collection, feature

from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.errors import FewShotWarning

TRIANGLE = [[13, 4], [19, 4], [16, 12], [13, 4]]
RECTANGLE = [[3, 4], [9, 4], [9, 12], [3, 12], [3, 4]]


def coco(*boxes: object) -> dict[str, object]:
    return {
        "images": [{"id": 1, "file_name": "cells.png", "width": 30, "height": 20}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": []} for n, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }


def test_boxes_of_coco(write, image):
    (found,) = read_examples(write("x.json", coco([3, 4, 6.5, 8])), image)
    assert found.exemplar.box == (3, 4, 9.5, 12)
    assert (found.exemplar.polygon, found.exemplar.mask, found.exemplar.point) == (None, None, None)
    assert found.tags == ("cell",)
    assert found.exemplar.label == "x.json, object 1"


def test_an_outline_goes_before_a_box(write, image):
    content = coco([3, 4, 6, 8])
    content["annotations"][0]["segmentation"] = [[3, 4, 9, 4, 6, 12]]  # type: ignore[index]
    (found,) = read_examples(write("x.json", content), image)
    assert found.exemplar.box is None


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ([3, 4, 0, 8], "a box without area"),
        ([3, 4, -6, 8], "a box without area"),
        ([40, 4, 6, 8], "outside its image"),
        ([3, 4, 6], "without an outline or a mask, and without a box"),
        ([3, "4", 6, 8], "without an outline or a mask, and without a box"),
        ([3, 4, 1e300, 8], "far outside any image"),
        (None, "without an outline or a mask, and without a box"),
    ],
)
def test_boxes_of_no_use_are_left_out(write, image, told, box, why):
    assert len(read_examples(write("x.json", coco([3, 4, 6, 8], box)), image, progress=told)) == 1
    assert why in told.only


def test_a_box_is_cut_at_the_border(write, image, told):
    (found,) = read_examples(write("x.json", coco([25, 10, 20, 20])), image, progress=told)
    assert found.exemplar.box == (25, 10, 30, 20)
    assert "cut at the border" in told.only


def test_rectangles_are_boxes_on_request(write, image):
    path = write("cells.geojson", collection(feature("Polygon", [RECTANGLE]), feature("Polygon", [TRIANGLE])))
    outlines = read_examples(path, image)
    assert [item.exemplar.box for item in outlines] == [None, None]
    boxes = read_examples(path, image, boxes=True)
    assert boxes[0].exemplar.box == (3, 4, 9, 12)
    assert boxes[0].exemplar.polygon is None
    assert boxes[1].exemplar.polygon is not None


def test_rectangles_of_imagej_are_boxes_on_request(image, tmp_path):
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, top=4, left=3, bottom=12, right=9)
    roi.tofile(tmp_path / "cells.roi")
    assert read_examples(tmp_path / "cells.roi", image)[0].exemplar.box is None
    assert read_examples(tmp_path / "cells.roi", image, boxes=True)[0].exemplar.box == (3, 4, 9, 12)


def test_what_is_no_rectangle_stays_an_outline(write, image):
    tilted = [[3, 4], [9, 5], [8, 12], [2, 11], [3, 4]]
    holed = [RECTANGLE, [[5, 6], [7, 6], [7, 8], [5, 8], [5, 6]]]
    path = write("cells.geojson", collection(feature("Polygon", [tilted]), feature("Polygon", holed)))
    assert [item.exemplar.box for item in read_examples(path, image, boxes=True)] == [None, None]


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ({"type": "Polygon", "coordinates": [SQUARE]}, 1),
        ({"type": "Point", "coordinates": [5, 6]}, 1),
        ({"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [SQUARE]}] * 2}, 2),
        (
            {
                "type": "GeometryCollection",
                "geometries": [
                    {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [SQUARE]}]},
                    {"type": "Point", "coordinates": [20, 6]},
                ],
            },
            2,
        ),
        ({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}}, 1),
        (
            {
                "type": "Feature",
                "properties": None,
                "geometry": {
                    "type": "GeometryCollection",
                    "geometries": [
                        {"type": "Polygon", "coordinates": [SQUARE]},
                        {"type": "Point", "coordinates": [1, 2]},
                    ],
                },
            },
            2,
        ),
    ],
)
def test_bare_geometries(write, image, content, count):
    found = read_examples(write("cells.geojson", content), image)
    assert len(found) == count
    assert {item.tags for item in found} == {()}


def test_collections_in_one_another_without_end_are_no_trouble(write, image, told):
    inner: dict[str, object] = {"type": "Polygon", "coordinates": [SQUARE]}
    for _ in range(200):
        inner = {"type": "GeometryCollection", "geometries": [inner, 5, None]}
    assert len(read_examples(write("cells.geojson", inner), image, progress=told)) == 1
    assert "not a GeoJSON feature" in told.only


def test_boxes_are_converted_as_rectangles(write, tmp_path):
    path = write("boxes_coco.json", coco([3, 4, 6, 8]))
    with pytest.warns(FewShotWarning, match="1 of 1 objects is a box without an outline, written as a rectangle"):
        convert(path, tmp_path / "out.geojson")
    (made,) = json.loads((tmp_path / "out.geojson").read_text())["features"]
    xs, ys = zip(*made["geometry"]["coordinates"][0], strict=True)
    assert (min(xs), min(ys), max(xs), max(ys)) == (3, 4, 9, 12)
