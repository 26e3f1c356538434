"""The shell scripts, as far as they can be tried without installing anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None or os.name == "nt", reason="needs bash")


def bash(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BASH), "-c", command], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("name", ["scripts/test", "scripts/demo", "scripts/tool", ".ci/run"])
def test_scripts_are_executable_and_parse(name):
    path = ROOT / name
    assert os.access(path, os.X_OK)
    assert subprocess.run([str(BASH), "-n", str(path)], check=False).returncode == 0


@pytest.fixture
def tools(tmp_path):
    """Make a folder with the one program that the set-up needs, and no Python."""
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    return tmp_path


def test_no_suitable_python_is_a_sentence(tools):
    result = bash(f"source {ROOT}/scripts/environment.sh; find_python", PATH=str(tools), PYTHON="nonsense")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("No Python 3.11 or newer was found.")


def test_too_old_a_python_is_passed_over(tools):
    old = tools / "python3.13"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    (tools / "python3").symlink_to(sys.executable)
    result = bash(f"source {ROOT}/scripts/environment.sh; find_python", PATH=str(tools))
    assert result.stdout == "python3\n"


def test_the_user_may_name_a_python(tools):
    result = bash(f"source {ROOT}/scripts/environment.sh; find_python", PATH=str(tools), PYTHON=sys.executable)
    assert result.stdout == f"{sys.executable}\n"


@pytest.fixture
def checkout(tmp_path):
    """A copy of the scripts, with a program that tells how it was called in place of the installed one."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    program = root / ".venv" / "bin" / "sam2-fewshot"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$(pwd -P) $*"\n')
    program.chmod(0o755)
    for name in ("pyproject.toml", ".venv/.installed-dev"):
        shutil.copy(ROOT / "pyproject.toml", root / name)
    return root


def demo(checkout: Path, where: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "demo", *options],
        cwd=where,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_demonstration_runs_where_the_user_is(checkout, tmp_path):
    result = demo(checkout, tmp_path, "-o", "out")
    assert result.returncode == 0
    assert result.stdout == f"{tmp_path.resolve()} demo -o out\n"


def test_a_tool_is_that_of_the_environment(checkout):
    tool = checkout / ".venv" / "bin" / "ruff"
    tool.write_text('#!/bin/sh\necho "ours $*"\n')
    tool.chmod(0o755)
    result = subprocess.run([checkout / "scripts" / "tool", "ruff", "a b"], capture_output=True, text=True, check=True)
    assert result.stdout == "ours a b\n"


def test_on_windows_programs_lie_in_another_folder(checkout, tmp_path):
    (checkout / ".venv" / "bin").rename(checkout / ".venv" / "Scripts")
    result = demo(checkout, tmp_path, OSTYPE="msys")  # as Git's bash has it
    assert result.returncode == 0
    assert result.stdout == f"{tmp_path.resolve()} demo\n"


@pytest.mark.parametrize("trouble", ["moved", "without Python"])
def test_an_environment_that_no_longer_works_is_made_anew(checkout, tmp_path, trouble):
    (checkout / ".venv" / ".place").write_text(f"{checkout if trouble != 'moved' else tmp_path / 'before'}/.venv\n")
    if trouble != "moved":
        (checkout / ".venv" / "bin" / "python").symlink_to(tmp_path / "uninstalled")
    made = tmp_path / "python"
    made.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && exit 0\nmkdir -p "$3/bin"; cp "$0" "$3/bin/python"\n'
        '[ "$2" = pip ] && ln -sf "$0" "$(dirname "$0")/sam2-fewshot"\n[ "$1" = demo ] && echo "anew"; exit 0\n'
    )
    made.chmod(0o755)
    result = demo(checkout, tmp_path, PYTHON=str(made))
    said = "was moved" if trouble == "moved" else "has lost its Python"
    assert f".venv {said}; it is made anew." in result.stderr
    assert result.stdout == "anew\n"
    assert (checkout / ".venv" / ".place").read_text() == f"{checkout.resolve()}/.venv\n"


def test_an_environment_is_kept_whatever_the_checkout_is_called(checkout, tmp_path):
    (checkout / ".venv" / ".place").write_text(f"{checkout}/.venv\n")
    (tmp_path / "link").symlink_to(checkout)
    result = demo(tmp_path / "link", tmp_path)
    assert result.returncode == 0
    assert result.stdout == f"{tmp_path.resolve()} demo\n"


def test_half_an_environment_is_not_kept(checkout, tmp_path):
    shutil.rmtree(checkout / ".venv")
    broken = tmp_path / "python"
    broken.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\nmkdir -p "$3/bin"; touch "$3/bin/python"; exit 1\n')
    broken.chmod(0o755)
    result = demo(checkout, tmp_path, PYTHON=str(broken))
    assert result.returncode == 1
    assert "install python3-venv" in result.stderr
    assert not (checkout / ".venv").exists()
