from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import tifffile
import zarr
from zarr_files import write_zarr_series

from sam2_fewshot.annotations import ome_zarr as zarr_labels
from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.records import Location, PixelSize
from sam2_fewshot.settings import Settings


def labels(*values: int) -> np.ndarray:
    plane = np.zeros((60, 80), np.uint16)
    for n, value in enumerate(values):
        plane[5:15, 5 + 20 * n : 15 + 20 * n] = value
    return plane


def write(path, array, axes="yx", version=2, name="nuclei", properties=None, chunks=None, **more):
    """Write an OME-Zarr of version 0.4 (Zarr 2) or 0.5 (Zarr 3) with one label image."""
    root = zarr.open_group(str(path), mode="a", zarr_format=version)
    group = root.require_group("labels")
    image = group.create_group(name)
    image.create_array("0", data=array, chunks=chunks or array.shape)
    names = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in axes]
    scale = [{"type": "scale", "scale": [500.0] * len(axes)}]
    multiscales = [{"axes": names, "datasets": [{"path": "0", "coordinateTransformations": scale}], **more}]
    described = {"multiscales": multiscales, "image-label": {"properties": properties or []}}
    listed = {"labels": sorted({*group.group_keys()})}
    for where, what in ((image, described), (group, listed)):
        where.attrs.update({"ome": {"version": "0.5", **what}} if version == 3 else what)
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("inside", ["", "labels", "labels/nuclei"])
def test_label_images(tmp_path, examples_in, version, inside):
    properties = [{"label-value": 2, "class": "living", "score": 0.25}, {"label-value": 5, "tags": ["dead"]}, 3]
    path = write(tmp_path / "cells.zarr", labels(2, 5), version=version, properties=properties)
    found = examples_in(path / inside, "living", "dead")
    assert [item.tags for item in found] == [("living",), ("dead",)]
    assert found[0].exemplar.polygon.bounds == (5, 5, 15, 15)
    assert found[0].figures.score == 0.25
    assert np.isnan(found[0].figures.similarity)


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("image", ["cells.zarr", "cells.zarr/0"])
@pytest.mark.parametrize("given", ["cells.zarr", "cells.zarr/0", "cells.zarr/0/labels/nuclei"])
def test_labels_of_the_one_image_of_a_bioformats2raw_group(tmp_path, told, form, image, given):
    write_zarr_series(tmp_path / "cells.zarr", {"a": np.ones((60, 80), np.uint8)}, form)
    write(tmp_path / "cells.zarr" / "0", labels(2, 5), version=form)
    images = open_images([tmp_path / image], Settings())
    assert len(read_examples(tmp_path / given, images)) == 2
    assert convert(tmp_path / given, tmp_path / "cells.geojson", progress=told).objects == 2
    assert told.warnings == ["The numbers of the objects are left out: the format geojson has no place for them."]


def test_of_several_images_of_a_group_one_must_be_named(tmp_path):
    planes = {name: np.ones((60, 80), np.uint8) for name in "ab"}
    path = write_zarr_series(tmp_path / "cells.zarr", planes)
    write(path / "0", labels(2, 5))
    with pytest.raises(InputError, match="no label image in"):
        convert(path, tmp_path / "cells.geojson")
    assert len(read_examples(path, open_images([path], Settings()))) == 2


def test_planes_and_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.ones((2, 3, 60, 80), np.uint8), ome=True, metadata={"axes": "TZYX"})
    images = open_images([tmp_path / "s.tif"], Settings())
    array = np.zeros((2, 1, 3, 60, 80), np.uint16)
    array[1, 0, 2] = labels(7)
    path = write(tmp_path / "s.zarr", array, "tczyx")
    (found,) = read_examples(path, images)
    assert found.location == Location(0, 2, 1)
    assert zarr_labels.ZarrLabels(path).header.pixel_size == PixelSize(0.5, 0.5, 0.5)


def test_columns_before_rows(tmp_path, examples_in):
    (found,) = examples_in(write(tmp_path / "cells.zarr", labels(2).T, "xy"))
    assert found.exemplar.polygon.bounds == (5, 5, 15, 15)


