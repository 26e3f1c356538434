"""Files with several images: ND2 positions, LIF images, CZI scenes, OME-TIFF series, plates."""

from __future__ import annotations

from pathlib import Path

import liffile
import numpy as np
import pytest
import tifffile
import zarr
from microscope_files import write_czi, write_lif, write_lif_images, write_nd2
from yaozarrs import v05
from zarr_files import put, write_zarr_image, write_zarr_plate, write_zarr_series

from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.images.positions import (
    check_counts,
    check_positions,
    field_names,
    position_names,
    row_letters,
    well_name,
)
from sam2_fewshot.images.registry import open_positions, signatures
from sam2_fewshot.records import PixelSize
from sam2_fewshot.settings import Settings

STACK = np.random.default_rng(4).integers(0, 60_000, (2, 3, 2, 20, 30)).astype(np.uint16)
FLAT = STACK[:1, :1, :1]
PLANE = FLAT[0, 0, 0]


def named(path):
    """What the positions of a file are called."""
    return [source.header.position for source in open_positions(path)]


def planes(source, z=0, t=0):
    return np.stack(list(source.planes(z, t)))


@pytest.mark.parametrize(
    ("kind", "write", "more", "names"),
    [
        ("nd2", write_nd2, {"positions": 3}, ["P1", "P2", "P3"]),
        ("nd2", write_nd2, {"positions": 3, "names": ("A01", "", "A 02")}, ["A01", "P2", "A 02"]),
        ("lif", write_lif, {"images": 3}, ["Series0", "Series1", "Series2"]),
        ("lif", write_lif, {"mosaic": 3}, ["Series0_M1", "Series0_M2", "Series0_M3"]),
        ("czi", write_czi, {"scenes": 3}, ["S1", "S2", "S3"]),
    ],
)
def test_each_position_is_an_image_with_a_name(tmp_path, kind, write, more, names):
    path = write(tmp_path / f"a.{kind}", STACK, **more)
    images = open_images([path], Settings())
    assert [image.position for image in images] == names
    assert [image.name for image in images] == [f"a.{kind} {name}" for name in names]
    assert [image.stem for image in images] == [f"a_{name}" for name in names]
    assert [image.xy for image in images] == [0, 1, 2]
    for number, image in enumerate(images):
        assert (planes(image.source, 1, 1) == STACK[1, 1] + number).all()
    for number, source in enumerate(open_positions(path)):
        (alone,) = open_positions(path, source.header.number)
        assert alone.header.position == names[number]
        assert (planes(alone) == planes(source)).all()
    assert len({str(each) for each in signatures([image.header for image in images])}) == 3


@pytest.mark.parametrize(
    ("kind", "write", "more"),
    [
        ("nd2", write_nd2, {"positions": 2}),
        ("lif", write_lif, {"images": 2}),
        ("czi", write_czi, {"scenes": 2}),
        ("ome.tif", lambda path, stack: tifffile.imwrite(path, stack, photometric="minisblack"), {}),
        ("zarr", lambda path, stack: write_zarr_image(path, stack[0, 0], "cyx"), {}),
    ],
)
def test_a_position_that_is_gone_is_named(tmp_path, kind, write, more):
    path = tmp_path / f"a.{kind}"
    write(path, STACK, **more)
    with pytest.raises(InputError, match=rf"^a\.{kind} .*\(the image that was there is not any more\)"):
        open_positions(path, 2)


@pytest.mark.parametrize(("kind", "write"), [("nd2", write_nd2), ("lif", write_lif), ("czi", write_czi)])
def test_a_single_position_is_called_as_its_file(tmp_path, kind, write):
    (image,) = open_images([write(tmp_path / f"a.{kind}", STACK)], Settings())
    assert (image.name, image.stem, image.position) == (f"a.{kind}", "a", "")


