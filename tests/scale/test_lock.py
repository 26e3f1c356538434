"""Two runs in one folder, and what is said about the last one."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from sam2_fewshot.errors import InputError
from sam2_fewshot.output.notes import read_notes
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.locks import only_run, run_at_work

if TYPE_CHECKING:
    from pathlib import Path

    from scale_scenes import Heard

HOLD = """
import sys
from pathlib import Path
from sam2_fewshot.storage.locks import only_run
from sam2_fewshot.protocols import Quiet
with only_run(Path(sys.argv[1]), Quiet()):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_keeps_another_out_until_it_dies(tmp_path: Path, heard: Heard) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        words = f"run is at work in {tmp_path.parent}.*process {other.pid} on"
        with pytest.raises(InputError, match=f"Another {words}"), only_run(tmp_path, heard):
            pass
        assert re.match(f"a {words}", run_at_work(tmp_path))
        other.kill()
    assert (tmp_path / "lock").exists()  # what is left means nothing
    assert run_at_work(tmp_path) == ""
    with only_run(tmp_path, heard):
        pass
    assert list(tmp_path.iterdir()) == []
    assert run_at_work(tmp_path) == ""


def test_a_folder_that_was_made_for_a_lock_goes_with_it_if_nothing_else_is_there(tmp_path: Path, heard: Heard) -> None:
    folder = tmp_path / "out" / ".frames"
    assert run_at_work(folder) == ""
    with only_run(folder, heard):
        assert run_at_work(folder)
    assert list(tmp_path.iterdir()) == []
    with only_run(folder, heard):
        (tmp_path / "out" / "notes.txt").write_text("mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "notes.txt"]


def test_a_run_that_ends_leaves_the_lock_of_the_next_alone(tmp_path: Path, heard: Heard) -> None:
    following = only_run(tmp_path, heard)

    class Followed(FileLock):  # type: ignore[misc,valid-type]
        """A lock that another run takes as soon as it is free."""

        def release(self, force: bool = False) -> None:
            super().release(force)
            following.__enter__()

    lock = Followed(tmp_path / "lock", timeout=0)
    with only_run(tmp_path, heard, lambda _: lock):
        pass
    with pytest.raises(InputError, match="Another run is at work"), only_run(tmp_path, heard):
        pass
    following.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_note_still_refuses(tmp_path: Path, heard: Heard) -> None:
    with only_run(tmp_path, heard):
        (tmp_path / "lock.json").write_text("{")
        with pytest.raises(InputError, match=r"at work in [^(]*\. Wait until"), only_run(tmp_path, heard):
            pass


def test_the_note_takes_the_place_of_a_link_and_leaves_its_target_alone(tmp_path: Path, heard: Heard) -> None:
    users, note = tmp_path / "users.json", tmp_path / "out" / "lock.json"
    users.write_text("mine")
    note.parent.mkdir()
    note.symlink_to(users)
    with only_run(note.parent, heard):
        assert f"process {os.getpid()} on" in run_at_work(note.parent)
    assert users.read_text() == "mine"
    note.mkdir()  # where none can be written, the lock is there without it
    with only_run(note.parent, heard):
        assert re.search(r"at work in [^(]*$", run_at_work(note.parent))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_the_place_of_the_note_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock.json")
    other = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path)], input="", capture_output=True, text=True, timeout=60, check=True
    )
    assert other.stdout == "held\n"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(
    code: int, tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    with only_run(tmp_path, heard):
        assert "cannot lock files" in heard.warnings[0]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lock").write_text("4242\nnode17\n")  # a killed run of another machine left it
    assert run_at_work(tmp_path) == ""
    with only_run(tmp_path, heard):
        assert "cannot lock files" in heard.warnings[1]


def facts(**settings: object) -> dict[str, object]:
    plain = Settings(**settings).model_dump(mode="json")
    images = {f"/in/im{number}.tif": "same" for number in range(5)}
    return {"settings": plain, "version": "1", "model": "a", "examples": "b", "channels": "", "images": images}


def test_what_changed_is_said(tmp_path: Path) -> None:
    assert read_notes(tmp_path).changes(facts()) == []
    read_notes(tmp_path).write(facts())
    assert read_notes(tmp_path).changes(facts()) == []
    now = {
        **facts(similarity_threshold=0.6, method="grid", max_memory=3, batch_size=2),
        "examples": "c",
        "channels": "d",
    }
    assert read_notes(tmp_path).changes(now) == [
        "Similarity Threshold was 0.5 and is 0.6",
        "Method was guided and is grid",
        "the examples changed",
        "the channels' colours and contrast changed",
    ]


def test_images_and_examples_that_another_version_noted_otherwise_are_not_said_to_have_changed(tmp_path: Path) -> None:
    read_notes(tmp_path).write(facts())
    images = {f"/in/im{number}.tif": "noted otherwise" for number in range(5)}
    now = {**facts(), "images": images, "examples": "noted otherwise", "version": "2"}
    assert read_notes(tmp_path).changes(now) == ["the program's version changed"]


def test_notes_are_put_back_as_they_were(tmp_path: Path) -> None:
    none = read_notes(tmp_path)
    none.put_back()
    none.write(facts())
    first = read_notes(tmp_path)
    first.write({**facts(), "examples": "c"})
    first.put_back()
    assert read_notes(tmp_path).changes(facts()) == []
    none.put_back()
    assert list(tmp_path.iterdir()) == []


def test_notes_that_cannot_be_put_back_are_told(tmp_path: Path) -> None:
    none = read_notes(tmp_path)
    (tmp_path / "inputs.json" / "taken").mkdir(parents=True)
    with pytest.raises(InputError, match=r"inputs\.json could not be written"):
        none.put_back()


def test_a_run_that_cannot_note_what_it_is_of_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"inputs\.json could not be written"):
        read_notes(tmp_path / "file").write(facts())


def test_images_that_changed_are_named(tmp_path: Path) -> None:
    read_notes(tmp_path).write(facts())
    now = {**facts(), "images": {"/in/im1.tif": "other", "/in/im2.tif": "same", "/in/new.tif": "new"}}
    assert read_notes(tmp_path).changes(now) == ["1 image changed (im1.tif)"]
    now = {**facts(), "images": {f"/in/im{number}.tif": "other" for number in range(5)}}
    assert read_notes(tmp_path).changes(now) == ["5 images changed (im0.tif, im1.tif, im2.tif, …)"]
    old = facts()
    del old["images"]
    read_notes(tmp_path).write(old)
    assert read_notes(tmp_path).changes(now) == []


@pytest.mark.parametrize("content", ["", "[]", '{"settings": 3}', json.dumps({"settings": {"gone": 1}})])
def test_a_damaged_note_about_inputs_says_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text(content)
    assert read_notes(tmp_path).changes(facts()) == []
