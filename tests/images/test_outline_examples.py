"""GeoJSON and NimbusImage JSON: what one file says about one object."""

import json
import math

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.annotations.values import MAX_JSON_BYTES
from sam2_fewshot.errors import InputError
from sam2_fewshot.records import Location

SQUARE = [[2, 3], [8, 3], [8, 9], [2, 9], [2, 3]]
FINE = [[12, 3], [18, 3], [18, 9], [12, 9], [12, 3]]


def feature(kind, coordinates, plane=None, **properties):
    geometry = {"type": kind, "coordinates": coordinates}
    if plane is not None:
        geometry["plane"] = plane
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def annotation(points, shape="polygon", tags=("cell",), location=None):
    coordinates = [{"x": x, "y": y} for x, y in points]
    entry = {"shape": shape, "coordinates": coordinates, "tags": list(tags), "channel": 0}
    return entry if location is None else {**entry, "location": location}


def export(*annotations):
    return {
        "annotations": list(annotations),
        "annotationConnections": [],
        "annotationProperties": [],
        "annotationPropertyValues": {},
    }


@pytest.fixture
def read(write, image, told):
    def read(content, *tags):
        return read_examples(write("x.geojson", content), image, *tags, progress=told)

    return read


@pytest.fixture
def one(read):
    def one(content):
        (example,) = read(content)
        return example

    return one


