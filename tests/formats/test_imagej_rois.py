from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
import tifffile
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from sam2_fewshot.annotations import imagej
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.annotations.named import MarkedFile
from sam2_fewshot.annotations.placing import Placer, Remarks
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.records import Location
from sam2_fewshot.settings import Settings

SQUARE = [(10, 10), (20, 10), (20, 20), (10, 20)]


def polygon(points=SQUARE, kind=ROI_TYPE.POLYGON, name="", **more) -> ImagejRoi:
    roi = ImagejRoi.frompoints(np.array(points), name=name, **more)
    roi.roitype = kind
    return roi


def box_roi(kind=ROI_TYPE.RECT, box=(10, 12, 30, 22)) -> ImagejRoi:
    roi = ImagejRoi()
    roi.roitype = kind
    roi.left, roi.top, roi.right, roi.bottom = box
    return roi


def path_roi(*rings) -> ImagejRoi:
    roi = box_roi()
    path = []
    for ring in rings:
        path += [v for n, (x, y) in enumerate(ring) for v in (1.0 if n else 0.0, x, y)] + [4.0]
    roi.multi_coordinates = np.array(path, np.float32)
    roi.shape_roi_size = len(path)
    return roi


def zipped(*rois, names=()) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for n, roi in enumerate(rois):
            name = names[n] if names else f"{n}.roi"
            archive.writestr(name, roi if isinstance(roi, bytes) else roi.tobytes())
    return file.getvalue()


def marked_file(path, images, told) -> MarkedFile:
    return MarkedFile(path, images[0], images, Placer(images, Remarks(path.name, told)))


def test_what_macos_puts_beside_rois_is_passed_over(put, examples_in, told):
    names = ["rois/cell-1.roi", "__MACOSX/rois/._cell-1.roi"]
    found = examples_in(put("cells.zip", zipped(polygon(), b"\0\5\x16\7" + bytes(100), names=names)))
    assert [item.tags for item in found] == [("cell", "cell-1")]
    assert not told.warnings


def ring(x, y, r):
    return [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]


@pytest.mark.parametrize("kind", [ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED])
def test_outlines(put, examples_in, kind):
    (found,) = examples_in(put("cells.roi", polygon(kind=kind).tobytes()))
    assert found.exemplar.polygon.bounds == (10, 10, 20, 20)
    assert found.exemplar.polygon.area == 100


def test_subpixel_outlines(put, examples_in):
    (found,) = examples_in(put("cells.roi", polygon([(10.25, 10.5), (20.5, 10.5), (15.5, 20.75)]).tobytes()))
    assert found.exemplar.polygon.bounds == (10.25, 10.5, 20.5, 20.75)


@pytest.mark.parametrize(("kind", "area"), [(ROI_TYPE.RECT, 200), (ROI_TYPE.OVAL, np.pi * 50)])
def test_boxes_and_ovals(put, examples_in, kind, area):
    (found,) = examples_in(put("cells.roi", box_roi(kind).tobytes()))
    assert found.exemplar.polygon.bounds == pytest.approx((10, 12, 30, 22), abs=0.01)
    assert found.exemplar.polygon.area == pytest.approx(area, rel=1e-4)


def test_rounded_box(put, examples_in):
    roi = box_roi()
    roi.rounded_rect_arc_size = 8
    (found,) = examples_in(put("cells.roi", roi.tobytes()))
    assert found.exemplar.polygon.area == pytest.approx(200 - (4 - np.pi) * 16, rel=1e-3)


def test_subpixel_box(put, examples_in):
    roi = box_roi()
    roi.options = ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    roi.xd, roi.yd, roi.widthd, roi.heightd = 10.5, 11.5, 4.25, 5
    (found,) = examples_in(put("cells.roi", roi.tobytes()))
    assert found.exemplar.polygon.bounds == (10.5, 11.5, 14.75, 16.5)


@pytest.mark.parametrize("subtype", [ROI_SUBTYPE.ELLIPSE, ROI_SUBTYPE.ROTATED_RECT])
def test_ellipses_and_rotated_boxes_have_their_vertices(put, examples_in, subtype):
    roi = polygon([(20.0, 10.0), (30.0, 20.0), (20.0, 30.0), (10.0, 20.0)], ROI_TYPE.FREEHAND)
    roi.subtype = subtype
    (found,) = examples_in(put("cells.roi", roi.tobytes()))
    assert found.exemplar.polygon.area == 200


