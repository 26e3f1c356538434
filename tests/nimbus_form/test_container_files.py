"""The container files, as far as they can be tried without an engine."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from sam2_fewshot.backbones.sam2.checkpoints import CONTAINER_FOLDER, find

ROOT = Path(__file__).parents[2]
IMAGES = ["Dockerfile", "Dockerfile_M1"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@dataclass
class Stage:
    """One stage of a build: its name, its base, and its instructions as (name, value)."""

    name: str
    base: str
    steps: list[tuple[str, str]]

    def values(self, instruction: str) -> list[str]:
        return [value for name, value in self.steps if name == instruction]


def parser(name: str) -> DockerfileParser:
    return DockerfileParser(fileobj=io.BytesIO((ROOT / name).read_bytes()))


def stages(name: str) -> list[Stage]:
    found: list[Stage] = []
    for entry in parser(name).structure:
        instruction, value = entry["instruction"], entry["value"]
        if instruction == "FROM":
            words = [word for word in value.split() if not word.startswith("--")]
            found.append(Stage(words[2] if len(words) > 2 else "", words[0], []))
        elif found:
            found[-1].steps.append((instruction, value))
    return found


def arguments(name: str) -> dict[str, str]:
    pairs = [value for stage in stages(name) for value in stage.values("ARG")]
    return {key: value.strip('"') for key, _, value in (pair.partition("=") for pair in pairs)}


def requirement(package: str, requirements: list[str]) -> str:
    return next(each for each in requirements if re.match(rf"{package}\b", each))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Dockerfile", {"isGPUWorker": "true", "com.nvidia.volumes.needed": "nvidia_driver"}),
        ("Dockerfile_M1", {"isGPUWorker": "false"}),
    ],
)
def test_the_final_stage_has_the_labels_that_the_app_reads(name, expected):
    labels = dict(parser(name).labels)
    assert {"isUPennContrastWorker", "isAnnotationWorker"} <= set(labels)
    assert "isPropertyWorker" not in labels
    assert labels["annotationShape"] == "polygon"
    for shown in ("interfaceName", "interfaceCategory", "description", "defaultToolName"):
        assert labels[shown].strip()
    hidden = {key: value for key, value in labels.items() if key.endswith("Panel") and value.lower() == "false"}
    assert not hidden
    gpu = {key: value for key, value in labels.items() if key in ("isGPUWorker", "com.nvidia.volumes.needed")}
    assert gpu == expected
    assert all(not stage.values("LABEL") for stage in stages(name)[:-1])


@pytest.mark.parametrize("name", IMAGES)
def test_the_entry_point_is_started_directly(name):
    final = stages(name)[-1]
    (entry,) = final.values("ENTRYPOINT")
    assert json.loads(entry) == ["python", "/sam2_fewshot/entrypoint.py"]  # as process 1, which gets the signals
    assert "--chmod=755 entrypoint.py /sam2_fewshot/" in final.values("COPY")  # whatever the checkout's mode bits are
    assert (ROOT / "entrypoint.py").is_file()
    assert not final.values("CMD")
    assert "conda" not in parser(name).content


@pytest.mark.parametrize("name", [*IMAGES, "tests/Dockerfile_Test"])
def test_what_is_copied_is_there(name):
    known: set[str] = set()
    for stage in stages(name):
        for copy in stage.values("COPY"):
            *sources, _ = [word for word in copy.split() if not word.startswith("--")]
            origin = re.search(r"--from=(\S+)", copy)
            if origin:
                assert origin[1] in known
            else:
                for source in sources:
                    assert (ROOT / source).exists()
                    assert not ignored(source)
        known.add(stage.name)


def ignored(path: str) -> bool:
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return any(Path(path).match(pattern) for pattern in patterns if pattern and not pattern.startswith("#"))


def test_the_context_has_all_that_git_has_but_no_clutter():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:  # not in a container, which has no git
        assert not [path for path in listed.stdout.splitlines() if ignored(path)]
    assert ignored(".git")
    assert ignored(".venv")
    assert ignored("src/sam2_fewshot/__pycache__")


@pytest.mark.parametrize("name", IMAGES)
def test_the_checkpoints_are_known_and_go_where_they_are_sought(name):
    names = arguments(name)["CHECKPOINTS"].split()
    assert names
    for each in names:
        checkpoint = find(each)
        assert checkpoint is not None
        assert checkpoint.sha256
    fetching = next(stage for stage in stages(name) if stage.name == "checkpoints")
    (run,) = fetching.values("RUN")
    assert "sam2-fewshot models fetch" in run
    assert "set -e" in run  # a wrong hash ends the build
    assert f"--from=checkpoints /checkpoints {CONTAINER_FOLDER}" in stages(name)[-1].values("COPY")


def test_the_gpu_image_has_the_default_model_of_the_published_table():
    assert "base_plus" in arguments("Dockerfile")["CHECKPOINTS"].split()


@pytest.mark.parametrize("name", IMAGES)
def test_versions_are_the_same_everywhere(name):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = environment["dependencies"]
    pip = next(each["pip"] for each in conda if isinstance(each, dict))
    given = arguments(name)
    assert requirement("torch", pip) == f"torch=={given['TORCH_VERSION']}"
    assert requirement("torchvision", pip) == f"torchvision=={given['TORCHVISION_VERSION']}"
    assert ".[nimbus]" in pip
    python = next(each for each in conda if isinstance(each, str) and each.startswith("python=")).partition("=")[2]
    bases = {stage.base for stage in stages(name)} - {stage.name for stage in stages(name)}
    assert bases == {f"python:{python}-slim-bookworm"}
    assert f"python{python}/site-packages" in parser(name).content
    lowest = requirement("torch", PROJECT["project"]["dependencies"]).partition(">=")[2]
    assert version(given["TORCH_VERSION"]) >= version(lowest)
    assert version(python) >= version(PROJECT["project"]["requires-python"].removeprefix(">="))


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_the_client_is_pinned_once():
    (extra,) = PROJECT["project"]["optional-dependencies"]["nimbus"]
    assert extra.startswith("nimbusimage==")
    assert not [each for each in PROJECT["dependency-groups"]["test"] if str(each).startswith("nimbusimage")]


def test_the_test_image_is_no_tool_in_the_app():
    *_, final = stages("tests/Dockerfile_Test")
    assert final.base.startswith("python:")  # labels are inherited from a base
    assert final.base == stages("Dockerfile")[-1].base
    assert not final.values("LABEL")
    assert json.loads(final.values("ENTRYPOINT")[0]) == ["python", "-m", "pytest"]
