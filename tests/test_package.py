"""What importing the package costs, and what it offers."""

from __future__ import annotations

import ast
import importlib
import importlib.resources
import json
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import sam2_fewshot
from sam2_fewshot.cli import main
from sam2_fewshot.errors import FAILED

SOURCE = Path(sam2_fewshot.__file__).parents[1]
HEAVY = {"torch", "torchvision", "sam2", "skimage", "scipy", "tifffile", "imagecodecs", "requests", "typer", "PIL"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(SOURCE)}
    )


def modules_after(code: str) -> set[str]:
    result = python("-c", f"{code}\nimport sys; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_import_is_light():
    assert not modules_after("import sam2_fewshot") & HEAVY


def test_every_module_can_be_imported():
    found = [module.name for module in pkgutil.walk_packages(sam2_fewshot.__path__, "sam2_fewshot.")]
    assert len(found) > 50
    for name in found:
        # One is a program, the others need napari and Qt.
        if not name.endswith("__main__") and not name.startswith("sam2_fewshot.napari."):
            importlib.import_module(name)


@pytest.mark.parametrize(
    "name", ["FewShotSegmenter", "Exemplar", "Settings", "Frame", "Detection", "InputError", "FrameReader", "Progress"]
)
def test_public_names(name):
    assert name in sam2_fewshot.__all__
    assert name in dir(sam2_fewshot)
    assert getattr(sam2_fewshot, name).__name__ == name


def test_the_names_that_type_checkers_read_are_those_that_are_there():
    tree = ast.parse((SOURCE / "sam2_fewshot" / "__init__.py").read_text(encoding="utf-8"))
    (written,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {name.asname for node in typed.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert written == sorted({*sam2_fewshot._HOMES, "__version__"})
    assert imported - {None} == set(sam2_fewshot._HOMES)


def test_public_names_need_no_torch():
    assert "torch" not in modules_after("from sam2_fewshot import *")


def test_unknown_name():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sam2_fewshot.nonsense


@pytest.mark.parametrize("arguments", ["--version", "--help", "segment --help", "models list", "interface"])
def test_looking_around_needs_neither_torch_nor_a_network(arguments):
    code = f"""
import sys
from sam2_fewshot.cli import app
try:
    app({arguments.split()!r})
except SystemExit as end:
    assert end.code in (0, None), end.code
assert not {{"torch", "requests"}} & set(sys.modules)
"""
    assert python("-c", code).returncode == 0


def test_main_is_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sam2-fewshot", "--version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"sam2-fewshot {sam2_fewshot.__version__}\n"


def test_ctrl_c_while_the_program_starts_is_a_sentence():
    code = """
import runpy, sys
class Pressed:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
runpy.run_module("sam2_fewshot", run_name="__main__")
"""
    ended = python("-c", code)
    assert (ended.returncode, ended.stderr) == (FAILED, "Error: Stopped.\n")


@pytest.mark.parametrize("arguments", ["segment --help", "interface"])
def test_output_in_an_encoding_without_some_letters_is_no_defect(arguments):
    ended = subprocess.run(
        [sys.executable, "-m", "sam2_fewshot", *arguments.split()],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": "ascii"},
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    if arguments == "interface":
        assert json.loads(ended.stdout)
    else:
        assert b"\\xd7" in ended.stdout, "that is how × is spelt"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("arguments", ["segment --help", "interface", "models list", "cache info"])
def test_a_reader_that_goes_is_no_defect(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "sam2_fewshot", *arguments.split()], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_version():
    result = python("-m", "sam2_fewshot", "--version")
    assert result.stdout == f"sam2-fewshot {sam2_fewshot.__version__}\n"


def test_is_typed_and_carries_its_files():
    files = importlib.resources.files(sam2_fewshot)
    assert (files / "py.typed").is_file()
    assert (files / "sample" / "nuclei.png").is_file()
    assert (files / "backbones" / "sam2" / "weights" / "sam2.1_hiera_micro.pt").is_file()


def test_apples_gpus_get_a_torch_that_can_resize_on_them():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in project["dependencies"]]
    on_macos = [each for each in wanted if each.marker and each.marker.evaluate({"sys_platform": "darwin"})]
    for name, without in (("torch", "2.6.0"), ("torchvision", "0.21.0")):
        assert [each.specifier.contains(without) for each in on_macos if each.name == name] == [False]
    elsewhere = [each for each in wanted if not each.marker or each.marker.evaluate({"sys_platform": "linux"})]
    assert all(each.specifier.contains("2.5.1") for each in elsewhere if each.name == "torch")
