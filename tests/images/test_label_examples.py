import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from sam2_fewshot.annotations import label_bands
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.annotations.label_bands import has_one_number
from sam2_fewshot.annotations.label_images import objects_in
from sam2_fewshot.annotations.placing import Placer, Remarks
from sam2_fewshot.errors import InputError
from sam2_fewshot.evaluation import files
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.registry import open_source
from sam2_fewshot.records import Location
from sam2_fewshot.settings import Settings


def mask_of(example):
    if example.exemplar.mask is not None:
        return example.exemplar.mask
    return polygon_to_mask(example.exemplar.polygon, example.frame.shape).full()


@pytest.fixture
def labels():
    array = np.zeros((20, 30), np.uint8)
    array[2:6, 3:9] = 1
    array[10:20, 20:30] = 2  # touches the border
    array[12, 22] = 0  # and has a hole
    array[8, 1] = 7  # one pixel
    return array


@pytest.fixture
def deep(labels):
    """Numbers that need 32 bits."""
    return np.where(labels == 7, 4_000_000_000, labels.astype(np.uint32))


def _png(numbers, bits):
    """A grey PNG of less than 8 bits, which Pillow does not write."""
    rows = np.unpackbits(numbers[..., None], axis=2)[..., 8 - bits :].reshape(len(numbers), -1)
    packed = np.packbits(rows, axis=1)
    height, width = numbers.shape
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(np.insert(packed, 0, 0, axis=1).tobytes())),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _pgm(numbers, largest):
    head = b"P5 %d %d %d\n" % (*numbers.shape[::-1], largest)
    return head + numbers.astype("u1" if largest < 256 else ">u2").tobytes()


def _gif(numbers):
    file = io.BytesIO()
    Image.fromarray(numbers).save(file, "GIF")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "numbers"),
    [
        ("x.png", lambda labels: _png(labels, 2), [1, 3]),
        ("x.png", lambda labels: _png(labels, 4), [3, 11]),
        ("x.png", lambda labels: _png(labels, 1), [1]),
        ("x.pgm", lambda labels: _pgm(labels, 7), [2, 7]),
        ("x.pgm", lambda labels: _pgm(labels, 254), [2, 254]),
        ("x.pgm", lambda labels: _pgm(labels, 255), [2, 255]),
        ("x.pgm", lambda labels: _pgm(labels, 300), [2, 255]),
        ("x.pgm", lambda labels: _pgm(labels, 65535), [2, 255]),
        ("x.gif", _gif, [5, 10]),
    ],
)
def test_numbers_are_those_in_the_file_and_find_their_classes(write, image, told, name, content, numbers):
    labels = np.zeros((20, 30), np.uint8)
    for place, number in enumerate(numbers):
        labels[2:6, 10 * place + 1 : 10 * place + 7] = number
    path = write(name, content(labels))
    write("x_classes.json", {str(number): f"class {number}" for number in numbers})
    placed = read_examples(path, image, progress=told)
    assert_all_there(placed, labels)
    assert [example.tags for example in placed] == [(f"class {number}",) for number in numbers]
    assert not told.warnings


def test_classes_of_other_numbers_than_those_in_the_image_are_reported(write, image, labels, told):
    path = write("cells_labels.png", labels)
    write("cells_classes.json", {"10": "living", "20": "dead"})
    assert [example.tags for example in read_examples(path, image, progress=told)] == [()] * 3
    assert told.only == (
        "cells_labels.png has no object of the numbers that classes are given for (10, 20), so its objects have none; "
        "they are 1, 2, 7."
    )


