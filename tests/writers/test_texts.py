"""The three text formats, read back with other libraries than they are written with."""

import csv
import json
import math
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shapely

from sam2_fewshot.annotations import nimbus
from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.annotations.registry import FORMATS
from sam2_fewshot.annotations.tables import COLUMNS, write_csv
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.records import InstanceMask, Location, PixelSize

Make = Callable[..., FrameRecord]


def with_figures(record: FrameRecord, value: float) -> FrameRecord:
    found = tuple(replace(item, score=value, similarity=value, predicted_iou=value) for item in record.detections)
    return replace(record, detections=found)


# --- detections.csv ---------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_says_all_about_an_object(tmp_path: Path, make_record: Make) -> None:
    record = make_record(5, Location(1, 2, 3))
    with write_csv(tmp_path / "d.csv") as add:
        add(record)
    rows = rows_of(tmp_path / "d.csv")
    assert tuple(rows[0]) == COLUMNS
    for number, (row, item) in enumerate(zip(rows, record.detections, strict=True), start=1):
        assert (row["image"], row["xy"], row["z"], row["time"]) == ("cells.png", "2", "3", "4")
        assert int(row["id"]) == number
        for name in ("score", "similarity", "predicted_iou"):
            assert float(row[name]) == pytest.approx(getattr(item, name), abs=1e-6)
        assert int(row["area_px"]) == item.mask.sum()
        assert tuple(int(row[name]) for name in ("x0", "y0", "x1", "y1")) == item.bbox
        y, x = np.argwhere(item.mask).mean(axis=0) + 0.5
        assert float(row["centroid_x"]) == pytest.approx(x, abs=1e-3)
        assert float(row["centroid_y"]) == pytest.approx(y, abs=1e-3)


@pytest.mark.parametrize("name", ["=1+1.png", "+a", "-a", "@sum"])
def test_names_that_look_like_formulas_are_disarmed(tmp_path: Path, make_record: Make, name: str) -> None:
    with write_csv(tmp_path / "d.csv") as add:
        add(make_record(1, name=name))
    assert rows_of(tmp_path / "d.csv")[0]["image"] == "'" + name


