import datetime
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from calls import calls_of
from recorded import recorded
from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.results import earlier_results
from sam2_fewshot.images.stems import safe_stems
from sam2_fewshot.output.assembly import Assembled, assemble, run_content
from sam2_fewshot.output.finished import overlay_path, read_finished, results_in
from sam2_fewshot.output.journal import JOURNAL_FOLDER, Journal, remove_others
from sam2_fewshot.output.notes import read_notes
from sam2_fewshot.records import Location
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.files import write_whole

Make = Callable[..., FrameRecord]


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_files_are_assembled_from_the_journal(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path / JOURNAL_FOLDER, "f")
    journal.write(make_record(4))
    for z in (0, 1):
        journal.write(make_record(2 + z, Location(1, z), name="stack.tif", size_z=2))
    facts = {"model": {"name": "micro"}, "seconds": {"learn": 2.0}, "frames": "ours is better"}
    records = recorded(journal, [Location(), Location(1), Location(1, 1)])
    summary = assemble(records, tmp_path, tags=["nucleus"], facts=facts, asked=4)
    assert (summary.counts.total, summary.seconds) == (9, {"learn": 2.0, "encode": 4.5, "propose": 0.75})
    assert [name for name in files_in(tmp_path) if not name.startswith(".")] == [
        "annotations.json",
        "detections.csv",
        "geojson/cells.geojson",
        "geojson/stack.geojson",
        "labels/cells.tif",
        "labels/stack.tif",
        "run.json",
    ]
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["model"] == {"name": "micro"}
    assert (run["frames_done"], run["frames_asked"], run["objects"]) == (3, 4, 9)
    assert run["seconds"] == summary.seconds
    assert run["tags"] == ["nucleus"]
    last = run["frames"][2]
    assert (last["image"], last["xy"], last["z"], last["time"]) == ("stack.tif", 2, 2, 1)
    assert (last["candidates"], last["objects"], last["examples"]) == (12, 3, 2)
    assert last["overlay"] == "overlays/stack_Z2_T1.png"
    assert last["warnings"] == ["It is dark."]
    assert tifffile.imread(tmp_path / "labels" / "stack.tif").max(axis=(1, 2)).tolist() == [2, 3]


def test_frames_are_looked_up_without_going_through_all(tmp_path: Path, make_record: Make) -> None:
    journal, places = Journal(tmp_path / JOURNAL_FOLDER, "f"), [Location(xy) for xy in range(9)]
    for place in places:
        journal.write(make_record(1, place))
    assemble(recorded(journal, places), tmp_path, facts={"settings": Settings().model_dump(mode="json")})
    finished = read_finished(tmp_path)
    with calls_of(Location.__init__) as callers:
        found = [finished.record(place) for place in places]
    assert [record and record.location for record in found] == places
    assert callers.count("_place_of") == 2 * len(places)
    assert finished.record(Location(9)) is None


def test_no_frame_at_all_gives_valid_empty_files(tmp_path: Path) -> None:
    assert assemble([], tmp_path) == Assembled(mark_next=[])
    assert files_in(tmp_path) == ["annotations.json", "detections.csv", "run.json"]


