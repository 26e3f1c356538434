"""Options generated from the settings, the settings file, patterns."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_fewshot.cli.options import expand, read_settings
from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.settings import Settings, bounds


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_help(cli, name):
    outcome = cli("segment", "--help")
    assert outcome.code == 0
    assert f"--{name.replace('_', '-')} " in outcome.out
    field = Settings.model_fields[name]
    words = " ".join(outcome.out.replace("│", " ").split())
    assert field.description in words
    assert field.default is None or f"Default {field.default}." in words
    assert f"Settings: {field.json_schema_extra['group']}" in outcome.out


def test_refine_leaves_settings_as_they_were(cli):
    words = " ".join(cli("refine", "--help").out.replace("│", " ").split())
    assert words.count("Left out: as before.") >= len(Settings.model_fields)
    assert "Default" not in words.replace("Default: this process alone.", "")
    assert "suits the checkpoint" not in words


def test_help_shows_worked_commands(cli):
    outcome = cli("segment", "-h")
    assert outcome.out.count("sam2-fewshot segment") >= 5  # usage and four examples
    assert "--training-tag Mitosis" in outcome.out


def test_help_names_what_is_read_and_written(cli):
    words = " ".join(cli("segment", "--help").out.replace("│", " ").split())
    for each in ("OME-Zarr labels", "mark_next.json", "Left out: the training tag, or object where none is given."):
        assert each in words


def test_no_arguments_is_help(cli):
    outcome = cli()
    assert "segment" in outcome.out + outcome.err
    assert "models" in outcome.out + outcome.err


@pytest.mark.parametrize("name", [n for n, f in Settings.model_fields.items() if bounds(f)[1] is not None])
@pytest.mark.parametrize("side", ["below", "above"])
def test_out_of_range_is_refused_in_the_settings_own_words(cli, name, side, tmp_path):
    field = Settings.model_fields[name]
    low, high = bounds(field)
    value = low - 1 if side == "below" else high + 1
    text = str(int(value)) if field.annotation is int else str(value)
    option = f"--{name.replace('_', '-')}"
    outcome = cli("segment", "x.png", "--examples", "y.png", "-o", tmp_path / "out", option, text)
    assert outcome.code == 2
    assert outcome.err.startswith(f"Error: {field.title} ({name}) is {text}, but it must be ")
    assert len(outcome.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["abc", "nan", "inf", "1,5", ""])
def test_nonsense_for_a_number(cli, value, tmp_path):
    outcome = cli("segment", "x.png", "--examples", "y.png", "-o", tmp_path / "out", "--similarity-threshold", value)
    assert outcome.code == 2
    assert "Similarity Threshold (similarity_threshold) is" in outcome.err


def test_option_before_file_before_default(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("similarity_threshold: 0.6\npoints-per-side: 32\n")
    settings = read_settings({"similarity_threshold": "0.7"}, config)
    assert settings == Settings(similarity_threshold=0.7, points_per_side=32)


def test_a_settings_file_takes_titles_as_the_report_has_them(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("Threshold Mode: fixed\nSimilarity Threshold: 0.3\nMax Mask Area: 0\n")
    assert read_settings({}, config) == Settings(similarity_threshold=0.3)


def test_settings_file_of_powershell(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_bytes("# Größe\r\nsimilarity_threshold: 0.3\r\n".encode("utf-16"))
    assert read_settings({}, config) == Settings(similarity_threshold=0.3)


def test_empty_settings_file(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("# nothing yet\n")
    assert read_settings({}, config) == Settings()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("similarity_threshold: 2", "is 2, but it must be a number from 0 to 1"),
        ("threshold: 0.5", "There is no setting called 'threshold'"),
        ("- 1\n- 2", "one setting a line"),
        ("a: [", "not valid YAML in line 1. Write one setting a line"),
        ("1: 2", "one setting a line"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        (b"\xff\xfe\x00", "not a text file in UTF-8; save it as one"),
        ("# Größe\nmin_mask_area: 3".encode("latin-1"), "not a text file in UTF-8; save it as one"),
        ("a: 2024-99-99", "not valid YAML"),
        ("#" * (2 << 20), "too large"),
    ],
)
def test_bad_settings_file(tmp_path, content, said):
    config = tmp_path / "settings.yaml"
    config.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=r"settings\.yaml") as caught:
        read_settings({}, config)
    assert said in str(caught.value)


def test_words_that_yaml_takes_for_true_or_false(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("size_prior: off\ncompile: off\n")
    assert read_settings({}, config) == Settings(size_prior="off", compile=False)
    for content, said in (
        ("similarity_threshold: yes", "is True, but it must be a number from 0 to 1"),
        ("min_mask_area: true", "is True, but it must be a whole number of at least 0"),
        ("stability_gate: no", "is False, but it must be a number from 0 to 1"),
        ("size_prior: on", "is True, but it must be off, soft or strict"),
    ):
        config.write_text(content)
        with pytest.raises(SettingsError) as caught:
            read_settings({}, config)
        assert said in str(caught.value)
    with pytest.raises(SettingsError, match="is True, but it must be a number"):
        Settings(similarity_threshold=True)


def test_option_alone_is_not_blamed_on_the_file(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("similarity_threshold: 0.4")
    with pytest.raises(SettingsError) as caught:
        read_settings({"similarity_threshold": "3"}, config)
    assert "settings.yaml" not in str(caught.value)


def test_missing_settings_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_settings({}, tmp_path / "none.yaml")


def test_patterns(tmp_path, monkeypatch):
    for name in ("a10.png", "a2.png", "b[1].png", "c.tif"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert expand(["c.tif", "a*.png"]) == [Path("c.tif"), Path("a2.png"), Path("a10.png")]
    assert expand(["b[1].png"]) == [Path("b[1].png")]
    assert expand([str(tmp_path / "**" / "a?.png")]) == [tmp_path / "a2.png"]
    for folder in ("day 1", "day [1]"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "d.tif").touch()
    for start in (Path(), tmp_path):
        assert expand([str(start / "day [1]" / "*.tif")]) == [start / "day [1]" / "d.tif"]
        assert expand([str(start / "day [12]" / "*.tif")]) == [start / "day 1" / "d.tif"]
    assert expand(["missing.png"]) == [Path("missing.png")]
    with pytest.raises(InputError, match=r"No file fits '\*\.czi'"):
        expand(["*.czi"])


def said_of(outcome):
    assert outcome.code == 2
    return " ".join(outcome.err.replace("│", " ").split())


@pytest.mark.parametrize("option", ["-o", "--examples", "--channels", "--object-model", "--save-model", "--config"])
def test_an_empty_path_is_refused(cli, images, examples, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    given = {"--examples": examples, "-o": "out", "--model": "filters", option: ""}
    said = said_of(cli("segment", images[0], *(word for pair in given.items() for word in pair)))
    assert f"'{option}'" in said
    assert "It is empty, as where a variable of the shell is not set; give a file or folder." in said
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_argument_is_refused(cli, examples):
    assert "The name of an image is missing. It is empty" in said_of(
        cli("segment", "", "--examples", examples, "-o", "out")
    )
    for command in (["report", ""], ["refine", ""], ["convert", "", "out"], ["evaluate", "a", ""]):
        assert "It is empty" in said_of(cli(*command))


@pytest.mark.parametrize("option", ["--examples", "--batch-xy", "--smoothing"])
def test_an_option_of_one_value_is_refused_a_second_time(cli, images, tmp_path, option):
    out = tmp_path / "out"
    outcome = cli("segment", images[0], "--examples", "a.png", "-o", out, option, "1", option, "2")
    times = 3 if option == "--examples" else 2
    assert f"'{option}': It was given {times} times, but takes one value." in said_of(outcome)


def test_what_may_be_given_twice(cli, images, examples, tmp_path):
    outcome = cli(
        *("segment", *images, "--examples", examples, "-o", tmp_path / "out", "--model", "none.pt"),
        *("--tag", "a", "--tag", "b", "--boxes", "--boxes", "--compile", "--no-compile"),
    )
    assert "none.pt" in said_of(outcome)
    assert "It was given" not in outcome.err


@pytest.fixture
def home(tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / "channels.yaml").write_text("- {index: 1, color: white}\n")
    (tmp_path / "settings.yaml").write_text("max_examples: 50\n")
    return tmp_path


def test_home_is_expanded(home):
    (home / "a.png").touch()
    assert expand(["~/*.png", "~/a.png"]) == [home / "a.png"] * 2


def test_home_is_expanded_in_every_option(cli, images, examples, home):
    outcome = cli(
        *("segment", f"~/{images[0].name}", "--examples", f"~/marked/{examples.name}", "-o", "~/out"),
        *("--channels", "~/channels.yaml", "--config", "~/settings.yaml", "--save-model", "~/learned.npz"),
        *("--model", "filters"),
    )
    assert outcome.code == 0, outcome.err
    assert (home / "learned.npz").is_file()
    assert cli("refine", "~/out", "--config", "~/settings.yaml", "-o", "~/second").code == 0
    assert (home / "second" / "run.json").is_file()
    outcome = cli(
        *("segment", f"~/{images[1].name}", "--object-model", "~/learned.npz", "-o", "~/third", "--model", "filters")
    )
    assert outcome.code == 0, outcome.err
    assert (home / "third" / "run.json").is_file()


def test_the_home_of_nobody_is_a_name(cli, images):
    said = said_of(cli("segment", images[0], "--examples", "~nobody-of-that-name/a.png", "-o", "out"))
    assert "~nobody-of-that-name" in said
    assert "no file" in said.lower()
    assert "defect" not in said


def test_a_switch_is_given_without_a_value(cli, images, examples, tmp_path):
    assert read_settings({"compile": True}, None).compile is True
    config = tmp_path / "settings.yaml"
    config.write_text("compile: true\n")
    assert read_settings({}, config).compile is True
    assert read_settings({"compile": False}, config).compile is False
    config.write_text("compile: perhaps\n")
    outcome = cli("segment", images[0], "--examples", examples, "-o", tmp_path / "out", "--config", config)
    assert outcome.code == 2
    assert "Compile (compile) is 'perhaps', but it must be true or false; the default is False." in outcome.err