def assert_all_there(placed, labels):
    numbers = [n for n in np.unique(labels) if n]
    assert [example.exemplar.label.split()[-1] for example in placed] == [str(n) for n in numbers]
    for example, number in zip(placed, numbers, strict=True):
        np.testing.assert_array_equal(mask_of(example), labels == number)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png(write, image, labels, told, dtype):
    placed = read_examples(write("cells_labels.png", labels.astype(dtype)), image, progress=told)
    assert_all_there(placed, labels)
    assert all(example.frame is image[0].frame() for example in placed)
    assert all(example.location == Location() for example in placed)
    assert placed[0].exemplar.label == "cells_labels.png, object 1"
    assert placed[0].exemplar.mask is None  # an outline takes less memory
    assert not told.warnings


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64", "float32", "float64"])
def test_tiff(tmp_path, image, labels, told, dtype):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, labels.astype(dtype), compression="zlib")
    assert_all_there(read_examples(path, image, progress=told), labels)


def test_numbers_of_32_bits(tmp_path, image, deep):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, deep)
    assert deep.max() == 4_000_000_000
    assert_all_there(read_examples(path, image), deep)
    deep[deep == 0] = 9
    tifffile.imwrite(path, deep)
    assert len(read_examples(path, image)) == 4


def test_a_bilevel_tiff(tmp_path, image, labels):
    tifffile.imwrite(tmp_path / "x.tif", labels == 1, photometric="minisblack")
    (example,) = read_examples(tmp_path / "x.tif", image)
    np.testing.assert_array_equal(mask_of(example), labels == 1)


def test_an_object_that_reaches_everywhere_without_background(write, image, told):
    placed = read_examples(write("x.png", np.full((20, 30), 3, np.uint8)), image, progress=told)
    assert mask_of(placed[0]).all()
    assert not told.warnings


def test_many_large_masks_are_cut_to_outlines(write, image, labels, told):
    remarks = Remarks("x.png", told)
    source = open_source(write("x.png", labels))
    placed = list(objects_in(source, image[0], Placer(image, remarks), max_bytes=10))
    remarks.report()
    assert placed
    assert all(example.exemplar.mask is None for example in placed)
    assert "object 2 was cut to the largest part" in told.only


def test_a_black_and_white_mask_is_split(write, image, told):
    array = np.zeros((20, 30), np.uint8)
    array[1:4, 1:4] = array[8:12, 8:12] = 255
    array[4, 4] = 255  # touches by a corner
    placed = read_examples(write("x.png", array), image, progress=told)
    assert [mask_of(example).sum() for example in placed] == [10, 16]
    assert "x.png has one object number (255) in 2 separate parts" in told.only


def test_an_object_of_two_parts_is_one_where_other_planes_have_others(tmp_path, told):
    stack = np.zeros((3, 20, 30), np.uint16)
    stack[0, 1:4, 1:4], stack[0, 1:4, 8:12] = 1, 2
    stack[2, 1:4, 1:4] = stack[2, 8:12, 8:12] = 7
    tifffile.imwrite(tmp_path / "x.tif", stack, ome=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "x_labels.tif", stack, ome=True, metadata={"axes": "ZYX"})
    placed = read_examples(tmp_path / "x_labels.tif", open_images([tmp_path / "x.tif"], Settings()), progress=told)
    assert [int(mask_of(example).sum()) for example in placed] == [9, 12, 25]
    assert not told.warnings


def test_a_black_and_white_stack_is_looked_through_once(tmp_path, monkeypatch, told):
    stack = np.zeros((4, 20, 30), np.uint8)
    stack[:, 1:4, 1:4] = stack[:, 8:12, 8:12] = 255
    for name in ("x.tif", "x_labels.tif"):
        tifffile.imwrite(tmp_path / name, stack, ome=True, metadata={"axes": "ZYX"})
    asked = []
    monkeypatch.setattr(label_bands, "has_one_number", lambda *given: asked.append(given) or has_one_number(*given))
    placed = read_examples(tmp_path / "x_labels.tif", open_images([tmp_path / "x.tif"], Settings()), progress=told)
    assert len(placed) == 8
    pairs = list(files.read_pairs(tmp_path / "x_labels.tif", tmp_path / "x_labels.tif", told))
    assert [len(pair.frame.truth) for pair in pairs] == [2] * 4
    assert len(asked) == 3  # one of the examples, one a side


