"""The readers, writers and the sample that the manifest offers, through npe2."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Layer
from npe2 import PluginManifest
from shapely import Polygon

import sam2_fewshot.napari
from sam2_fewshot.annotations.record import FrameRecord, MarkedPoint
from sam2_fewshot.annotations.registry import FORMATS
from sam2_fewshot.errors import FewShotWarning, InputError
from sam2_fewshot.geometry.outlines import crop_to_object, mask_to_area
from sam2_fewshot.napari.files import get_reader, read, write_labels, write_shapes
from sam2_fewshot.napari.layers import Scene
from sam2_fewshot.napari.marks import marks_in
from sam2_fewshot.records import Detection, Kind, Location


@pytest.fixture
def manifest():
    manifest = PluginManifest.from_file(Path(sam2_fewshot.napari.__file__).with_name("napari.yaml"))
    manifest.validate_imports()
    return manifest


def test_the_manifest_is_valid_and_found(manifest):
    assert manifest.name == "sam2-fewshot"
    assert manifest.contributions.widgets[0].display_name == "Find similar objects"


def test_the_sample_opens(viewer, manifest, npe2pm_):
    npe2pm_.register(manifest)
    (layer,) = viewer.open_sample("sam2-fewshot", "nuclei")
    assert layer.data.shape == (520, 696)


@pytest.fixture
def npe2pm_(npe2pm):
    return npe2pm


@pytest.fixture
def found(discs):
    """A label image in two slices, with scores, and its layer's attributes."""
    labels = np.stack([discs[1], np.where(discs[1] > 5, discs[1] + 10, 0)])
    index = np.unique(labels)[1:]
    features = {
        "index": index,
        "kind": ["example", *["found"] * (len(index) - 1)],
        "score": np.linspace(0.5, 1, len(index)),
        "similarity": np.full(len(index), 0.25),
        "predicted_iou": np.full(len(index), np.nan),
    }
    return labels, {"name": "Found", "features": features, "scale": (1, 1, 1)}


@pytest.mark.parametrize("suffix", [".json", ".geojson", ".tif", ".zarr"])
def test_labels_are_written_and_read_back(found, tmp_path, suffix):
    labels, attributes = found
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    path = tmp_path / f"cells_labels{suffix}"
    with pytest.warns(FewShotWarning, match="scores are left out") if suffix == ".tif" else nullcontext():
        assert write_labels(str(path), labels, attributes) == [str(path)]
    reader = get_reader(str(path))
    assert reader is not None
    ((data, options, kind),) = reader(str(path))
    assert len(Layer.create(data, options, kind).features) == len(np.unique(labels)) - 1
    if suffix in (".tif", ".zarr"):
        assert kind == "labels"
        np.testing.assert_array_equal(np.asarray(data) > 0, labels > 0)
        assert len(np.unique(data)) == len(np.unique(labels))
    else:
        assert kind == "shapes"
        assert len(data) == len(np.unique(labels)) - 1
        assert {int(each[0, 0]) for each in data} == {0, 1}
        np.testing.assert_allclose(sorted(options["features"]["score"]), attributes["features"]["score"], atol=1e-5)


def test_marks_keep_their_kinds(tmp_path):
    square = np.array([[10, 10], [10, 20], [20, 20], [20, 10.0]])
    attributes = {"name": "Marks", "features": {"kind": ["example", "not this", "confirmed"]}}
    path = tmp_path / "marks.json"
    write_shapes(str(path), [square, square + 30, square + 60], attributes)
    tags = [entry["tags"] for entry in json.loads(path.read_text())["annotations"]]
    assert tags == [["example"], ["not this"], ["confirmed"]]
    ((data, options, _),) = read(str(path))
    assert options["features"]["kind"] == ["example", "not this", "confirmed"]
    np.testing.assert_allclose(data[0].min(axis=0), (10, 10))


def square(x, score, kind, *, z=0, hole=False):
    """Return a detection at a column, of 9 px a side, with a hole of 3 px or without."""
    pixels = np.zeros((48, 64), bool)
    pixels[10:19, x : x + 9] = True
    pixels[13:16, x + 3 : x + 6] = not hole
    mask = crop_to_object(pixels)
    return Detection(mask, mask_to_area(mask), score, score / 2, score / 3, Location(0, z), kind)


@pytest.fixture
def frames():
    """Two slices as a run finishes them: the best first, examples last."""
    found, confirmed, example = Kind.FOUND, Kind.CONFIRMED, Kind.EXAMPLE
    firsts = square(40, 1, confirmed), square(10, 0.5, found), square(25, 1, example)
    seconds = square(10, 0.75, found, z=1), square(30, 0.25, found, z=1)
    tags = ("nucleus",), ("debris", "DAPI, bright"), ("example",)
    return [
        FrameRecord("a.tif", "a", Location(), (48, 64), 2, detections=firsts, tags=tags),
        FrameRecord("a.tif", "a", Location(0, 1), (48, 64), 2, detections=seconds, tags=tags[:2]),
    ]