def test_a_composite_keeps_holes_and_its_largest_part(put, examples_in, told):
    roi = path_roi(ring(20, 20, 10), ring(20, 20, 4), ring(50, 20, 3))
    (found,) = examples_in(put("cells.roi", roi.tobytes()))
    assert found.exemplar.polygon.area == 400 - 64
    assert len(found.exemplar.polygon.interiors) == 1
    assert told.warnings == ["cells.roi: object 1 was cut to the largest part: several parts."]


def test_points(put, examples_in):
    whole = polygon([(10, 12), (30, 31)], ROI_TYPE.POINT)
    exact = polygon([(5.25, 6.75)], ROI_TYPE.POINT)
    found = examples_in(put("cells.zip", zipped(whole, exact)))
    assert [item.exemplar.point for item in found] == [(10.5, 12.5), (30.5, 31.5), (5.25, 6.75)]


def test_counters_are_tags(put, examples_in):
    roi = polygon([(10, 12), (30, 31)], ROI_TYPE.POINT, name="spots")
    roi.counters = np.array([0, 2], np.uint8)
    roi.counter_positions = np.array([1, 1], np.uint32)
    found = examples_in(put("cells.roi", roi.tobytes()))
    assert [item.tags for item in found] == [("spots",), ("spots", "counter 2")]


def test_names_groups_and_properties_are_tags(put, examples_in):
    rois = [polygon(ring(20 + 5 * n, 20, 6), name=name) for n, name in enumerate(["living-3", "0020-0020", "x", "y"])]
    rois[1].group = 2
    rois[2].props = "tag: dead, really\ntag 2: old\nscore: 0.25\n"
    rois[3].props = "tags: dead, round\nscore: high\n"
    found = examples_in(put("cells.zip", zipped(*rois)))
    assert [item.tags for item in found] == [
        ("living", "living-3"),
        ("group 2",),
        ("dead, really", "old"),
        ("dead", "round"),
    ]
    assert found[2].figures.score == 0.25
    assert np.isnan(found[3].figures.score)


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("cell-1", ("cell", "cell-1")),
        ("CD4", ("CD4", "CD")),
        ("CD4-12", ("CD4", "CD4-12")),
        ("cell", ("cell",)),
    ],
)
def test_a_number_after_a_dash_is_no_part_of_the_class(put, examples_in, name, tags):
    (found,) = examples_in(put("cell.roi", polygon(name=name).tobytes()))
    assert found.tags == tags


@pytest.mark.parametrize("name", ["0001", "z1_0001", "t12_0001", "z1_t1_12345"])
def test_names_that_are_given_here_are_no_tags(put, examples_in, name):
    (found,) = examples_in(put("cells.zip", zipped(polygon(ring(20, 20, 6), name=name))))
    assert found.tags == ()


def test_tags_choose(put, examples_in):
    rois = [polygon(ring(20, 20, 6), name="cell 1"), polygon(ring(50, 20, 6), name="debris 1")]
    found = examples_in(put("cells.zip", zipped(*rois)), "cell", "Debris")
    assert [item.exemplar.negative for item in found] == [False, True]


def test_a_name_stands_for_itself_with_any_number_and_letter_case(put, examples_in):
    names = ["cell", "debris", "debris 2", "Debris-3", "debris large"]
    rois = [polygon(ring(20 + 10 * n, 20, 4), name=name) for n, name in enumerate(names)]
    found = examples_in(put("cells.zip", zipped(*rois)), None, "debris")
    assert [item.exemplar.negative for item in found] == [False, True, True, True, False]


def test_what_is_no_area_is_left_out_and_said(put, examples_in, told):
    line = polygon([(1, 1), (9, 9)], ROI_TYPE.POLYLINE)
    text = box_roi()
    text.subtype = ROI_SUBTYPE.TEXT
    flat = box_roi(box=(10, 10, 10, 30))
    two = polygon([(1, 1), (9, 9)])
    nothing = box_roi(ROI_TYPE.NOROI)
    broken = path_roi(ring(20, 20, 10))
    broken.multi_coordinates[0] = 3
    examples_in(put("cells.zip", zipped(polygon(), line, text, flat, two, nothing, broken, b"Iout", b"")))
    said = " ".join(told.warnings)
    assert "object 2 was left out: a segmented line" in said
    assert "object 3 was left out: a text" in said
    assert "4 of 9 objects were left out (objects 4, 5, 6, 7): without an area" in said
    assert "2 of 9 objects were left out (objects 8, 9): damaged, or not an ImageJ ROI" in said