def test_painted_rectangles_are_boxes_where_these_are_asked_for(write, image, told):
    array = np.zeros((20, 30), np.uint8)
    array[2:6, 3:9], array[10:20, 20:30] = 1, 2
    array[10, 20] = 0  # no longer a rectangle
    path = write("x.png", array)
    first, second = read_examples(path, image, progress=told, boxes=True)
    assert first.exemplar.box == (3, 2, 9, 6)
    assert second.exemplar.box is None
    assert all(example.exemplar.box is None for example in read_examples(path, image, progress=told))


def test_one_number_with_a_class_table_is_not_split(write, image, told):
    array = np.zeros((20, 30), np.uint8)
    array[1:4, 1:4] = array[8:12, 8:12] = 5
    write("x_classes.json", {"5": "cell"})
    (example,) = read_examples(write("x.png", array), image, "cell", progress=told)
    assert mask_of(example).sum() == 25


def test_grey_in_three_channels_is_taken(write, image, labels):
    assert_all_there(read_examples(write("x.png", np.stack([labels] * 3, axis=-1)), image), labels)


@pytest.mark.parametrize("name", ["cells_labels_classes.json", "cells_classes.json", "cells_labels.json"])
def test_classes_from_the_file_beside(write, image, labels, told, name):
    write(name, {"1": "living", "2": "dead", "7": ["living", "tiny"]})
    path = write("cells_labels.png", labels)
    placed = read_examples(path, image, "living", "dead", progress=told)
    assert [example.exemplar.negative for example in placed] == [False, True, False]
    assert placed[2].tags == ("living", "tiny")


def test_a_json_beside_that_is_no_class_table_is_not_one(write, image, labels):
    write("cells_labels.json", {"annotations": []})
    assert len(read_examples(write("cells_labels.png", labels), image)) == 3


@pytest.mark.parametrize("content", [[], {"one": "living"}, {"1": 5}])
def test_a_class_table_that_makes_no_sense_is_refused(write, image, labels, content):
    write("cells_classes.json", content)
    with pytest.raises(InputError, match=r"cells_classes\.json must be like"):
        read_examples(write("cells_labels.png", labels), image)


@pytest.mark.parametrize("tags", [("living", None), (None, "dead")])
def test_a_tag_without_classes_is_refused(write, image, labels, tags):
    with pytest.raises(InputError, match=r"cells_labels\.png is a label image, which has no tags") as error:
        read_examples(write("cells_labels.png", labels), image, *tags)
    assert "cells_labels_classes.json" in str(error.value)


def test_labels_of_another_size_are_refused(write, image, labels):
    with pytest.raises(InputError, match=r"x\.png is 29 × 20 px, but its image cells\.png is 30 × 20 px"):
        read_examples(write("x.png", labels[:, :-1]), image)


def test_nothing_marked_is_refused(write, image):
    with pytest.raises(InputError, match=r"No example in x\.png can be used: it has no objects"):
        read_examples(write("x.png", np.zeros((20, 30), np.uint8)), image)


def test_colours_are_refused(write, image, labels):
    colours = np.stack([labels, labels * 2, labels], axis=-1)
    with pytest.raises(InputError, match=r"x\.png is a colour image"):
        read_examples(write("x.png", colours), image)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((20, 30), 0.5, np.float32), "not whole numbers"),
        (np.full((20, 30), np.nan, np.float32), "not whole numbers"),
        (np.full((20, 30), -3, np.int16), r"negative values \(-3\)"),
        (np.full((20, 30), -3, np.float64), r"negative values \(-3\)"),
    ],
)
def test_values_that_are_no_numbers_of_objects_are_refused(tmp_path, image, array, said):
    tifffile.imwrite(tmp_path / "x.tif", array)
    with pytest.raises(InputError, match=said):
        read_examples(tmp_path / "x.tif", image)


@pytest.fixture
def stack(tmp_path, open_with):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 20, 30)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "s.ome.tif", pixels, metadata={"axes": "TZYX"}, photometric="minisblack")
    return open_with(tmp_path / "s.ome.tif")