SCENES = """<ImageDocument><Metadata><Information><Image><Dimensions><S><Scenes>
<Scene Index="0" Name="P1"><ArrayName>B3</ArrayName><Shape Name="B3"/></Scene>
<Scene Index="1" Name="B4"><Shape Name="B4"/></Scene><Scene Index="2"/></Scenes></S>
<Channels><Channel Id="Channel:0"/><Channel Id="Channel:1" Name="own"/></Channels></Dimensions></Image></Information>
<DisplaySetting><Channels><Channel Id="Channel:0" Name="DAPI"/><Channel Id="Channel:1" Name="GFP"/></Channels>
</DisplaySetting></Metadata></ImageDocument>"""


def test_scenes_have_sizes_wells_and_pyramids_of_their_own(tmp_path):
    sources = open_positions(write_czi(tmp_path / "a.czi", STACK, scenes=3, smaller=3, xml=SCENES, pyramid=(2,)))
    assert [source.header.position for source in sources] == ["B3_P1", "B4", "S3"]
    assert [source.header.height for source in sources] == [20, 17, 14]
    assert (planes(sources[2]) == STACK[0, 0, :, :14] + 2).all()
    # Display settings name channels that the dimensions do not.
    assert sources[1].header.channel_names == ("DAPI", "own")


def test_further_axes_of_a_czi_are_positions(tmp_path):
    sources = open_positions(write_czi(tmp_path / "a.czi", STACK, scenes=2, phases=2))
    assert [source.header.position for source in sources] == ["S1_H1", "S1_H2", "S2_H1", "S2_H2"]
    assert (planes(sources[3]) == STACK[0, 0] + 11).all()
    assert named(write_czi(tmp_path / "b.czi", STACK, phases=2)) == ["H1", "H2"]


def test_planes_of_a_lif_are_what_was_scanned_as_one(tmp_path):
    random = np.random.default_rng(5)

    def some(*shape):
        return random.integers(0, 255, shape).astype(np.uint8)

    images = {
        "xy": ("YX", some(5, 6)),
        "xz": ("TCZX", some(4, 2, 5, 6)),
        "xzy": ("YCZX", some(3, 2, 5, 6)),
        "xt": ("TX", some(5, 6)),
        "λ": ("TλZYX", some(2, 4, 3, 5, 6)),
        "λC": ("CΛYX", some(2, 3, 5, 6)),
        "line": ("X", some(6)),
    }
    path = write_lif_images(tmp_path / "a.lif", images)
    sources = open_positions(path)
    found = {source.header.position: source for source in sources}
    assert list(found) == ["xy", "xz", "xzy", "xt", "λ", "λC"]
    sizes = {name: (s.header.size_c, s.header.size_z, s.header.size_t) for name, s in found.items()}
    assert sizes == {
        **{"xy": (1, 1, 1), "xz": (2, 1, 4), "xzy": (2, 3, 1), "xt": (1, 1, 1)},
        **{"λ": (4, 3, 2), "λC": (6, 1, 1)},
    }
    assert (planes(found["xz"], 0, 3) == images["xz"][1][3]).all()
    assert (planes(found["xzy"], 2) == images["xzy"][1][2]).all()
    assert (planes(found["λ"], 2, 1) == images["λ"][1][1, :, 2]).all()
    assert (planes(found["λC"]) == images["λC"][1].reshape(6, 5, 6)).all()
    assert found["λ"].header.channel_names == ("Green 500 nm", "Green 510 nm", "Green 520 nm", "Green 530 nm")
    assert found["λC"].header.channel_names[3] == "Red 500 nm"
    assert found["xz"].header.pixel_size == PixelSize(pytest.approx(0.01), pytest.approx(0.01))
    assert all(source.header.by_region for source in sources)
    (warning,) = found["xy"].header.warnings
    assert warning.startswith("a.lif: 1 of its 7 positions cannot be read and are left out (line).")
    with liffile.LifFile(path) as file:  # the reference reader sees the same
        for image in list(file.images)[:3]:
            assert (image.asarray() == images[image.name][1]).all()


def test_positions_whose_pixels_lie_elsewhere_are_read_by_liffile(tmp_path):
    path = write_lif(tmp_path / "a.lif", STACK, mosaic=2, further_axes=[(11, 1, -1, 0)])
    sources = open_positions(path)
    assert not sources[1].header.by_region
    assert (planes(sources[1], 2, 1) == STACK[1, 2] + 1).all()


