from __future__ import annotations

import math
from typing import get_args

import pytest

from sam2_fewshot.errors import SettingsError
from sam2_fewshot.settings import Settings, as_name, as_settings, bounds, condition_of

SEED_TABLE = {
    "similarity_threshold": ("Similarity Threshold", 0.5, 0.0, 1.0),
    "target_occupancy": ("Target Occupancy", 0.20, 0.05, 0.80),
    "points_per_side": ("Points per side", 128, 16, 256),
    "min_mask_area": ("Min Mask Area", 30, 0, None),
    "max_mask_area": ("Max Mask Area", 0, 0, None),
    "smoothing": ("Smoothing", 0.3, 0, None),
}


@pytest.mark.parametrize("name", SEED_TABLE)
def test_the_seeds_parameters_have_its_names_and_defaults(name: str) -> None:
    title, default, low, high = SEED_TABLE[name]
    field = Settings.model_fields[name]
    assert (field.title, field.default) == (title, default)
    assert bounds(field)[0] == low
    assert high is None or bounds(field)[1] == high


def test_every_setting_says_what_it_is() -> None:
    for field in Settings.model_fields.values():
        assert field.title
        assert field.description
        assert field.description.endswith(".")
        assert isinstance(field.json_schema_extra, dict)
        assert field.json_schema_extra["group"]


NUMERIC = [name for name, field in Settings.model_fields.items() if bounds(field)[0] is not None]


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("end", [0, 1])
def test_a_value_out_of_its_range_is_refused_by_name_and_value(name: str, end: int) -> None:
    limit = bounds(Settings.model_fields[name])[end]
    assert limit is not None
    bad = limit - 1 if end == 0 else limit + 1
    with pytest.raises(SettingsError) as refusal:
        Settings(**{name: bad})
    message = str(refusal.value)
    assert name in message
    assert f"{bad!r}" in message
    assert "default" in message
    assert "\n" not in message


def test_a_bound_that_is_refused_itself_is_told_so() -> None:
    with pytest.raises(SettingsError, match=r"is 0, but it must be a number of more than 0 and at most 100; the"):
        Settings(top_percent=0)


@pytest.mark.parametrize("value", ["many", "", [], {}, math.nan, math.inf, 20.5])
def test_a_value_of_the_wrong_kind_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match="Points per side"):
        Settings(points_per_side=value)


def test_a_number_given_as_text_is_a_number() -> None:
    assert Settings(points_per_side="32").points_per_side == 32


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'points'.*points_per_side"):
        Settings(points=3)


def test_an_unknown_setting_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"^There is no setting called 'max_zom'\. Did you mean max_zoom\? The "):
        Settings(max_zom=3)
    with pytest.raises(SettingsError, match=r"^There is no setting called 'colour'\. The settings are: "):
        Settings(colour=3)


def test_of_a_long_value_the_beginning_is_quoted() -> None:
    with pytest.raises(SettingsError, match=r"^Method \(method\) is 'xxx.*…, but it must be guided or grid") as refusal:
        Settings(method="x" * 9999)
    assert len(str(refusal.value)) < 200


def test_conditions_name_other_settings_and_their_values() -> None:
    for field in Settings.model_fields.values():
        condition = condition_of(field)
        assert field.description is not None
        assert field.description.startswith("Method grid: ") == (condition == ("method", "grid"))
        if condition is not None:
            assert condition.value in get_args(Settings.model_fields[condition.setting].annotation)


def test_a_title_and_a_name_are_the_same_name() -> None:
    assert {as_name(str(field.title)) for field in Settings.model_fields.values()} == set(Settings.model_fields)
    assert {as_name(name.replace("_", "-")) for name in Settings.model_fields} == set(Settings.model_fields)


def test_a_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(SettingsError, match=r"'half'.*auto, float32 or bfloat16"):
        Settings(precision="half")


def test_limits_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"20 px.*30 px"):
        Settings(max_mask_area=20)
    with pytest.raises(SettingsError, match="White Percentile"):
        Settings(black_percentile=50, white_percentile=50)


def test_a_changed_copy_is_checked_too() -> None:
    settings = Settings().changed({"points_per_side": 64})
    assert settings.points_per_side == 64
    with pytest.raises(SettingsError):
        settings.changed({"points_per_side": 1})


def test_a_bound_that_only_keeps_nonsense_out_is_told_to_who_exceeds_it() -> None:
    with pytest.raises(SettingsError, match=r"from 0 to 1e\+09"):
        Settings(min_mask_area=10**12)
    with pytest.raises(SettingsError, match=r"at least 0; the default is 30"):
        Settings(min_mask_area=-1)
    with pytest.raises(SettingsError, match="the default is to leave it out"):
        Settings(stability_gate=2)


def test_copies_are_checked_like_new_settings() -> None:
    settings = Settings(smoothing=1)
    assert settings.model_copy() == settings
    assert settings.model_copy(update={"smoothing": "2"}) == settings.changed({"smoothing": 2}) == Settings(smoothing=2)
    with pytest.raises(SettingsError, match=r"Similarity Threshold \(similarity_threshold\) is 7, but it must be"):
        settings.model_copy(update={"similarity_threshold": 7})
    with pytest.raises(SettingsError, match="Did you mean similarity_threshold"):
        settings.model_copy(update={"similarity_treshold": 0.2})


def test_an_assignment_is_told_how_settings_are_changed() -> None:
    settings = Settings()
    with pytest.raises(AttributeError, match=r"settings\.changed\(\{'smoothing': 2\}\)") as refusal:
        settings.smoothing = 2  # type: ignore[misc]
    assert "pydantic" not in str(refusal.value)
    assert settings == Settings()


def test_settings_may_be_given_as_a_mapping() -> None:
    settings = Settings(smoothing=1)
    assert as_settings(settings) is settings
    assert as_settings({"smoothing": 1}) == settings
    for wrong in (0.4, "strict", {1: 2}):
        with pytest.raises(SettingsError, match=r"must be Settings, such as Settings\(similarity_threshold=0\.4\)"):
            as_settings(wrong)  # type: ignore[arg-type]
