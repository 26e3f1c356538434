from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as reference

from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.records import Location
from sam2_fewshot.settings import Settings

SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]


def coco(*annotations, images=None, **more) -> dict:
    images = [{"id": 1, "file_name": "cells.png", "width": 80, "height": 60}] if images is None else images
    entries = [{"id": n, "image_id": 1, "category_id": 1, **entry} for n, entry in enumerate(annotations)]
    categories = [{"id": 1, "name": "living"}, {"id": 2, "name": "dead"}]
    return {"images": images, "annotations": entries, "categories": categories, **more}


@pytest.fixture
def ragged() -> np.ndarray:
    mask = np.zeros((60, 80), np.uint8)
    mask[5:30, 7:33] = np.random.default_rng(1).random((25, 26)) > 0.3
    return mask


def test_polygons_and_classes(put, examples_in):
    other = {"segmentation": [[30, 30, 40, 30, 35, 40]], "category_id": 2, "score": 0.5, "tags": ["dead", "flat"]}
    found = examples_in(put("cells.json", coco({"segmentation": [SQUARE]}, other)), "living", "dead")
    assert [item.exemplar.negative for item in found] == [False, True]
    assert found[0].exemplar.polygon.bounds == (10, 10, 20, 20)
    assert found[1].tags == ("dead", "flat")
    assert found[1].figures.score == 0.5


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths(put, examples_in, ragged, compressed):
    code = reference.encode(np.asfortranarray(ragged))
    counts = code["counts"].decode()
    if not compressed:
        flat = ragged.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff(np.r_[0, edges, flat.size]).tolist()
    (found,) = examples_in(put("x.json", coco({"segmentation": {"size": [60, 80], "counts": counts}})))
    assert (found.instance.full() == ragged).all()
    assert (found.exemplar.mask == ragged).all()


@pytest.mark.parametrize(
    ("more", "area"), [({}, 375), ({"holes": []}, 400), ({"holes": [[11, 11, 14, 11, 14, 14]]}, 395.5)]
)
def test_the_mask_tells_the_holes_where_the_outline_does_not(put, examples_in, more, area):
    plane = np.zeros((60, 80), np.uint8)
    plane[5:25, 5:25] = 1
    plane[10:15, 10:15] = 0
    mask = {"size": [60, 80], "counts": reference.encode(np.asfortranarray(plane))["counts"].decode()}
    entry = {"segmentation": mask, "outline": [5, 5, 25, 5, 25, 25, 5, 25], **more}
    (found,) = examples_in(put("x.json", coco(entry)))
    assert (found.instance.full() == plane).all()
    assert (found.exemplar.mask.sum() if found.exemplar.polygon is None else found.exemplar.polygon.area) == area


def test_the_largest_of_several_parts(put, examples_in, told):
    (found,) = examples_in(put("x.json", coco({"segmentation": [[1, 1, 3, 1, 3, 3], SQUARE]})))
    assert found.exemplar.polygon.area == 100
    assert "cut to the largest part" in told.warnings[0]


def test_masks_that_cvat_calls_crowds_are_objects(put, examples_in, told):
    mask = {"segmentation": {"size": [60, 80], "counts": [605, 10, 4185]}, "iscrowd": 1, "bbox": [10, 5, 1, 10]}
    one, two = mask | {"attributes": {"occluded": False}}, {"segmentation": [SQUARE], "iscrowd": 0}
    found = examples_in(put("x.json", coco(one, two | {"attributes": {"occluded": True}}, mask)))
    assert [item.exemplar.polygon.bounds for item in found] == [(10, 5, 11, 15), (10, 10, 20, 20)]
    assert told.warnings == [
        "x.json: object 1 was taken as one object: iscrowd is 1, which CVAT writes of every mask.",
        "x.json: object 3 was left out: a crowd (iscrowd: 1), which is several objects in one.",
    ]


def test_crowds_are_left_out(put, examples_in, told):
    crowd = {"segmentation": {"size": [60, 80], "counts": [0, 4000, 800]}, "iscrowd": 1}
    path = put("x.json", coco(crowd, {"segmentation": [SQUARE], "iscrowd": 0}, crowd))
    (found,) = examples_in(path)
    assert found.exemplar.polygon.area == 100
    assert told.only == (
        "x.json: 2 of 3 objects were left out (objects 1, 3): a crowd (iscrowd: 1), which is several objects in one."
    )
    with pytest.raises(InputError, match=r"No example in x\.json can be used: a crowd"):
        examples_in(put("x.json", coco(crowd)))


