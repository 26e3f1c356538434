"""Runs on files with several images: names of frames and results, choosing by name, examples by name."""

from __future__ import annotations

import csv
import json
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.errors import FewShotWarning, InputError, SettingsError
from sam2_fewshot.files.plan import make_plan
from sam2_fewshot.files.request import Request, request_again
from sam2_fewshot.files.run import run
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.runner.progress import Silent, Watch
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def discs() -> NDArray[np.uint16]:
    """Label image of four discs."""
    rows, columns = np.mgrid[:64, :64]
    labels = np.zeros((64, 64), np.uint16)
    for value, (row, column) in enumerate([(14, 14), (14, 48), (46, 16), (48, 48)], 1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= 49] = value
    return labels


SHAPES = {"B02": (64, 64), "B03": (64, 80), "C02": (60, 64)}


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """An OME-TIFF of three series of their own sizes, one with two slices, with four discs each."""
    path = tmp_path / "p.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for number, (name, (height, width)) in enumerate(SHAPES.items()):
            pixels = np.zeros((height, width), np.uint8)
            pixels[:64, :64] = (discs()[:height] > 0) * 200 + number
            stack = np.stack([pixels] * (2 if name == "C02" else 1))
            tif.write(stack, photometric="minisblack", metadata={"axes": "ZYX", "Name": name})
    return path


@pytest.fixture
def examples(plate: Path) -> Path:
    """Label image of two discs of the position B03."""
    labels = np.zeros((64, 80), np.uint16)
    labels[:, :64] = discs()[:, :64] * (discs()[:, :64] < 3)
    tifffile.imwrite(plate.parent / "B03_labels.tif", labels)
    return plate.parent / "B03_labels.tif"


def asked(plate: Path, examples: Path, **changes: Any) -> Request:
    return Request(**{"images": [plate], "examples": examples, "out": plate.parent / "out", **changes})


def names(request: Request) -> list[str]:
    """What the frames of a request are called."""
    plan = make_plan(request, Watch(Silent()))
    return [plan.name(frame) for frame in plan.frames]


