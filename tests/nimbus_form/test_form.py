from __future__ import annotations

import json
import re

import pytest
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from sam2_fewshot.cli import app
from sam2_fewshot.errors import CheckpointError
from sam2_fewshot.nimbus.form import interface, present_checkpoints, setting_field
from sam2_fewshot.settings import FILES_ONLY, Settings

CHECKPOINTS = ["sam2.1_hiera_base_plus.pt", "sam2.1_hiera_tiny.pt", "sam2.1_hiera_micro.pt"]
FORM = interface(CHECKPOINTS)

PUBLISHED = [
    ("Training Tag", "tags", None),
    ("Batch XY", "text", None),
    ("Batch Z", "text", None),
    ("Batch Time", "text", None),
    ("Model", "select", "sam2.1_hiera_base_plus.pt"),
    ("Similarity Threshold", "number", 0.5),
    ("Target Occupancy", "number", 0.20),
    ("Points per side", "number", 128),
    ("Min Mask Area", "number", 30),
    ("Max Mask Area", "number", 0),
    ("Smoothing", "number", 0.3),
]
"""The few-shot worker's published table: name, type, default, in its order."""

WIDGETS = {"notes", "number", "text", "tags", "select", "checkbox"}


def in_order() -> list[str]:
    return sorted(FORM, key=lambda name: FORM[name]["displayOrder"])


def test_it_has_the_published_fields_in_their_order():
    assert [(name, FORM[name]["type"], FORM[name].get("default")) for name, _, _ in PUBLISHED] == PUBLISHED
    assert in_order()[1 : len(PUBLISHED) + 1] == [name for name, _, _ in PUBLISHED]


def test_it_begins_with_notes_that_are_no_input():
    first = in_order()[0]
    assert FORM[first]["type"] == "notes"
    note = FORM[first]["value"]
    assert note.count("<li>") == 3
    assert "Too much is found?" in note
    assert "Too little?" in note
    assert len(re.sub("<[^>]+>", "", note).split()) < 100
    assert "default" not in FORM[first]


def test_five_more_fields_come_after_them():
    assert in_order()[len(PUBLISHED) + 1 :] == [
        "Negative Tag",
        "Method",
        "Threshold Mode",
        "Size Prior",
        "More settings",
    ]
    assert len(FORM) == 17
    assert FORM["Method"]["items"] == list(Settings.model_fields["method"].annotation.__args__)


def test_a_setting_has_a_field_of_its_own_or_is_named_in_the_hint_of_more_settings():
    assert FORM["More settings"]["type"] == "text"
    hint = FORM["More settings"]["vueAttrs"]["hint"]
    listed = set(re.findall(r"[a-z_]+", hint))
    for name, field in Settings.model_fields.items():
        if name in FILES_ONLY:
            assert name not in listed
            assert field.title not in FORM
            continue
        assert (name in listed) != (field.title in FORM)
        assert (f"{name}: " in FORM["More settings"]["tooltip"]) != (field.title in FORM)
    assert "With Method grid: scorer, " in hint
    assert hint.endswith("With Threshold Mode top: top_percent.")
    assert "max_memory: at least 0 GB (0)" in FORM["More settings"]["tooltip"]
    assert "stability_gate: 0 to 1 (by the program)" in FORM["More settings"]["tooltip"]
    assert "compile: true, false (false)" in FORM["More settings"]["tooltip"]


def test_what_has_no_effect_with_the_default_method_says_so_first():
    idle = {"Points per side", "Target Occupancy"}
    assert {name for name in FORM if FORM[name].get("tooltip", "").startswith("No effect")} == idle
    for name in idle:
        assert FORM[name]["tooltip"].startswith("No effect with Method guided, which is the default. ")
        # The app puts it between two fields, so it names the one that is meant.
        assert FORM[name]["vueAttrs"] == {"hint": f"{name}: no effect with Method guided", "persistentHint": True}


def test_no_line_breaks_in_tooltips():
    # The app writes them as "<br>".
    assert not [name for name in FORM if "\n" in FORM[name].get("tooltip", "")]


@pytest.mark.parametrize("name", FORM)
def test_every_field_is_one_that_the_app_can_show(name):
    field = FORM[name]
    assert field["type"] in WIDGETS
    assert isinstance(field["displayOrder"], int)
    assert field["type"] == "notes" or len(field["tooltip"]) > 20
    if field["type"] == "select":
        assert field["default"] in field["items"]
        assert field["required"] is True
    if field["type"] == "number":
        # The browser sends 0 for a number without a default.
        # The app's slider ends at 100 where the form says nothing.
        assert field["min"] <= field["default"] <= field["max"]
        steps = (field["default"] - field["min"]) / field["step"]
        assert steps == pytest.approx(round(steps))


def test_it_is_json_and_keeps_its_order_when_the_server_sorts_it():
    stored = json.loads(json.dumps(FORM, sort_keys=True, allow_nan=False))
    assert stored == FORM
    assert len({field["displayOrder"] for field in stored.values()}) == len(stored)


def test_units_and_bounds_come_from_the_settings():
    assert FORM["Min Mask Area"]["unit"] == "px"
    assert FORM["Min Mask Area"]["max"] == 10**6
    assert (FORM["Points per side"]["min"], FORM["Points per side"]["max"], FORM["Points per side"]["step"]) == (
        16,
        256,
        1,
    )
    assert FORM["Similarity Threshold"]["step"] == 0.01
    assert "unit" not in FORM["Similarity Threshold"]
    assert "From 0.05 to 0.8. Default 0.2." in FORM["Target Occupancy"]["tooltip"]


def test_the_default_model_is_the_first():
    only = interface(["sam2.1_hiera_micro.pt"])
    assert only["Model"]["items"] == ["sam2.1_hiera_micro.pt"]
    assert only["Model"]["default"] == "sam2.1_hiera_micro.pt"


class Later(BaseModel):
    """Kinds of settings that may come."""

    fine: float = Field(0.125, title="Fine", description="Finely.", ge=0.0, le=1.0)
    free: float = Field(2.0, title="Free", description="No bounds.")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "fine",
            {
                "type": "number",
                "min": 0.0,
                "max": 1.0,
                "step": 0.001,
                "default": 0.125,
                "tooltip": "Finely. From 0 to 1. Default 0.125.",
            },
        ),
        ("free", {"type": "number", "step": 0.1, "default": 2.0, "tooltip": "No bounds. Default 2.0."}),
    ],
)
def test_other_numbers(name, expected):
    assert setting_field(Later.model_fields[name]) == expected


def test_models_are_those_that_are_there(tmp_path, monkeypatch):
    for name in ("sam2.1_hiera_tiny.pt", "sam2.1_hiera_base_plus.pt", "mine.pt", "sam2.1_hiera_large.pt.part"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.pt").mkdir()
    monkeypatch.setenv("SAM2_FEWSHOT_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert present_checkpoints() == [
        "sam2.1_hiera_base_plus.pt",
        "sam2.1_hiera_tiny.pt",
        "sam2.1_hiera_micro.pt",
        "mine.pt",
    ]


def test_a_folder_of_models_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM2_FEWSHOT_CHECKPOINTS", str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="nothing"):
        present_checkpoints()


def test_the_command_line_shows_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["interface"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == interface(present_checkpoints())
