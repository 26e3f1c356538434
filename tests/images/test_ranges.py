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
        ("1-3，5", (0, 1, 2, 4)),
        ("", tuple(range(9))),
        ("  ", tuple(range(9))),
        (None, tuple(range(9))),
    ],
)
def test_what_users_write(text, expected):
    assert parse_range(text, 9, "Batch XY") == expected


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


def test_what_is_advised_is_valid():
    with pytest.raises(SettingsError, match="1-2 is valid here, as '1', '1-2' or 'all'"):
        parse_range("1-3, 5", 2, "Batch XY")


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-9:2", (0, 2, 4, 6, 8)),
        ("2-9 : 3", (1, 4, 7)),
        ("1-4:9", (0,)),
        ("all:4", (0, 4, 8)),
        ("1-9:4, 2", (0, 1, 4, 8)),
    ],
)
def test_ranges_with_steps(text, expected):
    assert parse_range(text, 9, "Batch XY") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1-9:0", "has the step 0"),
        ("3:2", "has a step but no range; write '3-9:2'"),
        ("1-9:", "is not a number or a range"),
        ("1-9:x", "is not a number or a range"),
        ("1-10:2", "does not exist"),
    ],
)
def test_steps_that_make_no_sense(text, said):
    with pytest.raises(SettingsError, match=said):
        parse_range(text, 9, "Batch XY")


NAMES = [("B02", "p_B02"), ("B03", "p_B03"), ("C02", "p_C02"), ("10", "p_10")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B0*", (0, 1)),
        ("b03", (1,)),
        ("*02", (0, 2)),
        ("p_c*", (2,)),
        ("B0[2]", (0,)),
        ("B02, 4", (0, 3)),
        ("all", (0, 1, 2, 3)),
        ("?0", (3,)),
    ],
)
def test_names_and_patterns(text, expected):
    assert parse_range(text, 4, "Batch XY", names=NAMES) == expected


def test_a_name_that_nothing_has():
    with pytest.raises(SettingsError, match=r"Batch XY: 'D\*' .*there are B02, B03, C02, 10\. Give numbers \(1-4\)"):
        parse_range("D*", 4, "Batch XY", names=NAMES)
    with pytest.raises(SettingsError, match="'10' does not exist"):  # a number is never a name
        parse_range("10", 4, "Batch XY", names=NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Well A/1, fld #1", (0,)),
        (" well a/1, FLD #1 ", (0,)),
        ("image [1].png", (2,)),
        ("image 1.png, image [1].png", (2, 3)),
        ("ze\u0301lle.png", (4,)),
        ("1, image*", (0, 2, 3)),
    ],
)
def test_a_name_goes_before_the_list_and_the_pattern_that_it_looks_like(text, expected):
    names = [["Well A/1, fld #1"], ["Well A/1, fld #2"], ["image [1].png"], ["image 1.png"], ["z\u00e9lle.png"]]
    assert parse_range(text, 5, "Batch XY", names=names) == expected
