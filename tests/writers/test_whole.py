import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sam2_fewshot.errors import InputError
from sam2_fewshot.storage.files import remove, replacing, replacing_folder, replacing_together, sweep, telling


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_earlier_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.txt"
    path.write_text("old")
    fsync, flushed = os.fsync, []

    def noting(handle: int) -> None:
        flushed.append((stat.S_ISREG(os.fstat(handle).st_mode), path.read_text()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert flushed[0] == (True, "old")
    assert path.read_text() == "new"


@pytest.mark.parametrize("making", [replacing, replacing_folder])
def test_files_whose_long_names_end_alike_are_written_at_once(
    tmp_path: Path, making: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    paths = [tmp_path / f"{start}{'x' * 80}" for start in ("a", "b", "a")]
    with ExitStack() as stack:
        parts = [stack.enter_context(making(path)) for path in paths]
        assert len(set(parts)) == 3
        for part in parts:
            part.mkdir() if making is replacing_folder else part.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted(set(paths))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_a_failure_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException] | OSError
) -> None:
    path = tmp_path / "b.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(InputError if isinstance(error, OSError) else error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_program_killed_before_the_name_is_given_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text("old")
    source = """
import os, sys
from pathlib import Path
from typing import Any
from sam2_fewshot.storage.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("new, and whole")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", source, str(path)], check=False).returncode == 9
    assert path.read_text() == "old"
    (left,) = tmp_path.glob(".*.part")
    assert left.read_text() == "new, and whole"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full: .*run the same command again"),
        (errno.EACCES, "permission denied. Close the file if another program has it open"),
        (errno.EROFS, "its disk can only be read. See that it can be written"),
        (errno.EIO, "input/output error. See that its disk works, and run the same command again"),
        (errno.ENAMETOOLONG, "name too long. Choose another output folder"),
    ],
)
def test_system_errors_become_sentences(code: int, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught, telling(Path("out/labels/a.tif")):
        raise OSError(code, os.strerror(code))
    assert os.path.join("out", "labels", "a.tif") in str(caught.value)  # noqa: PTH118
    assert isinstance(caught.value.__cause__, OSError)


def test_a_file_in_the_way_of_a_folder_gives_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"), replacing(tmp_path / "file" / "x"):
        pass
    with pytest.raises(InputError, match="could not be written"), replacing(tmp_path / "nothing"):
        pass  # nothing was written at all


def test_sweeping_takes_only_what_was_abandoned(tmp_path: Path) -> None:
    names = (".fedcba9876543210-a.part", ".0123456789abcdef-a.part", ".1-a.part")
    old, new, other = (tmp_path / name for name in names)
    for path in (old, new, other):
        path.write_text("")
    for path in (old, other):
        os.utime(path, (0, 0))
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    assert sorted(tmp_path.iterdir()) == sorted([new, other])


def test_sweeping_takes_abandoned_folders_with_all_that_is_in_them(tmp_path: Path) -> None:
    first, second = ".0123456789abcdef", ".fedcba9876543210"
    names = (f"{first}-a.zarr.part", f"{second}-a.zarr.part", f"{second}-b.zarr.part")
    old, before, written = (tmp_path / name for name in names)
    users = tmp_path / ".notes.old"
    (tmp_path / "a.zarr").mkdir()
    for folder in (old, before, written, users):
        (folder / "0").mkdir(parents=True)
        (folder / "0" / "zarr.json").write_text("{}")
        for path in (folder / "0" / "zarr.json", folder / "0", folder):
            os.utime(path, (0, 0))
    os.utime(written / "0" / "zarr.json")  # a chunk that was just written leaves the folder's own time as it was
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([written, users, tmp_path / "a.zarr"])


@pytest.mark.parametrize("making", [replacing, replacing_folder])
def test_who_writes_into_a_folder_sweeps_it(
    tmp_path: Path, making: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    abandoned = tmp_path / ".0123456789abcdef-a.zip.part"
    abandoned.write_text("half")
    os.utime(abandoned, (0, 0))
    with making(tmp_path / "b") as temporary:
        temporary.mkdir() if making is replacing_folder else temporary.write_text("whole")
    assert list(tmp_path.iterdir()) == [tmp_path / "b"]


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[None]:
    """Let so many calls of these functions of the system pass, and stop at the next, which must come."""
    steps = iter(range(number))

    def killed(call: Callable[..., None], *args: Any, **options: Any) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        call(*args, **options)

    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(os, name, partial(killed, getattr(os, name)))
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize("number", range(1, 5))
def test_a_folder_that_was_to_be_replaced_never_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir()
    for name in ("zarr.json", "0"):
        (path / name).write_text("earlier results")
    with killed_at(number, monkeypatch, "replace", "unlink", "rmdir"), replacing_folder(path) as temporary:
        temporary.mkdir()
    if path.exists():
        remove(path)  # as by a run whose results have none
    for left in (*tmp_path.rglob("*"), *tmp_path.iterdir()):
        os.utime(left, (0, 0))
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", range(4))
def test_no_part_of_a_folder_stays_under_its_name_when_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "a.zarr"
    (path / "0").mkdir(parents=True)
    for name in ("zarr.json", "0/zarr.json"):
        (path / name).write_text("{}")
    with killed_at(number, monkeypatch, "unlink", "rmdir"):
        remove(path)
    assert not path.exists()
    for left in (*tmp_path.rglob("*"), *tmp_path.iterdir()):
        os.utime(left, (0, 0))
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_of_a_link_to_a_folder_the_link_alone_is_removed(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.mkdir()
    (users / "a.txt").write_text("mine")
    link = tmp_path / "a.zarr"
    try:
        link.symlink_to(users, target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    remove(link)
    assert [path.name for path in tmp_path.rglob("*")] == ["users", "a.txt"]


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "in use"), KeyboardInterrupt()])
def test_a_folder_that_cannot_be_replaced_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "zarr.json").write_text("earlier results")
    replace, errors = type(path).replace, iter([error])

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == ".part" and (trouble := next(errors, None)):
            raise trouble
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", failing)
    with pytest.raises((InputError, KeyboardInterrupt)), replacing_folder(path) as temporary:
        temporary.mkdir()
    assert list(tmp_path.iterdir()) == [path]
    assert (path / "zarr.json").read_text() == "earlier results"


def test_a_long_finished_folder_is_not_swept_while_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "zarr.json").write_text("earlier results")
    for old in (path / "zarr.json", path):
        os.utime(old, (0, 0))
    replace = type(path).replace

    def failing(self: Path, target: Path) -> Path:
        if target == path and not (self / "zarr.json").exists():  # the new one
            sweep(tmp_path)  # as another run does that begins at this moment
            raise PermissionError(errno.EACCES, "in use")
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", failing)
    with pytest.raises(InputError, match="permission denied"), replacing_folder(path) as temporary:
        temporary.mkdir()
    assert (path / "zarr.json").read_text() == "earlier results"


def test_of_files_that_belong_together_none_stays_where_one_cannot_be_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.txt").write_text("the user's")
    replace = type(tmp_path).replace

    def failing(self: Path, target: Path) -> Path:
        if target == tmp_path / "c.txt":
            raise PermissionError(errno.EACCES, "in use")
        return replace(self, target)

    def write() -> None:
        with replacing_together(tmp_path, lambda place: None) as temporary:
            for name in ("a.txt", "c.txt"):
                (temporary / name).write_text("new")

    monkeypatch.setattr(type(tmp_path), "replace", failing)
    with pytest.raises(InputError, match="permission denied"):
        write()
    assert [each.name for each in tmp_path.iterdir()] == ["b.txt"]