def ome_series(path, shapes=((20, 30), (12, 16)), **more):
    with tifffile.TiffWriter(path, ome=True) as tif:
        for number, shape in enumerate(shapes):
            pixels = np.full((2, *shape), number + 1, np.uint8)
            tif.write(
                pixels,
                photometric="minisblack",
                metadata={
                    "axes": "CYX",
                    "Name": f"series {number + 1}",
                    "Channel": {"Name": [f"red {number}", f"green {number}"]},
                    "PhysicalSizeX": 0.5 + number,
                    "PhysicalSizeY": 0.5 + number,
                },
                **more,
            )
    return path


@pytest.mark.parametrize("more", [{}, {"compression": "zlib", "tile": (16, 16)}])
def test_series_of_an_ome_tiff(tmp_path, more):
    images = open_images([ome_series(tmp_path / "a.ome.tif", **more)], Settings())
    assert [image.stem for image in images] == ["a_series 1", "a_series 2"]
    assert [image.shape for image in images] == [(20, 30), (12, 16)]
    assert images[1].header.channel_names == ("red 1", "green 1")
    assert images[1].header.pixel_size == PixelSize(1.5, 1.5)
    assert (planes(images[1].source) == 2).all()
    assert (next(images[1].source.region(0, 0, (3, 2, 9, 8))) == 2).all()


def companion(folder, names=("a", "b"), plate=False, embed="binary"):
    """Write TIFF files that one OME-XML describes, in a file of its own or in the first of them."""
    folder.mkdir(exist_ok=True)
    head = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    images = "".join(
        f'<Image ID="Image:{n}" Name="{name}"><Pixels ID="Pixels:{n}" DimensionOrder="XYCZT" Type="uint16" SizeX="30" '
        f'SizeY="20" SizeC="1" SizeZ="2" SizeT="1" PhysicalSizeX="{n + 1}" PhysicalSizeY="{n + 1}">'
        f'<Channel ID="Channel:{n}:0" SamplesPerPixel="1" Name="c{n}"/>'
        + "".join(
            f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}_{z}.ome.tif">urn:uuid:{name}{z}'
            "</UUID></TiffData>"
            for z in range(2)
        )
        + "</Pixels></Image>"
        for n, name in enumerate(names)
    )
    wells = "".join(
        f'<Well ID="Well:{n}" Row="1" Column="{n + 2}"><WellSample ID="WellSample:{n}" Index="{n}">'
        f'<ImageRef ID="Image:{n}"/></WellSample></Well>'
        for n in range(len(names))
    )
    wells = f'<Plate ID="Plate:0">{wells}</Plate>' if plate else ""
    xml = f'<?xml version="1.0" encoding="UTF-8"?><OME {head} UUID="urn:uuid:root">{wells}{images}</OME>'
    (folder / "set.companion.ome").write_text(xml)
    for n, name in enumerate(names):
        for z in range(2):
            own = xml.replace("urn:uuid:root", f"urn:uuid:{name}{z}")
            if embed == "binary":
                own = (
                    f'<OME {head} UUID="urn:uuid:{name}{z}"><BinaryOnly MetadataFile="set.companion.ome" '
                    'UUID="urn:uuid:root"/></OME>'
                )
            pixels = np.full((20, 30), 10 * n + z, np.uint16)
            tifffile.imwrite(folder / f"{name}_{z}.ome.tif", pixels, description=own, metadata=None, tile=(16, 16))
    return folder


@pytest.mark.parametrize("embed", ["binary", "whole"])
def test_a_set_of_ome_tiff_files_is_read_from_each_of_its_files(tmp_path, embed):
    folder = companion(tmp_path / "set", embed=embed)
    (image,) = open_images([folder / "b_1.ome.tif"], Settings())  # of the set, what is in this file
    assert (image.size_z, image.header.pixel_size, image.header.channel_names) == (2, PixelSize(2.0, 2.0), ("c1",))
    assert [int(planes(image.source, z).max()) for z in range(2)] == [10, 11]
    assert int(next(image.source.region(1, 0, (1, 2, 20, 18))).max()) == 11
    images = open_images([folder], Settings())
    assert [image.shape for image in images] == [(20, 30)] * 2  # and not once for each file
    before = str(signatures([images[0].header]))
    tifffile.imwrite(folder / "a_1.ome.tif", np.zeros((21, 30), np.uint16))
    assert str(signatures([images[0].header])) != before


