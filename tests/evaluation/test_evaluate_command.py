"""``sam2-fewshot evaluate`` from files to figures."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from recorded import recorded
from sam2_fewshot.annotations.record import ExampleMark, FrameRecord
from sam2_fewshot.cli import app
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.images.stems import safe_stems
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.output.journal import JOURNAL_FOLDER, Journal
from sam2_fewshot.output.pictures import preview_jpeg
from sam2_fewshot.records import Detection, InstanceMask, Kind, Location
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

SHAPE = (40, 60)


def evaluate(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refused(*arguments: object) -> str:
    result = evaluate(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(("Error: ", "Warning: "))
    return result.stderr


def squares(*corners: tuple[int, int], side: int = 10) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint16)
    for value, (x, y) in enumerate(corners, 1):
        labels[y : y + side, x : x + side] = value
    return labels


def save(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, labels)
    else:
        Image.fromarray(labels).save(path)
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    save(tmp_path / "truth" / "a.png", np.full(SHAPE, 7, np.uint8))  # the image itself may lie there too
    save(tmp_path / "truth" / "b.png", np.full(SHAPE, 7, np.uint8))
    save(tmp_path / "truth" / "a_labels.png", squares((0, 0), (20, 0), (40, 0)))
    save(tmp_path / "truth" / "b_labels.png", squares((0, 20)))
    return tmp_path / "truth"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder: one right find and one false one on a.tif, an example there, one find too low; b.tif empty."""

    def find(x: int, y: int, score: float) -> Detection:
        mask = InstanceMask(np.ones((10, 10), bool), x, y, SHAPE)
        return Detection(mask, mask_to_polygon(mask), score, score, 0.5)

    example = mask_to_polygon(InstanceMask(np.ones((10, 10), bool), 40, 0, SHAPE))
    folder = tmp_path / "out"
    journal = Journal(folder / JOURNAL_FOLDER, "f")
    first = FrameRecord("a.tif", "a", Location(0), SHAPE, detections=(find(0, 0, 0.9), find(40, 25, 0.8)),
                        below=(find(20, 0, 0.3),), examples=(ExampleMark(example),), threshold=0.5)  # fmt: skip
    records = [first, FrameRecord("b.tif", "b", Location(1), SHAPE)]
    for record in records:
        journal.write(record)
    write_whole(journal.preview(Location(0)), preview_jpeg(np.full((*SHAPE, 3), 90, np.uint8)))
    assemble(recorded(journal, [Location(0), Location(1)]), folder, facts={"settings": Settings().model_dump()})
    return folder