class TestGeoJson:
    @pytest.mark.parametrize("wrap", [collection, lambda f: f, lambda f: [f]])
    def test_polygon(self, one, wrap):
        example = one(wrap(feature("Polygon", [SQUARE], classification={"name": "cell"})))
        assert example.exemplar.polygon.bounds == (2, 3, 8, 9)
        assert example.exemplar.label == "x.geojson, object 1"
        assert example.tags == ("cell",)
        assert example.location == Location()

    def test_holes_stay(self, one):
        hole = [[4, 5], [6, 5], [6, 7], [4, 7], [4, 5]]
        assert one(feature("Polygon", [SQUARE, hole])).exemplar.polygon.area == 36 - 4

    def test_of_several_parts_the_largest_is_used(self, one, told):
        small = [[20, 3], [22, 3], [22, 5], [20, 5], [20, 3]]
        example = one(feature("MultiPolygon", [[small], [SQUARE]]))
        assert example.exemplar.polygon.bounds == (2, 3, 8, 9)
        assert told.only == "x.geojson: object 1 was cut to the largest part: several parts."

    def test_a_part_whose_corners_make_no_sense_gives_way(self, one, told):
        for corner in (math.nan, math.inf):
            part = [[corner, 1], [5, 1], [5, 5], [1, 5]]
            example = one({"type": "MultiPolygon", "coordinates": [[part], [SQUARE]]})
            assert example.exemplar.polygon.bounds == (2, 3, 8, 9)
        assert told.warnings == ["x.geojson: object 1 was cut to the largest part: several parts."] * 2

    def test_points(self, read):
        placed = read(collection(feature("Point", [4.5, 5]), feature("MultiPoint", [[1, 2], [3, 4, 5]])))
        assert [example.exemplar.point for example in placed] == [(4.5, 5), (1, 2), (3, 4)]

    @pytest.mark.parametrize(
        ("properties", "tags"),
        [
            ({"classification": {"name": "a"}, "tags": ["b", "a", 5, ""]}, ("a", "b")),
            ({"classification": {"names": ["a", "b"]}}, ("a: b", "a", "b")),
            ({"classification": {"names": ["a"]}, "tags": ["b"]}, ("a", "b")),
            ({"classification": {"names": []}}, ()),
            ({"classification": "a"}, ("a",)),
            ({"classification": None}, ()),
            ({"classification": {"name": 5}, "tags": "b"}, ("b",)),
            ({}, ()),
        ],
    )
    def test_tags(self, one, properties, tags):
        assert one(feature("Polygon", [SQUARE], **properties)).tags == tags

    def test_properties_may_be_missing(self, one):
        assert one({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}}).tags == ()
        assert one({**feature("Polygon", [SQUARE]), "properties": None}).tags == ()

    @pytest.mark.parametrize("kind", ["geojson", "coco"])
    def test_without_a_plane_the_first_frame_is_taken_and_said(self, tmp_path, write, open_with, told, kind):
        pixels = np.arange(3 * 60, dtype=np.uint8).reshape(3, 6, 10)
        tifffile.imwrite(tmp_path / "s.tif", pixels, metadata={"axes": "ZYX"}, photometric="minisblack")
        stack = open_with(tmp_path / "s.tif")
        square = [[2, 1], [8, 1], [8, 5], [2, 5]]
        if kind == "geojson":
            bare = collection(feature("Polygon", [square]))
            placed = collection(feature("Polygon", [square]), feature("Polygon", [square], {"z": 1}))
        else:
            bare = {"images": [{"id": 1, "file_name": "s.tif"}], "categories": []}
            bare["annotations"] = [{"id": 1, "image_id": 1, "segmentation": [np.ravel(square).tolist()]}]
            placed = {**bare, "images": [{"id": 1, "file_name": "s.tif", "z": 0}]}
        (example,) = read_examples(write("s.json", bare), stack, progress=told)
        assert example.location == Location()
        assert told.warnings[-1] == (
            "s.json: object 1 was put on the first frame of s.tif: no slice or time point is given."
        )
        before = len(told.warnings)
        assert read_examples(write("s.json", placed), stack, progress=told)[0].location == Location()
        assert len(told.warnings) == before

    def test_planes(self, tmp_path, write, open_with, told):
        tifffile.imwrite(tmp_path / "s.tif", np.zeros((2, 3, 20, 30), np.uint8), imagej=True, metadata={"axes": "TZYX"})
        stack = open_with(tmp_path / "s.tif")
        planes = [{"c": -1, "z": 2, "t": 1}, {"z": 3}, {"t": 0}, {"z": 0.5}, "x"]
        path = write("s.geojson", collection(*(feature("Polygon", [SQUARE], plane) for plane in planes)))
        placed = read_examples(path, stack, progress=told)
        assert [example.location for example in placed] == [Location(), Location(0, 2, 1)]
        assert "object 2 was left out: on Z 3 at time 0 (counted from 0), which s.tif does not have" in told.warnings[0]
        assert "2 of 5 objects were left out (objects 4, 5): a plane whose z or t" in told.warnings[1]

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            (feature("LineString", SQUARE), "of the geometry 'LineString'"),
            (feature(7, SQUARE), "of the geometry 'unknown'"),
            (feature("Polygon", []), "not numbers"),
            (feature("Polygon", [[]]), "not numbers"),
            (feature("Polygon", 5), "not numbers"),
            (feature("Polygon", [[[1, "x"], [2, 3], [4, 5]]]), "not numbers"),
            (feature("Polygon", [[[1], [2, 3], [4, 5]]]), "not numbers"),
            (feature("Polygon", [[[True, False], [2, 3], [4, 5]]]), "not numbers"),
            (feature("MultiPolygon", []), "not numbers"),
            (feature("MultiPolygon", None), "not numbers"),
            (feature("Point", None), "not numbers"),
            (feature("Point", [math.nan, 4]), "not finite"),
            (feature("Point", [-1e99, 4]), "far outside any image"),
            (feature("Point", [30, 4]), "outside its image"),
            (feature("Point", [31, 4]), r"outside its image, cells.png (30 × 20 px)"),
            ({"type": "Feature", "geometry": None}, "not a GeoJSON feature"),
            (5, "not a GeoJSON feature"),
            (None, "not a GeoJSON feature"),
        ],
    )
    def test_a_bad_feature_is_left_out_with_a_reason(self, read, told, bad, said):
        placed = read(collection(bad, feature("Polygon", [FINE])))
        assert [example.exemplar.label for example in placed] == ["x.geojson, object 2"]
        assert told.only.startswith("x.geojson: object 1 was left out: ")
        assert said in told.only