class TestPlanes:
    @pytest.fixture
    def stack(self, tmp_path):
        path = tmp_path / "stack.tif"
        tifffile.imwrite(path, np.ones((2, 3, 2, 60, 80), np.uint8), imagej=True, metadata={"axes": "TZCYX"})
        return open_images([path], Settings())

    @pytest.mark.parametrize(
        ("where", "place"),
        [
            ({}, Location()),
            ({"z": 2, "t": 1}, Location(0, 2, 1)),
            ({"z": 1}, Location(0, 1, 0)),
            ({"position": 0}, Location()),
            ({"position": 3}, Location(0, 1, 0)),
            ({"position": 11}, Location(0, 2, 1)),
        ],
    )
    def test_places(self, put, stack, told, where, place):
        (found,) = read_examples(put("stack.roi", polygon(**where).tobytes()), stack, progress=told)
        assert found.location == place
        said = "stack.roi: object 1 was put on the first frame of stack.tif: no slice or time point is given."
        assert told.warnings == ([] if where else [said])

    def test_points_without_a_slice_are_told_once(self, put, stack, told):
        points = polygon(kind=ROI_TYPE.POINT)
        assert len(read_examples(put("stack.roi", points.tobytes()), stack, progress=told)) == 4
        assert "object 1 was put on the first frame of stack.tif" in told.only

    def test_a_plane_that_is_not_there(self, put, stack, told):
        with pytest.raises(InputError, match="Z 8 at time 0"):
            read_examples(put("stack.roi", polygon(z=8).tobytes()), stack, progress=told)


class TestHostile:
    def test_no_zip(self, put, examples_in):
        with pytest.raises(InputError, match="not a whole zip file"):
            examples_in(put("cells.zip", b"PK\3\4nonsense"))

    def test_a_zip_of_other_things(self, put, examples_in):
        with pytest.raises(InputError, match=r"no ImageJ ROI in cells\.zip"):
            examples_in(put("cells.zip", zipped(b"x", names=["a.txt"])))

    def test_a_bomb(self, put, examples_in, told):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("good.roi", polygon().tobytes())
            archive.writestr("bomb.roi", bytes(60_000_000))
        assert len(file.getvalue()) < 100_000
        (found,) = examples_in(put("cells.zip", file.getvalue()))
        assert found.exemplar.polygon.area == 100
        assert told.warnings == ["cells.zip: object 2 was left out: larger than 20 MB."]

    def test_many_bombs(self, put, cells, told):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for n in range(12):
                archive.writestr(f"{n}.roi", bytes(2000))
        marked = marked_file(put("cells.zip", file.getvalue()), cells, told)
        with pytest.raises(InputError, match="unpack to more than"):
            list(imagej.read(marked, max_roi_bytes=1000, max_zip_bytes=10_000))

    def test_a_large_archive(self, put, cells, told):
        marked = marked_file(put("cells.zip", zipped(polygon())), cells, told)
        with pytest.raises(InputError, match="zip files of up to"):
            list(imagej.read(marked, max_zip_bytes=100))

    def test_a_large_roi(self, put, cells, told):
        marked = marked_file(put("cells.roi", polygon().tobytes()), cells, told)
        (found,) = imagej.read(marked, max_roi_bytes=70)
        assert found.why == "larger than 0 MB"

    def test_names_never_become_paths(self, put, examples_in, tmp_path):
        data = zipped(polygon(), names=["../../../etc/evil.roi"])
        (found,) = examples_in(put("cells.zip", data))
        assert found.tags == ("evil",)
        assert {path.name for path in tmp_path.rglob("*")} == {"cells.png", "cells.zip"}

    def test_a_wrong_checksum(self, put, examples_in):
        data = bytearray(zipped(polygon()))
        data[60] ^= 255
        with pytest.raises(InputError, match="damaged"):
            examples_in(put("cells.zip", bytes(data)))

    @pytest.mark.parametrize("count", [-1, 65_535, 2**31 - 1])
    def test_a_false_number_of_points(self, put, examples_in, count):
        data = bytearray(polygon().tobytes())
        data[16:18] = b"\0\0"
        data[18:22] = struct.pack(">i", count)
        with pytest.raises(InputError, match=r"cells\.roi"):
            examples_in(put("cells.roi", bytes(data)))

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
    def test_coordinates_that_are_no_place(self, put, examples_in, value):
        roi = polygon([(10.5, 10), (20, 10), (20, 20)])
        roi.subpixel_coordinates[0, 0] = value
        with pytest.raises(InputError, match=r"coordinates|without an area"):
            examples_in(put("cells.roi", roi.tobytes()))