def test_several_images(put, told):
    plane = (np.arange(4800).reshape(60, 80) % 251).astype(np.uint8)
    images = open_images([put("a.png", plane), put("b.png", plane + 1)], Settings())
    names = [
        {"id": "one", "file_name": "C:\\data\\b.tif", "height": 60, "width": 80},
        {"id": 2, "file_name": "../../a.jpg"},
        {"id": 3, "file_name": "other.png"},
    ]
    places = [{"segmentation": [SQUARE], "image_id": key} for key in ("one", 2, 3, 4)]
    found = read_examples(put("x.json", coco(*places, images=names)), images, progress=told)
    assert [item.location.xy for item in found] == [0, 1]
    assert "object 3 was left out: on an image that was not given (other.png)" in told.warnings[0]
    assert "object 4 was left out: of an image that the file does not name" in told.warnings[1]


def test_planes(put, tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "s.tif", np.ones((2, 3, 60, 80), np.uint8), ome=True, metadata={"axes": "TZYX"})
    images = open_images([tmp_path / "s.tif"], Settings())
    data = coco({"segmentation": [SQUARE]}, images=[{"id": 1, "file_name": "s.tif", "z": 2, "time": 1}])
    (found,) = read_examples(put("x.json", data), images)
    assert found.location == Location(0, 2, 1)


def test_one_image_of_another_name(put, examples_in, told):
    data = coco({"segmentation": [SQUARE]}, images=[{"id": 1, "file_name": "renamed.png"}])
    examples_in(put("x.json", data))
    assert told.warnings == ["x.json speaks of renamed.png; its objects are taken to lie on cells.png."]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "without an outline or a mask"),
        ({"segmentation": []}, "without an outline or a mask"),
        ({"segmentation": [[1, 2, 3]]}, "without an outline or a mask"),
        ({"segmentation": [["a"] * 6]}, "without an outline or a mask"),
        ({"segmentation": [[1, 2, 3, 4, float("nan"), 5]]}, "not finite"),
        ({"segmentation": [[0, float("nan"), 0, 0, 0, 0]]}, "not finite"),
        ({"segmentation": [[1, 2, 3, 4, 1e300, 5]]}, "far outside"),
        ({"segmentation": {"size": [60, 80]}}, "it has no counts"),
        ({"segmentation": {"size": [60, 81], "counts": [1]}}, "not of its image's size"),
        ({"segmentation": {"size": [60, 80], "counts": [1.5]}}, "not whole numbers"),
        ({"segmentation": {"size": [60, 80], "counts": []}}, "not whole numbers"),
        ({"segmentation": {"size": [60, 80], "counts": [4000, 10**15]}}, "not whole numbers"),
        ({"segmentation": {"size": [60, 80], "counts": [5, 6]}}, "add up to 11"),
        ({"segmentation": {"size": [60, 80], "counts": "~~~"}}, "not a run-length code"),
        ({"segmentation": {"size": [60, 80], "counts": [4800]}}, "empty mask"),
        ({"segmentation": [SQUARE], "image_id": [1]}, "does not name"),
        ({"segmentation": [SQUARE], "image_id": 1.5}, "does not name"),
    ],
)
def test_what_cannot_be_used(put, examples_in, entry, said):
    with pytest.raises(InputError, match=said):
        examples_in(put("x.json", coco(entry)))


def test_another_size(put, examples_in):
    data = coco({"segmentation": [SQUARE]}, images=[{"id": 1, "file_name": "cells.png", "width": 8, "height": 6}])
    with pytest.raises(InputError, match=r"on an image of 8 × 6 px, but cells.png is 80 × 60 px"):
        examples_in(put("x.json", data))


def test_a_mask_on_a_plane_that_is_not_there(put, examples_in):
    code = {"size": [60, 80], "counts": [0, 4800]}
    data = coco({"segmentation": code}, images=[{"id": 1, "file_name": "cells.png", "z": 3}])
    with pytest.raises(InputError, match="Z 3"):
        examples_in(put("x.json", data))


def test_odd_lists_do_no_harm(put, examples_in):
    data = coco({"segmentation": [SQUARE], "category_id": {}}, images=[7, {"id": None}, {"id": 1, "file_name": 3}])
    data["categories"] = [3, {"id": 1}]
    data["annotations"].append("x")
    (found,) = examples_in(put("x.json", data))
    assert found.tags == ()