class TestNimbusImage:
    def test_polygon(self, one):
        example = one(export(annotation(SQUARE[:4], location={"XY": 0, "Z": 0, "Time": 0}, tags=["cell", "big"])))
        assert example.exemplar.polygon.bounds == (2, 3, 8, 9)
        assert example.tags == ("cell", "big")

    def test_a_plain_list_of_annotations(self, one):
        assert one([annotation(SQUARE[:4])]).exemplar.polygon.area == 36

    def test_coordinates_may_have_a_z(self, one):
        entry = annotation([])
        entry["coordinates"] = [{"x": x, "y": y, "z": 0} for x, y in SQUARE]
        assert one(export(entry)).exemplar.polygon.area == 36

    @pytest.mark.parametrize("points", [[(2, 3), (8, 3), (8, 9), (2, 9)], [(2, 3), (8, 9)]])
    def test_rectangle(self, one, points):
        assert one(export(annotation(points, "rectangle"))).exemplar.polygon.bounds == (2, 3, 8, 9)

    def test_point(self, one):
        assert one(export(annotation([(4, 5)], "point"))).exemplar.point == (4, 5)

    def test_it_says_itself_where_its_objects_lie(self, tmp_path, write, open_with, told, ramp):
        tifffile.imwrite(tmp_path / "s.tif", np.zeros((2, 3, 20, 30), np.uint8), imagej=True, metadata={"axes": "TZYX"})
        images = open_with(write("a.png", ramp), tmp_path / "s.tif")
        places = [
            {"XY": 1, "Z": 2, "Time": 1},
            {"XY": 0},
            {},
            None,
            {"XY": 2},
            {"XY": -1},
            {"Z": "1"},
            {"Z": True},
            [0],
        ]
        entries = [annotation(SQUARE, location=place) for place in places]
        placed = read_examples(write("n.json", export(*entries)), images, progress=told)
        assert [example.location for example in placed] == [Location()] * 3 + [Location(1, 2, 1)]
        assert told.warnings == [
            "n.json: object 5 was left out: on an image that was not given (XY 2, counted from 0; 2 images were).",
            "n.json: object 6 was left out: on an image that was not given (XY -1, counted from 0; 2 images were).",
            "n.json: 3 of 9 objects were left out (objects 7, 8, 9): "
            "a location whose XY, Z or Time is not a whole number.",
        ]

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            (annotation(SQUARE, "line"), "of the shape 'line'"),
            ({**annotation(SQUARE), "shape": ["polygon"]}, "of the shape 'unknown'"),
            ({**annotation(SQUARE), "coordinates": [1, 2, 3]}, "not numbers"),
            ({**annotation(SQUARE), "coordinates": [{"x": 1}]}, "not numbers"),
            ({**annotation(SQUARE), "coordinates": None}, "not numbers"),
            (annotation([]), "not numbers"),
            (annotation([(math.inf, 1), (2, 3), (4, 5)]), "not finite"),
            (7, "not an annotation"),
        ],
    )
    def test_a_bad_annotation_is_left_out_with_a_reason(self, read, told, bad, said):
        placed = read(export(bad, annotation(FINE)))
        assert [example.exemplar.label for example in placed] == ["x.geojson, object 2"]
        assert said in told.only

    def test_tags_that_are_no_list_are_none(self, one):
        assert one(export({**annotation(SQUARE), "tags": 5})).tags == ()


class TestOutlines:
    """What holds for outlines from any file."""

    @pytest.mark.parametrize(
        ("ring", "said"),
        [
            ([[1, 1], [2, 2]], "fewer than 3 points"),
            ([[1, 1], [2, 2], [1, 1], [2, 2]], "fewer than 3 points"),
            ([[1, 1], [2, 2], [3, 3]], "without area"),
            ([[1, 1], [math.nan, 2], [3, 5]], "not finite"),
            ([[1, 1], [math.inf, 2], [3, 5]], "not finite"),
            ([[1, 1], [1e300, 2], [3, 5]], "far outside any image"),
            ([[1, 1], [10**400, 2], [3, 5]], "not finite"),
            ([[40, 1], [50, 1], [50, 9]], "outside its image, cells.png (30 × 20 px)"),
            ([[-9, -9], [-1, -9], [-1, -1]], "outside its image"),
            ([[30, 0], [40, 0], [40, 9], [30, 9]], "outside its image"),  # shares the border only
            ([[60000, 50000], [60040, 50000], [60040, 50040]], "outside its image"),  # those of a whole slide
            ([[1.1, 1.1], [1.3, 1.1], [1.3, 1.3]], "covers no pixel"),
        ],
    )
    def test_useless_ones_are_left_out(self, read, told, ring, said):
        placed = read(collection(feature("Polygon", [ring]), feature("Polygon", [FINE])))
        assert len(placed) == 1
        assert said in told.only

    def test_none_left_says_why(self, read, told):
        with pytest.raises(InputError, match=r"No example in x\.geojson can be used: ") as error:
            read(collection(feature("Polygon", [[[1, 1], [2, 2]]]), *[feature("LineString", SQUARE)] * 2))
        assert "fewer than 3 points (object 1)" in str(error.value)
        assert "'LineString'; polygons and points can be examples (2 objects)" in str(error.value)
        assert told.warnings == []

    def test_a_self_crossing_one_is_mended(self, one, told):
        polygon = one(feature("Polygon", [[[2, 2], [12, 12], [12, 2], [2, 12]]])).exemplar.polygon
        assert polygon.is_valid
        assert polygon.area == 25
        assert "object 1 was mended: the outline crosses or touches itself" in told.only

    def test_touching_the_border_is_fine(self, one, told):
        assert one(feature("Polygon", [[[0, 0], [5, 0], [5, 20], [0, 20]]])).exemplar.polygon.area == 100
        assert not told.warnings

    def test_beyond_the_border_is_cut(self, one, told):
        assert one(feature("Polygon", [[[-5, 0], [5, 0], [5, 30], [-5, 30]]])).exemplar.polygon.area == 100
        assert "object 1 was cut at the border" in told.only

    def test_covering_the_frame_is_taken(self, one, told):
        assert one(feature("Polygon", [[[0, 0], [30, 0], [30, 20], [0, 20]]])).exemplar.polygon.area == 600
        assert not told.warnings  # who learns from it expresses the doubt

    def test_many_alike_make_one_sentence(self, read, told):
        read(collection(*[feature("LineString", SQUARE)] * 12, *[feature("Polygon", [SQUARE])] * 28))
        assert told.only == (
            "x.geojson: 12 of 40 objects were left out (objects 1, 2, 3, 4, 5, …): "
            "of the geometry 'LineString'; polygons and points can be examples."
        )

    def test_a_hole_of_two_points_is_none(self, one):
        assert one(feature("Polygon", [SQUARE, [[4, 4], [5, 5]]])).exemplar.polygon.area == 36


