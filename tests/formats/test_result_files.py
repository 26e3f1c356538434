"""Each result file, read back by a program of others."""

from __future__ import annotations

import csv
import json
import warnings
import weakref
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars
import pytest
import tifffile
import yaozarrs
import zarr
from pycocotools import mask as reference
from pycocotools.coco import COCO
from roifile import ROI_TYPE, ImagejRoi

from sam2_fewshot.annotations import imagej, label_images, ome_zarr
from sam2_fewshot.annotations.convert import write_results
from sam2_fewshot.annotations.record import FrameRecord, MarkedPoint
from sam2_fewshot.annotations.registry import NAMES, ON_REQUEST, check_formats
from sam2_fewshot.errors import FewShotWarning, InputError, SettingsError
from sam2_fewshot.files.results import earlier_results
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.output.finished import results_in
from sam2_fewshot.output.notes import read_notes
from sam2_fewshot.records import Location, PixelSize
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def frames(frame_of) -> list[FrameRecord]:
    """A picture, and a stack of two slices and three times of which two planes were looked at."""
    stack = {"name": "stack.tif", "size_z": 2, "size_t": 3}
    return [
        frame_of(4),
        frame_of(2, Location(1, 0, 1), **stack),
        frame_of(3, Location(1, 1, 2), **stack),
    ]


@pytest.fixture
def out(frames, tmp_path) -> Path:
    assemble(frames, tmp_path / "out", tags=["cell", "round"], extra=ON_REQUEST)
    return tmp_path / "out"


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # pycocotools and numpy 2
def test_coco(out, frames, capsys):
    coco = COCO(out / "coco.json")
    capsys.readouterr()
    assert coco.cats == {1: {"id": 1, "name": "cell"}}
    assert [(i["file_name"], i["width"], i["height"], i.get("z"), i.get("time")) for i in coco.imgs.values()] == [
        ("cells.png", 80, 60, None, None),
        ("stack.tif", 80, 60, 0, 1),
        ("stack.tif", 80, 60, 1, 2),
    ]
    items = [item for frame in frames for item in frame.detections]
    for item, entry in zip(items, coco.loadAnns(coco.getAnnIds()), strict=True):
        assert (coco.annToMask(entry).astype(bool) == item.mask).all()
        assert reference.area(entry["segmentation"]) == entry["area"] == item.area
        assert reference.toBbox(entry["segmentation"]).tolist() == entry["bbox"]
        assert entry["score"] == item.score
        assert entry["tags"] == ["cell", "round"]


def test_rois(out, frames):
    assert sorted(path.name for path in (out / "rois").iterdir()) == ["cells.zip", "stack.zip"]
    rois = ImagejRoi.fromfile(out / "rois" / "cells.zip")
    for item, roi in zip(frames[0].detections, rois, strict=True):
        assert roi.roitype == ROI_TYPE.FREEHAND
        expected = np.asarray(item.polygon.exterior.coords)[:-1]
        assert np.abs(roi.coordinates() - expected).max() < 0.001
        assert roi.properties["score"] == pytest.approx(item.score, abs=1e-6)
        assert (roi.properties["tag"], roi.properties["tag 2"], roi.group) == ("cell", "round", 1)
    stack = ImagejRoi.fromfile(out / "rois" / "stack.zip")
    assert [(roi.z_position, roi.t_position) for roi in stack] == [(1, 2)] * 2 + [(2, 3)] * 3
    with zipfile.ZipFile(out / "rois" / "stack.zip") as archive:
        assert archive.namelist()[0] == "z1_t2_0001.roi"


def test_ome_zarr(out, frames):
    for name, count in (("cells", 4), ("stack", 5)):
        where = out / "zarr" / f"{name}.zarr" / "labels" / "objects"
        yaozarrs.validate_zarr_store(str(where))
        yaozarrs.validate_zarr_store(str(out / "zarr" / f"{name}.zarr"))  # what people drop into a viewer
        described = zarr.open_group(str(where), mode="r").attrs["image-label"]["properties"]
        assert [entry["label-value"] for entry in described] == list(range(1, count + 1))
    array = zarr.open_array(str(where / "0"), mode="r")[:]
    assert array.shape == (3, 2, 60, 80)
    assert set(np.unique(array[1, 0])) == {0, 1, 2}
    assert set(np.unique(array[2, 1])) == {0, 3, 4, 5}
    assert ((array[1, 0] == 2) == frames[1].detections[1].mask).all()
    assert described[4]["score"] == pytest.approx(frames[2].detections[2].score, abs=1e-6)
    assert (described[4]["class"], described[4]["z"], described[4]["time"], described[4]["id"]) == ("cell", 1, 2, 3)


