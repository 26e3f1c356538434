"""What one format takes, it gives back: outlines within 0.01 px, masks exactly, scores to 1e-6."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
import zarr
from PIL import Image
from roifile import ImagejRoi, roiwrite
from typer.testing import CliRunner

from recorded import recorded
from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.annotations.label_images import read_classes
from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.cli import app
from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.geometry.outlines import mask_to_polygon, polygon_to_mask
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.output.journal import JOURNAL_FOLDER, Journal
from sam2_fewshot.records import Detection, InstanceMask, Location
from sam2_fewshot.settings import Settings

FILES = {
    "geojson": "cells.geojson",
    "nimbus": "annotations.json",
    "coco": "coco.json",
    "roi": "cells.zip",
    "labels": "cells.tif",
    "zarr": "cells.zarr",
}
OUTLINES = {"geojson", "nimbus", "coco", "roi"}
SCORES = {"geojson", "nimbus", "coco", "roi", "zarr"}


@pytest.fixture
def given(tmp_path, frame_of):
    """Results of a run on cells.png: every format, from one set of objects."""
    record = frame_of(6)
    assemble([record], tmp_path / "run", tags=["living"], extra=["coco", "roi", "zarr"])
    return record


def result(tmp_path, kind):
    found = [path for path in (tmp_path / "run").rglob(FILES[kind]) if ".frames" not in path.parts]
    (path,) = (path for path in found if kind != "labels" or path.parent.name == "labels")
    return path


def check(record, found, kind) -> None:
    assert len(found) == len(record.detections)
    for item, back in zip(record.detections, found, strict=True):
        polygon = back.exemplar.polygon
        mask = back.instance if back.instance is not None else polygon_to_mask(polygon, record.frame_shape)
        assert (mask.full() == item.mask).all()
        if kind in OUTLINES:
            assert shapely.hausdorff_distance(polygon, item.polygon) < 0.01
        if kind in SCORES:
            for name in ("score", "similarity", "predicted_iou"):
                assert getattr(back.figures, name) == pytest.approx(getattr(item, name), abs=1e-6)
        if kind != "labels":
            assert back.tags == ("living",)


@pytest.mark.parametrize("kind", FILES)
def test_results_come_back(tmp_path, given, cells, kind):
    check(given, read_examples(result(tmp_path, kind), cells), kind)


@pytest.mark.parametrize("to", FILES)
@pytest.mark.parametrize("kind", FILES)
def test_every_format_converts_to_every_other(tmp_path, given, cells, told, kind, to):
    out = tmp_path / "converted" / FILES[to]
    image = [cells[0].path] if to in {"labels", "zarr", "coco"} else []
    done = convert(result(tmp_path, kind), out, to, image, overwrite=True, progress=told)
    assert (done.objects, done.frames, list(done.files)) == (6, 1, [out])
    found = read_examples(out, cells)
    for item, back in zip(given.detections, found, strict=True):
        mask = back.instance or polygon_to_mask(back.exemplar.polygon, given.frame_shape)
        assert (mask.full() == item.mask).all()
        if kind in OUTLINES and to in OUTLINES:
            assert shapely.hausdorff_distance(back.exemplar.polygon, item.polygon) < 0.01
        if kind in SCORES and to in SCORES:
            assert back.figures.score == pytest.approx(item.score, abs=2e-6)
        if kind != "labels":
            assert back.tags[0] == "living"


@pytest.mark.parametrize("to", ["geojson", "roi", "coco", "labels", "zarr"])
def test_holes_and_parts(tmp_path, put, cells, told, to):
    plane = np.zeros((60, 80), np.uint8)
    plane[5:25, 5:25] = 1
    plane[10:15, 10:15] = 0
    plane[30:40, 5:25] = plane[45:47, 5:7] = 2
    source = put("marked/cells_labels.png", plane)
    out = tmp_path / FILES[to]
    convert(source, out, to, progress=told)
    parts = to not in {"coco", "labels", "zarr"}
    assert [line.split(":")[0] for line in told.warnings] == ["Cut to the largest of several parts"] * parts
    found = read_examples(out, cells)
    masks = [
        item.exemplar.mask
        if item.exemplar.mask is not None
        else (item.instance or polygon_to_mask(item.exemplar.polygon, (60, 80))).full()
        for item in found
    ]
    assert (masks[0] == (plane == 1)).all()
    expected = plane == 2
    if parts:
        expected[45:47] = False
    assert (masks[1] == expected).all()


@pytest.mark.parametrize("between", FILES)
@pytest.mark.parametrize("to", FILES)
def test_an_outline_with_a_hole_keeps_it_or_a_warning_says_so(tmp_path, put, cells, told, between, to):
    ring, hole = [[5, 5], [25, 5], [25, 25], [5, 25], [5, 5]], [[10, 10], [15, 10], [15, 15], [10, 15], [10, 10]]
    polygon = {"type": "Polygon", "coordinates": [ring, hole]}
    source = put("x/cells.geojson", {"type": "Feature", "geometry": polygon})
    for kind, place in ((between, "first"), (to, "second")):
        target = tmp_path / place / FILES[kind]
        convert(source, target, kind, [cells[0].path], progress=told)
        source = target
    (found,) = read_examples(source, cells)
    exemplar = found.exemplar
    mask = polygon_to_mask(exemplar.polygon, (60, 80)).full() if exemplar.mask is None else exemplar.mask
    is_filled = "nimbus" in (between, to)
    assert mask.sum() == (400 if is_filled else 375)
    assert told.warnings == ["The holes of 1 outline are filled: the format nimbus has none."] * is_filled


@pytest.mark.parametrize("to", ["geojson", "nimbus", "roi"])
def test_points_and_classes(tmp_path, put, cells, to):
    def feature(kind, coordinates, name):
        return {
            "type": "Feature",
            "geometry": {"type": kind, "coordinates": coordinates},
            "properties": {"classification": {"name": name}},
        }

    ring = [[[10.5, 10], [20, 10], [20, 20.25], [10.5, 10]]]
    source = put("x/cells.geojson", {"type": "FeatureCollection", "features": [
        feature("Point", [3.25, 4.5], "dot"), feature("Polygon", ring, "cell"), feature("Point", [7.25, 8.5], "dot"),
    ]})  # fmt: skip
    assert convert(source, tmp_path / FILES[to], to).objects == 3
    found = read_examples(tmp_path / FILES[to], cells)
    assert [item.tags for item in found] == [("cell",), ("dot",), ("dot",)]
    assert [item.exemplar.point for item in found[1:]] == [(3.25, 4.5), (7.25, 8.5)]
    assert found[0].exemplar.polygon.bounds == (10.5, 10, 20, 20.25)


def test_the_derived_classes_of_qupath_stay_apart(tmp_path, put, cells):
    squares = [[[x, 5], [x + 10, 5], [x + 10, 15], [x, 15], [x, 5]] for x in (5, 25)]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {
                "objectType": "annotation",
                "classification": {"names": ["Tumor", name], "color": [1, 2, 3]},
            },
        }
        for ring, name in zip(squares, ("Positive", "Negative"), strict=True)
    ]
    source = put("x/cells.geojson", {"type": "FeatureCollection", "features": features})
    convert(source, tmp_path / "to" / "cells.geojson")
    written = json.loads((tmp_path / "to" / "cells.geojson").read_text())["features"]
    classes = ["Tumor: Positive", "Tumor: Negative"]
    assert [each["properties"]["classification"]["name"] for each in written] == classes
    convert(source, tmp_path / "coco.json", images=[cells[0].path])
    categories = json.loads((tmp_path / "coco.json").read_text())["categories"]
    assert [each["name"] for each in categories] == classes
    for file in (source, tmp_path / "to" / "cells.geojson", tmp_path / "coco.json"):
        assert [item.tags[0] for item in read_examples(file, cells, "Tumor: Positive")] == classes[:1]
        assert len(read_examples(file, cells, "Tumor")) == 2


def test_objects_without_a_class_have_none_after_coco(tmp_path, put, cells):
    squares = [[[x, 5], [x + 10, 5], [x + 10, 15], [x, 15], [x, 5]] for x in (5, 25, 45)]
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"tags": tags}}
        for ring, tags in zip(squares, ([], ["object"], ["dead"]), strict=True)
    ]
    source = put("x/cells.geojson", {"type": "FeatureCollection", "features": features})
    convert(source, tmp_path / "coco.json", images=[cells[0].path])
    assert [item.tags for item in read_examples(tmp_path / "coco.json", cells)] == [(), ("object",), ("dead",)]
    data = json.loads((tmp_path / "coco.json").read_text())
    assert [each["name"] for each in data["categories"]] == ["object", "object", "dead"]
    assert {each["category_id"] for each in data["annotations"]} == {each["id"] for each in data["categories"]}


def test_rois_that_are_numbered_are_of_one_class(tmp_path, cells):
    rois = [
        ImagejRoi.frompoints(np.array([[x, 5], [x + 10, 5], [x + 10, 15], [x, 15]]), name=f"nucleus-{number}")
        for number, x in enumerate((5, 25, 45), 1)
    ]
    roiwrite(tmp_path / "cells.zip", rois)
    for name in ("coco.json", "cells.geojson", "labels.tif"):
        convert(tmp_path / "cells.zip", tmp_path / name, images=[cells[0].path])
    assert json.loads((tmp_path / "coco.json").read_text())["categories"] == [{"id": 1, "name": "nucleus"}]
    features = json.loads((tmp_path / "cells.geojson").read_text())["features"]
    assert {each["properties"]["classification"]["name"] for each in features} == {"nucleus"}
    classes = json.loads((tmp_path / "labels_classes.json").read_text())
    assert classes["2"] == ["nucleus", "nucleus-2"]


def test_classes_go_beside_a_label_image(tmp_path, put, cells):
    source = tmp_path / "x" / "cells.geojson"
    squares = [[[x, 5], [x + 10, 5], [x + 10, 15], [x, 15], [x, 5]] for x in (5, 25)]
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"tags": [tag]}}
        for ring, tag in zip(squares, ("living", "dead"), strict=True)
    ]
    put("x/cells.geojson", {"type": "FeatureCollection", "features": features})
    convert(source, tmp_path / "cells_labels.tif", images=[cells[0].path])
    found = read_examples(tmp_path / "cells_labels.tif", cells, "living", "dead")
    assert [item.exemplar.negative for item in found] == [False, True]
    assert json.loads((tmp_path / "cells_labels_classes.json").read_text()) == {"1": ["living"], "2": ["dead"]}


@pytest.mark.parametrize("overwrite", [True, False])
def test_other_objects_do_not_get_the_classes_of_the_label_image_that_was_there(put, cells, told, overwrite):
    def converted(tags):
        rings = [[[x, 5], [x + 10, 5], [x + 10, 15], [x, 5]] for x in (5, 25, 45)]
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"tags": [tag] if tag else []},
            }
            for ring, tag in zip(rings, tags, strict=False)
        ]
        source = put("x/cells.geojson", {"type": "FeatureCollection", "features": features})
        out = source.parent.parent / "cells_labels.tif"
        convert(source, out, images=[cells[0].path], overwrite=overwrite, progress=told)
        return out

    out = converted(["living", "dead"])
    if not overwrite:
        out.unlink()
    told.warnings.clear()
    out = converted([None, None, None])
    if overwrite:
        assert [item.tags for item in read_examples(out, cells)] == [(), (), ()]
        assert not [line for line in told.warnings if "classes" in line]
    else:
        assert read_classes(out) == {1: ("living",), 2: ("dead",)}
        assert [line for line in told.warnings if "classes" in line] == [
            "cells_labels_classes.json is there already and was left as it is; the objects of cells_labels.tif get its "
            "classes, so delete it if it is not theirs."
        ]


def test_files_that_are_read_are_not_written_over(put, cells, told):
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[5, 5], [15, 5], [15, 15], [5, 5]]]}}
    folder = put("x/cells.geojson", feature).parent
    assert convert(folder, folder, "roi", [cells[0].path], progress=told).objects == 1
    for kind, name in (("roi", "cells.zip"), ("geojson", "cells.geojson")):  # both of them are read now
        with pytest.raises(InputError, match=rf"{name} would be written over itself"):
            convert(folder, folder, kind, [cells[0].path], overwrite=True, progress=told)
    assert json.loads((folder / "cells.geojson").read_text()) == feature


def test_images_are_not_written_over(put, cells, told, tmp_path):
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[5, 5], [15, 5], [15, 15], [5, 5]]]}}
    image = tmp_path / "images" / "cells.tif"
    image.parent.mkdir()
    tifffile.imwrite(image, np.zeros((60, 80), np.uint8))
    content, source = image.read_bytes(), put("x/cells.geojson", feature)
    for out, kind in ((image, None), (image.parent, "labels")):
        with pytest.raises(InputError, match=r"cells\.tif is the image itself"):
            convert(source, out, kind, [image], overwrite=True, progress=told)
    assert image.read_bytes() == content


class TestStacks:
    @pytest.fixture
    def stack(self, tmp_path):
        path = tmp_path / "stack.tif"
        tifffile.imwrite(
            path, np.ones((2, 3, 60, 80), np.uint8), ome=True, metadata={"axes": "TZYX", "PhysicalSizeX": 2}
        )
        return path

    @pytest.mark.parametrize("to", FILES)
    def test_planes(self, tmp_path, stack, frame_of, told, to):
        frames = [
            frame_of(n + 2, Location(0, n, n), name="stack.tif", size_z=3, size_t=2, ) for n in (0, 1)
        ]  # fmt: skip
        assemble(frames, tmp_path / "run", tags=["x"])
        out = tmp_path / "to" / FILES[to].replace("cells", "stack")
        convert(tmp_path / "run" / "geojson" / "stack.geojson", out, to, [stack], progress=told)
        found = read_examples(out, open_images([stack], Settings()))
        assert [item.location for item in found] == [Location(0, 0, 0)] * 2 + [Location(0, 1, 1)] * 3
        for item, back in zip([i for f in frames for i in f.detections], found, strict=True):
            mask = back.instance or polygon_to_mask(back.exemplar.polygon, (60, 80))
            assert (mask.full() == item.mask).all()

    @pytest.mark.parametrize("axes", ["ZYX", "TYX", "ZCYX", "TZYX", "TCYX", "TZCYX"])
    @pytest.mark.parametrize("is_given", [True, False])
    def test_rois_lie_on_their_planes_with_and_without_the_image(self, tmp_path, put, told, axes, is_given):
        sizes = {"T": 5, "Z": 4, "C": 2, "Y": 60, "X": 80}
        image = tmp_path / "stack.tif"
        tifffile.imwrite(
            image, np.ones([sizes[axis] for axis in axes], np.uint8), imagej=True, metadata={"axes": axes}
        )  # fmt: skip
        ring = [[[5, 5], [9, 5], [9, 9], [5, 5]]]
        planes = [(2 * ("Z" in axes), 3 * ("T" in axes)), (0, 0), (3 * ("Z" in axes), 0)]
        features = [
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": ring, "plane": {"z": z, "t": t}}}
            for z, t in planes
        ]
        source = put("in/stack.geojson", {"type": "FeatureCollection", "features": features})
        convert(source, tmp_path / "stack.zip", images=[image] if is_given else (), progress=told)
        found = read_examples(tmp_path / "stack.zip", open_images([image], Settings()))
        assert [(each.location.z, each.location.time) for each in found] == sorted(planes)
        is_hyperstack = len(axes) > 3
        asked = (
            []
            if is_given or {"T", "Z"} <= set(axes)
            else ["The channels of stack are not known, so its objects have a slice and a ti"]
        )
        assert [sentence[:73] for sentence in told.warnings] == asked
        for roi, (z, t) in zip(ImagejRoi.fromfile(tmp_path / "stack.zip"), sorted(planes), strict=True):
            place = (0, z + 1, t + 1) if is_hyperstack or not is_given else (max(z, t) + 1, 0, 0)
            assert (roi.position, roi.z_position, roi.t_position) == place

    @pytest.mark.parametrize("axes", ["ZYX", "TYX"])
    def test_rois_of_a_plain_stack_come_back_without_the_image(self, tmp_path, put, told, axes):
        tifffile.imwrite(tmp_path / "stack.tif", np.ones((5, 60, 80), np.uint8), imagej=True, metadata={"axes": axes})
        planes = [{"z": n, "t": 0} if axes == "ZYX" else {"z": 0, "t": n} for n in range(4)]
        square = [[[5, 5], [9, 5], [9, 9], [5, 9], [5, 5]]]
        features = [
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square, "plane": plane}}
            for plane in planes
        ]
        source = put("in/stack.geojson", {"type": "FeatureCollection", "features": features})
        convert(source, tmp_path / "stack.zip", images=[tmp_path / "stack.tif"], progress=told)
        assert [roi.position for roi in ImagejRoi.fromfile(tmp_path / "stack.zip")] == [1, 2, 3, 4]
        convert(tmp_path / "stack.zip", tmp_path / "stack.geojson", progress=told)
        back = json.loads((tmp_path / "stack.geojson").read_text())["features"]
        assert [{key: each["geometry"]["plane"][key] for key in "zt"} for each in back] == planes
        assert told.warnings == []

    def test_rois_whose_planes_are_not_known_are_told(self, tmp_path, told):
        # A name counts where it says the place that the ROI has.
        places = {"0002-0020-0030": 2, "t2_0001": 3, "first": 1, "nowhere": 0, "z4_0001": 4}
        rois = [ImagejRoi.frompoints(np.array([[5, 5], [9, 5], [9, 9]]), name=name) for name in places]
        for roi, place in zip(rois, places.values(), strict=True):
            roi.position = place
        roiwrite(tmp_path / "stack.zip", rois)
        convert(tmp_path / "stack.zip", tmp_path / "annotations.json", progress=told)
        found = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
        assert sorted(each["location"]["Z"] for each in found) == [0, 0, 1, 2, 3]
        assert told.warnings == [
            "stack.zip: 2 of 5 objects were put on a slice (objects 1, 2): a place in the stack may be a time point or "
            "a channel as well; convert with --image tells which it is."
        ]

    @pytest.mark.parametrize("is_given", [True, False])
    def test_pages_of_labels_without_a_meaning_are_told(self, tmp_path, told, is_given):
        pages = np.zeros((3, 60, 80), np.uint8)
        pages[:, 5:15, 5:20], pages[2, 30:40, 30:45] = 1, 2
        tifffile.imwrite(tmp_path / "film.tif", pages, imagej=True, metadata={"axes": "TYX"})
        tifffile.imwrite(tmp_path / "film_labels.tif", pages, photometric="minisblack", metadata=None)
        images = [tmp_path / "film.tif"] if is_given else []
        convert(tmp_path / "film_labels.tif", tmp_path / "film.geojson", images=images, progress=told)
        features = json.loads((tmp_path / "film.geojson").read_text())["features"]
        assert {each["geometry"]["plane"]["t" if is_given else "z"] for each in features} == {0, 1, 2}
        said = "film_labels.tif does not say what its 3 pages are; they are taken as Z slices."
        assert [line[: len(said)] for line in told.warnings] == ([] if is_given else [said])

    def test_classes_that_differ_between_planes(self, tmp_path, stack, frame_of, told):
        frames = [frame_of(1, Location(0, z, 0), name="stack.tif", size_z=3, size_t=2) for z in (0, 1)]
        for frame, tag in zip(frames, "ab", strict=True):
            object.__setattr__(frame, "tags", ((tag,),))
        assemble(frames, tmp_path / "run")
        convert(tmp_path / "run" / "geojson" / "stack.geojson", tmp_path / "l.tif", images=[stack], progress=told)
        assert any("differ from plane to plane" in line for line in told.warnings)
        assert not (tmp_path / "l_classes.json").exists()
        (tmp_path / "l_classes.json").write_text('{"1": "of an earlier one"}')
        source = tmp_path / "run" / "geojson" / "stack.geojson"
        convert(source, tmp_path / "l.tif", images=[stack], overwrite=True, progress=told)
        assert json.loads((tmp_path / "l_classes.json").read_text()) == {"1": []}


class TestNumbers:
    """What tells an object from others in a label image, and a track in all of its frames."""

    @pytest.fixture
    def planes(self):
        planes = np.zeros((2, 3, 60, 80), np.uint32)
        planes[0, 0, 5:15, 5:20] = planes[0, 2, 6:16, 6:21] = planes[1, 2, 7:17, 7:22] = 7
        planes[0, 0, 30:40, 30:45] = planes[1, 0, 31:41, 30:45] = 3
        planes[1, 2, 50:55, 50:60] = 70_000
        return planes

    @pytest.fixture
    def track(self, tmp_path, planes):
        (tmp_path / "in").mkdir()
        path = tmp_path / "in" / "track_labels.tif"
        tifffile.imwrite(path, planes, ome=True, metadata={"axes": "TZYX"})
        path.with_name("track_classes.json").write_text('{"7": "living", "3": "dead"}')
        return path

    def test_those_of_a_label_image_stay_in_one_and_in_tables(self, tmp_path, put, told):
        plane = np.zeros((60, 80), np.uint16)
        plane[5:15, 5:20], plane[30:40, 30:45], plane[50, 60] = 12_000, 900, 5
        source = put("in/cells_labels.png", plane)
        for kind in ("labels", "zarr", "csv"):
            convert(source, tmp_path / kind, kind, progress=told)
        assert (tifffile.imread(tmp_path / "labels" / "cells.tif") == plane).all()
        assert (zarr.open_group(str(tmp_path / "zarr" / "cells.zarr"))["labels/objects/0"][0, 0] == plane).all()
        with (tmp_path / "csv" / "detections.csv").open(encoding="utf-8") as file:
            assert [(row["id"], row["area_px"]) for row in csv.DictReader(file)] == [
                ("5", "1"), ("900", "150"), ("12000", "150"),
            ]  # fmt: skip
        assert told.warnings == []

    def test_one_object_on_several_planes_stays_one(self, tmp_path, track, planes, told):
        convert(track, tmp_path / "track.zarr", progress=told)
        convert(tmp_path / "track.zarr", tmp_path / "back.tif", progress=told)
        for source, out in ((tmp_path / "track.zarr", "one.tif"), (track, "other.tif")):
            convert(source, tmp_path / out, progress=told)
            assert (tifffile.imread(tmp_path / out) == planes).all()
            classes = json.loads((tmp_path / out).with_name(f"{out[:-4]}_classes.json").read_text())
            assert classes == {"3": ["dead"], "7": ["living"], "70000": []}
        group = zarr.open_group(str(tmp_path / "track.zarr"))["labels/objects"]
        assert (group["0"][:] == planes).all()
        assert group.attrs["image-label"]["properties"] == [
            {"label-value": 3, "class": "dead", "area_px": 150, "z": 0, "id": 3},
            {"label-value": 7, "class": "living", "area_px": 150, "id": 7},
            {"label-value": 70_000, "area_px": 50, "z": 2, "time": 1, "id": 70_000},
        ]
        assert told.warnings == []

    def test_those_of_more_than_32_bits_are_given_anew(self, tmp_path, told):
        plane = np.zeros((60, 80), np.int64)
        plane[5:15, 5:20], plane[30:40, 30:45] = 2**32, 900
        tifffile.imwrite(tmp_path / "cells_labels.tif", plane)
        convert(tmp_path / "cells_labels.tif", tmp_path / "out.tif", progress=told)
        assert np.unique(tifffile.imread(tmp_path / "out.tif")).tolist() == [0, 1, 2]
        assert told.warnings == [
            "The objects of cells get new numbers, from 1 on: on some frame two have the same number, or one has none, "
            "or one above 4,294,967,295."
        ]

    def test_those_that_two_files_have_are_given_anew(self, tmp_path, put, cells, told):
        for name, x in (("cells_labels", 5), ("cells_masks", 40)):
            plane = np.zeros((60, 80), np.uint8)
            plane[5:15, x : x + 10], plane[30:40, x : x + 10] = 4, 6
            put(f"in/{name}.png", plane)
        convert(tmp_path / "in", tmp_path / "out.tif", images=[cells[0].path], progress=told)
        assert np.unique(tifffile.imread(tmp_path / "out.tif")).tolist() == [0, 1, 2, 3, 4]
        assert [line.split(":")[0] for line in told.warnings] == ["The objects of cells.png get new numbers, from 1 on"]

    def test_a_run_counts_them_on_each_plane_and_in_an_ome_zarr_through_the_image(self, tmp_path, told):
        mask = InstanceMask(np.ones((10, 10), bool), 0, 0, (60, 80))
        objects = (Detection(mask, mask_to_polygon(mask), 0.9, 0.9, 0.5),)
        run = tmp_path / "run"
        journal = Journal(run / JOURNAL_FOLDER, "f")
        places = [Location(0, z) for z in (0, 1)]
        for place in places:
            journal.write(FrameRecord("a.tif", "a", place, (60, 80), size_z=2, detections=objects))
        facts = {"settings": Settings().model_dump()}
        assemble(recorded(journal, places), run, facts=facts, extra=["zarr"])
        for source in ("labels", "labels/a.tif", "zarr", "zarr/a.zarr"):
            convert(run / source, tmp_path / "a.zarr", overwrite=True, progress=told)
            labels = zarr.open_group(str(tmp_path / "a.zarr"))["labels/objects"]
            assert [int(plane[0, 0]) for plane in labels["0"][0]] == [1, 2]
            properties = labels.attrs["image-label"]["properties"]
            assert [(each["label-value"], each["z"], each["id"]) for each in properties] == [(1, 0, 1), (2, 1, 1)]
            convert(run / source, tmp_path / "a.csv", overwrite=True, progress=told)
            with (tmp_path / "a.csv").open(encoding="utf-8") as file:
                assert [(row["z"], row["id"]) for row in csv.DictReader(file)] == [("1", "1"), ("2", "1")]
        assert told.warnings == []

    def test_those_of_other_files_in_the_results_of_a_run_stay(self, tmp_path, track, told):
        run = tmp_path / "run"
        (run / "labels").mkdir(parents=True)
        (run / "run.json").write_text('{"frames": [{"image": "a.tif", "stem": "a", "xy": 1, "z": 1, "time": 1}]}')
        path = run / "labels" / "track.tif"
        path.write_bytes(track.read_bytes())
        convert(path, tmp_path / "track.zarr", progress=told)
        labels = zarr.open_group(str(tmp_path / "track.zarr"))["labels/objects/0"]
        assert np.unique(labels).tolist() == [0, 3, 7, 70_000]

    @pytest.mark.parametrize("own", ["cell-a", None, "900", 1])
    def test_ids_that_others_give_to_labels_of_an_ome_zarr_are_not_taken_for_ours(self, tmp_path, track, told, own):
        convert(track, tmp_path / "track.zarr")
        group = zarr.open_group(str(tmp_path / "track.zarr"))["labels/objects"]
        described = group.attrs["image-label"]
        group.attrs["image-label"] = {**described, "properties": [{"label-value": 7, "id": own}]}
        convert(tmp_path / "track.zarr", tmp_path / "track.tif", progress=told)
        assert np.unique(tifffile.imread(tmp_path / "track.tif")).tolist() == [0, 3, 7, 70_000]

    @pytest.mark.parametrize("to", ["labels", "geojson"])
    def test_a_mask_of_one_part_has_none(self, tmp_path, put, told, to):
        plane = np.zeros((60, 80), np.uint8)
        plane[5:15, 5:20] = 255
        convert(put("in/cells_mask.png", plane), tmp_path / "out", to, progress=told)
        assert told.warnings == []
        if to == "labels":
            assert tifffile.imread(tmp_path / "out" / "cells.tif").max() == 1

    @pytest.mark.parametrize("to", sorted(OUTLINES))
    def test_a_format_without_them_says_so(self, tmp_path, track, told, to):
        convert(track, tmp_path / FILES[to], to, progress=told)
        said = f"The numbers of the objects are left out: the format {to} has no place for them."
        assert told.warnings.count(said) == 1

    def test_black_and_white_masks_have_none_to_lose(self, tmp_path, told):
        planes = np.zeros((3, 60, 80), np.uint8)
        planes[0, 5:15, 5:20] = planes[1, 5:15, 5:20] = planes[1, 30:40, 30:45] = 255
        tifffile.imwrite(tmp_path / "cells_mask.tif", planes, imagej=True, metadata={"axes": "TYX"})
        convert(tmp_path / "cells_mask.tif", tmp_path / "out.tif", progress=told)
        assert [plane.max() for plane in tifffile.imread(tmp_path / "out.tif")] == [1, 2, 0]
        assert [line.split(";")[1] for line in told.warnings] == [
            " it is taken as a black-and-white mask, and each part as an object."
        ]


class TestRefusals:
    @pytest.fixture
    def source(self, tmp_path, given, cells):
        return result(tmp_path, "geojson")

    def test_unclear_format(self, source, tmp_path):
        with pytest.raises(SettingsError, match=r"not clear from 'x\.json'"):
            convert(source, tmp_path / "x.json")
        with pytest.raises(SettingsError, match="no format 'svg'"):
            convert(source, tmp_path / "x.json", "svg")

    def test_unknown_size(self, source, tmp_path):
        with pytest.raises(InputError, match=r"needs the size of the image cells, .* give the image with --image"):
            convert(source, tmp_path / "x.tif")

    def test_over_itself_and_over_others(self, source, tmp_path):
        with pytest.raises(InputError, match="over itself"):
            convert(source, source, overwrite=True)
        (tmp_path / "x.zip").write_text("mine")
        with pytest.raises(InputError, match="is there already; give another name, or --overwrite"):
            convert(source, tmp_path / "x.zip")
        assert (tmp_path / "x.zip").read_text() == "mine"
        convert(source, tmp_path / "x.zip", overwrite=True)
        (tmp_path / "x.zarr").mkdir()
        with pytest.raises(InputError, match="is a folder"):
            convert(source, tmp_path / "x.zarr", images=[tmp_path / "cells.png"], overwrite=True)

    def test_no_source(self, tmp_path):
        with pytest.raises(InputError, match="There is no file or folder"):
            convert(tmp_path / "no", tmp_path / "x.zip")
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="no file of annotations"):
            convert(tmp_path / "empty", tmp_path / "x.zip")

    def test_an_ending_of_another_format(self, source, tmp_path):
        with pytest.raises(
            SettingsError, match=r"x\.png does not end as files of the format labels do \(\.tif or \.tiff\)"
        ):
            convert(source, tmp_path / "x.png", "labels", [tmp_path / "cells.png"])
        assert not (tmp_path / "x.png").exists()

    def test_only_points(self, put, cells, tmp_path):
        point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 4]}}
        with pytest.raises(InputError, match="only points"):
            convert(put("p/cells.geojson", point), tmp_path / "x.csv")

    def test_what_a_format_cannot_hold_is_said(self, put, cells, tmp_path, told):
        def feature(kind, coordinates, score=0.5):
            measured = [{"name": "Score", "value": score}]
            return {
                "type": "Feature",
                "geometry": {"type": kind, "coordinates": coordinates},
                "properties": {"measurements": measured},
            }

        ring = [[5, 5], [25, 5], [25, 25], [5, 25], [5, 5]]
        hole = [[10, 10], [15, 10], [15, 15], [10, 15], [10, 10]]
        shifted = [[x + 4, y] for x, y in ring]
        features = [feature("Polygon", [ring, hole]), feature("Polygon", [shifted]), feature("Point", [3, 4])]
        source = put("p/cells.geojson", features)
        convert(source, tmp_path / "annotations.json", progress=told)
        assert told.warnings == ["The holes of 1 outline are filled: the format nimbus has none."]
        told.warnings.clear()
        convert(source, tmp_path / "x.tif", images=[tmp_path / "cells.png"], progress=told)
        assert [line.split(" ")[0] for line in told.warnings] == ["Left", "The", "Objects"]

    def test_several_images_need_a_folder(self, put, tmp_path):
        ring = [[5, 5], [25, 5], [25, 25], [5, 5]]
        shape = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
        put("many/a.geojson", shape), put("many/b.geojson", shape)
        with pytest.raises(InputError, match="on 2 of 2 images"):
            convert(tmp_path / "many", tmp_path / "x.zip")
        done = convert(tmp_path / "many", tmp_path / "rois", "roi")
        assert [path.name for path in done.files] == ["a.zip", "b.zip"]
        done = convert(tmp_path / "many", tmp_path / "annotations.json")
        assert done.objects == 2
        done = convert(tmp_path / "annotations.json", tmp_path / "back", "geojson")
        assert [path.name for path in done.files] == ["position-1.geojson", "position-2.geojson"]


@pytest.mark.parametrize("to", ["geojson", "roi", "labels"])
def test_more_files_are_written_than_may_be_open_at_once(tmp_path, put, to):
    resource = pytest.importorskip("resource")
    square = {"type": "Polygon", "coordinates": [[[2, 2], [9, 2], [9, 9], [2, 9], [2, 2]]]}
    start = "a name of many letters, of which the last are the same in all of the files that are to be written"
    for number in range(40):
        put(f"many/{number:02d} {start}.geojson", {"type": "Feature", "geometry": square})
        put(f"images/{number:02d} {start}.png", np.zeros((12, 14), np.uint8))
    images = sorted((tmp_path / "images").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len([*Path("/dev/fd").iterdir()]) + 20, hard))
    try:
        done = convert(tmp_path / "many", tmp_path / "out", to, images)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (len(set(done.files)), done.objects) == (40, 40)
    assert all(len(read_examples(file, open_images([image], Settings()))) == 1
               for file, image in zip(done.files, images, strict=True))  # fmt: skip


def test_the_command(tmp_path, given):
    source = result(tmp_path, "roi")

    def run(*arguments):
        outcome = CliRunner().invoke(app, ["convert", *map(str, arguments)])
        return outcome.exit_code, outcome.stdout, outcome.stderr

    out = tmp_path / "x.geojson"
    assert run(source, out) == (0, f"Wrote 6 objects on 1 frame to {out}.\n", "")
    code, _, err = run(source, out)
    assert (code, err.count("\n")) == (2, 1)
    assert "is there already" in err
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "cells.png")
    code, shown, err = run(source, tmp_path / "t", "--to", "labels", "--image", tmp_path / "*.png")
    assert (code, shown) == (0, f"Wrote 6 objects on 1 frame to {tmp_path / 't' / 'cells.tif'}.\n")
    assert err == "Warning: The scores are left out: the format labels has no place for them.\n"