def write(path, form, frames):
    with FORMATS[form].begin(lambda stem: path, ()) as add:
        for frame in frames:
            add(frame)


def told(path):
    """Return what a GeoJSON tells about each object."""
    features = [feature["properties"] for feature in json.loads(path.read_text())["features"]]
    return [(each["tags"], each.get("kind"), each["measurements"].get("Score")) for each in features]


@pytest.mark.parametrize("form", ["geojson", "zarr", "nimbus"])
def test_classes_kinds_and_figures_of_a_file_come_back(frames, tmp_path, form):
    if form == "zarr":
        pytest.importorskip("zarr")
    source = tmp_path / ("a" + FORMATS[form].suffixes[0])
    write(source, form, frames)
    write(tmp_path / "expected.geojson", "geojson", frames)
    ((data, options, kind),) = read(str(source))
    (write_labels if kind == "labels" else write_shapes)(str(tmp_path / "back.geojson"), data, options)
    assert told(tmp_path / "back.geojson") == told(tmp_path / "expected.geojson")


def test_what_a_file_does_not_tell_is_not_made_up(frames, tmp_path):
    path = tmp_path / "a.geojson"
    untold = tuple(
        Detection(each.instance, each.polygon, np.nan, np.nan, np.nan, kind=None) for each in frames[0].detections
    )
    write(path, "geojson", [FrameRecord("a.tif", "a", Location(), (48, 64), detections=untold)])
    before = path.read_text()
    ((data, options, _),) = read(str(path))
    write_shapes(str(path), data, options)
    assert told(path) == [([], None, None)] * 3
    assert json.loads(path.read_text())["features"][0]["properties"] == json.loads(before)["features"][0]["properties"]


@pytest.mark.parametrize(
    ("tags", "kind", "written"),
    [
        ("nucleus", "not this", ["nucleus", "not this"]),
        ("example", "not this", ["not this"]),
        ("wrong", "not this", ["wrong"]),
        ("wrong", "example", ["example"]),
        ("nucleus,not this", "confirmed", ["nucleus", "confirmed"]),
        ("example", "found", ["example"]),
        ("living, large", "found", ["living", "large"]),
        (np.nan, np.nan, []),
    ],
)
def test_a_kind_that_is_changed_in_the_layer_is_saved(tmp_path, tags, kind, written):
    corners = np.array([[10, 10], [10, 20], [20, 20], [20, 10.0]])
    path = tmp_path / "marks.geojson"
    features = {name: np.array([value], object) for name, value in {"tags": tags, "kind": kind}.items()}
    write_shapes(str(path), [corners], {"features": features})
    ((saved, known_as, _),) = told(path)
    assert (saved, known_as) == (written, kind if kind in set(Kind) else None)
    ((_, options, _),) = read(str(path))
    assert options["features"]["kind"] == [kind if isinstance(kind, str) else ""]


def test_labels_of_an_ome_zarr_are_those_of_the_file_and_have_the_ids_of_the_table(frames, tmp_path):
    zarr = pytest.importorskip("zarr")
    write(tmp_path / "a.zarr", "zarr", frames)
    write(tmp_path / "a.csv", "csv", frames)
    ((data, options, _),) = read(str(tmp_path / "a.zarr"))
    stored = zarr.open_group(str(tmp_path / "a.zarr" / "labels" / "objects"), mode="r")["0"][:]
    np.testing.assert_array_equal(np.asarray(data), stored[0])
    features = options["features"]
    assert list(features["index"]) == [1, 2, 3, 4, 5]
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    expected = [(int(row["z"]) - 1, int(row["id"]), float(row["score"]), float(row["x0"])) for row in rows]
    lefts = np.array(features["x"]) - 4.5
    assert list(zip(features["axis_0"], features["id"], features["score"], lefts, strict=True)) == expected


def test_tags_of_points_are_read(tmp_path):
    point = MarkedPoint((4.5, 7.5), ("dead", "large"))
    write(tmp_path / "a.json", "nimbus", [FrameRecord("a.tif", "a", Location(), (48, 64), points=(point,))])
    ((data, options, _),) = read(str(tmp_path / "a.json"))
    np.testing.assert_allclose(data, [[7, 4]])
    assert options["features"] == {"tags": ["dead,large"]}


