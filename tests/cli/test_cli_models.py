"""``sam2-fewshot models``."""

from __future__ import annotations

import pytest

from sam2_fewshot.backbones.sam2.checkpoints import CHECKPOINTS, EMBEDDED_FOLDER, FOLDERS_VARIABLE, MICRO


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """Hide what checkpoints this machine has."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setenv(FOLDERS_VARIABLE, str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_list_tells_which_are_here(cli, empty_machine):
    (empty_machine / "sam2.1_hiera_tiny.pt").write_bytes(b"x" * 2_000_000)
    outcome = cli("models", "list")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [checkpoint.name for checkpoint in CHECKPOINTS]
    assert lines[1].split()[1:] == ["324", "MB", "no"]
    tiny = next(line for line in lines if line.startswith("sam2.1_hiera_tiny.pt"))
    assert tiny.endswith(f"2 MB          {empty_machine / 'sam2.1_hiera_tiny.pt'}")  # in one line, to be copied
    assert lines[-2:] == [
        "Without --model, sam2.1_hiera_tiny.pt is taken.",
        "Get another one: sam2-fewshot models fetch base_plus (or large, small)",
    ]


def test_list_when_the_environment_is_wrong(cli, monkeypatch):
    monkeypatch.setenv(FOLDERS_VARIABLE, "/nowhere/at/all")
    outcome = cli("models", "list")
    assert outcome.code == 2
    assert "/nowhere/at/all" in outcome.err


def test_path(cli):
    outcome = cli("models", "path", "micro")
    assert outcome.code == 0
    assert outcome.out.strip() == str(EMBEDDED_FOLDER / MICRO.name)


@pytest.mark.parametrize(
    ("name", "said"), [("large", "models fetch large"), ("nonsense", "no model called 'nonsense'")]
)
def test_path_of_what_is_not_there(cli, name, said):
    outcome = cli("models", "path", name)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.out == ""


def test_fetch_what_there_is_not(cli):
    outcome = cli("models", "fetch", "nonsense")
    assert outcome.code == 2
    assert outcome.err.startswith("Error: ")


def test_help_teaches(cli):
    outcome = cli("models")
    assert "fetch" in outcome.out + outcome.err


def test_fetch_what_is_here_already(cli):
    outcome = cli("models", "fetch", "micro")
    assert outcome.code == 0
    assert outcome.out.strip() == str(EMBEDDED_FOLDER / MICRO.name)
