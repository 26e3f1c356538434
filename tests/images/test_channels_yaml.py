import re
from pathlib import Path

import pytest

from sam2_fewshot.errors import SettingsError
from sam2_fewshot.images.display import (
    DISTINCT,
    ChannelSetting,
    channel_styles,
    default_colors,
    parse_color,
    read_channels,
)


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "channels.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_channels(path)

    return read


def test_an_example_as_documented(read):
    page = Path(__file__).parents[2] / "docs" / "formats.md"
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    first, second, third = read(example)
    assert (first.name, first.color, first.mode, first.black, first.white) == ("DAPI", "#0000FF", "percentile", 1, 99.5)
    assert (second.index, second.mode, second.black, second.white) == (2, "absolute", 100, 4000)
    assert (third.index, third.visible, third.color) == (3, False, None)


def test_the_list_may_stand_under_channels(read):
    assert read("channels:\n  - color: red\n")[0].color == "red"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {index: 0}", "entry 1: index is 0"),
        ("- {index: two}", "index is 'two'"),
        ("- {name: a, index: 1}", "give name or index, not both"),
        ("- {colour: red}", "there is no 'colour'; use name, index, color"),
        ("- {color: reddish}", "color is 'reddish', but it must be like '#FF8000'"),
        ("- {color: '#12345'}", "color is '#12345'"),
        ("- {color: 'hsl(1,2%,3%)'}", "must be like"),
        ("- {mode: auto}", "mode is 'auto'"),
        ("- {black: 101}", "black is 101, but in mode percentile it must be from 0 to 100"),
        ("- {black: 5, white: 5}", "white is 5, which is not above black"),
        ("- {black: .nan}", "black is nan"),
        ("- {visible: 3}", "visible is 3"),
        ("- {mode: absolute, black: 5}", "needs both black and white"),
        ("- {}\n- 7", "entry 2: it must have lines"),
        ("- {1: 2}", "entry 1: it must have lines"),
        ("[]", "must be a list"),
        ("", "must be a list"),
        ("color: red", "must be a list"),
        ("- {a: [", "not valid YAML in line"),
        ("- !!python/object/apply:os.system ['x']", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
        ("#" * 1_000_001, "too large"),
    ],
)
def test_everything_else_is_one_sentence(read, text, said):
    with pytest.raises(SettingsError) as error:
        read(text)
    assert said in str(error.value)
    assert "channels.yaml" in str(error.value)
    assert len(str(error.value)) < 300


def test_a_bomb_of_references_is_not_written_out(read):
    levels = "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 9))
    with pytest.raises(SettingsError) as error:
        read(f"x0: &x0 [1]\n{levels}\nchannels: *x8")
    assert len(str(error.value)) < 300
    entry = levels.replace("\n", "\n  ")
    with pytest.raises(SettingsError) as error:
        read(f"- x0: &x0 [1]\n  {entry}\n- color: *x8")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_the_encodings_that_windows_writes(read, encoding):
    text = "- {name: Größe, color: red}\r\n"
    (channel,) = read(("\ufeff" * (encoding == "utf-16-be") + text).encode(encoding))
    assert channel.name == "Größe"


def test_a_missing_file(tmp_path):
    with pytest.raises(SettingsError, match=r"nothing\.yaml cannot be read: No such file"):
        read_channels(tmp_path / "nothing.yaml")


def styles(settings, names=("a", "b", None), colors=(None, None, None)):
    return channel_styles(names, colors, settings, 0.1, 99.9, "x.tif")


def test_channels_that_are_not_named_stay_as_by_default():
    found = styles([ChannelSetting(name="b", color="#102030", black=2.0)])
    assert found[0].color == DISTINCT[0]
    assert (found[1].color, found[1].black, found[1].white) == ((16, 32, 48), 2.0, 99.9)


def test_entries_without_name_or_index_count_through():
    found = styles([ChannelSetting(color="white"), ChannelSetting(visible=False)])
    assert found[0].color == (255, 255, 255)
    assert not found[1].visible
    assert found[2].visible


def test_range_is_of_the_whole_by_default():
    found = styles([ChannelSetting(mode="range", white=50.0)])
    assert (found[0].black, found[0].white) == (0, 50)


def test_a_name_that_is_not_there_lists_those_that_are():
    with pytest.raises(SettingsError, match=r"x\.tif has no channel called 'c'; its channels have 'a', 'b'"):
        styles([ChannelSetting(name="c")])
    with pytest.raises(SettingsError, match="no names"):
        channel_styles([None], [None], [ChannelSetting(name="c")], 0.1, 99.9, "x.tif")


def test_a_black_point_above_the_default_white_point_is_refused():
    with pytest.raises(SettingsError, match="Channel 1: white"):
        styles([ChannelSetting(black=99.95)])


def test_all_channels_off_is_refused():
    with pytest.raises(SettingsError, match=r"All channels of x\.tif are switched off"):
        channel_styles([None], [None], [ChannelSetting(visible=False)], 0.1, 99.9, "x.tif")


def test_default_colours():
    white, blue, red = (255, 255, 255), (0, 0, 255), (255, 0, 0)
    assert default_colors([red]) == (white,)
    assert default_colors([blue, red]) == (blue, red)
    assert default_colors([white, white]) == default_colors([None, None]) == default_colors([blue, None])
    assert default_colors([blue, (0, 0, 0)]) == default_colors([None, None])
    assert len(set(default_colors([None] * 10))) == 10
    assert len(default_colors([None] * 40)) == 40


def test_colours_by_name_and_number():
    assert parse_color("#f80") == (255, 136, 0)
    assert parse_color("Magenta") == (255, 0, 255)
