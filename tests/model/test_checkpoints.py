from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_fewshot.backbones import lasting_name
from sam2_fewshot.backbones.sam2.checkpoints import (
    CONTAINER_FOLDER,
    EMBEDDED_FOLDER,
    LARGE,
    MICRO,
    SAM2_GATES,
    TINY,
    Checkpoint,
    LocalCheckpoint,
    available,
    download_base,
    resolve,
    search_folders,
    sha256_of,
    user_cache_folder,
)
from sam2_fewshot.errors import CheckpointError


def test_the_folders_are_searched_in_the_documented_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    environ = {"SAM2_FEWSHOT_CHECKPOINTS": f"{first}{os.pathsep} {os.pathsep}{second}"}
    places = search_folders(environ)
    last = [CONTAINER_FOLDER, user_cache_folder(), EMBEDDED_FOLDER]
    assert places == [first, second, *last]
    assert search_folders({}) == last


def test_an_environment_that_names_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"SAM2_FEWSHOT_CHECKPOINTS names .*gone, which is not a folder"):
        search_folders({"SAM2_FEWSHOT_CHECKPOINTS": str(tmp_path / "gone")})
    with pytest.raises(CheckpointError, match="~nobody-of-that-name"):
        search_folders({"SAM2_FEWSHOT_CHECKPOINTS": "~nobody-of-that-name/x"})


def test_the_process_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / TINY.name).write_bytes(b"weights")
    monkeypatch.setenv("SAM2_FEWSHOT_CHECKPOINTS", str(tmp_path))
    assert resolve("tiny") == LocalCheckpoint(tmp_path / TINY.name, TINY)
    monkeypatch.setenv("SAM2_FEWSHOT_BASE_URL", "http://mirror/")
    assert download_base() == "http://mirror/"
    assert download_base({"SAM2_FEWSHOT_BASE_URL": " "}) is None


def test_a_machine_without_downloads_has_the_embedded_checkpoint(folders: list[Path]) -> None:
    found = resolve("auto", folders)
    assert found.checkpoint is MICRO
    assert found.path.parent == EMBEDDED_FOLDER
    assert available(folders) == [found]


def test_auto_takes_the_best_and_the_earlier_folder_wins(folders: list[Path]) -> None:
    for place in folders[:2]:
        (place / TINY.name).write_bytes(place.name.encode())
    (folders[1] / LARGE.name).write_bytes(b"weights")
    (folders[0] / "sam2.1_hiera_base_plus.pt").mkdir()  # not a file
    assert [each.checkpoint for each in available(folders)] == [LARGE, TINY, MICRO]
    assert resolve("auto", folders).checkpoint is LARGE
    assert resolve("sam2.1_hiera_tiny", folders).path.parent == folders[0]
    assert resolve("large", folders).path.parent == folders[1]


def test_a_known_but_absent_model_says_how_to_get_it(folders: list[Path]) -> None:
    with pytest.raises(CheckpointError) as caught:
        resolve("sam2.1_hiera_large.pt", folders)
    sentence = str(caught.value)
    assert "sam2-fewshot models fetch large" in sentence
    assert "SAM2_FEWSHOT_CHECKPOINTS" in sentence
    assert str(folders[0]) in sentence


@pytest.mark.parametrize("name", ["gigantic", "", "x" * 5000, "nul\0byte"])
def test_an_unknown_model_is_answered_with_the_known_names(name: str, folders: list[Path]) -> None:
    with pytest.raises(CheckpointError, match=r"no model called .*sam2\.1_hiera_base_plus\.pt.*sam2\.1_hiera_micro"):
        resolve(name, folders)


def test_a_broken_installation_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model on this machine; even sam2\.1_hiera_micro\.pt"):
        resolve("auto", [tmp_path])


def test_a_missing_path_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file .*none\.pt"):
        resolve(str(tmp_path / "none.pt"))
    with pytest.raises(CheckpointError, match="is a folder"):
        resolve(tmp_path)


def test_a_path_beats_every_folder(tmp_path: Path, folders: list[Path]) -> None:
    (folders[0] / TINY.name).write_bytes(b"shared")
    mine = tmp_path / TINY.name
    mine.write_bytes(b"mine")
    assert resolve(mine, folders) == LocalCheckpoint(mine, TINY)
    assert resolve(str(mine), folders).path == mine


def test_a_bare_name_is_sought_in_the_folders_and_then_here(
    tmp_path: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.pt").write_bytes(b"here")
    assert resolve("own.pt", folders).path == Path("own.pt")
    (folders[1] / "own.pt").write_bytes(b"cache")
    assert resolve("own.pt", folders).path.parent == folders[1]


def test_what_means_another_file_elsewhere_is_made_absolute(
    tmp_path: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAM2_FEWSHOT_CHECKPOINTS", str(folders[0]))
    for path in (tmp_path / "mine.pt", tmp_path / "known.pt", tmp_path / "filters", folders[0] / "known.pt"):
        path.write_text("weights")
    here = str(tmp_path / "mine.pt")
    assert [lasting_name(name) for name in ("mine.pt", "./mine.pt", Path("mine.pt"), here)] == [here] * 4
    names = ["auto", "tiny", "known.pt", "filters", "gone.pt"]  # what lies in a folder of models counts before the file
    assert [lasting_name(name) for name in names] == names
    assert lasting_name("models/gone.pt") == str(tmp_path / "models" / "gone.pt")


def test_a_yaml_file_beside_a_checkpoint_is_its_configuration(tmp_path: Path) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"weights")
    assert resolve(mine).checkpoint == Checkpoint("mine.pt", None)
    config = mine.with_suffix(".yaml")
    config.touch()
    assert resolve(mine).checkpoint == Checkpoint("mine.pt", str(config), gates=SAM2_GATES)


def test_the_yaml_file_wins_over_the_name_but_the_gates_stay(tmp_path: Path) -> None:
    for suffix in (".pt", ".yaml"):
        shutil.copy(EMBEDDED_FOLDER / f"sam2.1_hiera_micro{suffix}", tmp_path)
    checkpoint = resolve(tmp_path / MICRO.name).checkpoint
    assert checkpoint.config == str(tmp_path / "sam2.1_hiera_micro.yaml")
    assert checkpoint.gates == MICRO.gates


def test_a_renamed_copy_is_known_by_its_content(tmp_path: Path) -> None:
    copy = tmp_path / "renamed.pt"
    shutil.copy(EMBEDDED_FOLDER / MICRO.name, copy)
    assert resolve(copy).checkpoint is MICRO


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        sha256_of(tmp_path)


def test_a_folder_that_may_not_be_looked_at_holds_nothing(tmp_path: Path) -> None:
    class Forbidden(type(tmp_path)):  # type: ignore[misc]
        def is_file(self) -> bool:
            raise PermissionError(13, "Permission denied", str(self))

    assert resolve("auto", [Forbidden(tmp_path), *search_folders({})[-1:]]).checkpoint is MICRO


def test_looking_for_checkpoints_needs_no_torch() -> None:
    code = (
        "import sys; from sam2_fewshot import backbones; backbones.resolve('micro'); "
        "assert not {'torch', 'sam2', 'requests', 'hydra'} & set(sys.modules), 'heavy'"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ)