def test_what_is_left_out_is_told(tmp_path):
    write(
        tmp_path / "a.geojson",
        "geojson",
        [FrameRecord("a.tif", "a", Location(), (48, 64), detections=(square(40, 1, Kind.FOUND, hole=True),))],
    )
    with pytest.warns(FewShotWarning, match="The holes of 1 outline of a are filled: shapes in napari have none"):
        read(str(tmp_path / "a.geojson"))
    labels = square(40, 1, Kind.FOUND, hole=True).mask.astype(int)
    with pytest.warns(FewShotWarning, match=r"The holes of 1 outline are filled.* Save as \.geojson"):
        write_labels(str(tmp_path / "a.json"), labels, {})
    features = {"index": [1], "kind": ["found"]}
    with pytest.warns(FewShotWarning, match=r"Classes, kinds and scores are left out.* Save as \.zarr or"):
        write_labels(str(tmp_path / "a.tif"), labels, {"features": features})
    write_labels(str(tmp_path / "b.tif"), labels, {})  # nothing is left out


@pytest.fixture
def positions():
    """Labels of two positions, and their layer's attributes."""
    labels = np.zeros((2, 1, 1, 32, 32), int)
    labels[0, ..., 2:6, 2:6], labels[1, ..., 20:26, 20:26] = 5, 7
    return labels, {"name": "Cells", "axis_labels": ("p", "t", "z", "y", "x")}


@pytest.mark.parametrize("suffix", [".tif", ".zarr", ".geojson"])
def test_positions_that_a_file_cannot_hold_are_refused(positions, tmp_path, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    labels, attributes = positions
    with pytest.raises(InputError, match=rf"Cells has objects at position 2.*\{suffix} file holds one.*\.json"):
        write_labels(str(tmp_path / f"cells{suffix}"), labels, attributes)
    assert not list(tmp_path.iterdir())
    labels[1] = 0
    write_labels(str(tmp_path / f"cells{suffix}"), labels, attributes)


def test_positions_are_kept_in_json(positions, tmp_path):
    path = tmp_path / "cells.json"
    write_labels(str(path), *positions)
    layers = read(str(path))
    assert [np.min(shapes, axis=(0, 1)).tolist() for shapes, *_ in layers] == [[1.5, 1.5], [19.5, 19.5]]


def test_ellipses_are_written_as_they_are_taken_and_lines_are_not(viewer, tmp_path):
    viewer.add_image(np.zeros((100, 100), np.uint8))
    corners = np.array([[10, 10], [10, 50], [50, 50], [50, 10.0]])
    shapes = [corners, corners, corners[:2], corners[:3], np.vstack([corners[:3], corners[:1]]) + 40]
    kinds = ["rectangle", "ellipse", "line", "path", "path"]
    layer = viewer.add_shapes(shapes, shape_type=kinds, name="drawn")
    marks, (sentence,) = marks_in(layer, Scene(viewer))
    assert sentence.startswith("2 of 5 shapes of drawn")
    path = tmp_path / "drawn.json"
    write_shapes(str(path), *layer.as_layer_data_tuple()[:2])
    written = [
        Polygon([(at["x"], at["y"]) for at in entry["coordinates"]])
        for entry in json.loads(path.read_text())["annotations"]
    ]
    assert [outline.area for outline in written] == pytest.approx([1600, np.pi * 400, 800], rel=0.01)
    assert [outline.area for outline in written] == pytest.approx([mark.outline.area for mark in marks], rel=1e-6)


def test_the_units_of_a_layer_become_the_pixel_size(viewer, found, tmp_path):
    labels, attributes = found
    layer = viewer.add_labels(labels, features=attributes["features"], scale=(1, 500, 500), units=("pixel", "nm", "nm"))
    path = tmp_path / "cells.geojson"
    write_labels(str(path), *layer.as_layer_data_tuple()[:2])
    feature = json.loads(path.read_text())["features"][0]
    measured = feature["properties"]["measurements"]
    assert measured["Area µm^2"] == pytest.approx(measured["Area px"] * 0.25)


def test_napari_saves_and_opens_with_it(viewer, manifest, npe2pm_, found, tmp_path):
    npe2pm_.register(manifest)
    labels, attributes = found
    layer = viewer.add_labels(labels, features=attributes["features"])
    (path,) = viewer.layers.save(str(tmp_path / "cells.geojson"), plugin="sam2-fewshot") or layer.save(
        str(tmp_path / "cells.geojson"), plugin="sam2-fewshot"
    )
    (opened,) = viewer.open(path, plugin="sam2-fewshot")
    assert len(opened.data) == len(np.unique(labels)) - 1


def test_nothing_to_write_and_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match="no objects to write"):
        write_labels(str(tmp_path / "a.json"), np.zeros((5, 5), int), {"name": "empty"})
    with pytest.raises(InputError, match="no objects to write"):
        write_shapes(str(tmp_path / "a.json"), [], {})
    assert not list(tmp_path.iterdir())
    assert get_reader([str(tmp_path / "a.json")]) is None
    (tmp_path / "image.zarr").mkdir()
    assert get_reader(str(tmp_path / "image.zarr")) is None
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError):
        read(str(tmp_path / "a.json"))
