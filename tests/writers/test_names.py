import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_fewshot.annotations.record import figure, hexadecimal_id, printable
from sam2_fewshot.images.stems import safe_stem, safe_stems


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("cells", "cells"),
        ("Zellen größer", "Zellen größer"),
        ("细胞_01", "细胞_01"),
        ("../x", "_x"),
        ("a/b\\c", "a_b_c"),
        ("<img src=x>", "_img src_x_"),
        ("con", "_con"),
        ("NUL.tif", "_NUL.tif"),
        ("com1", "_com1"),
        ("-rf", "_rf"),
        ("", "image"),
        ("...", "image"),
        (" a. ", "a"),
        ("a\x00b\nc", "a_b_c"),
        ("50%\"'`$;&|*?:", "50___________"),
    ],
)
def test_unsafe_names_become_safe(text: str, stem: str) -> None:
    assert safe_stem(text) == stem


def test_long_names_are_cut_and_still_differ() -> None:
    first, second = safe_stem("ä" * 300 + "1"), safe_stem("ä" * 300 + "2")
    assert first != second
    assert len(first.encode()) <= 100


def test_equal_names_are_told_apart_in_any_case() -> None:
    assert safe_stems(["a", "a", "A", "a_2", "b"]) == ("a", "a_3", "A_4", "a_2", "b")
    assert safe_stems(["a (1)", "a [1]", "a _1_"]) == ("a _1__2", "a _1__3", "a _1_")
    long = "x" * 300
    stems = safe_stems([long] * 12)
    assert len(set(stems)) == 12
    assert [safe_stem(stem) for stem in stems] == list(stems)


@given(st.text())
def test_any_text_gives_a_safe_name_that_stays(text: str) -> None:
    stem = safe_stem(text)
    assert stem
    assert len(stem.encode()) <= 100
    assert not re.search(r"[/\\<>:\"|?*\x00-\x1f&']", stem)
    assert stem == stem.strip(" .")
    assert not stem.startswith("-")
    assert safe_stem(stem) == stem


def test_names_with_accents_behind_the_letters_are_the_same() -> None:
    assert safe_stem("ze\u0301lle" * 30) == safe_stem("z\u00e9lle" * 30)


def test_no_image_is_called_like_a_plane_of_another() -> None:
    texts = ["a", "a_Z1_T1", "A_z2_t1", "b_Z1_T1", "b", "c_Z1_T1", "c"]
    stacks = [True, False, False, False, True, False, False]
    assert safe_stems(texts, stacks) == ("a", "a_Z1_T1_2", "A_z2_t1_2", "b_Z1_T1", "b_2", "c_Z1_T1", "c")


@given(st.lists(st.text(max_size=3), max_size=20))
def test_stems_are_distinct(texts: list[str]) -> None:
    stems = safe_stems(texts)
    assert len({stem.casefold() for stem in stems}) == len(texts)


def test_texts_that_are_no_text_become_printable() -> None:
    assert printable("é\udcff") == "é\\udcff"


def test_figures_are_rounded_and_never_nan() -> None:
    assert figure(0.12345678) == 0.123457
    assert figure(math.nan) is None
    assert figure(-math.inf) is None


def test_ids_depend_on_every_part() -> None:
    assert re.fullmatch("[0-9a-f]{24}", hexadecimal_id("a", 1))
    assert hexadecimal_id("a", 1) == hexadecimal_id("a", 1)
    assert hexadecimal_id("a", 1) != hexadecimal_id("a", 2)