def test_a_folder_of_them(tmp_path, examples_in):
    write(tmp_path / "marked" / "cells.zarr", labels(1, 2))
    assert len(examples_in(tmp_path / "marked")) == 2


def test_several_label_images_are_a_choice(tmp_path, examples_in):
    path = write(write(tmp_path / "cells.zarr", labels(1)), labels(1), name="cells")
    with pytest.raises(InputError, match="has 2 label images: 'cells', 'nuclei'"):
        examples_in(path)


def test_unlisted_label_images_are_found(tmp_path, examples_in):
    path = write(tmp_path / "cells.zarr", labels(1))
    (path / "labels" / ".zattrs").unlink()
    assert len(examples_in(path)) == 1


def test_the_missing_extra_is_named(tmp_path, examples_in, monkeypatch):
    path = write(tmp_path / "cells.zarr", labels(1))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InputError, match=r'pip install "sam2-fewshot\[zarr\]"'):
        examples_in(path)


def damage(path, what) -> None:
    described = path / "labels" / "nuclei" / ".zattrs"
    content = json.loads(described.read_text())
    scales = content["multiscales"][0]
    if what == "axes":
        scales["axes"] = [{"name": "y"}, {"name": "q"}]
    elif what == "few":
        scales["axes"] = [{"name": axis} for axis in "zyx"]
    elif what == "away":
        scales["datasets"][0]["path"] = "../../../secret"
    elif what == "root":
        scales["datasets"][0]["path"] = "/etc"
    elif what == "none":
        content["multiscales"] = [3]
    described.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("axes", "has the axes 'yq'"),
        ("few", "has 2 axes, and its description names 3"),
        ("away", "lacks the array"),
        ("root", "lacks the array"),
        ("none", "description .multiscales. is missing or unusual"),
    ],
)
def test_descriptions_that_are_wrong(tmp_path, examples_in, what, said):
    path = write(tmp_path / "cells.zarr", labels(1))
    damage(path, what)
    with pytest.raises(InputError, match=said):
        examples_in(path)


@pytest.mark.parametrize(
    ("array", "axes", "said"),
    [
        (np.zeros((2, 60, 80), np.uint8), "cyx", "has 2 channels"),
        (np.zeros((60, 80), np.float32), "yx", "whole numbers"),
        (np.zeros((61, 80), np.uint8), "yx", "labels must have the size of their image"),
    ],
)
def test_arrays_that_are_no_labels(tmp_path, examples_in, array, axes, said):
    with pytest.raises(InputError, match=said):
        examples_in(write(tmp_path / "cells.zarr", array, axes))


def edit(path, **changes) -> None:
    array = path / "labels" / "nuclei" / "0" / ".zarray"
    array.write_text(json.dumps({**json.loads(array.read_text()), **changes}))


def test_a_claim_of_many_pixels(tmp_path, examples_in):
    path = write(tmp_path / "cells.zarr", labels(1))
    edit(path, shape=[10**6, 10**6])
    with pytest.raises(InputError, match="1,000,000 × 1,000,000"):
        examples_in(path)


def test_a_claim_of_large_chunks(tmp_path, examples_in):
    path = write(tmp_path / "cells.zarr", labels(1))
    edit(path, chunks=[10**6, 10**6])
    with pytest.raises(InputError, match="smaller ones"):
        examples_in(path)


def test_a_damaged_chunk(tmp_path, examples_in):
    path = write(tmp_path / "cells.zarr", labels(1))
    (chunk,) = (
        file for file in (path / "labels" / "nuclei" / "0").rglob("*") if file.name[0] != "." and file.is_file()
    )
    chunk.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"cells\.zarr"):
        examples_in(path)


def test_no_labels(tmp_path, examples_in):
    zarr.open_group(str(tmp_path / "cells.zarr"), mode="w")
    with pytest.raises(InputError, match="no label image"):
        examples_in(tmp_path / "cells.zarr")
