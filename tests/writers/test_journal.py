import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from calls import calls_of
from recorded import recorded
from sam2_fewshot.annotations.record import ExampleMark, FrameRecord
from sam2_fewshot.errors import InputError
from sam2_fewshot.output.journal import BlockFolder, Journal, read_record, remove_other_blocks, remove_others
from sam2_fewshot.records import Detection, InstanceMask, Kind, Learned, Location
from sam2_fewshot.storage.packing import open_archive, unpack_detections

Make = Callable[..., FrameRecord]


def assert_same(a: FrameRecord, b: FrameRecord) -> None:
    for field in ("name", "stem", "location", "frame_shape", "size_z", "size_t", "candidates", "warnings", "learned"):
        assert getattr(a, field) == getattr(b, field)
    assert dict(a.seconds) == dict(b.seconds)
    assert (a.threshold, a.floor) == (b.threshold, b.floor)
    assert len(a.detections) == len(b.detections)
    for x, y in zip((*a.detections, *a.below), (*b.detections, *b.below), strict=True):
        assert x.kind == y.kind
        assert x.instance.box == y.instance.box
        assert x.instance.frame_shape == y.instance.frame_shape
        assert y.instance.data.dtype == bool
        assert np.array_equal(x.instance.data, y.instance.data)
        assert shapely.to_wkb(x.polygon) == shapely.to_wkb(y.polygon)
        assert (x.score, x.similarity, x.predicted_iou) == (y.score, y.similarity, y.predicted_iou)
        assert y.location == b.location
    for m, n in zip(a.examples, b.examples, strict=True):
        assert (m.negative, m.is_box) == (n.negative, n.is_box)
        assert shapely.to_wkb(m.outline) == shapely.to_wkb(n.outline)


def test_a_record_comes_back_exactly(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path / "out" / ".frames", "f")
    learned = Learned("Both are found again.", ("One is dim.",))
    record = replace(make_record(20, Location(2, 3, 4), size_z=5, size_t=6), learned=learned)
    kinds = [*Kind, *[Kind.FOUND] * 17]
    found = [replace(item, kind=kind) for item, kind in zip(record.detections, kinds, strict=True)]
    boxes = [ExampleMark(shapely.box(1, 2, 5, 9), negative=sign, is_box=True) for sign in (False, True)]
    record = replace(
        record,
        detections=tuple(found[:12]),
        below=tuple(found[12:]),
        examples=(*record.examples, *boxes),
        threshold=0.5,
        floor=0.25,
    )
    journal.write(record)
    again = journal.done(Location(2, 3, 4))
    assert again is not None
    assert_same(record, again)


figures = st.floats(-1, 1, allow_subnormal=True)
coordinates = st.floats(-1e6, 1e6)


@st.composite
def detections(draw: st.DrawFn) -> Detection:
    data = draw(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20)))
    instance = InstanceMask(data, draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6)), (2**31, 2**31))
    ring = draw(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9))
    return Detection(instance, shapely.Polygon(ring), draw(figures), draw(figures), draw(figures))


@settings(max_examples=50)
@given(
    st.lists(detections(), max_size=5),
    st.text(),
    st.dictionaries(st.text(), st.floats(0, 1e9), max_size=3),
    st.booleans(),
)
def test_whatever_was_found_comes_back_exactly(
    found: list[Detection], name: str, seconds: dict[str, float], negative: bool
) -> None:
    marks = tuple(ExampleMark(item.polygon, negative) for item in found[:2])
    record = FrameRecord(
        name, "s", Location(), (2**31, 2**31), detections=tuple(found), seconds=seconds, examples=marks
    )
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder), name)
        journal.write(record)
        again = journal.done(Location())
    assert again is not None
    assert_same(record, again)


def test_file_names_that_are_no_text_are_spelt_as_in_all_files(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path, "f")
    journal.write(make_record(name="a\udcff.png"))
    again = journal.done(Location())
    assert again is not None
    assert again.name == "a\\udcff.png"


def test_an_empty_or_missing_folder_holds_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "no", "f")
    assert journal.done(Location()) is None
    assert not (tmp_path / "no").exists()


def test_another_fingerprint_counts_as_not_done(tmp_path: Path, make_record: Make) -> None:
    Journal(tmp_path, "old").write(make_record(2))
    Journal(tmp_path, "new").write(make_record(2, Location(1)))
    new = Journal(tmp_path, "new")
    assert new.done(Location()) is None
    assert new.done(Location(1)) is not None
    assert Journal(tmp_path, "old").done(Location()) is not None
    assert Journal(tmp_path, "old").done(Location(1)) is None


