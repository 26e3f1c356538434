"""Settings of the form: the text of More settings, fields of older forms, empty fields, and what has no effect."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_fewshot.errors import SettingsError
from sam2_fewshot.nimbus.form import further_settings, interface
from sam2_fewshot.nimbus.form_values import more_settings, read_settings
from sam2_fewshot.settings import Settings, as_name


def read(**form: Any) -> tuple[Settings, list[str]]:
    """Read a form that has these values; ``_`` stands for a blank in a name."""
    return read_settings({name.replace("_", " "): value for name, value in form.items()})


@pytest.mark.parametrize(
    "text",
    [
        "max_examples = 50, scorer = lda, max_zoom=4.5",
        "max_examples = 50\nscorer = lda\r\n\n max_zoom = 4.5 \n",
        "max_examples = 50 scorer = lda  max_zoom = 4.5",  # lines, as a browser pastes them into a field of one line
        "max_examples=50;scorer='lda';max_zoom=4.5,",
        "max_examples = 50\tscorer = lda\tmax_zoom = 4.5",
        "max_examples＝50，scorer＝lda；max_zoom：4.5",
        "--max-examples=50 --scorer=lda --max-zoom=4.5",
        "max_examples: 50\nscorer: lda\nmax_zoom: 4.5",
        "Max Examples = 50, SCORER = lda, max-zoom = 4.5",
        "Max Examples = 50 Scorer = lda Max Zoom = 4.5",
    ],
)
def test_names_and_values_in_one_text(text):
    assert more_settings(text) == {"max_examples": 50, "scorer": "lda", "max_zoom": 4.5}
    settings, remarks = read(More_settings=text, Method="grid")
    assert settings == Settings(max_examples=50, scorer="lda", max_zoom=4.5, method="grid")
    assert not remarks


@pytest.mark.parametrize("text", [None, "", "  ", " , ;\n"])
def test_nothing_in_it(text):
    assert read(More_settings=text) == (Settings(), [])


def test_every_setting_without_a_field_of_its_own_can_be_written_there():
    for name, field in further_settings().items():
        value = "0.5" if field.default is None else str(field.default).lower()
        text = f"{name} = {value}"
        assert getattr(read(More_settings=text)[0], name) == (0.5 if field.default is None else field.default)
        assert more_settings(f"{field.title} = {value}") == more_settings(text)
        assert as_name(str(field.title)) == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "max_zom = 4",
            r"^There is no setting called 'max_zom'\. Did you mean max_zoom\? The settings are: max_examples",
        ),
        ("Max  Zom = 4", r"^There is no setting called 'Max  Zom'\. Did you mean max_zoom\?"),
        (
            "colour = red",
            r"^There is no setting called 'colour'\. The settings are: max_ex.*top_percent\.$",
        ),
        ("x" * 5000 + " = 1", r"^There is no setting called 'xxx.*…\. The settings are"),
        (
            "similarity_threshold = 0.6",
            r"^More settings has 'similarity_threshold', but Similarity Threshold has a fie",
        ),
        ("Points per side = 64", r"but Points per side has a field of its own in the form\. Set it there"),
        ("negative tag = x", r"but Negative Tag has a field of its own"),
        ("model = x", r"but Model has a field of its own"),
        ("max_zoom = 4, max_zoom = 4", r"^More settings has max_zoom twice\."),
        ("max_zoom 4", r"^More settings: 'max_zoom 4' is not a name with a value\. Write name = value, with commas"),
        ("max_zoom = 0,5", r"^More settings: '5' is not a name with a value\. .*a point before decimals"),
        ("max_zoom =", r"^More settings: a value of 'max_zoom' is missing in 'max_zoom ='"),
        ("max_zoom = '', scorer = lda", r"a value of 'max_zoom' is missing"),
        ("Leave Out Examples: true", r"^More settings has 'Leave Out Examples', which is for results in files;"),
        ("= 4", r"^More settings: a name is missing in '= 4'"),
        ("max_zoom = = 4", r"a value of 'max_zoom' is missing"),
        ("max_zoom = 4 = 5", r"a name is missing"),
        (7, r"^More settings is 7, but it must be a text like"),
        (["max_zoom = 4"], r"^More settings is \['max_zoom = 4'\], but it must be a text"),
    ],
)
def test_what_cannot_be_read(text, said):
    with pytest.raises(SettingsError, match=said) as caught:
        read(More_settings=text)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("max_zoom = 500", {"max_zoom": 500}),
        ("max_zoom = four", {"max_zoom": "four"}),
        ("max_examples = 2.5", {"max_examples": 2.5}),
        ("scorer = best", {"scorer": "best"}),
        ("compile = perhaps", {"compile": "perhaps"}),
        ("stability_gate = 2", {"stability_gate": 2}),
        ("stability_gate = nan", {"stability_gate": float("nan")}),
        ("black_percentile = 99.95", {"black_percentile": 99.95}),
        ("max_memory = 4 GB", {"max_memory": "4 GB"}),
    ],
)
def test_values_are_refused_in_the_sentences_of_the_settings(text, values):
    with pytest.raises(SettingsError) as own:
        Settings(**values)
    with pytest.raises(SettingsError) as caught:
        read(More_settings=text)
    assert str(caught.value) == str(own.value)


@given(st.text(alphabet="max_zo sc=:,;'4.\n\x00é", max_size=30))
def test_any_text_is_read_or_refused_in_a_sentence(text):
    said = "Done."
    try:
        read(More_settings=text)
    except SettingsError as error:
        said = str(error)
    assert said.endswith(".")
    assert len(said) < 600


OLD_FORM = {
    "Top Percent": 25,
    "Scorer": "mean",
    "Occupancy Levels": "one",
    "Features From": "crops",
    "Predicted IoU Gate": "",
    "Stability Gate": "",
    "Box NMS IoU": 0.7,
    "Max Zoom": 8,
    "Max Examples": 200,
    "Black Percentile": 0.1,
    "White Percentile": 99.9,
    "Precision": "auto",
    "Compile": False,
    "Batch Size": 0,
    "Points per Batch": 0,
    "Max Memory": 0,
    "Cache Size": 500,
}
"""Fields of version 0.2.0 that are no fields any more, at their defaults."""


def test_a_tool_saved_with_the_older_form():
    assert read_settings(OLD_FORM) == (Settings(), [])
    changed = {**OLD_FORM, "Scorer": "lda", "Max Zoom": "4", "Stability Gate": "0.9", "Compile": True, "Method": "grid"}
    settings, remarks = read_settings(changed)
    assert settings == Settings(scorer="lda", max_zoom=4, stability_gate=0.9, compile=True, method="grid")
    assert not remarks


def test_a_setting_in_more_settings_counts_before_the_field_of_an_older_form():
    settings, remarks = read_settings({**OLD_FORM, "More settings": "max_examples = 50, cache_size = 0"})
    assert settings == Settings(max_examples=50, cache_size=0)
    assert not remarks  # the fields were at their defaults, which nobody chose
    settings, (remark,) = read_settings({**OLD_FORM, "Max Examples": 90, "More settings": "max_examples = 50"})
    assert settings.max_examples == 50
    assert remark == "Max Examples is 90 in a field of an older form, and 50 in More settings, which counts."
    assert read_settings({"Max Examples": "50", "More settings": "max_examples = 50"})[1] == []
    assert read_settings({"Max Examples": "", "More settings": "max_examples = 50"})[1] == []


@pytest.mark.parametrize("blank", ["", "  ", None])
def test_an_empty_number_is_at_its_default_which_is_told(blank):
    settings, (remark,) = read(Min_Mask_Area=blank)
    assert settings == Settings()
    assert remark == "Min Mask Area is empty, so its default counts: 30. Type a number to have another."
    assert read(Stability_Gate=blank) == (Settings(), [])  # an optional one
    assert read() == (Settings(), [])  # a tool that was saved without it


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (
            {"Points_per_side": 64},
            "Points per side was set to 64, which has no effect with Method guided; it counts only with grid.",
        ),
        (
            {"Target_Occupancy": "0.3"},
            "Target Occupancy was set to 0.3, which has no effect with Method guided; it counts only with grid.",
        ),
        (
            {"More_settings": "top_percent = 10"},
            "Top Percent was set to 10.0, which has no effect with Threshold Mode fixed; it counts only with top.",
        ),
        (
            {"Similarity_Threshold": 0.7, "Threshold_Mode": "auto"},
            "Similarity Threshold was set to 0.7, which has no effect with Threshold Mode auto; it counts only with "
            "fixed.",
        ),
        ({"Scorer": "lda"}, "Scorer was set to lda, which has no effect with Method guided; it counts only with grid."),
        ({"Points_per_side": 128}, None),
        ({"Points_per_side": 64, "Method": "grid"}, None),
        ({"Min_Mask_Area": 10, "Size_Prior": "soft", "Smoothing": 0}, None),
    ],
)
def test_what_was_changed_without_effect_is_told(form, said):
    assert read(**form)[1] == ([] if said is None else [said])


def test_untouched_the_form_says_nothing():
    form = {name: field["default"] for name, field in interface(["a.pt"]).items() if "default" in field}
    assert read_settings(form) == (Settings(), [])