def test_stacks_of_labels(tmp_path, stack, labels):
    planes = np.zeros((2, 3, 20, 30), np.uint16)
    planes[1, 2] = labels
    planes[0, 1, 3:6, 3:6] = 9
    tifffile.imwrite(tmp_path / "s_labels.ome.tif", planes, metadata={"axes": "TZYX"}, photometric="minisblack")
    placed = read_examples(tmp_path / "s_labels.ome.tif", stack)
    assert [(e.location.z, e.location.time) for e in placed] == [(1, 0), (2, 1), (2, 1), (2, 1)]
    np.testing.assert_array_equal(mask_of(placed[1]), labels == 1)


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_labels_on_a_transparent_background(tmp_path, image, labels, mode):
    if mode == "P":
        numbers = Image.fromarray(labels)
        numbers.putpalette(range(48))
        numbers.save(tmp_path / "cells_labels.png", transparency=0)
    else:
        opacity = np.where(labels, 255, 0).astype(np.uint8)
        samples = [labels] * (len(mode) - 1)
        Image.fromarray(np.dstack([*samples, opacity])).save(tmp_path / "cells_labels.png")
    placed = read_examples(tmp_path / "cells_labels.png", image)
    np.testing.assert_array_equal(mask_of(placed[0]), labels == 1)
    assert len(placed) == 3


def test_labels_of_a_picture_that_was_marked_turned_are_refused_with_the_reason(
    tmp_path, open_with, write, ramp, labels
):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp).save(tmp_path / "a.jpg", exif=exif)
    image = open_with(tmp_path / "a.jpg")
    with pytest.raises(
        InputError, match=r"the size of their image\. a\.jpg is stored turned by 90° \(EXIF\); it is read"
    ):
        read_examples(write("a_labels.png", labels.T.copy()), image)
    with pytest.raises(InputError, match=r"the size of their image\.$"):
        read_examples(write("a_labels.png", labels[1:].copy()), image)


def test_a_single_plane_belongs_to_the_first_frame_of_a_stack(write, stack, labels, told):
    placed = read_examples(write("s_labels.png", labels), stack, progress=told)
    assert {example.location for example in placed} == {Location()}
    assert "single plane; it is taken for the first frame of s.ome.tif" in told.only


def test_other_numbers_of_planes_are_refused(tmp_path, stack):
    tifffile.imwrite(tmp_path / "s_labels.tif", np.zeros((4, 20, 30), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="has 4 slices and 1 time points, but its image"):
        read_examples(tmp_path / "s_labels.tif", stack)


def test_plain_pages_are_the_time_points_of_a_film(tmp_path, open_with, labels):
    film = np.zeros((2, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "f.tif", film, imagej=True, metadata={"axes": "TYX"})
    film[1] = labels
    tifffile.imwrite(tmp_path / "f_labels.tif", film, photometric="minisblack")
    placed = read_examples(tmp_path / "f_labels.tif", open_with(tmp_path / "f.tif"))
    assert {example.location for example in placed} == {Location(0, 0, 1)}


def test_a_broken_label_image_is_refused(write, image):
    with pytest.raises(InputError, match=r"x\.png cannot be read as an image"):
        read_examples(write("x.png", b"\x89PNG\r\n"), image)


def test_pages_without_a_meaning_are_the_slices_of_one_time_point_after_the_other(tmp_path, stack, labels, told):
    planes = np.zeros((2, 3, 20, 30), np.uint16)
    planes[0, 2], planes[1, 0] = labels == 1, np.where(labels == 2, 2, 0)
    tifffile.imwrite(tmp_path / "s_labels.tif", planes, photometric="minisblack")  # as napari saves a layer of labels
    placed = read_examples(tmp_path / "s_labels.tif", stack, progress=told)
    assert [(example.location.z, example.location.time) for example in placed] == [(0, 1), (2, 0)]
    assert (
        "s_labels.tif has 6 slices; they are taken for the 3 slices of the first of the 2 time points of s.ome.tif"
        in told.only
    )