def test_a_companion_is_an_image(tmp_path):
    folder = companion(tmp_path / "set")
    images = open_images([folder / "set.companion.ome"], Settings())
    assert [image.stem for image in images] == ["set_a", "set_b"]
    assert [int(planes(image.source, 1).max()) for image in images] == [1, 11]
    (alone,) = open_positions(folder / "set.companion.ome", 1)
    assert (alone.header.position, int(planes(alone).max())) == ("b", 10)
    with_wells = companion(tmp_path / "plate", plate=True)
    assert named(with_wells / "set.companion.ome") == ["B03", "B04"]


def test_what_is_wrong_with_a_companion_is_said(tmp_path):
    folder = companion(tmp_path / "set")
    path = folder / "set.companion.ome"
    xml = path.read_text()
    (folder / "b_0.ome.tif").unlink()
    with pytest.raises(InputError, match=r"describes images in 4 files, and b_0\.ome\.tif is not beside it"):
        open_positions(path)
    path.write_text(xml.replace("b_0.ome.tif", "../b.tif"))
    with pytest.raises(InputError, match="a file outside of its folder"):
        open_positions(path)
    with pytest.raises(InputError, match="a file outside of its folder"):
        open_positions(folder / "a_0.ome.tif")
    path.write_text("<OME></OME>")
    with pytest.raises(InputError, match="names no TIFF file"):
        open_positions(path)
    path.write_text("nonsense")
    with pytest.raises(InputError, match="it is not OME-XML"):
        open_positions(path)


@pytest.mark.parametrize("form", [2, 3])
def test_wells_and_fields_of_a_plate(tmp_path, form):
    fields = {"B/3": [PLANE, PLANE + 1], "B/04": [PLANE[:10]], "C/12": [PLANE + 3]}
    path = write_zarr_plate(tmp_path / "p.zarr", fields, form)
    images = open_images([path], Settings())
    assert [image.name for image in images] == [f"p.zarr {w}" for w in ("B03_f1", "B03_f2", "B04_f1", "C12_f1")]
    assert [image.stem for image in images] == ["p_B03_f1", "p_B03_f2", "p_B04_f1", "p_C12_f1"]
    assert images[2].shape == (10, 30)
    assert (planes(images[1].source) == PLANE + 1).all()
    alone = open_images([path / "B" / "3" / "1", path / "B" / "3" / "0"], Settings())
    assert [(image.name, image.stem) for image in alone] == [
        ("p.zarr B03_f2", "p_B03_f2"),
        ("p.zarr B03_f1", "p_B03_f1"),
    ]
    well = open_images([path / "B" / "3"], Settings())
    assert [image.stem for image in well] == ["p_B03_f1", "p_B03_f2"]
    assert signatures([well[1].header]) == signatures([images[1].source.header])


def test_a_plate_with_one_field_a_well(tmp_path):
    path = write_zarr_plate(tmp_path / "p.zarr", {"A/1": [PLANE], "A/2": [PLANE]})
    assert [image.stem for image in open_images([path], Settings())] == ["p_A01", "p_A02"]
    assert [image.stem for image in open_images([path / "A" / "2" / "0"], Settings())] == ["p_A02"]
    single = write_zarr_plate(tmp_path / "q.zarr", {"H/12": [PLANE]})
    assert [image.stem for image in open_images([single], Settings())] == ["q_H12"]


