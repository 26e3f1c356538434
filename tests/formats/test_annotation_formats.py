"""The registry of formats, and what each module of a format must have."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.annotations.registry import FORMATS, NAMES, ON_REQUEST, named_by, noted, readable

PARAMETERS = {
    "read": ["file"],
    "recognises": ["content"],
    "images_in": ["path", "content"],
    "companion": ["path"],
    "write_companions": ["records", "paths", "folder", "overwrite", "progress"],
    "is_own": ["path"],
}


def parameters(function) -> list[str]:
    """Return the names of the parameters without a default."""
    given = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in given if parameter.default is parameter.empty]


@pytest.mark.parametrize("name", NAMES)
def test_a_module_has_the_functions_that_its_entry_promises(name):
    form = FORMATS[name]
    module = form.load()
    wanted = ["path", "tags", "first"] if form.per_image else ["path", "tags"]
    assert list(inspect.signature(getattr(module, form.writer)).parameters)[: len(wanted)] == wanted
    sharing = [other for other in FORMATS.values() if set(form.reads) & set(other.reads)]
    assert hasattr(module, "read") == bool(form.reads or form.is_folder)
    assert hasattr(module, "recognises") == (len(sharing) > 1)
    assert hasattr(module, "is_own") == form.is_folder
    for function, expected in PARAMETERS.items():
        if hasattr(module, function):
            assert parameters(getattr(module, function)) == expected


def test_importing_it_is_cheap():
    program = (
        "import sys, sam2_fewshot.annotations.registry; "
        "print([name for name in ('numpy', 'shapely', 'tifffile', 'zarr') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_lists_for_messages():
    assert ", ".join(NAMES) == "coco, csv, geojson, labels, nimbus, parquet, roi, zarr"
    assert noted(ON_REQUEST) == "coco, parquet, roi (ImageJ), zarr (OME-Zarr labels)"
    assert readable() == (
        "a label image (PNG, TIFF, OME-Zarr), a QuPath GeoJSON, ImageJ ROIs (.roi, .zip), COCO or a NimbusImage JSON "
        "export"
    )


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.csv", "csv"),
        ("A.TIF", "labels"),
        ("cells_COCO.json", "coco"),
        ("Annotations.json", "nimbus"),
        ("a.geojson", "geojson"),
        ("a.json", None),
        ("a.png", None),
    ],
)
def test_the_format_of_a_file_to_write(file, name):
    form = named_by(Path(file))
    assert (form and form.name) == name


@pytest.mark.parametrize("name", NAMES)
def test_files_in_a_folder_are_called_as_in_results(name, put, cells, tmp_path):
    square = [{"x": x, "y": y} for x, y in ((10, 10), (20, 10), (20, 20))]
    source = put("cells.json", [{"shape": "polygon", "coordinates": square, "tags": ["cell"]}])
    (tmp_path / "out").mkdir()
    done = convert(source, tmp_path / "out", name, [cells[0].path])
    (written,) = done.files
    assert written == tmp_path / "out" / FORMATS[name].path(Path(), "cells").name
    assert written.exists()


def test_a_geojson_with_more_than_features_is_one(put, examples_in):
    ring = [[10, 10], [20, 10], [20, 20], [10, 10]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    content = {"type": "FeatureCollection", "features": [feature], "images": [], "annotations": []}
    (found,) = examples_in(put("cells.json", content))
    assert found.exemplar.polygon.area == 50
