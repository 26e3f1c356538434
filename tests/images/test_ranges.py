import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_fewshot.errors import SettingsError
from sam2_fewshot.images.addresses import parse_range


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-3, 5-8", (0, 1, 2, 4, 5, 6, 7)),
        ("3", (2,)),
        ("2, 1", (0, 1)),
        ("1,1,2", (0, 1)),
        (" 4 - 5 ", (3, 4)),
        ("2\u20133", (1, 2)),  # the dash that word processors make of a hyphen
        ("1,,2,", (0, 1)),
        ("all", tuple(range(9))),
        (" ALL ", tuple(range(9))),
        ("1-3, all", tuple(range(9))),
        ("", tuple(range(9))),
        ("  ", tuple(range(9))),
        (None, tuple(range(9))),
    ],
)
def test_what_users_write(text, expected):
    assert parse_range(text, 9, "Batch XY") == expected


@pytest.mark.parametrize("text", ["", None, "   "])
def test_blank_may_mean_the_current_position(text):
    assert parse_range(text, 9, "Batch Z", blank=[4]) == (4,)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("99", "'99'"),
        ("1, 8-10", "'8-10'"),
        ("0", "'0'"),
        ("0-2", "'0-2'"),
        ("a", "'a'"),
        ("1-3; 5", "'1-3; 5'"),
        ("-2", "'-2'"),
        ("2-", "'2-'"),
        ("1.5", "'1.5'"),
        (",", "','"),
        ("9" * 5000, "…"),
        ("x" * 5000, "…"),
        ("\u0661", "'\u0661'"),  # an Arabic digit
    ],
)
def test_everything_else_is_refused_with_field_part_and_range(text, part):
    with pytest.raises(SettingsError) as error:
        parse_range(text, 9, "Batch Time")
    message = str(error.value)
    assert message.startswith("Batch Time: ")
    assert part in message
    assert "1-9" in message
    assert len(message) < 200


def test_a_reversed_range_is_not_dropped():
    with pytest.raises(SettingsError, match=r"'3-1' runs backwards; write '1-3'"):
        parse_range("3-1", 9, "Batch XY")


def test_a_single_choice_is_named():
    with pytest.raises(SettingsError, match="only 1 is valid here, so leave it out or give 'all'"):
        parse_range("2", 1, "Batch Z")


@given(st.text(max_size=12), st.integers(1, 12))
def test_any_text_gives_valid_indices_or_a_sentence(text, count):
    try:
        found = parse_range(text, count, "Batch XY")
    except SettingsError:
        return
    assert found == tuple(sorted(set(found)))
    assert found[0] >= 0
    assert found[-1] < count