@pytest.mark.parametrize("name", ['a,"b".png', "Größe 细胞.tif", "a\udcff.png", "a\r\n\tb\x00", "\r=1"])
def test_any_name_fits_in_a_cell(tmp_path: Path, make_record: Make, name: str) -> None:
    with write_csv(tmp_path / "d.csv") as add:
        add(make_record(2, name=name))
    rows = rows_of(tmp_path / "d.csv")
    assert len(rows) == 2
    shown = name.encode("utf-8", "backslashreplace").decode()
    for control in "\r\n\t\x00":
        shown = shown.replace(control, repr(control)[1:-1])
    assert rows[0]["image"] == shown
    assert len((tmp_path / "d.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_figures_that_are_none_and_masks_that_are_empty(tmp_path: Path, make_record: Make) -> None:
    record = with_figures(make_record(1), math.nan)
    empty = replace(record.detections[0], instance=InstanceMask(np.zeros((0, 0), bool), 0, 0, (60, 80)))
    with write_csv(tmp_path / "d.csv") as add:
        add(replace(record, detections=(empty,)))
    row = rows_of(tmp_path / "d.csv")[0]
    assert (row["score"], row["similarity"], row["area_px"], row["centroid_x"]) == ("", "", "0", "")


def test_nothing_found_gives_a_header(tmp_path: Path, make_record: Make) -> None:
    with write_csv(tmp_path / "d.csv") as add:
        add(make_record(0))
    assert (tmp_path / "d.csv").read_text() == ",".join(COLUMNS) + "\n"


# --- annotations.json -------------------------------------------------------------------------------------------


def exported(path: Path, *records: FrameRecord, tags: tuple[str, ...] = ("nucleus", "new")) -> dict:
    with nimbus.write(path, tags) as add:
        for record in records:
            add(record)
    return json.loads(path.read_text(encoding="utf-8"))


def test_annotations_have_what_the_app_asks_for(tmp_path: Path, make_record: Make) -> None:
    records = [make_record(3, Location(4, 1, 0)), make_record(2, Location(4, 1, 1))]
    data = exported(tmp_path / "a.json", *records)
    assert list(data) == [
        "annotations",
        "annotationConnections",
        "annotationProperties",
        "annotationPropertyValues",
    ]
    assert data["annotationConnections"] == []
    found = [item for record in records for item in record.detections]
    for annotation, item in zip(data["annotations"], found, strict=True):
        assert annotation["shape"] == "polygon"
        assert annotation["tags"] == ["nucleus", "new"]
        assert annotation["channel"] == 0
        place = annotation["location"]
        assert place == {"XY": 4, "Z": 1, "Time": item.location.time}
        assert all(type(value) is int for value in [*place.values(), annotation["channel"]])
        ring = [(point["x"], point["y"]) for point in annotation["coordinates"]]
        assert ring == list(item.polygon.exterior.coords)[:-1]
        assert ring[0] != ring[-1]
        assert annotation["id"] == annotation["_id"]
        assert re.fullmatch("[0-9a-f]{24}", annotation["id"])
    assert len({annotation["id"] for annotation in data["annotations"]}) == 5


def test_values_belong_to_annotations_and_properties(tmp_path: Path, make_record: Make) -> None:
    record = make_record(3)
    data = exported(tmp_path / "a.json", record)
    names = {prop["id"]: prop["name"] for prop in data["annotationProperties"]}
    assert list(names.values()) == ["Similarity", "Score", "Predicted IoU", "Area"]
    for prop in data["annotationProperties"]:
        assert prop["shape"] == "polygon"
        assert prop["tags"] == {"tags": ["nucleus", "new"], "exclusive": False}
        assert prop["workerInterface"] == {}
        assert isinstance(prop["image"], str)
    for annotation, item in zip(data["annotations"], record.detections, strict=True):
        values = data["annotationPropertyValues"][annotation["id"]]
        named = {names[key]: value for key, value in values.items()}
        assert named["Similarity"] == pytest.approx(item.similarity, abs=1e-6)
        assert named["Score"] == pytest.approx(item.score, abs=1e-6)
        assert named["Predicted IoU"] == pytest.approx(item.predicted_iou, abs=1e-6)
        ring = [(point["x"], point["y"]) for point in annotation["coordinates"]]
        assert named["Area"] == polygon_to_mask(shapely.Polygon(ring), record.frame_shape).area
    assert len(data["annotationPropertyValues"]) == 3


def test_the_same_finds_give_the_same_file(tmp_path: Path, make_record: Make) -> None:
    exported(tmp_path / "a.json", make_record(3))
    exported(tmp_path / "b.json", make_record(3))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_nothing_found_gives_an_empty_export(tmp_path: Path, make_record: Make) -> None:
    data = exported(tmp_path / "a.json", make_record(0), tags=())
    assert data["annotations"] == []
    assert data["annotationPropertyValues"] == {}
    assert exported(tmp_path / "a.json")["annotations"] == []


def test_no_figure_is_null(tmp_path: Path, make_record: Make) -> None:
    data = exported(tmp_path / "a.json", with_figures(make_record(1), math.inf))
    (values,) = data["annotationPropertyValues"].values()
    assert list(values.values())[:3] == [None, None, None]


def test_odd_tags_and_names_are_kept(tmp_path: Path, make_record: Make) -> None:
    data = exported(tmp_path / "a.json", make_record(1, name='"\\\n\udcff'), tags=('a"b', "ü\udcff"))
    assert data["annotations"][0]["tags"] == ['a"b', "ü\\udcff"]


# --- geojson/ ---------------------------------------------------------------------------------------------------


def collections(folder: Path, *records: FrameRecord, tags: tuple[str, ...] = ("nucleus", "new")) -> dict[str, dict]:
    with FORMATS["geojson"].begin(partial(FORMATS["geojson"].path, folder), tags) as add:
        for record in records:
            add(record)
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (folder / "geojson").iterdir()}


def test_features_have_what_qupath_reads(tmp_path: Path, make_record: Make) -> None:
    record = make_record(4)
    files = collections(tmp_path, record)
    assert list(files) == ["cells.geojson"]
    data = files["cells.geojson"]
    assert data["type"] == "FeatureCollection"
    for feature, item in zip(data["features"], record.detections, strict=True):
        assert feature["type"] == "Feature"
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        assert "plane" not in feature["geometry"]
        outline = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert outline.is_valid
        assert list(outline.exterior.coords) == list(item.polygon.exterior.coords)
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["classification"]["name"] == "nucleus"
        assert len(properties["classification"]["color"]) == 3
        assert properties["tags"] == ["nucleus", "new"]
        assert properties["measurements"]["Similarity"] == pytest.approx(item.similarity, abs=1e-6)
        assert properties["measurements"]["Area px"] == item.area


def test_small_areas_have_six_digits_as_in_the_table(tmp_path: Path, make_record: Make) -> None:
    record = replace(make_record(2), pixel_size=PixelSize(1.1e-4, 1.1e-4))
    for feature, item in zip(
        collections(tmp_path, record)["cells.geojson"]["features"], record.detections, strict=True
    ):
        assert feature["properties"]["measurements"]["Area µm^2"] == pytest.approx(item.area * 1.21e-8, rel=1e-5)


def test_stacks_name_the_plane_and_images_get_a_file_each(tmp_path: Path, make_record: Make) -> None:
    stack = [make_record(1, Location(0, z, 0), size_z=2) for z in (0, 1)]
    files = collections(tmp_path, *stack, make_record(2, Location(1), name="other.tif"))
    assert sorted(files) == ["cells.geojson", "other.geojson"]
    planes = [feature["geometry"]["plane"] for feature in files["cells.geojson"]["features"]]
    assert planes == [{"c": -1, "z": 0, "t": 0}, {"c": -1, "z": 1, "t": 0}]
    assert len(files["other.geojson"]["features"]) == 2


def test_no_finds_no_tags_no_figures(tmp_path: Path, make_record: Make) -> None:
    bare = with_figures(make_record(1), math.nan)
    files = collections(tmp_path, make_record(0, name="none.png"), replace(bare, stem="one"), tags=())
    assert files["none.geojson"] == {"type": "FeatureCollection", "features": []}
    properties = files["one.geojson"]["features"][0]["properties"]
    assert "classification" not in properties
    assert list(properties["measurements"]) == ["Area px"]


def test_an_image_that_is_interrupted_leaves_finished_ones(tmp_path: Path, make_record: Make) -> None:
    def interrupted() -> None:
        with FORMATS["geojson"].begin(partial(FORMATS["geojson"].path, tmp_path), ()) as add:
            add(make_record(1, name="first.png"))
            add(make_record(1, name="second.png"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in (tmp_path / "geojson").iterdir()] == ["first.geojson"]