class TestHostileFiles:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty"),
            (b"{", "not whole, valid JSON"),
            (b'{"annotations": [', "not whole, valid JSON"),
            (b"[" * 200_000, "nested too deeply"),
            (b'{"a":' * 200_000, "nested too deeply"),
            (b"[" + b"9" * 10_000 + b"]", "thousands of digits"),
            (b"\xff\xfe{\x00}\x00", "not a text file in UTF-8"),
            (b"{}", "is JSON of another kind"),
            (b"[]", "is JSON of another kind"),
            (b"null", "is JSON of another kind"),
            (b"5", "is JSON of another kind"),
            (b'"x"', "is JSON of another kind"),
            (b'{"type": "FeatureCollection"}', "is JSON of another kind"),
            (b'{"type": "FeatureCollection", "features": 5}', "is JSON of another kind"),
            (b'{"annotations": {}}', "is JSON of another kind"),
            (b'{"annotations": [], "images": [], "categories": []}', "it has no objects"),
            (b'{"annotations": []}', "it has no objects"),
        ],
    )
    def test_one_sentence(self, write, image, content, said):
        with pytest.raises(InputError) as error:
            read_examples(write("x.json", content), image)
        assert "x.json" in str(error.value)
        assert said in str(error.value)
        assert len(str(error.value)) < 300

    def test_a_byte_order_mark_does_not_matter(self, write, image):
        content = b"\xef\xbb\xbf" + json.dumps(feature("Polygon", [SQUARE])).encode()
        assert read_examples(write("x.json", content), image)

    def test_too_large(self, tmp_path, image):
        path = tmp_path / "x.json"
        with path.open("wb") as file:
            file.truncate(MAX_JSON_BYTES + 1)
        with pytest.raises(InputError, match=r"x\.json is 100 MB; examples of up to 100 MB are read"):
            read_examples(path, image)

    anything = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=3)
        | st.sampled_from(["Polygon", "Point"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["type", "coordinates", "geometry", "plane", "x", "y", "z", "XY"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
    numbers = st.floats(-50, 50) | st.floats() | st.integers()
    points = st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=8)

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(anything, max_size=3), points, anything, anything)
    def test_any_json_gives_examples_or_a_sentence(self, write, image, told, entries, ring, loose, looser):
        odd_feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": loose, "plane": looser}}
        odd_entry = {"shape": "polygon", "coordinates": loose, "location": looser, "tags": loose}
        for content in (
            collection(*entries, odd_feature, feature("Polygon", [ring]), feature("MultiPolygon", loose)),
            export(*entries, odd_entry, annotation(ring), annotation(ring, "rectangle"), annotation(ring, "point")),
            loose,
        ):
            try:
                placed = read_examples(write("x.json", content), image, progress=told)
            except InputError as error:
                assert "x.json" in str(error)  # noqa: PT017 - either outcome is right
            else:
                assert all(e.exemplar.polygon is None or e.exemplar.polygon.is_valid for e in placed)
