"""Which file belongs to which image, and which objects are taken by their tags."""

import os

import numpy as np
import pytest
from roifile import ImagejRoi
from test_outline_examples import FINE, SQUARE, annotation, collection, export, feature

from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.errors import InputError, SettingsError


@pytest.fixture
def two(write, open_with, ramp):
    return open_with(write("a.png", ramp), write("b.tif", ramp[::-1].copy()))


@pytest.fixture
def labels():
    array = np.zeros((20, 30), np.uint8)
    array[2:6, 3:9] = 1
    return array


def test_a_file_named_after_an_image_belongs_to_it(write, two, labels):
    assert read_examples(write("b_labels.png", labels), two)[0].location.xy == 1
    assert read_examples(write("x/b.png", labels), two)[0].location.xy == 1
    assert read_examples(write("b.geojson", feature("Polygon", [SQUARE])), two)[0].location.xy == 1


@pytest.mark.parametrize("name", ["x.png", "x.geojson"])
def test_a_file_named_after_none_is_refused_among_several(write, two, labels, name):
    content = labels if name.endswith("png") else feature("Polygon", [SQUARE])
    with pytest.raises(InputError, match="not clear to which of the 2 images") as error:
        read_examples(write(name, content), two)
    assert ("a_labels.png" if name.endswith("png") else "a.geojson") in str(error.value)


def test_a_name_is_not_needed_with_one_image(write, image, labels):
    assert read_examples(write("anything.png", labels), image)


@pytest.mark.parametrize(("images", "folder"), [("given", "given"), ("given", "marked"), ("marked", "marked")])
def test_examples_named_after_an_image_that_was_not_given_are_refused(write, open_with, labels, told, images, folder):
    write(f"{images}/a.png", labels)
    only = open_with(write("given/b.png", labels))
    path = write(f"{folder}/a_labels.png", labels)
    with pytest.raises(InputError, match=r"^a_labels.png is named after a.png, but only b.png was given\.") as error:
        read_examples(path, only, progress=told)
    assert "--examples-on b.png" in str(error.value)
    assert "--batch-xy" in str(error.value)
    assert read_examples(path, only, progress=told, on="b.png")
    assert not told.warnings


def test_a_name_with_an_ending_of_labels_is_that_of_an_image(write, image, labels):
    path = write("a_labels.png", labels)
    with pytest.raises(InputError, match=r"named after an image a, but only cells\.png was given"):
        read_examples(path, image)
    assert read_examples(path, image, on="cells")


@pytest.mark.parametrize(("on", "xy"), [("a.png", 0), ("b.tif", 1), ("b", 1)])
def test_the_image_may_be_named(write, two, labels, on, xy):
    assert read_examples(write("x.png", labels), two, on=on)[0].location.xy == xy
    assert read_examples(write("a_labels.png", labels), two, on=on)[0].location.xy == xy


def test_an_image_that_is_not_there_is_refused(write, two, labels, tmp_path):
    path = write("x.png", labels)
    with pytest.raises(InputError, match=r"says 'c.png', but no image .* the images are a.png, b.tif"):
        read_examples(path, two, on="c.png")
    with pytest.raises(InputError, match="is a folder"):
        read_examples(tmp_path, two, on="a.png")


def test_a_folder_gives_each_image_its_file(tmp_path, write, two, labels, told):
    write("ex/a_labels.png", labels)
    write("ex/b.geojson", collection(feature("Polygon", [SQUARE]), feature("Polygon", [FINE])))
    write("ex/c_labels.png", labels)
    write("ex/.a_labels.png", b"")
    write("ex/readme.txt", b"hello")
    placed = read_examples(tmp_path / "ex", two, progress=told)
    assert [example.location.xy for example in placed] == [0, 1, 1]
    assert "1 file was passed over" in told.only