def test_writing_again_replaces(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path, "f")
    journal.write(make_record(2))
    journal.write(make_record(5))
    again = journal.done(Location())
    assert again is not None
    assert len(again.detections) == 5
    assert len(list(tmp_path.iterdir())) == 1


def test_damaged_files_count_as_not_done(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path, "f")
    journal.write(make_record(9))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(0, len(whole), 37)]
    damaged += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, len(whole), 29)]
    damaged += [b"", b"not an archive", b"PK\x03\x04" + bytes(100)]
    for content in damaged:
        path.write_bytes(content)
        record = journal.done(Location())
        assert record is not None or journal.summary(Location()) is None
        if record is not None:  # a flipped bit in a place that does not matter, such as a date
            assert_same(make_record(9), record)


def test_a_summary_has_all_but_objects_and_makes_none(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path, "f")
    journal.write(make_record(9))
    with calls_of(unpack_detections) as made:
        summary = journal.summary(Location())
    whole = journal.done(Location())
    assert whole is not None
    assert summary is not None
    assert_same(summary, replace(whole, detections=(), examples=()))
    assert (summary.threshold, summary.floor, summary.below) == (whole.threshold, whole.floor, ())
    assert made == []
    assert Journal(tmp_path, "g").summary(Location()) is None


def test_others_are_removed_without_opening_ones_own(tmp_path: Path, make_record: Make) -> None:
    for xy, fingerprint in enumerate(["a-1", "a-2", "b-1", "a-3"]):
        Journal(tmp_path, fingerprint).write(make_record(1, Location(xy)))
    with calls_of(open_archive) as opened:
        remove_others(tmp_path, "a", ["a-1", "a-2"])
    assert len(opened) == 2
    left = [Journal(tmp_path, each).done(Location(xy)) for xy, each in enumerate(["a-1", "a-2", "b-1", "a-3"])]
    assert [record is not None for record in left] == [True, True, False, True]


def test_what_cannot_be_read_is_neither_missing_nor_removed(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path, "a-1")
    journal.write(make_record(1))
    (path,) = tmp_path.iterdir()
    path.unlink()
    path.symlink_to(path)  # the system opens no such circle
    for read in (journal.done, journal.summary):
        with pytest.raises(InputError, match=r"\.npz cannot be read: .*Run the same command again"):
            read(Location())
    with pytest.raises(InputError, match="cannot be read"):
        read_record(path)
    remove_others(tmp_path, "b")
    assert path.is_symlink()
    path.unlink()
    path.symlink_to("/proc/self/mem")  # it can be opened, and not read
    remove_others(tmp_path, "b")
    assert path.is_symlink()


def outlines(*shapes: object) -> dict[str, object]:
    parts = [shapely.to_wkb(shape) for shape in shapes]
    return {"outlines": np.frombuffer(b"".join(parts), np.uint8), "lengths": np.array([len(part) for part in parts])}


SQUARE = shapely.box(1, 1, 5, 5)


@pytest.mark.parametrize(
    ("header", "members"),
    [
        ({}, {"bits": np.zeros(10**7, np.uint8)}),  # more than the boxes hold
        ({}, {"boxes": np.array([[0, 0, 100, 2]]), "bits": np.zeros(25, np.uint8)}),  # the frame ends before
        ({}, {"boxes": np.array([[9, 0, 1, 2]]), "bits": np.zeros(0, np.uint8)}),
        ({}, {"figures": np.array([[np.nan, 0.5, 0.5]])}),
        ({}, {"figures": np.array([[0.5, np.inf, 0.5]])}),
        ({}, {"kinds": np.array([9], np.uint8)}),
        ({}, outlines(shapely.Point(1, 2), SQUARE, SQUARE)),
        ({}, outlines(shapely.MultiPolygon([SQUARE]), SQUARE, SQUARE)),
        ({}, outlines(shapely.Polygon(), SQUARE, SQUARE)),
        ({}, outlines(shapely.Polygon([(0, 0), (1e300, 3), (4, 4)]), SQUARE, SQUARE)),
        ({}, outlines(SQUARE, SQUARE, shapely.Point(np.inf, 0))),
        ({}, outlines(SQUARE, SQUARE, shapely.LineString([(0, 0), (1, 1)]))),
        ({"size_z": 10**9}, {}),
        ({"size_z": None}, {}),
        ({"size_t": "x"}, {}),
        ({"size_t": 0}, {}),
        ({"frame_shape": [0, 0]}, {}),
        ({"floor": None}, {}),
        ({"threshold": np.nan}, {}),
        ({"seconds": {"encode": np.inf}}, {}),
        ({"warnings": [None]}, {}),
        ({"negative": ["no", "yes"]}, {}),
        ({"learned": [5, ["x"]]}, {}),
    ],
)
def test_what_no_run_writes_counts_as_not_done(
    tmp_path: Path, make_record: Make, header: dict[str, object], members: dict[str, object]
) -> None:
    journal = Journal(tmp_path, "f")
    journal.write(make_record(1))
    (path,) = tmp_path.iterdir()
    with np.load(path) as archive:
        stored = {**archive, **members}
    written = {**json.loads(stored["header"].tobytes()), **header}
    stored["header"] = np.frombuffer(json.dumps(written).encode(), np.uint8)
    np.savez_compressed(path, **stored)
    assert read_record(path) is None
    assert journal.done(Location()) is None
    assert (journal.summary(Location()) is None) == bool(header)