def test_assembling_again_gives_the_same_files(tmp_path: Path, make_record: Make) -> None:
    records = [make_record(3), make_record(2, Location(1), name="b.png")]
    assemble(records, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    assemble(records, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before


def test_unsafe_and_equal_stems_get_files_of_their_own(tmp_path: Path, make_record: Make) -> None:
    out = tmp_path / "out"
    stems = safe_stems(["../../up", "A", "a", "con"])
    assemble([make_record(1, Location(xy), stem=stem) for xy, stem in enumerate(stems)], out)
    assert sorted(path.name for path in (out / "labels").iterdir()) == [
        "A.tif",
        "_.._up.tif",
        "_con.tif",
        "a_2.tif",
    ]
    assert files_in(tmp_path) == ["out/" + name for name in files_in(out)]


def test_results_of_images_no_longer_asked_for_are_removed(tmp_path: Path, make_record: Make) -> None:
    first, second = make_record(1), make_record(1, Location(1), name="other.png")
    for record in (first, second):
        write_whole(overlay_path(tmp_path, record.stem, record.location, is_stack=False), b"a picture")
    assemble([first, second], tmp_path, facts={"settings": Settings().model_dump(mode="json")})
    (tmp_path / "labels" / "mine.tif").write_text("made by hand")
    assemble([first], tmp_path, before=earlier_results(tmp_path, read_notes(tmp_path), results_in(tmp_path)))
    assert files_in(tmp_path) == [
        "annotations.json",
        "detections.csv",
        "geojson/cells.geojson",
        "labels/cells.tif",
        "labels/mine.tif",
        "overlays/cells.png",
        "run.json",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '{"frames": [{}]}',
        '{"frames": 3}',
        "[" * 100_000,
        '{"frames": [{"stem": "../../x", "overlay": ".."}]}',
    ],
)
def test_a_strange_run_file_is_replaced(tmp_path: Path, make_record: Make, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    (tmp_path / "x.tif").write_text("not ours")
    assemble([make_record(1)], tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["frames_done"] == 1
    assert (tmp_path / "x.tif").exists()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *[(("settings", "similarity_threshold"), value) for value in (math.nan, math.inf, 1e308, 10**400)],
        (("settings", "min_mask_area"), math.nan),
        *[(("seconds", "encode"), value) for value in (math.nan, math.inf, 10**400)],
        *[(("object_model",), value) for value in ("/", True, {"sha256": ""})],
        *[(("frames_asked",), value) for value in (None, "x")],
        (("tags",), ["\ud800"]),
        (("frames", 0, "record"), "x" * 5000),
        (("frames", 0, "pixel_size_um"), [1e308, 1]),
    ],
)
def test_an_edited_run_file_is_called_damaged(
    tmp_path: Path, make_record: Make, place: tuple[str | int, ...], value: object
) -> None:
    assemble([make_record(1)], tmp_path, facts={"settings": Settings().model_dump(mode="json")})
    read_finished(tmp_path)
    facts = json.loads((tmp_path / "run.json").read_text())
    changed: Any = facts
    for key in place[:-1]:
        changed = changed[key]
    changed[place[-1]] = value
    (tmp_path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"run\.json is damaged, or is not one that sam2-fewshot wrote"):
        read_finished(tmp_path)


def test_a_run_file_that_cannot_be_read_is_not_called_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no results: there is no run\.json"):
        read_finished(tmp_path)
    (tmp_path / "run.json").symlink_to("run.json")  # it cannot be opened
    with pytest.raises(InputError, match=r"run\.json cannot be read: "):
        read_finished(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such devices here")
def test_devices_in_a_results_folder_are_refused_and_not_waited_for(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path / JOURNAL_FOLDER, "f-1")
    journal.write(make_record(1))
    (record,) = journal.folder.iterdir()
    for path in (tmp_path / "run.json", journal.folder / "inputs.json", record):
        path.unlink(missing_ok=True)
        path.symlink_to(os.devnull)
    readers: list[tuple[str, Callable[[], object]]] = [
        ("run.json", lambda: read_finished(tmp_path)),
        ("inputs.json", lambda: read_notes(journal.folder)),
        (record.name, lambda: journal.done(Location())),
        (record.name, lambda: journal.summary(Location())),
    ]
    for name, read in readers:
        with pytest.raises(InputError, match=f"{name} is not a file"):
            read()
    assert results_in(tmp_path) is None
    remove_others(journal.folder, "g")
    assert record.is_symlink()


def test_an_interruption_leaves_the_earlier_files(tmp_path: Path, make_record: Make) -> None:
    assemble([make_record(3)], tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}

    def interrupted() -> Iterator[FrameRecord]:
        yield make_record(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assemble(interrupted(), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_full_disk_gives_a_sentence_and_leaves_the_earlier_files(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path / JOURNAL_FOLDER, "f")
    journal.write(make_record(60))
    assemble([make_record(1)], tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    source = """
import resource, sys
from pathlib import Path
from sam2_fewshot.errors import InputError
from sam2_fewshot.output.journal import Journal
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.records import Location
out = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    assemble([Journal(out / ".frames", "f").done(Location())], out)
except InputError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("The disk is full: ")
    assert done.stderr.count("\n") == 1
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before


def test_an_output_folder_that_is_a_file_gives_a_sentence(tmp_path: Path, make_record: Make) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        assemble([make_record(1)], tmp_path / "out")


def test_an_abandoned_file_of_a_killed_run_is_swept(tmp_path: Path, make_record: Make) -> None:
    for name in ("labels", "rois"):  # the one is not asked for now
        (tmp_path / name).mkdir()
        abandoned = tmp_path / name / ".0123456789abcdef-cells.part"
        abandoned.write_text("")
        os.utime(abandoned, (0, 0))
    assemble([make_record(1)], tmp_path)
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["cells.tif"]
    assert not (tmp_path / "rois").exists()


def test_the_run_file_takes_whatever_facts_there_are() -> None:
    facts = {
        "nan": math.nan,
        "figure": np.float32(0.5),
        "count": np.int64(3),
        "yes": True,
        "none": None,
        "list": (1, [math.inf]),
        "array": np.array([[1.0, np.nan]]),
        "set": {"b", "a"},
        "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "path": Path("a") / "b",
        3: "text\udcff",
    }
    text = run_content(facts).decode()
    assert "NaN" not in text
    assert json.loads(text) == {
        "nan": None,
        "figure": 0.5,
        "count": 3,
        "yes": True,
        "none": None,
        "list": [1, [None]],
        "array": [[1.0, None]],
        "set": ["a", "b"],
        "when": "2026-01-02 00:00:00+00:00",
        "path": str(Path("a") / "b"),
        "3": "text\\udcff",
    }