def test_the_place_of_each_image_is_asked_once_however_many_files_there_are(
    tmp_path, write, open_with, ramp, labels, monkeypatch
):
    many = open_with(*(write(f"images/{n}.png", ramp) for n in range(10)))
    for n in range(10):
        write(f"ex/{n}_labels.png", labels)
    real, asked = os.path.realpath, []
    monkeypatch.setattr(os.path, "realpath", lambda path, **more: asked.append(path) or real(path, **more))
    assert len(read_examples(tmp_path / "ex", many)) == 10
    assert len([path for path in asked if path in {image.path for image in many}]) == 10


def test_the_folder_may_be_that_of_the_images(tmp_path, write, two, labels, told):
    write("a_labels.png", labels)
    write("a_classes.json", {"1": "cell"})
    (example,) = read_examples(tmp_path, two, progress=told)
    assert example.tags == ("cell",)


def test_a_class_table_named_after_the_image_is_not_read_as_examples(tmp_path, write, image, labels, told):
    write("ex/cells.png", labels)
    write("ex/cells.json", {"1": "cell"})
    (example,) = read_examples(tmp_path / "ex", image, progress=told)
    assert example.tags == ("cell",)


def test_a_folder_without_a_fitting_file_is_refused(tmp_path, write, two, labels):
    write("ex/c_labels.png", labels)
    with pytest.raises(
        InputError, match=r"is named after an image; for a\.png it would be, for instance, a_labels\.png"
    ):
        read_examples(tmp_path / "ex", two)


def test_reasons_from_several_files_are_all_told_when_none_is_left(tmp_path, write, two, told):
    write("ex/a.geojson", feature("LineString", SQUARE))
    write("ex/b.geojson", feature("Polygon", [[[1, 1]]]))
    with pytest.raises(
        InputError, match=r"No example in ex can be used: a\.geojson: .*LineString.*; b\.geojson: .*fewer than 3"
    ):
        read_examples(tmp_path / "ex", two, progress=told)
    assert told.warnings == []  # the one sentence says it all


def test_an_image_is_not_its_own_examples(tmp_path, two):
    with pytest.raises(InputError, match=r"a\.png is given both as examples and as an image"):
        read_examples(tmp_path / "a.png", two)


def test_a_missing_path_is_refused(tmp_path, image):
    with pytest.raises(InputError, match=r"There is no file or folder .*nothing with examples"):
        read_examples(tmp_path / "nothing", image)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.jpg", "JPEG changes the numbers"),
        ("x.doc", "it is not known"),
        ("x.zarr", "it is not known"),
        ("x.csv", "they have no outlines; points are read from GeoJSON and ROI files"),
        ("x.parquet", "tables are written, but not read: they have no outlines"),
    ],
)
def test_other_formats_are_refused(write, image, name, said):
    with pytest.raises(InputError, match=said):
        read_examples(write(name, b"anything"), image)


@pytest.fixture
def tagged(write):
    tags = [["Cell"], ["cell", "big"], ["debris"], [], ["cell", "debris"]]
    return write("n.json", export(*(annotation(SQUARE, tags=names) for names in tags)))


def chosen(placed):
    return [(int(e.exemplar.label.split()[-1]), e.exemplar.negative) for e in placed]


def test_without_tags_everything_is_taken(tagged, image):
    assert chosen(read_examples(tagged, image)) == [(n, False) for n in range(1, 6)]
    assert chosen(read_examples(tagged, image, "", "")) == [(n, False) for n in range(1, 6)]


@pytest.mark.parametrize("tag", ["cell", "Cell", "CELL "])
def test_letter_case_does_not_matter(tagged, image, told, tag):
    assert chosen(read_examples(tagged, image, tag, progress=told)) == [(1, False), (2, False), (5, False)]
    assert told.only == f"n.json: {tag!r} stands for all its spellings: 'Cell' (1), 'cell' (2)."