def test_each_frame_has_blocks_of_its_own(tmp_path: Path) -> None:
    places = [Location(), Location(0, 1, 0), Location(0, 0, 1), Location(0, 1, 1)]
    frames = [BlockFolder(tmp_path, "c", "f", place, 0.5) for place in places]
    lower = BlockFolder(tmp_path, "c", "f", Location(), 0.25)
    for number, blocks in enumerate((*frames, lower)):
        blocks.write("1.npz", str(number).encode())
    assert [blocks.read("1.npz") for blocks in (*frames, lower)] == [b"0", b"1", b"2", b"3", b"4"]
    frames[0].drop()  # at all thresholds
    assert [blocks.read("1.npz") for blocks in (*frames, lower)] == [None, b"1", b"2", b"3", None]


@pytest.mark.parametrize("linked", [".frames", ".frames/blocks"])
def test_blocks_behind_a_link_are_stored_and_removed_and_nothing_else_there_is(linked: str, tmp_path: Path) -> None:
    scratch, folder = tmp_path / "scratch", tmp_path / "out" / ".frames"
    chapter = scratch / "thesis" / "one.txt" if linked.endswith("blocks") else scratch / "blocks" / "thesis" / "one.txt"
    chapter.parent.mkdir(parents=True)
    chapter.write_text("mine")
    (tmp_path / "out" / linked).parent.mkdir(parents=True)
    (tmp_path / "out" / linked).symlink_to(scratch)
    own, other = (BlockFolder(folder, common, "f", Location(), 0.5) for common in "ab")
    for blocks in (own, other):
        blocks.write("1.npz", b"found")
    remove_other_blocks(folder, "a")
    assert (own.read("1.npz"), other.read("1.npz")) == (b"found", None)
    own.drop()
    assert own.read("1.npz") is None
    assert [path for path in scratch.rglob("*") if path.is_file()] == [chapter]


def test_foreign_archives_count_as_not_done(tmp_path: Path, make_record: Make) -> None:
    journal = Journal(tmp_path, "f")
    journal.write(make_record(1))
    (path,) = tmp_path.iterdir()
    with np.load(path) as archive:
        members = dict(archive)
    header = json.loads(members["header"].tobytes())
    for change in ({"version": 1}, {"format": "other"}, {"location": [5, 0, 0]}, {"negative": []}):
        members["header"] = np.frombuffer(json.dumps({**header, **change}).encode(), np.uint8)
        np.savez(path, **members)
        assert journal.done(Location()) is None
    members["header"] = np.frombuffer(b"[]", np.uint8)
    np.savez(path, **members)
    assert journal.done(Location()) is None
    np.savez(path, x=np.array([{}], object))
    assert journal.done(Location()) is None


def test_a_folder_that_cannot_be_written_gives_a_sentence(tmp_path: Path, make_record: Make) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        Journal(tmp_path / "file" / ".frames", "f").write(make_record())


def test_a_killed_run_loses_only_the_frame_it_was_at(tmp_path: Path, make_record: Make) -> None:
    source = """
import os, sys
from pathlib import Path
from sam2_fewshot.records import Location
from sam2_fewshot.output.journal import Journal
from sam2_fewshot.annotations.record import FrameRecord

class Deadly(dict):
    def items(self):
        os._exit(9)  # killed while the file is written

journal = Journal(Path(sys.argv[1]), "f")
for number in range(3):
    seconds = Deadly(encode=1.0) if number == 2 else {"encode": 1.0}
    journal.write(FrameRecord("a", "a", Location(number), (4, 4), seconds=seconds))
"""
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=False)
    assert done.returncode == 9
    journal = Journal(tmp_path, "f")
    places = [Location(number) for number in range(3)]
    assert [record.location.xy for record in recorded(journal, places)] == [0, 1]
    assert len(list(tmp_path.glob(".*.part"))) == 1
    journal.write(make_record(1, Location(2)))
    assert len(recorded(journal, places)) == 3