def test_images_of_a_bioformats2raw_group(tmp_path):
    series = {"first": PLANE, "second": PLANE[:7]}
    for form, listed in ((2, True), (3, False)):
        path = write_zarr_series(tmp_path / f"a{form}.zarr", series, form, listed)
        images = open_images([path], Settings())
        assert [image.stem for image in images] == [f"a{form}_first", f"a{form}_second"]
        assert images[1].shape == (7, 30)
        assert [image.stem for image in open_images([path / "1"], Settings())] == [f"a{form}_second"]
    (tmp_path / "a2.zarr" / "OME" / "METADATA.ome.xml").write_text(
        '<OME xmlns="x"><Image Name="Well A1"/><Image Name="Well A2"/></OME>'
    )
    assert named(tmp_path / "a2.zarr") == ["Well A1", "Well A2"]
    (image,) = open_images([write_zarr_series(tmp_path / "b.zarr", {"only": PLANE})], Settings())
    assert (image.name, image.stem) == ("b.zarr", "b")


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"plate": {}}, "a plate without images"),
        ({"plate": {"wells": 3}}, "wells is not a list"),
        ({"plate": {"wells": [{"path": "../q.zarr/A/1"}]}}, "leads outside of it"),
        ({"plate": {"wells": [{"path": "/etc"}]}}, None),
        ({"plate": {"wells": [{}]}}, "leads outside of it"),
        ({"plate": {"wells": [{"path": "A/9"}]}}, "a plate without images"),
        ({"well": {"images": [{"path": "a/../../b"}]}}, "leads outside of it"),
        ({"well": {"images": []}}, "a well without images"),
    ],
)
def test_plates_that_make_no_sense(tmp_path, attributes, said):
    path = write_zarr_image(tmp_path / "p.zarr", PLANE)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    put(group, 3, attributes)
    with pytest.raises(InputError, match=said or "a plate without images"):
        open_positions(path)


def test_a_plate_of_which_a_field_is_damaged_is_read_without_it(tmp_path, told):
    path = write_zarr_plate(tmp_path / "p.zarr", {"A/1": [PLANE], "A/2": [PLANE], "A/3": [PLANE]})
    (path / "A" / "2" / "0" / "0" / "zarr.json").write_text("nonsense")
    images = open_images([path], Settings(), progress=told)
    assert [image.position for image in images] == ["A01", "A03"]
    assert told.warnings[0].startswith(
        "p.zarr: 1 of its 3 positions cannot be read and are left out (A02). p.zarr/A/2/0"
    )


def test_many_warnings_of_a_plate_are_summed_up(tmp_path, told):
    wells = [f"A/{n}" for n in range(1, 9)]
    path = write_zarr_plate(tmp_path / "p.zarr", {well: [PLANE] for well in wells})
    for well in wells:
        (path / well / "0" / "0" / "c" / "0" / "0").unlink()
    open_images([path], Settings(), progress=told)
    assert len(told.warnings) == 4
    assert told.warnings[0].startswith("p.zarr/A/1/0: 1 of its 1 pieces are not stored")
    assert told.warnings[3] == "p.zarr: 5 more warnings of this kind about its other positions."


def test_names_are_distinct():
    assert position_names(["a", None, "A", " b\n c ", "P2"]) == ("a_1", "P2_1", "A_2", "b c", "P2_2")
    assert position_names(["a", "a", "a_1"]) == ("a_2", "a_3", "a_1")
    assert (row_letters(0), row_letters(25), row_letters(26), row_letters(31)) == ("A", "Z", "AA", "AF")
    assert (well_name("B", "3"), well_name("AF", "48"), well_name("B", "x")) == ("B03", "AF48", "Bx")
    assert field_names([("A01", 1), ("A02", 1)]) == ("A01", "A02")
    assert field_names([("A01", 1), ("A01", 2)]) == ("A01_f1", "A01_f2")