def test_ome_zarr_has_coarser_levels(tmp_path, blob):
    shape = (2100, 900)
    size = PixelSize(0.25, 0.5, 1.5)
    record = FrameRecord("a", "a", Location(), shape, detections=(blob(1, shape),), pixel_size=size)
    with ome_zarr.write(tmp_path / "a.zarr", ["cell"], record) as add:
        add(record)
    where = tmp_path / "a.zarr" / "labels" / "objects"
    yaozarrs.validate_zarr_store(str(where))
    levels = [zarr.open_array(str(where / str(level)), mode="r") for level in range(3)]
    assert [level.shape[2:] for level in levels] == [(2100, 900), (1050, 450), (525, 225)]
    assert (levels[1][0, 0] == levels[0][0, 0, ::2, ::2]).all()
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    (scales,) = root.attrs["multiscales"]
    assert [root[level["path"]].shape[2:] for level in scales["datasets"]] == [(2100, 900), (1050, 450), (525, 225)]
    steps = [level["coordinateTransformations"][0]["scale"] for level in scales["datasets"]]
    assert steps == [[1.0, 1.5, 0.5 * step, 0.25 * step] for step in (1, 2, 4)]  # of t, z, y, x
    assert scales["name"] == "a"
    source = root["labels/objects"].attrs["image-label"]["source"]["image"]
    assert (where / source).resolve() == (tmp_path / "a.zarr").resolve()


def test_a_failed_ome_zarr_leaves_the_old_one(tmp_path, frame_of):
    record = frame_of()
    with ome_zarr.write(tmp_path / "a.zarr", [], record) as add:
        add(record)
    before = sorted(tmp_path.rglob("*"))

    def fail() -> None:
        with ome_zarr.write(tmp_path / "a.zarr", [], record) as add:
            add(record)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert sorted(tmp_path.rglob("*")) == before


def test_parquet_and_csv(out, frames):
    table = polars.read_parquet(out / "detections.parquet")
    with (out / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    items = [item for frame in frames for item in frame.detections]
    assert table["score"].to_list() == [item.score for item in items]
    assert table["area_um2"].to_list() == [item.area * 0.125 for item in items]
    assert table["xy"].dtype == polars.Int64
    assert table.columns == list(rows[0])
    for exact, row in zip(table.iter_rows(named=True), rows, strict=True):
        texts = ("image", "position", "kind")
        assert [row[name] for name in texts] == [exact[name] for name in texts]
        for name in set(table.columns) - set(texts):
            assert float(row[name]) == pytest.approx(exact[name], abs=1e-3 if "centroid" in name else 1e-6)


def test_labels_have_the_pixel_size(out):
    with tifffile.TiffFile(out / "labels" / "cells.tif") as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "YX"
        assert 'PhysicalSizeX="0.5"' in tif.ome_metadata
        assert 'PhysicalSizeY="0.25"' in tif.ome_metadata
    with tifffile.TiffFile(out / "labels" / "stack.tif") as tif:
        assert 'PhysicalSizeZ="2.0"' in tif.ome_metadata


def test_imagej_finds_the_pixel_size_of_labels(out):
    with tifffile.TiffFile(out / "labels" / "cells.tif") as tif:
        tags = tif.pages[0].tags
        across, down = tags["XResolution"].value, tags["YResolution"].value
        assert (across[0] / across[1], down[0] / down[1], tags["ResolutionUnit"].value) == (2, 4, 1)
        assert tif.imagej_metadata == {"ImageJ": "1.11a", "unit": "micron", "spacing": 2.0}
        assert tif.pages[0].description.startswith("<?xml")  # OME's stays the first
        codes = [tag.code for tag in tags]
        assert codes == sorted(codes)
        assert tif.series[0].kind == "ome"
    with tifffile.TiffFile(out / "labels" / "stack.tif") as tif:
        facts = tif.imagej_metadata
        assert (facts["slices"], facts["frames"], facts["hyperstack"]) == (2, 3, True)
        assert "images" not in facts
        assert tif.series[0].shape == (3, 2, 60, 80)


def test_labels_of_an_unknown_pixel_size_have_none(tmp_path, frame_of):
    record = replace(frame_of(2), pixel_size=None)
    with label_images.write(tmp_path / "a.tif", [], record) as add:
        add(record)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert (tif.is_ome, tif.is_imagej) == (True, False)


def test_the_pixel_size_is_told_everywhere(out):
    frame = json.loads((out / "run.json").read_text())["frames"][0]
    assert frame["pixel_size_um"] == [0.5, 0.25, 2.0]
    assert frame["channels"] == ["DAPI"]
    feature = json.loads((out / "geojson" / "cells.geojson").read_text())["features"][0]
    measured = feature["properties"]["measurements"]
    assert measured["Area µm^2"] == measured["Area px"] * 0.125


def test_the_same_finds_give_the_same_files(frames, tmp_path):
    for name in ("a", "b"):
        assemble(frames, tmp_path / name, extra=ON_REQUEST)
    for path in sorted((tmp_path / "a").rglob("*")):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert other.exists()
        if path.is_file():
            assert path.read_bytes() == other.read_bytes(), path.name


def test_what_is_no_longer_asked_for_goes(frames, tmp_path):
    assemble(frames, tmp_path, extra=ON_REQUEST, facts={"settings": Settings().model_dump(mode="json")})
    assemble(
        frames[:1],
        tmp_path,
        extra=["roi"],
        before=earlier_results(tmp_path, read_notes(tmp_path), results_in(tmp_path)),
    )
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        *("annotations.json", "detections.csv", "run.json"),
        *("geojson/cells.geojson", "labels/cells.tif", "rois/cells.zip"),
    }


