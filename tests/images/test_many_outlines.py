"""Files of very many objects: they are read in order, in little memory."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon

from sam2_fewshot.annotations.drawings import Drawing, place
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.annotations.placing import Placer, Remarks
from sam2_fewshot.annotations.values import Vertices, compact
from sam2_fewshot.geometry.outlines import polygon_to_mask, polygons_to_masks

RING = st.lists(st.tuples(st.floats(-3, 33), st.floats(-3, 23)), min_size=1, max_size=7)


def test_they_stay_in_order(image, told):
    square = np.array([[2, 3], [8, 3], [8, 9], [2, 9]], float)
    drawings = [Drawing(i, rings=(square + i / 9,)) if i % 3 else Drawing(i, why="odd") for i in range(20)]
    remarks = Remarks("x", told)
    placed = list(place(drawings, Placer(image, remarks)))
    assert [each.exemplar.label for each in placed] == [f"x, object {i}" for i in range(20) if i % 3]
    assert "odd (7 objects)" in remarks.left_out()


@settings(max_examples=60)
@given(st.lists(st.tuples(RING.filter(lambda ring: len(ring) > 2), st.booleans()), max_size=6), st.integers(1, 400))
def test_masks_drawn_together_are_those_drawn_alone(rings, at_once):
    polygons = [Polygon(ring, [[(9, 9), (14, 9), (14, 12)]] if hole else []) for ring, hole in rings]
    shapes = [(20 + i, 30) for i in range(len(polygons))]
    together = polygons_to_masks(polygons, shapes, at_once)
    for mask, polygon, shape in zip(together, polygons, shapes, strict=True):
        alone = polygon_to_mask(polygon, shape)
        assert mask.box == alone.box
        assert mask.frame_shape == shape
        assert (mask.data == alone.data).all()


def test_an_empty_polygon_has_an_empty_mask():
    assert [mask.area for mask in polygons_to_masks([Polygon()], [(5, 5)])] == [0]


@pytest.mark.parametrize(
    "value",
    [
        [[[1, 2], [3, 4], [5, "6"]]],
        [[[1, 2], [3, True], [5, 6]]],
        [[[1, 2], [3, None], [5, 6]]],
        [[[1, 2], [3], [5, 6]]],
        [[[1, 2, 3], [3, 4, None], [5, 6, 7]]],
        [[10**400, 2], [3, 4], [5, 6]],
        [1, 2],
        [{"x": 1, "y": 2}, {"x": 1}],
        [],
        "text",
        None,
    ],
)
def test_what_is_not_of_numbers_alone_stays_as_it_is(value):
    before = repr(value)
    assert repr(compact({"coordinates": value, "other": 1})) == repr({"coordinates": value, "other": 1})
    assert repr(value) == before


def test_outlines_become_arrays():
    ring = [[1, 2], [3, 4.5], [5, 6]]
    (found,) = compact({"coordinates": [ring]})["coordinates"]
    assert found.dtype == np.float64
    assert found.tolist() == ring
    (((found,),),) = ([compact({"coordinates": [[[[*point, 9] for point in ring]]]})["coordinates"][0]],)
    assert found.tolist() == ring
    points = compact({"coordinates": [{"x": x, "y": y} for x, y in ring]})["coordinates"]
    assert isinstance(points, Vertices)
    assert points.points.tolist() == ring
    (flat,) = compact({"segmentation": [[1, 2, 3, 4, 5, 6]]})["segmentation"]
    assert flat.tolist() == [1, 2, 3, 4, 5, 6]


def test_memory_goes_with_the_file(write, image, told):
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = np.column_stack([15 + 7 * np.cos(angle), 10 + 7 * np.sin(angle)]).tolist()
    one = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [circle]}, "properties": {}}
    path = write("cells.geojson", {"type": "FeatureCollection", "features": [one] * 2000})
    size = path.stat().st_size
    assert size > 4_000_000
    tracemalloc.start()
    try:
        placed = read_examples(path, image, progress=told)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(placed) == 2000
    assert peak < 4 * size, f"{peak:,} bytes for a file of {size:,}"
    assert json.loads(path.read_text())["features"][0] == one