def test_results_against_a_folder(out: Path, truth: Path, tmp_path: Path) -> None:
    result = evaluate(out, truth, "--iou", "0.5,0.9", "--json", tmp_path / "f.json", "--pictures", tmp_path / "p")
    assert result.exit_code == 0, result.stderr
    assert "2 frames, 3 true objects" in result.stdout
    assert "1 true object was marked as an example" in result.stdout
    facts = json.loads((tmp_path / "f.json").read_text())
    first = facts["by_iou"][0]
    assert (first["tp"], first["fp"], first["fn"]) == (1, 1, 2)
    assert first["average_precision"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert facts["not_judged"] == 1
    assert [frame["frame"] for frame in facts["by_frame"]] == ["a", "b"]
    with Image.open(tmp_path / "p" / "a.png") as picture:
        assert picture.width >= 480
        assert picture.height > 160
    assert (tmp_path / "p" / "b.png").exists()


def test_a_picture_that_is_a_link_is_not_drawn(out: Path, truth: Path, tmp_path: Path) -> None:
    (picture,) = (out / JOURNAL_FOLDER).glob("*.jpg")
    users = tmp_path / "users.jpg"
    picture.replace(users)
    picture.symlink_to(users)
    assert evaluate(out, truth, "--pictures", tmp_path / "p").exit_code == 0
    with Image.open(tmp_path / "p" / "a.png") as drawn:
        assert drawn.getpixel((2, 150)) == (40, 44, 46)  # the dark ground of frames without a picture


def test_examples_that_are_left_out_of_the_results_are_known_all_the_same(tmp_path: Path) -> None:
    mask = InstanceMask(np.ones((10, 10), bool), 0, 0, SHAPE)
    example = Detection(mask, mask_to_polygon(mask), 1.0, 1.0, 1.0, kind=Kind.EXAMPLE)
    beside = InstanceMask(np.ones((10, 10), bool), 20, 0, SHAPE)
    found = Detection(beside, mask_to_polygon(beside), 0.9, 0.9, 0.5)
    truth = save(tmp_path / "truth" / "a_labels.png", squares((0, 0), (20, 0))).parent
    for left_out in (False, True):
        folder = tmp_path / str(left_out)
        journal = Journal(folder / JOURNAL_FOLDER, "f")
        journal.write(FrameRecord("a.tif", "a", Location(0), SHAPE, detections=(example, found)))
        records = list(recorded(journal, [Location(0)]))
        if left_out:
            records = [record.without_examples() for record in records]
        settings = Settings(leave_out_examples=left_out).model_dump()
        assemble(records, folder, facts={"settings": settings})
        assert hits(folder, truth, tmp_path) == {"a": (1, 0, 0)}


def test_what_holds_a_mark_of_the_unwanted_kind_is_judged(tmp_path: Path) -> None:
    cell, nucleus = (InstanceMask(np.ones((side, side), bool), at, at, SHAPE) for side, at in ((10, 0), (6, 2)))
    found = Detection(cell, mask_to_polygon(cell), 0.9, 0.9, 0.5)
    truth = save(tmp_path / "truth" / "a_labels.png", squares((0, 0), (20, 0))).parent
    for negative, judged in ((True, (1, 0, 1)), (False, (0, 0, 1))):
        folder = tmp_path / str(negative)
        journal = Journal(folder / JOURNAL_FOLDER, "f")
        marks = (ExampleMark(mask_to_polygon(nucleus), negative),)
        journal.write(FrameRecord("a.tif", "a", Location(), SHAPE, detections=(found,), examples=marks))
        assemble(recorded(journal, [Location()]), folder, facts={"settings": Settings().model_dump()})
        assert hits(folder, truth, tmp_path) == {"a": judged}


def results(folder: Path, *images: tuple[str, str, str]) -> Path:
    """Write results for images by full name, position and stem, with 1, 2, … squares on them."""
    journal = Journal(folder / JOURNAL_FOLDER, "f")
    for xy, (name, _, stem) in enumerate(images):
        masks = [InstanceMask(np.ones((10, 10), bool), 15 * n, 0, SHAPE) for n in range(xy + 1)]
        found = tuple(Detection(mask, mask_to_polygon(mask), 0.9, 0.9, 0.5) for mask in masks)
        journal.write(FrameRecord(name.split("/")[-1], stem, Location(xy), SHAPE, detections=found))
    frames = recorded(journal, [Location(xy) for xy in range(len(images))])
    named = zip(frames, images, strict=True)
    records = [replace(frame, position=position, full_name=name) for frame, (name, position, _) in named]
    assemble(records, folder, facts={"settings": Settings().model_dump()})
    return folder


def hits(out: Path, truth: Path, tmp_path: Path) -> dict[str, tuple[int, int, int]]:
    result = evaluate(out, truth, "--json", tmp_path / "hits.json", "--overwrite")
    assert result.exit_code == 0, result.stderr
    frames = json.loads((tmp_path / "hits.json").read_text())["by_frame"]
    return {frame["frame"]: (frame["tp"], frame["fp"], frame["fn"]) for frame in frames}


def test_each_position_of_a_file_is_judged(tmp_path: Path) -> None:
    out = results(tmp_path / "run", ("a.ome.tif", "p1", "a_p1"), ("a.ome.tif", "p2", "a_p2"))
    save(tmp_path / "true" / "a_p1_labels.png", squares((0, 0)))
    save(tmp_path / "true" / "a_p2_labels.png", squares((0, 0), (15, 0), (30, 20)))
    assert hits(out, tmp_path / "true", tmp_path) == {"a_p1": (1, 0, 0), "a_p2": (2, 0, 1)}


def test_a_file_stands_for_its_only_position(tmp_path: Path) -> None:
    save(tmp_path / "true" / "a_labels.png", squares((0, 0)))
    out = results(tmp_path / "one", ("a.ome.tif", "p1", "a_p1"))
    assert hits(out, tmp_path / "true", tmp_path) == {"a_p1": (1, 0, 0)}
    out = results(tmp_path / "two", ("a.ome.tif", "p1", "a_p1"), ("a.ome.tif", "p2", "a_p2"))
    assert "(a_p1, a_p2) is named after the same image" in refused(out, tmp_path / "true")


def test_images_that_share_a_stem_are_judged_apart(tmp_path: Path) -> None:
    out = results(tmp_path / "run", ("a.png", "", "a"), ("a.tif", "", "a_2"))
    save(tmp_path / "true" / "a_labels.png", squares((0, 0)))
    result = evaluate(out, tmp_path / "true")
    assert "1 frame, 1 true objects" in result.stdout
    assert "run has them: a_2." in result.stderr
    save(tmp_path / "true" / "a_2_labels.png", squares((0, 0), (15, 0)))
    assert hits(out, tmp_path / "true", tmp_path) == {"a": (1, 0, 0), "a_2": (2, 0, 0)}


SHARED = [("day1/a.png", "", "a"), ("day1/b.png", "", "b"), ("day2/a.png", "", "a_2"), ("day2/b.png", "", "b_2")]


def test_images_that_share_a_name_go_by_their_folders(tmp_path: Path) -> None:
    out = results(tmp_path / "run", *SHARED)
    for number, (name, _, _) in enumerate(SHARED, 1):
        corners = [(15 * n, 0) for n in range(number)]
        save(tmp_path / "true" / name.replace(".png", "_labels.png"), squares(*corners))
    for found in (out, out / "labels"):
        for day, number in (("day1", 1), ("day2", 3)):
            expected = {f"{day}/a.png": (number, 0, 0), f"{day}/b.png": (number + 1, 0, 0)}
            assert hits(found, tmp_path / "true" / day, tmp_path) == expected
            assert [each[0] for each in hits(tmp_path / "true" / day, found, tmp_path).values()] == [number, number + 1]
    assert "only " + str(out) + " has them: day1/a.png, day1/b.png" in evaluate(out, tmp_path / "true" / "day2").stderr
    drawn = evaluate(out, tmp_path / "true" / "day2", "--pictures", tmp_path / "drawn")
    assert drawn.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a_2.png", "b_2.png"]  # as the overlays


def test_label_images_are_read_from_the_folders_of_a_folder(tmp_path: Path) -> None:
    out, truth = results(tmp_path / "run", *SHARED), tmp_path / "true"
    for number, (name, _, _) in enumerate(SHARED, 1):
        corners = [(15 * n, 0) for n in range(number)]
        save(truth / name.replace(".png", "_labels.png"), squares(*corners))
    (truth / ".cache").mkdir()
    expected = {name: (number, 0, 0) for number, (name, _, _) in enumerate(SHARED, 1)}
    assert hits(out, truth, tmp_path) == expected
    assert list(hits(truth, out, tmp_path)) == ["day1/a", "day1/b", "day2/a", "day2/b"]
    assert evaluate(truth, out, "--pictures", tmp_path / "drawn").exit_code == 0
    assert len(list((tmp_path / "drawn").iterdir())) == 4
    # Where the folder itself has some, those count.
    save(truth / "b_labels.png", squares((0, 0)))
    assert "not clear whether b_labels.png" in refused(out, truth)


def test_results_of_two_runs_go_by_the_folders_of_the_images(tmp_path: Path) -> None:
    out = results(tmp_path / "run", *SHARED)
    other = results(tmp_path / "again", ("day2/a.png", "", "a"), ("day1/a.png", "", "a_2"))
    assert hits(out, other, tmp_path) == {"day1/a.png": (1, 0, 1), "day2/a.png": (1, 2, 0)}


def test_truth_that_could_be_of_several_images_is_refused(tmp_path: Path) -> None:
    out = results(tmp_path / "run", *SHARED)
    truth = save(tmp_path / "true" / "a_labels.png", squares((0, 0))).parent
    said = (
        "not clear whether a_labels.png belongs to day1/a.png or day2/a.png. Put the label images of each into a folder"
    )
    assert said in refused(out, truth)
    assert said in refused(truth, out)
    save(truth / "a_2_labels.png", squares((0, 0)))  # what the results are called
    assert list(hits(out, truth, tmp_path)) == ["day1/a.png", "day2/a.png"]


@pytest.mark.parametrize("name", ["image (1)", unicodedata.normalize("NFD", "zélle"), "x" * 120])
def test_results_and_truth_belong_together_whatever_the_image_is_called(tmp_path: Path, name: str) -> None:
    (stem,) = safe_stems([name])
    out = results(tmp_path / "run", (f"{name}.png", "", stem))
    save(tmp_path / "true" / f"{name}_labels.png", squares((0, 0)))
    for one, other in ((out, "true"), (out / "labels", "true"), (tmp_path / "true", "run/labels")):
        assert list(hits(one, tmp_path / other, tmp_path).values()) == [(1, 0, 0)]


def test_names_that_only_look_alike_do_not_belong_together(tmp_path: Path) -> None:
    save(tmp_path / "found" / "image (1).png", squares((0, 0)))
    save(tmp_path / "true" / "image [1]_labels.png", squares((0, 0)))
    assert "is named after the same image" in refused(tmp_path / "found", tmp_path / "true")


def test_two_label_images_of_any_name(tmp_path: Path) -> None:
    found = save(tmp_path / "found.tif", squares((0, 0), (20, 1)))
    true = save(tmp_path / "true.png", squares((0, 0), (20, 0)))
    result = evaluate(found, true, "--sizes", "50", "--iou", "0.75")
    assert result.exit_code == 0, result.stderr
    assert " AP" not in result.stdout
    assert result.stdout.splitlines()[3].split() == ["0.75", "2", "2", "0", "0", "1.000", "1.000", "1.000", "0.909"]
    assert "0 to 50" in result.stdout
    assert "50 and more" in result.stdout


def test_one_sided_files_are_told(tmp_path: Path, truth: Path) -> None:
    save(tmp_path / "found" / "a.tif", squares((0, 0)))
    save(tmp_path / "found" / "c.tif", squares((0, 0)))
    result = evaluate(tmp_path / "found", truth)
    assert result.exit_code == 0
    assert "found has them: c." in result.stderr
    assert "truth has them: b." in result.stderr


def test_stacks_are_judged_plane_by_plane(tmp_path: Path) -> None:
    planes = np.stack([squares((0, 0), (20, 20)), squares((20, 0), (40, 20))])
    for name in ("found", "true"):
        tifffile.imwrite(tmp_path / f"{name}.tif", planes, ome=True, metadata={"axes": "ZYX"})
    result = evaluate(tmp_path / "found.tif", tmp_path / "true.tif")
    assert result.exit_code == 0, result.stderr
    assert "2 frames, 4 true objects" in result.stdout
    save(tmp_path / "flat.tif", planes[0])
    result = evaluate(tmp_path / "found.tif", tmp_path / "flat.tif")
    assert "found: only 1 plane is on both sides" in result.stderr


def test_planes_that_were_not_searched_are_not_missed(tmp_path: Path) -> None:
    truth = tmp_path / "truth" / "a_labels.tif"
    truth.parent.mkdir()
    tifffile.imwrite(truth, np.stack([squares((0, 0))] * 3), ome=True, metadata={"axes": "TYX"})
    mask = InstanceMask(np.ones((10, 10), bool), 0, 0, SHAPE)
    found = Detection(mask, mask_to_polygon(mask), 0.9, 0.9, 0.5)
    out = tmp_path / "out"
    journal = Journal(out / JOURNAL_FOLDER, "f")
    times = [Location(0, time=1), Location(0, time=2)]
    for location, objects in zip(times, [(found,), ()], strict=True):
        journal.write(FrameRecord("a.tif", "a", location, SHAPE, size_t=3, detections=objects))
    assemble(recorded(journal, times), out, facts={"settings": Settings().model_dump()})
    expected = {"a Time 2": (1, 0, 0), "a Time 3": (0, 0, 1)}
    labels = out / "labels" / "a.tif"
    assert tifffile.imread(labels).reshape(3, *SHAPE).any(axis=(1, 2)).tolist() == [False, True, False]
    for predicted, true in ((out, truth.parent), (labels.parent, truth.parent), (labels, truth)):
        assert hits(predicted, true, tmp_path) == expected
    assert hits(truth, labels, tmp_path) == {"a Time 2": (1, 0, 0), "a Time 3": (0, 1, 0)}
    assert "a: only 2 planes are on both sides" in evaluate(labels, truth).stderr
    # A truth that lies beside a run.json has labels of all planes.
    (beside := out / "truth" / "a.tif").parent.mkdir()
    beside.write_bytes(truth.read_bytes())
    assert hits(truth, beside, tmp_path) == {f"a Time {time}": (1, 0, 0) for time in (1, 2, 3)}
    # Corrected labels beside those of the run are of what it has searched.
    (corrected := out / "corrected" / "a.tif").parent.mkdir()
    corrected.write_bytes(labels.read_bytes())
    assert hits(corrected, truth, tmp_path) == expected
    # Saved again as plain pages, of labels and of their truth.
    for path in (labels, truth):
        tifffile.imwrite(path, tifffile.imread(path).reshape(3, *SHAPE), photometric="minisblack")
        assert hits(labels, truth, tmp_path) == expected


@pytest.mark.parametrize(
    ("axes", "names"), [("ZYX", ["found Z 1", "found Z 2"]), ("TYX", ["found Time 1", "found Time 2"])]
)
def test_frames_are_called_as_in_results(tmp_path: Path, axes: str, names: list[str]) -> None:
    for name in ("found", "true"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.stack([squares((0, 0))] * 2), ome=True, metadata={"axes": axes})
    assert list(hits(tmp_path / "found.tif", tmp_path / "true.tif", tmp_path)) == names
    drawn = evaluate(tmp_path / "found.tif", tmp_path / "true.tif", "--pictures", tmp_path / "drawn")
    assert drawn.exit_code == 0
    assert sorted(path.stem for path in (tmp_path / "drawn").iterdir()) == names


def test_one_class_only(tmp_path: Path) -> None:
    found, true = save(tmp_path / "a.tif", squares((0, 0))), save(tmp_path / "a_labels.png", squares((0, 0), (20, 0)))
    assert "has no classes" in refused(found, true, "--tag", "living")
    (tmp_path / "a_classes.json").write_text('{"1": "living", "2": "dead"}')
    assert "there are: dead, living" in refused(found, true, "--tag", "undead")
    assert "1 true objects" in evaluate(found, true, "--tag", "living").stdout


def test_a_mask_is_split_into_its_parts(tmp_path: Path) -> None:
    mask = (squares((0, 0), (20, 20)) > 0).astype(np.uint8) * 255
    result = evaluate(save(tmp_path / "a.png", mask), save(tmp_path / "b.png", squares((0, 0), (20, 20))))
    assert "each of its 2 parts is an object" in result.stderr
    assert "2 true objects" in result.stdout
    grey = save(tmp_path / "g.png", np.repeat(squares((0, 0)).astype(np.uint8)[..., None], 3, axis=2))
    assert evaluate(grey, grey).exit_code == 0


def test_marked_objects_that_are_no_label_image_are_to_be_converted(tmp_path: Path) -> None:
    labels = save(tmp_path / "a.tif", squares((0, 0)))
    outlines = tmp_path / "truth" / "a.geojson"
    outlines.parent.mkdir()
    outlines.write_text('{"type": "FeatureCollection", "features": []}')
    for path, out in ((outlines, "a_labels.tif"), (outlines.parent, "labels --to labels")):
        said = refused(labels, path)
        assert "no label image" in said
        assert f"first: sam2-fewshot convert {path} {out} --image IMAGES" in said


def test_wrong_input_is_a_sentence(tmp_path: Path, truth: Path) -> None:
    labels = save(tmp_path / "a.tif", squares((0, 0)))
    assert "There is no file or folder" in refused(tmp_path / "none", labels)
    assert "must be numbers above 0 and at most 1" in refused(labels, labels, "--iou", "0.5,x")
    assert "must be numbers above 0" in refused(labels, labels, "--iou", "0")
    assert "must be numbers above 0, with" in refused(labels, labels, "--sizes", "-3")
    (tmp_path / "empty").mkdir()
    assert "There are no label images" in refused(tmp_path / "empty", labels)
    save(tmp_path / "other" / "z.tif", squares((0, 0)))
    assert "is named after the same image" in refused(tmp_path / "other", truth)
    small = save(tmp_path / "small.tif", squares((0, 0))[:20])
    assert "60 × 40 px, but its truth is 60 × 20 px" in refused(labels, small)
    colour = save(tmp_path / "colour.png", np.random.default_rng(0).integers(0, 9, (*SHAPE, 3), np.uint8))
    assert "is a colour image" in refused(colour, labels)
    save(truth / "a_mask.png", squares((0, 0)))
    assert "not clear which file" in refused(labels.parent / "other", truth)
    deep = tmp_path / "deep.tif"
    tifffile.imwrite(deep, np.stack([squares((0, 0))] * 2), ome=True, metadata={"axes": "ZYX"})


def test_labels_are_read_as_examples_are(tmp_path: Path) -> None:
    labels = squares((0, 0), (20, 0))
    floats = save(tmp_path / "floats.tif", labels.astype(np.float32))
    assert "2 true objects" in evaluate(floats, floats).stdout
    below = save(tmp_path / "below.tif", labels.astype(np.int16) - 1)
    assert "has negative values (-1)" in refused(floats, below)


@pytest.mark.parametrize(("axes", "slices", "planes"), [("TYX", 0, 4), ("TZYX", 2, 6)])
def test_plain_pages_are_the_planes_of_the_other_side(tmp_path: Path, axes: str, slices: int, planes: int) -> None:
    """They are its time points, or where it has slices as well, those of one time point after the other."""
    if slices:
        times = [np.stack([squares((10 * t, 10 * z)) for z in range(slices)]) for t in range(planes // slices)]
    else:
        times = [squares((10 * t, 0)) for t in range(planes)]
    plain, told = tmp_path / "plain.tif", tmp_path / "told.tif"
    tifffile.imwrite(plain, np.stack(times), photometric="minisblack")
    tifffile.imwrite(told, np.stack(times), ome=True, metadata={"axes": axes})
    for one, other in ((plain, told), (told, plain)):
        result = evaluate(one, other)
        assert f"{planes} frames, {planes} true objects" in result.stdout
        assert f"0.5      {planes}    {planes}      0       0" in result.stdout
        assert not result.stderr


def test_an_object_of_two_parts_is_one_where_other_planes_have_others(tmp_path: Path) -> None:
    both = squares((0, 0), (20, 0))
    series = np.stack([both, np.where(both > 0, 7, 0).astype(np.uint16)])
    path = tmp_path / "series.tif"
    tifffile.imwrite(path, series, ome=True, metadata={"axes": "TYX"})
    assert "2 frames, 3 true objects" in evaluate(path, path).stdout
    one_class = save(tmp_path / "a_labels.tif", np.where(both > 0, 1, 0).astype(np.uint16))
    (tmp_path / "a_classes.json").write_text('{"1": "living"}')
    assert "1 true objects" in evaluate(one_class, one_class, "--tag", "living").stdout


def test_what_is_there_is_not_written_over(tmp_path: Path, truth: Path, out: Path) -> None:
    before = {path: path.read_bytes() for path in [*truth.iterdir(), *out.rglob("*")] if path.is_file()}
    for options in (
        ("--pictures", truth),
        ("--json", truth / "a_labels.png"),
        ("--json", out / "run.json"),
    ):
        assert "is there already; give another name, or --overwrite." in refused(out, truth, *options)
    for options in (("--json", truth), ("--json", truth, "--overwrite")):
        assert "truth is there already and is a folder; give another name" in refused(out, truth, *options)
    assert {path: path.read_bytes() for path in before} == before
    drawn = tmp_path / "drawn"
    for options in ((), ("--overwrite",)):
        assert evaluate(out, truth, "--pictures", drawn, "--json", tmp_path / "f.json", *options).exit_code == 0
