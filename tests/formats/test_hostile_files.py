"""Files that are broken or meant to do harm: one sentence each, in a bounded time and memory."""

from __future__ import annotations

import io
import json
import resource
import struct
import zipfile

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from roifile import ImagejRoi

from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.annotations.nominal import nominal_images
from sam2_fewshot.errors import FewShotError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.settings import Settings

FEW = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MEGABYTE = 1 << 20


class Deaf:
    def start(self, stage: str, total: int | None = None) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def warn(self, sentence: str) -> None: ...


@pytest.fixture(autouse=True)
def bounded():
    """Refuse more than 3 GB beyond what the process has, so that a bomb fails here and not on the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:  # noqa: PTH123
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 3000 * MEGABYTE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _sentence(read) -> str:
    try:
        read()
    except FewShotError as error:
        return str(error)
    return ""


@pytest.fixture
def attempt(cells):
    """Read examples from a file: they are found, or there is one sentence."""

    def attempt(path) -> str:
        sentences = [_sentence(lambda: read_examples(path, cells, progress=Deaf()))]
        sentences.append(_sentence(lambda: nominal_images(path)))
        assert not any("\n" in sentence or len(sentence) > 2000 for sentence in sentences)
        return sentences[0]

    return attempt


def feature(coordinates, kind="Polygon", **more):
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": {}, **more}


class TestCorpus:
    def test_a_million_vertices(self, put, attempt):
        angle = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
        points = np.column_stack([40 + 20 * np.cos(angle), 30 + 20 * np.sin(angle)]).round(7).tolist()
        assert attempt(put("cells.geojson", feature([[*points, points[0]]]))) == ""

    def test_many_vertices_that_cross(self, put, attempt):
        points = np.random.default_rng(1).uniform(0, 60, (100_000, 2)).round(3).tolist()
        assert attempt(put("cells.geojson", feature([[*points, points[0]]]))) == ""

    def test_an_outline_that_goes_to_and_fro(self, put, attempt):
        points = [[n % 2 * 1e8, n] for n in range(9)]
        assert "goes to and fro too often" in attempt(put("cells.geojson", feature([[*points, points[0]]])))

    @pytest.mark.parametrize("name", ["cells.geojson", "cells.json"])
    @pytest.mark.parametrize("brackets", ["[]", '{"a":}', '{"features":[]}'])
    def test_ten_thousand_levels(self, put, attempt, name, brackets):
        middle = len(brackets) - brackets.count("]") - brackets.count("}")
        text = brackets[:middle] * 10_000 + "1" + brackets[middle:] * 10_000
        assert "nested too deeply" in attempt(put(name, text.encode()))

    @pytest.mark.parametrize(
        "value", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "1e308", '"x"', "null", "[1]"]
    )
    @pytest.mark.parametrize("kind", ["geojson", "nimbus", "coco"])
    def test_coordinates_that_are_no_numbers(self, put, attempt, kind, value):
        corner = f"[{value}, 1]"
        text = {
            "geojson": json.dumps(feature([[[1, 1], "@", [9, 9], [1, 1]]])).replace('"@"', corner),
            "nimbus": json.dumps(
                [{"shape": "polygon", "coordinates": [{"x": 1, "y": 1}, {"x": "@", "y": 2}, {"x": 9, "y": 9}]}]
            ).replace('"@"', value),
            "coco": json.dumps(
                {"images": [{"id": 1}], "annotations": [{"image_id": 1, "segmentation": [[1, 1, "@", 2, 9, 9]]}]}
            ).replace('"@"', value),
        }[kind]
        assert attempt(put("cells.json", text.encode()))

    @pytest.mark.parametrize("size", [(40_000, 40_000), (2**31 - 1, 2**31 - 1), (1, 10**9), (10**9, 1), (0, 5)])
    @pytest.mark.parametrize("role", ["image", "examples"])
    def test_a_tiff_that_claims_a_billion_pixels(self, put, attempt, role, size):
        tags = [(256, 4, size[0]), (257, 4, size[1]), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 100)]
        body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
        path = put("cells.tif", b"II*\0" + struct.pack("<I", 8) + body + bytes(4))
        if role == "examples":
            assert attempt(path)
            return
        with pytest.raises(FewShotError, match=r"cells\.tif"):
            open_images([path], Settings(), progress=Deaf())

    def test_a_picture_that_claims_a_billion_pixels(self, put):
        file = io.BytesIO()
        Image.new("L", (4, 4)).save(file, "PNG")
        data = bytearray(file.getvalue())
        data[16:24] = struct.pack(">II", 100_000, 100_000)
        with pytest.raises(FewShotError, match=r"a\.png"):
            open_images([put("a.png", bytes(data))], Settings(), progress=Deaf())

    @pytest.mark.parametrize(
        "name", ["../../evil", "/etc/evil", "a\0b", "C:\\evil", "<script>alert(1)</script>", "=1+1"]
    )
    def test_names_stay_names(self, put, attempt, tmp_path, frame_of, name):
        code = {"images": [{"id": 1, "file_name": f"{name}.png"}], "annotations": [
            {"image_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}]}  # fmt: skip
        assert attempt(put("in/x.json", code)) == ""
        before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
        record = frame_of(2, name=f"{name}.png")
        object.__setattr__(record, "stem", name)
        assemble([record], tmp_path / "out", tags=[name], extra=["coco", "parquet", "roi", "zarr"])
        assert {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents} == before
        assert {path.name for path in tmp_path.iterdir()} <= {"in", "out", "cells.png"}

    def test_a_zip_in_a_zip_in_a_zip(self, put, attempt):
        data = bytes(10 * MEGABYTE)
        for _ in range(5):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("inner.roi", data)
            data = file.getvalue()
        assert "damaged" in attempt(put("cells.zip", data))

    def test_a_file_that_is_a_folder_and_the_other_way_round(self, put, attempt, tmp_path):
        (tmp_path / "cells.geojson").mkdir()
        assert "named after an image" in attempt(tmp_path / "cells.geojson")
        put("cells.zarr", b"x")
        assert "cannot give examples" in attempt(tmp_path / "cells.zarr")

    @pytest.mark.parametrize("ending", ["geojson", "json", "zip", "roi", "tif", "png", "zarr"])
    @pytest.mark.parametrize(
        "content", [b"", b"\0" * 100, b"PK\5\6" + bytes(18), b"Iout", b"II*\0\xff\xff\xff\xff", b"{}"]
    )
    def test_files_of_nothing(self, put, attempt, ending, content):
        assert attempt(put(f"cells.{ending}", content))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.floats() | st.integers(-100, 100) | st.integers()
PAIRS = st.lists(st.lists(NUMBERS, min_size=2, max_size=3), max_size=8)


@FEW
@given(
    kind=st.sampled_from(["Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString"]) | JSON,
    coordinates=PAIRS | st.lists(PAIRS, max_size=3) | JSON,
    properties=JSON | st.fixed_dictionaries({"classification": JSON, "tags": JSON, "measurements": JSON}),
    plane=JSON | st.fixed_dictionaries({"z": JSON, "t": JSON}),
)
def test_any_geojson(put, attempt, kind, coordinates, properties, plane):
    shape = {"type": kind, "coordinates": coordinates, "plane": plane}
    attempt(put("cells.geojson", [feature([]), {"type": "Feature", "geometry": shape, "properties": properties}]))


@FEW
@given(
    shape=st.sampled_from(["polygon", "point", "rectangle", "line"]) | JSON,
    coordinates=st.lists(st.fixed_dictionaries({"x": NUMBERS, "y": NUMBERS}), max_size=8) | JSON,
    location=st.dictionaries(st.sampled_from(["XY", "Z", "Time"]), JSON, max_size=3) | JSON,
    more=JSON,
)
def test_any_nimbus_export(put, attempt, shape, coordinates, location, more):
    annotation = {"id": more, "shape": shape, "coordinates": coordinates, "location": location, "tags": more}
    values = {"annotationProperties": more, "annotationPropertyValues": {"a": more}}
    attempt(put("cells.json", {"annotations": [annotation, more], **values}))
    attempt(
        put(
            "cells.json",
            {"annotations": [annotation], "annotationProperties": [more], "annotationPropertyValues": more},
        )
    )


@FEW
@given(
    code=st.lists(st.lists(NUMBERS, max_size=9), max_size=3)
    | st.fixed_dictionaries({"size": st.just([60, 80]), "counts": st.lists(st.integers(-5, 4800), max_size=6) | JSON})
    | st.fixed_dictionaries(
        {"size": st.just([60, 80]), "counts": st.text(st.characters(max_codepoint=120), max_size=9)}
    ),
    more=JSON,
    image=st.fixed_dictionaries({"id": JSON, "file_name": JSON, "width": JSON, "height": JSON}) | JSON,
)
def test_any_coco(put, attempt, code, more, image):
    annotation = {"image_id": 1, "segmentation": code, "outline": more, "category_id": more, "score": more}
    attempt(put("x.json", {"images": [{"id": 1}, image], "annotations": [annotation, more], "categories": [more]}))
    attempt(put("x.json", {"images": [image], "annotations": [annotation], "categories": more}))


def damaged(data: bytes, changes: list[tuple[int, int]], cut: float) -> bytes:
    changed = bytearray(data)
    for place, value in changes:
        changed[place % len(changed)] = value
    return bytes(changed[: max(1, int(len(changed) * cut))])


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8)
CUT = st.just(1.0) | st.floats(0, 1)


@FEW
@given(changes=CHANGES, cut=CUT)
def test_any_roi(put, attempt, changes, cut):
    roi = ImagejRoi.frompoints(np.array([(10.5, 10), (20, 10), (20, 20)]), name="a")
    roi.props = "tag: x\nscore: 1\n"
    attempt(put("cells.roi", damaged(roi.tobytes(), changes, cut)))


@FEW
@given(changes=CHANGES, cut=CUT)
def test_any_zip_of_rois(put, attempt, changes, cut):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(3):
            roi = ImagejRoi.frompoints(np.array([(10, 10), (20 + n, 10), (20, 20)]), name="a")
            archive.writestr(f"{n}.roi", roi.tobytes())
    attempt(put("cells.zip", damaged(file.getvalue(), changes, cut)))


@FEW
@given(changes=CHANGES, cut=CUT, kind=st.sampled_from(["plain", "packed", "imagej", "ome"]))
def test_any_tiff(put, attempt, changes, cut, kind):
    plane = np.zeros((60, 80), np.uint16)
    plane[5:20, 5:20] = 3
    options = {
        "plain": {},
        "packed": {"compression": "zlib", "tile": (32, 32)},
        "imagej": {"imagej": True, "metadata": {"unit": "um"}},
        "ome": {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 1}},
    }[kind]
    file = io.BytesIO()
    tifffile.imwrite(file, plane, **options)
    attempt(put("cells.tif", damaged(file.getvalue(), changes, cut)))


@FEW
@given(changes=CHANGES, cut=CUT)
def test_any_png(put, attempt, changes, cut):
    plane = np.zeros((60, 80), np.uint16)
    plane[5:20, 5:20] = 3
    file = io.BytesIO()
    Image.fromarray(plane).save(file, "PNG")
    attempt(put("cells_labels.png", damaged(file.getvalue(), changes, cut)))


@FEW
@given(
    attributes=JSON,
    scales=JSON,
    array=st.dictionaries(st.sampled_from(["shape", "chunks", "dtype", "zarr_format"]), JSON),
)
def test_any_ome_zarr(tmp_path, attempt, attributes, scales, array):
    folder = tmp_path / "cells.zarr" / "labels" / "a"
    (folder / "0").mkdir(parents=True, exist_ok=True)
    for name in ("", "labels", "labels/a"):
        (tmp_path / "cells.zarr" / name / ".zgroup").write_text('{"zarr_format": 2}')
    axes = [{"name": "y"}, {"name": "x"}]
    described = {"multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scales}]}]}
    whole = {"zarr_format": 2, "shape": [60, 80], "chunks": [60, 80], "dtype": "<u2", "compressor": None, "order": "C"}
    (folder / "0" / ".zarray").write_text(json.dumps({**whole, "fill_value": 0, "filters": None, **array}))
    for content in (described | {"image-label": attributes}, {"image-label": 1, "multiscales": scales}, attributes):
        (folder / ".zattrs").write_text(json.dumps(content))
        attempt(tmp_path / "cells.zarr")
