from pathlib import Path

import pytest

from sam2_fewshot.images.addresses import natural_key, stem_of
from sam2_fewshot.images.registry import example_stems


def test_natural_order():
    names = ["a10.png", "a2.png", "A1.png", "b.png", "2.png", "10.png", "a02.png"]
    ordered = [path.name for path in sorted(map(Path, names), key=natural_key)]
    assert ordered == ["2.png", "10.png", "A1.png", "a02.png", "a2.png", "a10.png", "b.png"]


@pytest.mark.parametrize(
    ("name", "stem"), [("a.png", "a"), ("a.ome.tif", "a"), ("a.b.tif", "a.b"), ("a", "a"), (".ome.tif", ".ome")]
)
def test_stems(name, stem):
    assert stem_of(Path(name)) == stem


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a_labels.png", "a"),
        ("a-mask.tif", "a"),
        ("a.labels.tif", "a"),
        ("a_examples.geojson", "a"),
        ("a_cp_masks.png", "a"),
        ("a_cp_mask.png", "a"),
        ("a.tif.geojson", "a"),
        ("a.ome.tif - labels.geojson", "a.ome.tif -"),
        ("a.ome.tif.geojson", "a"),
        ("a_Labels.ome.tif", "a"),
    ],
)
def test_files_of_examples_are_named_after_their_images(name, image):
    assert image in example_stems(Path(name))
    assert example_stems(Path(name))[0] == stem_of(Path(name))
