from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sam2_fewshot.annotations.tables import COLUMNS
from sam2_fewshot.cli import app
from sam2_fewshot.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_settings_page_is_the_settings() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate_settings.py"))["settings_page"]()
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page
    assert all(f"`{name}`" in page for name in Settings.model_fields)


def test_the_api_page_is_the_docstrings() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate_api.py"))["api_page"]()
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == page
    assert "### `FewShotSegmenter.segment(image)`" in page
    assert "### `FewShotSegmenter.predict(image, store=None, *, keep_proposed=False)`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    environment = {"COLUMNS": "500", "TERM": "dumb"}
    others = (["convert"], ["refine"], ["evaluate"], ["report"])
    commands = ([], ["segment"], ["demo"], *others, ["models", "list"], ["models", "fetch"], ["models", "path"])
    known = "".join(CliRunner().invoke(app, [*command, "--help"], env=environment).output for command in commands)
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"sam2-fewshot [^\n]*?(--[a-z][a-z-]+)", text)) | set(
        re.findall(r"`(--[a-z][a-z-]+)[ `]", text)
    )
    foreign = {"--index-url", "--slow", "--gpu", "--napari"}
    missing = sorted(option for option in named - foreign if option not in known)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_inside_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_every_column_of_the_table_is_explained() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    explained = re.search(r"^\| column \| what \|\n(.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    assert explained is not None
    names = [name for row in explained[1].splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(names) == sorted(COLUMNS)


def test_the_tests_that_contributors_are_told_to_run_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"scripts/test (tests/\S+)|`(tests/[\w/.]+)`", page)
    assert named
    assert not [path for pair in named for path in pair if path and not (ROOT / path).exists()]