def test_what_is_not_wanted_is_so_in_any_letter_case(tagged, image, told):
    expected = [(1, True), (2, True), (3, False), (4, False), (5, True)]
    assert chosen(read_examples(tagged, image, None, "cell", told)) == expected


def test_two_tags_that_differ_by_letter_case_alone_are_taken_as_they_are_spelt(tagged, image, told):
    assert chosen(read_examples(tagged, image, "cell", "Cell", told)) == [(1, True), (2, False), (5, False)]
    assert not told.warnings
    with pytest.raises(InputError, match="has the tag 'CELL'"):
        read_examples(tagged, image, "cell", "CELL")


def test_a_negative_tag_alone_leaves_the_others_positive(tagged, image):
    expected = [(1, False), (2, False), (3, True), (4, False), (5, True)]
    assert chosen(read_examples(tagged, image, None, "debris")) == expected


def test_objects_with_both_tags_are_left_out(tagged, image, told):
    assert chosen(read_examples(tagged, image, "cell", "debris", told)) == [(1, False), (2, False), (3, True)]
    assert told.warnings[-1] == "n.json: 1 object with both 'cell' and 'debris' was left out."


def test_a_tag_that_no_object_has_lists_those_that_are(tagged, image):
    with pytest.raises(InputError) as error:
        read_examples(tagged, image, "nucleus")
    assert str(error.value) == (
        "No object in n.json has the tag 'nucleus'. The tags of its 5 objects are: "
        "'cell' (2), 'debris' (2), 'Cell' (1), 'big' (1)."
    )


def test_a_negative_tag_that_no_object_has_is_refused_too(tagged, image):
    with pytest.raises(InputError, match="has the tag 'dead'"):
        read_examples(tagged, image, "cell", "dead")


def test_no_tags_at_all_are_said_to_be_none(write, image):
    with pytest.raises(InputError, match="The tags of its only object are: none"):
        read_examples(write("x.json", feature("Polygon", [SQUARE])), image, "cell")


def test_the_same_tag_twice_is_refused(tagged, image):
    with pytest.raises(SettingsError, match="both 'cell'; they must differ"):
        read_examples(tagged, image, "cell", "cell")


def test_only_negative_examples_are_refused(write, image):
    path = write("n.json", export(annotation(SQUARE, tags=["debris"])))
    with pytest.raises(InputError, match="has no example left of what is wanted"):
        read_examples(path, image, None, "debris")


def test_200_and_more_examples_are_all_read(write, image):
    path = write("n.json", export(*[annotation(SQUARE)] * 250))
    assert len(read_examples(path, image)) == 250


@pytest.fixture
def alike(write, open_with, ramp):
    return open_with(*(write(f"{day}/a.png", ramp) for day in ("d1", "d2", "d3")))


@pytest.mark.parametrize("name", ["a_labels.png", "a.png", "a.geojson", "a_rois.roi"])
def test_of_images_that_share_a_name_it_is_the_one_beside_the_marks(tmp_path, write, open_with, ramp, labels, name):
    images = open_with(*(write(f"{day}/a.tif", ramp) for day in ("d1", "d2")))
    content = labels if name.endswith("png") else feature("Polygon", [SQUARE])
    if name.endswith("roi"):
        content = ImagejRoi.frompoints([[2, 2], [9, 2], [9, 9], [2, 9]]).tobytes()
    path = write(f"d2/{name}", content)
    assert read_examples(path, images)[0].location.xy == 1
    assert {example.location.xy for example in read_examples(tmp_path / "d2", images)} == {1}


@pytest.mark.parametrize("is_folder", [False, True])
def test_it_is_asked_which_of_the_images_that_share_a_name_is_meant(write, alike, labels, is_folder):
    path = write("marks/a_labels.png", labels)
    with pytest.raises(
        InputError, match=r"^a_labels\.png is named after several images, d1/a\.png, d2/a\.png, d3/a\.png\."
    ) as error:
        read_examples(path.parent if is_folder else path, alike)
    assert "--examples-on d1/a.png" in str(error.value)