def test_labels_in_a_plate_lie_on_their_fields(tmp_path):
    path = write_zarr_plate(tmp_path / "p.zarr", {"B/3": [PLANE, PLANE], "B/4": [PLANE]})
    for field, count in (("B/3/1", 2), ("B/4/0", 1)):
        labels = zarr.open_group(path / field / "labels", mode="w", zarr_format=3)
        put(labels, 3, {"labels": ["cells"]})
        numbers = np.zeros((20, 30), np.uint8)
        for number in range(count):
            numbers[2:6, 2 + 9 * number : 8 + 9 * number] = number + 1
        write_zarr_image(path / field / "labels" / "cells", numbers)
    images = open_images([path], Settings())
    placed = read_examples(path, images)
    assert [item.frame.name for item in placed] == ["p.zarr B03_f2", "p.zarr B03_f2", "p.zarr B04_f1"]
    for inside in ("B/3/1", "B/3/1/labels", "B/3/1/labels/cells"):
        assert [item.location.xy for item in read_examples(path / inside, images)] == [1, 1]


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 1, 10**9, 64, 64), "says it has 1,000,000,000 slices and 1 time points; up to 200,000 frames"),
        ((10**9, 1, 1, 64, 64), "1 slices and 1,000,000,000 time points"),
        ((1, 10**9, 1, 64, 64), "1,000,000,000 channels; up to 10,000 are read"),
    ],
)
def test_sizes_that_are_not_believed_are_refused_by_the_header(tmp_path, form, shape, said):
    path = claim(tmp_path / "a.zarr", shape, form)
    with pytest.raises(InputError, match=said):
        open_positions(path)


def claim(path, shape, form):
    """Write the metadata of an image and no pixel."""
    group = zarr.open_group(path, mode="w", zarr_format=form)
    group.create_array("0", shape=shape, dtype="u2", chunks=(1, 1, 1, 64, 64))
    scales = {"axes": [{"name": axis} for axis in "tczyx"], "datasets": [{"path": "0"}]}
    put(group, form, {"multiscales": [scales]})
    return path


@pytest.mark.parametrize("form", [2, 3])
def test_pieces_are_counted_where_they_are_stored_and_not_where_they_are_declared(tmp_path, form):
    path = claim(tmp_path / "a.zarr", (1, 1, 1, 2240 * 64, 2240 * 64), form)
    zarr.open_array(path / "0", mode="a")[0, 0, 0, :64, :70] = 1
    (source,) = open_positions(path)
    assert source.header.warnings[0].startswith("a.zarr: 5,017,598 of its 5,017,600 pieces are not stored")


def test_a_tiff_and_an_nd2_that_claim_too_much_are_refused():
    for counts in ((10_001, 1, 1), (1, 500, 401), (1, 200_001, 1)):
        with pytest.raises(InputError, match=r"a\.tif says it has"):
            check_counts(Path("a.tif"), *counts)
    check_counts(Path("a.tif"), 10_000, 200, 1000)
    with pytest.raises(InputError, match=r"a\.tif says it has 100,001 positions"):
        check_positions(Path("a.tif"), 100_001)


def described(**more):
    axes = [v05.SpaceAxis(name=axis, unit="micrometer") for axis in "yx"]
    scale = v05.ScaleTransformation(scale=[0.5, 0.25])
    datasets = [v05.Dataset(path="0", coordinateTransformations=[scale])]
    return v05.Image(multiscales=[v05.Multiscale(axes=axes, datasets=datasets, **more)])


def test_plates_and_groups_as_yaozarrs_writes_them(tmp_path):
    write = pytest.importorskip("yaozarrs.write.v05")
    plate = {("B", "3", "0"): (described(), [PLANE]), ("B", "3", "1"): (described(), [PLANE + 1])}
    path = write.write_plate(tmp_path / "p.zarr", plate | {("C", "12", "0"): (described(), [PLANE[:9]])})
    images = open_images([path], Settings())
    assert [image.position for image in images] == ["B03_f1", "B03_f2", "C12_f1"]
    assert (planes(images[1].source) == PLANE + 1).all()
    assert images[2].header.pixel_size == PixelSize(0.25, 0.5)
    series = {str(n): (described(name=f"image {n}"), [PLANE + n]) for n in range(2)}
    images = open_images([write.write_bioformats2raw(tmp_path / "s.zarr", series)], Settings())
    assert [image.stem for image in images] == ["s_image 0", "s_image 1"]
    assert (planes(images[1].source) == PLANE + 1).all()


@pytest.mark.parametrize("write", [write_nd2, write_lif, write_czi])
def test_a_single_image_that_is_opened_by_its_number_has_no_name_either(tmp_path, write):
    tifffile.imwrite(tmp_path / "a.tif", PLANE)
    for path in (tmp_path / "a.tif", write(tmp_path / f"a.{write.__name__[6:]}", STACK)):
        (source,) = open_positions(path, 0)
        assert source.header.name == path.name