def test_holes_and_points_in_rois(tmp_path, frame_of, blob):
    item = blob(3)
    record = frame_of(0)
    holed = item.polygon.difference(item.polygon.centroid.buffer(1.2, quad_segs=1))
    object.__setattr__(item, "polygon", holed)
    object.__setattr__(record, "detections", (item,))
    object.__setattr__(record, "points", (MarkedPoint((3.25, 4.5), ("dot",)),))
    with imagej.write(tmp_path / "a.zip", [], record) as add:
        add(record)
    area, point = ImagejRoi.fromfile(tmp_path / "a.zip")
    assert len(area.coordinates(multi=True)) == 2
    assert point.roitype == ROI_TYPE.POINT
    assert point.coordinates().tolist() == [[3.25, 4.5]]
    assert point.properties["tag"] == "dot"


def test_rois_of_a_plain_stack_have_a_position(tmp_path, frame_of):
    record = frame_of(1, Location(0, 4, 0), size_z=6)
    with imagej.write(tmp_path / "a.zip", ["x"], record) as add:
        add(record)
    assert ImagejRoi.fromfile(tmp_path / "a.zip")[0].position == 5


def test_unknown_formats_and_missing_extras():
    check_formats(["coco", "roi"])
    with pytest.raises(SettingsError, match="no result format 'tiff'; --write takes coco, parquet, roi, zarr"):
        check_formats(["tiff"])
    check_formats(["coco", "roi"], is_installed=lambda name: None)
    with pytest.raises(InputError, match=r'parquet needs the package pyarrow.*"sam2-fewshot\[parquet\]"'):
        check_formats(["parquet"], is_installed=lambda name: None)


@pytest.mark.parametrize("kind", NAMES)
def test_converted_frames_are_in_memory_one_at_a_time(frame_of, tmp_path, kind):
    most, count = 0, 12
    masks: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()

    def read():
        nonlocal most
        masks.clear()
        for time in range(count):
            record = frame_of(3, Location(0, 0, time), size_t=count)
            masks[time] = record.detections[0].instance.data
            most = max(most, len(masks))
            yield record

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewShotWarning)  # of what the format cannot hold
        done = write_results(read, ["cell"], tmp_path, tmp_path / "converted", kind)
    assert (done.objects, done.frames) == (3 * count, count)
    assert most <= 4


def test_nothing_is_written_where_a_frame_cannot_be_read(frame_of, tmp_path):
    def read():
        yield frame_of(3, name="a.png")
        raise InputError("the second is missing")

    with pytest.raises(InputError, match="the second is missing"):
        write_results(read, [], tmp_path, tmp_path / "converted", "labels")
    assert not (tmp_path / "converted").exists()