@pytest.mark.parametrize(("on", "xy"), [("d2/a.png", 1), ("d3/a", 2), ("./d1/a.png", 0), ("a_2", 1)])
def test_the_image_may_be_named_with_its_folder(write, alike, labels, on, xy):
    assert read_examples(write("marks/a_labels.png", labels), alike, on=on)[0].location.xy == xy


@pytest.mark.parametrize("on", ["a.png", "a", "d4/a.png"])
def test_a_name_that_several_images_share_is_refused(write, alike, labels, on):
    with pytest.raises(InputError, match=r"several images have that name; the images are d1/a\.png, d2/a\.png"):
        read_examples(write("marks/a_labels.png", labels), alike, on=on)


def test_the_image_without_a_folder_is_the_one_of_that_name(write, open_with, ramp, labels):
    images = open_with(write("d2/a.png", ramp), write("a.png", ramp))
    assert read_examples(write("marks/a_labels.png", labels), images, on="a.png")[0].location.xy == 1


def test_files_may_be_named_as_the_results_are(write, open_with, ramp, labels):
    images = open_with(*(write(f"{day}/a.png", ramp) for day in ("d1", "d2")))
    write("marks/a_labels.png", labels)
    path = write("marks/a_2_labels.png", labels)
    assert [example.location.xy for example in read_examples(path.parent, images)] == [0, 1]


def test_a_file_of_examples_is_not_the_image_that_it_is_named_after(tmp_path, write, open_with, labels, monkeypatch):
    only = open_with(write("b.png", labels))
    write("a_labels.png", labels)
    monkeypatch.chdir(tmp_path)
    for path in ("a_labels.png", tmp_path / "a_labels.png"):
        with pytest.raises(InputError, match=r"^a_labels\.png is named after an image a, but only b\.png was given\."):
            read_examples(path, only)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a"], "name it after that, for instance a_labels.png; else give the other image in its place"),
        (["a", "c"], "for instance a_labels.png for a.png, or give that image only."),
        (["d1/b", "d2/b"], "or give that one only."),
    ],
)
def test_advice_is_what_convert_can_do(tmp_path, write, labels, given, said):
    images = [write(f"{name}.png", labels) for name in given]
    with pytest.raises(InputError) as error:
        convert(write("marks/b_labels.png", labels), tmp_path / "x.geojson", images=images)
    assert said in str(error.value)
    assert "--examples-on" not in str(error.value)
    assert "--batch-xy" not in str(error.value)


def coco(*names):
    return {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [{"image_id": number, "bbox": [3, 2, 6, 4]} for number in range(len(names))],
    }


@pytest.mark.parametrize("named", ["a.png", "other.png"])
def test_the_image_may_be_named_for_a_coco_file_of_one_image(write, two, told, named):
    path = write("a.json", coco(named))
    assert [example.location.xy for example in read_examples(path, two, on="b.tif", progress=told)] == [1]
    assert not told.warnings


def test_the_image_may_be_named_for_an_export_of_one_position(write, two):
    places = [{"XY": 7, "Z": 0}, {"XY": 7}]
    path = write("a.json", export(*(annotation(SQUARE, location=place) for place in places)))
    assert [example.location.xy for example in read_examples(path, two, on="b.tif")] == [1, 1]
    path = write("c.json", export(annotation(SQUARE)))
    assert [example.location.xy for example in read_examples(path, two, on="b.tif")] == [1]


def test_of_a_file_that_speaks_of_several_images_none_can_be_named(write, two):
    places = [{"XY": 0}, {"XY": 1}]
    for content in (coco("a.png", "b.tif"), export(*(annotation(SQUARE, location=at) for at in places))):
        with pytest.raises(
            InputError, match=r"lie on b\.tif, but the file speaks of 2 images\. Leave out --examples-on"
        ):
            read_examples(write("a.json", content), two, on="b.tif")
