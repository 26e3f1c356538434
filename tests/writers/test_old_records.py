"""Results of versions that knew no kinds can be read, and are not taken for results of this one."""

import io
import json

import numpy as np
import pytest

from sam2_fewshot.output.journal import Journal, read_record
from sam2_fewshot.records import Kind, Location


@pytest.fixture
def old(make_record, tmp_path):
    """A frame's record as version 0.2.0 has written it."""
    journal = Journal(tmp_path, "f")
    journal.write(make_record(3))
    (path,) = tmp_path.glob("*.npz")
    with np.load(io.BytesIO(path.read_bytes())) as archive:
        members = {name: archive[name] for name in archive.files if name != "kinds"}
    header = json.loads(members["header"].tobytes())
    header["version"] = 3
    del header["boxes"]
    members["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **members)
    return journal, path


def test_it_is_read(old, make_record):
    _, path = old
    record = read_record(path)
    assert record is not None
    assert [item.kind for item in record.detections] == [Kind.FOUND] * 3
    assert [item.score for item in record.detections] == [item.score for item in make_record(3).detections]
    assert [mark.is_box for mark in record.examples] == [False, False]


def test_it_is_not_taken_over_because_the_examples_are_missing(old):
    journal, _ = old
    assert journal.done(Location()) is None