def test_each_position_has_results_under_its_name(
    plate: Path, examples: Path, segmenters: Callable[..., Any], display: Any
) -> None:
    request = asked(plate, examples, write=["coco"])
    out = run(request, display, segmenters).out
    stems = ["p_B02", "p_B03", "p_C02"]
    assert [path.stem for path in sorted((out / "labels").iterdir())] == stems
    assert [path.stem for path in sorted((out / "geojson").iterdir())] == stems
    assert {path.stem for path in (out / "overlays").iterdir()} == {"p_B02", "p_B03", "p_C02_Z1_T1", "p_C02_Z2_T1"}
    assert [tifffile.imread(out / "labels" / f"{stem}.tif").shape[-2:] for stem in stems] == [*SHAPES.values()]
    with (out / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(dict.fromkeys((row["image"], row["position"], row["xy"]) for row in rows)) == [
        ("p.ome.tif", "B02", "1"),
        ("p.ome.tif", "B03", "2"),
        ("p.ome.tif", "C02", "3"),
    ]
    frames = json.loads((out / "run.json").read_text())["frames"]
    assert [(frame["position"], frame["z"], frame["examples"]) for frame in frames] == [
        *(("B02", 1, 0), ("B03", 1, 2), ("C02", 1, 0), ("C02", 2, 0)),
    ]
    page = (out / "report.html").read_text()
    assert all(name in page for name in ("p.ome.tif B02", "p.ome.tif C02 Z 2"))
    again = run(request, display, segmenters)
    assert again.resumed == 4
    # The results are examples again, whatever their format.
    images = open_images([plate], Settings())
    for path in (out / "coco.json", out / "geojson", out / "labels", out / "annotations.json"):
        placed = read_examples(path, images)
        assert sorted({item.location.xy for item in placed}) == [0, 1, 2]
        assert len(placed) == 16
    with pytest.warns(FewShotWarning, match=r"The channels of p\.ome\.tif are not known"):
        convert(out / "coco.json", plate.parent / "rois", "roi")
    assert [path.stem for path in sorted((plate.parent / "rois").iterdir())] == stems


def test_positions_are_chosen_by_number_and_by_name(plate: Path, examples: Path) -> None:
    for text, wanted in {
        "b0*": ["B02", "B03"],
        "p_C02": ["C02 Z 1", "C02 Z 2"],
        "1, C*": ["B02", "C02 Z 1", "C02 Z 2"],
        "1-3:2": ["B02", "C02 Z 1", "C02 Z 2"],
    }.items():
        assert names(asked(plate, examples, batch_xy=text)) == [f"p.ome.tif {name}" for name in wanted]
    with pytest.raises(SettingsError, match=r"'D\*' is not a number or a range.*there are B02, B03, C02"):
        names(asked(plate, examples, batch_xy="D*"))


def test_files_and_positions_count_on(plate: Path, examples: Path) -> None:
    tifffile.imwrite(plate.parent / "a.tif", np.zeros((9, 9), np.uint8))
    request = asked(plate, examples, images=[plate.parent / "a.tif", plate], batch_xy="1-3")
    assert names(request) == ["a.tif", "p.ome.tif B02", "p.ome.tif B03"]
    assert names(asked(plate, examples, images=[plate.parent / "a.tif", plate], batch_xy="a*")) == ["a.tif"]


@pytest.mark.parametrize("name", ["B03", "p_B03", "p.ome.tif B03", "p.ome.tif - B03"])
def test_examples_are_named_after_their_position(plate: Path, examples: Path, name: str) -> None:
    path = examples.rename(plate.parent / f"{name}_labels.tif")
    placed = read_examples(path, open_images([plate], Settings()))
    assert {item.frame.name for item in placed} == {"p.ome.tif B03"}


def test_examples_named_after_the_file_alone_are_not_clear(plate: Path, examples: Path) -> None:
    path = examples.rename(plate.parent / "p_labels.tif")
    with pytest.raises(
        InputError, match=r"which of the 3 images p_labels\.tif belongs; .* p_B02_labels\.tif for p\.ome"
    ):
        names(asked(plate, path))


def test_another_process_opens_the_same_position(plate: Path, examples: Path) -> None:
    plan = make_plan(asked(plate, examples), Watch(Silent()))
    for frame in plan.frames:
        address = pickle.loads(pickle.dumps(plan.address(frame)))
        opened = address.open()
        assert (opened.location, opened.shape) == (frame.location, frame.shape)
        assert (opened.read() == frame.read()).all()


def test_channels_are_asked_of_the_chosen_positions_only(plate: Path, examples: Path) -> None:
    path = plate.parent / "q.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for name, channels in (("one", ["DAPI"]), ("two", ["DAPI", "GFP"])):
            pixels = np.zeros((len(channels), 20, 30), np.uint8)
            metadata = {"axes": "CYX", "Name": name, "Channel": {"Name": channels}}
            tif.write(pixels, photometric="minisblack", metadata=metadata)
    yaml = plate.parent / "channels.yaml"
    yaml.write_text("- name: GFP\n")
    labels = plate.parent / "two_labels.tif"
    tifffile.imwrite(labels, np.pad(np.ones((5, 5), np.uint8), ((3, 12), (3, 22))))
    request = asked(path, labels, channels=yaml)
    with pytest.raises(SettingsError, match=r"q\.ome\.tif one has no channel called 'GFP'"):
        names(request)
    assert names(asked(path, labels, channels=yaml, batch_xy="two")) == ["q.ome.tif two"]


def test_what_to_mark_next_is_answered_by_position(
    plate: Path, examples: Path, segmenters: Callable[..., Any], display: Any
) -> None:
    out = run(asked(plate, examples), display, segmenters).out
    content = json.loads((out / "mark_next.json").read_text())
    listed = json.loads((out / "run.json").read_text())["mark_next"]
    assert {place["position"] for place in listed} == set(SHAPES)
    for each in content["annotations"]:
        each["tags"] = ["wrong"]
    answers = plate.parent / "answers.json"
    answers.write_text(json.dumps(content))
    again = request_again(out)
    second = run(replace(again, corrections=[answers]), display, segmenters).out
    assert json.loads((second / "run.json").read_text())["corrections"] == len(listed)
    assert not [line for line in display.lines if "marked on" in line]
